//! What becomes of simulated clusters: workloads that change, pods that move, and the end.

use std::collections::BTreeMap;

use fleetwright_provider_sim::ClusterView;
use fleetwright_providers::{ClusterConnections, ConnectionError, Provider, UpdateInstance};
use fleetwright_store::{Op, Store, Value as Bytes};
use futures::StreamExt;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Node, Pod},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Api, Client, ResourceExt,
    api::{EvictParams, ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::{Value, json};

use crate::kit::{Kit, account, cluster_config, cluster_ref, is_ready, order, until};

fn workload(name: &str, replicas: usize, min_available: Option<usize>) -> Value {
    let mut workload = json!({
        "name": name, "namespace": "shop", "replicas": replicas, "startSeconds": 0.05, "terminationSeconds": 0,
    });
    if let Some(min) = min_available {
        workload["minAvailable"] = json!(min);
    }
    workload
}

/// A cluster with a control plane and two workers.
async fn cluster(kit: &Kit, workloads: Value) -> Client {
    let mut cp = order("c1", "eu-cp", true);
    cp.cluster_config = Some(cluster_config(workloads));
    kit.create(&cp).await;
    for n in 0..2 {
        kit.create(&order("c1", &format!("eu-web-{n}"), false))
            .await;
    }
    kit.client("c1").await
}

/// Ready pods of each workload: the nodes that they are on.
async fn ready(client: &Client) -> BTreeMap<String, Vec<String>> {
    let pods = Api::<Pod>::namespaced(client.clone(), "shop");
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        if is_ready(&pod) {
            let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
            all.entry(pod.labels()["app"].clone())
                .or_default()
                .push(node);
        }
    }
    all
}

async fn counts(client: &Client) -> BTreeMap<String, usize> {
    let ready = ready(client).await;
    ready
        .into_iter()
        .map(|(app, nodes)| (app, nodes.len()))
        .collect()
}

async fn budgets(client: &Client) -> BTreeMap<String, IntOrString> {
    let api = Api::<PodDisruptionBudget>::namespaced(client.clone(), "shop");
    let list = api.list(&ListParams::default()).await.unwrap();
    let min = |b: &PodDisruptionBudget| b.spec.clone().unwrap().min_available.unwrap();
    list.iter().map(|b| (b.name_any(), min(b))).collect()
}

fn of<V: Clone>(pairs: &[(&str, V)]) -> BTreeMap<String, V> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.clone()))
        .collect()
}

async fn declare(kit: &Kit, workloads: Value, digest: &str) {
    let cp = kit.create(&order_of_cp(&workloads)).await;
    let change = UpdateInstance {
        owner: cp.owner.clone().unwrap(),
        config: order("c1", "eu-cp", true).config,
        cluster_config: Some(cluster_config(workloads)),
        config_digest: digest.to_owned(),
    };
    let shown = kit
        .remote
        .update(&account(), &cp.id, &change)
        .await
        .unwrap();
    assert_eq!(shown.config_digest, digest);
}

fn order_of_cp(workloads: &Value) -> fleetwright_providers::CreateInstance {
    let mut cp = order("c1", "eu-cp", true);
    cp.cluster_config = Some(cluster_config(workloads.clone()));
    cp
}

