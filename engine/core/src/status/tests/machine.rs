//! Status of a Machine.

use fleetwright_api::{
    Machine,
    condition::{self, kind},
    drift::{DriftKind, MachineDrift},
    machine::{InstanceView, MachinePhase, NodeInfo, NodeRef},
    meta,
    time::k8s_time,
};
use serde_json::json;

use super::{at, conditions, line, read};
use crate::{
    drift::Reading,
    health::{Judgement, Verdict},
    machine::{DeletionStep, Instance, MachineStep},
    status::{MachineObservation, NodeHealth, NodeObservation, UpToDate, available_at, machine},
};

fn fresh() -> Machine {
    read(json!({
        "metadata": {"name": "m", "generation": 3},
        "spec": {"clusterName": "c", "providerConfig": {}},
    }))
}

fn running() -> Instance {
    Instance::Running {
        provider_id: "sim:///1".into(),
    }
}

fn node(health: NodeHealth) -> NodeObservation {
    NodeObservation::Present {
        name: "n".into(),
        health,
        info: NodeInfo::default(),
    }
}

fn unchecked() -> Judgement {
    Judgement {
        verdict: Verdict::Unknown,
        bad_conditions: Vec::new(),
    }
}

fn seen(instance: Instance, node: NodeObservation) -> MachineObservation {
    MachineObservation {
        health: unchecked(),
        instance,
        instance_view: None,
        addresses: None,
        failure_domain: None,
        node,
        drift: Default::default(),
        up_to_date: UpToDate::Unknown,
        step: MachineStep::WaitNode,
        refused: None,
        detail: Some("why".into()),
    }
}

fn healthy() -> MachineObservation {
    seen(running(), node(NodeHealth::Healthy))
}

#[test]
fn the_instance_shows_in_infrastructure_ready() {
    for (instance, provider_id, before, want) in [
        (running(), None, "", "True Ready"),
        (Instance::Pending, None, "", "False NotReady: why"),
        (Instance::Stopping, None, "", "False NotReady: why"),
        (Instance::Missing, None, "", "False ObjectDoesNotExist: why"),
        (
            Instance::Missing,
            Some("sim:///1"),
            "",
            "False ObjectDeleted: why",
        ),
        (Instance::Unknown, None, "", "Unknown ReadyUnknown: why"),
        // A provider that does not answer changes nothing of what was known.
        (
            Instance::Unknown,
            None,
            "InfrastructureReady=True:Ready",
            "True Ready",
        ),
        // Why nobody knows may change.
        (
            Instance::Unknown,
            None,
            "InfrastructureReady=Unknown:ReadyUnknown:before",
            "Unknown ReadyUnknown: why",
        ),
    ] {
        let mut m = fresh();
        m.spec.provider_id = provider_id.map(Into::into);
        m.status = Some(Default::default());
        m.status.as_mut().unwrap().conditions = conditions(before);
        let new = machine(&m, &seen(instance, NodeObservation::NotAsked), at(0));
        assert_eq!(line(&new.conditions, kind::INFRASTRUCTURE_READY), want);
    }
}

