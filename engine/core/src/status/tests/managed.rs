//! What a Cluster says of a control plane that its provider runs.

use fleetwright_api::{
    Cluster,
    cluster::{ClusterPhase, ClusterStatus},
    condition::kind,
};
use serde_json::json;

use super::{at, line, read};
use crate::{
    control_plane::{ControlPlaneDecision, VersionStep},
    managed::{Known, Phase, Shown, Trouble},
    status::{ClusterFacts, cluster, has_converged},
};

fn shown(phase: Phase) -> Known {
    let version = "v1.32.0".parse().ok();
    Known {
        shown: Some(Shown { phase, version }),
        ..Known::default()
    }
}

fn troubled(known: Known, reason: &'static str, lasting: bool) -> Known {
    Known {
        trouble: Some(Trouble {
            reason,
            message: "no way".into(),
            lasting,
            retry_after: None,
        }),
        pending: true,
        ..known
    }
}

fn said(wanted: &str, known: Known, reachable: Option<bool>) -> (Cluster, ClusterStatus) {
    let of: Cluster = read(json!({
        "metadata": {"name": "c", "generation": 2},
        "spec": {"version": wanted, "controlPlane": {"managed": {"providerConfig": {}}}},
    }));
    let facts = ClusterFacts {
        foreign_version: known.serves().map(ToString::to_string),
        managed: Some(known),
        reachable,
        ..ClusterFacts::default()
    };
    let decision = ControlPlaneDecision {
        version: Some(VersionStep::Wanted(wanted.parse().unwrap())),
        ..ControlPlaneDecision::default()
    };
    let status = cluster(&of, &[], &[], &facts, &decision, at(0));
    (of, status)
}

#[test]
fn it_says_what_the_provider_shows_or_refuses() {
    let updating = |to: &str| shown(Phase::Updating(to.parse().ok()));
    let up = Some(true);
    for (what, known, reachable, phase, lines, converged) in [
        (
            "nobody was asked",
            Known {
                pending: true,
                ..Known::default()
            },
            None,
            ClusterPhase::Pending,
            [
                "False NotAvailable: the provider was not asked yet",
                "Unknown ReadyUnknown: the provider was not asked yet",
                "True RollingOut: rolling out the control plane (the provider was not asked yet)",
                "False NotScalingUp",
            ],
            false,
        ),
        (
            "it is made",
            shown(Phase::Creating),
            None,
            ClusterPhase::Provisioning,
            [
                "False NotAvailable: the provider makes it",
                "False NotReady: the provider makes it",
                "False NotRollingOut",
                "False NotScalingUp",
            ],
            false,
        ),
        (
            "it is there",
            shown(Phase::Active),
            up,
            ClusterPhase::Provisioned,
            [
                "True Available",
                "True Ready",
                "False NotRollingOut",
                "False NotScalingUp",
            ],
            true,
        ),
        (
            "its API does not answer",
            shown(Phase::Active),
            Some(false),
            ClusterPhase::Provisioned,
            [
                "False NotAvailable: the cluster's API does not answer",
                "True Ready",
                "False NotRollingOut",
                "False NotScalingUp",
            ],
            false,
        ),
        (
            "it changes",
            updating("-"),
            up,
            ClusterPhase::Provisioned,
            [
                "True Available",
                "True Ready",
                "True RollingOut: rolling out the provider changes the control plane",
                "False NotScalingUp",
            ],
            false,
        ),
        (
            "it goes up",
            updating("v1.33.0"),
            up,
            ClusterPhase::Provisioned,
            [
                "True Available",
                "True Ready",
                "True RollingOut: rolling out the control plane to v1.33.0",
                "False NotScalingUp",
            ],
            false,
        ),
        (
            "it failed",
            shown(Phase::Failed("no subnet".into())),
            None,
            ClusterPhase::Provisioning,
            [
                "False NotAvailable: the provider says that it failed: no subnet",
                "False NotReady: the provider says that it failed: no subnet",
                "False NotRollingOut",
                "False NotScalingUp",
            ],
            false,
        ),
        (
            "credentials",
            troubled(Known::default(), "CredentialsRefused", true),
            None,
            ClusterPhase::Pending,
            [
                "False NotAvailable: no way",
                "False CredentialsRefused: no way",
                "True RollingOut: rolling out the control plane (no way)",
                "True CredentialsRefused: scaling up the control plane (no way)",
            ],
            false,
        ),
        (
            "a change that is refused",
            troubled(shown(Phase::Active), "Terminal", true),
            up,
            ClusterPhase::Provisioned,
            [
                "True Available",
                "False Terminal: no way",
                "True RollingOut: rolling out the control plane (no way)",
                "True Terminal: scaling up the control plane (no way)",
            ],
            false,
        ),
        (
            "a look that failed",
            Known {
                pending: false,
                ..troubled(shown(Phase::Active), "Throttled", false)
            },
            up,
            ClusterPhase::Provisioned,
            [
                "True Available",
                "False Throttled: no way",
                "False NotRollingOut",
                "False NotScalingUp",
            ],
            true,
        ),
    ] {
        let (mut of, status) = said("v1.32.0", known, reachable);
        let kinds = [
            kind::CONTROL_PLANE_AVAILABLE,
            kind::INFRASTRUCTURE_READY,
            kind::ROLLING_OUT,
            kind::SCALING_UP,
        ];
        let found = kinds.map(|kind| line(&status.conditions, kind));
        assert_eq!(found, lines, "{what}");
        assert_eq!(status.phase, Some(phase), "{what}");
        let initialized = status
            .initialization
            .as_ref()
            .unwrap()
            .control_plane_initialized;
        assert_eq!(initialized, status.version.is_some(), "{what}");
        of.status = Some(status);
        assert_eq!(has_converged(&of, &[]), converged, "{what}");
    }
}

#[test]
fn a_cluster_that_is_to_run_another_version_has_not_converged() {
    let (mut of, status) = said("v1.33.0", shown(Phase::Active), Some(true));
    let rolling = line(&status.conditions, kind::ROLLING_OUT);
    assert_eq!(
        rolling,
        "True RollingOut: rolling out the control plane to v1.33.0"
    );
    assert_eq!(status.upgrading_to.as_deref(), Some("v1.33.0"));
    assert_eq!(status.version.as_deref(), Some("v1.32.0"));
    of.status = Some(status);
    assert!(!has_converged(&of, &[]));
}
