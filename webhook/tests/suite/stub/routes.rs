//! What each request of the stub does.

use axum::{http::Method, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleetwright_api::fleet::ForgeType;
use serde_json::{Value, json};

use super::{Forge, Held, OTHER, TOKEN, US, told};

/// The app that it knows, and where it is installed.
pub(crate) const APP: u64 = 12345;
pub(crate) const INSTALLATION: u64 = 77;

pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Below the API's base, unescaped.
    pub(super) segments: &'a [&'a str],
    pub(super) query: &'a str,
    pub(super) authorization: Option<&'a str>,
    pub(super) etag: Option<&'a str>,
    pub(super) body: &'a Value,
    /// Another status for the same commit is under way.
    pub(super) crowded: bool,
}

impl Request<'_> {
    fn page(&self) -> usize {
        let page = self.query.split('&').find_map(|p| p.strip_prefix("page="));
        page.map_or(1, |p| p.parse().unwrap())
    }
}

fn missing() -> Response {
    told(404, &[], json!({"message": "Not Found"}))
}

pub(super) fn route(forge: &Forge, request: &Request<'_>) -> Response {
    let mut held = forge.inner.state.lock();
    let number = INSTALLATION.to_string();
    if forge.kind == ForgeType::Github
        && *request.segments == ["app", "installations", number.as_str(), "access_tokens"]
    {
        return app_token(&mut held, request);
    }
    let scheme = if forge.kind == ForgeType::Gitea {
        "token"
    } else {
        "Bearer"
    };
    let token = request
        .authorization
        .and_then(|a| a.strip_prefix(scheme)?.strip_prefix(' '));
    let as_app = held.app_tokens.iter().any(|t| Some(t.as_str()) == token);
    if token != Some(TOKEN) && !as_app {
        return told(401, &[], json!({"message": "Bad credentials"}));
    }
    let below = match (forge.kind, request.segments) {
        (_, ["user"]) if as_app => {
            return told(
                403,
                &[],
                json!({"message": "not accessible by integration"}),
            );
        }
        (_, ["user"]) => return told(200, &[], json!({"id": US})),
        (ForgeType::Gitlab, ["projects", "acme/fleet", below @ ..]) => below,
        (ForgeType::Github | ForgeType::Gitea, ["repos", "acme", "fleet", below @ ..]) => below,
        _ => return missing(),
    };
    let method = request.method.as_str();
    match (forge.kind, method, below) {
        (_, "POST", ["statuses", sha]) => status(forge.kind, &mut held, request, sha),
        (ForgeType::Gitlab, "GET", ["merge_requests"])
        | (ForgeType::Github | ForgeType::Gitea, "GET", ["pulls"]) => {
            let all = held.pull_requests.clone();
            list(forge.kind, request, held.page, &all)
        }
        (ForgeType::Gitlab, "GET", ["merge_requests", number])
        | (ForgeType::Github | ForgeType::Gitea, "GET", ["pulls", number]) => {
            let key = if forge.kind == ForgeType::Gitlab {
                "iid"
            } else {
                "number"
            };
            let mut all = held.pull_requests.iter();
            let one = all.find(|p| p[key].as_u64() == number.parse().ok());
            one.map_or_else(missing, |one| told(200, &[], one.clone()))
        }
        (ForgeType::Gitlab, "GET", ["members", "all", id]) => {
            let mut all = held.permissions.values();
            let one = all.find(|one| one["id"].as_u64() == id.parse().ok());
            one.map_or_else(missing, |one| told(200, &[], one.clone()))
        }
        (ForgeType::Github | ForgeType::Gitea, "GET", ["collaborators", name, "permission"]) => {
            let one = held.permissions.get(*name);
            one.map_or_else(missing, |one| told(200, &[], one.clone()))
        }
        (ForgeType::Gitlab, "GET", ["merge_requests", number, "notes"])
        | (ForgeType::Github | ForgeType::Gitea, "GET", ["issues", number, "comments"]) => {
            let all = held.comments.get(*number).cloned().unwrap_or_default();
            // Gitea gives all of them at once.
            let page = if forge.kind == ForgeType::Gitea {
                0
            } else {
                held.page
            };
            list(forge.kind, request, page, &all)
        }
        (ForgeType::Gitlab, "POST", ["merge_requests", number, "notes"])
        | (ForgeType::Github | ForgeType::Gitea, "POST", ["issues", number, "comments"]) => {
            let Some(text) = body_of(forge.kind, request) else {
                return too_long();
            };
            let one = write(forge.kind, &mut held, number, &text, as_app, US);
            told(201, &[], one)
        }
        (ForgeType::Gitlab, "PUT", ["merge_requests", _, "notes", id])
        | (ForgeType::Github | ForgeType::Gitea, "PATCH", ["issues", "comments", id]) => {
            let Some(text) = body_of(forge.kind, request) else {
                return too_long();
            };
            let mut all = held.comments.values_mut().flatten();
            match all.find(|c| c["id"].as_u64() == id.parse().ok()) {
                None => missing(),
                Some(one) if author(one) == Some(OTHER) => {
                    told(403, &[], json!({"message": "Forbidden"}))
                }
                Some(one) => {
                    one["body"] = json!(text);
                    told(200, &[], one.clone())
                }
            }
        }
        _ => missing(),
    }
}