#[test]
fn the_node_shows_in_node_healthy_and_node_ready() {
    let unknown = || NodeHealth::Unknown("the kubelet does not report".into());
    let sick = || NodeHealth::NotHealthy("the node reports DiskPressure".into());
    for (node, known, before, healthy, ready) in [
        (
            node(NodeHealth::Healthy),
            false,
            "",
            "True NodeHealthy",
            "True NodeReady",
        ),
        (
            node(sick()),
            false,
            "",
            "False NodeNotHealthy: the node reports DiskPressure",
            "False NodeNotReady: the node reports DiskPressure",
        ),
        (
            NodeObservation::Held,
            false,
            "",
            "False NodeNotHealthy: why",
            "False NodeNotReady: why",
        ),
        (
            node(unknown()),
            false,
            "",
            "Unknown NodeHealthyUnknown: the kubelet does not report",
            "Unknown NodeReadyUnknown: the kubelet does not report",
        ),
        (
            NodeObservation::Missing,
            false,
            "",
            "False NodeDoesNotExist: why",
            "False NodeDoesNotExist: why",
        ),
        (
            NodeObservation::Missing,
            true,
            "",
            "False NodeDeleted: the node was there and is gone",
            "False NodeDeleted: the node was there and is gone",
        ),
        (
            NodeObservation::NotAsked,
            false,
            "",
            "Unknown NodeHealthyUnknown: why",
            "Unknown NodeReadyUnknown: why",
        ),
        (
            NodeObservation::Several(vec!["a".into(), "b".into()]),
            true,
            "NodeHealthy=True:NodeHealthy,NodeReady=True:NodeReady",
            "Unknown InternalError: nodes a and b have the machine's providerID: delete those that are not its own",
            "Unknown InternalError: nodes a and b have the machine's providerID: delete those that are not its own",
        ),
        // A cluster that does not answer changes nothing of what was known.
        (
            NodeObservation::NotAsked,
            true,
            "NodeHealthy=True:NodeHealthy,NodeReady=True:NodeReady",
            "True NodeHealthy",
            "True NodeReady",
        ),
    ] {
        let mut m = fresh();
        let status = m.status.get_or_insert_default();
        status.conditions = conditions(before);
        status.node_ref = known.then(|| NodeRef { name: "n".into() });
        let new = machine(&m, &seen(running(), node), at(0));
        assert_eq!(line(&new.conditions, kind::NODE_HEALTHY), healthy);
        assert_eq!(line(&new.conditions, kind::NODE_READY), ready);
    }
}

#[test]
fn what_the_provider_refuses_is_the_reason() {
    for (refused, provider_id, want) in [
        (Some("Terminal"), None, "False Terminal: why"),
        (Some("QuotaExceeded"), None, "False QuotaExceeded: why"),
        (
            Some("Terminal"),
            Some("sim:///1"),
            "False ObjectDeleted: why",
        ),
        (None, None, "False ObjectDoesNotExist: why"),
    ] {
        let mut m = fresh();
        m.spec.provider_id = provider_id.map(Into::into);
        let mut observation = seen(Instance::Missing, NodeObservation::NotAsked);
        observation.refused = refused;
        let new = machine(&m, &observation, at(0));
        assert_eq!(line(&new.conditions, kind::INFRASTRUCTURE_READY), want);
    }
}

#[test]
fn a_node_under_pressure_is_ready_and_not_healthy() {
    let pressed = NodeHealth::Pressed("the node reports DiskPressure".into());
    let new = machine(&fresh(), &seen(running(), node(pressed)), at(0));
    assert_eq!(
        line(&new.conditions, kind::NODE_HEALTHY),
        "False NodeNotHealthy: the node reports DiskPressure"
    );
    assert_eq!(line(&new.conditions, kind::NODE_READY), "True NodeReady");
}

#[test]
fn a_lost_connection_counts_after_five_minutes() {
    let known = "NodeHealthy=True:NodeHealthy,NodeReady=True:NodeReady";
    let down = format!(
        "Unknown ConnectionDown: the cluster's API has not answered since {}",
        at(0)
    );
    for (lost, seconds, want) in [
        (None, 10_000, "True NodeHealthy"),
        (Some(at(0)), 299, "True NodeHealthy"),
        (Some(at(0)), 300, down.as_str()),
    ] {
        let mut m = fresh();
        m.status.get_or_insert_default().conditions = conditions(known);
        let observation = seen(running(), NodeObservation::not_asked(lost, at(seconds)));
        let new = machine(&m, &observation, at(seconds));
        assert_eq!(line(&new.conditions, kind::NODE_HEALTHY), want);
        let ready = condition::get(&new.conditions, kind::READY).unwrap();
        assert_eq!(ready.status == "Unknown", want == down, "{ready:?}");
    }
}

