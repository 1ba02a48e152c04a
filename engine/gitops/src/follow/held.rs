//! How a follower follows a pull request before its merge.

use fleetwright_api::{commit_status::CommitState, fleet::Held};

use super::{FollowError, Follower};
use crate::{held::held, read::Found, wishes::About};

impl Follower {
    /// What is followed where the branch is at `found`: the pull request that is applied before its merge, until the branch has it.
    pub(super) async fn wanted(&mut self, found: Found) -> Result<Found, FollowError> {
        let Some(held) = held(&self.fleet).cloned() else {
            return Ok(found);
        };
        if self.is_merged(&found.revision, &held).await? {
            return Ok(found);
        }
        let now = self.context.clock.now();
        let observed = self.telling.status.observed.as_ref();
        let observed = observed.map(|at| at.revision.clone());
        let may = self
            .reader
            .may_follow(&self.fleet, &held, observed.as_deref(), now);
        if !may.await? {
            return Ok(found);
        }
        if found.revision != held.base
            && let Some(wishes) = self.wishes()
        {
            let words = format!(
                "waits: pull request {} is applied before its merge, and must be merged or closed first",
                held.number
            );
            let (about, state) = (About::Fleet, CommitState::Pending);
            wishes.want(about, &found.revision, state, &words).await?;
        }
        Ok(self.reader.held(&self.fleet, &held, now).await?)
    }

    /// Whether the branch, which is at `head`, has it: its own head, or what it was squashed to.
    async fn is_merged(&mut self, head: &str, held: &Held) -> Result<bool, FollowError> {
        let now = self.context.clock.now();
        for commit in held.merged_as.iter().chain([&held.head]) {
            let (head, commit) = (head.to_owned(), commit.clone());
            if self.reader.has(&self.fleet, head, commit, now).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
