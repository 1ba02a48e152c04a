//! A control plane that a provider runs: which version is ordered of it.

use fleetwright_api::{ProviderConfig, cluster::ManagedControlPlane};

use super::*;
use crate::managed::{Known, Phase, Shown};

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn managed(wanted: &str, status: Option<&str>) -> Cluster {
    let mut cluster = World::new(1, wanted).cluster;
    cluster.spec.control_plane.machines = None;
    cluster.spec.control_plane.managed = Some(ManagedControlPlane {
        provider_config: ProviderConfig::default(),
    });
    cluster.status.as_mut().unwrap().version = status.map(Into::into);
    cluster
}

fn shown(phase: Phase, at: &str) -> Known {
    Known {
        shown: Some(Shown {
            phase,
            version: Some(version(at)),
        }),
        ..Known::default()
    }
}

fn decided(
    cluster: &Cluster,
    known: &Known,
    worker: Option<&str>,
    versions: &[Version],
) -> ControlPlaneDecision {
    let worker = worker.map(version);
    let catalogue = Catalogue::default();
    let view = ControlPlaneView {
        cluster,
        machines: &[],
        managed: Some(known),
        etcd: Etcd::Assumed,
        components: &[],
        snapshots: Snapshots::NotKept,
        lowest_worker: worker.as_ref(),
        unknown_workers: None,
        pools: &[],
        versions,
        blocker: None,
        held: &BTreeMap::new(),
        domains: &[],
        catalogue: &catalogue,
    };
    decide(&view, at(0))
}

#[test]
fn one_minor_is_ordered_at_a_time_and_never_an_older_one() {
    let active = |at| shown(Phase::Active, at);
    let to = |at, to| shown(Phase::Updating(Some(version(to))), at);
    let allowed = ["v1.31.9", "v1.32.4", "v1.33.2", "v1.34.1"].map(version);
    for (what, known, status, wanted, worker, want) in [
        (
            "nothing is there",
            Known::default(),
            None,
            "v1.34.1",
            None,
            "v1.34.1",
        ),
        (
            "it is made",
            shown(Phase::Creating, "v1.31.9"),
            None,
            "v1.34.1",
            None,
            "v1.34.1",
        ),
        (
            "three minors",
            active("v1.31.9"),
            Some("v1.31.9"),
            "v1.34.1",
            None,
            "v1.32.4, a step on the way to v1.34.1",
        ),
        (
            "the next",
            active("v1.32.4"),
            Some("v1.32.4"),
            "v1.34.1",
            None,
            "v1.33.2, a step on the way to v1.34.1",
        ),
        (
            "the last",
            active("v1.33.2"),
            Some("v1.33.2"),
            "v1.34.1",
            None,
            "v1.34.1",
        ),
        (
            "it is there",
            active("v1.34.1"),
            Some("v1.34.1"),
            "v1.34.1",
            None,
            "v1.34.1",
        ),
        (
            "the provider knows better",
            active("v1.32.4"),
            Some("v1.31.9"),
            "v1.33.2",
            None,
            "v1.33.2",
        ),
        (
            "a process that asked nobody yet",
            Known::default(),
            Some("v1.32.4"),
            "v1.34.1",
            None,
            "v1.33.2, a step on the way to v1.34.1",
        ),
        (
            "under way",
            to("v1.31.9", "v1.32.4"),
            Some("v1.31.9"),
            "v1.34.1",
            None,
            "v1.32.4, a step on the way to v1.34.1",
        ),
        (
            "under way, and taken back",
            to("v1.31.9", "v1.32.4"),
            Some("v1.31.9"),
            "v1.31.9",
            None,
            "stays at v1.32.4: a control plane never goes back to an older minor version (v1.31.9); set version to v1.32.4 or newer",
        ),
        (
            "taken back later",
            active("v1.33.2"),
            Some("v1.33.2"),
            "v1.32.4",
            None,
            "stays at v1.33.2: a control plane never goes back to an older minor version (v1.32.4); set version to v1.33.2 or newer",
        ),
        (
            "workers too old",
            active("v1.33.2"),
            Some("v1.33.2"),
            "v1.34.1",
            Some("v1.30.0"),
            "stays at v1.33.2 on the way to v1.34.1 until workers at v1.30.0 have moved: they would be more than three minors behind",
        ),
        (
            "workers old enough",
            active("v1.33.2"),
            Some("v1.33.2"),
            "v1.34.1",
            Some("v1.31.9"),
            "v1.34.1",
        ),
        (
            "not allowed",
            active("v1.33.2"),
            Some("v1.33.2"),
            "v1.34.0",
            None,
            "stays at v1.33.2 on the way to v1.34.0: the Fleet does not allow v1.34.0: add it to spec.versions of the Fleet, or set a version that is there",
        ),
    ] {
        let decision = decided(&managed(wanted, status), &known, worker, &allowed);
        let words = decision.version.map(|step| step.to_string());
        assert_eq!(words.as_deref(), Some(want), "{what}");
        assert_eq!(decision.action, ControlPlaneAction::Settled, "{what}");
    }
}

#[test]
fn nothing_is_ordered_of_one_that_is_paused_or_leaves() {
    let known = shown(Phase::Active, "v1.31.9");
    let mut cluster = managed("v1.32.4", Some("v1.31.9"));
    let pause = [(meta::ANNOTATION_PAUSED.to_owned(), String::new())];
    cluster.metadata.annotations = Some(pause.into());
    let waits = |cluster: &Cluster| decided(cluster, &known, None, &[]).action;
    let paused = ControlPlaneAction::Wait(ControlPlaneWait::Paused);
    assert_eq!(waits(&cluster), paused);
    cluster.metadata.deletion_timestamp = Some(k8s_time(at(0)));
    let leaves = ControlPlaneAction::Wait(ControlPlaneWait::Deleting);
    assert_eq!(waits(&cluster), leaves);
}