#[test]
fn ready_sums_up_and_names_what_is_not() {
    let gate = |polarity: &str| json!([{"conditionType": "Gate", "polarity": polarity}]);
    for (name, gates, before, observation, want) in [
        ("all is well", json!([]), "", healthy(), "True Ready"),
        (
            "no instance yet",
            json!([]),
            "",
            seen(Instance::Pending, NodeObservation::Missing),
            "False NotReady: InfrastructureReady: why; NodeHealthy: why",
        ),
        (
            "nobody could be asked",
            json!([]),
            "",
            seen(Instance::Unknown, NodeObservation::NotAsked),
            "Unknown ReadyUnknown: InfrastructureReady: why; NodeHealthy: why",
        ),
        (
            "issues come before what is unknown",
            json!([]),
            "",
            seen(Instance::Missing, NodeObservation::NotAsked),
            "False NotReady: InfrastructureReady: why; NodeHealthy: why",
        ),
        (
            "a gate that nobody has reported",
            gate("Positive"),
            "",
            healthy(),
            "Unknown ReadyUnknown: Gate: not reported",
        ),
        (
            "a gate that is shut",
            gate("Positive"),
            "Gate=False:Shut:wait",
            healthy(),
            "False NotReady: Gate: wait",
        ),
        (
            "a gate that is open",
            gate("Positive"),
            "Gate=True",
            healthy(),
            "True Ready",
        ),
        (
            "a gate of the other polarity",
            gate("Negative"),
            "Gate=True:Busy",
            healthy(),
            "False NotReady: Gate: Busy",
        ),
        (
            "the same, open",
            gate("Negative"),
            "Gate=False",
            healthy(),
            "True Ready",
        ),
        (
            "a health check that failed",
            json!([]),
            "HealthCheckSucceeded=False:UnhealthyNode:no heartbeat",
            healthy(),
            "False NotReady: HealthCheckSucceeded: no heartbeat",
        ),
    ] {
        let mut m = fresh();
        m.spec.content.readiness_gates = read(gates);
        m.status.get_or_insert_default().conditions = conditions(before);
        let new = machine(&m, &observation, at(0));
        assert_eq!(line(&new.conditions, kind::READY), want, "{name}");
    }
}

#[test]
fn available_comes_after_min_ready_seconds_and_goes_with_ready() {
    let mut m = fresh();
    m.spec.content.min_ready_seconds = Some(30);
    let available = |m: &Machine, observation: &MachineObservation, s| {
        let new = machine(m, observation, at(s));
        (line(&new.conditions, kind::AVAILABLE), new)
    };
    let (text, new) = available(&m, &healthy(), 0);
    assert_eq!(
        text,
        format!(
            "False WaitingForMinReadySeconds: ready, and available from {} on",
            at(30)
        )
    );
    assert_eq!(available_at(&m, &new.conditions), Some(at(30)));
    m.status = Some(new);
    assert!(available(&m, &healthy(), 29).0.starts_with("False"));
    let (text, new) = available(&m, &healthy(), 30);
    assert_eq!(text, "True Available");
    m.status = Some(new);
    let broken = seen(Instance::Stopping, node(NodeHealth::Healthy));
    let (text, new) = available(&m, &broken, 40);
    assert_eq!(text, "False NotReady");
    assert_eq!(available_at(&m, &new.conditions), None);
    m.status = Some(new);
    // Ready again: the time runs from then.
    let (_, new) = available(&m, &healthy(), 50);
    assert_eq!(available_at(&m, &new.conditions), Some(at(80)));
}

#[test]
fn up_to_date_says_what_differs_and_keeps_what_it_knew() {
    let mut m = fresh();
    for (up_to_date, want) in [
        (UpToDate::Unknown, "none"),
        (UpToDate::Yes, "True UpToDate"),
        (
            UpToDate::No("spec.version: v1.33.0 -> v1.34.0".into()),
            "False NotUpToDate: spec.version: v1.33.0 -> v1.34.0",
        ),
        (
            UpToDate::Unknown,
            "False NotUpToDate: spec.version: v1.33.0 -> v1.34.0",
        ),
    ] {
        let observation = MachineObservation {
            up_to_date,
            ..healthy()
        };
        let new = machine(&m, &observation, at(0));
        assert_eq!(line(&new.conditions, kind::UP_TO_DATE), want);
        m.status = Some(new);
    }
}

