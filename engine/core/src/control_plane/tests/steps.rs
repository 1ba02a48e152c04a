//! What a machine that comes or goes waits for, where it comes, and when time alone replaces it.

use fleetwright_api::cluster::ControlPlaneRollout;

use super::*;

fn member(name: &str, healthy: bool, learner: bool) -> Member {
    Member {
        name: name.into(),
        healthy,
        learner,
    }
}

fn members(count: usize) -> Vec<Member> {
    (0..count)
        .map(|n| member(&format!("c-cp-{n}"), true, false))
        .collect()
}

fn waits(w: &World) -> String {
    match w.decide().action {
        ControlPlaneAction::Wait(wait) => wait.to_string(),
        other => format!("{other:?}"),
    }
}

fn three(version: &str) -> World {
    let mut w = World::new(3, "v1.33.0");
    settle(&mut w);
    w.cluster.spec.version = version.into();
    w
}

#[test]
fn nothing_comes_or_goes_unless_etcd_is_well() {
    let mut w = three("v1.34.0");
    w.etcd = Some(Ok(members(3)));
    assert!(matches!(
        w.decide().action,
        ControlPlaneAction::Create { .. }
    ));
    for (name, change, want) in [
        (
            "a member is broken",
            member("c-cp-1", false, false),
            "the etcd member of machine c-cp-1 is not healthy",
        ),
        (
            "one learns",
            member("c-cp-1", true, true),
            "the etcd member c-cp-1 does not vote yet",
        ),
        (
            "one is nobody's, and learns",
            member("x", true, true),
            "machine c-cp-1 has no etcd member",
        ),
    ] {
        let mut all = members(3);
        all[1] = change;
        w.etcd = Some(Ok(all));
        assert_eq!(waits(&w), want, "{name}");
    }
    w.etcd = Some(Err("no answer".into()));
    assert_eq!(waits(&w), "etcd cannot be asked: no answer");
    // Nothing is removed then either.
    w.cluster
        .spec
        .control_plane
        .machines
        .as_mut()
        .unwrap()
        .replicas = Some(1);
    assert_eq!(waits(&w), "etcd cannot be asked: no answer");
    assert_eq!(w.decide().leave, None);
}

fn part(machine: &str, component: Component, health: ComponentHealth) -> ComponentState {
    ComponentState {
        machine: machine.into(),
        component,
        health,
    }
}

#[test]
fn nothing_comes_or_goes_unless_the_parts_of_the_control_plane_run() {
    use ComponentHealth::{DoesNotExist, Failed, Provisioning, Running};
    let mut w = three("v1.34.0");
    w.etcd = Some(Ok(members(3)));
    let run = Component::ALL.map(|c| part("c-cp-1", c, Running));
    w.components = run.to_vec();
    let makes = |w: &World| matches!(w.decide().action, ControlPlaneAction::Create { .. });
    assert!(makes(&w));
    for (component, health, want) in [
        (
            Component::ApiServer,
            Provisioning("ContainerCreating".into()),
            "kube-apiserver of machine c-cp-1 is not up yet: ContainerCreating",
        ),
        (
            Component::Etcd,
            DoesNotExist,
            "etcd of machine c-cp-1 has not been seen yet",
        ),
        (
            Component::Scheduler,
            Provisioning("its pod is not ready".into()),
            "kube-scheduler of machine c-cp-1 is not up yet: its pod is not ready",
        ),
    ] {
        w.components = vec![part("c-cp-1", component, health)];
        assert_eq!(waits(&w), want);
    }
    // What does not come up may go where it is to go anyway; and where it is not, nothing else moves.
    let crashes = || Failed("CrashLoopBackOff".into());
    let broken = part("c-cp-1", Component::ControllerManager, crashes());
    w.components = vec![broken.clone()];
    let goes = |w: &World| match w.decide().action {
        ControlPlaneAction::Delete { machine, .. } => machine,
        other => panic!("{other:?}"),
    };
    assert_eq!(goes(&w), "c-cp-1");
    w.components
        .push(part("c-cp-2", Component::ApiServer, crashes()));
    let want = "kube-controller-manager of machine c-cp-1 does not run: CrashLoopBackOff";
    assert_eq!(waits(&w), want, "two of three");
    let mut w = three("v1.33.0");
    w.etcd = Some(Ok(members(3)));
    w.components = vec![broken];
    assert_eq!(waits(&w), want);
    // A new machine whose API server does not come up stops the rollout, and goes when it is reverted.
    let mut w = three("v1.34.0");
    w.etcd = Some(Ok(members(3)));
    w.act();
    w.serve();
    w.etcd = Some(Ok(members(4)));
    w.components = vec![part("c-cp-3", Component::ApiServer, crashes())];
    assert_eq!(
        waits(&w),
        "kube-apiserver of machine c-cp-3 does not run: CrashLoopBackOff"
    );
    w.cluster.spec.version = "v1.34.1".into();
    assert_eq!(goes(&w), "c-cp-3");
}

