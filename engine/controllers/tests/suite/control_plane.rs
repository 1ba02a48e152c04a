//! The control plane's life with its etcd: members come and go with machines, broken machines are replaced, upgrades take their way.

use std::collections::BTreeSet;

use fleetwright_api::{
    Cluster, Fleet, Machine, MachineDeployment, MachineHealthCheck,
    condition::{self, Status, kind, reason},
    meta, names,
};
use fleetwright_core::{cluster::is_control_plane, control_plane::ETCD_HOOK};
use fleetwright_providers::EtcdMember;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::kit::{Kit, World, of_cluster, of_machine};

fn key(cluster: &str) -> String {
    names::cluster_key("test", "default", cluster)
}

fn members(kit: &Kit, cluster: &str) -> Vec<EtcdMember> {
    kit.cloud.etcd_members(&key(cluster))
}

/// Who votes, by name; fails where a member is not well.
fn voters(kit: &Kit, cluster: &str) -> Vec<String> {
    let all = members(kit, cluster);
    assert!(all.iter().all(|m| m.healthy && !m.learner), "{all:?}");
    all.into_iter().map(|m| m.name).collect()
}

fn names_of(w: &World, cluster: &str) -> Vec<String> {
    let all = w.control_plane(cluster);
    all.iter().map(|m| m.name_any()).collect()
}

/// Waits until every control-plane machine's member is known to be healthy.
async fn until_known(kit: &mut Kit, cluster: &str) {
    kit.until("all members are known to be healthy", |w| {
        let all = w.control_plane(cluster);
        let healthy = |m: &&Machine| of_machine(m, kind::ETCD_MEMBER_HEALTHY).starts_with("True");
        (w.settled(cluster) && all.iter().all(healthy)).then_some(())
    })
    .await;
}

/// Breaks the etcd member of a node, and it alone.
async fn break_member(kit: &Kit, cluster: &str, node: &str, broken: bool) {
    let nodes = Api::<Node>::all(kit.workload(cluster).await);
    let value = broken.then_some("yes");
    let annotation = json!({fleetwright_provider_sim::etcd::ANNOTATION: value});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotation}}));
    nodes
        .patch(node, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Has a health check find a machine broken: somebody asked for its replacement.
async fn find_broken(kit: &Kit, machine: &str) {
    let api = kit.api::<Machine>();
    let check: MachineHealthCheck = serde_json::from_value(json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineHealthCheck", "metadata": {"name": machine},
        "spec": {"clusterName": "eu", "selector": {"matchLabels": {meta::LABEL_CONTROL_PLANE: ""}}},
    }))
    .unwrap();
    let checks = kit.api::<MachineHealthCheck>();
    checks.create(&PostParams::default(), &check).await.unwrap();
    let annotation = json!({meta::ANNOTATION_REMEDIATE_MACHINE: "yes"});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotation}}));
    let found = api.patch(machine, &PatchParams::default(), &patch).await;
    let found = found.unwrap();
    let mut conditions = found.status.unwrap().conditions;
    for (kind, reason) in [
        (kind::HEALTH_CHECK_SUCCEEDED, reason::UNHEALTHY_NODE),
        (kind::OWNER_REMEDIATED, reason::WAITING_FOR_REMEDIATION),
    ] {
        let now = jiff::Timestamp::UNIX_EPOCH;
        condition::set(&mut conditions, kind, Status::False, reason, "", None, now);
    }
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    api.patch_status(machine, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_with_their_machines() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 3, json!({})).await;
    until_known(&mut kit, "eu").await;
    assert_eq!(voters(&kit, "eu"), ["eu-cp-0", "eu-cp-1", "eu-cp-2"]);
    let line = of_cluster(&kit.world.clusters["eu"], kind::ETCD_CLUSTER_HEALTHY);
    assert_eq!(line, "True Healthy: ");
    let domains: Vec<_> = kit
        .world
        .control_plane("eu")
        .iter()
        .filter_map(|m| m.status.clone()?.failure_domain)
        .collect();
    assert_eq!(domains, ["eu-a", "eu-b", "eu-c"]);
    let expiry = meta::ANNOTATION_CERTIFICATES_EXPIRY;
    kit.until("all machines say when their certificates expire", |w| {
        let all = w.control_plane("eu");
        let say = all.iter().all(|m| m.annotations().contains_key(expiry));
        say.then_some(())
    })
    .await;
    // A member without a machine goes, a machine on its way out takes its member along before its instance goes.
    let api = kit.api::<Machine>();
    api.delete("eu-cp-1", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("the machine is gone", |w| {
        (!w.machines.contains_key("eu-cp-1")).then_some(())
    })
    .await;
    let left: Vec<_> = members(&kit, "eu");
    assert!(left.iter().all(|m| m.name != "eu-cp-1"), "{left:?}");
    until_known(&mut kit, "eu").await;
    assert_eq!(voters(&kit, "eu"), ["eu-cp-0", "eu-cp-2", "eu-cp-3"]);
    kit.stop().await;
}

