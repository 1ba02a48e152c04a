//! Upgrades: the control plane one machine at a time, one minor at a time, then the workers; and versions that are held.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use fleetwright_api::{Cluster, Machine, condition::kind, version::Version};
use fleetwright_core::cluster::is_control_plane;
use kube::ResourceExt;
use serde_json::json;

use crate::kit::{Kit, World, of_cluster};

fn version(machine: &Machine) -> Version {
    machine
        .spec
        .content
        .version
        .as_deref()
        .unwrap()
        .parse()
        .unwrap()
}

/// Versions of machines in the order in which they were made, told apart by what they are for.
fn record(kit: &mut Kit) -> Arc<Mutex<Vec<String>>> {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let (mine, mut known) = (Arc::clone(&log), BTreeMap::new());
    kit.always(move |w: &World| {
        for (name, machine) in &w.machines {
            if known.insert(name.clone(), ()).is_none() {
                let what = if is_control_plane(machine) {
                    "cp"
                } else {
                    "worker"
                };
                mine.lock()
                    .unwrap()
                    .push(format!("{what} {}", version(machine)));
            }
        }
        Ok(())
    });
    log
}

/// Skew and order at every moment: at most one control-plane machine more and one on its way out, no worker above any serving one.
fn guard(kit: &mut Kit, replicas: usize) {
    kit.always(move |w| {
        let all = w.control_plane("eu");
        let leaving = all
            .iter()
            .filter(|m| m.metadata.deletion_timestamp.is_some())
            .count();
        if all.len() > replicas + 1 || leaving > 1 {
            return Err(format!(
                "{} control-plane machines, {leaving} leave",
                all.len()
            ));
        }
        let served = |m: &&&Machine| m.status.as_ref().is_some_and(|s| s.node_ref.is_some());
        let lowest = all.iter().filter(served).map(|m| version(m)).min();
        let highest = w.workers("eu-web").into_iter().map(version).max();
        match (lowest, highest) {
            (Some(api), Some(worker)) if worker.minor() > api.minor() => Err(format!(
                "a worker at {worker} under a control plane at {api}"
            )),
            _ => Ok(()),
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_goes_one_minor_and_one_control_plane_machine_at_a_time_then_the_pool() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.31.4", 3, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.until_settled("eu").await;
    guard(&mut kit, 3);
    let log = record(&mut kit);
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.33.1"}}))
        .await;
    log.lock().unwrap().clear();
    kit.until_settled("eu").await;
    let log = log.lock().unwrap().join(", ");
    let step = |what: &str, n: usize| vec![what; n].join(", ");
    let want = [
        step("cp v1.32.0", 3),
        step("cp v1.33.1", 3),
        step("worker v1.33.1", 2),
    ];
    assert_eq!(log, want.join(", "));
    assert!(kit.nodes("eu").await.iter().all(|n| {
        let info = n.status.as_ref().and_then(|s| s.node_info.as_ref());
        info.is_some_and(|i| i.kubelet_version == "v1.33.1")
    }));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_below_the_running_one_is_held_and_the_rest_converges() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let control_plane: Vec<String> = kit
        .world
        .control_plane("eu")
        .iter()
        .map(|m| m.name_any())
        .collect();
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.32.5"}}))
        .await;
    let line = kit
        .until("the version is held", |w| {
            let line = of_cluster(&w.clusters["eu"], kind::VERSION_HELD);
            line.starts_with("True").then_some(line)
        })
        .await;
    assert!(
        line.starts_with("True VersionBelowRunning: stays at v1.33.2"),
        "{line}"
    );
    assert!(line.contains("set version to v1.33.2 or newer"), "{line}");
    // Workers may be older than their control plane: the pool goes where the cluster says.
    kit.until("the pool is at the older version", |w| {
        let workers = w.workers("eu-web");
        let there = workers.len() == 1 && version(workers[0]).to_string() == "v1.32.5";
        (there && w.settled("eu")).then_some(())
    })
    .await;
    let still: Vec<String> = kit
        .world
        .control_plane("eu")
        .iter()
        .map(|m| m.name_any())
        .collect();
    assert_eq!(still, control_plane);
    assert_eq!(
        kit.world.clusters["eu"]
            .status
            .as_ref()
            .unwrap()
            .version
            .as_deref(),
        Some("v1.33.2")
    );
    // The remedy works.
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.33.2"}}))
        .await;
    kit.until_settled("eu").await;
    assert!(of_cluster(&kit.world.clusters["eu"], kind::VERSION_HELD).starts_with("False NotHeld"));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revert_before_the_newer_version_served_rolls_back() {
    let mut kit = Kit::start().await;
    let slow = json!({"controlPlane": {"machines": {"template": {"spec": {"providerConfig": {"bootSeconds": 600}}}}}});
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    let before: Vec<String> = kit.world.machines.keys().cloned().collect();
    kit.patch::<Cluster>("eu", json!({"spec": slow})).await;
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.1"}}))
        .await;
    kit.until("a machine of the newer version boots", |w| {
        let all = w.control_plane("eu");
        all.iter().any(|m| version(m).minor() == 34).then_some(())
    })
    .await;
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.33.2"}}))
        .await;
    kit.until("it is gone again and nothing is held", |w| {
        let same = w.machines.keys().cloned().collect::<Vec<_>>() == before;
        let held = of_cluster(&w.clusters["eu"], kind::VERSION_HELD).starts_with("True");
        (same && !held && w.settled("eu")).then_some(())
    })
    .await;
    kit.stop().await;
}
