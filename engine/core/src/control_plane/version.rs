//! The version that a control plane goes to: one minor at a time, and never back to an older one.

use std::fmt;

use fleetwright_api::{Machine, version::Version};

use super::{ControlPlaneView, has_served, machine_version};

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
            Self::WaitingForWorkers { at, .. } => at,
            Self::Held { running, .. } => running,
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

/// The version that machines get now, given what serves.
pub fn version_step(view: &ControlPlaneView<'_>, wanted: Version) -> VersionStep {
    let served = || {
        view.machines
            .iter()
            .filter(|m| has_served(m))
            .filter_map(machine_version)
    };
    let known = view
        .cluster
        .status
        .as_ref()
        .and_then(|s| s.version.as_deref())
        .and_then(|v| v.parse::<Version>().ok());
    let Some(highest) = served().chain(known.clone()).max() else {
        return VersionStep::Wanted(wanted);
    };
    let lowest = served().min().or(known).unwrap_or_else(|| highest.clone());
    let minor = |v: &Version| (v.major(), v.minor());
    if minor(&wanted) < minor(&highest) {
        return VersionStep::Held {
            running: highest,
            wanted,
        };
    }
    if minor(&wanted) == minor(&highest) {
        return VersionStep::Wanted(wanted);
    }
    // `wanted` is of a later minor than anything that served.
    if minor(&lowest) < minor(&highest) {
        return VersionStep::Step {
            to: highest,
            wanted,
        };
    }
    if let Some(worker) = view.lowest_worker
        && worker.minor() + 3 < highest.minor() + 1
    {
        return VersionStep::WaitingForWorkers {
            at: highest,
            wanted,
            worker: worker.clone(),
        };
    }
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("i4-minor-skipped") {
        return VersionStep::Wanted(wanted);
    }
    let next = highest.minor() + 1;
    if (wanted.major(), wanted.minor()) == (highest.major(), next) {
        return VersionStep::Wanted(wanted);
    }
    let listed = view
        .steps
        .iter()
        .filter(|v| v.major() == highest.major() && v.minor() == next)
        .max()
        .cloned();
    match listed.or_else(|| format!("v{}.{next}.0", highest.major()).parse().ok()) {
        Some(to) => VersionStep::Step { to, wanted },
        None => VersionStep::Wanted(wanted),
    }
}
