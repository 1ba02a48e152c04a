//! Pull requests (GitLab: merge requests) at the forge: which are open, and one comment each that says what we found.

mod comment;
mod gitea;
mod github;
mod gitlab;
mod over_http;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::forge::{PostError, Remote};

pub(crate) use over_http::Remembered;

/// A pull request. All of it is the forge's word: what its author may choose (title, names of branches) is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Number in the repository.
    pub number: u64,
    /// Title.
    pub title: String,
    /// Commit at its head.
    pub head_sha: String,
    /// Branch of its head, in the repository that it comes from.
    pub head_ref: String,
    /// Branch that it is to be merged into.
    pub base_ref: String,
    /// Commit of that branch as the forge compared with it; GitLab tells it with one merge request, not in lists.
    pub base_sha: Option<String>,
    /// Whether it comes from another repository, or from one that is gone or not told.
    pub from_fork: bool,
    /// Whether its author calls it unfinished.
    pub draft: bool,
    /// Whether it is open: neither merged nor closed.
    pub open: bool,
    /// The commit by which it came into its base, if it was merged.
    pub merged_as: Option<String>,
    /// Whether the forge would let it be merged, where it tells: lists do not, nor does a forge that has not looked yet.
    pub mergeable: Option<bool>,
    /// When anything of it last changed.
    pub updated_at: Option<Timestamp>,
}

/// The open pull requests of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenPullRequests {
    /// By number.
    pub pull_requests: Vec<PullRequest>,
    /// Whether they are all. Else some could not be read, or there are too many. Even then one that was opened or closed between
    /// two pages may be missing: only what [`PullRequests::get`] shows says that one is closed.
    pub complete: bool,
}

/// A comment that we want on a pull request.
#[derive(Clone, Copy, Debug)]
pub struct Comment<'a> {
    /// What it is about, such as `fleetwright/default/default.default/plan`: there is one comment each.
    pub context: &'a str,
    /// Markdown. What exceeds the forge's limit is cut off.
    pub body: &'a str,
    /// What the last call for it gave, if that was kept.
    pub known: Option<&'a StoredComment>,
    /// Whether one is made where there is none; else only one that is there is changed.
    pub make: bool,
}

/// A comment that is there, to be kept for the next change of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredComment {
    /// The forge's number of it.
    pub id: u64,
    /// Hash of what it says.
    pub digest: String,
}

/// What somebody wrote on a pull request. All of it is the forge's word, and the text is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The forge's number of it; what was written later has a higher one.
    pub id: u64,
    /// Who wrote it; nobody where the forge tells of nobody.
    pub author: Option<Author>,
    /// Whether a program wrote it, as far as the forge tells. We are one.
    pub by_program: bool,
    /// Whether it was changed after it was written, or that is not told. Others than its author may do that.
    pub edited: bool,
    /// What it says.
    pub text: String,
}

/// Who wrote something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The forge's number of the user.
    pub id: u64,
    /// The user's name at the forge, which may be given to another one after a change.
    pub name: String,
}

/// What a forge does with pull requests; or what stands for it in tests.
#[async_trait]
pub trait PullRequests: Send + Sync + 'static {
    /// The open ones.
    ///
    /// # Errors
    /// See [`PostError`].
    async fn list_open(
        &self,
        remote: &Remote,
        now: Timestamp,
    ) -> Result<OpenPullRequests, PostError>;

    /// One of them, open or not; `None` when the forge shows none of this number, which is also what it says to a token that may
    /// not see the repository.
    ///
    /// # Errors
    /// See [`PostError`].
    async fn get(
        &self,
        remote: &Remote,
        number: u64,
        now: Timestamp,
    ) -> Result<Option<PullRequest>, PostError>;

    /// Makes our comment say this: the one that is known, else the one that is found, else a new one where one is to be made. Nothing
    /// is sent where it says so already. Gives `None` where there is none.
    ///
    /// # Errors
    /// See [`PostError`]; it may have been written all the same, and is found the next time.
    async fn upsert_comment(
        &self,
        remote: &Remote,
        number: u64,
        comment: &Comment<'_>,
        now: Timestamp,
    ) -> Result<Option<StoredComment>, PostError>;

    /// All that was written on one of them, but for what has more than 200 characters; the oldest first.
    ///
    /// # Errors
    /// See [`PostError`]; also where there is more than is read.
    async fn remarks(
        &self,
        remote: &Remote,
        number: u64,
        now: Timestamp,
    ) -> Result<Vec<Remark>, PostError>;

    /// Whether somebody may write to the repository.
    ///
    /// # Errors
    /// See [`PostError`]; [`PostError::Refused`] where the token may not ask.
    async fn may_write(
        &self,
        remote: &Remote,
        author: &Author,
        now: Timestamp,
    ) -> Result<bool, PostError>;
}

/// A comment as a list shows it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    id: u64,
    /// The forge's number of its author.
    author: Option<u64>,
    /// The author's name.
    name: Option<String>,
    /// The GitHub App that wrote it as itself.
    app: Option<u64>,
    /// Whether a program wrote it.
    program: bool,
    /// Whether it was changed.
    edited: bool,
    body: String,
}

/// Whether a comment was changed after it was written. Some forges tell seconds, some parts of one.
fn is_edited(value: &Value) -> bool {
    let time = |key: &str| value[key].as_str()?.parse::<Timestamp>().ok();
    match (time("created_at"), time("updated_at")) {
        (Some(made), Some(changed)) => {
            changed.duration_since(made).abs() >= SignedDuration::from_secs(1)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests;
