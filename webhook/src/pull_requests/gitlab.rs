//! Merge requests and their notes as GitLab writes them.

use serde_json::Value;
use url::Url;

use super::{Author, Found, PullRequest, is_edited};
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
    // None while GitLab prepares it.
    let head_sha = text("sha")?;
    let merged = value["state"] == "merged";
    let commits = ["merge_commit_sha", "squash_commit_sha"];
    let mergeable = match (&value["detailed_merge_status"], &value["merge_status"]) {
        (Value::String(state), _) => match state.as_str() {
            "mergeable" => Some(true),
            "unchecked" | "checking" | "preparing" | "approvals_syncing" => None,
            _ => Some(false),
        },
        (_, Value::String(state)) => match state.as_str() {
            "can_be_merged" => Some(true),
            "cannot_be_merged" => Some(false),
            _ => None,
        },
        _ => None,
    };
    Some(PullRequest {
        number: value["iid"].as_u64()?,
        title: text("title").unwrap_or_default(),
        merged_as: merged.then(|| {
            let commit = commits.iter().find_map(|key| text(key));
            commit.unwrap_or_else(|| head_sha.clone())
        }),
        mergeable,
        head_sha,
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
    let name = value["author"]["username"].as_str();
    Some(Found {
        id: value["id"].as_u64()?,
        author: value["author"]["id"].as_u64(),
        name: name.map(str::to_owned),
        app: None,
        program: name.is_some_and(is_program),
        edited: is_edited(value),
        body: value["body"].as_str()?.to_owned(),
    })
}

/// Whether the name is one that GitLab gives to the user of a project's or a group's token.
fn is_program(name: &str) -> bool {
    let rest = name
        .strip_prefix("project_")
        .or(name.strip_prefix("group_"));
    rest.and_then(|rest| rest.split_once("_bot"))
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn member(remote: &Remote, id: &str) -> Url {
    remote.repository_url(["members", "all", id])
}

/// From role Developer on.
pub(super) fn may_write(value: &Value, author: &Author) -> bool {
    let active = value["state"]
        .as_str()
        .is_none_or(|state| state == "active");
    let developer = value["access_level"]
        .as_u64()
        .is_some_and(|level| level >= 30);
    active && developer && value["id"].as_u64() == Some(author.id)
}
