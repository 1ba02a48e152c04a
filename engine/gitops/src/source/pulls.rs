//! Pull requests in Git: what merging one would give. Their objects go to a store of their own, so that nothing that anybody may
//! push comes into the cache that is followed.

use fleetwright_api::fleet::ForgeType;
use git2::{Commit, ErrorCode, MergeOptions, Oid, Repository};
use jiff::Timestamp;

use super::{
    Snapshot, SourceError, clean,
    filter::Filter,
    git::{GitSource, cache},
    wanted::{Wanted, below},
};

/// Conflicting files that are named.
const NAMED: usize = 5;
/// Entries of a merge queue that are looked at.
const QUEUED: usize = 100;
/// Below it GitHub makes a branch for each entry of a merge queue.
const QUEUES: &str = "refs/heads/gh-readonly-queue/";

/// Which refs of a repository say what a pull request is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PullRef {
    /// Branch that it is to be merged into.
    pub base: String,
    /// Ref of its head.
    pub head: String,
    /// Ref of the forge's own trial merge, where it makes one.
    pub trial: Option<String>,
}

impl PullRef {
    /// Of pull request `number` into branch `base`.
    #[must_use]
    pub fn of(kind: ForgeType, number: u64, base: &str) -> Self {
        let (head, trial) = match kind {
            ForgeType::Github => (
                format!("refs/pull/{number}/head"),
                Some(format!("refs/pull/{number}/merge")),
            ),
            ForgeType::Gitlab => (
                format!("refs/merge-requests/{number}/head"),
                Some(format!("refs/merge-requests/{number}/merge")),
            ),
            ForgeType::Gitea => (format!("refs/pull/{number}/head"), None),
        };
        Self {
            base: base.to_owned(),
            head,
            trial,
        }
    }

    /// Of an entry of a merge queue.
    fn queued(base: &str, head: String) -> Self {
        Self {
            base: base.to_owned(),
            head,
            trial: None,
        }
    }

    fn wanted(&self) -> Result<(Wanted, Wanted, Option<Wanted>), SourceError> {
        let base = Wanted::branch(&self.base)?;
        let head = Wanted::at(&self.head)?;
        Ok((
            base,
            head,
            self.trial.as_deref().map(Wanted::at).transpose()?,
        ))
    }
}

/// The two commits that a pull request would merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Commit of the base.
    pub base: String,
    /// Commit of the head.
    pub head: String,
}

impl Ends {
    fn ids(&self) -> Result<(Oid, Oid), SourceError> {
        let id = |text: &str| {
            Oid::from_str(text)
                .map_err(|_| SourceError::BadRef(format!("{text:?} is no full commit id")))
        };
        Ok((id(&self.base)?, id(&self.head)?))
    }
}

/// What merging a pull request would give.
#[derive(Debug)]
pub struct Merged {
    /// The followed folder of the merge; when there is none, that is the pull request's own fault.
    pub files: Result<Snapshot, SourceError>,
    /// Which of its files count.
    pub filter: Filter,
}

impl GitSource {
    /// The same repository, in a store of its own.
    pub(crate) fn beside(&self, name: &str) -> Self {
        let mut file = self.cache.file_name().unwrap_or_default().to_owned();
        file.push(format!("-{name}"));
        Self {
            cache: self.cache.with_file_name(file),
            ..self.clone()
        }
    }

    /// Fetches what `pulls` are made of; blocks.
    pub(crate) fn fetch_pulls(&self, pulls: &[PullRef], now: Timestamp) -> Result<(), SourceError> {
        let mut all = Vec::new();
        for pull in pulls {
            let (base, head, trial) = pull.wanted()?;
            all.extend([base, head].into_iter().chain(trial));
        }
        match all.first().cloned() {
            // One that is gone is told where it is merged.
            Some(first) => match self.resolve(&all, &first, now) {
                Ok(_) | Err(SourceError::NoRef(_) | SourceError::BadRef(_)) => Ok(()),
                Err(error) => Err(error),
            },
            None => Ok(()),
        }
    }

