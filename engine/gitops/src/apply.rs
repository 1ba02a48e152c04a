//! Executes a plan by server-side apply.
//!
//! What the API refuses for one object does not stop the others; nothing is deleted as long as something failed.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    Cluster,
    fleet::{Allow, DriftAction, DriftPolicy},
    meta::{MANAGER_HANDOVER, fleet_manager},
    names::fleet_hash,
};
use fleetwright_core::plan::{
    Change, Desired, Drift, Key, Live, Plan, Policy, belonging,
    conflict::{self as fields, Taking},
    marked, partial,
};
use futures::{StreamExt, future::BoxFuture, stream};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

use crate::gather::fleets;

mod conflict;

/// Requests that are under way at the same time.
const AT_ONCE: usize = 8;
/// How often a write is tried again whose object others write at the same time.
const ATTEMPTS: usize = 4;
/// Manager of what the sync engine writes that is not the repository's.
pub const MANAGER_SYNC: &str = "fleetwright-sync";

/// Why one object could not be brought to what the repository says.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API refused, or could not be asked.
    #[error("cannot {verb} {key}{}", at(.source_line))]
    Api {
        /// What was done.
        verb: &'static str,
        /// To which object.
        key: Box<Key>,
        /// File and line of its declaration; empty for deletes.
        source_line: String,
        /// The API's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object's namespace does not exist and may not be made.
    #[error(
        "{source_line}: namespace {namespace} of {key} does not exist, and the Fleet does not allow kind Namespace: ask an administrator to create it"
    )]
    NoNamespace {
        /// The object.
        key: Box<Key>,
        /// File and line of its declaration.
        source_line: String,
        /// The namespace.
        namespace: String,
    },
    /// Somebody was faster: the object came to belong to another Fleet since the plan, or is being deleted.
    #[error("{key}: {source_line}: {why}")]
    Barred {
        /// The object.
        key: Box<Key>,
        /// File and line of its declaration.
        source_line: String,
        /// Why, and what to do.
        why: String,
    },
}

fn at(source_line: &str) -> String {
    if source_line.is_empty() {
        String::new()
    } else {
        format!(" ({source_line})")
    }
}

impl ApplyError {
    /// Whether trying again without another commit may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoNamespace { .. } | Self::Barred { .. } => false,
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => {
                    status.code >= 500 || matches!(status.code, 401 | 403 | 404 | 409 | 429)
                }
                _ => true,
            },
        }
    }

    /// The error with its cause, in one sentence.
    pub fn text(&self) -> String {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => format!("{self}: {}", status.message),
                other => format!("{self}: {other}"),
            },
            Self::NoNamespace { .. } | Self::Barred { .. } => self.to_string(),
        }
    }
}

/// How a plan is executed.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The revision that the documents come from.
    pub revision: &'a str,
    /// What the Fleet may make.
    pub allow: &'a Allow,
    /// The documents of the revision applied before this one: what differs from them is what this revision
    /// changed, and is forced. `None` when they are not known: then nothing is.
    pub previous: Option<&'a BTreeMap<Key, Value>>,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects that were written, with the generation that they have now, if their kind has generations.
    pub written: BTreeMap<Key, Option<i64>>,
    /// Objects whose deletion was asked for.
    pub deleted: BTreeSet<Key>,
    /// Objects of which it is not known whether they were written or deleted: no answer came, or a refusal.
    pub doubtful: BTreeSet<Key>,
    /// Fields left to others.
    pub drift: Vec<Drift>,
    /// What failed, object by object.
    pub errors: Vec<ApplyError>,
}

/// An API for the objects of a kind that Git may hold.
pub fn api_of(client: &Client, key: &Key) -> Api<DynamicObject> {
    let resource = resource_of(&key.api_version, &key.kind);
    if key.namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &key.namespace, &resource)
    }
}

