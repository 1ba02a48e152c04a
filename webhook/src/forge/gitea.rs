//! Gitea and Forgejo.
//!
//! Wire format: their API v1, "Create a commit status".

use fleetwright_api::{commit_status::StatusContent, secret::SecretText};
use http::Method;
use serde_json::json;

use super::{Destination, context_name, http::Call};

pub(super) fn headers(token: &SecretText) -> Vec<(&'static str, String)> {
    vec![
        ("authorization", format!("token {}", token.expose())),
        ("accept", "application/json".to_owned()),
    ]
}

/// `POST {api}/repos/{owner}/{name}/statuses/{sha}`. It has our four states, and no limit of a description's length.
pub(super) fn status(destination: &Destination<'_>, content: &StatusContent) -> Call {
    let body = json!({
        "state": content.state.as_str(),
        "description": content.description,
        "context": context_name(destination.context),
        "target_url": content.target_url.as_deref().unwrap_or_default(),
    });
    let url = destination
        .remote
        .repository_url(["statuses", destination.sha]);
    Call::write(Method::POST, url, body)
}
