//! Cluster API's tables of when a machine is broken (TestHealthCheckTargets) and when that is acted on (TestIsAllowedRemediation,
//! TestGetMaxUnhealthy, TestGetUnhealthyRange), and what we add to them.

mod gates;
mod random;
mod wide;

use fleetwright_api::{
    Machine, MachineHealthCheck,
    condition::{self, Status},
    time::k8s_time,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(10_000_000 + seconds).unwrap()
}

fn read<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Startup time-out 600 s, time-outs of conditions 300 s.
fn check() -> MachineHealthCheck {
    read(json!({
        "metadata": {"name": "check", "namespace": "ns"},
        "spec": {
            "clusterName": "c", "selector": {"matchLabels": {"app": "x"}},
            "checks": {
                "nodeStartupTimeoutSeconds": 600,
                "unhealthyNodeConditions": [
                    {"type": "Ready", "status": "Unknown", "timeoutSeconds": 300},
                    {"type": "Ready", "status": "False", "timeoutSeconds": 300},
                ],
                "unhealthyMachineConditions": [
                    {"type": "EtcdPodHealthy", "status": "False", "timeoutSeconds": 300},
                ],
            },
        },
    }))
}

/// A machine of this age whose instance runs since then, with a node or without.
fn machine(age: i64, node: Option<&str>) -> Machine {
    let mut m: Machine = read(json!({
        "metadata": {"name": "m", "namespace": "ns"},
        "spec": {"clusterName": "c", "providerConfig": {}, "providerID": "sim:///1"},
        "status": {"nodeRef": node.map(|name| json!({"name": name}))},
    }));
    m.metadata.creation_timestamp = Some(k8s_time(at(-age)));
    m
}

fn set(m: &mut Machine, kind: &str, status: Status, reason: &str, ago: i64) {
    let list = &mut m.status.as_mut().unwrap().conditions;
    condition::set(list, kind, status, reason, "", None, at(-ago));
}

fn ready(status: &str, ago: i64) -> Vec<NodeCondition> {
    let reason = match status {
        "True" => "KubeletReady",
        "False" => "KubeletNotReady",
        _ => "NodeStatusUnknown",
    };
    vec![NodeCondition {
        kind: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        since: at(-ago),
    }]
}

const RUNS: &Instance = &Instance::Pending;

fn facts<'a>(instance: &'a Instance, node: NodeSight<'a>) -> HealthFacts<'a> {
    HealthFacts {
        instance,
        node,
        initialized_at: Some(at(-86_400)),
        seen_since: None,
        drifted: None,
        seen_whole: true,
    }
}

fn verdict(m: &Machine, facts: &HealthFacts<'_>, checks: &[&MachineHealthCheck]) -> Verdict {
    judge(m, facts, checks, at(0)).verdict
}

