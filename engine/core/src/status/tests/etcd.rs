//! What a Cluster's status says of etcd, of broken machines and of what stands in an upgrade's way.

use fleetwright_api::{Cluster, Machine, condition::kind};
use serde_json::json;

use super::{at, line, member, read};
use crate::{
    control_plane::{
        Component, ComponentHealth, ComponentState, ControlPlaneDecision, Remediation,
        RemediationWait, VersionStep,
    },
    quorum::Member,
    status::{ClusterFacts, cluster, upgrade_blocked},
    upgrade::Blocker,
};

fn ours() -> Cluster {
    read(json!({
        "metadata": {"name": "c", "generation": 2},
        "spec": {"version": "v1.33.0", "controlPlane": {"machines": {"replicas": 3, "template": {"spec": {"providerConfig": {}}}}}},
    }))
}

fn served(name: &str, available: bool) -> Machine {
    let text = format!("Ready={available},Available={available}")
        .replace("true", "True")
        .replace("false", "False");
    let mut m = member(name, "none", false, &text);
    m.metadata.owner_references = None;
    m.spec.content.version = Some("v1.33.0".into());
    m.status.as_mut().unwrap().node_ref = Some(read(json!({"name": name})));
    m
}

/// Members, healthy but for those with `-`, and voting but for those with `?`.
fn members(text: &str) -> Vec<Member> {
    let all = text.split(' ').filter(|t| !t.is_empty());
    all.map(|t| Member {
        name: t.trim_start_matches(['-', '?']).into(),
        healthy: !t.starts_with('-'),
        learner: t.starts_with('?'),
    })
    .collect()
}

#[test]
fn etcd_has_its_quorum_or_says_who_is_missing() {
    let facts = |etcd| ClusterFacts {
        reachable: Some(true),
        etcd,
        ..ClusterFacts::default()
    };
    let decision = ControlPlaneDecision::default();
    for (etcd, available, healthy, up) in [
        (
            Some(Ok(members("a b c"))),
            true,
            "True Healthy",
            "True Available",
        ),
        (
            Some(Ok(members("a b -c"))),
            true,
            "True Healthy: member c is not healthy",
            "True Available",
        ),
        (
            Some(Ok(members("a ?b"))),
            true,
            "True Healthy",
            "True Available",
        ),
        (
            Some(Ok(members("a -b -c"))),
            true,
            "False NotHealthy: 1 of 3 voting members are healthy, at least 2 are needed: member b is not healthy; member c is not healthy",
            "False NotAvailable: 1 of 3 etcd members healthy, at least 2 required",
        ),
        (
            Some(Ok(members("a b c"))),
            false,
            "True Healthy",
            "False NotAvailable: 3 of 3 etcd members healthy, at least 2 required, and no machine is available",
        ),
        (
            Some(Err("no answer".into())),
            true,
            "Unknown InspectionFailed: etcd cannot be asked: no answer",
            "False NotAvailable: 1 of 3 machines available, at least 2 required",
        ),
        (
            None,
            true,
            "none",
            "False NotAvailable: 1 of 3 machines available, at least 2 required",
        ),
    ] {
        let machines = [served("a", available)];
        let facts = facts(etcd);
        let new = cluster(&ours(), &machines, &[], &facts, &decision, at(0));
        let said = |kind| line(&new.conditions, kind);
        assert_eq!(said(kind::ETCD_CLUSTER_HEALTHY), healthy, "{facts:?}");
        assert_eq!(said(kind::CONTROL_PLANE_AVAILABLE), up, "{facts:?}");
    }
}

#[test]
fn the_parts_of_the_control_plane_run_or_it_is_said_which_do_not() {
    let part = |machine: &str, health| ComponentState {
        machine: machine.into(),
        component: Component::ApiServer,
        health,
    };
    let runs = || part("a", ComponentHealth::Running);
    let fails = || part("b", ComponentHealth::Failed("CrashLoopBackOff".into()));
    for (components, want) in [
        (None, "none"),
        (Some(Ok(vec![])), "none"),
        (Some(Ok(vec![runs()])), "True Healthy"),
        (
            Some(Ok(vec![runs(), fails()])),
            "False NotHealthy: kube-apiserver of machine b does not run: CrashLoopBackOff",
        ),
        (
            Some(Err("no answer".into())),
            "Unknown InspectionFailed: no answer",
        ),
    ] {
        let facts = ClusterFacts {
            components,
            ..ClusterFacts::default()
        };
        let decision = ControlPlaneDecision::default();
        let new = cluster(&ours(), &[], &[], &facts, &decision, at(0));
        let said = line(&new.conditions, kind::CONTROL_PLANE_COMPONENTS_HEALTHY);
        assert_eq!(said, want);
    }
}

#[test]
fn what_stands_in_the_way_and_what_is_broken_is_named_and_then_forgotten() {
    let mut decision = ControlPlaneDecision {
        version: Some(VersionStep::Blocked {
            at: "v1.33.0".parse().unwrap(),
            wanted: "v1.35.0".parse().unwrap(),
            blocker: Blocker::Gap {
                minor: (1, 34),
                wanted: "v1.35.0".parse().unwrap(),
            },
        }),
        remediation: Some(Remediation {
            machine: "m0".into(),
            waits: Some(RemediationWait::NoneHealthy),
        }),
        ..ControlPlaneDecision::default()
    };
    let facts = ClusterFacts::default();
    let mut c = ours();
    c.status = Some(cluster(&c, &[], &[], &facts, &decision, at(0)));
    let said = |c: &Cluster, kind| line(&c.status.as_ref().unwrap().conditions, kind);
    assert_eq!(
        said(&c, kind::UPGRADE_BLOCKED),
        "True VersionMissing: stays at v1.33.0 on the way to v1.35.0: v1.35.0 cannot be reached: the Fleet allows no v1.34; add one to spec.versions of the Fleet"
    );
    assert_eq!(
        said(&c, kind::REMEDIATING),
        "True Remediating: machine m0 is broken: no other control-plane machine is healthy"
    );
    assert!(
        upgrade_blocked(&c).is_some_and(|text| text.starts_with("cluster c: stays at v1.33.0"))
    );
    // A change that was not looked at yet is not judged by what was before.
    c.metadata.generation = Some(3);
    assert_eq!(upgrade_blocked(&c), None);
    decision = ControlPlaneDecision {
        version: Some(VersionStep::Wanted("v1.33.0".parse().unwrap())),
        ..ControlPlaneDecision::default()
    };
    c.status = Some(cluster(&c, &[], &[], &facts, &decision, at(0)));
    assert_eq!(said(&c, kind::UPGRADE_BLOCKED), "False NotUpgradeBlocked");
    assert_eq!(said(&c, kind::REMEDIATING), "False NotRemediating");
    assert_eq!(upgrade_blocked(&c), None);
}
