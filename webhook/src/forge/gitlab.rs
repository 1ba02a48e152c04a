//! GitLab, public and self-managed.
//!
//! Wire format: GitLab REST API v4, "Commits API", "Set commit pipeline status". A status there is a job of a pipeline with its
//! own states, not a line in a log: it goes from running to an end, and a state that it has already is refused.

use fleetwright_api::{
    commit_status::{CommitState, StatusContent},
    secret::SecretText,
};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Destination, context_name, cut,
    http::{Call, Reply},
};

/// Longest description and target URL, in characters.
const MAX_DESCRIPTION: usize = 255;
const MAX_TARGET_URL: usize = 255;

/// Tokens of users, projects and groups are taken in the same header as OAuth's.
pub(super) fn headers(token: &SecretText) -> Vec<(&'static str, String)> {
    vec![
        ("authorization", format!("Bearer {}", token.expose())),
        ("accept", "application/json".to_owned()),
    ]
}

/// A pending pipeline waits for a runner that never comes, so what is not ended is running.
const fn state(state: CommitState) -> &'static str {
    match state {
        CommitState::Pending => "running",
        CommitState::Success => "success",
        CommitState::Failure | CommitState::Error => "failed",
    }
}

/// `POST {api}/projects/{path or number}/statuses/{sha}`.
pub(super) fn status(destination: &Destination<'_>, content: &StatusContent) -> Call {
    let mut body = Map::new();
    body.insert("state".into(), json!(state(content.state)));
    body.insert("name".into(), json!(context_name(destination.context)));
    let description = cut(&content.description, MAX_DESCRIPTION);
    body.insert("description".into(), json!(description));
    // A cut URL leads nowhere.
    let short = |url: &&String| url.chars().count() <= MAX_TARGET_URL;
    if let Some(url) = content.target_url.as_ref().filter(short) {
        body.insert("target_url".into(), json!(url));
    }
    // Without it GitLab takes the first branch that holds the commit.
    if let Some(reference) = destination.reference {
        body.insert("ref".into(), json!(reference));
    }
    let url = destination
        .remote
        .repository_url(["statuses", destination.sha]);
    Call::write(Method::POST, url, Value::Object(body))
}

/// Whether a refusal means that the status is as we want it: `Cannot transition status via :run from :running`.
pub(super) fn has_it_already(reply: &Reply, wanted: CommitState) -> bool {
    reply.status == StatusCode::BAD_REQUEST && is_transition_to_itself(&reply.said(), wanted)
}

fn is_transition_to_itself(said: &str, wanted: CommitState) -> bool {
    let Some((_, from)) = said.split_once("Cannot transition status via :") else {
        return false;
    };
    let from = from.split_once(" from :").map(|(_, from)| from);
    let word = from.map(|from| {
        let end = from.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        from.get(..end.unwrap_or(from.len())).unwrap_or_default()
    });
    word == Some(state(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_it_has_already() {
        use CommitState::{Error, Failure, Pending, Success};
        for (said, wanted, want) in [
            (
                "Cannot transition status via :run from :running",
                Pending,
                true,
            ),
            (
                "Cannot transition status via :run from :running (Reason(s): Status cannot transition via \"run\")",
                Pending,
                true,
            ),
            (
                "Cannot transition status via :success from :success",
                Success,
                true,
            ),
            (
                "Cannot transition status via :drop from :failed",
                Failure,
                true,
            ),
            (
                "Cannot transition status via :drop from :failed",
                Error,
                true,
            ),
            (
                "Cannot transition status via :run from :success",
                Pending,
                false,
            ),
            (
                "Cannot transition status via :run from :running_late",
                Pending,
                false,
            ),
            ("Cannot transition status via :run", Pending, false),
            ("{\"name\":[\"is too long\"]}", Pending, false),
            ("", Success, false),
        ] {
            assert_eq!(
                is_transition_to_itself(said, wanted),
                want,
                "{said} {wanted:?}"
            );
        }
    }
}
