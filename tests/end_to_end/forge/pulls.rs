//! Pull requests and comments as GitHub has them.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, patch},
};
use serde_json::{Value, json};

use super::Forge;
use crate::kit::PATIENCE;

const WRITTEN: &str = "2026-01-02T03:04:05Z";
const CHANGED: &str = "2026-01-02T03:05:05Z";

/// Number and kind of a user; the token is the first one's.
fn user(name: &str) -> Value {
    let (id, kind) = match name {
        "ours" => (1, "User"),
        "alice" => (2, "User"),
        "bob" => (3, "User"),
        "robot" => (4, "Bot"),
        other => panic!("nobody is {other}"),
    };
    json!({"id": id, "login": name, "type": kind})
}

impl Forge {
    /// Somebody comments; gives the number of the comment.
    pub(crate) fn write(&self, number: u64, who: &str, text: &str) -> u64 {
        let mut all = self.comments.lock();
        let mut last = self.last_comment.lock();
        *last += 1;
        let comment = json!({"id": *last, "user": user(who), "body": text,
            "created_at": WRITTEN, "updated_at": WRITTEN});
        all.push((number, comment));
        self.news.notify_waiters();
        *last
    }

    /// Somebody changes a comment.
    pub(crate) fn edit(&self, id: u64, text: &str) {
        let mut all = self.comments.lock();
        let (_, comment) = all.iter_mut().find(|(_, c)| c["id"] == id).unwrap();
        comment["body"] = json!(text);
        comment["updated_at"] = json!(CHANGED);
    }

    /// Somebody takes a comment back.
    pub(crate) fn delete(&self, id: u64) {
        self.comments
            .lock()
            .retain(|(_, comment)| comment["id"] != id);
    }

    /// Waits for our one comment on the plan of a pull request to hold `text`.
    pub(crate) async fn until_said(&self, number: u64, text: &str) -> Value {
        self.until_marked(number, "plan", text).await
    }

    /// Waits for our one answer on a pull request to hold `text`; gives all of it.
    pub(crate) async fn until_answered(&self, number: u64, text: &str) -> String {
        let answer = self.until_marked(number, "apply", text).await;
        answer["body"].as_str().unwrap().to_owned()
    }

    async fn until_marked(&self, number: u64, about: &str, text: &str) -> Value {
        let marker = format!("<!-- fleetwright:fleetwright/default/default.default/{about} -->\n");
        let wait = async {
            loop {
                let news = self.news.notified();
                let all = self.comments.lock().clone();
                let ours = all.iter().filter(|(of, comment)| {
                    let body = comment["body"].as_str().unwrap_or_default();
                    *of == number && body.starts_with(&marker)
                });
                let ours: Vec<&Value> = ours.map(|(_, comment)| comment).collect();
                if let [comment] = &ours[..]
                    && comment["body"].as_str().unwrap_or_default().contains(text)
                {
                    return (*comment).clone();
                }
                news.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found.unwrap_or_else(|_| {
            panic!(
                "one comment with {text} is wanted: {:#?}",
                self.comments.lock()
            )
        })
    }

    /// Waits until so many writes of comments are still to be refused.
    pub(crate) async fn until_refused(&self, left: usize) {
        let wait = async {
            loop {
                let news = self.news.notified();
                if self.refusals.lock().len() <= left {
                    return;
                }
                news.await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("not refused: {:?}", self.refusals.lock()));
    }

    /// Waits until it was asked for a pull request alone so many times.
    pub(crate) async fn until_asked(&self, times: usize) {
        let wait = async {
            loop {
                let news = self.news.notified();
                if *self.asked.lock() >= times {
                    return;
                }
                news.await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("it was not asked"));
    }

    fn refuse(&self) -> Option<Response> {
        let (code, seconds) = self.refusals.lock().pop_front()?;
        self.news.notify_waiters();
        let code = StatusCode::from_u16(code).unwrap();
        let headers = seconds.map(|seconds| [("retry-after", seconds)]);
        Some(match headers {
            Some(headers) => (code, headers, Json(json!({}))).into_response(),
            None => (code, Json(json!({}))).into_response(),
        })
    }
}

/// What GitHub offers of pull requests.
pub(super) fn routes() -> Router<Forge> {
    let list = async |State(forge): State<Forge>| {
        let all = forge.pulls.lock().clone();
        let open = all.into_iter().filter(|pull| pull["state"] == "open");
        Json(open.collect::<Vec<_>>())
    };
    let one = async |State(forge): State<Forge>, Path(number): Path<u64>| {
        *forge.asked.lock() += 1;
        forge.news.notify_waiters();
        let all = forge.pulls.lock().clone();
        match all.into_iter().find(|pull| pull["number"] == number) {
            Some(pull) => Json(pull).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let permission = async |State(forge): State<Forge>, Path(name): Path<String>| {
        let may = forge.may.lock().get(&name).copied();
        match may {
            Some(may) => Json(json!({"permission": may, "user": user(&name)})).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let comments = async |State(forge): State<Forge>, Path(number): Path<u64>| {
        let all = forge.comments.lock();
        let of = all.iter().filter(|(of, _)| *of == number);
        Json(of.map(|(_, comment)| comment.clone()).collect::<Vec<_>>())
    };
    let add =
        async |State(forge): State<Forge>, Path(number): Path<u64>, Json(said): Json<Value>| {
            if let Some(refused) = forge.refuse() {
                return refused;
            }
            let id = forge.write(number, "ours", said["body"].as_str().unwrap());
            (StatusCode::CREATED, Json(json!({"id": id}))).into_response()
        };
    let edit = async |State(forge): State<Forge>, Path(id): Path<u64>, Json(said): Json<Value>| {
        if let Some(refused) = forge.refuse() {
            return refused;
        }
        let mut all = forge.comments.lock();
        match all.iter_mut().find(|(_, comment)| comment["id"] == id) {
            Some((_, comment)) => {
                comment["body"] = said["body"].clone();
                forge.news.notify_waiters();
                (StatusCode::OK, Json(comment.clone())).into_response()
            }
            None => (StatusCode::NOT_FOUND, Json(json!({}))).into_response(),
        }
    };
    Router::new()
        .route("/user", get(async || Json(json!({"id": 1}))))
        .route("/repos/acme/fleet/pulls", get(list))
        .route("/repos/acme/fleet/pulls/{number}", get(one))
        .route(
            "/repos/acme/fleet/collaborators/{name}/permission",
            get(permission),
        )
        .route(
            "/repos/acme/fleet/issues/{number}/comments",
            get(comments).post(add),
        )
        .route("/repos/acme/fleet/issues/comments/{id}", patch(edit))
}
