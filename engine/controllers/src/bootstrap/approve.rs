//! Serving certificates of kubelets: requests are watched in each cluster whose nodes are of our making, and judged by its Machines.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
use tokio::task::{AbortHandle, JoinSet};

use crate::reconcile::Shared;

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
    let mut pause = Duration::from_secs(1);
    loop {
        if let Ok(client) = shared.context.connections.client(&cluster).await {
            let api = Api::<CertificateSigningRequest>::all(client);
            let ours = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
            let mut events = watcher::watcher(api.clone(), ours).boxed();
            let mut waiting = BTreeMap::new();
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
                            pause = Duration::from_secs(1);
                            if judge(&shared, &cluster, &api, &request).await == Later::Waits
                                && waiting.len() < MOST_WAITING
                            {
                                waiting.insert(request.name_any(), request);
                            }
                        }
                        Some(Ok(watcher::Event::Delete(request))) => {
                            waiting.remove(&request.name_any());
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => {
                            tracing::debug!(cluster = %cluster.name, %error, "the watch of certificate requests broke");
                            break;
                        }
                        None => break,
                    },
                    () = look => {
                        let names: Vec<String> = waiting.keys().cloned().collect();
                        for name in names {
                            if let Some(request) = waiting.get(&name)
                                && judge(&shared, &cluster, &api, request).await == Later::Done
                            {
                                waiting.remove(&name);
                            }
                        }
                    }
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Later {
    /// There is nothing left to do.
    Done,
    /// The Machine may say more soon.
    Waits,
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
    let Some(condition) = condition(&verdict) else {
        let undecided = request
            .status
            .as_ref()
            .is_none_or(|s| s.conditions.is_none());
        return if undecided { Later::Waits } else { Later::Done };
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
        Err(kube::Error::Api(status)) if status.code < 500 => Later::Done,
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
        Verdict::Ignore(_) => return None,
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
    }
}
