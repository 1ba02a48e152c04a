//! What machines hand to their nodes, and take back.

use std::collections::BTreeMap;

use fleetwright_api::{MachineDeployment, meta};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::kit::Kit;

fn taints(node: &Node) -> BTreeMap<String, String> {
    let list = node.spec.as_ref().and_then(|s| s.taints.clone());
    let pair = |t: Taint| (t.key, t.effect);
    list.unwrap_or_default().into_iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_taints_reach_the_node_and_leave_it() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    let handed = |labels: Value, taints: Value| {
        json!({
            "rollout": {"strategy": {"type": "OnDelete"}},
            "template": {"metadata": {"labels": labels}, "spec": {"taints": taints}},
        })
    };
    let site = "node.fleetwright.dev/site";
    let gpu = json!([
        {"key": "gpu", "effect": "NoSchedule", "propagation": "Always"},
        {"key": "fresh", "effect": "NoSchedule", "propagation": "OnInitialization"},
    ]);
    kit.pool(
        "eu-web",
        "eu",
        1,
        handed(json!({site: "x", "plain": "y"}), gpu),
    )
    .await;
    kit.until_settled("eu").await;
    let name = kit.world.workers("eu-web")[0].name_any();
    let find = {
        let name = name.clone();
        move |nodes: &[Node]| nodes.iter().find(|n| n.name_any() == name).cloned()
    };
    kit.until_nodes("eu", "the node has what its machine says", |nodes| {
        find(nodes).is_some_and(|n| {
            let keys: Vec<String> = taints(&n).into_keys().collect();
            n.labels().get(site).is_some()
                && n.labels().get("plain").is_none()
                && keys == ["fresh", "gpu"]
        })
    })
    .await;
    for node in kit.nodes("eu").await {
        assert!(!taints(&node).contains_key(meta::TAINT_UNINITIALIZED));
    }
    // Somebody adds a taint and takes the one away that is put once.
    let nodes = Api::<Node>::all(kit.workload("eu").await);
    let theirs = json!({"spec": {"taints": [
        {"key": "theirs", "effect": "NoSchedule"}, {"key": "gpu", "effect": "NoSchedule"},
    ]}});
    nodes
        .patch(&name, &PatchParams::default(), &Patch::Merge(theirs))
        .await
        .unwrap();
    kit.patch::<MachineDeployment>(
        "eu-web",
        json!({"spec": handed(json!({site: null}), json!([]))}),
    )
    .await;
    kit.until_nodes("eu", "what was ours is gone", |nodes| {
        find(nodes).is_some_and(|n| {
            let keys: Vec<String> = taints(&n).into_keys().collect();
            n.labels().get(site).is_none() && keys == ["theirs"]
        })
    })
    .await;
    // A newer set marks the node, and the way back unmarks it.
    let domain = |v: Value| json!({"spec": {"template": {"spec": {"failureDomain": v}}}});
    kit.patch::<MachineDeployment>("eu-web", domain(json!("eu-b")))
        .await;
    kit.until_nodes("eu", "the node is outdated", |nodes| {
        find(nodes).is_some_and(|n| {
            taints(&n)
                .get(meta::TAINT_OUTDATED_REVISION)
                .map(String::as_str)
                == Some("PreferNoSchedule")
        })
    })
    .await;
    kit.patch::<MachineDeployment>("eu-web", domain(Value::Null))
        .await;
    kit.until_nodes("eu", "the node is not outdated any more", |nodes| {
        find(nodes).is_some_and(|n| !taints(&n).contains_key(meta::TAINT_OUTDATED_REVISION))
    })
    .await;
    kit.until_settled("eu").await;
    assert_eq!(kit.world.workers("eu-web")[0].name_any(), name);
    kit.stop().await;
}