#[test]
fn a_member_of_no_machine_leaves_once_all_machines_are_known() {
    let mut w = three("v1.33.0");
    let mut all = members(3);
    all.push(member("gone", false, false));
    w.etcd = Some(Ok(all.clone()));
    assert_eq!(w.decide().leave, Some(Leave::Orphan("gone".into())));
    // A machine whose node is not known yet may be the one, from when an instance was ordered for it.
    let status = w.machines[2].status.take();
    let seen = std::mem::replace(&mut all[2], member("new", true, false));
    w.etcd = Some(Ok(all.clone()));
    w.machines[2].spec.instance_key = Some("2".into());
    assert_eq!(w.decide().leave, None);
    w.machines[2].spec.provider_id = Some("sim:///2".into());
    assert_eq!(w.decide().leave, None);
    // Its own is known by what its provider calls it.
    all[2] = seen;
    w.etcd = Some(Ok(all.clone()));
    assert_eq!(w.decide().leave, Some(Leave::Orphan("gone".into())));
    w.machines[2].status = status;
    // Not while the others are no quorum.
    all[0].healthy = false;
    all[1].healthy = false;
    w.etcd = Some(Ok(all));
    assert_eq!(w.decide().leave, None);
    // One that only learnt takes no vote along.
    let mut all = members(3);
    all.push(member("gone", false, true));
    w.etcd = Some(Ok(all));
    assert_eq!(w.decide().leave, Some(Leave::Orphan("gone".into())));
}

/// A machine on its way out whose deletion has come to our hook.
fn leave_now(machine: &mut Machine, second: i64) {
    machine.metadata.deletion_timestamp = Some(k8s_time(at(second)));
    let status = machine.status.get_or_insert_default();
    fleetwright_api::condition::set(
        &mut status.conditions,
        kind::DELETING,
        Status::True,
        fleetwright_api::condition::reason::WAITING_FOR_PRE_TERMINATE_HOOK,
        "",
        None,
        at(second),
    );
}

