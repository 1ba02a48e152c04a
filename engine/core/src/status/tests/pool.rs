//! Statuses of sets and pools, and when a pool is complete.

use std::collections::BTreeMap;

use fleetwright_api::{
    Machine, MachineDeployment, MachineSet, condition::kind, machine::MachineTemplate,
    machine_deployment::PoolPhase, meta, time::k8s_time,
};
use serde_json::{Value, json};

use super::{at, conditions, line, member, read};
use crate::{
    machine_set::SetWait,
    pool_version::VersionReason,
    rollout::{NewSet, RolloutDecision, RolloutWait},
    status::{is_complete, machine_deployment, machine_set, next_turn, recount},
};

const NONE: &[Machine] = &[];
const GOOD: &str = "Available=True,Ready=True,UpToDate=True";

fn set(replicas: i32) -> MachineSet {
    read(json!({
        "metadata": {"name": "s", "generation": 4},
        "spec": {"clusterName": "c", "replicas": replicas, "template": {"spec": {"providerConfig": {}}}},
    }))
}

fn pool(replicas: i32, rolling: Value) -> MachineDeployment {
    read(json!({
        "metadata": {"name": "p", "generation": 4},
        "spec": {
            "clusterName": "c", "replicas": replicas, "template": {"spec": {"providerConfig": {}}},
            "rollout": {"strategy": {"rollingUpdate": rolling}},
        },
    }))
}

fn current(name: &str) -> RolloutDecision {
    RolloutDecision {
        current: Some(name.into()),
        version: Some("v1.33.0".into()),
        ..RolloutDecision::default()
    }
}

#[test]
fn a_sets_conditions_and_counts_come_from_its_machines() {
    let drain = "Deleting=True:DrainingNode:draining node n";
    for (name, want, machines, lines) in [
        (
            "no machines wanted, none there",
            0,
            vec![],
            [
                "False NotScalingUp",
                "False NotScalingDown",
                "True NoReplicas",
                "True NoReplicas",
            ],
        ),
        (
            "one is missing",
            2,
            vec![member("a", "s", false, GOOD)],
            [
                "True ScalingUp: scaling up from 1 to 2 machines",
                "False NotScalingDown",
                "True Ready",
                "True UpToDate",
            ],
        ),
        (
            "one is draining",
            1,
            vec![
                member("a", "s", false, GOOD),
                member(
                    "b",
                    "s",
                    true,
                    &format!("{drain},Ready=False:NotReady:Deleting,UpToDate=True"),
                ),
            ],
            [
                "False NotScalingUp",
                "True ScalingDown: scaling down from 2 to 1 machines (b: draining node n)",
                "False NotReady: b: Deleting",
                "True UpToDate",
            ],
        ),
        (
            "one is broken, of one nothing is known, and one is outdated",
            3,
            vec![
                member(
                    "a",
                    "s",
                    false,
                    "Ready=False:NotReady:no node,UpToDate=True",
                ),
                member("b", "s", false, ""),
                member(
                    "c",
                    "s",
                    false,
                    "Ready=True,UpToDate=False:NotUpToDate:spec.version",
                ),
            ],
            [
                "False NotScalingUp",
                "False NotScalingDown",
                "False NotReady: a: no node; b: not known yet",
                "False NotUpToDate: c: spec.version; b: not known yet",
            ],
        ),
        (
            "nothing is known of any",
            1,
            vec![member(
                "a",
                "s",
                false,
                "Ready=Unknown:ReadyUnknown:the kubelet does not report",
            )],
            [
                "False NotScalingUp",
                "False NotScalingDown",
                "Unknown ReadyUnknown: a: the kubelet does not report",
                "Unknown UpToDateUnknown: a: not known yet",
            ],
        ),
        (
            "more than three are named by number",
            5,
            (0..5)
                .map(|i| {
                    member(
                        &format!("m{i}"),
                        "s",
                        false,
                        "Ready=False:NotReady,UpToDate=True",
                    )
                })
                .collect(),
            [
                "False NotScalingUp",
                "False NotScalingDown",
                "False NotReady: m0: NotReady; m1: NotReady; m2: NotReady; and 2 more",
                "True UpToDate",
            ],
        ),
    ] {
        let status = machine_set(&set(want), &machines, None, None, at(0));
        let kinds = [
            kind::SCALING_UP,
            kind::SCALING_DOWN,
            kind::MACHINES_READY,
            kind::MACHINES_UP_TO_DATE,
        ];
        let got = kinds.map(|k| line(&status.conditions, k));
        assert_eq!(got, lines, "{name}");
        assert_eq!(
            status.replicas,
            i32::try_from(machines.len()).unwrap(),
            "{name}"
        );
        assert_eq!(status.observed_generation, Some(4));
        assert_eq!(
            status.selector.as_deref(),
            Some("fleetwright.dev/set-name=s")
        );
    }
}