#[tokio::test]
async fn workloads_follow_what_the_cluster_declares() {
    let kit = Kit::start().await;
    let first = json!([workload("web", 3, Some(2)), workload("batch", 1, None)]);
    let client = cluster(&kit, first).await;
    let at = async |client: &Client, expected: &[(&str, usize)]| {
        let expected = of(expected);
        until("the pods declared", async || {
            (counts(client).await == expected).then_some(())
        })
        .await;
    };
    at(&client, &[("web", 3), ("batch", 1)]).await;
    assert_eq!(budgets(&client).await, of(&[("web", IntOrString::Int(2))]));

    let second = json!([workload("web", 5, Some(4)), workload("api", 2, Some(1))]);
    declare(&kit, second.clone(), "second").await;
    at(&client, &[("web", 5), ("api", 2)]).await;
    let both = of(&[("web", IntOrString::Int(4)), ("api", IntOrString::Int(1))]);
    assert_eq!(budgets(&client).await, both);

    let kit = kit.restart().await;
    let client = kit.client("c1").await;
    at(&client, &[("web", 5), ("api", 2)]).await;
    assert_eq!(budgets(&client).await, both);
    // Declared while another cloud ran, kept by this one: the pods come back after an eviction.
    let pods = Api::<Pod>::namespaced(client.clone(), "shop");
    let web = pods
        .list(&ListParams::default().labels("app=web"))
        .await
        .unwrap();
    pods.evict(&web.items[0].name_any(), &EvictParams::default())
        .await
        .unwrap();
    at(&client, &[("web", 5), ("api", 2)]).await;

    let third = json!([workload("web", 1, None)]);
    declare(&kit, third, "third").await;
    at(&client, &[("web", 1)]).await;
    until("no budget is left", async || {
        budgets(&client).await.is_empty().then_some(())
    })
    .await;
    declare(&kit, json!([]), "none").await;
    at(&client, &[]).await;
}

#[tokio::test]
async fn a_declaration_that_is_wrong_is_refused_and_changes_nothing() {
    let kit = Kit::start().await;
    let client = cluster(&kit, json!([workload("web", 1, Some(1))])).await;
    until("the pod", async || {
        (counts(&client).await == of(&[("web", 1)])).then_some(())
    })
    .await;
    let cp = kit
        .create(&order_of_cp(&json!([workload("web", 1, Some(1))])))
        .await;
    let change = UpdateInstance {
        owner: cp.owner.clone().unwrap(),
        config: order("c1", "eu-cp", true).config,
        cluster_config: Some(cluster_config(json!([{"name": "web", "replicas": -1}]))),
        config_digest: "wrong".into(),
    };
    let refused = kit
        .remote
        .update(&account(), &cp.id, &change)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().starts_with("workloads[0].replicas: "),
        "{refused}"
    );
    let shown = kit.remote.get(&account(), &cp.id).await.unwrap().unwrap();
    assert_eq!(shown.config_digest, "");
    assert_eq!(counts(&client).await, of(&[("web", 1)]));
}

#[tokio::test]
async fn pods_go_where_a_ready_node_takes_them() {
    let kit = Kit::start().await;
    let client = cluster(&kit, json!([workload("web", 2, Some(1))])).await;
    let on = async |expected: &[&str]| {
        until("the pods are there", async || {
            let mut nodes = ready(&client).await.remove("web").unwrap_or_default();
            nodes.sort();
            (nodes == expected).then_some(())
        })
        .await;
    };
    on(&["eu-web-0", "eu-web-1"]).await;
    // Drained: the evicted pod comes back on the other node.
    let nodes = Api::<Node>::all(client.clone());
    let cordon = |yes: bool| Patch::Merge(json!({"spec": {"unschedulable": yes}}));
    nodes
        .patch("eu-web-0", &PatchParams::default(), &cordon(true))
        .await
        .unwrap();
    let pods = Api::<Pod>::namespaced(client.clone(), "shop");
    let there = ListParams::default().fields("spec.nodeName=eu-web-0");
    let pod = pods.list(&there).await.unwrap().items.remove(0);
    pods.evict(&pod.name_any(), &EvictParams::default())
        .await
        .unwrap();
    on(&["eu-web-1", "eu-web-1"]).await;
    // The instance is lost: its node is heard no more, and its pods start where another kubelet is.
    nodes
        .patch("eu-web-0", &PatchParams::default(), &cordon(false))
        .await
        .unwrap();
    let lost = kit.create(&order("c1", "eu-web-1", false)).await;
    kit.remote
        .delete(&account(), &lost.id, "key-of-eu-web-1")
        .await
        .unwrap();
    on(&["eu-web-0", "eu-web-0"]).await;
    let node = nodes.get("eu-web-1").await.unwrap();
    let ready = node.status.unwrap().conditions.unwrap();
    let ready = ready.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "Unknown");
}

