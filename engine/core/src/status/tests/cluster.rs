//! Status of a Cluster, and when it has converged.

use fleetwright_api::{
    Cluster, Machine, MachineDeployment,
    cluster::{ClusterPhase, ClusterStatus},
    condition::kind,
    meta,
    time::k8s_time,
};
use serde_json::{Value, json};

use super::{at, conditions, line, member, read};
use crate::{
    cluster::ClusterDeletionStep,
    control_plane::{
        ControlPlaneAction, ControlPlaneDecision, ControlPlaneWait, DeleteReason, Trigger,
        VersionStep,
    },
    drift::MachinesInSync,
    status::{ClusterFacts, cluster, has_converged},
};

const GOOD: &str = "Available=True,Ready=True,UpToDate=True";

fn ours(replicas: i32) -> Cluster {
    read(json!({
        "metadata": {"name": "c", "generation": 2},
        "spec": {"version": "v1.33.0", "controlPlane": {"machines": {"replicas": replicas, "template": {"spec": {"providerConfig": {}}}}}},
    }))
}

fn theirs() -> Cluster {
    read(json!({
        "metadata": {"name": "c", "generation": 2},
        "spec": {"version": "v1.33.0", "controlPlane": {"external": {"kubeconfigSecretRef": {"name": "s"}}}},
    }))
}

pub(super) fn settled() -> ControlPlaneDecision {
    ControlPlaneDecision {
        version: Some(VersionStep::Wanted("v1.33.0".parse().unwrap())),
        ..ControlPlaneDecision::default()
    }
}

/// A control-plane machine that has served, at this version.
pub(super) fn served(name: &str, version: &str, text: &str) -> Machine {
    let mut m = member(name, "none", false, text);
    m.metadata.owner_references = None;
    m.spec.content.version = Some(version.into());
    m.status.as_mut().unwrap().node_ref = Some(read(json!({"name": name})));
    m
}

fn pool(name: &str, status: Value, text: &str) -> MachineDeployment {
    let mut pool: MachineDeployment = read(json!({
        "metadata": {"name": name, "generation": 1},
        "spec": {"clusterName": "c", "replicas": 2, "template": {"spec": {"providerConfig": {}}}},
        "status": {"observedGeneration": 1, "version": "v1.33.0"},
    }));
    let mut whole = serde_json::to_value(pool.status.take()).unwrap();
    whole
        .as_object_mut()
        .unwrap()
        .extend(status.as_object().cloned().unwrap_or_default());
    pool.status = Some(read(whole));
    pool.status.as_mut().unwrap().conditions = conditions(text);
    pool
}

pub(super) fn whole_pool(name: &str) -> MachineDeployment {
    pool(
        name,
        json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "upToDateReplicas": 2}),
        "Available=True,MachinesReady=True,MachinesUpToDate=True,RollingOut=False",
    )
}

pub(super) fn reached() -> ClusterFacts {
    ClusterFacts {
        reachable: Some(true),
        ..ClusterFacts::default()
    }
}

#[test]
fn initialized_is_never_taken_back() {
    let mut c = ours(1);
    let none = ClusterFacts::default();
    let new = cluster(&c, &[], &[], &none, &settled(), at(0));
    assert_eq!(
        line(&new.conditions, kind::CONTROL_PLANE_INITIALIZED),
        "False NotInitialized: waiting for the control plane's first machine"
    );
    assert_eq!(new.phase, Some(ClusterPhase::Pending));
    let booting = member("m", "none", false, "");
    let new = cluster(&c, &[booting], &[], &none, &settled(), at(0));
    assert_eq!(new.phase, Some(ClusterPhase::Provisioning));
    let new = cluster(
        &c,
        &[served("m", "v1.33.0", GOOD)],
        &[],
        &none,
        &settled(),
        at(0),
    );
    assert_eq!(
        line(&new.conditions, kind::CONTROL_PLANE_INITIALIZED),
        "True Initialized"
    );
    assert_eq!(
        (new.phase, new.version.as_deref()),
        (Some(ClusterPhase::Provisioned), Some("v1.33.0"))
    );
    c.status = Some(new);
    let new = cluster(&c, &[], &[], &none, &settled(), at(0));
    assert_eq!(
        line(&new.conditions, kind::CONTROL_PLANE_INITIALIZED),
        "True Initialized"
    );
    assert_eq!(
        new.version.as_deref(),
        Some("v1.33.0"),
        "what it ran is not forgotten"
    );
    // Somebody else's is initialized when its API answers.
    let new = cluster(&theirs(), &[], &[], &reached(), &settled(), at(0));
    assert_eq!(
        line(&new.conditions, kind::CONTROL_PLANE_INITIALIZED),
        "True Initialized"
    );
}