#[test]
fn a_set_on_its_way_out_scales_down_to_nothing_and_a_paused_one_says_so() {
    let mut s = set(2);
    s.metadata.deletion_timestamp = Some(k8s_time(at(0)));
    s.metadata.annotations = Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    let status = machine_set(&s, &[member("a", "s", false, GOOD)], None, None, at(0));
    for (kind, want) in [
        (kind::DELETING, "True Deleting"),
        (kind::PAUSED, "True Paused"),
        (kind::SCALING_UP, "False NotScalingUp"),
        (
            kind::SCALING_DOWN,
            "True ScalingDown: scaling down from 1 to 0 machines",
        ),
    ] {
        assert_eq!(line(&status.conditions, kind), want);
    }
}

#[test]
fn counts_are_those_of_the_conditions() {
    let machines = [
        member("a", "s", false, GOOD),
        member("b", "s", false, "Available=False,Ready=True,UpToDate=True"),
        member("c", "s", true, "Available=False,Ready=False,UpToDate=False"),
    ];
    let status = machine_set(&set(3), &machines, None, None, at(0));
    let counts = [
        status.replicas,
        status.ready_replicas,
        status.available_replicas,
        status.up_to_date_replicas,
    ];
    assert_eq!(counts, [3, 2, 1, 2]);
    let mut s = set(3);
    recount(&mut s, &machines);
    let again = s.status.unwrap();
    assert_eq!(
        [
            again.replicas,
            again.ready_replicas,
            again.available_replicas
        ],
        [3, 2, 1]
    );
}

#[test]
fn a_pool_is_available_with_as_many_as_its_bounds_ask_for() {
    let some = |n: usize, ok: usize| -> Vec<Machine> {
        (0..n)
            .map(|i| {
                member(
                    &format!("m{i}"),
                    "s",
                    false,
                    if i < ok { GOOD } else { "Available=False" },
                )
            })
            .collect()
    };
    for (name, pool, sets, machines, want) in [
        ("all", pool(3, json!({})), 1, some(3, 3), "True Available"),
        (
            "as many as must be",
            pool(3, json!({"maxUnavailable": 1})),
            1,
            some(3, 2),
            "True Available",
        ),
        (
            "too few",
            pool(3, json!({"maxUnavailable": 1})),
            1,
            some(3, 1),
            "False NotAvailable: 1 available replicas, at least 2 required (maxUnavailable is 1, replicas is 3)",
        ),
        (
            "a percentage is rounded down",
            pool(5, json!({"maxUnavailable": "30%"})),
            1,
            some(5, 3),
            "False NotAvailable: 3 available replicas, at least 4 required (maxUnavailable is 1, replicas is 5)",
        ),
        (
            "none wanted",
            pool(0, json!({})),
            0,
            vec![],
            "True Available",
        ),
        (
            "no set yet",
            pool(3, json!({})),
            0,
            vec![],
            "False WaitingForAvailableReplicasSet: 0 available replicas, at least 3 required",
        ),
        (
            "bounds that cannot be read",
            pool(3, json!({"maxSurge": "many"})),
            1,
            some(3, 3),
            "Unknown InternalError: spec.rollout.strategy.rollingUpdate.maxSurge is \"many\": write a number, or a percentage such as \"25%\"",
        ),
    ] {
        let sets: Vec<MachineSet> = (0..sets).map(|_| set(3)).collect();
        let status = machine_deployment(&pool, &sets, &machines, Some(&current("s")), at(0));
        assert_eq!(line(&status.conditions, kind::AVAILABLE), want, "{name}");
    }
}

