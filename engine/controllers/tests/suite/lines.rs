//! Conditions as lines of text.

use fleetwright_api::{Cluster, Machine, MachineDeployment, condition};

/// Status, reason and message of a condition, as one line.
pub(crate) fn condition_line(conditions: &[condition::Condition], kind: &str) -> String {
    condition::get(conditions, kind).map_or_else(
        || "none".to_owned(),
        |c| format!("{} {}: {}", c.status, c.reason, c.message),
    )
}

pub(crate) fn of_machine(machine: &Machine, kind: &str) -> String {
    let status = machine.status.as_ref();
    condition_line(status.map_or(&[], |s| &s.conditions), kind)
}

pub(crate) fn of_pool(pool: &MachineDeployment, kind: &str) -> String {
    let status = pool.status.as_ref();
    condition_line(status.map_or(&[], |s| &s.conditions), kind)
}

pub(crate) fn of_cluster(cluster: &Cluster, kind: &str) -> String {
    let status = cluster.status.as_ref();
    condition_line(status.map_or(&[], |s| &s.conditions), kind)
}