/// Each step of a deletion is a reason of Deleting, with a sentence; Ready repeats it.
#[test]
fn deleting_says_which_step_and_what_it_waits_for() {
    let until = at(60);
    let hooks = || vec!["backup".to_owned()];
    let node_name = || "n".to_owned();
    for (step, want) in [
        (
            DeletionStep::WaitPreDrainHook { hooks: hooks() },
            "WaitingForPreDrainHook: waiting for pre-drain hooks: backup".to_owned(),
        ),
        (
            DeletionStep::Drain { node: node_name(), unreachable: false, started: at(0), until },
            format!("DrainingNode: draining node n since {} (until {until} at most)", at(0)),
        ),
        (
            DeletionStep::WaitVolumes { node: node_name(), volumes: vec!["v1".into(), "v2".into()], started: at(0), until },
            format!(
                "WaitingForVolumeDetach: waiting for volumes to be detached from node n since {} (until {until} at most): v1, v2",
                at(0)
            ),
        ),
        (
            DeletionStep::WaitPreTerminateHook { hooks: hooks() },
            "WaitingForPreTerminateHook: waiting for pre-terminate hooks: backup".to_owned(),
        ),
        (DeletionStep::DeleteInstance, "WaitingForInfrastructureDeletion: deleting the instance".to_owned()),
        (
            DeletionStep::WaitInstanceGone,
            "WaitingForInfrastructureDeletion: waiting for the instance to be gone".to_owned(),
        ),
        (
            DeletionStep::WaitProvider,
            "WaitingForInfrastructureDeletion: waiting for the provider to say whether the instance is gone".to_owned(),
        ),
        (DeletionStep::DeleteBootstrap, "WaitingForBootstrapDeletion: removing what the machine booted from".to_owned()),
        (DeletionStep::DeleteNode { node: node_name(), until }, format!("DeletingNode: deleting node n (until {until} at most)")),
        (DeletionStep::RemoveFinalizer, "DeletionCompleted: all is gone".to_owned()),
    ] {
        let mut m = fresh();
        m.metadata.deletion_timestamp = Some(k8s_time(at(0)));
        let observation = MachineObservation { step: MachineStep::Delete(step), detail: None, ..healthy() };
        let new = machine(&m, &observation, at(0));
        assert_eq!(line(&new.conditions, kind::DELETING), format!("True {want}"));
        let (_, sentence) = want.split_once(": ").unwrap();
        assert_eq!(
            line(&new.conditions, kind::READY),
            format!("False NotReady: Deleting: {sentence}")
        );
        assert_eq!(line(&new.conditions, kind::AVAILABLE), "False NotReady");
    }
    let not = machine(&fresh(), &healthy(), at(0));
    assert_eq!(line(&not.conditions, kind::DELETING), "False NotDeleting");
    // A pause holds the deletion back.
    let mut m = fresh();
    m.metadata.deletion_timestamp = Some(k8s_time(at(0)));
    m.metadata.annotations = Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    let held = machine(
        &m,
        &MachineObservation {
            step: MachineStep::Paused,
            ..healthy()
        },
        at(0),
    );
    assert_eq!(line(&held.conditions, kind::DELETING), "True Deleting");
    assert_eq!(line(&held.conditions, kind::PAUSED), "True Paused");
    assert_eq!(line(&not.conditions, kind::PAUSED), "False NotPaused");
}

