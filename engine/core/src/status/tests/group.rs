//! What a pool says of nodes that its provider runs.

use fleetwright_api::{MachineDeployment, condition::kind, machine_deployment::PoolPhase};
use serde_json::json;

use super::{at, line, read};
use crate::{
    group::{GroupDecision, GroupOrder, GroupWait},
    managed::{Known, Phase, Shown, Trouble},
    status::{GroupNodes, group, is_complete},
};

fn pool(replicas: i32) -> MachineDeployment {
    read(json!({
        "metadata": {"name": "web", "generation": 2},
        "spec": {"clusterName": "c", "replicas": replicas, "template": {"spec": {"providerConfig": {}}}},
        "status": {"observedGeneration": 1, "version": "v1.32.0", "replicas": 9},
    }))
}

fn shown(phase: Phase) -> Known {
    let version = "v1.32.0".parse().ok();
    Known {
        shown: Some(Shown { phase, version }),
        ..Known::default()
    }
}

fn ordered(version: &str) -> GroupDecision {
    GroupDecision {
        order: Some(GroupOrder {
            version: version.parse().unwrap(),
            config: Default::default(),
            replicas: Some(3),
            bounds: None,
            labels: Default::default(),
            taints: Vec::new(),
        }),
        waits: None,
    }
}

fn nodes(nodes: i32, ready: i32, at_version: i32) -> GroupNodes {
    GroupNodes {
        nodes,
        ready,
        available: ready,
        at_version,
    }
}

#[test]
fn counts_come_from_nodes_and_the_rest_from_the_provider() {
    let to = |to: &str| shown(Phase::Updating(to.parse().ok()));
    let trouble = Known {
        trouble: Some(Trouble {
            reason: "QuotaExceeded",
            message: "full".into(),
            lasting: false,
            retry_after: None,
        }),
        pending: true,
        ..Known::default()
    };
    let same = "v1.32.0";
    for (what, known, seen, order, counts, phase, lines, complete) in [
        (
            "as wanted",
            shown(Phase::Active),
            nodes(3, 3, 3),
            ordered(same),
            [3, 3, 3],
            PoolPhase::Running,
            [
                "True Available",
                "False NotRollingOut",
                "False NotScalingUp",
                "True UpToDate",
            ],
            true,
        ),
        (
            "one is not ready",
            shown(Phase::Active),
            nodes(3, 2, 3),
            ordered(same),
            [3, 2, 3],
            PoolPhase::ScalingUp,
            [
                "False NotAvailable: 2 available nodes, at least 3 required",
                "False NotRollingOut",
                "False NotScalingUp",
                "True UpToDate",
            ],
            false,
        ),
        (
            "more come",
            shown(Phase::Active),
            nodes(1, 1, 1),
            ordered(same),
            [1, 1, 1],
            PoolPhase::ScalingUp,
            [
                "False NotAvailable: 1 available nodes, at least 3 required",
                "False NotRollingOut",
                "True ScalingUp: scaling up from 1 to 3 nodes",
                "True UpToDate",
            ],
            false,
        ),
        (
            "they roll",
            to("v1.33.0"),
            nodes(3, 2, 1),
            ordered("v1.33.0"),
            [3, 2, 1],
            PoolPhase::ScalingUp,
            [
                "True Available",
                "True RollingOut: the provider rolls its nodes to v1.33.0",
                "False NotScalingUp",
                "False NotUpToDate: 1 of 3 nodes are up to date",
            ],
            false,
        ),
        (
            "they are to roll",
            shown(Phase::Active),
            nodes(3, 3, 0),
            ordered("v1.33.0"),
            [3, 3, 0],
            PoolPhase::ScalingUp,
            [
                "True Available",
                "True RollingOut: the provider is to roll its nodes to v1.33.0",
                "False NotScalingUp",
                "False NotUpToDate: 0 of 3 nodes are up to date",
            ],
            false,
        ),
        (
            "they change",
            to("-"),
            nodes(3, 3, 3),
            ordered(same),
            [3, 3, 0],
            PoolPhase::ScalingUp,
            [
                "True Available",
                "True RollingOut: the provider changes its nodes",
                "False NotScalingUp",
                "False NotUpToDate: 0 of 3 nodes are up to date",
            ],
            false,
        ),
        (
            "the provider refuses",
            trouble,
            nodes(0, 0, 0),
            ordered(same),
            [0, 0, 0],
            PoolPhase::ScalingUp,
            [
                "False NotAvailable: 0 available nodes, at least 3 required; full",
                "True RollingOut: full",
                "True QuotaExceeded: full",
                "True NoReplicas",
            ],
            false,
        ),
        (
            "paused",
            shown(Phase::Active),
            nodes(3, 3, 0),
            GroupDecision::waits(GroupWait::Paused),
            [3, 3, 3],
            PoolPhase::Running,
            [
                "True Available",
                "False NotRollingOut",
                "False NotScalingUp",
                "True UpToDate",
            ],
            true,
        ),
    ] {
        let mut pool = pool(3);
        let status = group(&pool, &known, Some(&seen), &order, at(0));
        let found = [
            status.replicas,
            status.available_replicas,
            status.up_to_date_replicas,
        ];
        assert_eq!(found, counts, "{what}");
        let kinds = [
            kind::AVAILABLE,
            kind::ROLLING_OUT,
            kind::SCALING_UP,
            kind::MACHINES_UP_TO_DATE,
        ];
        let found = kinds.map(|kind| line(&status.conditions, kind));
        assert_eq!(found, lines, "{what}");
        assert_eq!(status.phase, Some(phase), "{what}");
        assert_eq!(status.version.as_deref(), Some(same), "{what}");
        pool.status = Some(status);
        assert_eq!(is_complete(&pool), complete, "{what}");
    }
}

#[test]
fn what_was_counted_last_stays_while_the_cluster_cannot_be_seen() {
    let status = group(
        &pool(9),
        &shown(Phase::Active),
        None,
        &ordered("v1.32.0"),
        at(0),
    );
    assert_eq!(status.replicas, 9);
}
