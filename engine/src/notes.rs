//! States as Git notes: what the outbox wants, written by who knows Git.

use async_trait::async_trait;
use fleetwright_api::{Fleet, commit_status::CommitStatusSpec};
use fleetwright_gitops::{notes, source::Note};
use fleetwright_webhook::{forge::PostError, outbox};
use jiff::Timestamp;

/// Writes them.
pub(crate) struct Notes(pub(crate) notes::Notes);

#[async_trait]
impl outbox::Notes for Notes {
    async fn write(
        &self,
        fleet: &Fleet,
        status: &CommitStatusSpec,
        now: Timestamp,
    ) -> Result<(), PostError> {
        let written = self.0.write(fleet, note(status), now).await;
        written.map_err(|error| match error.lasting {
            true => PostError::Configuration(error.to_string()),
            false => PostError::Passing(error.to_string()),
        })
    }
}

fn note(status: &CommitStatusSpec) -> Note {
    let state = status.wanted.state.as_str();
    let text = match status.wanted.description.as_str() {
        "" => state.to_owned(),
        words => format!("{state}: {words}"),
    };
    Note {
        commit: status.sha.clone(),
        context: status.context.clone(),
        text,
    }
}

#[cfg(test)]
mod tests;