/// A machine may join after our hook found no member of it: its instance does not go before it has left, though its node is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joined_after_its_hook_let_go_leaves_before_its_instance_does() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 3, json!({})).await;
    until_known(&mut kit, "eu").await;
    let other = format!("{}backup", meta::PREFIX_PRE_TERMINATE_HOOK);
    kit.patch::<Machine>(
        "eu-cp-1",
        json!({"metadata": {"annotations": {&other: "script"}}}),
    )
    .await;
    let api = kit.api::<Machine>();
    api.delete("eu-cp-1", &DeleteParams::default())
        .await
        .unwrap();
    kit.until("its deletion waits for the hooks", |w| {
        let machine = w.machines.get("eu-cp-1")?;
        let waits = of_machine(machine, kind::DELETING).contains("backup");
        (waits && machine.annotations().contains_key(ETCD_HOOK)).then_some(())
    })
    .await;
    // As if ours had let it go before it joined.
    kit.patch::<Machine>(
        "eu-cp-1",
        json!({"metadata": {"annotations": {&other: null, ETCD_HOOK: null}}}),
    )
    .await;
    kit.until("both hooks are gone", |w| {
        let machine = w.machines.get("eu-cp-1")?;
        (!machine.annotations().contains_key(&other)).then_some(())
    })
    .await;
    kit.until("our hook is back", |w| {
        let machine = w
            .machines
            .get("eu-cp-1")
            .expect("it is there until its member has left");
        machine.annotations().contains_key(ETCD_HOOK).then_some(())
    })
    .await;
    kit.until("the machine is gone", |w| {
        (!w.machines.contains_key("eu-cp-1")).then_some(())
    })
    .await;
    let left: Vec<_> = members(&kit, "eu");
    assert!(left.iter().all(|m| m.name != "eu-cp-1"), "{left:?}");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_machine_is_replaced_by_one_that_votes_first() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    until_known(&mut kit, "eu").await;
    // The old one leaves only when the new one is there.
    kit.always(|w| {
        let all = w.control_plane("eu");
        let serves = |m: &&Machine| {
            m.status.as_ref().is_some_and(|s| s.node_ref.is_some())
                && m.metadata.deletion_timestamp.is_none()
        };
        match all.iter().any(serves) {
            true => Ok(()),
            false => Err("no control-plane machine serves".into()),
        }
    });
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.33.5"}}))
        .await;
    until_known(&mut kit, "eu").await;
    assert_eq!(names_of(&kit.world, "eu"), ["eu-cp-1"]);
    assert_eq!(voters(&kit, "eu"), ["eu-cp-1"]);
    find_broken(&kit, "eu-cp-1").await;
    kit.until("the broken one is replaced", |w| {
        let all = names_of(w, "eu");
        (all == ["eu-cp-2"] && w.settled("eu")).then_some(())
    })
    .await;
    assert_eq!(voters(&kit, "eu"), ["eu-cp-2"]);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_machine_is_replaced_and_its_member_with_it() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 3, json!({})).await;
    until_known(&mut kit, "eu").await;
    break_member(&kit, "eu", "eu-cp-0", true).await;
    find_broken(&kit, "eu-cp-0").await;
    kit.until("it goes because it is broken", |w| {
        let line = of_cluster(&w.clusters["eu"], kind::REMEDIATING);
        line.starts_with("True").then_some(())
    })
    .await;
    kit.until("another one is in its place", |w| {
        let there = names_of(w, "eu") == ["eu-cp-1", "eu-cp-2", "eu-cp-3"];
        let over = of_cluster(&w.clusters["eu"], kind::REMEDIATING).starts_with("False");
        (there && over && w.settled("eu")).then_some(())
    })
    .await;
    assert_eq!(voters(&kit, "eu"), ["eu-cp-1", "eu-cp-2", "eu-cp-3"]);
    // Two of three: nothing may be done, and the machines say so.
    for machine in ["eu-cp-1", "eu-cp-2"] {
        break_member(&kit, "eu", machine, true).await;
        find_broken(&kit, machine).await;
    }
    let line = kit
        .until("it says why it cannot", |w| {
            let line = of_machine(&w.machines["eu-cp-1"], kind::OWNER_REMEDIATED);
            line.contains("CannotBeRemediated").then_some(line)
        })
        .await;
    assert!(line.contains("etcd would have no quorum"), "{line}");
    let etcd = of_cluster(&kit.world.clusters["eu"], kind::ETCD_CLUSTER_HEALTHY);
    assert!(
        etcd.starts_with("False NotHealthy: 1 of 3 voting members are healthy"),
        "{etcd}"
    );
    assert_eq!(
        names_of(&kit.world, "eu"),
        ["eu-cp-1", "eu-cp-2", "eu-cp-3"]
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_member_is_broken_no_step_is_taken() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 3, json!({})).await;
    until_known(&mut kit, "eu").await;
    break_member(&kit, "eu", "eu-cp-1", true).await;
    let made = kit.made().len();
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.33.5"}}))
        .await;
    kit.until("etcd's state is seen", |w| {
        let machine = of_machine(&w.machines["eu-cp-1"], kind::ETCD_MEMBER_HEALTHY);
        let cluster = of_cluster(&w.clusters["eu"], kind::ETCD_CLUSTER_HEALTHY);
        (machine.starts_with("False") && cluster.contains("member eu-cp-1 is not healthy"))
            .then_some(())
    })
    .await;
    assert_eq!(kit.made().len(), made);
    break_member(&kit, "eu", "eu-cp-1", false).await;
    until_known(&mut kit, "eu").await;
    let versions: BTreeSet<_> = kit
        .world
        .control_plane("eu")
        .iter()
        .map(|m| m.spec.content.version.clone().unwrap())
        .collect();
    assert_eq!(versions, BTreeSet::from(["v1.33.5".to_owned()]));
    kit.stop().await;
}

