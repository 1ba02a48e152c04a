//! What health checks say in statuses.

use fleetwright_api::{
    Machine, MachineDeployment, MachineHealthCheck, MachineSet, condition::kind,
};
use serde_json::json;

use super::{at, conditions, line, read};
use crate::{
    health::{Block, Gate, Judgement, Verdict},
    machine::{Instance, MachineStep},
    status::{
        MachineObservation, NodeHealth, NodeObservation, UpToDate, health_check, machine,
        machine_deployment, machine_set,
    },
};

fn with(list: &str) -> Machine {
    let mut m: Machine = read(json!({
        "metadata": {"name": "m", "generation": 3},
        "spec": {"clusterName": "c", "providerConfig": {}, "providerID": "sim:///1"},
        "status": {},
    }));
    m.status.as_mut().unwrap().conditions = conditions(list);
    m
}

fn seen(verdict: Verdict) -> MachineObservation {
    MachineObservation {
        instance: Instance::Running {
            provider_id: "sim:///1".into(),
        },
        instance_view: None,
        addresses: None,
        failure_domain: None,
        node: NodeObservation::Present {
            name: "n".into(),
            health: NodeHealth::Healthy,
            info: Default::default(),
        },
        drift: Default::default(),
        up_to_date: UpToDate::Yes,
        health: Judgement {
            verdict,
            bad_conditions: Vec::new(),
        },
        step: MachineStep::Running { node: "n".into() },
        refused: None,
        detail: None,
    }
}

#[test]
fn a_verdict_shows_in_the_machine() {
    let broken = || Verdict::Broken {
        reason: "UnhealthyNode",
        message: "why".into(),
    };
    let drifts = || Verdict::Broken {
        reason: "Drifted",
        message: "why".into(),
    };
    let drifted =
        "HealthCheckSucceeded=False:Drifted:why,OwnerRemediated=False:RemediationDeferred:later";
    let waits = "False WaitingForRemediation: the owner is to replace the machine";
    let held = "HealthCheckSucceeded=False:UnhealthyNode:why,OwnerRemediated=False:RemediationDeferred:later";
    for (verdict, before, succeeded, remediated, ready) in [
        (Verdict::NotChecked, "", "none", "none", "True Ready"),
        (
            Verdict::Healthy,
            "",
            "True HealthCheckSucceeded",
            "none",
            "True Ready",
        ),
        (
            Verdict::Starting { next_check: None },
            "",
            "none",
            "none",
            "True Ready",
        ),
        (
            broken(),
            "",
            "False UnhealthyNode: why",
            waits,
            "False NotReady: HealthCheckSucceeded: why",
        ),
        // What the owner says stays.
        (
            broken(),
            held,
            "False UnhealthyNode: why",
            "False RemediationDeferred: later",
            "False NotReady: HealthCheckSucceeded: why",
        ),
        // Nothing is taken back for what cannot be seen now.
        (
            Verdict::Unknown,
            held,
            "False UnhealthyNode: why",
            "False RemediationDeferred: later",
            "False NotReady: HealthCheckSucceeded: why",
        ),
        (
            Verdict::Suspect { next_check: 5 },
            held,
            "False UnhealthyNode: why",
            "False RemediationDeferred: later",
            "False NotReady: HealthCheckSucceeded: why",
        ),
        (
            Verdict::Healthy,
            held,
            "True HealthCheckSucceeded",
            "none",
            "True Ready",
        ),
        (Verdict::NotChecked, held, "none", "none", "True Ready"),
        // What drifted serves as it did; its mark is no check's.
        (drifts(), "", "False Drifted: why", waits, "True Ready"),
        (
            Verdict::Healthy,
            drifted,
            "True HealthCheckSucceeded",
            "none",
            "True Ready",
        ),
        (
            Verdict::Unknown,
            drifted,
            "False Drifted: why",
            "False RemediationDeferred: later",
            "True Ready",
        ),
        (
            Verdict::Suspect { next_check: 5 },
            drifted,
            "none",
            "none",
            "True Ready",
        ),
    ] {
        let new = machine(&with(before), &seen(verdict.clone()), at(0));
        let says = |kind| line(&new.conditions, kind);
        assert_eq!(says(kind::HEALTH_CHECK_SUCCEEDED), succeeded, "{verdict:?}");
        assert_eq!(says(kind::OWNER_REMEDIATED), remediated, "{verdict:?}");
        assert_eq!(says(kind::READY), ready, "{verdict:?}");
        let mut again = with("");
        again.status = Some(new.clone());
        assert_eq!(machine(&again, &seen(verdict), at(9)), new, "a fixed point");
    }
}