#[test]
fn rolling_out_says_how_many_and_why_and_what_it_waits_for() {
    let why = "UpToDate=False:NotUpToDate:spec.version: v1.33.0 -> v1.34.0";
    let new = || member("n", "new", false, GOOD);
    let old = |name: &str| member(name, "old", false, why);
    let waits = |waiting, held| RolloutDecision {
        waiting: Some(waiting),
        held,
        ..current("new")
    };
    let version = || {
        RolloutWait::Version(VersionReason::WaitingForControlPlane {
            target: "v1.34.0".parse().unwrap(),
            running: Some("v1.33.0".parse().unwrap()),
        })
    };
    for (name, machines, decision, want, up_to_date) in [
        (
            "all new",
            vec![new()],
            current("new"),
            "False NotRollingOut",
            1,
        ),
        (
            "two old ones of one reason",
            vec![new(), old("a"), old("b")],
            current("new"),
            "True RollingOut: rolling out 2 not up-to-date machines (spec.version: v1.33.0 -> v1.34.0)",
            1,
        ),
        (
            "an old one that does not say why",
            vec![member("a", "old", false, GOOD)],
            current("new"),
            "True RollingOut: rolling out 1 not up-to-date machines",
            0,
        ),
        (
            "it waits for the control plane",
            vec![new()],
            waits(version(), false),
            "True RollingOut: waits for the control plane to run v1.34.0 (it runs v1.33.0)",
            1,
        ),
        (
            "paused, and its set is not what it wants",
            vec![member("a", "new", false, why)],
            waits(RolloutWait::Paused, true),
            "True RollingOut: rolling out 1 not up-to-date machines (spec.version: v1.33.0 -> v1.34.0); paused",
            0,
        ),
        (
            "no machines",
            vec![],
            waits(version(), false),
            "False NotRollingOut",
            0,
        ),
    ] {
        let status = machine_deployment(
            &pool(1, json!({})),
            &[set(1)],
            &machines,
            Some(&decision),
            at(0),
        );
        assert_eq!(line(&status.conditions, kind::ROLLING_OUT), want, "{name}");
        assert_eq!(status.up_to_date_replicas, up_to_date, "{name}");
    }
}

#[test]
fn phases_of_a_pool() {
    for (name, want, machines, phase) in [
        (
            "too few",
            2,
            vec![member("a", "s", false, GOOD)],
            PoolPhase::ScalingUp,
        ),
        (
            "too many",
            1,
            vec![member("a", "s", false, GOOD), member("b", "s", true, GOOD)],
            PoolPhase::ScalingDown,
        ),
        (
            "not available yet",
            1,
            vec![member("a", "s", false, "")],
            PoolPhase::ScalingUp,
        ),
        (
            "all is well",
            1,
            vec![member("a", "s", false, GOOD)],
            PoolPhase::Running,
        ),
    ] {
        let status = machine_deployment(
            &pool(want, json!({})),
            &[set(want)],
            &machines,
            Some(&current("s")),
            at(0),
        );
        assert_eq!(status.phase, Some(phase), "{name}");
    }
}

#[test]
fn a_pools_version_and_selector() {
    let p = pool(1, json!({}));
    let status = machine_deployment(&p, &[set(1)], NONE, Some(&current("s")), at(0));
    assert_eq!(status.version.as_deref(), Some("v1.33.0"));
    assert_eq!(
        status.selector.as_deref(),
        Some("fleetwright.dev/deployment-name=p")
    );
    // Without a decision what was known stays.
    let mut p = p;
    p.status = Some(status);
    let again = machine_deployment(&p, &[set(1)], NONE, None, at(0));
    assert_eq!(again.version.as_deref(), Some("v1.33.0"));
    // A version whose set is still to be made is not the pool's yet: whoever decides again decides from what it has.
    let step = RolloutDecision {
        version: Some("v1.34.0".into()),
        create: Some(NewSet {
            name: "t".into(),
            hash: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            template: MachineTemplate::default(),
            written_version: None,
            replicas: 0,
            deletion: None,
            because: Vec::new(),
        }),
        ..current("t")
    };
    let before = machine_deployment(&p, &[set(1)], NONE, Some(&step), at(0));
    assert_eq!(before.version.as_deref(), Some("v1.33.0"));
    p.spec.selector = Some(read(json!({"matchLabels": {"a": "b", "c": "d"}})));
    let written = machine_deployment(&p, &[], NONE, None, at(0));
    assert_eq!(written.selector.as_deref(), Some("a=b,c=d"));
}

