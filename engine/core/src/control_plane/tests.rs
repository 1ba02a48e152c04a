//! Whole lives of control planes, one decision at a time.

mod managed;
mod random;
mod remediation;
mod steps;

use fleetwright_api::{
    cluster::{ClusterSpec, ClusterStatus, ControlPlane, ControlPlaneMachines, UpgradePolicy},
    condition::{Status, kind},
    machine::{MachineStatus, NodeRef},
    time::k8s_time,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::{machine_set::ordinal, quorum::Member};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// When the newest snapshot was taken and what ran then, and why the last try failed.
type Kept = (Option<(i64, Version)>, Option<String>);

struct World {
    cluster: Cluster,
    machines: Vec<Machine>,
    worker: Option<Version>,
    /// Why not all workers are known.
    unknown: Option<String>,
    etcd: Option<Result<Vec<Member>, String>>,
    components: Vec<ComponentState>,
    snapshots: Option<Kept>,
    pools: Vec<MachineDeployment>,
    versions: Vec<Version>,
    blocker: Option<Blocker>,
    domains: Vec<String>,
    held: BTreeMap<String, String>,
    log: Vec<String>,
    clock: i64,
}

impl World {
    fn new(replicas: i32, version: &str) -> Self {
        Self {
            cluster: Cluster {
                metadata: ObjectMeta {
                    name: Some("c".into()),
                    ..ObjectMeta::default()
                },
                spec: ClusterSpec {
                    version: version.into(),
                    control_plane: ControlPlane {
                        machines: Some(ControlPlaneMachines {
                            replicas: Some(replicas),
                            ..ControlPlaneMachines::default()
                        }),
                        ..ControlPlane::default()
                    },
                    ..ClusterSpec::default()
                },
                status: Some(ClusterStatus::default()),
            },
            machines: Vec::new(),
            worker: None,
            unknown: None,
            etcd: None,
            components: Vec::new(),
            snapshots: None,
            pools: Vec::new(),
            versions: Vec::new(),
            blocker: None,
            domains: Vec::new(),
            held: BTreeMap::new(),
            log: Vec::new(),
            clock: 0,
        }
    }

    fn decide(&self) -> ControlPlaneDecision {
        let catalogue = Catalogue::default();
        decide(
            &ControlPlaneView {
                cluster: &self.cluster,
                machines: &self.machines,
                managed: None,
                etcd: match &self.etcd {
                    Some(Ok(members)) => Etcd::Members(members),
                    Some(Err(why)) => Etcd::Unknown(why),
                    None => Etcd::Assumed,
                },
                components: &self.components,
                snapshots: match &self.snapshots {
                    Some((newest, failed)) => Snapshots::Kept {
                        newest: newest.as_ref().map(|(second, of)| (at(*second), of)),
                        failed: failed.as_deref(),
                    },
                    None => Snapshots::NotKept,
                },
                lowest_worker: self.worker.as_ref(),
                unknown_workers: self.unknown.as_deref(),
                pools: &self.pools,
                versions: &self.versions,
                blocker: self.blocker.as_ref(),
                held: &self.held,
                domains: &self.domains,
                catalogue: &catalogue,
            },
            at(self.clock),
        )
    }

    /// One decision, acted on; whether anything was done. New machines do not serve yet.
    fn act(&mut self) -> bool {
        self.clock += 10;
        let decision = self.decide();
        if let Some(text) = decision.remember {
            let annotations = self.cluster.metadata.annotations.get_or_insert_default();
            match text {
                Some(text) => {
                    annotations.insert(meta::ANNOTATION_REMEDIATION_IN_PROGRESS.into(), text)
                }
                None => annotations.remove(meta::ANNOTATION_REMEDIATION_IN_PROGRESS),
            };
        }
        match decision.action {
            ControlPlaneAction::Create { machine, .. } => {
                let version = machine.spec.content.version.clone().unwrap();
                self.log.push(format!("+{}@{version}", machine.ordinal));
                self.cluster
                    .metadata
                    .annotations
                    .get_or_insert_default()
                    .insert(
                        meta::ANNOTATION_NEXT_ORDINAL.into(),
                        (machine.ordinal + 1).to_string(),
                    );
                self.machines.push(Machine {
                    metadata: ObjectMeta {
                        name: Some(machine.name),
                        labels: Some(machine.labels),
                        annotations: Some(machine.annotations),
                        creation_timestamp: Some(k8s_time(at(self.clock))),
                        ..ObjectMeta::default()
                    },
                    spec: machine.spec,
                    status: None,
                });
                true
            }
            ControlPlaneAction::Delete { machine, .. } => {
                let gone = self
                    .machines
                    .iter()
                    .find(|m| m.metadata.name.as_ref() == Some(&machine))
                    .unwrap();
                self.log.push(format!("-{}", ordinal(gone).unwrap()));
                self.machines
                    .retain(|m| m.metadata.name.as_ref() != Some(&machine));
                true
            }
            _ => false,
        }
    }

    fn serve(&mut self) {
        for machine in &mut self.machines {
            set_ready(machine, true);
        }
        self.cluster.status.as_mut().unwrap().version =
            running_version(&self.machines).map(|v| v.to_string());
    }
}

fn set_ready(machine: &mut Machine, ready: bool) {
    let status = machine.status.get_or_insert_with(MachineStatus::default);
    status.node_ref = Some(NodeRef { name: "n".into() });
    for name in [kind::READY, kind::NODE_HEALTHY] {
        fleetwright_api::condition::set(
            &mut status.conditions,
            name,
            Status::from(ready),
            "X",
            "",
            None,
            at(0),
        );
    }
}

fn settle(w: &mut World) -> String {
    w.log.clear();
    for _ in 0..50 {
        if !w.act() {
            break;
        }
        w.serve();
    }
    w.log.join(" ")
}

#[test]
fn a_new_control_plane_grows_one_by_one() {
    let mut w = World::new(3, "v1.33.0");
    assert_eq!(settle(&mut w), "+0@v1.33.0 +1@v1.33.0 +2@v1.33.0");
    assert_eq!(w.decide().action, ControlPlaneAction::Settled);
}

#[test]
fn an_upgrade_makes_one_then_deletes_the_oldest_outdated() {
    let mut w = World::new(3, "v1.33.0");
    settle(&mut w);
    w.cluster.spec.version = "v1.34.1".into();
    assert_eq!(settle(&mut w), "+3@v1.34.1 -0 +4@v1.34.1 -1 +5@v1.34.1 -2");
    w.cluster.spec.version = "v1.34.0".into();
    assert!(
        settle(&mut w).starts_with("+6@v1.34.0 -3"),
        "patch downgrades roll"
    );
}

#[test]
fn several_minors_go_one_at_a_time_and_wait_for_workers() {
    let mut w = World::new(1, "v1.30.0");
    settle(&mut w);
    w.cluster.spec.version = "v1.34.2".into();
    w.worker = Some("v1.30.0".parse().unwrap());
    assert_eq!(settle(&mut w), "+1@v1.31.0 -0 +2@v1.32.0 -1 +3@v1.33.0 -2");
    assert!(matches!(
        w.decide().version,
        Some(VersionStep::WaitingForWorkers { .. })
    ));
    w.worker = Some("v1.33.0".parse().unwrap());
    w.unknown = Some("account a has not been listed yet".into());
    assert_eq!(settle(&mut w), "");
    assert_eq!(
        w.decide().version.unwrap().to_string(),
        "stays at v1.33.0 on the way to v1.34.2 until the versions of all workers are known: account a has not been listed yet"
    );
    w.unknown = None;
    assert_eq!(settle(&mut w), "+4@v1.34.2 -3");
}

#[test]
fn a_version_below_the_running_one_is_held_and_one_that_never_served_goes() {
    let mut w = World::new(3, "v1.33.0");
    settle(&mut w);
    w.cluster.spec.version = "v1.34.0".into();
    w.log.clear();
    assert!(w.act());
    // Reverted before the new machine served: it goes, nothing else happens.
    w.cluster.spec.version = "v1.33.0".into();
    assert_eq!(settle(&mut w), "-3");
    // Reverted after one served: held.
    w.cluster.spec.version = "v1.34.0".into();
    w.act();
    w.serve();
    w.cluster.spec.version = "v1.33.0".into();
    let d = w.decide();
    assert!(d.version.as_ref().is_some_and(VersionStep::is_held));
    settle(&mut w);
    assert_eq!(running_version(&w.machines).unwrap().to_string(), "v1.34.0");
    assert_eq!(w.decide().action, ControlPlaneAction::Settled);
}

#[test]
fn without_a_spare_machine_one_goes_first_but_a_single_one_never() {
    let mut w = World::new(3, "v1.33.0");
    settle(&mut w);
    w.cluster.spec.upgrade = Some(UpgradePolicy { max_surge: Some(0) });
    w.cluster.spec.version = "v1.34.0".into();
    assert_eq!(settle(&mut w), "-0 +3@v1.34.0 -1 +4@v1.34.0 -2 +5@v1.34.0");
    let mut w = World::new(1, "v1.33.0");
    settle(&mut w);
    w.cluster.spec.upgrade = Some(UpgradePolicy { max_surge: Some(0) });
    w.cluster.spec.version = "v1.34.0".into();
    assert_eq!(settle(&mut w), "+1@v1.34.0 -0");
}

#[test]
fn a_machine_that_is_not_ready_stops_everything() {
    let mut w = World::new(3, "v1.33.0");
    settle(&mut w);
    set_ready(&mut w.machines[1], false);
    set_ready(&mut w.machines[2], false);
    w.cluster.spec.version = "v1.34.0".into();
    assert!(matches!(
        w.decide().action,
        ControlPlaneAction::Wait(ControlPlaneWait::MachineNotReady(_))
    ));
    set_ready(&mut w.machines[2], true);
    // One broken, and outdated: it may go, two of two stay.
    assert!(matches!(
        w.decide().action,
        ControlPlaneAction::Delete {
            reason: DeleteReason::Outdated,
            ..
        }
    ));
    w.machines[0].metadata.deletion_timestamp = Some(k8s_time(at(0)));
    assert!(matches!(
        w.decide().action,
        ControlPlaneAction::Wait(ControlPlaneWait::MachineDeleting(_))
    ));
}

/// Cluster API's TestSelectMachineForInPlaceUpdateOrScaleDown.
#[test]
fn the_machine_that_goes_next() {
    let mark = |m: &mut Machine| {
        let key = meta::ANNOTATION_DELETE_MACHINE.to_owned();
        let all = m.metadata.annotations.get_or_insert_default();
        all.insert(key, String::new());
    };
    let old = |m: &mut Machine| m.spec.content.version = Some("v1.32.0".into());
    let zone = |m: &mut Machine, zone: &str| {
        m.status.as_mut().unwrap().failure_domain = Some(zone.into());
    };
    type Change<'a> = &'a dyn Fn(&mut [Machine]);
    // One machine more than wanted, so that one goes; named by its ordinal, older first.
    let cases: [(&str, Change<'_>, u64); 9] = [
        (
            "one that is not well before others",
            &|m| set_ready(&mut m[2], false),
            2,
        ),
        (
            "an outdated one that is not well before other outdated ones",
            &|m| {
                old(&mut m[0]);
                old(&mut m[1]);
                set_ready(&mut m[1], false);
            },
            1,
        ),
        ("the oldest", &|_| {}, 0),
        ("an outdated one", &|m| old(&mut m[2]), 2),
        ("a marked one", &|m| mark(&mut m[1]), 1),
        (
            "a marked one before an outdated one",
            &|m| {
                old(&mut m[0]);
                mark(&mut m[3]);
            },
            3,
        ),
        (
            "an outdated and marked one before a marked one",
            &|m| {
                mark(&mut m[0]);
                mark(&mut m[2]);
                old(&mut m[2]);
            },
            2,
        ),
        (
            "the oldest of the failure domain that has most",
            &|m| {
                for (at, name) in ["a", "b", "b", "c"].into_iter().enumerate() {
                    zone(&mut m[at], name);
                }
            },
            1,
        ),
        (
            "an outdated one of a small domain before others",
            &|m| {
                for (at, name) in ["a", "b", "b", "b"].into_iter().enumerate() {
                    zone(&mut m[at], name);
                }
                old(&mut m[0]);
            },
            0,
        ),
    ];
    for (name, change, want) in cases {
        let mut w = World::new(3, "v1.33.0");
        settle(&mut w);
        w.cluster
            .spec
            .control_plane
            .machines
            .as_mut()
            .unwrap()
            .replicas = Some(5);
        w.act();
        w.serve();
        w.cluster
            .spec
            .control_plane
            .machines
            .as_mut()
            .unwrap()
            .replicas = Some(3);
        change(&mut w.machines);
        match w.decide().action {
            ControlPlaneAction::Delete { machine, .. } => {
                assert_eq!(machine, format!("c-cp-{want}"), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// What never seen to serve may have joined etcd all the same: it goes only where the others carry the quorum without it.
#[test]
fn a_machine_that_may_carry_etcd_unseen_stays() {
    let mut w = World::new(1, "v1.33.0");
    settle(&mut w);
    w.cluster.spec.version = "v1.34.0".into();
    assert!(w.act());
    // The only member is gone; the new machine's instance runs.
    w.machines.remove(0);
    w.machines[0].spec.provider_id = Some("sim:///1".into());
    let status = w.cluster.status.as_mut().unwrap();
    status.initialization = Some(fleetwright_api::cluster::ClusterInitialization {
        control_plane_initialized: true,
        ..Default::default()
    });
    w.cluster.spec.version = "v1.33.0".into();
    assert!(matches!(
        w.decide().action,
        ControlPlaneAction::Wait(ControlPlaneWait::MachineNotReady(_))
    ));
    // Without an instance there is nothing in it.
    w.machines[0].spec.provider_id = None;
    assert!(matches!(
        w.decide().action,
        ControlPlaneAction::Delete {
            reason: DeleteReason::NeverServed,
            ..
        }
    ));
}
