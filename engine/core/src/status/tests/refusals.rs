//! What a provider refuses shows in the set, the pool and the cluster of the machine.

use fleetwright_api::{Machine, MachineDeployment, condition::kind, time::k8s_time};
use serde_json::json;

use super::{at, conditions, line, member, read};
use crate::{
    control_plane::ControlPlaneDecision,
    rollout::RolloutDecision,
    status::{ClusterFacts, cluster, machine_deployment, machine_set, pause, refused},
};

fn refused_machine(name: &str, set: &str, reason: &str) -> Machine {
    let text = format!("InfrastructureReady=False:{reason}:no such type");
    member(name, set, false, &text)
}

#[test]
fn of_a_set_whatever_its_machine_is_refused() {
    let good = || member("a", "s", false, "Ready=True");
    let set = read(json!({
        "metadata": {"name": "s"},
        "spec": {"clusterName": "c", "replicas": 2, "template": {"spec": {"providerConfig": {}}}},
    }));
    let leaving = |mut m: Machine| {
        m.metadata.deletion_timestamp = Some(k8s_time(at(0)));
        m
    };
    for (machines, want) in [
        (vec![good(), good()], "False NotScalingUp"),
        (
            vec![good(), refused_machine("b", "s", "Terminal")],
            "True Terminal: b: no such type",
        ),
        (
            vec![
                refused_machine("b", "s", "QuotaExceeded"),
                refused_machine("c", "s", "CredentialsRefused"),
            ],
            "True CredentialsRefused: c: no such type",
        ),
        (
            vec![good(), refused_machine("b", "s", "QuotaExceeded")],
            "True QuotaExceeded: b: no such type",
        ),
        (
            vec![good(), refused_machine("b", "s", "ObjectDoesNotExist")],
            "False NotScalingUp",
        ),
        (
            vec![good(), leaving(refused_machine("b", "s", "Terminal"))],
            "False NotScalingUp",
        ),
    ] {
        let new = machine_set(&set, &machines, None, None, at(0));
        assert_eq!(line(&new.conditions, kind::SCALING_UP), want);
        assert_eq!(
            refused(&new.conditions).is_some(),
            want.contains("Terminal") || want.contains("Credentials")
        );
    }
}

#[test]
fn of_a_pool_what_its_current_set_is_refused_and_of_a_cluster_both() {
    let pool: MachineDeployment = read(json!({
        "metadata": {"name": "p"},
        "spec": {"clusterName": "c", "replicas": 1, "template": {"spec": {"providerConfig": {}}}},
    }));
    let machines = [refused_machine("b", "s", "Terminal")];
    let decided = |current: Option<&str>| RolloutDecision {
        current: current.map(Into::into),
        ..RolloutDecision::default()
    };
    let says = |current| {
        let mut pool = pool.clone();
        let status = machine_deployment(&pool, &[], &machines, Some(&decided(current)), at(0));
        let said = line(&status.conditions, kind::SCALING_UP);
        pool.status = Some(status);
        (said, pool)
    };
    // What the pool no longer wants, or a set that is still to be made, says nothing of what it wants now.
    assert_eq!(says(Some("t")).0, "False NotScalingUp");
    assert_eq!(says(None).0, "False NotScalingUp");
    let (said, refused_pool) = says(Some("s"));
    assert_eq!(said, "True Terminal: b: no such type");

    let of_cluster = |machines: &[Machine], pools: &[MachineDeployment], outdated: &[&str]| {
        let cluster_object = read(json!({
            "metadata": {"name": "c"},
            "spec": {"version": "v1.33.0", "controlPlane": {"machines": {"replicas": 1, "template": {"spec": {"providerConfig": {}}}}}},
        }));
        let decision = ControlPlaneDecision {
            outdated: outdated
                .iter()
                .map(|n| ((*n).to_owned(), Vec::new()))
                .collect(),
            ..super::cluster::settled()
        };
        let facts = ClusterFacts::default();
        let new = cluster(&cluster_object, machines, pools, &facts, &decision, at(0));
        let said = line(&new.conditions, kind::SCALING_UP);
        (said, refused(&new.conditions).is_some())
    };
    let control_plane = [member("c-cp-0", "", false, "Ready=True")];
    assert_eq!(
        of_cluster(&control_plane, &[refused_pool], &[]),
        (
            "True ScalingUp: scaling up pool p (b: no such type)".into(),
            false
        ),
        "its pool answers for itself"
    );
    let control_plane = [refused_machine("c-cp-0", "", "Terminal")];
    assert_eq!(
        of_cluster(&control_plane, &[], &[]),
        (
            "True Terminal: scaling up the control plane (c-cp-0: no such type)".into(),
            true
        )
    );
    assert_eq!(
        of_cluster(&control_plane, &[], &["c-cp-0"]).0,
        "False NotScalingUp",
        "it is to be replaced"
    );
}

#[test]
fn what_belongs_to_a_paused_cluster_says_so() {
    let mut list = conditions("Paused=False:NotPaused");
    pause(&mut list, None, at(0));
    assert_eq!(
        line(&list, kind::PAUSED),
        "True Paused: its Cluster is paused"
    );
}