pub(crate) fn resource_of(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural = format!("{}s", kind.to_lowercase());
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

/// Executes `plan`, made from `desired` and `live`: namespaces, handovers, creates and changes, then deletes. An object that was
/// replaced since the plan is not deleted, one that another Fleet took since is left alone. Applying again is always safe.
pub async fn apply(
    client: &Client,
    plan: &Plan,
    desired: &[Desired],
    live: &Live,
    policy: &Policy,
    settings: Settings<'_>,
) -> Applied {
    let documents: BTreeMap<Key, &Value> = desired
        .iter()
        .map(|d| (Key::of(&d.document), &d.document))
        .collect();
    let worker = Worker {
        client,
        documents: &documents,
        hash: fleet_hash(&policy.namespace, &policy.fleet),
        manager: fleet_manager(&policy.namespace, &policy.fleet),
        drift: &policy.drift,
        settings,
    };
    let mut out = Applied {
        drift: plan.drift.clone(),
        ..Applied::default()
    };
    let mut missing = BTreeSet::new();
    worker.namespaces(plan, &mut missing, &mut out).await;
    // Kinds one after the other: a pool's cluster is there before the pool.
    let all: Vec<&Change> = plan.creates.iter().chain(&plan.changes).collect();
    for kind in ["Namespace", "ConfigMap", "Cluster", ""] {
        let steps = all.iter().copied().filter(|c| match kind {
            "" => !["Namespace", "ConfigMap", "Cluster"].contains(&c.key.kind.as_str()),
            kind => c.key.kind == kind,
        });
        let steps = steps.filter(|c| !missing.contains(&c.key.namespace));
        let worker = &worker;
        let mut futures: Vec<BoxFuture<'_, _>> = Vec::new();
        for change in steps {
            futures.push(Box::pin(
                async move { (change, worker.change(change).await) },
            ));
        }
        let mut results = stream::iter(futures).buffered(AT_ONCE);
        while let Some((change, result)) = results.next().await {
            match result {
                Ok(Some((generation, drift))) => {
                    out.written.insert(change.key.clone(), generation);
                    out.drift.extend(drift);
                }
                Ok(None) => {}
                Err(error) => {
                    out.doubtful.insert(change.key.clone());
                    out.errors.push(error);
                }
            }
        }
    }
    if out.errors.is_empty() {
        worker.deletes(plan, live, &mut out).await;
    }
    // What the apply was refused for is mostly what the plan had seen.
    out.drift
        .sort_by(|a, b| (&a.key, &a.field).cmp(&(&b.key, &b.field)));
    out.drift
        .dedup_by(|b, a| (&a.key, &a.field) == (&b.key, &b.field));
    out
}

/// Generation after the write (if one was made), and what was left to others.
type Done = Option<(Option<i64>, Vec<Drift>)>;

struct Worker<'a> {
    client: &'a Client,
    documents: &'a BTreeMap<Key, &'a Value>,
    hash: String,
    manager: String,
    /// What is done about fields that others hold.
    drift: &'a DriftPolicy,
    settings: Settings<'a>,
}