#[test]
fn the_control_plane_is_available_with_a_majority() {
    let bad = "Available=False";
    let waits = |wait| ControlPlaneDecision {
        action: ControlPlaneAction::Wait(wait),
        ..settled()
    };
    for (name, of, machines, facts, decision, want) in [
        (
            "all",
            ours(3),
            vec![GOOD, GOOD, GOOD],
            reached(),
            settled(),
            "True Available",
        ),
        (
            "two of three",
            ours(3),
            vec![GOOD, GOOD, bad],
            reached(),
            settled(),
            "True Available",
        ),
        (
            "one of three, and what it waits for",
            ours(3),
            vec![GOOD, bad, bad],
            reached(),
            waits(ControlPlaneWait::MachineNotReady("m1".into())),
            "False NotAvailable: 1 of 3 machines available, at least 2 required; machine m1 is not ready",
        ),
        (
            "what it does about it",
            ours(3),
            vec![GOOD],
            reached(),
            ControlPlaneDecision {
                action: ControlPlaneAction::Delete {
                    machine: "m9".into(),
                    reason: DeleteReason::Outdated,
                },
                ..settled()
            },
            "False NotAvailable: 1 of 3 machines available, at least 2 required; deleting m9: not up to date",
        ),
        (
            "somebody else's that answers",
            theirs(),
            vec![],
            reached(),
            settled(),
            "True Available",
        ),
        (
            "somebody else's that does not",
            theirs(),
            vec![],
            ClusterFacts {
                reachable: Some(false),
                ..ClusterFacts::default()
            },
            settled(),
            "False NotAvailable: the cluster's API does not answer",
        ),
        (
            "somebody else's that nobody asked",
            theirs(),
            vec![],
            ClusterFacts::default(),
            settled(),
            "Unknown AvailableUnknown: nobody asked the cluster's API yet",
        ),
    ] {
        let machines: Vec<Machine> = machines
            .into_iter()
            .enumerate()
            .map(|(i, text)| served(&format!("m{i}"), "v1.33.0", text))
            .collect();
        let new = cluster(&of, &machines, &[], &facts, &decision, at(0));
        assert_eq!(
            line(&new.conditions, kind::CONTROL_PLANE_AVAILABLE),
            want,
            "{name}"
        );
    }
}

#[test]
fn the_probe_says_whether_the_api_answers() {
    for (reachable, why, want) in [
        (None, None, "none"),
        (Some(true), None, "True ProbeSucceeded"),
        (
            Some(false),
            None,
            "False ProbeFailed: the cluster's API does not answer",
        ),
        (
            Some(false),
            Some("no route to host"),
            "False ProbeFailed: no route to host",
        ),
    ] {
        let facts = ClusterFacts {
            reachable,
            unreachable: why.map(Into::into),
            ..ClusterFacts::default()
        };
        let new = cluster(&ours(1), &[], &[], &facts, &settled(), at(0));
        assert_eq!(line(&new.conditions, kind::REMOTE_CONNECTION_PROBE), want);
    }
}

