//! What machines hand to their nodes, and take back.

use std::collections::BTreeMap;

use fleetwright_api::{MachineDeployment, condition::kind, meta};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::kit::{Kit, of_machine};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_with_its_provider_id_a_machine_takes_neither() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let name = kit.world.workers("eu-web")[0].name_any();
    let nodes = Api::<Node>::all(kit.workload("eu").await);
    let own = nodes.get(&name).await.unwrap();
    let mut twin = Node::default();
    // Before the other by name: whoever takes the first takes this one.
    twin.metadata.name = Some("a-twin".into());
    twin.spec.get_or_insert_default().provider_id = own.spec.unwrap().provider_id;
    nodes.create(&PostParams::default(), &twin).await.unwrap();
    let of = name.clone();
    let line = kit
        .until("the machine names both", move |w| {
            let line = of_machine(&w.machines[&of], kind::NODE_HEALTHY);
            line.contains("a-twin").then_some(line)
        })
        .await;
    assert_eq!(
        line,
        format!(
            "Unknown InternalError: nodes a-twin and {name} have the machine's providerID: delete those that are not its own"
        )
    );
    let node_of = |kit: &Kit| {
        let status = kit.world.machines[&name].status.clone();
        status.unwrap().node_ref.unwrap().name
    };
    assert_eq!(node_of(&kit), name);
    let ready = of_machine(&kit.world.machines[&name], kind::READY);
    assert!(ready.starts_with("Unknown "), "{ready}");
    nodes
        .delete("a-twin", &DeleteParams::default())
        .await
        .unwrap();
    kit.until_settled("eu").await;
    assert_eq!(node_of(&kit), name);
    kit.stop().await;
}
