//! What must hold before a set makes machines.
//!
//! Cluster API makes no machine at all while a control plane is upgrading. Here scaling is never frozen by an upgrade: a machine that
//! the version-skew policy allows beside the versions that the control plane runs and goes to is made. What is left of the check is a
//! control plane that has not served yet, and a set that needs the version that an upgrade is still to bring.

use std::fmt;

use fleetwright_api::{
    Cluster, MachineDeployment, MachineSet, meta,
    version::{Skew, Version, kubelet_skew},
};

use crate::outcome::Hold;

/// A check that does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreflightFailure {
    /// The control plane has not served yet.
    Provisioning {
        /// The Cluster.
        cluster: String,
    },
    /// The control plane is on its way to a version that machines of the set need.
    Upgrading {
        /// The Cluster.
        cluster: String,
        /// The version that all of the control plane runs.
        running: Version,
        /// The version that it goes to.
        to: Version,
    },
    /// The set's minor version is above the control plane's.
    Newer {
        /// The set's version.
        set: Version,
        /// The version that all of the control plane runs.
        running: Version,
    },
    /// The set's version is more than three minors behind the control plane's.
    TooOld {
        /// The set's version.
        set: Version,
        /// The newest version that a control-plane machine runs or is about to run.
        newest: Version,
    },
    /// A version cannot be read.
    Unreadable {
        /// The text.
        text: String,
    },
    /// Nobody knows yet which machines the pool has. No annotation skips this.
    Unlisted(Hold),
}

impl PreflightFailure {
    /// Name of the check, as [`meta::ANNOTATION_SKIP_PREFLIGHT_CHECKS`] lists it.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Provisioning { .. } | Self::Upgrading { .. } => "ControlPlaneIsStable",
            Self::Newer { .. } | Self::TooOld { .. } | Self::Unreadable { .. } => {
                "KubernetesVersionSkew"
            }
            Self::Unlisted(_) => "InstancesAreKnown",
        }
    }
}

impl fmt::Display for PreflightFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provisioning { cluster } => {
                write!(f, "the control plane of {cluster} is provisioning")
            }
            Self::Upgrading {
                cluster,
                running,
                to,
            } => write!(
                f,
                "the control plane of {cluster} is upgrading from {running} to {to}"
            ),
            Self::Newer { set, running } => {
                write!(
                    f,
                    "version {set} is higher than the control plane's {running}"
                )
            }
            Self::TooOld { set, newest } => write!(
                f,
                "version {set} is more than 3 minor versions older than the control plane's {newest}"
            ),
            Self::Unreadable { text } => write!(
                f,
                "{text:?} is no Kubernetes version: write it like v1.33.2"
            ),
            Self::Unlisted(hold) => return f.write_str(&hold.why),
        }?;
        write!(f, " ({:?} preflight check failed)", self.check())
    }
}

/// The checks that do not pass for machines of `set`, which `pool` owns. A set without a version passes where the control plane
/// serves.
pub fn preflight(
    set: &MachineSet,
    pool: Option<&MachineDeployment>,
    cluster: &Cluster,
) -> Vec<PreflightFailure> {
    let annotations = [
        set.metadata.annotations.as_ref(),
        pool.and_then(|p| p.metadata.annotations.as_ref()),
    ];
    let skipped: Vec<&str> = annotations
        .into_iter()
        .flatten()
        .filter_map(|all| all.get(meta::ANNOTATION_SKIP_PREFLIGHT_CHECKS))
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    let mut failures = failures(set, cluster);
    failures.retain(|f| !skipped.contains(&"All") && !skipped.contains(&f.check()));
    failures
}

fn failures(set: &MachineSet, cluster: &Cluster) -> Vec<PreflightFailure> {
    let name = cluster.metadata.name.clone().unwrap_or_default();
    let status = cluster.status.as_ref();
    let Some(running) = status.and_then(|s| s.version.as_deref()) else {
        return vec![PreflightFailure::Provisioning { cluster: name }];
    };
    let upgrading = status.and_then(|s| s.upgrading_to.as_deref());
    let Some(version) = set.spec.template.spec.version.as_deref() else {
        return Vec::new();
    };
    let unreadable = |text: &str| {
        vec![PreflightFailure::Unreadable {
            text: text.to_owned(),
        }]
    };
    let (Ok(running), Ok(to)) = (
        running.parse::<Version>(),
        upgrading.unwrap_or(running).parse::<Version>(),
    ) else {
        return unreadable(running);
    };
    let Ok(set) = version.parse::<Version>() else {
        return unreadable(version);
    };
    let mut out = Vec::new();
    let newest = running.clone().max(to.clone());
    match (kubelet_skew(&running, &set), kubelet_skew(&newest, &set)) {
        (Skew::KubeletNewer, ahead) => {
            if ahead == Skew::Allowed {
                out.push(PreflightFailure::Upgrading {
                    cluster: name,
                    running: running.clone(),
                    to,
                });
            }
            out.push(PreflightFailure::Newer { set, running });
        }
        (Skew::KubeletTooOld, _) | (_, Skew::KubeletTooOld) => {
            out.push(PreflightFailure::TooOld { set, newest });
        }
        _ => {}
    }
    out
}
