//! The version that a control plane goes to: one minor at a time, and never back to an older one.

use std::fmt;

use fleetwright_api::{Machine, MachineDeployment, version::Version};

use super::{ControlPlaneView, has_served, machine_version};
use crate::{
    managed::Known,
    upgrade::{Blocker, Path, path},
};

/// The version that the control plane goes to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionStep {
    /// The wanted one.
    Wanted(Version),
    /// A step on the way to the wanted one.
    Step {
        /// This step.
        to: Version,
        /// The wanted version.
        wanted: Version,
    },
    /// The next minor would leave workers more than three minors behind: they move first.
    WaitingForWorkers {
        /// Where the control plane stays meanwhile.
        at: Version,
        /// The wanted version.
        wanted: Version,
        /// The lowest version of a worker.
        worker: Version,
    },
    /// Nobody can tell yet how far behind workers would be left.
    UnknownWorkers {
        /// Where the control plane stays meanwhile.
        at: Version,
        /// The wanted version.
        wanted: Version,
        /// Why.
        why: String,
    },
    /// Before the next minor a snapshot of etcd is taken.
    Snapshot {
        /// Where the control plane stays meanwhile.
        at: Version,
        /// The next step.
        next: Version,
        /// The wanted version.
        wanted: Version,
    },
    /// Something stands in the way: the control plane stays where it is.
    Blocked {
        /// Where it stays.
        at: Version,
        /// The wanted version.
        wanted: Version,
        /// What stands in the way.
        blocker: Blocker,
    },
    /// The wanted version is below the running one: the control plane stays where it is.
    Held {
        /// The running version.
        running: Version,
        /// The wanted version.
        wanted: Version,
    },
}

impl VersionStep {
    /// The version that machines get now.
    pub fn version(&self) -> &Version {
        match self {
            Self::Wanted(v) | Self::Step { to: v, .. } => v,
            Self::WaitingForWorkers { at, .. }
            | Self::UnknownWorkers { at, .. }
            | Self::Snapshot { at, .. }
            | Self::Blocked { at, .. } => at,
            Self::Held { running, .. } => running,
        }
    }

    /// What stands in the way of the upgrade (condition `UpgradeBlocked`).
    pub fn blocker(&self) -> Option<&Blocker> {
        match self {
            Self::Blocked { blocker, .. } => Some(blocker),
            _ => None,
        }
    }

    /// Whether the control plane is to stay above the wanted version (condition `VersionHeld`).
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }
}

impl fmt::Display for VersionStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted(v) => write!(f, "{v}"),
            Self::Step { to, wanted } => write!(f, "{to}, a step on the way to {wanted}"),
            Self::WaitingForWorkers { at, wanted, worker } => write!(
                f,
                "stays at {at} on the way to {wanted} until workers at {worker} have moved: they would be more than three minors behind"
            ),
            Self::UnknownWorkers { at, wanted, why } => write!(
                f,
                "stays at {at} on the way to {wanted} until the versions of all workers are known: {why}"
            ),
            Self::Snapshot { at, next, wanted } => write!(
                f,
                "stays at {at} on the way to {wanted} until a snapshot of etcd is kept, which is taken before {next}"
            ),
            Self::Blocked {
                at,
                wanted,
                blocker,
            } => {
                write!(f, "stays at {at} on the way to {wanted}: {blocker}")
            }
            Self::Held { running, wanted } => write!(
                f,
                "stays at {running}: a control plane never goes back to an older minor version ({wanted}); set version to {running} or newer"
            ),
        }
    }
}

/// The lowest version that a serving machine of the control plane runs: what kubelets must not exceed, and what
/// `Cluster.status.version` says. `None` while none has served.
pub fn running_version(machines: &[Machine]) -> Option<Version> {
    machines
        .iter()
        .filter(|m| has_served(m))
        .filter_map(machine_version)
        .min()
}

