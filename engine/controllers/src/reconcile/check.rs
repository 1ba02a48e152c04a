//! MachineHealthCheck: how its machines are, and whether broken ones may be replaced. Machines are marked by their own
//! reconciles and replaced by their owners; both ask the same pure functions.

use std::sync::Arc;

use fleetwright_api::MachineHealthCheck;
use fleetwright_core::{outcome::Outcome, status};

use super::{Error, Shared};
use crate::health;

const BY: &str = "fleetwright-machinehealthcheck";

pub(super) async fn reconcile(
    shared: &Arc<Shared>,
    check: &MachineHealthCheck,
) -> Result<Outcome, Error> {
    let now = shared.now();
    let gate = health::gate_of(shared, check);
    let new = status::health_check(check, &gate, now);
    shared
        .write_status(check, check.status.as_ref(), &new, BY)
        .await?;
    let reason = gate
        .stops()
        .map_or_else(|| "machines that broke".into(), |b| b.to_string());
    Ok(match gate.next {
        Some(at) => Outcome::wait_seconds(reason, super::seconds_until(at, now)),
        None => Outcome::Done,
    })
}