#[test]
fn somebody_elses_control_plane_is_told_as_it_is() {
    let mut c = theirs();
    let initialized = |s: &ClusterStatus| line(&s.conditions, kind::CONTROL_PLANE_INITIALIZED);
    let none = cluster(&c, &[], &[], &ClusterFacts::default(), &settled(), at(0));
    assert_eq!(
        initialized(&none),
        "False NotInitialized: waiting for the cluster's API to answer"
    );
    let facts = ClusterFacts {
        foreign_version: Some("v1.32.7".into()),
        foreign_newest: Some("v1.33.0".into()),
        unmanaged_nodes: Some(3),
        unmanaged_instances: Some(Vec::new()),
        in_sync: Some(MachinesInSync::default()),
        ..reached()
    };
    let seen = cluster(&c, &[], &[], &facts, &settled(), at(0));
    assert_eq!(initialized(&seen), "True Initialized");
    let versions = |s: &ClusterStatus| (s.version.clone(), s.upgrading_to.clone());
    assert_eq!(
        versions(&seen),
        (Some("v1.32.7".into()), Some("v1.33.0".into()))
    );
    assert_eq!(seen.unmanaged_nodes, Some(3));
    assert_eq!(seen.control_plane, None);
    let differs = "False Drifted: the control plane runs v1.32.7, declared is v1.33.0";
    assert_eq!(line(&seen.conditions, kind::IN_SYNC), differs);
    // It cannot be asked: what was known stays, and still differs.
    c.status = Some(seen);
    let down = ClusterFacts {
        reachable: Some(false),
        in_sync: Some(MachinesInSync::default()),
        ..ClusterFacts::default()
    };
    let still = cluster(&c, &[], &[], &down, &settled(), at(1));
    assert_eq!(still.version.as_deref(), Some("v1.32.7"));
    assert_eq!(still.unmanaged_nodes, Some(3));
    assert_eq!(line(&still.conditions, kind::IN_SYNC), differs);
    // All of it runs what is declared.
    let facts = ClusterFacts {
        foreign_version: Some("v1.33.0".into()),
        foreign_newest: Some("v1.33.0".into()),
        ..facts
    };
    let done = cluster(&c, &[], &[], &facts, &settled(), at(2));
    assert_eq!(versions(&done), (Some("v1.33.0".into()), None));
    assert_eq!(line(&done.conditions, kind::IN_SYNC), "True InSync");
}

#[test]
fn workers_are_summed_up_over_pools() {
    let one = |text: &str| vec![whole_pool("a"), pool("b", json!({}), text)];
    for (name, pools, available, ready, up_to_date) in [
        (
            "no pools",
            vec![],
            "True NoWorkers",
            "True NoReplicas",
            "True NoReplicas",
        ),
        (
            "all well",
            vec![whole_pool("a")],
            "True Available",
            "True Ready",
            "True UpToDate",
        ),
        (
            "one not",
            one(
                "Available=False:NotAvailable:1 of 2,MachinesReady=False:NotReady:x-1,MachinesUpToDate=False:NotUpToDate:x-2",
            ),
            "False NotAvailable: b: 1 of 2",
            "False NotReady: b: x-1",
            "False NotUpToDate: b: x-2",
        ),
        (
            "one not known",
            one(""),
            "Unknown AvailableUnknown: b: not known yet",
            "Unknown ReadyUnknown: b: not known yet",
            "Unknown UpToDateUnknown: b: not known yet",
        ),
    ] {
        let new = cluster(&ours(1), &[], &pools, &reached(), &settled(), at(0));
        assert_eq!(
            line(&new.conditions, kind::WORKERS_AVAILABLE),
            available,
            "{name}"
        );
        assert_eq!(
            line(&new.conditions, kind::WORKER_MACHINES_READY),
            ready,
            "{name}"
        );
        assert_eq!(
            line(&new.conditions, kind::WORKER_MACHINES_UP_TO_DATE),
            up_to_date,
            "{name}"
        );
    }
    let new = cluster(
        &ours(1),
        &[],
        &[whole_pool("a"), whole_pool("b")],
        &reached(),
        &settled(),
        at(0),
    );
    let w = new.workers.unwrap();
    let counts = [
        w.desired_replicas,
        w.replicas,
        w.ready_replicas,
        w.available_replicas,
        w.up_to_date_replicas,
    ];
    assert_eq!(counts, [4; 5]);
}

