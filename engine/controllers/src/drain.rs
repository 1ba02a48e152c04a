//! Drains: cordon, list the node's pods, evict what may go. Pods are listed when draining, never cached.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_core::drain::{DrainFacts, DrainProgress, Eviction, PodKey, classify};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{EvictParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

/// One pass of a drain: cordons the node where it is not, and asks for the eviction of each pod that is to go.
pub(crate) async fn pass(
    client: &Client,
    node: &str,
    cordoned: bool,
    unreachable: bool,
    started: Option<Timestamp>,
    now: Timestamp,
) -> Result<DrainProgress, kube::Error> {
    if !cordoned {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        Api::<Node>::all(client.clone())
            .patch(node, &PatchParams::default(), &patch)
            .await?;
    }
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = Api::<Pod>::all(client.clone()).list(&on_node).await?.items;
    let from_daemon_set = |p: &Pod| p.owner_references().iter().any(|o| o.kind == "DaemonSet");
    let daemon_sets: BTreeSet<PodKey> = if pods.iter().any(from_daemon_set) {
        let all = Api::<DaemonSet>::all(client.clone())
            .list(&ListParams::default())
            .await?;
        let key = |d: &DaemonSet| PodKey {
            namespace: d.namespace().unwrap_or_default(),
            name: d.name_any(),
        };
        all.items.iter().map(key).collect()
    } else {
        BTreeSet::new()
    };
    let plan = classify(
        &pods,
        &DrainFacts {
            daemon_sets,
            unreachable,
        },
        now,
    );
    let mut evictions = BTreeMap::new();
    for key in &plan.evict {
        let pods = Api::<Pod>::namespaced(client.clone(), &key.namespace);
        let result = match pods.evict(&key.name, &EvictParams::default()).await {
            Ok(_) => Eviction::Accepted,
            Err(kube::Error::Api(status)) if status.code == 404 => Eviction::Gone,
            Err(kube::Error::Api(status)) if status.code == 429 => {
                let cause = status
                    .details
                    .as_ref()
                    .and_then(|d| d.causes.first())
                    .map(|c| c.message.clone());
                Eviction::Budget(cause.filter(|c| !c.is_empty()).unwrap_or(status.message))
            }
            Err(kube::Error::Api(status)) => Eviction::Failed(status.message),
            Err(error) => return Err(error),
        };
        evictions.insert(key.clone(), result);
    }
    Ok(DrainProgress {
        started,
        plan,
        evictions,
    })
}
