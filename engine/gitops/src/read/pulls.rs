//! Pull requests of a Fleet's repository, as they are in Git.

use fleetwright_api::Fleet;
use jiff::Timestamp;

use super::{ReadError, Reader};
use crate::source::{Ends, Filter, GitSource, Merged, PullRef, SourceError};

impl Reader {
    /// Fetches pull requests; gives where each of them stands, in the order asked for, or why that is not known of one.
    ///
    /// # Errors
    /// [`ReadError`], when the repository cannot be asked.
    pub async fn pulls(
        &mut self,
        fleet: &Fleet,
        pulls: Vec<PullRef>,
        now: Timestamp,
    ) -> Result<Vec<Result<Ends, SourceError>>, ReadError> {
        let git = self.scratch(fleet, now).await?;
        let fetch = move || {
            git.fetch_pulls(&pulls, now)?;
            let ends = pulls.iter().map(|pull| git.ends(pull));
            // What is broken here says nothing of the pull request.
            ends.map(|ends| match ends {
                Err(error) if !error.is_lasting() => Err(error),
                ends => Ok(ends),
            })
            .collect::<Result<Vec<_>, SourceError>>()
        };
        Ok(self.blocking(fetch).await??)
    }

    /// Fetches the merge queue of a branch.
    ///
    /// # Errors
    /// [`ReadError`], when the repository cannot be asked.
    pub async fn queue(
        &mut self,
        fleet: &Fleet,
        base: String,
        now: Timestamp,
    ) -> Result<Vec<PullRef>, ReadError> {
        let git = self.scratch(fleet, now).await?;
        Ok(self.blocking(move || git.fetch_queue(&base, now)).await??)
    }

    /// What merging a pull request would give, as it was when it was fetched last.
    ///
    /// # Errors
    /// [`ReadError`], when that is not known.
    pub async fn merged(
        &mut self,
        fleet: &Fleet,
        pull: PullRef,
        now: Timestamp,
    ) -> Result<Merged, ReadError> {
        let git = self.scratch(fleet, now).await?;
        let source = fleet.spec.source.clone();
        let filter = Filter::new(&source.include, &source.exclude)?;
        let path = source.path.unwrap_or_default();
        let merge = move || git.merged(&pull, &path, &filter);
        Ok(self.blocking(merge).await??)
    }

    /// The store of pull requests.
    async fn scratch(&self, fleet: &Fleet, now: Timestamp) -> Result<GitSource, ReadError> {
        let source = fleet.spec.source.clone();
        let url = source.url.clone().unwrap_or_default();
        Ok(self.git(fleet, &source, &url, now).await?.beside("pulls"))
    }
}