#[test]
fn control_plane_machines_are_ready_and_up_to_date() {
    let machines = [
        served("m0", "v1.33.0", GOOD),
        served("m1", "v1.33.0", "Ready=False:NotReady:no node"),
    ];
    let mut decision = settled();
    let new = cluster(&ours(3), &machines, &[], &reached(), &decision, at(0));
    assert_eq!(
        line(&new.conditions, kind::CONTROL_PLANE_MACHINES_READY),
        "False NotReady: m1: no node"
    );
    assert_eq!(
        line(&new.conditions, kind::CONTROL_PLANE_MACHINES_UP_TO_DATE),
        "True UpToDate"
    );
    let change = crate::compare::FieldChange {
        path: "spec.version".into(),
        from: Some(json!("v1.33.0")),
        to: Some(json!("v1.34.0")),
    };
    decision
        .outdated
        .insert("m0".into(), vec![Trigger::Field(change)]);
    decision.outdated.insert("m1".into(), vec![]);
    let new = cluster(&ours(3), &machines, &[], &reached(), &decision, at(0));
    assert_eq!(
        line(&new.conditions, kind::CONTROL_PLANE_MACHINES_UP_TO_DATE),
        "False NotUpToDate: m0: spec.version: v1.33.0 -> v1.34.0; m1"
    );
    assert_eq!(
        line(&new.conditions, kind::ROLLING_OUT),
        "True RollingOut: rolling out 2 control-plane machines"
    );
    let cp = new.control_plane.unwrap();
    let counts = [
        cp.desired_replicas,
        cp.replicas,
        cp.ready_replicas,
        cp.available_replicas,
        cp.up_to_date_replicas,
    ];
    assert_eq!(counts, [3, 2, 1, 1, 0]);
}

#[test]
fn scaling_names_the_control_plane_and_the_pools() {
    let machines = [served("m0", "v1.33.0", GOOD)];
    let up = pool("web", json!({}), "ScalingUp=True");
    let down = pool("db", json!({}), "ScalingDown=True");
    for (replicas, pools, want_up, want_down) in [
        (
            1,
            vec![whole_pool("a")],
            "False NotScalingUp",
            "False NotScalingDown",
        ),
        (
            3,
            vec![up],
            "True ScalingUp: scaling up the control plane from 1 to 3 machines; pool web",
            "False NotScalingDown",
        ),
        (
            1,
            vec![down],
            "False NotScalingUp",
            "True ScalingDown: scaling down pool db",
        ),
    ] {
        let new = cluster(
            &ours(replicas),
            &machines,
            &pools,
            &reached(),
            &settled(),
            at(0),
        );
        assert_eq!(line(&new.conditions, kind::SCALING_UP), want_up);
        assert_eq!(line(&new.conditions, kind::SCALING_DOWN), want_down);
    }
}

#[test]
fn a_version_on_its_way_and_a_held_one_say_so() {
    let v = |text: &str| text.parse().unwrap();
    for (step, held, rolling) in [
        (
            VersionStep::Wanted(v("v1.33.0")),
            "False NotHeld",
            "False NotRollingOut",
        ),
        (
            VersionStep::Step {
                to: v("v1.34.0"),
                wanted: v("v1.35.1"),
            },
            "False NotHeld",
            "True RollingOut: rolling out the control plane to v1.35.1",
        ),
        (
            VersionStep::WaitingForWorkers {
                at: v("v1.33.0"),
                wanted: v("v1.34.0"),
                worker: v("v1.30.0"),
            },
            "False NotHeld",
            "True RollingOut: rolling out the control plane to v1.34.0",
        ),
        (
            VersionStep::Snapshot {
                at: v("v1.33.0"),
                next: v("v1.34.0"),
                wanted: v("v1.35.0"),
            },
            "False NotHeld",
            "True RollingOut: rolling out the control plane to v1.35.0, once a snapshot of etcd is kept from before v1.34.0",
        ),
        (
            VersionStep::Held {
                running: v("v1.34.0"),
                wanted: v("v1.33.0"),
            },
            "True VersionBelowRunning: stays at v1.34.0: a control plane never goes back to an older minor version (v1.33.0); set version to v1.34.0 or newer",
            "False NotRollingOut",
        ),
    ] {
        let decision = ControlPlaneDecision {
            version: Some(step),
            ..settled()
        };
        let new = cluster(&ours(1), &[], &[], &reached(), &decision, at(0));
        assert_eq!(line(&new.conditions, kind::VERSION_HELD), held);
        assert_eq!(line(&new.conditions, kind::ROLLING_OUT), rolling);
    }
}

