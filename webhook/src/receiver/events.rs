//! What a delivery says: a function of its headers and payload, which may hold anything.

use std::collections::BTreeSet;

use fleetwright_api::fleet::ForgeType;
use http::HeaderMap;
use serde_json::Value;

use crate::repository;
use NoNews::{Ignored, Malformed};

/// What happened in a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    /// All names by which the payload calls it.
    pub(super) names: BTreeSet<String>,
    pub(super) default_branch: Option<String>,
    pub(super) event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A branch or a tag was made, moved or removed.
    Push {
        /// Such as `refs/heads/main`.
        reference: String,
    },
    /// A pull request, or one in the merge queue, is to be looked at again.
    PullRequest,
    /// Somebody wrote something on a pull request.
    Remark,
}

/// Why a delivery wakes nobody.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoNews {
    /// It is none of our business.
    Ignored(String),
    /// It lacks what such an event has.
    Malformed(&'static str),
}

/// Reads a delivery.
pub(super) fn read(kind: ForgeType, headers: &HeaderMap, payload: &Value) -> Result<News, NoNews> {
    let event = match kind {
        ForgeType::Github => github(headers, payload)?,
        ForgeType::Gitlab => gitlab(headers, payload)?,
        ForgeType::Gitea => gitea(headers, payload)?,
    };
    let repository = match kind {
        ForgeType::Github | ForgeType::Gitea => &payload["repository"],
        ForgeType::Gitlab => &payload["project"],
    };
    let names = names(repository);
    if names.is_empty() {
        return Err(Malformed("the payload names no repository"));
    }
    let default_branch = repository["default_branch"].as_str();
    Ok(News {
        names,
        default_branch: default_branch.filter(|b| !b.is_empty()).map(str::to_owned),
        event,
    })
}

/// The first of these headers that is there.
pub(super) fn header<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a str> {
    let value = names.iter().find_map(|name| headers.get(*name))?;
    value.to_str().ok().filter(|text| !text.is_empty())
}

/// Something of a delivery, to be told in an answer.
fn told(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(100).collect()
}

fn push(payload: &Value) -> Result<Event, NoNews> {
    let reference = payload["ref"].as_str().filter(|r| !r.is_empty());
    let reference = reference.ok_or(Malformed("the push names no ref"))?;
    Ok(Event::Push {
        reference: reference.to_owned(),
    })
}

/// Whether the object says that it changes `key`.
fn changes(payload: &Value, key: &str) -> bool {
    payload["changes"]
        .get(key)
        .is_some_and(|change| !change.is_null())
}

fn action<'a>(holder: &'a Value, wakes: impl Fn(&str) -> bool) -> Result<Event, NoNews> {
    let action: &'a str = holder["action"]
        .as_str()
        .ok_or(Malformed("the event names no action"))?;
    if wakes(action) {
        return Ok(Event::PullRequest);
    }
    Err(Ignored(format!("{} wakes nobody", told(action))))
}

/// A comment on what may be a pull request.
fn remark(action: &Value, made: &str, on_pull: bool) -> Result<Event, NoNews> {
    match action.as_str() {
        // What is changed or taken back afterwards counts for nothing.
        Some(action) if action == made && on_pull => Ok(Event::Remark),
        Some(_) => Err(Ignored("such a comment wakes nobody".to_owned())),
        None => Err(Malformed("the event names no action")),
    }
}

fn github(headers: &HeaderMap, payload: &Value) -> Result<Event, NoNews> {
    let event = header(headers, &["x-github-event"]);
    match event.ok_or(Malformed("no X-GitHub-Event header"))? {
        "ping" => Err(Ignored("pong".to_owned())),
        "push" => push(payload),
        "pull_request" => action(payload, |action| match action {
            "opened" | "synchronize" | "reopened" | "ready_for_review" | "closed" => true,
            "edited" => changes(payload, "base"),
            _ => false,
        }),
        "merge_group" => action(payload, |action| action == "checks_requested"),
        "issue_comment" => {
            let on_pull = payload["issue"]["pull_request"].is_object();
            remark(&payload["action"], "created", on_pull)
        }
        other => Err(Ignored(format!("{} wakes nobody", told(other)))),
    }
}

