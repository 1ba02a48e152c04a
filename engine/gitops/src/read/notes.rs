//! Notes of a Fleet's repository.

use fleetwright_api::Fleet;
use jiff::Timestamp;

use super::{ReadError, Reader};
use crate::source::Note;

impl Reader {
    /// Writes notes into the repository that a Fleet follows; tells of each whether it is there.
    ///
    /// # Errors
    /// [`ReadError`], when they could not be written; they may be there all the same.
    pub(crate) async fn write_notes(
        &mut self,
        fleet: &Fleet,
        notes: Vec<Note>,
        now: Timestamp,
    ) -> Result<Vec<bool>, ReadError> {
        let source = fleet.spec.source.clone();
        let url = source.url.clone().unwrap_or_default();
        let git = self.git(fleet, &source, &url, now).await?;
        let git = git.beside("notes");
        Ok(self
            .blocking(move || git.write_notes(&notes, now))
            .await??)
    }
}