#[test]
fn members_leave_before_their_machines_one_at_a_time_and_never_below_the_quorum() {
    let mut w = three("v1.33.0");
    w.etcd = Some(Ok(members(3)));
    leave_now(&mut w.machines[2], 5);
    leave_now(&mut w.machines[1], 7);
    let goes = |machine: &str, member| {
        Some(Leave::Machine {
            machine: machine.into(),
            member,
        })
    };
    assert_eq!(
        w.decide().leave,
        goes("c-cp-2", true),
        "whose deletion began first"
    );
    // Its member has gone: the hook is all that is left.
    w.etcd = Some(Ok(members(2)));
    assert_eq!(w.decide().leave, goes("c-cp-2", false));
    // Another hook holds it back: it is not yet its turn.
    let annotations = w.machines[2].metadata.annotations.as_mut().unwrap();
    annotations.insert(
        format!("{}backup", meta::PREFIX_PRE_TERMINATE_HOOK),
        "x".into(),
    );
    assert_eq!(w.decide().leave, goes("c-cp-1", true));
    // Without a quorum among those that stay it waits, and says so.
    let mut all = members(3);
    all[0].healthy = false;
    w.etcd = Some(Ok(all));
    assert_eq!(w.decide().leave, None);
    assert_eq!(
        waits(&w),
        "without machine c-cp-1 etcd would have no quorum"
    );
    w.etcd = Some(Err("no answer".into()));
    assert_eq!(w.decide().leave, None);
    assert_eq!(waits(&w), "etcd cannot be asked: no answer");
    // Where all of it goes nobody asks etcd.
    w.cluster.metadata.deletion_timestamp = Some(k8s_time(at(9)));
    assert_eq!(w.decide().leave, goes("c-cp-1", false));
}

