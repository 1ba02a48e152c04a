//! Bootstrap manifests: read from the ConfigMaps beside the Cluster, applied to the workload cluster.
//!
//! [`fleetwright_core::manifests`] says when, in which order, and what the answers come to. Nothing is ever deleted there.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{Cluster, meta};
use fleetwright_core::manifests::{
    Answer, Attempt, Document, MAX_DOCUMENTS, Source, Standing, Step, contents, documents, hash_of,
    ordered, step, sum, whole,
};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::APIResourceList};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::Shared;
use crate::{cache::name_of, trail::Deeds};

/// How long one request to a workload cluster may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long documents are sent one after the other before the Cluster's other affairs have their turn.
const TURN: Duration = Duration::from_secs(10);

/// The last try for each cluster, by the Cluster's namespace and name.
#[derive(Default)]
pub(crate) struct Manifests {
    clusters: Mutex<BTreeMap<(String, String), (Attempt, Instant)>>,
    /// How many documents of the content with this hash the cluster has taken, where it has not taken them all.
    begun: Mutex<BTreeMap<(String, String), (String, usize)>>,
}

impl Manifests {
    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.clusters.lock().remove(&key);
        self.begun.lock().remove(&key);
    }
}

/// What is known of a cluster's manifests now.
#[derive(Default)]
pub(super) struct Looked {
    /// How far they have come; `None` where nobody need look.
    pub(super) standing: Option<Standing>,
    /// After how long to look again though nothing changes.
    pub(super) next: Option<Duration>,
}

/// Brings a cluster its manifests, if that is due; `serves` is whether a control-plane machine of it has served.
pub(super) async fn look(shared: &Shared, cluster: &Cluster, serves: bool) -> Looked {
    let key = name_of(cluster);
    let last = shared.manifests.clusters.lock().get(&key).cloned();
    let since = last.as_ref().map(|(last, at)| (last, at.elapsed()));
    match step(cluster, serves, since) {
        Step::Rest => Looked::default(),
        Step::Refuse(why) => Looked {
            standing: Some(Standing::Refused(why)),
            next: None,
        },
        Step::Pause(left) => Looked {
            standing: last.map(|(last, _)| last.standing),
            next: Some(left),
        },
        Step::Look(wanted) => {
            let standing = bring(shared, cluster, &wanted).await;
            let all_known = whole(&wanted).is_some();
            let attempt = Attempt::after(last.as_ref().map(|(last, _)| last), wanted, standing);
            let standing = attempt.standing.clone();
            // What Git holds wakes us when it changes.
            let rests = all_known && matches!(standing, Standing::Applied(_));
            let next = (!rests).then(|| attempt.holds());
            let mut clusters = shared.manifests.clusters.lock();
            match rests {
                true => clusters.remove(&key),
                false => clusters.insert(key, (attempt, Instant::now())),
            };
            Looked {
                standing: Some(standing),
                next,
            }
        }
    }
}

/// Reads the manifests, and applies them where they are others than the cluster was given last.
async fn bring(shared: &Shared, cluster: &Cluster, wanted: &[Source]) -> Standing {
    let (found, documents) = match read(shared, cluster, wanted).await {
        Ok(read) => read,
        Err(standing) => return standing,
    };
    let hash = whole(&found).unwrap_or_default();
    let status = cluster.status.as_ref();
    if status.and_then(|s| s.bootstrap_manifests_hash.as_ref()) == Some(&hash) {
        return Standing::Applied(hash);
    }
    let (namespace, name) = name_of(cluster);
    let reference = shared.cluster_ref(&namespace, &name);
    let client = match shared.context.connections.client(&reference).await {
        Ok(client) => client,
        Err(error) => return Standing::Waiting(error.to_string()),
    };
    let documents = ordered(documents);
    let key = (namespace.clone(), name.clone());
    let before = shared.manifests.begun.lock().remove(&key);
    let before = before.filter(|(of, _)| *of == hash);
    let before = before.map_or(0, |(_, taken)| taken.min(documents.len()));
    let mut served = Served::default();
    let mut answers = Vec::new();
    let turn = Instant::now();
    for (at, document) in documents.iter().enumerate().skip(before) {
        if turn.elapsed() > TURN {
            let words = format!("{at} of {} documents are applied so far", documents.len());
            answers.push((document, Answer::Later(words)));
            break;
        }
        match apply(&client, &mut served, document).await {
            Ok(answer) => answers.push((document, answer)),
            // The others would fare no better.
            Err(why) => {
                answers.push((document, Answer::Later(why)));
                break;
            }
        }
    }
    let is_taken = |(_, answer): &&(&Document, Answer)| *answer == Answer::Taken;
    let taken = answers.iter().filter(is_taken).count();
    if taken < answers.len() {
        let first = answers.iter().take_while(is_taken).count();
        let begun = (hash.clone(), before + first);
        shared.manifests.begun.lock().insert(key, begun);
    }
    if taken > 0 {
        tracing::info!(%namespace, cluster = %name, documents = taken, of = documents.len(), "bootstrap manifests");
        let meta = &cluster.metadata;
        let mut deeds = Deeds::of(shared, "Cluster", meta, Some(meta));
        let what = format!(
            "apply {taken} of {} documents of the bootstrap manifests, content {hash}",
            documents.len()
        );
        deeds.did(what, || [meta]);
    }
    sum(&answers, hash)
}