impl Worker<'_> {
    fn failed(change: &Change, verb: &'static str) -> impl Fn(kube::Error) -> ApplyError {
        let (key, source_line) = (change.key.clone(), change.source.clone());
        move |source| ApplyError::Api {
            verb,
            key: Box::new(key.clone()),
            source_line: source_line.clone(),
            source: Box::new(source),
        }
    }

    /// Makes the namespaces that new objects need and that nobody declares.
    async fn namespaces(&self, plan: &Plan, missing: &mut BTreeSet<String>, out: &mut Applied) {
        let allow = self.settings.allow;
        let mut asked: BTreeSet<&str> = BTreeSet::new();
        for change in &plan.creates {
            let namespace = change.key.namespace.as_str();
            let declared = plan
                .creates
                .iter()
                .any(|c| c.key.kind == "Namespace" && c.key.name == namespace);
            if namespace.is_empty() || declared {
                continue;
            }
            if missing.contains(namespace) {
                out.errors.push(ApplyError::NoNamespace {
                    key: Box::new(change.key.clone()),
                    source_line: change.source.clone(),
                    namespace: namespace.to_owned(),
                });
                continue;
            }
            if !asked.insert(namespace) {
                continue;
            }
            let key = Key {
                api_version: "v1".into(),
                kind: "Namespace".into(),
                name: namespace.to_owned(),
                ..Key::default()
            };
            let api = api_of(self.client, &key);
            let result = match api.get_opt(namespace).await {
                Ok(Some(_)) => continue,
                Ok(None) if !allow.kinds.is_empty() && !allow.kinds.contains(&key.kind) => {
                    missing.insert(namespace.to_owned());
                    out.errors.push(ApplyError::NoNamespace {
                        key: Box::new(change.key.clone()),
                        source_line: change.source.clone(),
                        namespace: namespace.to_owned(),
                    });
                    continue;
                }
                Ok(None) => {
                    let params = PostParams {
                        field_manager: Some(MANAGER_SYNC.into()),
                        ..PostParams::default()
                    };
                    let made = DynamicObject::new(namespace, &resource_of("v1", "Namespace"));
                    api.create(&params, &made).await.map(|_| ())
                }
                Err(error) => Err(error),
            };
            match result {
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
                Ok(()) => {}
                Err(error) => {
                    missing.insert(namespace.to_owned());
                    out.errors
                        .push(Self::failed(change, "make the namespace of")(error));
                }
            }
        }
    }

    async fn change(&self, change: &Change) -> Result<Done, ApplyError> {
        let key = &change.key;
        let api = api_of(self.client, key);
        let Some(document) = self.documents.get(key) else {
            return Ok(None);
        };
        let is_new = change.before.is_none();
        if !is_new {
            self.hand_over(change, &api).await?;
        }
        // Not forced, so that of two Fleets that make one object the API lets one alone have it.
        let sent = marked(document, &self.hash, Some(self.settings.revision));
        let params = PatchParams::apply(&self.manager);
        let (mut object, drift) = match api.patch(&key.name, &params, &Patch::Apply(&sent)).await {
            Ok(object) => (object, Vec::new()),
            Err(refused) if conflict::held(&refused).is_empty() => {
                return Err(Self::failed(change, "apply")(refused));
            }
            Err(refused) => self.take(change, document, &api, refused).await?,
        };
        if is_new {
            self.hand_over(change, &api).await?;
        }
        // Last: what this Fleet declares it holds by now.
        for manager in &change.adopted_from {
            let mut nothing = partial(key, &[]);
            // Of an object that is gone meanwhile none is made.
            nothing["metadata"]["uid"] = object.metadata.uid.clone().into();
            let params = PatchParams::apply(manager);
            object = api
                .patch(&key.name, &params, &Patch::Apply(&nothing))
                .await
                .map_err(Self::failed(change, "take over fields of"))?;
        }
        Ok(Some((object.metadata.generation, drift)))
    }

    /// Applies a document that was `refused` because others hold fields of it: takes what the Fleet may take and leaves the rest,
    /// as the object is now.
    async fn take(
        &self,
        change: &Change,
        document: &Value,
        api: &Api<DynamicObject>,
        mut refused: kube::Error,
    ) -> Result<(DynamicObject, Vec<Drift>), ApplyError> {
        let key = &change.key;
        let failed = Self::failed(change, "apply");
        let taking = Taking {
            drift: self.drift,
            previous: self.settings.previous,
        };
        let mut held = conflict::held(&refused);
        for _ in 0..ATTEMPTS {
            let live = api.get(&key.name).await.map_err(&failed)?;
            let (uid, version) = (live.metadata.uid.clone(), live.resource_version());
            let live = serde_json::to_value(live).unwrap_or_default();
            // After the object, so that the Fleet that it was made by is among them if it is there.
            let fleets = match belonging::other(&live, &self.hash, None) {
                Some(_) => Some(fleets(self.client).await.map_err(&failed)?),
                None => None,
            };
            if let Some(why) = belonging::barred(&live, &self.hash, fleets.as_ref()) {
                return Err(ApplyError::Barred {
                    key: Box::new(key.clone()),
                    source_line: change.source.clone(),
                    why,
                });
            }
            let former = belonging::former(&live, &self.manager);
            let mut sent = marked(document, &self.hash, Some(self.settings.revision));
            let mut drift = Vec::new();
            for (field, managers) in &held {
                let mut managers = managers.clone();
                managers.retain(|manager| !former.contains(manager));
                let action = taking.action(key, document, field, &managers);
                if action != DriftAction::Correct {
                    fields::remove(&mut sent, field);
                }
                if action == DriftAction::Report {
                    let live = Some(&live);
                    drift.push(Drift::of(key, document, live, field.clone(), managers));
                }
            }
            // Only of the object that was looked at: whoever takes it meanwhile keeps it.
            sent["metadata"]["uid"] = uid.into();
            sent["metadata"]["resourceVersion"] = version.into();
            let params = PatchParams::apply(&self.manager).force();
            refused = match api.patch(&key.name, &params, &Patch::Apply(&sent)).await {
                Ok(object) => return Ok((object, drift)),
                Err(kube::Error::Api(status)) if status.code == 409 => kube::Error::Api(status),
                Err(error) => return Err(failed(error)),
            };
            // Who holds what may be others by now.
            let sent = marked(document, &self.hash, Some(self.settings.revision));
            let params = PatchParams::apply(&self.manager);
            match api.patch(&key.name, &params, &Patch::Apply(&sent)).await {
                Ok(object) => return Ok((object, Vec::new())),
                Err(again) if conflict::held(&again).is_empty() => return Err(failed(again)),
                Err(again) => held = conflict::held(&again),
            }
        }
        Err(failed(refused))
    }

    /// Puts the values that stay though Git does not say them under the handover's name.
    async fn hand_over(&self, change: &Change, api: &Api<DynamicObject>) -> Result<(), ApplyError> {
        if change.handover.is_empty() {
            return Ok(());
        }
        let keep = partial(&change.key, &change.handover);
        let params = PatchParams::apply(MANAGER_HANDOVER).force();
        api.patch(&change.key.name, &params, &Patch::Apply(&keep))
            .await
            .map_err(Self::failed(change, "hand over fields of"))?;
        Ok(())
    }

    async fn deletes(&self, plan: &Plan, live: &Live, out: &mut Applied) {
        let uids: BTreeMap<Key, &str> = live
            .objects
            .iter()
            .filter_map(|o| Some((Key::of(o), o.pointer("/metadata/uid")?.as_str()?)))
            .collect();
        for delete in &plan.deletes {
            let key = &delete.key;
            let Some(uid) = uids.get(key) else {
                continue;
            };
            // A pool is gone when its machines are: until then its commit has not converged. A Cluster is kept by its controller until all of
            // it is gone, workers first; in the foreground the garbage collector would end its control plane at once.
            let how = match key.kind == Cluster::kind(&()) {
                true => DeleteParams::background(),
                false => DeleteParams::foreground(),
            };
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some((*uid).to_owned()),
                    resource_version: None,
                }),
                ..how
            };
            match api_of(self.client, key).delete(&key.name, &params).await {
                Ok(_) => {
                    out.deleted.insert(key.clone());
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    out.doubtful.insert(key.clone());
                    out.errors.push(Self::failed(delete, "delete")(error));
                }
            }
        }
    }
}