#[test]
fn a_condition_that_others_wrote_stays() {
    let before = "GPUHealthy=False:Broken:the card does not answer";
    let new = machine(&with(before), &seen(Verdict::NotChecked), at(0));
    let says = line(&new.conditions, "GPUHealthy");
    assert_eq!(says, "False Broken: the card does not answer");
}

#[test]
fn an_instance_that_failed_shows_in_infrastructure_ready() {
    let observation = MachineObservation {
        instance: Instance::Failed,
        step: MachineStep::InstanceFailed,
        ..seen(Verdict::NotChecked)
    };
    let new = machine(&with(""), &observation, at(0));
    assert_eq!(
        line(&new.conditions, kind::INFRASTRUCTURE_READY),
        "False InstanceFailed: the provider gives the instance up"
    );
}

#[test]
fn sets_and_pools_say_what_is_broken_and_which_budget_holds_them() {
    let mut sick =
        with("HealthCheckSucceeded=False:UnhealthyNode:why,OwnerRemediated=False:X:later");
    sick.metadata.name = Some("a".into());
    let mut set: MachineSet = read(json!({
        "metadata": {"name": "s"},
        "spec": {"clusterName": "c", "replicas": 0, "template": {"spec": {"providerConfig": {}}}},
    }));
    let all = [sick];
    let held =
        "held by the disruption budget of pool p: 1 of at most 1 machines are out of service";
    let new = machine_set(&set, &all, None, Some(held), at(0));
    assert_eq!(
        line(&new.conditions, kind::SCALING_DOWN),
        format!("True DisruptionBudget: scaling down from 1 to 0 machines; {held}")
    );
    let broken = "True Remediating: a: why (later)";
    assert_eq!(line(&new.conditions, kind::REMEDIATING), broken);
    set.status = Some(new);
    let mut pool: MachineDeployment = read(json!({
        "metadata": {"name": "p"},
        "spec": {"clusterName": "c", "replicas": 0, "template": {"spec": {"providerConfig": {}}}},
    }));
    let sets = [set.clone()];
    let new = machine_deployment(&pool, &sets, &all, None, at(0));
    assert_eq!(
        line(&new.conditions, kind::SCALING_DOWN),
        format!("True DisruptionBudget: scaling down from 1 to 0 machines; {held}")
    );
    assert_eq!(line(&new.conditions, kind::REMEDIATING), broken);
    pool.spec.replicas = Some(1);
    let new = machine_deployment(&pool, &sets, &all, None, at(0));
    assert_eq!(
        line(&new.conditions, kind::SCALING_DOWN),
        "False NotScalingDown"
    );
    // Nothing is left to say.
    let none = machine_set(&set, &all[..0], None, Some(held), at(0));
    assert_eq!(
        line(&none.conditions, kind::SCALING_DOWN),
        "False NotScalingDown"
    );
    assert_eq!(
        line(&none.conditions, kind::REMEDIATING),
        "False NotRemediating"
    );
}

#[test]
fn a_check_says_how_its_machines_are_and_what_stops_it() {
    let check: MachineHealthCheck = read(json!({
        "metadata": {"name": "c", "generation": 2},
        "spec": {"clusterName": "c", "selector": {"matchLabels": {"a": "b"}}},
    }));
    let gate = |block| Gate {
        expected: 200,
        unhealthy: (0..150).map(|i| format!("m-{i:03}")).collect(),
        remediations_allowed: 50,
        block,
        wide: Default::default(),
        recent: Vec::new(),
        next: None,
    };
    let new = health_check(&check, &gate(None), at(0));
    let counts = (
        new.expected_machines,
        new.current_healthy,
        new.remediations_allowed,
    );
    assert_eq!(counts, (200, 50, 50));
    assert_eq!(
        (new.unhealthy.len(), new.observed_generation),
        (100, Some(2))
    );
    let says = |new: &fleetwright_api::machine_health_check::MachineHealthCheckStatus| {
        line(&new.conditions, kind::REMEDIATION_ALLOWED)
    };
    assert_eq!(says(&new), "True RemediationAllowed");
    for (block, want) in [
        (Block::Paused, "False Paused: the health check is paused"),
        (
            Block::TooMany {
                unhealthy: 150,
                limit: 80,
                written: "40%".into(),
            },
            "False TooManyUnhealthy: 150 machines are broken, and unhealthyLessThanOrEqualTo is 40% (80)",
        ),
        (
            Block::Unreadable("x".into()),
            "False TooManyUnhealthy: triggerIf says \"x\": write a number, a percentage such as \"40%\", or a range such as [1-3]",
        ),
    ] {
        let new = health_check(&check, &gate(Some(block)), at(0));
        assert_eq!(says(&new), want);
        assert_eq!(new.remediations_allowed, 0);
    }
}