#[test]
fn machines_are_spread_over_failure_domains() {
    let mut w = World::new(3, "v1.33.0");
    w.domains = vec!["a".into(), "b".into(), "c".into()];
    settle(&mut w);
    let domains = |w: &World| {
        let all = w.machines.iter();
        let all = all.map(|m| m.spec.content.failure_domain.clone().unwrap());
        all.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(domains(&w), "a b c");
    assert_eq!(
        w.decide().action,
        ControlPlaneAction::Settled,
        "a chosen domain is no difference"
    );
    // Of a rollout the machines that stay count first: two of the new ones never share a domain.
    w.cluster.spec.version = "v1.34.0".into();
    settle(&mut w);
    assert_eq!(domains(&w), "a b c");
    // Two of one domain, none in another.
    w.machines[0].spec.content.failure_domain = Some("b".into());
    w.machines[1].spec.content.failure_domain = Some("b".into());
    w.cluster
        .spec
        .control_plane
        .machines
        .as_mut()
        .unwrap()
        .replicas = Some(5);
    settle(&mut w);
    assert_eq!(domains(&w), "b b c a a");
    // What the template names wins, and replaces what is elsewhere.
    let machines = w.cluster.spec.control_plane.machines.as_mut().unwrap();
    machines.template.spec.failure_domain = Some("c".into());
    settle(&mut w);
    assert_eq!(domains(&w), "c c c c c");
}

#[test]
fn times_replace_machines() {
    let mut w = World::new(1, "v1.33.0");
    settle(&mut w);
    let rollout = |w: &mut World, rollout| {
        w.cluster
            .spec
            .control_plane
            .machines
            .as_mut()
            .unwrap()
            .rollout = Some(rollout);
    };
    let after = at(w.clock + 100);
    rollout(
        &mut w,
        ControlPlaneRollout {
            after: Some(k8s_time(after)),
            ..ControlPlaneRollout::default()
        },
    );
    assert_eq!(settle(&mut w), "", "it has not come");
    assert_eq!(w.decide().look_again, Some(after));
    w.clock += 200;
    let text = w.decide().outdated["c-cp-0"][0].to_string();
    assert!(text.starts_with("older than rollout.after, "), "{text}");
    assert_eq!(settle(&mut w), "+1@v1.33.0 -0");
    assert_eq!(w.decide().look_again, None);
    // Certificates of a year, renewed a month before they expire.
    rollout(
        &mut w,
        ControlPlaneRollout {
            certificates_expiry_days: Some(30),
            ..ControlPlaneRollout::default()
        },
    );
    let day = 24 * 3600;
    let expire = |w: &mut World, days: i64| {
        let text = at(w.clock + days * day).to_string();
        let annotations = w.machines[0].metadata.annotations.as_mut().unwrap();
        annotations.insert(meta::ANNOTATION_CERTIFICATES_EXPIRY.into(), text);
    };
    expire(&mut w, 365);
    assert_eq!(settle(&mut w), "");
    assert_eq!(
        w.decide().look_again,
        Some(at(w.clock - 10 + 335 * day)),
        "when they are due"
    );
    w.clock += 336 * day;
    let text = w.decide().outdated["c-cp-1"][0].to_string();
    assert!(text.starts_with("its certificates expire at "), "{text}");
    assert_eq!(settle(&mut w), "+2@v1.33.0 -1");
    // Ones that live shorter than that are not renewed for ever.
    expire(&mut w, 20);
    assert_eq!(settle(&mut w), "");
}

#[test]
fn an_upgrade_passes_through_what_the_fleet_allows() {
    let versions = |all: &[&str]| all.iter().map(|v| v.parse().unwrap()).collect();
    let mut w = World::new(1, "v1.31.0");
    settle(&mut w);
    w.versions = versions(&["v1.31.0", "v1.32.2", "v1.32.4", "v1.33.1"]);
    w.cluster.spec.version = "v1.33.1".into();
    assert_eq!(settle(&mut w), "+1@v1.32.4 -0 +2@v1.33.1 -1");
    // A gap blocks all of it, before anything moves.
    w.versions = versions(&["v1.33.1", "v1.34.0", "v1.36.0"]);
    w.cluster.spec.version = "v1.36.0".into();
    assert_eq!(settle(&mut w), "");
    let text = w.decide().version.unwrap().to_string();
    assert!(text.contains("the Fleet allows no v1.35"), "{text}");
    // Scaling goes on.
    let machines = w.cluster.spec.control_plane.machines.as_mut().unwrap();
    machines.replicas = Some(3);
    assert_eq!(settle(&mut w), "+3@v1.33.1 +4@v1.33.1");
    // So does what the provider has no image of.
    w.versions.clear();
    w.blocker = Some(Blocker::Image {
        version: "v1.35.0".parse().unwrap(),
        of: "the control plane".into(),
        why: "there is none".into(),
    });
    assert_eq!(settle(&mut w), "");
    w.blocker = None;
    assert!(settle(&mut w).starts_with("+5@v1.34.0"));
    assert_eq!(running_version(&w.machines).unwrap().to_string(), "v1.36.0");
}

#[test]
fn each_minor_waits_for_a_snapshot_of_what_runs() {
    let version = |text: &str| text.parse::<Version>().unwrap();
    let now = 10_000;
    let three_minors = |snapshots| {
        let mut w = three("v1.35.0");
        w.clock = now;
        w.snapshots = snapshots;
        w
    };
    let kept = |second, of: &str| Some((Some((second, version(of))), None));
    let failed = |newest| Some((newest, Some("the disk is full".to_owned())));
    let stays = "stays at v1.33.0 on the way to v1.35.0";
    let lacks = format!("{stays} until a snapshot of etcd is kept, which is taken before v1.34.0");
    let broken =
        format!("{stays}: no snapshot of etcd before v1.34.0: the disk is full; it is tried again");
    let goes = "v1.34.0, a step on the way to v1.35.0".to_owned();
    for (name, snapshots, want, takes) in [
        ("nobody keeps any", None, &goes, false),
        ("there is none", Some((None, None)), &lacks, true),
        ("it failed", failed(None), &broken, true),
        ("it is there", kept(now - 60, "v1.33.0"), &goes, false),
        ("it is too old", kept(now - 3600, "v1.33.0"), &lacks, true),
        ("it is of another", kept(now - 60, "v1.32.0"), &lacks, true),
        (
            "there is one, and the next failed",
            failed(Some((now - 60, version("v1.33.0")))),
            &goes,
            false,
        ),
    ] {
        let w = three_minors(snapshots);
        let decision = w.decide();
        assert_eq!(decision.version.unwrap().to_string(), *want, "{name}");
        let taken = takes.then(|| version("v1.33.0"));
        assert_eq!(decision.snapshot, taken, "{name}");
        let makes = matches!(decision.action, ControlPlaneAction::Create { .. });
        assert_eq!(makes, !takes, "{name}");
    }
    // A step that has begun goes on while its snapshot grows old; the next one has its own.
    let mut w = three_minors(kept(now - 3500, "v1.33.0"));
    assert!(w.act());
    w.clock += 3600;
    assert_eq!(waits(&w), "machine c-cp-3 is not ready");
    w.serve();
    assert_eq!(settle(&mut w), "-0 +4@v1.34.0 -1 +5@v1.34.0 -2");
    assert_eq!(w.decide().snapshot, Some(version("v1.34.0")));
    // Nothing of that where nothing moves: paused, or within a minor.
    let mut w = three_minors(Some((None, None)));
    let annotations = w.cluster.metadata.annotations.get_or_insert_default();
    annotations.insert(meta::ANNOTATION_PAUSED.into(), String::new());
    assert_eq!(w.decide().snapshot, None);
    let mut w = three("v1.33.1");
    w.snapshots = Some((None, None));
    assert_eq!(w.decide().snapshot, None);
    assert!(matches!(
        w.decide().action,
        ControlPlaneAction::Create { .. }
    ));
}

#[test]
fn a_pinned_pool_that_would_fall_too_far_behind_blocks_the_upgrade() {
    let pool = |version: &str, replicas: i32| {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "db"},
            "spec": {"clusterName": "c", "replicas": replicas,
                "template": {"spec": {"version": version, "providerConfig": {}}}},
        }))
        .unwrap()
    };
    let mut w = World::new(1, "v1.31.0");
    settle(&mut w);
    w.cluster.spec.version = "v1.34.0".into();
    w.pools = vec![pool("v1.30.0", 2)];
    assert_eq!(settle(&mut w), "");
    let text = w.decide().version.unwrap().to_string();
    assert!(text.contains("pool db pins v1.30.0"), "{text}");
    // One without machines is in nobody's way, and neither is one that may stay.
    w.pools = vec![pool("v1.30.0", 0), pool("v1.31.0", 2)];
    assert_eq!(settle(&mut w), "+1@v1.32.0 -0 +2@v1.33.0 -1 +3@v1.34.0 -2");
}