    /// Fetches the entries of the merge queue of a branch; blocks.
    pub(crate) fn fetch_queue(
        &self,
        base: &str,
        now: Timestamp,
    ) -> Result<Vec<PullRef>, SourceError> {
        let folder = format!("{QUEUES}{base}/");
        let branch = Wanted::branch(base)?;
        let all = [branch.clone(), Wanted::Below(folder.clone())];
        self.resolve(&all, &branch, now)?;
        let heads = self.cached(|repository| below(repository, &folder))?;
        let queued = |head| PullRef::queued(base, head);
        Ok(heads.into_iter().take(QUEUED).map(queued).collect())
    }

    /// Base and head of a pull request, as of the last fetch.
    pub(crate) fn ends(&self, pull: &PullRef) -> Result<Ends, SourceError> {
        let (base, head, _) = pull.wanted()?;
        self.cached(|repository| {
            Ok(Ends {
                base: base.commit(repository)?.to_string(),
                head: head.commit(repository)?.to_string(),
            })
        })
    }

    /// Whether `commit` is `head` or came before it; not where one of them is unknown.
    pub(crate) fn contains(&self, head: &str, commit: &str) -> Result<bool, SourceError> {
        let (Ok(head), Ok(commit)) = (Oid::from_str(head), Oid::from_str(commit)) else {
            return Ok(false);
        };
        self.cached(|repository| {
            let before = || repository.graph_descendant_of(head, commit);
            match repository.find_commit(commit).and_then(|_| before()) {
                Ok(before) => Ok(before || head == commit),
                Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
                Err(error) => Err(cache("reading the history")(error)),
            }
        })
    }

    /// The merge of `ends`, of it the files below `path`; the forge's own trial merge, as of the last fetch, where that is of these two.
    pub(crate) fn merged(
        &self,
        pull: &PullRef,
        ends: &Ends,
        path: &str,
        filter: &Filter,
    ) -> Result<Merged, SourceError> {
        let (_, _, trial) = pull.wanted()?;
        let path = clean(path)?;
        let (base, head) = ends.ids()?;
        self.cached(|repository| {
            let doing = "reading a pull request";
            let find = |id: Oid| match repository.find_commit(id) {
                Err(error) if error.code() == ErrorCode::NotFound => {
                    Err(SourceError::NoRef(format!("commit {id}")))
                }
                found => found.map_err(cache(doing)),
            };
            let commit = |wanted: &Wanted| find(wanted.commit(repository)?);
            let (base, head) = (find(base)?, find(head)?);
            // What is merged is written to memory alone.
            let objects = repository.odb().map_err(cache(doing))?;
            objects
                .add_new_mempack_backend(1000)
                .map_err(cache(doing))?;
            let trial = trial.as_ref().and_then(|trial| commit(trial).ok());
            let trial = trial.filter(|trial| trial.parent_ids().eq([base.id(), head.id()]));
            let tree = match trial {
                Some(trial) => Ok(trial.tree_id()),
                None => merge(repository, &base, &head),
            };
            let files = tree.and_then(|tree| {
                let tree = Self::folder(repository, tree, &path)?;
                Ok(Snapshot {
                    revision: head.id().to_string(),
                    tree: tree.to_string(),
                    files: Self::files_of(repository, tree, filter)?,
                })
            });
            let files = match files {
                Err(error) if !error.is_lasting() => return Err(error),
                files => files,
            };
            Ok(Merged {
                files,
                filter: filter.clone(),
            })
        })
    }
}

/// The tree of a merge.
fn merge(
    repository: &Repository,
    base: &Commit<'_>,
    head: &Commit<'_>,
) -> Result<Oid, SourceError> {
    let doing = "merging a pull request";
    match repository.merge_base(base.id(), head.id()) {
        Err(e) if e.code() == ErrorCode::NotFound => return Err(SourceError::Unrelated),
        other => other.map_err(cache(doing))?,
    };
    let mut options = MergeOptions::new();
    options.fail_on_conflict(false);
    let mut index = repository
        .merge_commits(base, head, Some(&options))
        .map_err(cache(doing))?;
    if !index.has_conflicts() {
        return index.write_tree_to(repository).map_err(cache(doing));
    }
    let mut files = Vec::new();
    for conflict in index.conflicts().map_err(cache(doing))?.take(NAMED) {
        let conflict = conflict.map_err(cache(doing))?;
        let entry = conflict.our.or(conflict.their).or(conflict.ancestor);
        files.extend(entry.map(|e| super::collect::shown(&e.path)));
    }
    files.sort();
    files.dedup();
    Err(SourceError::Conflict(files.join(", ")))
}
