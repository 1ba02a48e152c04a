//! Drains against a real API: rules and their order, pods that complete, volumes, hooks, budgets that never yield, nodes that do not
//! answer.

use fleetwright_api::{Machine, MachineDrainRule, condition::kind, meta};
use futures::StreamExt;
use k8s_openapi::api::{core::v1::Node, core::v1::Pod, storage::v1::VolumeAttachment};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};

use crate::kit::{Kit, of_machine};

/// A cluster's settings with these workloads, whose pods end at once.
fn workloads(list: Value) -> Value {
    let mut list = list;
    for workload in list.as_array_mut().unwrap() {
        workload["terminationSeconds"] = json!(0);
        workload["startSeconds"] = json!(0.05);
    }
    json!({"providerConfig": {
        "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimClusterConfig",
        "account": "sim-eu", "workloads": list,
    }})
}

/// A cluster with one worker, and the worker's name once one pod of each workload that is named runs on it.
async fn one_worker(kit: &mut Kit, spec: Value, deletion: Value, apps: &[&str]) -> String {
    kit.cluster("eu", "v1.33.2", 1, spec).await;
    let more = json!({"template": {"spec": {"deletion": deletion}}});
    kit.pool("eu-web", "eu", 1, more).await;
    kit.until_settled("eu").await;
    let name = kit.world.workers("eu-web")[0].name_any();
    for app in apps {
        running(kit, &name, app).await;
    }
    name
}

/// Waits until a pod of this workload runs on the node, and gives its name.
async fn running(kit: &Kit, node: &str, app: &str) -> String {
    let pods = Api::<Pod>::all(kit.workload("eu").await);
    let of = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .labels(&format!("app={app}"));
    let mut events = watcher::watcher(pods, of).boxed();
    let found = async {
        while let Some(event) = events.next().await {
            if let Event::Apply(pod) | Event::InitApply(pod) = event.unwrap()
                && pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
            {
                return pod.name_any();
            }
        }
        panic!("the watch ended");
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, found).await.unwrap()
}