/// What the ConfigMaps hold: the sources with their hashes, and all documents.
async fn read(
    shared: &Shared,
    cluster: &Cluster,
    wanted: &[Source],
) -> Result<(Vec<Source>, Vec<Document>), Standing> {
    let (namespace, _) = name_of(cluster);
    let api = Api::<ConfigMap>::namespaced(shared.context.client.clone(), &namespace);
    let (mut found, mut all) = (Vec::new(), Vec::new());
    for source in wanted {
        let name = &source.name;
        let map = api.get_opt(&source.config_map).await;
        let map = map.map_err(|error| Standing::Waiting(format!("{name}: {error}")))?;
        let Some(map) = map else {
            let words = format!("{name}: there is no ConfigMap {}", source.config_map);
            return Err(Standing::Waiting(words));
        };
        let wrong = |why| Standing::Refused(format!("{name}: {why}"));
        let contents = contents(map).map_err(wrong)?;
        let hash = hash_of(&contents);
        if source.hash.as_ref().is_some_and(|wanted| *wanted != hash) {
            let words = format!(
                "{name}: ConfigMap {} does not hold what Git says",
                source.config_map
            );
            return Err(Standing::Waiting(words));
        }
        all.extend(documents(&contents).map_err(wrong)?);
        if all.len() > MAX_DOCUMENTS {
            let words = format!("more than {MAX_DOCUMENTS} documents: leave some to others");
            return Err(Standing::Refused(words));
        }
        found.push(Source {
            hash: Some(hash),
            ..source.clone()
        });
    }
    Ok((found, all))
}

/// What a cluster serves, by `apiVersion`, as far as it was asked; `None` where it serves nothing of that version.
type Served = BTreeMap<String, Option<APIResourceList>>;

/// Applies one document.
///
/// # Errors
/// Why the cluster cannot be asked at all.
async fn apply(
    client: &Client,
    served: &mut Served,
    document: &Document,
) -> Result<Answer, String> {
    let Some(resources) = resources(client, served, document).await? else {
        let Document {
            api_version, kind, ..
        } = document;
        let words = format!("kind {kind} of {api_version} is not served yet");
        return Ok(Answer::Later(words));
    };
    let (resource, namespaced) = resources;
    let api: Api<DynamicObject> = match namespaced {
        true => {
            let namespace = document.namespace.as_deref().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        false => Api::all_with(client.clone(), &resource),
    };
    // What Git says holds, whoever wrote the field since.
    let params = PatchParams::apply(meta::MANAGER_BOOTSTRAP).force();
    let patch = Patch::Apply(&document.value);
    match asked(api.patch(&document.name, &params, &patch)).await? {
        Ok(_) => {
            // A new kind is asked for anew.
            if document.kind == "CustomResourceDefinition" {
                served.clear();
            }
            Ok(Answer::Taken)
        }
        Err(refusal) => Ok(refusal),
    }
}

/// How objects of the document's kind are asked for, and whether they have namespaces; `None` while the kind is not served.
async fn resources(
    client: &Client,
    served: &mut Served,
    document: &Document,
) -> Result<Option<(ApiResource, bool)>, String> {
    let version = &document.api_version;
    if !served.contains_key(version) {
        let list = match version.split_once('/') {
            Some(_) => asked(client.list_api_group_resources(version)).await?,
            None => asked(client.list_core_api_resources(version)).await?,
        };
        served.insert(version.clone(), list.ok());
    }
    let list = served.get(version).and_then(Option::as_ref);
    let found = list.and_then(|list| {
        let mut all = list.resources.iter();
        // Subresources are listed too.
        all.find(|r| r.kind == document.kind && !r.name.contains('/'))
    });
    Ok(found.map(|found| {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = GroupVersionKind::gvk(group, version, &document.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &found.name);
        (resource, found.namespaced)
    }))
}

/// The answer of a cluster, or what it says instead.
///
/// # Errors
/// That there is none, and why.
async fn asked<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, Answer>, String> {
    let answer = timeout(PATIENCE, request).await;
    let answer = answer.map_err(|_| {
        format!(
            "the cluster's API has not answered for {} s",
            PATIENCE.as_secs()
        )
    })?;
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(kube::Error::Api(status)) => Ok(Err(Answer::refusal(status.code, &status.message))),
        Err(error) => Err(format!("the cluster's API cannot be asked: {error}")),
    }
}