#[test]
fn phases_follow_a_machines_life() {
    use MachinePhase::{Deleting, Pending, Provisioned, Provisioning, Running};
    for (name, provider_id, deleting, observation, want) in [
        (
            "nothing asked",
            None,
            false,
            seen(Instance::Missing, NodeObservation::NotAsked),
            Pending,
        ),
        (
            "nobody answers",
            None,
            false,
            seen(Instance::Unknown, NodeObservation::NotAsked),
            Pending,
        ),
        (
            "asked for",
            None,
            false,
            seen(Instance::Pending, NodeObservation::NotAsked),
            Provisioning,
        ),
        (
            "it runs",
            None,
            false,
            seen(running(), NodeObservation::Missing),
            Provisioned,
        ),
        (
            "its id is known",
            Some("x"),
            false,
            seen(Instance::Unknown, NodeObservation::Missing),
            Provisioned,
        ),
        ("its node is there", Some("x"), false, healthy(), Running),
        ("on its way out", Some("x"), true, healthy(), Deleting),
    ] {
        let mut m = fresh();
        m.spec.provider_id = provider_id.map(Into::into);
        m.metadata.deletion_timestamp = deleting.then(|| k8s_time(at(0)));
        assert_eq!(machine(&m, &observation, at(0)).phase, Some(want), "{name}");
    }
    // A machine that was being made stays so while the provider does not answer.
    let mut m = fresh();
    m.status = Some(machine(
        &m,
        &seen(Instance::Pending, NodeObservation::NotAsked),
        at(0),
    ));
    let new = machine(
        &m,
        &seen(Instance::Unknown, NodeObservation::NotAsked),
        at(1),
    );
    assert_eq!(new.phase, Some(Provisioning));
}

/// Looking again at the same changes nothing, at whatever time: a status is written only on change.
#[test]
fn the_same_observation_gives_the_same_status() {
    let mut m = fresh();
    let first = machine(&m, &healthy(), at(0));
    assert_eq!(first.observed_generation, Some(3));
    assert_eq!(first.node_ref, Some(NodeRef { name: "n".into() }));
    m.status = Some(first.clone());
    assert_eq!(machine(&m, &healthy(), at(500)), first);
}

#[test]
fn in_sync_is_told_while_something_differs_and_while_it_is_not_known_whether_it_still_does() {
    let differs = || MachineDrift {
        kind: DriftKind::InstanceChanged,
        what: "image".into(),
        wanted: Some("a".into()),
        found: Some("b".into()),
        since: k8s_time(at(0)),
    };
    let said = "False Drifted: the instance's image is b, it was a";
    let unknown = "Unknown Unreadable: it differed when it was last seen, and its provider or its cluster cannot be read";
    // (before, what differs, whether nothing was hidden, after)
    for (before, found, whole, want) in [
        ("", vec![], true, "none"),
        ("", vec![], false, "none"),
        ("", vec![differs()], true, said),
        ("", vec![differs()], false, said),
        ("InSync=False:Drifted:x", vec![], false, unknown),
        ("InSync=Unknown:Unreadable:x", vec![], false, unknown),
        ("InSync=Unknown:Unreadable:x", vec![], true, "none"),
        ("InSync=False:Drifted:x", vec![], true, "none"),
    ] {
        let mut m = fresh();
        m.status = Some(Default::default());
        m.status.as_mut().unwrap().conditions = conditions(before);
        let drift = Reading {
            found: found.clone(),
            whole,
        };
        let observation = MachineObservation { drift, ..healthy() };
        let new = machine(&m, &observation, at(0));
        assert_eq!(line(&new.conditions, kind::IN_SYNC), want, "{before}");
        assert_eq!(new.drift, found);
    }
}

#[test]
fn type_and_image_stay_as_they_were_until_we_change_the_settings() {
    let view = |kind: &str, digest: &str| InstanceView {
        id: "i".into(),
        state: "Running".into(),
        instance_type: kind.into(),
        image: "img".into(),
        config_digest: digest.into(),
    };
    let mut m = fresh();
    for (seen_type, digest, kept) in [
        ("", "1", ""),
        ("m", "1", "m"),
        ("xl", "1", "m"),
        ("xl", "2", "xl"),
    ] {
        let observation = MachineObservation {
            instance_view: Some(view(seen_type, digest)),
            ..healthy()
        };
        let new = machine(&m, &observation, at(0));
        assert_eq!(new.instance.as_ref().unwrap().instance_type, kept);
        m.status = Some(new);
    }
}
