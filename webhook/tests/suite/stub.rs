//! A forge on loopback that keeps what it is told, as GitHub, GitLab or Gitea does; with faults to order.

mod answers;
pub(crate) mod routes;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use fleetwright_api::{fleet::ForgeType, secret::SecretText};
use fleetwright_webhook::forge::{Credentials, Remote};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinSet,
};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The token that it takes.
pub(crate) const TOKEN: &str = "t0ken";
/// Number of the user whose token it is, and of somebody else.
pub(crate) const US: u64 = 5;
pub(crate) const OTHER: u64 = 6;

/// An answer: status code and headers.
pub(crate) type Answer = (u16, &'static [(&'static str, &'static str)]);

/// What happens to a request instead of what it asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is answered so, and nothing is done.
    Answer(Answer),
    /// It is answered so, with these words, and nothing is done.
    Says(u16, &'static str),
    /// It is done, but its answer breaks off in the middle.
    Cut,
    /// None: it is a later one's turn.
    Pass,
}

/// One status that came in.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// Repository and commit.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Post {
    /// State and description.
    pub(crate) fn said(&self) -> (&str, &str) {
        let text = |key: &str| self.body[key].as_str().unwrap();
        (text("state"), text("description"))
    }
}

/// One request of any kind: method, path with query, and its If-None-Match.
pub(crate) type Seen = (Method, String, Option<String>);

/// The server, ended with the test.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) kind: ForgeType,
    /// Base URL of its API.
    pub(crate) url: String,
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    got: Mutex<Vec<Post>>,
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<VecDeque<Fault>>,
    under_way: Mutex<BTreeMap<String, usize>>,
    most: Mutex<usize>,
    news: Notify,
    /// A status is answered when it gets one of these.
    leave: Semaphore,
    /// What it holds.
    pub(crate) state: Mutex<Held>,
}

/// What the forge holds.
#[derive(Default)]
pub(crate) struct Held {
    /// State by commit, context and (at GitLab) ref.
    pub(crate) statuses: BTreeMap<String, String>,
    /// In the forge's own form, the newest first.
    pub(crate) pull_requests: Vec<Value>,
    /// By pull request, the oldest first.
    pub(crate) comments: BTreeMap<String, Vec<Value>>,
    pub(crate) last_id: u64,
    /// Items of a page, whatever is asked for; all of them when 0.
    pub(crate) page: usize,
    /// Tokens of apps that it gave out and takes.
    pub(crate) app_tokens: Vec<String>,
    /// When they end.
    pub(crate) expires_at: String,
    /// What each user may do, by name, in the forge's own word.
    pub(crate) permissions: BTreeMap<String, Value>,
}

impl Forge {
    /// GitHub's.
    pub(crate) async fn start(tasks: &mut JoinSet<()>) -> Self {
        Self::of(ForgeType::Github, tasks).await
    }

    pub(crate) async fn of(kind: ForgeType, tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        let forge = Self {
            kind,
            url: format!("http://{host}{}", base(kind)),
            inner: Arc::new(Inner {
                got: Mutex::default(),
                seen: Mutex::default(),
                faults: Mutex::default(),
                under_way: Mutex::default(),
                most: Mutex::new(0),
                news: Notify::new(),
                leave: Semaphore::new(Semaphore::MAX_PERMITS),
                state: Mutex::default(),
            }),
        };
        let router = Router::new().fallback(take).with_state(forge.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        forge
    }

    /// Its repository, with the token that it takes.
    pub(crate) fn remote(&self) -> Remote {
        self.remote_with(Credentials::Token(SecretText::new(TOKEN)))
    }

    pub(crate) fn remote_with(&self, credentials: Credentials) -> Remote {
        Remote::new(self.kind, Some(&self.url), "acme/fleet", credentials).unwrap()
    }

    /// The next requests get these answers, then the right ones.
    pub(crate) fn answer(&self, answers: &[Answer]) {
        let faults = answers.iter().map(|a| Fault::Answer(*a));
        self.inner.faults.lock().extend(faults);
    }

    pub(crate) fn fault(&self, faults: &[Fault]) {
        self.inner.faults.lock().extend(faults);
    }

    /// Statuses wait for their answers until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.inner.leave.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn release(&self) {
        self.inner.leave.add_permits(1_000);
    }