/// Pools must know what the control plane goes to: what runs, what is booting, what is next.
#[test]
fn the_newest_version_in_the_control_plane_is_told_while_it_is_not_the_running_one() {
    let booting = |version: &str| {
        let mut m = served("new", version, "");
        m.status = None;
        m
    };
    let step = |text: &str| ControlPlaneDecision {
        version: Some(VersionStep::Wanted(text.parse().unwrap())),
        ..settled()
    };
    let old = || served("m0", "v1.33.0", GOOD);
    for (machines, decision, want) in [
        (vec![], settled(), None),
        (vec![old()], settled(), None),
        (vec![old()], step("v1.34.0"), Some("v1.34.0")),
        (vec![old(), booting("v1.34.0")], settled(), Some("v1.34.0")),
        (
            vec![old(), served("m1", "v1.34.0", GOOD)],
            settled(),
            Some("v1.34.0"),
        ),
    ] {
        let new = cluster(&ours(1), &machines, &[], &reached(), &decision, at(0));
        assert_eq!(new.upgrading_to.as_deref(), want);
    }
}

#[test]
fn a_pool_that_is_behind_is_named_with_the_reason() {
    let with = |change: fn(&mut MachineDeployment)| {
        let mut p = whole_pool("web");
        change(&mut p);
        p
    };
    for (p, want) in [
        (with(|_| {}), "False NotRollingOut"),
        (
            with(|p| p.status.as_mut().unwrap().conditions = conditions("RollingOut=True")),
            "True RollingOut: rolling out pool web",
        ),
        (
            with(|p| p.metadata.generation = Some(9)),
            "True RollingOut: rolling out pool web (its latest change was not seen yet)",
        ),
        (
            with(|p| p.status.as_mut().unwrap().version = Some("v1.32.0".into())),
            "True RollingOut: rolling out pool web (at v1.32.0, follows the cluster to v1.33.0)",
        ),
        (
            with(|p| {
                p.spec.template.spec.version = Some("v1.32.0".into());
                p.status.as_mut().unwrap().version = Some("v1.32.0".into());
            }),
            "False NotRollingOut",
        ),
        (
            with(|p| p.metadata.deletion_timestamp = Some(k8s_time(at(0)))),
            "False NotRollingOut",
        ),
    ] {
        let new = cluster(&ours(1), &[], &[p], &reached(), &settled(), at(0));
        assert_eq!(line(&new.conditions, kind::ROLLING_OUT), want);
    }
}

/// Its machines could not join at the version that the cluster went back to: it stays, as the control plane does.
#[test]
fn a_pool_that_may_not_go_back_so_far_is_not_rolling_out() {
    for (running, want) in [
        (
            "v1.36.1",
            "True RollingOut: rolling out pool web (at v1.36.1, follows the cluster to v1.33.0)",
        ),
        ("v1.37.0", "False NotRollingOut"),
    ] {
        let mut of = ours(1);
        of.status.get_or_insert_default().version = Some(running.into());
        let mut pool = whole_pool("web");
        pool.status.as_mut().unwrap().version = Some(running.into());
        let new = cluster(&of, &[], &[pool], &reached(), &settled(), at(0));
        assert_eq!(line(&new.conditions, kind::ROLLING_OUT), want);
    }
}

