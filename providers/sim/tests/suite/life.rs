//! What lives in the cloud: instances, nodes, pods and budgets, over restarts.

use std::{collections::BTreeSet, time::Instant};

use fleetwright_api::machine::MachineTaint;
use fleetwright_providers::{ClusterConnections, InstanceState, ListScope, Provider};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{EvictParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use crate::kit::{Kit, account, cluster_config, cluster_ref, is_ready, journal_text, order, until};

fn with_workload(
    mut cp: fleetwright_providers::CreateInstance,
) -> fleetwright_providers::CreateInstance {
    cp.cluster_config = Some(cluster_config(json!([
        {"name": "shop", "namespace": "shop", "replicas": 3, "minAvailable": 2, "terminationSeconds": 0},
    ])));
    cp
}

#[tokio::test]
async fn a_node_registers_and_watches_stream_over_http() {
    let kit = Kit::start().await;
    let early = kit.remote.client(&cluster_ref("c1")).await;
    assert!(matches!(
        early,
        Err(fleetwright_providers::ConnectionError::NotYet)
    ));
    kit.create(&order("c1", "eu-cp", true)).await;
    let client = kit.client("c1").await;
    let nodes = Api::<Node>::all(client);
    until("the control plane's node", async || {
        nodes.get_opt("eu-cp").await.unwrap()
    })
    .await;

    let version = nodes
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut watch = nodes
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let mut worker = order("c1", "eu-web-1", false);
    worker.labels.insert("tier".into(), "web".into());
    worker.taints = vec![
        serde_json::from_value::<MachineTaint>(
            json!({"key": "only", "value": "web", "effect": "NoSchedule"}),
        )
        .unwrap(),
    ];
    let made = kit.create(&worker).await;
    let node = loop {
        match watch.try_next().await.unwrap().expect("the watch goes on") {
            WatchEvent::Added(node) | WatchEvent::Modified(node)
                if node.name_any() == "eu-web-1"
                    && node
                        .status
                        .as_ref()
                        .and_then(|s| s.node_info.as_ref())
                        .is_some_and(|info| !info.kubelet_version.is_empty()) =>
            {
                break node;
            }
            _ => {}
        }
    };
    let (spec, status) = (node.spec.clone().unwrap(), node.status.clone().unwrap());
    assert_eq!(spec.provider_id.as_deref(), Some(made.provider_id.as_str()));
    assert_eq!(made.provider_id, format!("sim:///eu/{}", made.id));
    assert_eq!(status.node_info.unwrap().kubelet_version, "v1.36.2");
    let label = |key: &str| node.labels().get(key).map(String::as_str);
    assert_eq!(label("tier"), Some("web"));
    assert_eq!(label("kubernetes.io/hostname"), Some("eu-web-1"));
    assert_eq!(label("topology.kubernetes.io/region"), Some("eu"));
    assert_eq!(
        label("node.kubernetes.io/instance-type"),
        Some("sim.medium")
    );
    assert_eq!(spec.taints.unwrap()[0].key, "only");
    until("the list shows it running", async || {
        let shown = kit.remote.get(&account(), &made.id).await.unwrap().unwrap();
        (shown.state == InstanceState::Running).then_some(())
    })
    .await;
    let kubeconfig = kit
        .remote
        .kubeconfig(&cluster_ref("c1"))
        .await
        .unwrap()
        .unwrap();
    assert!(kubeconfig.contains(&format!("server: {}/clusters/c1\n", kit.remote.url())));
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let kit = Kit::start().await;
    kit.create(&with_workload(order("c1", "eu-cp", true))).await;
    for n in 0..2 {
        kit.create(&order("c1", &format!("eu-web-{n}"), false))
            .await;
    }
    let client = kit.client("c1").await;
    let pods = Api::<Pod>::namespaced(client.clone(), "shop");
    let ready_pods = async || {
        let list = pods.list(&ListParams::default()).await.unwrap().items;
        let ready: Vec<Pod> = list.into_iter().filter(is_ready).collect();
        (ready.len() == 3).then_some(ready)
    };
    let three = until("three ready pods", ready_pods).await;
    // No node takes pods any more: what is evicted stays away.
    let nodes = Api::<Node>::all(client);
    for n in 0..2 {
        let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        nodes
            .patch(&format!("eu-web-{n}"), &PatchParams::default(), &cordon)
            .await
            .unwrap();
    }
    let evict = async |pod: &Pod| pods.evict(&pod.name_any(), &EvictParams::default()).await;
    evict(&three[0]).await.unwrap();
    match evict(&three[1]).await {
        Err(kube::Error::Api(refusal)) => assert_eq!(refusal.code, 429, "{refusal:?}"),
        other => panic!("the budget does not hold: {other:?}"),
    }
    let back = Patch::Merge(json!({"spec": {"unschedulable": false}}));
    nodes
        .patch("eu-web-0", &PatchParams::default(), &back)
        .await
        .unwrap();
    until("the third pod is back", ready_pods).await;
    evict(&three[1]).await.unwrap();
}

#[tokio::test]
async fn all_of_it_survives_a_restart() {
    let kit = Kit::start().await;
    kit.create(&with_workload(order("c1", "eu-cp", true))).await;
    let worker = kit.create(&order("c1", "eu-web", false)).await;
    let mut slow = order("c1", "eu-slow", false);
    slow.config = crate::kit::machine_config(2.0);
    let slow = kit.create(&slow).await;
    let client = kit.client("c1").await;
    let names = async |client: &kube::Client| -> BTreeSet<String> {
        let pods = Api::<Pod>::namespaced(client.clone(), "shop");
        let list = pods.list(&ListParams::default()).await.unwrap().items;
        list.iter()
            .filter(|p| is_ready(p))
            .map(ResourceExt::name_any)
            .collect()
    };
    until("three pods", async || {
        (names(&client).await.len() == 3).then_some(())
    })
    .await;
    // The newest instance goes: its id is never given again.
    let last = kit.create(&order("c1", "eu-last", false)).await;
    kit.remote
        .delete(&account(), &last.id, "key-of-eu-last")
        .await
        .unwrap();
    until("it is gone", async || {
        kit.remote
            .get(&account(), &last.id)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    let (before, pods) = (kit.journal(), names(&client).await);
    drop(client);

    let kit = kit.restart().await;
    let listed = kit
        .remote
        .list(&account(), &ListScope::Cluster("c1".into()))
        .await
        .unwrap();
    assert_eq!(listed.len(), 3);
    let again = kit.create(&order("c1", "eu-web", false)).await;
    assert_eq!(again.id, worker.id);
    assert_eq!(
        (again.provider_id, again.created),
        (worker.provider_id, worker.created)
    );
    let fresh = kit.create(&order("c1", "eu-fresh", false)).await;
    assert!(fresh.id > last.id, "{} after {}", fresh.id, last.id);
    let client = kit.client("c1").await;
    let nodes = Api::<Node>::all(client.clone());
    assert!(nodes.get_opt("eu-web").await.unwrap().is_some());
    assert_eq!(names(&client).await, pods, "the same pods, none new");
    let budgets = Api::<PodDisruptionBudget>::namespaced(client, "shop");
    assert!(budgets.get_opt("shop").await.unwrap().is_some());
    // What was booting when the cloud ended boots.
    until("the slow one runs", async || {
        let shown = kit.remote.get(&account(), &slow.id).await.unwrap().unwrap();
        (shown.state == InstanceState::Running).then_some(())
    })
    .await;
    assert!(nodes.get_opt("eu-slow").await.unwrap().is_some());
    let after = kit.journal();
    assert_eq!(after[..before.len()], before);
    assert!(
        after.iter().zip(1..).all(|(e, n)| e.seq == n),
        "numbers without gaps"
    );
}

#[tokio::test]
async fn the_journal_has_exactly_these_fields() {
    let kit = Kit::start().await;
    kit.fault(
        fleetwright_provider_sim::FaultEffect::AnswerLost,
        "create",
        "m",
    );
    let lost = order("c1", "m", true);
    kit.remote.create(&account(), &lost).await.unwrap_err();
    let made = kit.create(&lost).await;
    kit.remote
        .delete(&account(), &made.id, "another")
        .await
        .unwrap_err();
    let lines: Vec<Value> = journal_text(kit.dir.path())
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let line = |n: usize| {
        let mut line = lines[n].clone();
        let time = line["wallTime"].take();
        time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        line
    };
    let expected = |seq: u64, verb: &str, key: &str, outcome: &str, fault: Value| {
        json!({
            "seq": seq, "wallTime": null, "verb": verb, "account": "sim-eu", "instance": made.id, "instanceKey": key,
            "machine": "m", "outcome": outcome, "fault": fault,
        })
    };
    assert_eq!(
        line(0),
        expected(1, "create", "key-of-m", "ok", json!("answerLost"))
    );
    assert_eq!(
        line(1),
        expected(2, "create", "key-of-m", "ok", Value::Null)
    );
    assert_eq!(
        line(2),
        expected(3, "delete", "another", "Terminal", Value::Null)
    );
    assert_eq!(lines.len(), 3);
}

/// Many machines cost no more each than few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_machines_are_made_in_seconds() {
    let count = std::env::var("SIM_MACHINES").map_or(1000, |n| n.parse().unwrap());
    let kit = Kit::start().await;
    kit.create(&order("c1", "eu-cp", true)).await;
    let client = kit.client("c1").await;
    let begin = Instant::now();
    let made: Vec<_> = futures::stream::iter(0..count)
        .map(|n| {
            let kit = &kit;
            async move { kit.create(&order("c1", &format!("m-{n}"), false)).await }
        })
        .buffer_unordered(32)
        .collect()
        .await;
    let created = begin.elapsed();
    assert_eq!(made.len(), count);
    until("all run", async || {
        let all = kit
            .cloud
            .list(&account(), &ListScope::Account)
            .await
            .unwrap();
        all.iter()
            .all(|i| i.state == InstanceState::Running)
            .then_some(())
    })
    .await;
    let booted = begin.elapsed();
    let nodes = Api::<Node>::all(client)
        .list_metadata(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(nodes.items.len(), count + 1);
    println!("{count} machines: created in {created:?}, booted after {booted:?}");
    let creates = kit.journal().into_iter().filter(|e| e.verb == "create");
    assert_eq!(creates.count(), count + 1);
}
