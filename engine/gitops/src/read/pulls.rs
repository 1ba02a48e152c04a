//! Pull requests of a Fleet's repository, as they are in Git.

use std::sync::Arc;

use fleetwright_api::{Fleet, fleet::Held};
use jiff::Timestamp;

use super::{Found, ReadError, Reader, Tree};
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

    /// What merging the two ends of a pull request would give, which were fetched.
    ///
    /// # Errors
    /// [`ReadError`], when that is not known.
    pub async fn merged(
        &mut self,
        fleet: &Fleet,
        pull: PullRef,
        ends: Ends,
        now: Timestamp,
    ) -> Result<Merged, ReadError> {
        let git = self.scratch(fleet, now).await?;
        let source = fleet.spec.source.clone();
        let filter = Filter::new(&source.include, &source.exclude)?;
        let path = source.path.unwrap_or_default();
        let merge = move || git.merged(&pull, &ends, &path, &filter);
        Ok(self.blocking(merge).await??)
    }

    /// Where the pull request stands that is applied before its merge. Its two commits are asked for again where they were lost.
    ///
    /// # Errors
    /// [`ReadError`], when that is not known. That it cannot be read any more is the revision's own fault.
    pub(crate) async fn held(
        &mut self,
        fleet: &Fleet,
        held: &Held,
        now: Timestamp,
    ) -> Result<Found, ReadError> {
        let git = self.scratch(fleet, now).await?;
        let source = fleet.spec.source.clone();
        let filter = Filter::new(&source.include, &source.exclude)?;
        let path = source.path.unwrap_or_default();
        let branch = source.reference.and_then(|r| r.branch).unwrap_or_default();
        let kind = fleet
            .spec
            .forge
            .as_ref()
            .map(|f| f.kind)
            .unwrap_or_default();
        let pull = PullRef::of(kind, u64::try_from(held.number).unwrap_or(0), &branch);
        let ends = Ends {
            base: held.base.clone(),
            head: held.head.clone(),
        };
        let merge = move || {
            let merge = || git.merged(&pull, &ends, &path, &filter);
            match merge() {
                Err(SourceError::NoRef(_) | SourceError::Cache { .. }) => {
                    git.fetch_pulls(std::slice::from_ref(&pull), now)?;
                    merge()
                }
                merged => merged,
            }
        };
        let lost = |why: String| SourceError::Held(held.number, why);
        let tree = match self.blocking(merge).await? {
            Ok(Merged { files, filter }) => files.and_then(|files| match files.tree == held.tree {
                true => Ok(Tree::Merged(Arc::new(files), filter)),
                false => Err(lost(
                    "its merge is no longer the one that was approved".into(),
                )),
            }),
            Err(SourceError::NoRef(what)) => Err(lost(format!("{what} is gone"))),
            Err(error) => return Err(error.into()),
        };
        Ok(Found {
            revision: held.head.clone(),
            tree,
        })
    }

    /// Whether a held pull request may be followed after revision `observed`: where it was begun, and where the base that it was merged into
    /// has what was followed so far. Else it would take back what came into the branch after its approval.
    ///
    /// # Errors
    /// [`ReadError`], when that is not known.
    pub async fn may_follow(
        &mut self,
        fleet: &Fleet,
        held: &Held,
        observed: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, ReadError> {
        let Some(observed) = observed else {
            return Ok(true);
        };
        if observed == held.head || held.replaces.as_deref() == Some(observed) {
            return Ok(true);
        }
        let (base, observed) = (held.base.clone(), observed.to_owned());
        self.has(fleet, base, observed, now).await
    }

    /// Whether the followed branch, which is at `head`, has a commit.
    ///
    /// # Errors
    /// [`ReadError`], when that is not known.
    pub async fn has(
        &mut self,
        fleet: &Fleet,
        head: String,
        commit: String,
        now: Timestamp,
    ) -> Result<bool, ReadError> {
        let source = fleet.spec.source.clone();
        let url = source.url.clone().unwrap_or_default();
        let git = self.git(fleet, &source, &url, now).await?;
        Ok(self
            .blocking(move || git.contains(&head, &commit))
            .await??)
    }

    /// The store of pull requests.
    async fn scratch(&self, fleet: &Fleet, now: Timestamp) -> Result<GitSource, ReadError> {
        let source = fleet.spec.source.clone();
        let url = source.url.clone().unwrap_or_default();
        Ok(self.git(fleet, &source, &url, now).await?.beside("pulls"))
    }
}