fn author(comment: &Value) -> Option<u64> {
    comment["user"]["id"]
        .as_u64()
        .or(comment["author"]["id"].as_u64())
}

fn body_of(kind: ForgeType, request: &Request<'_>) -> Option<String> {
    let most = if kind == ForgeType::Gitlab {
        1_000_000
    } else {
        65_536
    };
    let text = request.body["body"].as_str()?;
    (text.chars().count() <= most).then(|| text.to_owned())
}

fn too_long() -> Response {
    told(422, &[], json!({"message": "body is too long"}))
}

/// Adds a comment in the forge's own form.
pub(crate) fn write(
    kind: ForgeType,
    held: &mut Held,
    number: &str,
    text: &str,
    as_app: bool,
    author: u64,
) -> Value {
    held.last_id += 1;
    let id = held.last_id;
    let name = format!("user{author}");
    let mut one = match kind {
        ForgeType::Gitlab => json!({
            "id": id, "body": text, "system": false, "author": {"id": author, "username": name},
        }),
        _ if as_app => json!({
            "id": id, "body": text, "user": {"id": 99, "login": "ours[bot]", "type": "Bot"},
            "performed_via_github_app": {"id": APP},
        }),
        _ => json!({
            "id": id, "body": text, "user": {"id": author, "login": name, "type": "User"},
        }),
    };
    for time in ["created_at", "updated_at"] {
        one[time] = json!("2026-01-02T03:04:05Z");
    }
    held.comments
        .entry(number.to_owned())
        .or_default()
        .push(one.clone());
    one
}

/// A page, with what GitHub and GitLab know to answer of it: its ETag.
fn list(kind: ForgeType, request: &Request<'_>, size: usize, all: &[Value]) -> Response {
    let size = if size == 0 { usize::MAX } else { size };
    let page = request.page();
    let items: Vec<_> = all.chunks(size).nth(page - 1).unwrap_or_default().to_vec();
    let etag = format!(
        "W/\"{}\"",
        fleetwright_api::names::short_hash([json!(items).to_string().as_str()], 16)
    );
    // Where it leads is not to be believed.
    let more = page < all.chunks(size).len();
    let next = more.then_some("<http://elsewhere.example/?page=9>; rel=\"next\", <http://elsewhere.example/>; rel=\"last\"");
    let mut headers: Vec<_> = next.map(|next| ("link", next)).into_iter().collect();
    if kind != ForgeType::Gitea {
        headers.push(("etag", etag.as_str()));
        if request.etag == Some(etag.as_str()) {
            return told(304, &headers, Value::Null);
        }
    }
    told(200, &headers, json!(items))
}

fn status(kind: ForgeType, held: &mut Held, request: &Request<'_>, sha: &str) -> Response {
    let text = |key: &str| request.body[key].as_str().unwrap_or_default().to_owned();
    let state = text("state");
    if kind != ForgeType::Gitlab {
        let short = kind == ForgeType::Gitea || text("description").chars().count() <= 140;
        let known = ["pending", "success", "failure", "error"].contains(&state.as_str());
        if !short || !known || text("context").chars().count() > 255 {
            return told(422, &[], json!({"message": "Validation Failed"}));
        }
        held.statuses
            .insert(format!("{sha} {}", text("context")), state);
        return told(201, &[], json!({"id": 1}));
    }
    if request.crowded {
        return told(409, &[], json!({"message": "409 Conflict"}));
    }
    if !["pending", "running", "success", "failed", "canceled"].contains(&state.as_str()) {
        return told(
            400,
            &[],
            json!({"error": "state does not have a valid value"}),
        );
    }
    if text("description").chars().count() > 255 || text("name").chars().count() > 255 {
        return told(
            400,
            &[],
            json!({"message": {"name": ["is too long (maximum is 255 characters)"]}}),
        );
    }
    let key = format!("{sha} {} {}", text("name"), text("ref"));
    // A job that has ended is followed by another one; one that runs is not started again.
    if state == "running" && held.statuses.get(&key).is_some_and(|s| s == "running") {
        let words = "Cannot transition status via :run from :running (Reason(s): Status cannot transition via \"run\")";
        return told(400, &[], json!({"message": words}));
    }
    held.statuses.insert(key, state);
    told(201, &[], json!({"id": 1}))
}

fn app_token(held: &mut Held, request: &Request<'_>) -> Response {
    let token = request
        .authorization
        .and_then(|a| a.strip_prefix("Bearer "));
    let parts: Vec<_> = token.unwrap_or_default().split('.').collect();
    let claims = parts
        .get(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .unwrap_or_default();
    let life = claims["exp"].as_i64().zip(claims["iat"].as_i64());
    let life = life.map(|(exp, iat)| exp - iat);
    let signature = parts
        .get(2)
        .map(|p| URL_SAFE_NO_PAD.decode(p).unwrap().len());
    let app = claims["iss"].as_str().and_then(|text| text.parse().ok());
    if app != Some(APP) || life != Some(600) || signature != Some(256) {
        return told(
            401,
            &[],
            json!({"message": "A JSON web token could not be decoded"}),
        );
    }
    let token = format!("ghs_{}", held.app_tokens.len() + 1);
    held.app_tokens.push(token.clone());
    told(
        201,
        &[],
        json!({"token": token, "expires_at": held.expires_at}),
    )
}
