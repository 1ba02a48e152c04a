//! The server through a `kube::Client`, in process.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use fleetwright_api::random::SeededRandom;
use fleetwright_api::time::ManualClock;
use fleetwright_apiserver::{ApiServer, Auth, Options, Tls, write_kubeconfig};
use fleetwright_store::Store;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod};
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[path = "client/audit.rs"]
mod audit;

fn server() -> ApiServer {
    server_with(Store::memory()).0
}

fn server_with(store: Store) -> (ApiServer, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(
        jiff::Timestamp::from_second(1_790_000_000).unwrap(),
    ));
    let options = Options::new(clock.clone(), Arc::new(SeededRandom::new(1)));
    (ApiServer::new(store, options).unwrap(), clock)
}

fn map(name: &str, more: Value) -> ConfigMap {
    let mut value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    for (field, what) in more.as_object().unwrap() {
        if field == "metadata" {
            for (k, v) in what.as_object().unwrap() {
                value["metadata"][k] = v.clone();
            }
        } else {
            value[field] = what.clone();
        }
    }
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn requests_and_watch_events_are_counted() {
    let server = server();
    let mut registry = prometheus_client::registry::Registry::default();
    server.register_metrics(&mut registry);
    let api: Api<ConfigMap> = Api::namespaced(server.client("default"), "default");
    let params = PostParams::default();
    let made = api.create(&params, &map("a", json!({}))).await.unwrap();
    api.create(&params, &map("a", json!({}))).await.unwrap_err();
    api.get("a").await.unwrap();
    let version = made.metadata.resource_version.unwrap();
    let watch = api.watch(&WatchParams::default(), &version).await.unwrap();
    api.create(&params, &map("b", json!({}))).await.unwrap();
    watch.boxed().try_next().await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let request = |verb: &str, code: u16| {
        format!(
            "api_requests_total{{verb=\"{verb}\",resource=\"configmaps\",subresource=\"\",code=\"{code}\"}}"
        )
    };
    for (counter, count) in [
        (request("create", 201), 2),
        (request("create", 409), 1),
        (request("get", 200), 1),
        (request("watch", 200), 1),
        (
            "api_watch_events_total{resource=\"configmaps\"}".to_owned(),
            1,
        ),
    ] {
        assert!(
            text.contains(&format!("{counter} {count}\n")),
            "{counter} in {text}"
        );
    }
}

#[tokio::test]
async fn objects_are_made_changed_watched_and_deleted() {
    let server = server();
    let api: Api<ConfigMap> = Api::namespaced(server.client("default"), "default");
    let made = api
        .create(
            &PostParams::default(),
            &map("a", json!({"data": {"k": "v"}})),
        )
        .await
        .unwrap();
    let version = made.metadata.resource_version.clone().unwrap();
    let mut events = api
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let patch = json!({"data": {"k": "w"}});
    let changed = api
        .patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(changed.data.unwrap()["k"], "w");
    let stale = api
        .replace("a", &PostParams::default(), &made)
        .await
        .unwrap_err();
    assert!(matches!(stale, kube::Error::Api(s) if s.code == 409));
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Modified(_))
    ));
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Deleted(_))
    ));
}

#[tokio::test]
async fn managed_fields_come_back_with_every_write_and_can_be_reset() {
    let server = server();
    let api: Api<ConfigMap> = Api::namespaced(server.client("default"), "default");
    let by = |manager: &str| PatchParams::apply(manager);
    let made = map("a", json!({"data": {"k": "v"}}));
    let applied = api.patch("a", &by("one"), &Patch::Apply(&made)).await;
    let applied = applied.unwrap();
    let managers = |map: &ConfigMap| -> Vec<String> {
        let entries = map.metadata.managed_fields.iter().flatten();
        entries.filter_map(|e| e.manager.clone()).collect()
    };
    assert_eq!(managers(&applied), ["one"]);
    let write = async |patch: Patch<Value>| api.patch("a", &by("two"), &patch).await.unwrap();
    // What changes nothing is no write, and its answer is whole.
    assert_eq!(
        write(Patch::Merge(json!({"data": {"k": "v"}}))).await,
        applied
    );
    let changed = write(Patch::Merge(json!({"data": {"l": "w"}}))).await;
    assert_eq!(managers(&changed), ["one", "two"]);
    assert_eq!(api.get("a").await.unwrap(), changed);
    let dry = PatchParams {
        dry_run: true,
        ..by("two")
    };
    let more = Patch::Merge(json!({"data": {"m": "x"}}));
    let tried = api.patch("a", &dry, &more).await.unwrap();
    assert_eq!(managers(&tried), ["one", "two"]);
    // A JSON patch may name them, as kubectl does that hands fields from one manager to another.
    let operations = json!([{"op": "remove", "path": "/metadata/managedFields/1"}]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(operations).unwrap());
    assert_eq!(managers(&write(patch).await), ["one"]);
    let reset = write(Patch::Merge(json!({"metadata": {"managedFields": [{}]}}))).await;
    assert_eq!(managers(&reset), Vec::<String>::new());
    assert_eq!(reset.data.unwrap().len(), 2);
}

