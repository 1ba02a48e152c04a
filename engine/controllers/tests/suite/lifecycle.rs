//! From nothing to a running cluster, and what happens when everybody looks again.

use std::collections::BTreeMap;

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineSet};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::kit::Kit;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_to_available_then_upgraded_and_scaled() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    let names = |kit: &Kit| kit.world.machines.keys().cloned().collect::<Vec<_>>();
    let version = |m: &Machine| m.spec.content.version.clone();
    let first = names(&kit);
    let all = |kit: &Kit, want: &str| {
        kit.world
            .machines
            .values()
            .all(|m| version(m).as_deref() == Some(want))
    };
    assert!(all(&kit, "v1.33.2"));

    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.1"}}))
        .await;
    kit.until_settled("eu").await;
    let upgraded = names(&kit);
    assert!(all(&kit, "v1.34.1"));
    assert!(upgraded.iter().all(|m| !first.contains(m)));

    // A scale-up makes one machine and touches no other.
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 3}}))
        .await;
    kit.until("three workers", |w| {
        (w.settled("eu") && w.workers("eu-web").len() == 3).then_some(())
    })
    .await;
    assert!(upgraded.iter().all(|m| kit.world.machines.contains_key(m)));
    kit.stop().await;
}

/// Everything that there is, with the version of its last write.
async fn versions(kit: &Kit) -> BTreeMap<String, String> {
    let all = ListParams::default();
    let mut found = BTreeMap::new();
    macro_rules! add {
        ($kind:ty, $api:expr) => {
            let api: Api<$kind> = $api;
            for object in api.list(&all).await.unwrap() {
                let name = format!("{} {}", stringify!($kind), object.name_any());
                found.insert(name, object.resource_version().unwrap());
            }
        };
    }
    add!(Cluster, kit.api());
    add!(MachineDeployment, kit.api());
    add!(MachineSet, kit.api());
    add!(Machine, kit.api());
    add!(Node, Api::all(kit.workload("eu").await));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_converged_is_not_written_again_when_everybody_looks_again() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    let template = json!({"template": {
        "metadata": {"labels": {"node.fleetwright.dev/site": "a"}, "annotations": {"node.fleetwright.dev/rack": "7"}},
        "spec": {"taints": [{"key": "dedicated", "value": "web", "effect": "NoSchedule"}]},
    }});
    kit.pool("eu-web", "eu", 2, template).await;
    kit.until_settled("eu").await;
    kit.until_nodes("eu", "the nodes are in step", |nodes| {
        let done = |n: &&Node| n.annotations().contains_key("fleetwright.dev/machine");
        nodes.iter().filter(done).count() == 3
    })
    .await;
    let before = versions(&kit).await;
    let asked = |kit: &Kit| kit.journal().iter().filter(|e| e["verb"] != "list").count();
    let calls = asked(&kit);

    // New controllers look at everything, again and again while a second cluster comes up beside it.
    kit.stop_controllers().await;
    kit.start_controllers();
    kit.cluster("other", "v1.33.2", 1, json!({})).await;
    kit.until_settled("other").await;
    let after = versions(&kit).await;
    for (name, version) in &before {
        assert_eq!(after.get(name), Some(version), "{name} was written again");
    }
    assert_eq!(
        asked(&kit),
        calls + 1,
        "one instance was asked for: the second cluster's"
    );
    kit.stop().await;
}
