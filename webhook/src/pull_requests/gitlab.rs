//! Merge requests and their notes as GitLab writes them.

use serde_json::Value;
use url::Url;

use super::{Found, PullRequest};
use crate::forge::Remote;

/// Longest note, in characters.
pub(super) const MAX_COMMENT: usize = 1_000_000;

pub(super) fn list(remote: &Remote, page: usize) -> Url {
    let mut url = remote.repository_url(["merge_requests"]);
    let query = format!("state=opened&order_by=created_at&sort=desc&per_page=50&page={page}");
    url.set_query(Some(&query));
    url
}

pub(super) fn one(remote: &Remote, number: &str) -> Url {
    remote.repository_url(["merge_requests", number])
}

pub(super) fn comments(remote: &Remote, number: &str) -> Url {
    remote.repository_url(["merge_requests", number, "notes"])
}

pub(super) fn comment(remote: &Remote, number: &str, id: &str) -> Url {
    remote.repository_url(["merge_requests", number, "notes", id])
}

pub(super) fn read(value: &Value) -> Option<PullRequest> {
    let text = |key: &str| {
        value[key]
            .as_str()
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    let (from, into) = (
        value["source_project_id"].as_i64(),
        value["target_project_id"].as_i64(),
    );
    let start = value["diff_refs"]["start_sha"].as_str();
    Some(PullRequest {
        number: value["iid"].as_u64()?,
        title: text("title").unwrap_or_default(),
        // None while GitLab prepares it.
        head_sha: text("sha")?,
        head_ref: text("source_branch")?,
        base_ref: text("target_branch")?,
        base_sha: start.filter(|t| !t.is_empty()).map(str::to_owned),
        from_fork: from.is_none() || from != into,
        draft: value["draft"].as_bool().unwrap_or_default(),
        open: value["state"] == "opened",
        updated_at: value["updated_at"].as_str().and_then(|t| t.parse().ok()),
    })
}

/// `None` also for what GitLab itself notes of the merge request's life.
pub(super) fn read_comment(value: &Value) -> Option<Found> {
    if value["system"].as_bool().unwrap_or_default() {
        return None;
    }
    Some(Found {
        id: value["id"].as_u64()?,
        author: value["author"]["id"].as_u64(),
        app: None,
        body: value["body"].as_str()?.to_owned(),
    })
}
