//! The way of an upgrade over several minor versions: which versions the control plane passes through, when workers must move,
//! and what stands in its way. Nothing of it is stored: after each step it is computed again from what runs.

use std::fmt;

use fleetwright_api::{
    condition::reason,
    version::{Skew, Version, kubelet_skew},
};

#[cfg(test)]
mod tests;

/// One step of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every control-plane machine gets this version.
    ControlPlane(Version),
    /// Workers that follow the cluster's version get this one.
    Workers(Version),
}

/// What an upgrade passes through.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Path {
    /// Where the control plane is.
    pub from: Version,
    /// What comes, in order; empty when the control plane and the workers are there.
    pub steps: Vec<Step>,
}

impl Path {
    /// Versions that the control plane still gets.
    pub fn control_plane(&self) -> impl Iterator<Item = &Version> {
        self.steps.iter().filter_map(|step| match step {
            Step::ControlPlane(version) => Some(version),
            Step::Workers(_) => None,
        })
    }

    /// Versions that workers still get.
    pub fn workers(&self) -> impl Iterator<Item = &Version> {
        self.steps.iter().filter_map(|step| match step {
            Step::Workers(version) => Some(version),
            Step::ControlPlane(_) => None,
        })
    }
}

/// Such as `v1.31.0 -> v1.32.4 -> v1.33.1; workers at v1.33.1`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.from)?;
        self.control_plane()
            .try_for_each(|v| write!(f, " -> {v}"))?;
        let workers: Vec<String> = self.workers().map(ToString::to_string).collect();
        if !workers.is_empty() {
            write!(f, "; workers at {}", workers.join(", then "))?;
        }
        Ok(())
    }
}

/// What stands in the way of an upgrade, before anything of it moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// The Fleet does not allow the wanted version.
    NotAllowed {
        /// It.
        wanted: Version,
    },
    /// The Fleet allows no version of a minor that must be passed through.
    Gap {
        /// Major and minor number.
        minor: (u64, u64),
        /// The wanted version.
        wanted: Version,
    },
    /// There is no way from one major version to another.
    Major {
        /// What runs.
        running: Version,
        /// The wanted version.
        wanted: Version,
    },
    /// A pool pins a version that would be more than three minors below the control plane.
    Pinned {
        /// The pool.
        pool: String,
        /// Its version.
        version: Version,
        /// The wanted version.
        wanted: Version,
    },
    /// The provider has no image of a version on the way, or cannot be asked for it; in its words.
    Image {
        /// The version.
        version: Version,
        /// Whose machines would be made of it.
        of: String,
        /// What is missing, and what to do.
        why: String,
    },
    /// etcd gives no snapshot, or it cannot be kept; it is tried again.
    Snapshot {
        /// The version that it is taken before.
        next: Version,
        /// What is wrong.
        why: String,
    },
    /// What kubeadm installed has not followed to the version that runs; it is tried again.
    Addons {
        /// What runs.
        running: Version,
        /// What is wrong.
        why: String,
    },
}

impl Blocker {
    /// Reason of condition `UpgradeBlocked`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAllowed { .. } => reason::VERSION_NOT_ALLOWED,
            Self::Gap { .. } | Self::Major { .. } => reason::VERSION_MISSING,
            Self::Pinned { .. } => reason::POOL_PINNED,
            Self::Image { .. } => reason::IMAGE_MISSING,
            Self::Snapshot { .. } => reason::SNAPSHOT_FAILED,
            Self::Addons { .. } => reason::ADDONS_BEHIND,
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed { wanted } => write!(
                f,
                "the Fleet does not allow {wanted}: add it to spec.versions of the Fleet, or set a version that is there"
            ),
            Self::Gap {
                minor: (major, minor),
                wanted,
            } => write!(
                f,
                "{wanted} cannot be reached: the Fleet allows no v{major}.{minor}; add one to spec.versions of the Fleet"
            ),
            Self::Major { running, wanted } => {
                write!(f, "there is no way from {running} to {wanted}")
            }
            Self::Pinned {
                pool,
                version,
                wanted,
            } => write!(
                f,
                "pool {pool} pins {version}, more than three minors below {wanted}: raise the pool's version, or leave it out so that it follows"
            ),
            Self::Image { version, of, why } => write!(f, "{version} for {of}: {why}"),
            Self::Snapshot { next, why } => write!(
                f,
                "no snapshot of etcd before {next}: {why}; it is tried again"
            ),
            Self::Addons { running, why } => write!(
                f,
                "kube-proxy, CoreDNS and kubeadm's configuration have not all followed to {running}: {why}; it is tried again"
            ),
        }
    }
}

fn minor(version: &Version) -> (u64, u64) {
    (version.major(), version.minor())
}

/// The way from what the control plane runs to `wanted`. `allowed` is what the Fleet allows, in its order: of each minor in between
/// the last that is listed is taken, and where nothing is listed at all, its `.0`. `workers` is the lowest version of those that
/// follow: they move where the next step would leave them more than three minors behind, and at the end.
/// An older `wanted` has a way within its minor only; else the control plane stays.
///
/// # Errors
/// A version that is missing on the way.
pub fn path(
    running: &Version,
    wanted: &Version,
    allowed: &[Version],
    workers: Option<&Version>,
) -> Result<Path, Blocker> {
    let mut steps = Vec::new();
    let mut at = running.clone();
    let mut behind = workers.cloned();
    if wanted != running && minor(wanted) >= minor(running) {
        if running.major() != wanted.major() {
            return Err(Blocker::Major {
                running: running.clone(),
                wanted: wanted.clone(),
            });
        }
        if !allowed.is_empty() && !allowed.contains(wanted) {
            return Err(Blocker::NotAllowed {
                wanted: wanted.clone(),
            });
        }
        loop {
            let next = next(&at, wanted, allowed)?;
            if let Some(workers) = behind.as_mut().filter(|w| w.minor() + 3 < next.minor()) {
                workers.clone_from(&at);
                steps.push(Step::Workers(at.clone()));
            }
            at = next;
            steps.push(Step::ControlPlane(at.clone()));
            if at == *wanted {
                break;
            }
        }
    }
    // Workers may be older than their control plane: they go back where it stays.
    let within = kubelet_skew(&at, wanted) == Skew::Allowed;
    if within && behind.is_some_and(|workers| workers != *wanted) {
        steps.push(Step::Workers(wanted.clone()));
    }
    Ok(Path {
        from: running.clone(),
        steps,
    })
}

/// The version after `at` on the way to `wanted`.
fn next(at: &Version, wanted: &Version, allowed: &[Version]) -> Result<Version, Blocker> {
    let (major, next) = (at.major(), at.minor() + 1);
    if wanted.minor() <= next {
        return Ok(wanted.clone());
    }
    let listed = allowed.iter().rfind(|v| minor(v) == (major, next)).cloned();
    let first = || format!("v{major}.{next}.0").parse().ok();
    let found = if allowed.is_empty() { first() } else { listed };
    found.ok_or_else(|| Blocker::Gap {
        minor: (major, next),
        wanted: wanted.clone(),
    })
}
