//! Broken machines: which goes first, what it waits for, how often it is tried.

use fleetwright_api::cluster::{ClusterInitialization, ControlPlaneRemediation};

use super::*;

fn set(machine: &mut Machine, kind: &str, on: bool) {
    let status = machine.status.get_or_insert_default();
    fleetwright_api::condition::set(
        &mut status.conditions,
        kind,
        Status::from(on),
        "X",
        "",
        None,
        at(0),
    );
}

/// What a health check does to a machine that it finds broken.
fn break_down(machine: &mut Machine) {
    set(machine, kind::HEALTH_CHECK_SUCCEEDED, false);
    set(machine, kind::OWNER_REMEDIATED, false);
    set(machine, kind::READY, false);
}

/// A control plane that serves, with its members.
fn world(replicas: i32) -> World {
    let mut w = World::new(replicas, "v1.33.0");
    settle(&mut w);
    initialize(&mut w);
    w.log.clear();
    w
}

fn initialize(w: &mut World) {
    w.cluster.status.as_mut().unwrap().initialization = Some(ClusterInitialization {
        control_plane_initialized: true,
        ..Default::default()
    });
}

/// Every machine with a node is a member; those that are named are not healthy.
fn etcd(w: &mut World, sick: &[&str]) {
    let all = w.machines.iter().filter(|m| has_served(m)).map(|m| Member {
        name: name(m),
        healthy: !sick.contains(&name(m).as_str()),
        learner: false,
    });
    w.etcd = Some(Ok(all.collect()));
}

fn limits(w: &mut World, max_retry: i32, retry: i32, healthy: i32) {
    let machines = w.cluster.spec.control_plane.machines.as_mut().unwrap();
    machines.remediation = Some(ControlPlaneRemediation {
        max_retry: Some(max_retry),
        retry_period_seconds: Some(retry),
        min_healthy_period_seconds: Some(healthy),
    });
}

fn why_not(w: &World) -> String {
    let remediation = w.decide().remediation.expect("a machine is broken");
    let waits = remediation.waits.expect("it waits");
    format!("{}: {waits}", waits.reason())
}

/// Acts until nothing is left, where new machines serve but those that are named stay broken.
fn run(w: &mut World, sick: &[&str]) -> String {
    w.log.clear();
    for _ in 0..50 {
        etcd(w, sick);
        if !w.act() {
            break;
        }
        for machine in &mut w.machines {
            if !has_served(machine) {
                set_ready(machine, true);
            }
        }
    }
    w.log.join(" ")
}