#[test]
fn the_only_machine_that_somebody_deletes_waits_until_another_has_joined() {
    let mut w = World::new(1, "v1.33.0");
    settle(&mut w);
    w.etcd = Some(Ok(members(1)));
    leave_now(&mut w.machines[0], 5);
    assert_eq!(w.decide().leave, None, "it is the last member");
    assert!(w.act(), "another one is made");
    assert_eq!(w.machines.len(), 2);
    assert_eq!(
        waits(&w),
        "without machine c-cp-0 etcd would have no quorum"
    );
    set_ready(&mut w.machines[1], true);
    let mut both = members(2);
    both[1].learner = true;
    w.etcd = Some(Ok(both));
    assert_eq!(w.decide().leave, None, "it does not vote yet");
    w.etcd = Some(Ok(members(2)));
    let leave = Some(Leave::Machine {
        machine: "c-cp-0".into(),
        member: true,
    });
    assert_eq!(w.decide().leave, leave);
    // Where its instance is gone nothing is left to wait for.
    w.machines.pop();
    w.etcd = Some(Err("no answer".into()));
    assert_eq!(w.decide().leave, None, "it may answer again");
    let status = w.machines[0].status.as_mut().unwrap();
    fleetwright_api::condition::set(
        &mut status.conditions,
        kind::HEALTH_CHECK_SUCCEEDED,
        Status::False,
        fleetwright_api::condition::reason::INSTANCE_LOST,
        "",
        None,
        at(9),
    );
    let leave = Some(Leave::Machine {
        machine: "c-cp-0".into(),
        member: false,
    });
    assert_eq!(w.decide().leave, leave);
}