/// What the control plane runs: the highest and the lowest version that serves, or what is known of it where no machine does.
pub(super) fn runs(view: &ControlPlaneView<'_>) -> Option<(Version, Version)> {
    if let Some(runs) = view.managed.and_then(Known::runs) {
        return Some(runs);
    }
    let served = || {
        let served = view.machines.iter().filter(|m| has_served(m));
        served.filter_map(machine_version)
    };
    let status = view.cluster.status.as_ref();
    let known = status.and_then(|s| s.version.as_deref()?.parse::<Version>().ok());
    let highest = served().chain(known.clone()).max()?;
    let lowest = served().min().or(known).unwrap_or_else(|| highest.clone());
    Some((lowest, highest))
}

fn minor(version: &Version) -> (u64, u64) {
    (version.major(), version.minor())
}

fn has_machines(pool: &MachineDeployment) -> bool {
    pool.metadata.deletion_timestamp.is_none() && pool.spec.replicas != Some(0)
}

/// The way to the cluster's version, from what serves now; `None` before anything does, and where the control plane is
/// somebody else's.
///
/// # Errors
/// What stands in its way.
pub fn route(view: &ControlPlaneView<'_>) -> Option<Result<Path, Blocker>> {
    if view.cluster.spec.control_plane.external.is_some() {
        return None;
    }
    let wanted = view.cluster.spec.version.parse::<Version>().ok()?;
    Some(route_to(view, &runs(view)?.1, &wanted))
}

fn route_to(
    view: &ControlPlaneView<'_>,
    running: &Version,
    wanted: &Version,
) -> Result<Path, Blocker> {
    let pools = || view.pools.iter().filter(|p| has_machines(p));
    let follows = |p: &&MachineDeployment| p.spec.template.spec.version.is_none();
    let at = |p: &MachineDeployment| p.status.as_ref()?.version.as_deref()?.parse().ok();
    let workers = pools().filter(follows).filter_map(at).min();
    let path = path(running, wanted, view.versions, workers.as_ref())?;
    if path.control_plane().next().is_none() {
        return Ok(path);
    }
    let pinned = pools().find_map(|p| {
        let version: Version = p.spec.template.spec.version.as_deref()?.parse().ok()?;
        let pool = p.metadata.name.clone().unwrap_or_default();
        (version.minor() + 3 < wanted.minor()).then_some((pool, version))
    });
    if let Some((pool, version)) = pinned {
        let wanted = wanted.clone();
        return Err(Blocker::Pinned {
            pool,
            version,
            wanted,
        });
    }
    match view.blocker {
        Some(blocker) => Err(blocker.clone()),
        None => Ok(path),
    }
}

/// The version that machines get now, given what serves.
pub fn version_step(view: &ControlPlaneView<'_>, wanted: Version) -> VersionStep {
    let Some((lowest, highest)) = runs(view) else {
        return VersionStep::Wanted(wanted);
    };
    if minor(&wanted) < minor(&highest) {
        return VersionStep::Held {
            running: highest,
            wanted,
        };
    }
    if minor(&lowest) < minor(&highest) {
        // A step that has begun is taken to its end.
        return if minor(&wanted) == minor(&highest) {
            VersionStep::Wanted(wanted)
        } else {
            VersionStep::Step {
                to: highest,
                wanted,
            }
        };
    }
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("i4-minor-skipped") {
        return VersionStep::Wanted(wanted);
    }
    let next = match route_to(view, &highest, &wanted) {
        Err(blocker) => {
            return VersionStep::Blocked {
                at: highest,
                wanted,
                blocker,
            };
        }
        Ok(path) => path.control_plane().next().cloned(),
    };
    let Some(next) = next else {
        return VersionStep::Wanted(wanted);
    };
    if let Some(why) = view.unknown_workers {
        return VersionStep::UnknownWorkers {
            at: highest,
            wanted,
            why: why.to_owned(),
        };
    }
    if let Some(worker) = view.lowest_worker
        && worker.minor() + 3 < next.minor()
    {
        return VersionStep::WaitingForWorkers {
            at: highest,
            wanted,
            worker: worker.clone(),
        };
    }
    if next == wanted {
        VersionStep::Wanted(wanted)
    } else {
        VersionStep::Step { to: next, wanted }
    }
}
