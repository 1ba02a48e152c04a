//! What others change of machines, and what is told of it.

use std::sync::{Arc, Mutex};

use fleetwright_api::{condition::kind, names};
use fleetwright_providers::{CreateInstance, Ownership, Provider as _};
use futures::StreamExt;
use k8s_openapi::api::{core::v1::Node, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::watcher::{Config, Event as WatchEvent, watcher},
};
use serde_json::{Value, json};

use crate::kit::{Kit, World, account, config, of_cluster, of_machine};

/// Lets the account be listed at once, as each start does: where nothing moves, lists are a minute apart.
pub(crate) async fn list_again(kit: &mut Kit) {
    kit.stop_controllers().await;
    kit.start_controllers();
}

/// Somebody changes the instance of a machine by hand, and the account is listed. Nobody looks meanwhile: what is cut off once it has
/// been told in a status tells no Event of it.
pub(crate) async fn by_hand(kit: &mut Kit, machine: &str, change: Value) {
    let machine = &kit.world.machines[machine];
    let shown = machine.status.as_ref().unwrap().instance.as_ref().unwrap();
    let change = change.as_object().unwrap();
    let id = shown.id.clone();
    kit.stop_controllers().await;
    kit.cloud.alter(&id, change).await.unwrap();
    kit.start_controllers();
}

/// Waits for an Event with this reason on a machine.
pub(crate) async fn until_event(kit: &Kit, machine: &str, reason: &str) {
    let events = Api::<Event>::namespaced(kit.client.clone(), "default");
    let mut events = watcher(events, Config::default()).boxed();
    let told = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Apply(event) | WatchEvent::InitApply(event) = event.unwrap()
                && event.regarding.and_then(|r| r.name).as_deref() == Some(machine)
                && event.reason.as_deref() == Some(reason)
            {
                return;
            }
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(120), told).await;
    assert!(told.is_ok(), "no Event {reason} on {machine}");
}

pub(crate) async fn until_in_sync(kit: &mut Kit, machine: &str, begins: &str) -> String {
    let (of, start) = (machine.to_owned(), begins.to_owned());
    let found = move |w: &World| {
        let line = of_machine(w.machines.get(&of)?, kind::IN_SYNC);
        line.starts_with(&start).then_some(line)
    };
    kit.until(&format!("{machine} says {begins}"), found).await
}

/// Reasons of the Events on a machine, in order.
pub(crate) async fn events_on(kit: &Kit, machine: &str) -> Vec<String> {
    let events = Api::<Event>::namespaced(kit.client.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let mut told: Vec<_> = events
        .into_iter()
        .filter(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(machine))
        .map(|e| (e.event_time.map(|t| t.0), e.reason.unwrap_or_default()))
        .collect();
    told.sort();
    told.into_iter().map(|(_, reason)| reason).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_and_its_cluster_tell_what_others_changed_and_when_it_is_over() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    // Nothing that comes up or is handed to a node is drift.
    let drifted = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&drifted);
    kit.always(move |w: &World| {
        let told = w.machines.values().map(|m| of_machine(m, kind::IN_SYNC));
        let mut seen = seen.lock().unwrap();
        seen.extend(told.filter(|line| line.starts_with("False")));
        Ok(())
    });
    kit.until_settled("eu").await;
    kit.until("the cluster is in sync", |w| {
        of_cluster(w.clusters.get("eu")?, kind::IN_SYNC)
            .starts_with("True InSync")
            .then_some(())
    })
    .await;
    assert_eq!(drifted.lock().unwrap().as_slice(), [""; 0]);
    let name = kit.world.workers("eu-web")[0].name_any();

    // Another type, seen by the next list; another kubelet, seen at once.
    by_hand(&mut kit, &name, json!({"instanceType": "sim.large"})).await;
    let line = until_in_sync(&mut kit, &name, "False Drifted").await;
    assert!(
        line.contains("instanceType is sim.large, it was sim.small"),
        "{line}"
    );
    let told = format!("False Drifted: 1 of 3 machines drifted, first: {name}: the instance's ");
    kit.until("the cluster tells", |w| {
        of_cluster(w.clusters.get("eu")?, kind::IN_SYNC)
            .starts_with(&told)
            .then_some(())
    })
    .await;
    let nodes = Api::<Node>::all(kit.workload("eu").await);
    let kubelet =
        |version: &str| Patch::Merge(json!({"status": {"nodeInfo": {"kubeletVersion": version}}}));
    nodes
        .patch_status(&name, &PatchParams::default(), &kubelet("v1.32.9"))
        .await
        .unwrap();
    let of = name.clone();
    let both = kit
        .until("the kubelet is told too", move |w| {
            let drift = &w.machines.get(&of)?.status.as_ref()?.drift;
            (drift.len() == 2).then(|| drift.clone())
        })
        .await;
    assert!(both[0].since.0 <= both[1].since.0, "{both:?}");

    // The provider cannot be read: nothing is taken back, what still shows is told.
    nodes
        .patch_status(&name, &PatchParams::default(), &kubelet("v1.33.2"))
        .await
        .unwrap();
    kit.ward.unlist(true);
    list_again(&mut kit).await;
    until_in_sync(&mut kit, &name, "Unknown Unreadable").await;

    kit.ward.unlist(false);
    until_in_sync(&mut kit, &name, "False Drifted").await;
    by_hand(&mut kit, &name, json!({"instanceType": "sim.small"})).await;
    let of = name.clone();
    kit.until("it is over", move |w| {
        let status = w.machines.get(&of)?.status.as_ref()?;
        let gone = !status.conditions.iter().any(|c| c.type_ == kind::IN_SYNC);
        (gone && status.drift.is_empty()).then_some(())
    })
    .await;
    kit.until("the cluster is in sync again", |w| {
        of_cluster(w.clusters.get("eu")?, kind::IN_SYNC)
            .starts_with("True InSync")
            .then_some(())
    })
    .await;
    kit.stop_controllers().await;
    assert_eq!(events_on(&kit, &name).await, ["Drifted", "InSync"]);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_instance_and_a_strange_one_are_told() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let account = account();
    let order = CreateInstance {
        owner: Ownership {
            installation: "test".into(),
            cluster_key: names::cluster_key("test", "default", "eu"),
            cluster: "default/eu".into(),
            machine: "stranger".into(),
            instance_key: "f".repeat(32),
            ..Ownership::default()
        },
        version: "v1.33.2".into(),
        config: config("sim.small"),
        ..CreateInstance::default()
    };
    let stranger = kit.cloud.create(&account, &order).await.unwrap().id;
    list_again(&mut kit).await;
    let told = format!(
        "False Drifted: instances with the cluster's key and without a Machine: 1, first: {stranger}"
    );
    kit.until("the cluster tells of it", |w| {
        (of_cluster(w.clusters.get("eu")?, kind::IN_SYNC) == told).then_some(())
    })
    .await;
    let machine = kit.world.workers("eu-web")[0].clone();
    let (name, key) = (
        machine.name_any(),
        machine.spec.instance_key.clone().unwrap(),
    );
    let id = machine.status.unwrap().instance.unwrap().id;
    kit.cloud.delete(&account, &id, &key).await.unwrap();
    list_again(&mut kit).await;
    let line = until_in_sync(&mut kit, &name, "False Drifted").await;
    assert_eq!(
        line,
        format!("False Drifted: the provider shows instance {id} no more")
    );
    // One that is told to go does not drift.
    let machines: Api<fleetwright_api::Machine> = kit.api();
    machines
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    kit.until("it goes", move |w| {
        (!w.machines.contains_key(&name)).then_some(())
    })
    .await;
    kit.stop().await;
}
