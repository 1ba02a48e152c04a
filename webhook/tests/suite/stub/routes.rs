//! What each request of the stub does.

use axum::{body::Body, http::Method, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleetwright_api::fleet::ForgeType;
use serde_json::{Value, json};

use super::{
    Forge, Held, OTHER, TOKEN, US,
    answers::{self, filled, refused},
    told,
};

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

fn missing(kind: ForgeType) -> Response {
    refused(kind, 404, "Not Found")
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
        return refused(forge.kind, 401, "Bad credentials");
    }
    let below = match (forge.kind, request.segments) {
        (_, ["user"]) if as_app => {
            return refused(forge.kind, 403, "not accessible by integration");
        }
        (kind, ["user"]) => {
            return told(200, &[], filled(kind, answers::USER, json!({"id": US})));
        }
        (ForgeType::Gitlab, ["projects", "acme/fleet", below @ ..]) => below,
        (ForgeType::Github | ForgeType::Gitea, ["repos", "acme", "fleet", below @ ..]) => below,
        (kind, _) => return missing(kind),
    };
    let method = request.method.as_str();
    match (forge.kind, method, below) {
        (_, "POST", ["statuses", sha]) => status(forge.kind, &mut held, request, sha),
        (ForgeType::Gitlab, "GET", ["merge_requests"])
        | (ForgeType::Github | ForgeType::Gitea, "GET", ["pulls"]) => list(
            forge.kind,
            request,
            held.page,
            &held.pull_requests,
            answers::PULL_REQUEST,
        ),
        (ForgeType::Gitlab, "GET", ["merge_requests", number])
        | (ForgeType::Github | ForgeType::Gitea, "GET", ["pulls", number]) => {
            let key = if forge.kind == ForgeType::Gitlab {
                "iid"
            } else {
                "number"
            };
            let mut all = held.pull_requests.iter();
            let one = all.find(|p| p[key].as_u64() == number.parse().ok());
            let Some(one) = one.cloned() else {
                return missing(forge.kind);
            };
            told(200, &[], filled(forge.kind, answers::PULL_REQUEST, one))
        }
        (ForgeType::Gitlab, "GET", ["members", "all", id]) => {
            let mut all = held.permissions.values();
            let one = all.find(|one| one["id"].as_u64() == id.parse().ok());
            one.map_or_else(|| missing(forge.kind), |one| told(200, &[], one.clone()))
        }
        (ForgeType::Github | ForgeType::Gitea, "GET", ["collaborators", name, "permission"]) => {
            let one = held.permissions.get(*name);
            one.map_or_else(|| missing(forge.kind), |one| told(200, &[], one.clone()))
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
            list(forge.kind, request, page, &all, answers::COMMENT)
        }
        (ForgeType::Gitlab, "POST", ["merge_requests", number, "notes"])
        | (ForgeType::Github | ForgeType::Gitea, "POST", ["issues", number, "comments"]) => {
            let Some(text) = body_of(forge.kind, request) else {
                return too_long(forge.kind);
            };
            let one = write(forge.kind, &mut held, number, &text, as_app, US);
            told(201, &[], filled(forge.kind, answers::COMMENT, one))
        }
        (ForgeType::Gitlab, "PUT", ["merge_requests", _, "notes", id])
        | (ForgeType::Github | ForgeType::Gitea, "PATCH", ["issues", "comments", id]) => {
            let Some(text) = body_of(forge.kind, request) else {
                return too_long(forge.kind);
            };
            let mut all = held.comments.values_mut().flatten();
            match all.find(|c| c["id"].as_u64() == id.parse().ok()) {
                None => missing(forge.kind),
                Some(one) if author(one) == Some(OTHER) => refused(forge.kind, 403, "Forbidden"),
                Some(one) => {
                    one["body"] = json!(text);
                    told(200, &[], filled(forge.kind, answers::COMMENT, one.clone()))
                }
            }
        }
        (kind, ..) => missing(kind),
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

fn too_long(kind: ForgeType) -> Response {
    refused(kind, 422, "body is too long")
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
            "performed_via_github_app": filled(kind, answers::APP, json!({"id": APP})),
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
fn list(
    kind: ForgeType,
    request: &Request<'_>,
    size: usize,
    all: &[Value],
    example: &str,
) -> Response {
    let size = if size == 0 { usize::MAX } else { size };
    let page = request.page();
    let items = all.chunks(size).nth(page - 1).unwrap_or_default();
    let items: Vec<_> = items
        .iter()
        .map(|one| filled(kind, example, one.clone()))
        .collect();
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
            return empty(told(304, &headers, Value::Null));
        }
    }
    told(200, &headers, json!(items))
}

/// An answer without a body says nothing of its type.
fn empty(response: Response) -> Response {
    let (mut head, _) = response.into_parts();
    head.headers.remove("content-type");
    head.headers.remove("content-length");
    Response::from_parts(head, Body::empty())
}

fn status(kind: ForgeType, held: &mut Held, request: &Request<'_>, sha: &str) -> Response {
    let text = |key: &str| request.body[key].as_str().unwrap_or_default().to_owned();
    let state = text("state");
    if kind != ForgeType::Gitlab {
        let short = kind == ForgeType::Gitea || text("description").chars().count() <= 140;
        let known = ["pending", "success", "failure", "error"].contains(&state.as_str());
        if !short || !known || text("context").chars().count() > 255 {
            return refused(kind, 422, "Validation Failed");
        }
        held.statuses
            .insert(format!("{sha} {}", text("context")), state);
        let fields = ["state", "description", "context", "target_url"];
        let mut fields: Value = fields
            .iter()
            .map(|key| ((*key).to_owned(), request.body[*key].clone()))
            .collect();
        fields["id"] = json!(1);
        return told(201, &[], filled(kind, answers::STATUS, fields));
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
        let words = "A JSON web token could not be decoded";
        return refused(ForgeType::Github, 401, words);
    }
    let token = format!("ghs_{}", held.app_tokens.len() + 1);
    held.app_tokens.push(token.clone());
    let fields = json!({"token": token, "expires_at": held.expires_at});
    told(
        201,
        &[],
        filled(ForgeType::Github, answers::APP_TOKEN, fields),
    )
}