fn line(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Broken { reason, message } => format!("{reason}: {message}"),
        Verdict::Starting {
            next_check: Some(n),
        } => format!("starting {n}"),
        Verdict::Suspect { next_check } => format!("suspect {next_check}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn test_health_check_targets() {
    let plain = check();
    let mut never = check();
    never
        .spec
        .checks
        .as_mut()
        .unwrap()
        .node_startup_timeout_seconds = Some(0);
    let mut bare = check();
    bare.spec.checks = None;
    let node = || Some("node1");
    let etcd = |ago| {
        let mut m = machine(1200, node());
        set(&mut m, "EtcdPodHealthy", Status::False, "Fails", ago);
        m
    };
    let late = {
        let mut m = machine(100, None);
        set(
            &mut m,
            kind::INFRASTRUCTURE_READY,
            Status::True,
            "Ready",
            50,
        );
        m
    };
    let asked = {
        let mut m = machine(1200, node());
        let key = meta::ANNOTATION_REMEDIATE_MACHINE.to_owned();
        m.metadata.annotations = Some([(key, String::new())].into());
        m
    };
    let fine = ready("True", 1000);
    let here = NodeSight::There(&fine);
    let [u100, u200, u400, bad] = [
        ready("Unknown", 100),
        ready("Unknown", 200),
        ready("Unknown", 400),
        ready("False", 400),
    ];
    for (name, m, node, check, want) in [
        (
            "no node, 400 s",
            machine(400, None),
            NodeSight::Missing,
            &plain,
            "starting 201",
        ),
        (
            "no node, infra ready 50 s",
            late,
            NodeSight::Missing,
            &plain,
            "starting 551",
        ),
        (
            "no node, 1200 s",
            machine(1200, None),
            NodeSight::Missing,
            &plain,
            "NodeStartupTimeout: no node appeared within 10 m",
        ),
        (
            "no node, no time-out",
            machine(400, None),
            NodeSight::Missing,
            &never,
            "Starting { next_check: None }",
        ),
        (
            "no node, default time-out",
            machine(1200, None),
            NodeSight::Missing,
            &bare,
            "NodeStartupTimeout: no node appeared within 10 m",
        ),
        (
            "node gone",
            machine(1200, node()),
            NodeSight::Missing,
            &plain,
            "NodeDeleted: node node1 has been deleted",
        ),
        (
            "node gone, no conditions configured",
            machine(1200, node()),
            NodeSight::Missing,
            &bare,
            "NodeDeleted: node node1 has been deleted",
        ),
        (
            "unknown 100 s",
            machine(1200, node()),
            NodeSight::There(&u100),
            &plain,
            "suspect 201",
        ),
        (
            "unknown 200 s",
            machine(1200, node()),
            NodeSight::There(&u200),
            &plain,
            "suspect 101",
        ),
        (
            "unknown 400 s",
            machine(1200, node()),
            NodeSight::There(&u400),
            &plain,
            "UnhealthyNode: condition Ready of the node has been Unknown (NodeStatusUnknown) for more than 5 m",
        ),
        (
            "EtcdPodHealthy 200 s",
            etcd(200),
            here,
            &plain,
            "suspect 101",
        ),
        (
            "EtcdPodHealthy 400 s",
            etcd(400),
            here,
            &plain,
            "UnhealthyMachine: condition EtcdPodHealthy of the Machine has been False (Fails) for more than 5 m",
        ),
        ("healthy", machine(1200, node()), here, &plain, "Healthy"),
        (
            "remediate-machine",
            asked,
            here,
            &plain,
            "HasRemediateAnnotation: somebody asked for its replacement (annotation fleetwright.dev/remediate-machine)",
        ),
        (
            "NotReady, no conditions configured",
            machine(1200, node()),
            NodeSight::There(&bad),
            &bare,
            "Healthy",
        ),
    ] {
        assert_eq!(
            line(&verdict(&m, &facts(RUNS, node), &[check])),
            want,
            "{name}"
        );
    }
}

#[test]
fn what_time_outs_count_from() {
    let c = check();
    let m = machine(1200, None);
    let missing = facts(RUNS, NodeSight::Missing);
    let of = |facts: &HealthFacts<'_>| line(&verdict(&m, facts, &[&c]));
    // The cluster's first API server came later than the machine.
    let initialized_at = Some(at(-60));
    assert_eq!(
        of(&HealthFacts {
            initialized_at,
            ..missing
        }),
        "starting 541"
    );
    // A worker waits for that; a machine of the control plane is what is waited for, and nobody can be asked for its node.
    let before = HealthFacts {
        initialized_at: None,
        node: NodeSight::Unknown,
        ..missing
    };
    assert_eq!(of(&before), "Starting { next_check: None }");
    let mut first = machine(1200, None);
    first.metadata.labels = Some([(meta::LABEL_CONTROL_PLANE.to_owned(), String::new())].into());
    let late = verdict(&first, &before, &[&c]);
    assert_eq!(
        line(&late),
        "NodeStartupTimeout: no node appeared within 10 m"
    );
    // Time for which the cluster could not be seen is not counted.
    let seen_since = Some(at(-10));
    assert_eq!(
        of(&HealthFacts {
            seen_since,
            ..missing
        }),
        "starting 591"
    );
    let silent = ready("Unknown", 4000);
    let there = facts(RUNS, NodeSight::There(&silent));
    assert_eq!(
        of(&HealthFacts {
            seen_since,
            ..there
        }),
        "suspect 291"
    );
    // An instance that was never made is not late.
    let mut waits = machine(1200, None);
    waits.spec.provider_id = None;
    let none = facts(&Instance::Missing, NodeSight::Unknown);
    let waiting = verdict(
        &waits,
        &HealthFacts {
            node: NodeSight::Missing,
            ..none
        },
        &[&c],
    );
    assert_eq!(waiting, Verdict::Starting { next_check: None });
    // One that never boots is.
    let boots = verdict(
        &waits,
        &facts(&Instance::Pending, NodeSight::Missing),
        &[&c],
    );
    assert_eq!(
        line(&boots),
        "NodeStartupTimeout: no node appeared within 10 m"
    );
}

#[test]
fn what_breaks_a_machine_without_a_check_and_what_leaves_it_alone() {
    let c = check();
    let m = machine(1200, Some("n"));
    let silent = ready("Unknown", 4000);
    let bad = NodeSight::There(&silent);
    let lost = facts(&Instance::Missing, bad);
    let failed = facts(&Instance::Failed, NodeSight::Missing);
    for checks in [&[&c][..], &[]] {
        assert!(line(&verdict(&m, &lost, checks)).starts_with("InstanceLost: "));
        assert!(line(&verdict(&m, &failed, checks)).starts_with("InstanceFailed: "));
    }
    let running = facts(RUNS, bad);
    assert_eq!(verdict(&m, &running, &[]), Verdict::NotChecked);
    // Nothing is concluded from what cannot be seen.
    let blind = facts(&Instance::Unknown, NodeSight::Unknown);
    assert_eq!(verdict(&m, &blind, &[&c]), Verdict::Unknown);
    // What was certain stays then.
    let mut marked = m.clone();
    set(
        &mut marked,
        kind::HEALTH_CHECK_SUCCEEDED,
        Status::False,
        reason::INSTANCE_LOST,
        10,
    );
    assert_eq!(verdict(&marked, &blind, &[]), Verdict::Unknown);
    assert_eq!(
        verdict(&marked, &running, &[]),
        Verdict::NotChecked,
        "it is back"
    );

    // What its Fleet wants corrected; what does not work says so first.
    let drifted = HealthFacts {
        drifted: Some("it drifted: so"),
        ..running
    };
    assert_eq!(line(&verdict(&m, &drifted, &[])), "Drifted: it drifted: so");
    assert!(line(&verdict(&m, &drifted, &[&c])).starts_with("UnhealthyNode: "));
    let missing = HealthFacts {
        instance: &Instance::Missing,
        ..drifted
    };
    assert!(line(&verdict(&m, &missing, &[])).starts_with("InstanceLost: "));
    // It ceases to differ, or nobody can tell.
    set(
        &mut marked,
        kind::HEALTH_CHECK_SUCCEEDED,
        Status::False,
        reason::DRIFTED,
        10,
    );
    assert_eq!(verdict(&marked, &running, &[]), Verdict::NotChecked);
    let hidden = HealthFacts {
        seen_whole: false,
        ..facts(RUNS, NodeSight::Unknown)
    };
    assert_eq!(verdict(&marked, &hidden, &[]), Verdict::Unknown);
    assert_eq!(verdict(&marked, &hidden, &[&c]), Verdict::Unknown);
    assert_eq!(verdict(&m, &hidden, &[]), Verdict::NotChecked);
    // What the check cannot tell does not keep it.
    let silent = facts(RUNS, NodeSight::Unknown);
    assert_eq!(verdict(&marked, &silent, &[&c]), Verdict::NotChecked);
    assert!(unseen(&marked).is_some() && unseen(&m).is_none());
    set(
        &mut marked,
        kind::IN_SYNC,
        Status::False,
        reason::DRIFTED,
        10,
    );
    assert_eq!(unseen(&marked), None);

    let annotated = |key: &str| {
        let mut m = m.clone();
        m.metadata.annotations = Some([(key.to_owned(), String::new())].into());
        m
    };
    let paused = annotated(meta::ANNOTATION_PAUSED);
    assert_eq!(verdict(&paused, &lost, &[&c]), Verdict::Unknown);
    let skipped = annotated(meta::ANNOTATION_SKIP_REMEDIATION);
    assert_eq!(verdict(&skipped, &lost, &[&c]), Verdict::NotChecked);
    let mut leaving = m.clone();
    leaving.metadata.deletion_timestamp = Some(k8s_time(at(0)));
    assert_eq!(verdict(&leaving, &lost, &[&c]), Verdict::Unknown);
    let mut idle = c.clone();
    idle.metadata.annotations = Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    assert_eq!(verdict(&m, &running, &[&idle]), Verdict::Unknown);
}

/// Of several checks the strictest holds, and the earliest next look.
#[test]
fn the_strictest_of_several_checks_holds() {
    let (plain, mut strict) = (check(), check());
    let checks = strict.spec.checks.as_mut().unwrap();
    checks.unhealthy_node_conditions[0].timeout_seconds = 150;
    let m = machine(1200, Some("n"));
    for (ago, want) in [(100, "suspect 51"), (200, "UnhealthyNode")] {
        let silent = ready("Unknown", ago);
        let seen = facts(RUNS, NodeSight::There(&silent));
        for checks in [[&plain, &strict], [&strict, &plain]] {
            assert!(line(&verdict(&m, &seen, &checks)).starts_with(want));
        }
    }
}

/// A node that is down for 100 of every `period` seconds, looked at whenever it changes.
fn flap(period: i64, rounds: i64) -> Option<i64> {
    let c = check();
    let mut m = machine(10_000_000, Some("n"));
    set(
        &mut m,
        kind::HEALTH_CHECK_SUCCEEDED,
        Status::True,
        "HealthCheckSucceeded",
        9_000_000,
    );
    for round in 0..rounds {
        let down = round * period;
        for (status, since) in [("False", down), ("False", down), ("True", down + 100)] {
            let mut conditions = ready(status, 0);
            conditions[0].since = at(since);
            let seen = facts(RUNS, NodeSight::There(&conditions));
            let mut now = since;
            loop {
                let judged = judge(&m, &seen, &[&c], at(now));
                m.status.as_mut().unwrap().bad_conditions = judged.bad_conditions.clone();
                match judged.verdict {
                    Verdict::Broken { message, .. } => {
                        assert!(message.contains("comes and goes"), "{message}");
                        return Some(now);
                    }
                    Verdict::Suspect { next_check } if now + next_check < down + 100 => {
                        now += next_check;
                    }
                    _ => break,
                }
                // At a fixed point nothing is written.
                assert_eq!(
                    judge(&m, &seen, &[&c], at(now)).bad_conditions,
                    judged.bad_conditions
                );
            }
        }
    }
    None
}

#[test]
fn a_node_that_comes_and_goes_is_broken_in_the_end() {
    // 100 s down, 75 s left after 100 s up, 175, 150, 250, 225, then 76 s more.
    assert_eq!(flap(200, 10), Some(676));
    assert_eq!(flap(300, 10).map(|t| t < 3000), Some(true));
    // Down for a tenth of the time: forgiven.
    assert_eq!(flap(1000, 100), None);
}

#[test]
fn a_new_node_has_its_first_moments_forgiven() {
    let c = check();
    let m = machine(1200, Some("n"));
    let young = ready("False", 20);
    let judged = judge(&m, &facts(RUNS, NodeSight::There(&young)), &[&c], at(0));
    assert_eq!(judged.bad_conditions, []);
    assert_eq!(line(&judged.verdict), "suspect 281");
}
