//! The order in which a cluster is taken apart.

use std::{borrow::Borrow, fmt};

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineSet, condition, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

#[cfg(test)]
mod tests;

/// What is done next for a Cluster on its way out. Pools and stand-alone sets first, then the control plane, then the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum ClusterDeletionStep {
    /// A pause holds the deletion back.
    Paused,
    /// Workers are still there.
    Workers {
        /// Pools to be deleted (those not on their way out yet).
        delete_pools: Vec<String>,
        /// Sets to be deleted: those whose pool is gone, or that never had one.
        delete_sets: Vec<String>,
        /// Machines to be deleted: those whose set is gone, or that never had one.
        delete_machines: Vec<String>,
        /// Everything that is still there.
        remaining: usize,
    },
    /// The control plane's machines go, all at once.
    ControlPlane {
        /// Machines to be deleted (those not on their way out yet).
        delete_machines: Vec<String>,
        /// Those that are still there.
        remaining: usize,
    },
    /// The provider takes its control plane away.
    Managed {
        /// Why it does not.
        trouble: Option<String>,
    },
    /// Nothing is left: what the provider made for the cluster, then our finalizer.
    Finish,
}

impl ClusterDeletionStep {
    /// Reason of condition `Deleting`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Paused => condition::reason::PAUSED,
            Self::Workers { .. } => condition::reason::WAITING_FOR_WORKERS_DELETION,
            Self::ControlPlane { .. } | Self::Managed { .. } => {
                condition::reason::WAITING_FOR_CONTROL_PLANE_DELETION
            }
            Self::Finish => condition::reason::DELETION_COMPLETED,
        }
    }
}

impl fmt::Display for ClusterDeletionStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused"),
            Self::Workers { remaining, .. } => {
                write!(
                    f,
                    "waiting for {remaining} pools, sets and machines of workers to be gone"
                )
            }
            Self::ControlPlane { remaining, .. } => {
                write!(
                    f,
                    "waiting for {remaining} control-plane machines to be gone"
                )
            }
            Self::Managed { trouble } => {
                f.write_str("waiting for the provider to delete the control plane")?;
                trouble.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            Self::Finish => f.write_str("all machines are gone"),
        }
    }
}

/// Whether a machine is one of the control plane.
pub fn is_control_plane(machine: &Machine) -> bool {
    machine
        .metadata
        .labels
        .as_ref()
        .is_some_and(|l| l.contains_key(meta::LABEL_CONTROL_PLANE))
}

/// What is done next for a Cluster on its way out, given everything that belongs to it.
pub fn deletion_step(
    cluster: &Cluster,
    pools: &[MachineDeployment],
    sets: &[MachineSet],
    machines: &[impl Borrow<Machine>],
) -> ClusterDeletionStep {
    if meta::is_paused(cluster) {
        return ClusterDeletionStep::Paused;
    }
    let (control_plane, workers): (Vec<&Machine>, Vec<&Machine>) = machines
        .iter()
        .map(Borrow::borrow)
        .partition(|m| is_control_plane(m));
    let remaining = pools.len() + sets.len() + workers.len();
    if remaining > 0 {
        return ClusterDeletionStep::Workers {
            delete_pools: names(pools.iter().map(|p| &p.metadata)),
            // What is left of owners that are gone: no garbage collector is waited for.
            delete_sets: names(
                sets.iter()
                    .filter(|s| {
                        !is_there(meta::controller_of(*s), pools.iter().map(|p| &p.metadata))
                    })
                    .map(|s| &s.metadata),
            ),
            delete_machines: names(
                workers
                    .iter()
                    .filter(|m| {
                        !is_there(meta::controller_of(**m), sets.iter().map(|s| &s.metadata))
                    })
                    .map(|m| &m.metadata),
            ),
            remaining,
        };
    }
    if !control_plane.is_empty() {
        return ClusterDeletionStep::ControlPlane {
            delete_machines: names(control_plane.iter().map(|m| &m.metadata)),
            remaining: control_plane.len(),
        };
    }
    ClusterDeletionStep::Finish
}

impl ClusterDeletionStep {
    /// The step of a Cluster whose control plane the provider runs until `gone`: that goes after all else.
    pub fn before_managed(self, cluster: &Cluster, gone: bool, trouble: Option<String>) -> Self {
        let managed = cluster.spec.control_plane.managed.is_some();
        match self {
            Self::Finish if managed && !gone => Self::Managed { trouble },
            step => step,
        }
    }
}

/// Whether the owner is still there.
fn is_there<'a>(
    owner: Option<&OwnerReference>,
    mut all: impl Iterator<Item = &'a ObjectMeta>,
) -> bool {
    owner.is_some_and(|owner| all.any(|meta| meta.uid.as_ref() == Some(&owner.uid)))
}

fn names<'a>(metas: impl Iterator<Item = &'a ObjectMeta>) -> Vec<String> {
    metas
        .filter(|m| m.deletion_timestamp.is_none())
        .filter_map(|m| m.name.clone())
        .collect()
}