/// Cluster API's TestDeploymentComplete, and what must hold besides the counts.
#[test]
fn a_pool_is_complete_when_all_wanted_are_there_up_to_date_and_available_and_no_others() {
    // replicas; current, up to date, available -> complete
    for (want, replicas, up_to_date, available, complete) in [
        (5, 5, 5, 4, false),
        (5, 5, 5, 3, false),
        (5, 5, 5, 5, true),
        (5, 5, 4, 5, false),
        (1, 2, 1, 1, false),
        (1, 1, 1, 0, false),
        (0, 0, 0, 0, true),
    ] {
        let mut p = pool(want, json!({}));
        p.status = Some(read(json!({
            "observedGeneration": 4, "replicas": replicas, "upToDateReplicas": up_to_date, "availableReplicas": available,
        })));
        assert_eq!(
            is_complete(&p),
            complete,
            "{want}; {replicas}, {up_to_date}, {available}"
        );
        if complete {
            let mut behind = p.clone();
            behind.metadata.generation = Some(5);
            assert!(!is_complete(&behind), "its latest change was not seen");
            p.status.as_mut().unwrap().conditions = conditions("RollingOut=True");
            assert!(!is_complete(&p), "it is rolling out");
        }
    }
    assert!(!is_complete(&pool(0, json!({}))), "nobody looked at it yet");
}

#[test]
fn scaling_up_says_what_holds_it_up_on_the_set_and_on_its_pool() {
    let waits = SetWait::CreateDisabled;
    let mut held = set(2);
    held.status = Some(machine_set(&set(2), NONE, Some(&waits), None, at(0)));
    let own = line(&held.status.as_ref().unwrap().conditions, kind::SCALING_UP);
    let tail = "from 0 to 2 machines, but this set makes no more machines";
    assert_eq!(own, format!("True ScalingUp: scaling up {tail}"));
    let sets = [held.clone(), held, set(0)];
    let status = machine_deployment(&pool(2, json!({})), &sets, NONE, None, at(0));
    let text = line(&status.conditions, kind::SCALING_UP);
    assert_eq!(text, format!("True ScalingUp: scaling up {tail}"), "once");
}

#[test]
fn machines_that_are_stuck_on_their_way_out_are_named_first() {
    let draining = "Deleting=True:DrainingNode:draining: pod db-0 is protected by budget db";
    let machines = [member("a", "s", true, ""), member("b", "s", true, draining)];
    let text = |now: i64| {
        let mut machines = machines.clone();
        machines[1].metadata.deletion_timestamp = Some(k8s_time(at(-10)));
        let status = machine_set(&set(1), &machines, None, None, at(now));
        (
            line(&status.conditions, kind::SCALING_DOWN),
            next_turn(&machines, at(now)),
        )
    };
    let head = "True ScalingDown: scaling down from 2 to 1 machines";
    let drain = "draining: pod db-0 is protected by budget db";
    assert_eq!(
        text(890),
        (format!("{head} (a; b: {drain})"), Some(at(890)))
    );
    let stuck = format!("b in deletion since more than 15m: {drain}");
    assert_eq!(text(891), (format!("{head} ({stuck}; a)"), Some(at(900))));
    let both = format!("{head} (a in deletion since more than 15m; {stuck})");
    assert_eq!(text(5_000), (both, None));
}

/// A machine that was just made has not been looked at: neither set nor pool says other of its machines for that, until it is due.
#[test]
fn young_machines_that_nobody_has_looked_at_are_left_out() {
    let outdated = "UpToDate=False:NotUpToDate:spec.version";
    for (what, new, age, want, look) in [
        ("just made", "", 0, "True UpToDate", Some(10)),
        ("still young", "", 9, "True UpToDate", Some(1)),
        (
            "not young",
            "",
            10,
            "Unknown UpToDateUnknown: b: not known yet",
            None,
        ),
        (
            "young and outdated",
            outdated,
            0,
            "False NotUpToDate: b: spec.version",
            None,
        ),
        (
            "young and up to date",
            "UpToDate=True",
            0,
            "True UpToDate",
            None,
        ),
    ] {
        let mut machines = [member("a", "s", false, GOOD), member("b", "s", false, new)];
        machines[1].metadata.creation_timestamp = Some(k8s_time(at(-age)));
        let of_set = machine_set(&set(2), &machines, None, None, at(0)).conditions;
        let of_pool = machine_deployment(&pool(2, json!({})), &[set(2)], &machines, None, at(0));
        for list in [of_set, of_pool.conditions] {
            assert_eq!(line(&list, kind::MACHINES_UP_TO_DATE), want, "{what}");
        }
        assert_eq!(next_turn(&machines, at(0)), look.map(at), "{what}");
    }
}