#[test]
fn deleting_says_what_it_waits_for() {
    let none = Vec::new;
    for (step, want) in [
        (
            ClusterDeletionStep::Workers {
                delete_pools: none(),
                delete_sets: none(),
                delete_machines: none(),
                remaining: 4,
            },
            "True WaitingForWorkersDeletion: waiting for 4 pools, sets and machines of workers to be gone",
        ),
        (
            ClusterDeletionStep::ControlPlane {
                delete_machines: none(),
                remaining: 3,
            },
            "True WaitingForControlPlaneDeletion: waiting for 3 control-plane machines to be gone",
        ),
        (
            ClusterDeletionStep::Finish,
            "True DeletionCompleted: all machines are gone",
        ),
        (ClusterDeletionStep::Paused, "True Paused: paused"),
    ] {
        let mut c = ours(1);
        c.metadata.deletion_timestamp = Some(k8s_time(at(0)));
        let facts = ClusterFacts {
            deletion: Some(step),
            ..reached()
        };
        let new = cluster(&c, &[], &[], &facts, &settled(), at(0));
        assert_eq!(line(&new.conditions, kind::DELETING), want);
        assert_eq!(new.phase, Some(ClusterPhase::Deleting));
        let available = line(&new.conditions, kind::AVAILABLE);
        assert!(
            available.starts_with("False NotAvailable: Deleting: "),
            "{available}"
        );
    }
    let new = cluster(&ours(1), &[], &[], &reached(), &settled(), at(0));
    assert_eq!(line(&new.conditions, kind::DELETING), "False NotDeleting");
}

#[test]
fn available_sums_up_and_names_what_is_not() {
    let machines = [served("m0", "v1.33.0", GOOD)];
    let dead = || ClusterFacts {
        reachable: Some(false),
        ..ClusterFacts::default()
    };
    let bad_pool = || pool("web", json!({}), "Available=False:NotAvailable:1 of 2");
    for (name, machines, pools, facts, want) in [
        (
            "all well",
            &machines[..],
            vec![whole_pool("a")],
            reached(),
            "True Available",
        ),
        (
            "nobody asked the API yet",
            &machines[..],
            vec![],
            ClusterFacts::default(),
            "True Available",
        ),
        (
            "the API does not answer",
            &machines[..],
            vec![],
            dead(),
            "False NotAvailable: RemoteConnectionProbe: the cluster's API does not answer",
        ),
        (
            "a pool is not available",
            &machines[..],
            vec![bad_pool()],
            reached(),
            "False NotAvailable: WorkersAvailable: web: 1 of 2",
        ),
        (
            "a pool is not known",
            &machines[..],
            vec![pool("web", json!({}), "")],
            reached(),
            "Unknown AvailableUnknown: WorkersAvailable: web: not known yet",
        ),
        (
            "nothing is there",
            &[][..],
            vec![],
            reached(),
            "False NotAvailable: ControlPlaneAvailable: 0 of 1 machines available, at least 1 required",
        ),
    ] {
        let new = cluster(&ours(1), machines, &pools, &facts, &settled(), at(0));
        assert_eq!(line(&new.conditions, kind::AVAILABLE), want, "{name}");
    }
    let mut c = ours(1);
    c.metadata.annotations = Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    let new = cluster(&c, &machines, &[], &reached(), &settled(), at(0));
    assert_eq!(line(&new.conditions, kind::PAUSED), "True Paused");
}