async fn delete(kit: &Kit, name: &str) {
    let api = kit.api::<Machine>();
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

/// Follows the machine until condition `Deleting` contains all of this; gives the line.
async fn until_deleting(kit: &mut Kit, name: &str, parts: &[&str]) -> String {
    let (name, parts): (String, Vec<String>) = (
        name.to_owned(),
        parts.iter().map(|p| (*p).to_owned()).collect(),
    );
    let what = format!("Deleting of {name} says {parts:?}");
    kit.until(&what, move |w| {
        let line = of_machine(w.machines.get(&name)?, kind::DELETING);
        parts.iter().all(|p| line.contains(p)).then_some(line)
    })
    .await
}

async fn until_gone(kit: &mut Kit, name: &str) {
    let name = name.to_owned();
    kit.until("the machine is gone", move |w| {
        (!w.machines.contains_key(&name)).then_some(())
    })
    .await;
}

fn deletes(kit: &Kit) -> usize {
    let all = kit.journal();
    all.iter().filter(|e| e["verb"] == "delete").count()
}

async fn rule(kit: &Kit, name: &str, spec: Value) {
    let rule = serde_json::from_value(json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDrainRule", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap();
    let api = kit.api::<MachineDrainRule>();
    api.create(&PostParams::default(), &rule).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_go_in_the_order_of_the_rules_and_some_are_waited_for_or_left() {
    let mut kit = Kit::start().await;
    let of = |app: &str| json!([{"selector": {"matchLabels": {"app": app}}}]);
    let order = |app: &str, order: i32| json!({"drain": {"behavior": "Drain", "order": order}, "pods": of(app)});
    rule(&kit, "first", order("first", -1)).await;
    rule(&kit, "last", order("last", 1)).await;
    let spec = workloads(json!([
        {"name": "first", "replicas": 1},
        {"name": "last", "replicas": 1, "emptyDir": true},
        {"name": "job", "replicas": 1, "completeSeconds": 86400, "labels": {meta::POD_LABEL_DRAIN: "Wait-Completed"}},
        {"name": "agent", "replicas": 1, "kind": "DaemonSet"},
        {"name": "static", "replicas": 1, "kind": "StaticPod"},
        {"name": "kept", "replicas": 1, "labels": {meta::POD_LABEL_DRAIN: "skip"}},
    ]));
    let apps = ["first", "last", "job", "agent", "static", "kept"];
    let old = one_worker(&mut kit, spec, json!({}), &apps).await;
    let job = running(&kit, &old, "job").await;

    let pods = Api::<Pod>::namespaced(kit.workload("eu").await, "default");
    let on_node = watcher::Config::default().fields(&format!("spec.nodeName={old}"));
    let mut events = watcher::watcher(pods.clone(), on_node).boxed();
    while !matches!(events.next().await.unwrap().unwrap(), Event::InitDone) {}

    delete(&kit, &old).await;
    let line = until_deleting(
        &mut kit,
        &old,
        &["to complete without eviction", "next after these"],
    )
    .await;
    assert!(
        line.contains(&format!("pod default/{job} is to complete"))
            && line.contains("pod default/last-"),
        "{line}"
    );
    assert_eq!(deletes(&kit), 0);
    let done = json!({"status": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}});
    pods.patch_status(&job, &PatchParams::default(), &Patch::Strategic(done))
        .await
        .unwrap();
    until_deleting(
        &mut kit,
        &old,
        &["pod default/last-", "what is in emptyDir volumes is lost"],
    )
    .await;
    until_gone(&mut kit, &old).await;
    // What happened to the pods of the node, in order.
    let mut order = Vec::new();
    while order.len() < apps.len() + 1 {
        let event = tokio::time::timeout(std::time::Duration::from_secs(60), events.next());
        match event.await.unwrap().unwrap().unwrap() {
            Event::Delete(pod) => order.push(pod.labels()["app"].clone()),
            Event::Apply(pod)
                if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded")
                    && !order.contains(&"done".to_owned()) =>
            {
                order.push("done".into());
            }
            _ => {}
        }
    }
    assert_eq!(order[..3], ["first", "done", "last"], "{order:?}");
    kit.until_settled("eu").await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instance_waits_for_volumes_but_not_for_those_of_pods_that_stay() {
    let mut kit = Kit::start().await;
    let spec = workloads(json!([
        {"name": "db", "replicas": 1, "volumeDetachSeconds": 2},
        {"name": "agent", "replicas": 1, "kind": "DaemonSet", "volumeDetachSeconds": 86400},
    ]));
    let old = one_worker(&mut kit, spec, json!({}), &["db", "agent"]).await;
    let client = kit.workload("eu").await;
    let attachments = Api::<VolumeAttachment>::all(client.clone());
    let attached = async |app: &str| -> bool {
        let all = attachments.list(&ListParams::default()).await.unwrap();
        let of = |a: &VolumeAttachment| {
            a.spec.node_name == old && a.name_any().starts_with(&format!("default-{app}-"))
        };
        all.iter().any(of)
    };
    kit.until_nodes("eu", "both volumes are attached", |nodes| {
        let node = nodes.iter().find(|n| n.name_any() == old);
        let shown = node.and_then(|n| n.status.as_ref()?.volumes_attached.as_ref());
        shown.is_some_and(|v| v.len() == 2)
    })
    .await;
    assert!(attached("db").await && attached("agent").await);
    delete(&kit, &old).await;
    let line = until_deleting(&mut kit, &old, &["WaitingForVolumeDetach", "default-db-"]).await;
    assert!(
        line.contains("since 2") && !line.contains("agent"),
        "{line}"
    );
    assert_eq!(deletes(&kit), 0, "the instance stays");
    until_deleting(&mut kit, &old, &["WaitingForInfrastructureDeletion"]).await;
    assert!(!attached("db").await, "it was detached first");
    until_gone(&mut kit, &old).await;
    kit.until_settled("eu").await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_hold_back_the_drain_and_the_instance() {
    let mut kit = Kit::start().await;
    let spec = workloads(json!([{"name": "app", "replicas": 1}]));
    let old = one_worker(&mut kit, spec, json!({}), &["app"]).await;
    let hooks = [
        format!("{}backup", meta::PREFIX_PRE_DRAIN_HOOK),
        format!("{}etcd", meta::PREFIX_PRE_TERMINATE_HOOK),
    ];
    let annotations = |first: Value, second: Value| json!({"metadata": {"annotations": {&hooks[0]: first, &hooks[1]: second}}});
    kit.patch::<Machine>(&old, annotations(json!("me"), json!("me")))
        .await;
    delete(&kit, &old).await;
    until_deleting(&mut kit, &old, &["WaitingForPreDrainHook", "backup"]).await;
    let nodes = Api::<Node>::all(kit.workload("eu").await);
    let node = nodes.get(&old).await.unwrap();
    assert_ne!(node.spec.unwrap().unschedulable, Some(true));
    kit.patch::<Machine>(&old, annotations(Value::Null, json!("me")))
        .await;
    until_deleting(&mut kit, &old, &["WaitingForPreTerminateHook", "etcd"]).await;
    let node = nodes.get(&old).await.unwrap();
    assert_eq!(node.spec.unwrap().unschedulable, Some(true));
    let pods = Api::<Pod>::namespaced(kit.workload("eu").await, "default");
    let on_node = ListParams::default().fields(&format!("spec.nodeName={old}"));
    assert!(pods.list(&on_node).await.unwrap().items.is_empty());
    assert_eq!(deletes(&kit), 0, "the instance stays");
    kit.patch::<Machine>(&old, annotations(Value::Null, Value::Null))
        .await;
    until_gone(&mut kit, &old).await;
    kit.until_settled("eu").await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_never_yields_holds_until_the_time_out_and_no_longer() {
    let mut kit = Kit::start().await;
    let spec = workloads(json!([{"name": "db", "replicas": 1, "minAvailable": 1}]));
    let limit = json!({"nodeDrainTimeoutSeconds": 4});
    let old = one_worker(&mut kit, spec, limit, &["db"]).await;
    let pod = running(&kit, &old, "db").await;
    delete(&kit, &old).await;
    let line = until_deleting(&mut kit, &old, &["protected"]).await;
    let words = format!(
        "pod default/{pod} is protected by budget db, 0 disruptions allowed (The disruption budget db needs 1"
    );
    assert!(line.contains(&words), "{line}");
    let begun = kit.world.machines[&old].status.clone().unwrap();
    let begun = begun.deletion.unwrap().node_drain_start_time.unwrap().0;
    assert_eq!(deletes(&kit), 0, "the budget holds");
    until_gone(&mut kit, &old).await;
    let journal = kit.journal();
    let asked = journal.iter().find(|e| e["verb"] == "delete").unwrap();
    let asked: jiff::Timestamp = asked["wallTime"].as_str().unwrap().parse().unwrap();
    let held = asked.duration_since(begun).as_secs();
    assert!(held >= 4, "{held}");
    kit.until_settled("eu").await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_instance_is_about_to_be_taken_away_is_drained_first() {
    let mut kit = Kit::start().await;
    let spec = workloads(json!([{"name": "db", "replicas": 1, "minAvailable": 1}]));
    let limit = json!({"nodeDrainTimeoutSeconds": 2});
    let old = one_worker(&mut kit, spec, limit, &["db"]).await;
    // The instance runs: that its provider gives it up is a notice.
    kit.stop_controllers().await;
    kit.ward.fail(&old);
    kit.start_controllers();
    let mark = kit.until_marked(&old).await;
    assert_eq!(
        mark,
        "False InstanceFailed: the provider gives the instance up"
    );
    until_deleting(&mut kit, &old, &["is protected by budget db"]).await;
    until_gone(&mut kit, &old).await;
    kit.until_settled("eu").await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_given_up_in_finite_time() {
    let mut kit = Kit::start().await;
    let spec = workloads(
        json!([{"name": "db", "replicas": 1, "minAvailable": 1, "volumeDetachSeconds": 86400}]),
    );
    let limit = json!({"nodeDrainTimeoutSeconds": 4});
    let old = one_worker(&mut kit, spec, limit, &["db"]).await;
    let silent = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}});
    let nodes = Api::<Node>::all(kit.workload("eu").await);
    nodes
        .patch_status(&old, &PatchParams::default(), &Patch::Strategic(silent))
        .await
        .unwrap();
    let name = old.clone();
    kit.until("the machine says that its node is silent", move |w| {
        let line = of_machine(w.machines.get(&name)?, kind::NODE_HEALTHY);
        line.starts_with("Unknown NodeHealthyUnknown").then_some(())
    })
    .await;
    delete(&kit, &old).await;
    until_deleting(
        &mut kit,
        &old,
        &["budget db", "the node's kubelet does not report"],
    )
    .await;
    until_gone(&mut kit, &old).await;
    kit.until_settled("eu").await;
    kit.stop().await;
}