    /// Statuses that came in, also those that were refused.
    pub(crate) fn got(&self) -> Vec<Post> {
        self.inner.got.lock().clone()
    }

    /// Requests since the last call.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.inner.seen.lock())
    }

    /// State of the one status that it holds.
    pub(crate) fn state(&self) -> String {
        let state = self.inner.state.lock();
        assert_eq!(state.statuses.len(), 1, "{:?}", state.statuses);
        state.statuses.values().next().unwrap().clone()
    }

    /// Most posts for one commit that were under way at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        *self.inner.most.lock()
    }

    /// Waits for the `count`-th post.
    pub(crate) async fn until(&self, count: usize) -> Vec<Post> {
        let wait = async {
            loop {
                let news = self.inner.news.notified();
                let got = self.got();
                if got.len() >= count {
                    return got;
                }
                news.await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("{count} posts did not come: {:#?}", self.got()))
    }
}

fn base(kind: ForgeType) -> &'static str {
    match kind {
        ForgeType::Github => "",
        ForgeType::Gitlab => "/api/v4",
        ForgeType::Gitea => "/api/v1",
    }
}

async fn take(
    State(forge): State<Forge>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().strip_prefix(base(forge.kind)).unwrap_or("?");
    let segments: Vec<String> = path
        .trim_start_matches('/')
        .split('/')
        .map(|s| s.replace("%2F", "/"))
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let etag = headers
        .get("if-none-match")
        .map(|v| v.to_str().unwrap().to_owned());
    let whole = uri.path_and_query().unwrap().to_string();
    forge
        .inner
        .seen
        .lock()
        .push((method.clone(), whole, etag.clone()));
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let posting = match segments.as_slice() {
        ["repos", owner, name, "statuses", sha] => Some(format!("{owner}/{name}/{sha}")),
        ["projects", path, "statuses", sha] => Some(format!("{path}/{sha}")),
        _ => None,
    };
    let mut crowded = false;
    if let Some(path) = &posting {
        let post = Post {
            path: path.clone(),
            headers: headers.clone(),
            body: body.clone(),
        };
        crowded = forge.enter(post).await;
    }
    let fault = forge.inner.faults.lock().pop_front();
    let response = match fault {
        Some(Fault::Answer((code, headers))) => {
            told(code, headers, json!({"message": format!("answer {code}")}))
        }
        Some(Fault::Says(code, words)) => told(code, &[], json!({"message": words})),
        fault => {
            let query = uri.query().unwrap_or_default();
            let request = routes::Request {
                method,
                segments: &segments,
                query,
                authorization: headers.get("authorization").and_then(|v| v.to_str().ok()),
                etag: etag.as_deref(),
                body: &body,
                crowded,
            };
            let response = routes::route(&forge, &request);
            match fault {
                Some(Fault::Cut) => cut(response),
                _ => response,
            }
        }
    };
    if let Some(path) = &posting
        && let Some(count) = forge.inner.under_way.lock().get_mut(path)
    {
        *count -= 1;
    }
    response
}

impl Forge {
    /// A status came in; tells whether another one for its commit is under way.
    async fn enter(&self, post: Post) -> bool {
        let inner = &self.inner;
        let path = post.path.clone();
        inner.got.lock().push(post);
        let count = {
            let mut under_way = inner.under_way.lock();
            let count = under_way.entry(path).or_default();
            *count += 1;
            *count
        };
        {
            let mut most = inner.most.lock();
            *most = (*most).max(count);
        }
        inner.news.notify_waiters();
        inner.leave.acquire().await.unwrap().forget();
        count > 1
    }
}

/// An answer with a body.
pub(crate) fn told(code: u16, headers: &[(&'static str, &str)], body: Value) -> Response {
    let mut response = (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response();
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        response
            .headers_mut()
            .insert(name, HeaderValue::from_str(value).unwrap());
    }
    response
}

/// The same head, half of a body, and then the connection ends.
fn cut(response: Response) -> Response {
    let (mut head, _) = response.into_parts();
    head.headers.remove("content-length");
    let parts = futures::stream::unfold(0, |part| async move {
        match part {
            0 => Some((Ok("[{\"id\": 1, \"bo"), 1)),
            _ => {
                // What is written goes out before the end comes.
                tokio::task::yield_now().await;
                Some((
                    Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                    2,
                ))
            }
        }
    });
    Response::from_parts(head, Body::from_stream(parts))
}
