//! A snapshot of etcd before each minor version: an API server of the next one may write what the one before cannot read.

use fleetwright_api::version::Version;
use jiff::{SignedDuration, Timestamp};

use super::{ControlPlaneView, VersionStep, alive, machine_version, version::runs};
use crate::upgrade::Blocker;

/// How old a snapshot may be when a step begins that it is for.
const FRESH: SignedDuration = SignedDuration::from_hours(1);

/// What is known of the snapshots of a cluster's etcd.
#[derive(Clone, Copy, Debug, Default)]
pub enum Snapshots<'a> {
    /// Nobody keeps any: no upgrade waits for one.
    #[default]
    NotKept,
    /// They are kept.
    Kept {
        /// When the newest was taken, and what ran then.
        newest: Option<(Timestamp, &'a Version)>,
        /// Why none was taken at the last try.
        failed: Option<&'a str>,
    },
}

/// The step, unless a snapshot comes before it. A step that has begun is not held up.
pub(super) fn before(
    view: &ControlPlaneView<'_>,
    step: VersionStep,
    now: Timestamp,
) -> VersionStep {
    let Snapshots::Kept { newest, failed } = view.snapshots else {
        return step;
    };
    let (next, wanted) = match &step {
        VersionStep::Wanted(to) => (to.clone(), to.clone()),
        VersionStep::Step { to, wanted } => (to.clone(), wanted.clone()),
        _ => return step,
    };
    let minor = |version: &Version| (version.major(), version.minor());
    let Some((_, at)) = runs(view).filter(|(_, at)| minor(at) < minor(&next)) else {
        return step;
    };
    let begun = || {
        let mut versions = alive(view.machines).filter_map(machine_version);
        versions.any(|version| minor(&version) >= minor(&next))
    };
    let fresh = |(taken, of): (Timestamp, &Version)| *of == at && now.duration_since(taken) < FRESH;
    if view.cluster.spec.control_plane.machines.is_none() || newest.is_some_and(fresh) || begun() {
        return step;
    }
    match failed {
        None => VersionStep::Snapshot { at, next, wanted },
        Some(why) => VersionStep::Blocked {
            at,
            wanted,
            blocker: Blocker::Snapshot {
                next,
                why: why.to_owned(),
            },
        },
    }
}

/// The version of which a snapshot is to be taken now.
pub(super) fn wanted(step: &VersionStep) -> Option<Version> {
    match step {
        VersionStep::Snapshot { at, .. }
        | VersionStep::Blocked {
            at,
            blocker: Blocker::Snapshot { .. },
            ..
        } => Some(at.clone()),
        _ => None,
    }
}
