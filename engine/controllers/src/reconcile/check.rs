//! MachineHealthCheck: marks broken machines.

use std::sync::Arc;

use fleetwright_api::MachineHealthCheck;
use fleetwright_core::outcome::Outcome;

use super::{Error, Shared};

pub(super) async fn reconcile(
    _shared: &Arc<Shared>,
    _check: &MachineHealthCheck,
) -> Result<Outcome, Error> {
    Ok(Outcome::Done)
}
