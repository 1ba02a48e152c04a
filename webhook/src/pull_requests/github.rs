//! Pull requests and their comments as GitHub writes them.

use fleetwright_api::fleet::ForgeType;
use serde_json::Value;
use url::Url;

use super::{Author, Found, PullRequest, is_edited};
use crate::forge::Remote;

/// Longest comment, in characters.
pub(super) const MAX_COMMENT: usize = 65_536;

/// Newest first: what is opened while pages are read is found the next time.
pub(super) fn list(remote: &Remote, page: usize) -> Url {
    let mut url = remote.repository_url(["pulls"]);
    let query = format!("state=open&sort=created&direction=desc&per_page=50&page={page}");
    url.set_query(Some(&query));
    url
}

pub(super) fn one(remote: &Remote, number: &str) -> Url {
    remote.repository_url(["pulls", number])
}

pub(super) fn comments(remote: &Remote, number: &str) -> Url {
    remote.repository_url(["issues", number, "comments"])
}

pub(super) fn comment(remote: &Remote, id: &str) -> Url {
    remote.repository_url(["issues", "comments", id])
}

/// Gitea writes the same fields, with the repositories' numbers beside them.
pub(super) fn read(kind: ForgeType, value: &Value) -> Option<PullRequest> {
    let (head, base) = (&value["head"], &value["base"]);
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let repository = |side: &Value| match kind {
        ForgeType::Gitea if side["repo"].is_null() => None,
        ForgeType::Gitea => side["repo_id"].as_i64(),
        ForgeType::Github | ForgeType::Gitlab => side["repo"]["id"].as_i64(),
    };
    // By number: owners share names with their forks', and a repository that is gone has none.
    let (from, into) = (repository(head), repository(base));
    let merged = value["merged"] == true || value["merged_at"].is_string();
    let head_sha = text(&head["sha"])?;
    let mergeable = match (kind, value["mergeable_state"].as_str()) {
        // False is what it says as well while it has not looked.
        (ForgeType::Gitea, _) => value["mergeable"].as_bool().filter(|mergeable| *mergeable),
        (_, Some("clean" | "has_hooks" | "unstable")) => Some(true),
        (_, Some("unknown") | None) => None,
        _ => Some(false),
    };
    Some(PullRequest {
        number: value["number"].as_u64()?,
        title: text(&value["title"]).unwrap_or_default(),
        merged_as: merged
            .then(|| text(&value["merge_commit_sha"]).unwrap_or_else(|| head_sha.clone())),
        mergeable,
        head_sha,
        head_ref: text(&head["ref"])?,
        base_ref: text(&base["ref"])?,
        base_sha: text(&base["sha"]),
        from_fork: from.is_none() || from != into,
        draft: value["draft"].as_bool().unwrap_or_default(),
        open: value["state"] == "open",
        updated_at: value["updated_at"].as_str().and_then(|t| t.parse().ok()),
    })
}

pub(super) fn read_comment(value: &Value) -> Option<Found> {
    let user = &value["user"];
    let bot = user["type"] == "Bot";
    let app = &value["performed_via_github_app"];
    Some(Found {
        id: value["id"].as_u64()?,
        author: user["id"].as_u64(),
        name: user["login"].as_str().map(str::to_owned),
        // A person's comment by way of the app is the person's; whether the person knows of it is another question.
        app: app["id"].as_u64().filter(|_| bot),
        program: bot || !app.is_null(),
        edited: is_edited(value),
        body: value["body"].as_str()?.to_owned(),
    })
}

pub(super) fn permission(remote: &Remote, name: &str) -> Url {
    remote.repository_url(["collaborators", name, "permission"])
}

/// Whether what the forge says of a user's permission is of this user, and lets them write. Gitea has the same form.
pub(super) fn may_write(value: &Value, author: &Author) -> bool {
    let permission = value["permission"].as_str();
    let enough = matches!(permission, Some("write" | "maintain" | "admin" | "owner"));
    enough && value["user"]["id"].as_u64() == Some(author.id)
}
