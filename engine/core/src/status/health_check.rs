//! Status of a MachineHealthCheck.

use fleetwright_api::{
    MachineHealthCheck,
    condition::{Status, kind, reason},
    machine_health_check::MachineHealthCheckStatus,
    meta,
};
use jiff::Timestamp;

use super::Conditions;
use crate::health::Gate;

/// Longest list of names in the status.
const MOST: usize = 100;

/// The status of `check` from its gate.
pub fn health_check(
    check: &MachineHealthCheck,
    gate: &Gate,
    now: Timestamp,
) -> MachineHealthCheckStatus {
    let old = check.status.as_ref();
    let mut list = old.map(|s| s.conditions.clone()).unwrap_or_default();
    let mut out = Conditions {
        list: &mut list,
        generation: check.metadata.generation,
        now,
    };
    out.flag(kind::PAUSED, meta::is_paused(check), "");
    match gate.stops() {
        None => out.set(
            kind::REMEDIATION_ALLOWED,
            Status::True,
            reason::REMEDIATION_ALLOWED,
            "",
        ),
        Some(block) => out.set(
            kind::REMEDIATION_ALLOWED,
            Status::False,
            block.reason(),
            block.to_string(),
        ),
    }
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    MachineHealthCheckStatus {
        observed_generation: check.metadata.generation,
        expected_machines: count(gate.expected),
        current_healthy: count(gate.healthy()),
        remediations_allowed: if gate.stops().is_none() {
            gate.remediations_allowed
        } else {
            0
        },
        unhealthy: gate.unhealthy.iter().take(MOST).cloned().collect(),
        recent: gate.recent.clone(),
        conditions: list,
    }
}