#[test]
fn a_broken_machine_goes_and_another_comes_in_its_place() {
    let mut w = world(3);
    break_down(&mut w.machines[1]);
    assert_eq!(run(&mut w, &["c-cp-1"]), "-1 +3@v1.33.0");
    assert_eq!(w.decide().action, ControlPlaneAction::Settled);
    let made_for = annotation(w.machines.last().unwrap(), meta::ANNOTATION_REMEDIATION_FOR);
    assert!(made_for.is_some_and(|text| text.contains(r#""machine":"c-cp-1""#)));
    let left = w.cluster.metadata.annotations.as_ref().unwrap();
    assert!(!left.contains_key(meta::ANNOTATION_REMEDIATION_IN_PROGRESS));
}

#[test]
fn machines_that_all_drifted_are_replaced_one_after_the_other() {
    let mut w = world(3);
    for machine in &mut w.machines {
        let status = machine.status.get_or_insert_default();
        fleetwright_api::condition::set(
            &mut status.conditions,
            kind::HEALTH_CHECK_SUCCEEDED,
            Status::False,
            fleetwright_api::condition::reason::DRIFTED,
            "it drifted",
            None,
            at(0),
        );
    }
    assert_eq!(
        run(&mut w, &[]),
        "-0 +3@v1.33.0 -1 +4@v1.33.0 -2 +5@v1.33.0"
    );
    assert_eq!(w.decide().action, ControlPlaneAction::Settled);
}

#[test]
fn of_five_two_that_break_at_once_are_replaced_one_after_the_other() {
    let mut w = world(5);
    break_down(&mut w.machines[1]);
    break_down(&mut w.machines[3]);
    assert_eq!(
        run(&mut w, &["c-cp-1", "c-cp-3"]),
        "-1 +5@v1.33.0 -3 +6@v1.33.0"
    );
    assert_eq!(w.decide().action, ControlPlaneAction::Settled);
    // Of seven three, too.
    let mut w = world(7);
    for n in [0, 2, 4] {
        break_down(&mut w.machines[n]);
    }
    assert_eq!(
        run(&mut w, &["c-cp-0", "c-cp-2", "c-cp-4"]),
        "-0 +7@v1.33.0 -2 +8@v1.33.0 -4 +9@v1.33.0"
    );
}

#[test]
fn the_only_machine_goes_after_another_has_joined() {
    let mut w = world(1);
    break_down(&mut w.machines[0]);
    assert_eq!(run(&mut w, &[]), "+1@v1.33.0 -0");
    assert_eq!(w.decide().action, ControlPlaneAction::Settled);
    // Where its etcd is gone nobody can join.
    break_down(&mut w.machines[0]);
    assert_eq!(run(&mut w, &["c-cp-1"]), "");
    assert!(
        why_not(&w).starts_with("CannotBeRemediated: it is the only control-plane machine"),
        "{}",
        why_not(&w)
    );
}

#[test]
fn the_first_machine_of_all_is_made_again_when_it_never_comes_up() {
    let mut w = World::new(3, "v1.33.0");
    assert!(w.act());
    break_down(&mut w.machines[0]);
    w.etcd = Some(Err("nobody serves yet".into()));
    assert!(w.act());
    assert!(w.act());
    assert_eq!(w.log.join(" "), "+0@v1.33.0 -0 +1@v1.33.0");
}

#[test]
fn what_has_just_joined_for_a_broken_machine_that_is_ready_stays() {
    let mut w = world(1);
    // It drifted, and serves on.
    break_down(&mut w.machines[0]);
    set(&mut w.machines[0], kind::READY, true);
    etcd(&mut w, &[]);
    assert!(w.act(), "another one joins first");
    let new = w.machines.len() - 1;
    set_ready(&mut w.machines[new], true);
    w.log.clear();
    // Its node is there and not ready yet, or its member is not.
    set(&mut w.machines[new], kind::READY, false);
    etcd(&mut w, &[]);
    assert!(!w.act(), "{:?}", w.log);
    set(&mut w.machines[new], kind::READY, true);
    let all = w.etcd.as_mut().unwrap().as_mut().unwrap();
    all.truncate(1);
    w.held
        .insert("c-cp-0".into(), "the budget is used up".into());
    assert!(!w.act(), "{:?}", w.log);
    w.held.clear();
    etcd(&mut w, &[]);
    assert_eq!(run(&mut w, &[]), "-0");
}

/// What a broken machine waits for: the rules of preflight and quorum.
#[test]
fn it_stays_where_replacing_it_would_do_harm() {
    type Change<'a> = &'a dyn Fn(&mut World);
    let rows: [(&str, Change<'_>, &[&str], &str); 8] = [
        (
            "a health check or a budget holds it back",
            &|w| {
                w.held.insert("c-cp-0".into(), "too many are broken".into());
            },
            &["c-cp-0"],
            "RemediationDeferred: too many are broken",
        ),
        (
            "a machine is on its way out",
            &|w| w.machines[2].metadata.deletion_timestamp = Some(k8s_time(at(0))),
            &["c-cp-0"],
            "RemediationDeferred: waits until machine c-cp-2 is gone",
        ),
        (
            "a machine has no node yet",
            &|w| w.machines[2].status = None,
            &["c-cp-0"],
            "RemediationDeferred: waits until machine c-cp-2 has joined",
        ),
        (
            "another member is broken",
            &|_| {},
            &["c-cp-0", "c-cp-1"],
            "CannotBeRemediated: etcd would have no quorum without it: 1 of 3 voting members are healthy, and 2 are needed; bring one back, or restore etcd",
        ),
        (
            "no other machine is healthy",
            &|w| {
                set(&mut w.machines[1], kind::READY, false);
                set(&mut w.machines[2], kind::READY, false);
            },
            &["c-cp-0"],
            "CannotBeRemediated: no other control-plane machine is healthy",
        ),
        (
            "no other machine has a control plane that runs",
            &|w| {
                for n in [1, 2] {
                    w.components.push(ComponentState {
                        machine: format!("c-cp-{n}"),
                        component: Component::Scheduler,
                        health: ComponentHealth::DoesNotExist,
                    });
                }
            },
            &["c-cp-0"],
            "CannotBeRemediated: no other control-plane machine is healthy",
        ),
        (
            "two of three, in whatever order",
            &|w| {
                break_down(&mut w.machines[1]);
            },
            &["c-cp-0", "c-cp-1"],
            "CannotBeRemediated: etcd would have no quorum without it: 1 of 3 voting members are healthy, and 2 are needed; bring one back, or restore etcd",
        ),
        (
            "etcd cannot be asked",
            &|_| {},
            &["?"],
            "RemediationDeferred: etcd cannot be asked: no answer",
        ),
    ];
    for (name, change, sick, want) in rows {
        let mut w = world(3);
        break_down(&mut w.machines[0]);
        change(&mut w);
        etcd(&mut w, sick);
        if sick == ["?"] {
            w.etcd = Some(Err("no answer".into()));
        }
        assert_eq!(why_not(&w), want, "{name}");
        assert!(
            !matches!(w.decide().action, ControlPlaneAction::Delete { .. }),
            "{name}"
        );
    }
}

/// Cluster API's TestGetMachineToBeRemediated.
#[test]
fn which_broken_machine_goes_first() {
    type Change<'a> = &'a dyn Fn(&mut World);
    let fails = |w: &mut World, n: u64, component| {
        w.components.push(ComponentState {
            machine: format!("c-cp-{n}"),
            component,
            health: ComponentHealth::Failed("CrashLoopBackOff".into()),
        });
    };
    let rows: [(&str, Change<'_>, &[&str], u64); 8] = [
        ("the oldest", &|_| {}, &[], 1),
        (
            "one whose scheduler does not run",
            &|w| fails(w, 2, Component::Scheduler),
            &[],
            2,
        ),
        (
            "one whose API server does not run before other parts",
            &|w| {
                fails(w, 2, Component::Scheduler);
                fails(w, 3, Component::ControllerManager);
                fails(w, 4, Component::ApiServer);
            },
            &[],
            4,
        ),
        (
            "one whose etcd does not run before that",
            &|w| {
                fails(w, 2, Component::ApiServer);
                fails(w, 3, Component::Etcd);
            },
            &[],
            3,
        ),
        (
            "one whose etcd member is broken before that",
            &|w| fails(w, 2, Component::Etcd),
            &["c-cp-4"],
            4,
        ),
        ("one whose etcd member is broken", &|_| {}, &["c-cp-3"], 3),
        (
            "one without a node before that",
            &|w| {
                w.machines[2].status.as_mut().unwrap().node_ref = None;
            },
            &["c-cp-3"],
            2,
        ),
        (
            "one that a person marked before that",
            &|w| {
                w.machines[2].status.as_mut().unwrap().node_ref = None;
                let annotations = w.machines[4].metadata.annotations.as_mut().unwrap();
                annotations.insert(meta::ANNOTATION_REMEDIATE_MACHINE.into(), String::new());
            },
            &["c-cp-3"],
            4,
        ),
    ];
    for (name, change, sick, want) in rows {
        let mut w = world(9);
        for n in 1..5 {
            break_down(&mut w.machines[n]);
        }
        etcd(&mut w, sick);
        change(&mut w);
        match w.decide().action {
            ControlPlaneAction::Delete { machine, reason } => {
                assert_eq!(
                    (machine, reason),
                    (format!("c-cp-{want}"), DeleteReason::Broken),
                    "{name}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Cluster API's TestReconcileUnhealthyMachinesSequences: a replacement that breaks too.
#[test]
fn a_chain_of_replacements_is_counted_and_ends() {
    let mut w = world(3);
    limits(&mut w, 2, 100, 3600);
    break_down(&mut w.machines[0]);
    assert_eq!(run(&mut w, &["c-cp-0"]), "-0 +3@v1.33.0");
    // It breaks too, too soon after the first time.
    break_down(&mut w.machines[2]);
    etcd(&mut w, &["c-cp-3"]);
    assert!(why_not(&w).starts_with("RemediationDeferred: the machine that it replaced"));
    let again = w.decide().look_again.unwrap();
    assert!(again > at(w.clock));
    w.clock += 100;
    assert_eq!(run(&mut w, &["c-cp-3"]), "-3 +4@v1.33.0");
    w.clock += 100;
    break_down(&mut w.machines[2]);
    assert_eq!(run(&mut w, &["c-cp-4"]), "-4 +5@v1.33.0");
    // Twice retried: that is all.
    w.clock += 100;
    break_down(&mut w.machines[2]);
    assert_eq!(run(&mut w, &["c-cp-5"]), "");
    assert!(
        why_not(&w).starts_with("CannotBeRemediated: it was replaced 2 times"),
        "{}",
        why_not(&w)
    );
    // Another machine that breaks has a chain of its own.
    // After so long, what breaks it is something new.
    w.clock += 3600;
    assert_eq!(run(&mut w, &["c-cp-5"]), "-5 +6@v1.33.0");
}

/// A replacement of the only machine that never comes up is replaced itself, and counted.
#[test]
fn a_replacement_that_never_joins_is_replaced_itself() {
    let mut w = world(1);
    limits(&mut w, 1, 0, 3600);
    break_down(&mut w.machines[0]);
    for (makes, goes) in [(1, true), (2, false)] {
        etcd(&mut w, &[]);
        w.log.clear();
        assert!(w.act());
        assert_eq!(w.log.join(" "), format!("+{makes}@v1.33.0"));
        break_down(&mut w.machines[1]);
        w.log.clear();
        assert_eq!(w.act(), goes, "{:?}", w.decide().action);
        assert_eq!(w.log.join(" "), if goes { "-1" } else { "" });
    }
    assert!(why_not(&w).starts_with("CannotBeRemediated: it was replaced 1 times"));
}

/// A broken machine comes before a rollout's next step, and one that cannot be replaced by itself goes with the rollout.
#[test]
fn a_rollout_waits_for_it_and_takes_it_along() {
    let mut w = world(3);
    w.cluster.spec.version = "v1.33.5".into();
    break_down(&mut w.machines[2]);
    assert!(run(&mut w, &["c-cp-2"]).starts_with("-2 +3@v1.33.5 "));
    let mut w = world(3);
    limits(&mut w, 0, 0, 3600);
    let text = r#"{"machine":"c-cp-9","timestamp":"1970-01-12T13:46:40Z","retryCount":0}"#;
    let annotations = w.machines[2].metadata.annotations.as_mut().unwrap();
    annotations.insert(meta::ANNOTATION_REMEDIATION_FOR.into(), text.into());
    break_down(&mut w.machines[2]);
    assert_eq!(run(&mut w, &["c-cp-2"]), "", "it may not be retried");
    w.cluster.spec.version = "v1.33.5".into();
    assert!(run(&mut w, &["c-cp-2"]).starts_with("-2 +3@v1.33.5 "));
}
