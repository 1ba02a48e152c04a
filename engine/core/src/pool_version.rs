//! The version that a pool's new machines get.

use std::fmt;

use fleetwright_api::{
    Cluster, MachineDeployment,
    version::{Skew, Version, kubelet_skew},
};

#[cfg(test)]
mod tests;

/// A pool's effective version and why it is that.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct PoolVersion {
    /// The version that new machines get; `None` when no machine can be made yet.
    pub version: Option<Version>,
    /// Why.
    pub reason: VersionReason,
}

impl PoolVersion {
    /// Whether the pool will get another version later, without anybody changing it: a changed
    /// `providerConfig` waits for that, so that the pool rolls once.
    pub fn is_pending(&self) -> bool {
        matches!(
            self.reason,
            VersionReason::WaitingForControlPlane { .. }
                | VersionReason::WaitingForWorkerStep { .. }
        )
    }
}

/// Why a pool's effective version is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionReason {
    /// The pool says its version itself.
    Own,
    /// The pool follows the cluster's version and has it.
    FollowsCluster,
    /// The control plane is not yet at the version that the pool is to have.
    WaitingForControlPlane {
        /// The version that the pool is to have.
        target: Version,
        /// The version that the whole control plane runs; `None` when it has not served yet.
        running: Option<Version>,
    },
    /// The control plane goes on to a further minor first; the pool moves with the last step.
    WaitingForWorkerStep {
        /// The version that the pool is to have.
        target: Version,
    },
    /// The pool asks for more than three minors below the control plane: its machines could not join.
    TooOld {
        /// The version that the pool asks for.
        target: Version,
        /// The newest version that a control-plane machine runs or is about to run.
        running: Version,
    },
    /// A version cannot be read.
    Unreadable {
        /// The text.
        text: String,
    },
}

impl fmt::Display for VersionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("the pool's own version"),
            Self::FollowsCluster => f.write_str("follows the cluster's version"),
            Self::WaitingForControlPlane {
                target,
                running: Some(running),
            } => {
                write!(
                    f,
                    "waits for the control plane to run {target} (it runs {running})"
                )
            }
            Self::WaitingForControlPlane {
                target,
                running: None,
            } => {
                write!(f, "waits for the control plane to run {target}")
            }
            Self::WaitingForWorkerStep { target } => {
                write!(
                    f,
                    "waits for the control plane to take its further steps to {target}"
                )
            }
            Self::TooOld { target, running } => write!(
                f,
                "{target} is more than three minors below the control plane's {running}: set a newer version"
            ),
            Self::Unreadable { text } => write!(
                f,
                "{text:?} is no Kubernetes version: write it like v1.33.2"
            ),
        }
    }
}

/// The version that a pool's new machines get now. A pool's own version never runs ahead of the control plane;
/// a pool without one follows the cluster's, and moves only when every control-plane machine runs the step,
/// either the last one or one that workers must take to stay within three minors. What it has, it keeps meanwhile.
pub fn effective_version(cluster: &Cluster, pool: &MachineDeployment) -> PoolVersion {
    let parse = |text: &str| text.parse::<Version>();
    let written = pool.spec.template.spec.version.as_deref();
    let target_text = written.unwrap_or(&cluster.spec.version);
    let Ok(target) = parse(target_text) else {
        return PoolVersion {
            version: None,
            reason: VersionReason::Unreadable {
                text: target_text.to_owned(),
            },
        };
    };
    let running = cluster
        .status
        .as_ref()
        .and_then(|s| s.version.as_deref())
        .and_then(|v| parse(v).ok());
    let ahead = cluster
        .status
        .as_ref()
        .and_then(|s| s.upgrading_to.as_deref())
        .and_then(|v| parse(v).ok());
    let current = pool
        .status
        .as_ref()
        .and_then(|s| s.version.as_deref())
        .and_then(|v| parse(v).ok());
    let fine = if written.is_some() {
        VersionReason::Own
    } else {
        VersionReason::FollowsCluster
    };
    let Some(running) = running else {
        return PoolVersion {
            version: None,
            reason: VersionReason::WaitingForControlPlane {
                target,
                running: None,
            },
        };
    };
    // A machine of the version that the control plane goes to may serve at any moment.
    let newest = ahead.map_or(running.clone(), |a| a.max(running.clone()));
    let skew = |kubelet: &Version| match kubelet_skew(&running, kubelet) {
        Skew::Allowed => kubelet_skew(&newest, kubelet),
        refused => refused,
    };
    let current = current.filter(|c| skew(c) == Skew::Allowed);
    match skew(&target) {
        _ if written.is_none() && target > running => follow(target, running, current),
        Skew::Allowed => PoolVersion {
            version: Some(target),
            reason: fine,
        },
        Skew::KubeletNewer => PoolVersion {
            version: current,
            reason: VersionReason::WaitingForControlPlane {
                target,
                running: Some(running),
            },
        },
        Skew::KubeletTooOld => PoolVersion {
            version: current,
            reason: VersionReason::TooOld {
                target,
                running: newest,
            },
        },
    }
}

/// A pool that follows, while the cluster is on its way to `target` and runs `running`.
/// `current` is what it has, when that is within the policy.
fn follow(target: Version, running: Version, current: Option<Version>) -> PoolVersion {
    match current.filter(|c| *c <= running) {
        // The next control-plane minor would leave this pool too far behind: this is a worker step.
        Some(c) if c.minor() + 3 <= running.minor() && c < running => PoolVersion {
            version: Some(running),
            reason: VersionReason::FollowsCluster,
        },
        Some(c) => PoolVersion {
            version: Some(c.clone()),
            reason: if target.minor() > running.minor() + 1 {
                VersionReason::WaitingForWorkerStep { target }
            } else {
                VersionReason::WaitingForControlPlane {
                    target,
                    running: Some(running),
                }
            },
        },
        // A new pool starts at what the control plane runs.
        None => PoolVersion {
            version: Some(running.clone()),
            reason: VersionReason::WaitingForControlPlane {
                target,
                running: Some(running),
            },
        },
    }
}
