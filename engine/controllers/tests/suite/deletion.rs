//! How machines and clusters go: drained, in order, and never against a budget.

use std::collections::BTreeSet;

use fleetwright_api::{Cluster, Machine, MachineDeployment, condition::kind, meta};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use crate::kit::{Kit, of_cluster, of_machine, of_pool, workload};

async fn pods(kit: &Kit, node: &str) -> Vec<Pod> {
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let api = Api::<Pod>::all(kit.workload("eu").await);
    api.list(&on_node).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_a_budget_says_so_and_goes_on_when_it_may() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, workload("db", 1, Some(1)))
        .await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let old = kit.world.workers("eu-web")[0].name_any();
    kit.until_pod_on("eu", &old).await;
    let pod = pods(&kit, &old).await[0].name_any();

    let roll = json!({"spec": {"template": {"spec": {"failureDomain": "eu-b"}}}});
    kit.patch::<MachineDeployment>("eu-web", roll).await;
    let name = old.clone();
    let line = kit
        .until("the drain says what it waits for", move |w| {
            let line = of_machine(w.machines.get(&name)?, kind::DELETING);
            line.contains("since").then_some(line)
        })
        .await;
    for part in [
        "True DrainingNode: draining since 2",
        &format!("default/{pod}"),
        "is protected by budget db, 0 disruptions allowed",
    ] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    // Those above it say it too.
    let line = kit
        .until("the pool says it", |w| {
            let line = of_pool(&w.pools["eu-web"], kind::SCALING_DOWN);
            line.contains("since").then_some(line)
        })
        .await;
    assert!(line.contains(&old) && line.contains(&pod), "{line}");
    assert!(
        !kit.journal().iter().any(|e| e["verb"] == "delete"),
        "the instance stays"
    );
    assert_eq!(pods(&kit, &old).await.len(), 1, "so does the pod");

    // The cloud keeps the budget as the cluster declares it: the declaration changes while its machines run.
    kit.patch::<Cluster>("eu", json!({"spec": workload("db", 1, Some(0))}))
        .await;
    kit.until_settled("eu").await;
    assert!(!kit.world.machines.contains_key(&old));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_by_cordon_drain_instance_node_and_finalizer() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, workload("app", 1, None))
        .await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let name = kit.world.workers("eu-web")[0].name_any();
    kit.until_pod_on("eu", &name).await;
    let before = kit.journal().len();

    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 0}}))
        .await;
    // At each change of the machine: what has happened by then implies what came before it. All of it stays true, so reading
    // the later one first makes the order certain.
    let mut reasons: Vec<String> = Vec::new();
    let nodes = Api::<Node>::all(kit.workload("eu").await);
    loop {
        let (seen, machine) = (reasons.len(), name.clone());
        let last = reasons.last().cloned();
        let now = kit
            .until("the next step of the deletion", move |w| {
                let Some(machine) = w.machines.get(&machine) else {
                    return Some("gone".to_owned());
                };
                let line = of_machine(machine, kind::DELETING);
                let reason = line.split([' ', ':']).nth(1)?.to_owned();
                (line.starts_with("True") && Some(&reason) != last.as_ref()).then_some(reason)
            })
            .await;
        let machine_gone = now == "gone";
        let node = nodes.get_opt(&name).await.unwrap();
        let asked = kit.journal()[before..]
            .iter()
            .any(|e| e["verb"] == "delete");
        let pods = pods(&kit, &name).await;
        let cordoned = node
            .as_ref()
            .is_none_or(|n| n.spec.as_ref().and_then(|s| s.unschedulable) == Some(true));
        assert!(
            !machine_gone || node.is_none(),
            "the finalizer went before the node"
        );
        assert!(node.is_some() || asked, "the node went before the instance");
        assert!(
            !asked || pods.is_empty(),
            "the instance went before the pods: {pods:?}"
        );
        let leaving = pods.iter().any(|p| p.metadata.deletion_timestamp.is_some());
        assert!(
            !(leaving || pods.is_empty()) || cordoned,
            "pods went before the cordon"
        );
        reasons.push(now);
        assert!(seen < 10, "{reasons:?}");
        if machine_gone {
            break;
        }
    }
    let order = [
        "DrainingNode",
        "WaitingForVolumeDetach",
        "WaitingForInfrastructureDeletion",
        "DeletingNode",
        "gone",
    ];
    let places: Vec<usize> = reasons
        .iter()
        .map(|r| {
            order
                .iter()
                .position(|o| o == r)
                .unwrap_or_else(|| panic!("{r} in {reasons:?}"))
        })
        .collect();
    assert!(places.is_sorted(), "{reasons:?}");
    assert!(
        reasons
            .iter()
            .any(|r| r == "WaitingForInfrastructureDeletion"),
        "{reasons:?}"
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_workers_first_then_its_control_plane_then_itself() {
    let mut kit = Kit::start().await;
    // A budget that allows nothing holds up no cluster that goes as a whole.
    kit.cluster("eu", "v1.33.2", 3, workload("db", 1, Some(1)))
        .await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.pool("eu-db", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit.always(|w| {
        let leaving = w
            .control_plane("eu")
            .iter()
            .any(|m| m.metadata.deletion_timestamp.is_some());
        let workers = w.workers("eu-web").len() + w.workers("eu-db").len();
        if leaving && workers > 0 {
            return Err(format!(
                "the control plane goes while {workers} workers are there"
            ));
        }
        if !w.clusters.contains_key("eu") && !w.machines.is_empty() {
            return Err("the cluster went before its machines".into());
        }
        Ok(())
    });
    let api = kit.api::<Cluster>();
    api.delete("eu", &DeleteParams::default()).await.unwrap();
    let line = kit
        .until("the cluster says what it waits for", |w| {
            let line = of_cluster(w.clusters.get("eu")?, kind::DELETING);
            line.contains("WaitingForWorkersDeletion").then_some(line)
        })
        .await;
    assert!(
        line.contains("pools, sets and machines of workers"),
        "{line}"
    );
    kit.until("the control plane goes", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::DELETING);
        line.contains("WaitingForControlPlaneDeletion")
            .then_some(())
    })
    .await;
    kit.until("all is gone", |w| {
        (w.clusters.is_empty() && w.pools.is_empty() && w.sets.is_empty() && w.machines.is_empty())
            .then_some(())
    })
    .await;
    let deleted: BTreeSet<String> = kit
        .journal()
        .iter()
        .filter(|e| e["verb"] == "delete")
        .map(|e| e["instance"].to_string())
        .collect();
    assert_eq!(deleted.len(), 6, "no instance is left");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_machine_stays_though_it_is_deleted() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let name = kit.world.workers("eu-web")[0].name_any();
    let pause = |v| json!({"metadata": {"annotations": {meta::ANNOTATION_PAUSED: v}}});
    kit.patch::<Machine>(&name, pause(json!(""))).await;
    let api = kit.api::<Machine>();
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let held = name.clone();
    kit.until("it is on its way out, and paused", move |w| {
        let machine = &w.machines[&held];
        (of_machine(machine, kind::DELETING).starts_with("True")
            && of_machine(machine, kind::PAUSED).starts_with("True"))
        .then_some(())
    })
    .await;
    assert!(!kit.journal().iter().any(|e| e["verb"] == "delete"));
    kit.patch::<Machine>(&name, pause(serde_json::Value::Null))
        .await;
    kit.until("another machine is in its place", move |w| {
        (w.settled("eu") && !w.machines.contains_key(&name)).then_some(())
    })
    .await;
    kit.stop().await;
}
