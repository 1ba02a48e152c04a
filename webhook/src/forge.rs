//! What takes commit statuses.

use async_trait::async_trait;
use fleetwright_api::commit_status::StatusContent;
use jiff::Timestamp;

use crate::github::{Destination, GitHub, PostError};

/// A forge: GitHub, or what stands for it in a simulation.
#[async_trait]
pub trait Forge: Send + Sync + 'static {
    /// Posts one status.
    ///
    /// # Errors
    /// See [`PostError`]; the status may have been taken all the same.
    async fn post(
        &self,
        destination: &Destination<'_>,
        content: &StatusContent,
        now: Timestamp,
    ) -> Result<(), PostError>;
}

#[async_trait]
impl Forge for GitHub {
    async fn post(
        &self,
        destination: &Destination<'_>,
        content: &StatusContent,
        now: Timestamp,
    ) -> Result<(), PostError> {
        Self::post(self, destination, content, now).await
    }
}
