//! What outlives a machine on its way out: its cluster, and the cluster's control plane. Where they do not, its node goes with them.

use fleetwright_api::{Cluster, Machine};

use crate::cluster::is_control_plane;

/// Whether a machine's cluster goes, or is gone. Somebody else's cluster stays: there machines are drained and their nodes deleted as
/// ever.
pub fn cluster_goes(cluster: Option<&Cluster>) -> bool {
    cluster.is_none_or(|c| {
        c.metadata.deletion_timestamp.is_some() && c.spec.control_plane.external.is_none()
    })
}

/// Whether the control plane goes on without `machine`: another machine of it stays, or it is not on machines of ours. Only a machine on
/// its way out asks `any`, whether any machine of its cluster is so: that looks at all of them.
pub fn control_plane_stays(
    machine: &Machine,
    cluster: Option<&Cluster>,
    any: impl FnOnce(&dyn Fn(&Machine) -> bool) -> bool,
) -> bool {
    let ours = cluster.is_some_and(|c| c.spec.control_plane.machines.is_some());
    let another = |m: &Machine| {
        is_control_plane(m)
            && m.metadata.name != machine.metadata.name
            && m.metadata.deletion_timestamp.is_none()
    };
    machine.metadata.deletion_timestamp.is_none() || !ours || any(&another)
}