/// Keys in the cloud's store, while no cloud runs.
fn stored(kit: &std::path::Path) -> Vec<String> {
    let store = Store::open(kit.join("cloud.db")).unwrap();
    let entries = store.range("", None, 0).0;
    entries.iter().map(|e| e.key.to_string()).collect()
}

async fn remove(kit: &Kit, machine: &str, control_plane: bool) {
    let made = kit.create(&order("c1", machine, control_plane)).await;
    let key = format!("key-of-{machine}");
    kit.remote.delete(&account(), &made.id, &key).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_whose_last_instance_is_gone() {
    let kit = Kit::start().await;
    let client = cluster(&kit, json!([workload("web", 2, Some(1))])).await;
    until("two pods", async || {
        (counts(&client).await == of(&[("web", 2)])).then_some(())
    })
    .await;
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let mine = serde_json::from_value(json!({"metadata": {"name": "mine"}})).unwrap();
    maps.create(&PostParams::default(), &mine).await.unwrap();
    let watch = maps.watch(&WatchParams::default(), "0").await.unwrap();
    for (machine, control_plane) in [("eu-web-0", false), ("eu-web-1", false), ("eu-cp", true)] {
        assert!(
            kit.cloud.client(&cluster_ref("c1")).await.is_ok(),
            "it serves as long as there is a machine"
        );
        remove(&kit, machine, control_plane).await;
    }
    until("the API is gone", async || {
        let client = kit.cloud.client(&cluster_ref("c1")).await;
        matches!(client, Err(ConnectionError::NotYet)).then_some(())
    })
    .await;
    // The watch ends with it.
    watch.collect::<Vec<_>>().await;
    let kit = kit.stop().await;
    assert_eq!(stored(kit.path()), ["m/next"]);
    let files: Vec<_> = std::fs::read_dir(kit.path())
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    assert!(
        files
            .iter()
            .all(|f| f == "journal.jsonl" || f.to_string_lossy().starts_with("cloud.db")),
        "{files:?}"
    );

    // A later cluster with the same key starts empty.
    let kit = Kit::on(kit).await;
    kit.create(&order("c1", "eu-cp-2", true)).await;
    let client = kit.client("c1").await;
    let shown = ClusterView {
        key: "c1".into(),
        cluster: "default/eu".into(),
        serves: true,
        instances: 1,
    };
    assert_eq!(kit.cloud.clusters(), [shown]);
    let nodes = Api::<Node>::all(client.clone());
    let names = until("its node", async || {
        let list = nodes.list(&ListParams::default()).await.unwrap();
        (!list.items.is_empty()).then(|| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>())
    })
    .await;
    assert_eq!(names, ["eu-cp-2"]);
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    assert!(maps.get_opt("mine").await.unwrap().is_none());
    assert!(counts(&client).await.is_empty() && budgets(&client).await.is_empty());
}

/// Killed between the end of the last instance and that of its cluster.
#[tokio::test]
async fn a_cluster_without_instances_is_torn_down_at_the_start() {
    let kit = Kit::start().await;
    cluster(&kit, json!([workload("web", 1, None)])).await;
    let dir = kit.stop().await;
    let store = Store::open(dir.path().join("cloud.db")).unwrap();
    let instances = store.range("i/", None, 0).0;
    assert_eq!(instances.len(), 3);
    let delete = |e: &fleetwright_store::Entry| Op::Delete {
        key: e.key.to_string(),
        expect: None,
        last: None,
    };
    let mut ops: Vec<_> = instances.iter().map(delete).collect();
    ops.push(Op::Put {
        key: "m/next".into(),
        value: Bytes::plain("4"),
        expect: None,
    });
    store.commit(ops).await.unwrap();
    drop(store);
    let kit = Kit::on(dir).await;
    until("it is torn down", async || {
        kit.cloud.clusters().is_empty().then_some(())
    })
    .await;
    let dir = kit.stop().await;
    assert_eq!(stored(dir.path()), ["m/next"]);
}