#[test]
fn a_cluster_has_converged_when_all_of_it_is_what_it_says() {
    let machines = [served("m0", "v1.33.0", GOOD)];
    let good = || {
        let mut c = ours(1);
        c.status = Some(cluster(
            &c,
            &machines,
            &[whole_pool("a")],
            &reached(),
            &settled(),
            at(0),
        ));
        (c, vec![whole_pool("a")])
    };
    type Change = fn(&mut Cluster, &mut Vec<MachineDeployment>);
    fn addons(c: &mut Cluster, reason: &str) {
        let mut behind = conditions("AddonsUpToDate=False");
        behind[0].reason = reason.to_owned();
        c.status.as_mut().unwrap().conditions.extend(behind);
    }
    let cases: [(&str, Change, bool); 11] = [
        ("it has", |_, _| {}, true),
        (
            "kube-proxy is behind",
            |c, _| addons(c, "AddonsBehind"),
            false,
        ),
        ("people pinned CoreDNS", |c, _| addons(c, "LeftAlone"), true),
        ("without pools", |_, p| p.clear(), true),
        (
            "its change was not seen",
            |c, _| c.metadata.generation = Some(3),
            false,
        ),
        ("nobody looked", |c, _| c.status = None, false),
        (
            "not available",
            |c, _| c.status.as_mut().unwrap().conditions = conditions("Available=False"),
            false,
        ),
        (
            "rolling out",
            |c, _| {
                c.status.as_mut().unwrap().conditions =
                    conditions("Available=True,RollingOut=True");
            },
            false,
        ),
        (
            "a spare machine is still there",
            |c, _| {
                c.status
                    .as_mut()
                    .unwrap()
                    .control_plane
                    .as_mut()
                    .unwrap()
                    .replicas = 2;
            },
            false,
        ),
        (
            "a pool was changed meanwhile",
            |_, p| p[0].metadata.generation = Some(7),
            false,
        ),
        (
            "a pool on its way out does not count",
            |_, p| {
                p[0].metadata.generation = Some(7);
                p[0].metadata.deletion_timestamp = Some(k8s_time(at(0)));
            },
            true,
        ),
    ];
    for (name, change, want) in cases {
        let (mut c, mut pools) = good();
        change(&mut c, &mut pools);
        assert_eq!(has_converged(&c, &pools), want, "{name}");
    }
    // Looking again changes nothing.
    let (c, pools) = good();
    assert_eq!(
        cluster(&c, &machines, &pools, &reached(), &settled(), at(900)),
        c.status.unwrap()
    );
}

#[test]
fn in_sync_counts_machines_and_stray_instances() {
    let counts = |drifted, unknown| MachinesInSync {
        machines: 40,
        drifted,
        unknown,
        first: (drifted > 0).then(|| "m-1: the image is b".into()),
    };
    let ids = |n: usize| Some((0..n).map(|n| format!("i-{n}")).collect::<Vec<_>>());
    let drifted = "False Drifted: 3 of 40 machines drifted, first: m-1: the image is b";
    // (before, counts, orphaned, duplicated, after)
    for (before, in_sync, orphaned, duplicated, want) in [
        ("", None, ids(0), ids(0), "none".to_owned()),
        ("", Some(counts(0, 0)), ids(0), ids(0), "True InSync".into()),
        (
            "",
            Some(counts(0, 0)),
            None,
            None,
            "Unknown Unreadable: not all accounts were listed yet".into(),
        ),
        // What was known stays while nobody can tell.
        ("InSync=True:InSync", Some(counts(0, 0)), None, None, "True InSync".into()),
        ("", Some(counts(3, 0)), ids(0), ids(0), drifted.into()),
        (
            "",
            Some(counts(0, 2)),
            ids(0),
            ids(0),
            "Unknown Unreadable: 2 of 40 machines differed when they were last seen, and cannot be read".into(),
        ),
        (
            "",
            Some(counts(3, 0)),
            ids(1),
            ids(2),
            format!("{drifted}; instances with the cluster's key and without a Machine: 1, first: i-0; instances that share the key of a Machine: 2, first: i-0"),
        ),
    ] {
        let mut c = ours(1);
        c.status = Some(Default::default());
        c.status.as_mut().unwrap().conditions = conditions(before);
        let facts = ClusterFacts {
            in_sync,
            unmanaged_instances: orphaned,
            duplicate_instances: duplicated,
            ..ClusterFacts::default()
        };
        let new = cluster(&c, &[], &[], &facts, &settled(), at(0));
        assert_eq!(line(&new.conditions, kind::IN_SYNC), want);
    }
}
