//! Serving certificates of kubelets: requests are watched in each cluster whose nodes are of our making, and judged by its Machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fleetwright_api::Machine;
use fleetwright_bootstrap::csr::{SIGNER, Verdict, decide};
use fleetwright_providers::ClusterRef;
use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{pause, reconcile::Shared};

/// Time between two looks at requests whose Machines do not say enough yet.
const AGAIN: Duration = Duration::from_secs(5);
/// Most requests that wait for that; kubelets ask again.
const MOST_WAITING: usize = 1000;

/// The watches of all clusters, by the Cluster's namespace and name.
#[derive(Default)]
pub(crate) struct Approvals(Mutex<BTreeMap<(String, String), AbortHandle>>);

impl Approvals {
    /// Starts the watch of a cluster where none runs.
    pub(crate) fn follow(
        &self,
        shared: &Arc<Shared>,
        cluster: ClusterRef,
        tasks: &mut JoinSet<()>,
    ) {
        let key = (cluster.namespace.clone(), cluster.name.clone());
        let mut watches = self.0.lock();
        if watches.get(&key).is_none_or(AbortHandle::is_finished) {
            watches.insert(key, tasks.spawn(watch(Arc::clone(shared), cluster)));
        }
    }

    /// Ends the watch of a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, cluster: &str) {
        let key = (namespace.to_owned(), cluster.to_owned());
        if let Some(task) = self.0.lock().remove(&key) {
            task.abort();
        }
    }
}

async fn watch(shared: Arc<Shared>, cluster: ClusterRef) {
    let mut paused = None;
    loop {
        let mut listed = None;
        if let Ok(client) = shared.context.connections.client(&cluster).await {
            let api = Api::<CertificateSigningRequest>::all(client);
            let ours = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
            let mut events = watcher::watcher(api.clone(), ours).boxed();
            let mut waiting = BTreeSet::new();
            loop {
                let look = async {
                    match waiting.is_empty() {
                        true => std::future::pending().await,
                        false => tokio::time::sleep(AGAIN).await,
                    }
                };
                tokio::select! {
                    biased;
                    event = events.next() => match event {
                        Some(Ok(watcher::Event::InitApply(request) | watcher::Event::Apply(request))) => {
                            if judge(&shared, &cluster, &api, &request).await == Later::Waits
                                && waiting.len() < MOST_WAITING
                            {
                                waiting.insert(request.name_any());
                            }
                        }
                        Some(Ok(watcher::Event::Delete(request))) => {
                            waiting.remove(&request.name_any());
                        }
                        Some(Ok(watcher::Event::InitDone)) => listed = Some(Instant::now()),
                        Some(Ok(watcher::Event::Init)) => {}
                        Some(Err(error)) => {
                            tracing::debug!(cluster = %cluster.name, %error, "the watch of certificate requests broke");
                            break;
                        }
                        None => break,
                    },
                    () = look => {
                        for name in waiting.clone() {
                            if judge_again(&shared, &cluster, &api, &name).await == Later::Done {
                                waiting.remove(&name);
                            }
                        }
                    }
                }
            }
        }
        let lasted = listed.map_or(Duration::ZERO, |at| at.elapsed());
        let pause = pause::after(paused, lasted);
        paused = Some(pause);
        tokio::time::sleep(pause).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Later {
    /// There is nothing left to do.
    Done,
    /// The Machine may say more soon.
    Waits,
}

/// Judges a request that waits, as it is now.
async fn judge_again(
    shared: &Shared,
    cluster: &ClusterRef,
    api: &Api<CertificateSigningRequest>,
    name: &str,
) -> Later {
    match api.get_opt(name).await {
        Ok(Some(request)) => judge(shared, cluster, api, &request).await,
        Ok(None) => Later::Done,
        Err(_) => Later::Waits,
    }
}

async fn judge(
    shared: &Shared,
    cluster: &ClusterRef,
    api: &Api<CertificateSigningRequest>,
    request: &CertificateSigningRequest,
) -> Later {
    let machines = shared
        .caches
        .of_cluster::<Machine>(&cluster.namespace, &cluster.name);
    let verdict = decide(request, machines.iter().map(Arc::as_ref));
    let name = request.name_any();
    let condition = match condition(&verdict) {
        Some(condition) => condition,
        None if matches!(verdict, Verdict::Wait(_)) => return Later::Waits,
        None => return Later::Done,
    };
    tracing::info!(cluster = %cluster.name, request = %name, verdict = ?verdict, "certificate request of a kubelet");
    // Who decided meanwhile has decided: the version is that of the request that was judged.
    let patch = json!({
        "metadata": {"resourceVersion": request.resource_version()},
        "status": {"conditions": [condition]},
    });
    let written = api
        .patch_approval(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match written {
        Ok(_) => Later::Done,
        // It is gone, or another by now: then the watch shows it.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Later::Done,
        Err(error) => {
            tracing::debug!(cluster = %cluster.name, request = %name, %error, "the verdict is not written");
            Later::Waits
        }
    }
}

/// What is written of a verdict; `None` where it is left to others, or to later.
fn condition(verdict: &Verdict) -> Option<Value> {
    let (kind, message) = match verdict {
        Verdict::Approve => (
            "Approved",
            "every name and address belongs to the node's Machine",
        ),
        Verdict::Deny(why) => ("Denied", why.as_str()),
        Verdict::Ignore(_) | Verdict::Wait(_) => return None,
    };
    Some(json!({"type": kind, "status": "True", "reason": "Fleetwright", "message": message}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_written_and_what_is_ignored_is_not() {
        let of = |verdict| condition(&verdict).map(|c| (c["type"].clone(), c["message"].clone()));
        let why = || "10.0.0.9 does not belong to node a's Machine".to_owned();
        assert_eq!(
            of(Verdict::Deny(why())),
            Some((json!("Denied"), json!(why())))
        );
        assert_eq!(of(Verdict::Approve).unwrap().0, json!("Approved"));
        assert_eq!(of(Verdict::Ignore(why())), None);
        assert_eq!(of(Verdict::Wait(why())), None);
    }
}