/// A Fleet that allows these versions, and the label that says that a cluster is its.
async fn fleet(kit: &Kit, versions: &[&str]) -> Value {
    let fleet: Fleet = serde_json::from_value(json!({
        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "all"},
        "spec": {"source": {"directory": "/nowhere"}, "suspend": true, "versions": versions},
    }))
    .unwrap();
    let api = kit.api::<Fleet>();
    api.create(&PostParams::default(), &fleet).await.unwrap();
    json!({meta::LABEL_FLEET: names::fleet_hash("default", "all")})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_minors_in_one_change_past_a_pinned_pool_and_scaled_meanwhile() {
    let mut kit = Kit::start().await;
    let ours = fleet(
        &kit,
        &["v1.30.3", "v1.31.2", "v1.31.7", "v1.32.4", "v1.33.1"],
    )
    .await;
    kit.cluster("eu", "v1.30.3", 1, json!({})).await;
    kit.patch::<Cluster>("eu", json!({"metadata": {"labels": ours}}))
        .await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    let pinned = json!({"template": {"spec": {"version": "v1.30.3"}}});
    kit.pool("eu-db", "eu", 1, pinned).await;
    until_known(&mut kit, "eu").await;
    kit.always(|w| {
        let minor = |m: &Machine| -> u64 {
            let version = m.spec.content.version.as_deref().unwrap();
            version.split('.').nth(1).unwrap().parse().unwrap()
        };
        let served = |m: &&&Machine| m.status.as_ref().is_some_and(|s| s.node_ref.is_some());
        let control_plane = w.control_plane("eu");
        let serving: Vec<u64> = control_plane
            .iter()
            .filter(served)
            .map(|m| minor(m))
            .collect();
        let workers = w.machines.values().filter(|m| !is_control_plane(m));
        for worker in workers {
            let bad = serving
                .iter()
                .any(|api| minor(worker) > *api || minor(worker) + 3 < *api);
            if bad {
                return Err(format!("{} under {serving:?}", worker.name_any()));
            }
        }
        Ok(())
    });
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.33.1"}}))
        .await;
    let line = kit
        .until("it says its way", |w| {
            let line = of_cluster(&w.clusters["eu"], kind::ROLLING_OUT);
            line.contains("->").then_some(line)
        })
        .await;
    assert!(
        line.contains("v1.30.3 -> v1.31.7 -> v1.32.4 -> v1.33.1; workers at v1.33.1"),
        "{line}"
    );
    // Scaling does not wait for the upgrade.
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 3}}))
        .await;
    kit.until(
        "the pool is scaled while the control plane is on its way",
        |w| {
            let web = w.workers("eu-web");
            let status = w.clusters["eu"].status.as_ref()?;
            (web.len() == 3 && status.version.as_deref() != Some("v1.33.1")).then_some(())
        },
    )
    .await;
    until_known(&mut kit, "eu").await;
    let version = |m: &&Machine| m.spec.content.version.clone().unwrap();
    let all = |pool: &str| {
        kit.world
            .workers(pool)
            .iter()
            .map(version)
            .collect::<Vec<_>>()
    };
    assert_eq!(all("eu-web"), ["v1.33.1"; 3]);
    assert_eq!(all("eu-db"), ["v1.30.3"]);
    // The pin would now be too old: nothing moves until it is raised.
    kit.patch::<Fleet>("all", json!({"spec": {"versions": null}}))
        .await;
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.0"}}))
        .await;
    kit.until("the pinned pool is named", |w| {
        let line = of_cluster(&w.clusters["eu"], kind::UPGRADE_BLOCKED);
        let named = line.starts_with("True PoolPinned") && line.contains("pool eu-db pins v1.30.3");
        named.then_some(())
    })
    .await;
    // Neither do labels and taints wait for it.
    let handed = json!({"template": {
        "metadata": {"labels": {"node.fleetwright.dev/site": "x"}},
        "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule", "propagation": "Always"}]},
    }});
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": handed}))
        .await;
    let control_plane = json!({"spec": {"controlPlane": {"machines": handed}}});
    kit.patch::<Cluster>("eu", control_plane).await;
    kit.until_nodes("eu", "nodes have it before the version comes", |nodes| {
        let has = |node: &&Node| {
            let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
            let tainted = taints.into_iter().any(|t| t.key == "gpu");
            tainted && node.labels().get("node.fleetwright.dev/site").is_some()
        };
        let old = |node: &Node| {
            let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
            info.is_some_and(|info| info.kubelet_version != "v1.34.0")
        };
        nodes.iter().filter(has).count() == 4 && nodes.iter().all(old)
    })
    .await;
    kit.patch::<MachineDeployment>(
        "eu-db",
        json!({"spec": {"template": {"spec": {"version": "v1.32.0"}}}}),
    )
    .await;
    until_known(&mut kit, "eu").await;
    assert!(of_cluster(&kit.world.clusters["eu"], kind::UPGRADE_BLOCKED).starts_with("False"));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_version_or_image_is_named_before_anything_moves() {
    let mut kit = Kit::start().await;
    let ours = fleet(&kit, &["v1.31.0", "v1.33.1"]).await;
    kit.cluster("eu", "v1.31.0", 1, json!({})).await;
    kit.patch::<Cluster>("eu", json!({"metadata": {"labels": ours}}))
        .await;
    until_known(&mut kit, "eu").await;
    let images = |all: &[&str]| Some(all.iter().map(|v| (*v).to_owned()).collect());
    kit.cloud.set_versions(images(&["v1.31.0", "v1.32.4"]));
    let made = kit.made().len();
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.33.1"}}))
        .await;
    let blocked = |line: &'static str| {
        move |w: &World| {
            let found = of_cluster(&w.clusters["eu"], kind::UPGRADE_BLOCKED);
            found.contains(line).then_some(found)
        }
    };
    let line = kit
        .until("the gap is named", blocked("the Fleet allows no v1.32"))
        .await;
    assert!(line.starts_with("True VersionMissing"), "{line}");
    kit.patch::<Fleet>(
        "all",
        json!({"spec": {"versions": ["v1.31.0", "v1.32.4", "v1.33.1"]}}),
    )
    .await;
    let line = kit
        .until(
            "the image is named",
            blocked("v1.33.1 for the control plane: the simulated cloud has no image"),
        )
        .await;
    assert!(line.starts_with("True ImageMissing"), "{line}");
    assert_eq!(kit.made().len(), made, "nothing moved");
    kit.cloud.set_versions(None);
    until_known(&mut kit, "eu").await;
    assert_eq!(
        kit.made()[made..],
        ["eu-cp-1", "eu-cp-2"],
        "one machine for each step"
    );
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revert_in_the_middle_stops_at_the_step_that_serves_and_takes_the_workers_back() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.31.4", 3, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    until_known(&mut kit, "eu").await;
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.1"}}))
        .await;
    kit.until("a machine of the first step serves", |w| {
        let all = w.control_plane("eu");
        let at = |m: &&Machine| {
            m.spec.content.version.as_deref() == Some("v1.32.0")
                && m.status.as_ref().is_some_and(|s| s.node_ref.is_some())
        };
        all.iter().any(at).then_some(())
    })
    .await;
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.31.4"}}))
        .await;
    let line = kit
        .until("the step is taken to its end and held", |w| {
            let versions: BTreeSet<_> = w
                .control_plane("eu")
                .iter()
                .map(|m| m.spec.content.version.clone().unwrap())
                .collect();
            let at = versions == BTreeSet::from(["v1.32.0".to_owned()]);
            let line = of_cluster(&w.clusters["eu"], kind::VERSION_HELD);
            (at && line.starts_with("True") && w.settled("eu")).then_some(line)
        })
        .await;
    assert!(line.contains("set version to v1.32.0 or newer"), "{line}");
    let workers = kit.world.workers("eu-web");
    assert_eq!(workers[0].spec.content.version.as_deref(), Some("v1.31.4"));
    kit.stop().await;
}
