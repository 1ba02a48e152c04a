//! GitHub and GitHub Enterprise Server.
//!
//! Wire format: GitHub REST API, version 2022-11-28, "Commit statuses" and "Rate limits".

pub(super) mod app;

use fleetwright_api::{commit_status::StatusContent, secret::SecretText};
use http::Method;
use jiff::SignedDuration;
use serde_json::json;

use super::{Destination, context_name, cut, http::Call, pace::Window};

/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 140;
/// How often content may be created with one token: GitHub's secondary limits, which its answers tell of only afterwards.
pub(super) const CONTENT: &[Window] = &[
    Window {
        span: SignedDuration::from_secs(60),
        most: 80,
    },
    Window {
        span: SignedDuration::from_secs(3600),
        most: 500,
    },
];

pub(super) fn headers(token: &SecretText) -> Vec<(&'static str, String)> {
    vec![
        ("authorization", format!("Bearer {}", token.expose())),
        ("accept", "application/vnd.github+json".to_owned()),
        ("x-github-api-version", "2022-11-28".to_owned()),
    ]
}

/// `POST {api}/repos/{owner}/{name}/statuses/{sha}`.
pub(super) fn status(destination: &Destination<'_>, content: &StatusContent) -> Call {
    let body = json!({
        "state": content.state.as_str(),
        "description": cut(&content.description, MAX_DESCRIPTION),
        "context": context_name(destination.context),
        "target_url": content.target_url,
    });
    let url = destination
        .remote
        .repository_url(["statuses", destination.sha]);
    Call::write(Method::POST, url, body)
}