fn gitlab(headers: &HeaderMap, payload: &Value) -> Result<Event, NoNews> {
    let event = header(headers, &["x-gitlab-event"]);
    let event = match event.ok_or(Malformed("no X-Gitlab-Event header"))? {
        // Those of a whole instance say in the payload what they are.
        "System Hook" => match (&payload["object_kind"], &payload["event_name"]) {
            (Value::String(kind), _) | (_, Value::String(kind)) => kind,
            _ => return Err(Malformed("the system hook names no event")),
        },
        "Push Hook" => "push",
        "Tag Push Hook" => "tag_push",
        "Merge Request Hook" => "merge_request",
        "Note Hook" => "note",
        other => other,
    };
    match event {
        "push" | "tag_push" => push(payload),
        "merge_request" => action(&payload["object_attributes"], |action| match action {
            "open" | "reopen" | "close" | "merge" => true,
            "update" => {
                let moved = &payload["object_attributes"]["oldrev"];
                let ready = &payload["changes"]["draft"]["current"];
                moved.as_str().is_some_and(|rev| !rev.is_empty())
                    || changes(payload, "target_branch")
                    || ready.as_bool() == Some(false)
            }
            _ => false,
        }),
        "note" => {
            let note = &payload["object_attributes"];
            let made = Value::from("create");
            // Older ones tell of new notes alone, without saying so.
            let action = note.get("action").unwrap_or(&made);
            remark(action, "create", note["noteable_type"] == "MergeRequest")
        }
        other => Err(Ignored(format!("{} wakes nobody", told(other)))),
    }
}

fn gitea(headers: &HeaderMap, payload: &Value) -> Result<Event, NoNews> {
    // The type tells more: as an event, a label is a pull request as well.
    let names = [
        "x-forgejo-event-type",
        "x-gitea-event-type",
        "x-forgejo-event",
        "x-gitea-event",
    ];
    let event = header(headers, &names);
    match event.ok_or(Malformed("no X-Gitea-Event header"))? {
        "push" => push(payload),
        // These name the ref without its folder.
        "create" | "delete" => {
            let folder = match payload["ref_type"].as_str() {
                Some("branch") => "heads",
                Some("tag") => "tags",
                _ => return Err(Malformed("the event names no type of ref")),
            };
            match push(payload)? {
                Event::Push { reference } => Ok(Event::Push {
                    reference: format!("refs/{folder}/{reference}"),
                }),
                other => Ok(other),
            }
        }
        "pull_request" | "pull_request_sync" => action(payload, |action| match action {
            "opened" | "synchronized" | "reopened" | "closed" => true,
            // The base was changed; or the title, by whose beginning drafts are told.
            "edited" => {
                let draft = payload["pull_request"]["draft"].as_bool();
                changes(payload, "ref") || changes(payload, "title") && draft != Some(true)
            }
            _ => false,
        }),
        "issue_comment" | "pull_request_comment" => {
            let on_pull =
                payload["is_pull"] == true || payload["issue"]["pull_request"].is_object();
            remark(&payload["action"], "created", on_pull)
        }
        other => Err(Ignored(format!("{} wakes nobody", told(other)))),
    }
}

/// All names by which a payload calls its repository.
pub(super) fn names(repository: &Value) -> BTreeSet<String> {
    let urls = [
        "clone_url",
        "ssh_url",
        "html_url",
        "git_url",
        "url",
        "git_http_url",
        "git_ssh_url",
        "web_url",
    ];
    let urls = urls
        .iter()
        .filter_map(|key| repository::normalise(repository[*key].as_str()?));
    let paths = ["full_name", "path_with_namespace"];
    let paths = paths
        .iter()
        .filter_map(|key| Some(repository[*key].as_str()?.to_lowercase()));
    // At GitLab a project may be named by its number; at others no name is one.
    let number = repository["id"].as_u64().map(|id| id.to_string());
    urls.chain(paths)
        .filter(|name| !name.is_empty())
        .chain(number)
        .collect()
}

#[cfg(test)]
mod tests;