#[tokio::test]
async fn dependents_and_namespaces_go_in_order() {
    let server = server();
    let client = server.client("default");
    let spaces: Api<Namespace> = Api::all(client.clone());
    let space: Namespace = serde_json::from_value(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
    )
    .unwrap();
    spaces.create(&PostParams::default(), &space).await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(client, "n");
    let owner = api
        .create(&PostParams::default(), &map("owner", json!({})))
        .await
        .unwrap();
    let owned = |block: bool| {
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner.metadata.uid, "blockOwnerDeletion": block}]}})
    };
    api.create(&PostParams::default(), &map("child", owned(true)))
        .await
        .unwrap();
    api.delete("owner", &DeleteParams::default()).await.unwrap();
    assert!(
        api.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    // An owner that is gone takes a late child with it.
    api.create(&PostParams::default(), &map("late", owned(false)))
        .await
        .unwrap();
    assert!(api.get_opt("late").await.unwrap().is_none());
    api.create(
        &PostParams::default(),
        &map(
            "held",
            json!({"metadata": {"finalizers": ["example.com/hold"]}}),
        ),
    )
    .await
    .unwrap();
    spaces.delete("n", &DeleteParams::default()).await.unwrap();
    assert!(
        spaces.get_opt("n").await.unwrap().is_some(),
        "the held object keeps the namespace"
    );
    let free = json!({"metadata": {"finalizers": null}});
    api.patch("held", &PatchParams::default(), &Patch::Merge(&free))
        .await
        .unwrap();
    assert!(spaces.get_opt("n").await.unwrap().is_none());
}

#[tokio::test]
async fn budgets_hold_pods_until_more_are_healthy() {
    let server = server();
    let client = server.client("default");
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for name in ["a", "b"] {
        let pod = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
    let gvk = kube::core::GroupVersionKind::gvk("policy", "v1", "PodDisruptionBudget");
    let resource = kube::core::ApiResource::from_gvk(&gvk);
    let budgets: Api<DynamicObject> = Api::default_namespaced_with(client, &resource);
    let budget = serde_json::from_value(
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}}),
    )
    .unwrap();
    budgets
        .create(&PostParams::default(), &budget)
        .await
        .unwrap();
    pods.evict("a", &kube::api::EvictParams::default())
        .await
        .unwrap();
    let refused = pods
        .evict("b", &kube::api::EvictParams::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, kube::Error::Api(s) if s.code == 429));
    let found = pods
        .list(&ListParams::default().fields("spec.nodeName=n"))
        .await
        .unwrap();
    assert_eq!(found.items.len(), 1);
}

#[tokio::test]
async fn nothing_is_evicted_in_a_namespace_that_goes() {
    let server = server();
    let client = server.client("default");
    let spaces: Api<Namespace> = Api::all(client.clone());
    let space = serde_json::from_value(json!({"metadata": {"name": "going"}})).unwrap();
    spaces.create(&PostParams::default(), &space).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client, "going");
    let pod = serde_json::from_value(
        json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}),
    );
    pods.create(&PostParams::default(), &pod.unwrap())
        .await
        .unwrap();
    let gone = DeleteParams::default();
    spaces.delete("going", &gone).await.unwrap();
    let refused = pods.evict("a", &kube::api::EvictParams::default()).await;
    let Err(kube::Error::Api(status)) = refused else {
        panic!("{refused:?}");
    };
    let causes = status.details.unwrap().causes;
    let causes: Vec<&str> = causes.iter().map(|c| c.reason.as_str()).collect();
    assert_eq!((status.code, causes), (403, vec!["NamespaceTerminating"]));
}

#[tokio::test]
async fn our_definitions_are_served_at_once() {
    let server = server();
    let crds: Vec<Value> = fleetwright_api::crds::all()
        .iter()
        .map(|c| serde_json::to_value(c).unwrap())
        .collect();
    server.install_crds(&crds).await.unwrap();
    server.install_crds(&crds).await.unwrap();
    let api: Api<fleetwright_api::Cluster> = Api::namespaced(server.client("default"), "default");
    assert!(
        api.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_moment_until_it_is_forgotten() {
    let (server, _) = server_with(Store::memory_bounded(4_096));
    let api: Api<ConfigMap> = Api::namespaced(server.client("default"), "default");
    for name in ["a", "b", "c"] {
        let made = map(name, json!({"data": {"k": "old"}}));
        api.create(&PostParams::default(), &made).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(1)).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(2));
    let patch = Patch::Merge(json!({"data": {"k": "new"}}));
    api.patch("b", &PatchParams::default(), &patch)
        .await
        .unwrap();
    api.delete("c", &DeleteParams::default()).await.unwrap();
    let rest = ListParams::default().limit(5).continue_token(&token);
    let second = api.list(&rest).await.unwrap();
    let shown: Vec<_> = second
        .items
        .iter()
        .map(|m| (m.metadata.name.clone().unwrap(), m.data.clone().unwrap()))
        .map(|(name, data)| (name, data["k"].clone()))
        .collect();
    let old = "old".to_owned();
    assert_eq!(
        shown,
        [("b".to_owned(), old.clone()), ("c".to_owned(), old)]
    );
    assert_eq!(
        second.metadata.resource_version,
        first.metadata.resource_version
    );
    for n in 0..40 {
        let patch = Patch::Merge(json!({"data": {"k": format!("{n}")}}));
        api.patch("b", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let gone = api.list(&rest).await.unwrap_err();
    let kube::Error::Api(status) = gone else {
        panic!("{gone}");
    };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    let version = first.metadata.resource_version.unwrap();
    let mut events = api
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let told = events.try_next().await.unwrap();
    assert!(matches!(told, Some(WatchEvent::Error(e)) if e.code == 410));
}

#[tokio::test]
async fn events_go_an_hour_after_they_were_last_written() {
    let (server, clock) = server_with(Store::memory());
    let api: Api<Event> = Api::namespaced(server.client("default"), "default");
    let event = |name: &str| -> Event {
        serde_json::from_value(json!({"metadata": {"name": name}, "reason": "Made",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}}))
        .unwrap()
    };
    for name in ["once", "again"] {
        let params = PostParams::default();
        api.create(&params, &event(name)).await.unwrap();
    }
    let names = || async {
        let list = api.list(&ListParams::default()).await.unwrap();
        let names = list.items.into_iter().map(|e| e.metadata.name.unwrap());
        names.collect::<Vec<_>>()
    };
    clock.advance_millis(3_000_000);
    let patch = Patch::Merge(json!({"count": 2}));
    let params = PatchParams::default();
    api.patch("again", &params, &patch).await.unwrap();
    assert_eq!(names().await, ["again", "once"]);
    clock.advance_millis(600_000);
    assert_eq!(names().await, ["again"]);
    clock.advance_millis(3_000_000);
    assert_eq!(names().await, Vec::<String>::new());
}

/// A server of `dir` at `address`, until it is stopped.
async fn serve(dir: &std::path::Path, address: &str) -> (CancellationToken, JoinSet<()>, String) {
    let tokens = dir.join("tokens");
    std::fs::write(&tokens, "t,admin,1,\"system:masters\"\n").unwrap();
    let store = Store::open(dir.join("state.db")).unwrap();
    let (server, _) = server_with(store);
    let tls = Tls::open(&dir.join("pki")).unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let url = format!("https://{address}");
    write_kubeconfig(&dir.join("kubeconfig"), &url, tls.authority(), "t").unwrap();
    let stop = CancellationToken::new();
    let (token, auth) = (stop.clone(), Auth::from_file(&tokens).unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { server.serve(listener, tls, auth, token).await.unwrap() });
    (stop, tasks, address)
}

#[tokio::test]
async fn an_informer_goes_on_through_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut stop, mut tasks, address) = serve(dir.path(), "127.0.0.1:0").await;
    let file = kube::config::Kubeconfig::read_from(dir.path().join("kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default())
        .await
        .unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let (reader, writer) = kube::runtime::reflector::store();
    let events = kube::runtime::watcher(api.clone(), Default::default());
    let mut informer = kube::runtime::reflector(writer, events.default_backoff()).boxed();
    for round in 0..4 {
        let name = format!("m{round}");
        // A client may meet the moment in which nobody listens; it asks again.
        let made = map(&name, json!({}));
        while api.create(&PostParams::default(), &made).await.is_err() {
            tokio::task::yield_now().await;
        }
        if round > 0 {
            let gone = format!("m{}", round - 1);
            api.delete(&gone, &DeleteParams::default()).await.unwrap();
        }
        let current = || {
            let names: Vec<_> = reader.state().iter().map(|m| m.name_any()).collect();
            names == [name.clone()]
        };
        while !current() {
            informer.next().await;
        }
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
        (stop, tasks, _) = serve(dir.path(), &address).await;
    }
}
