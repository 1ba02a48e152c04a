//! A server with GitHub's endpoint of commit statuses, whose answers the test says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinSet,
};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An answer: status code and headers.
pub(crate) type Answer = (u16, &'static [(&'static str, &'static str)]);

/// One post that came in.
#[derive(Clone, Debug)]
pub(crate) struct Post {
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

/// The server, ended with the test.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

struct Inner {
    got: Mutex<Vec<Post>>,
    answers: Mutex<VecDeque<Answer>>,
    under_way: Mutex<BTreeMap<String, usize>>,
    most: Mutex<usize>,
    news: Notify,
    /// A post is answered when it gets one of these.
    leave: Semaphore,
}

impl Forge {
    pub(crate) async fn start(tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forge = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            inner: Arc::new(Inner {
                got: Mutex::default(),
                answers: Mutex::default(),
                under_way: Mutex::default(),
                most: Mutex::new(0),
                news: Notify::new(),
                leave: Semaphore::new(Semaphore::MAX_PERMITS),
            }),
        };
        let router = Router::new()
            .route("/repos/{owner}/{name}/statuses/{sha}", post(take))
            .with_state(forge.clone());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        forge
    }

    /// The next posts get these answers, then 201.
    pub(crate) fn answer(&self, answers: &[Answer]) {
        self.inner.answers.lock().extend(answers);
    }

    /// Posts wait for their answers until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.inner.leave.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn release(&self) {
        self.inner.leave.add_permits(1_000);
    }

    pub(crate) fn got(&self) -> Vec<Post> {
        self.inner.got.lock().clone()
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

async fn take(
    State(forge): State<Forge>,
    Path((owner, name, sha)): Path<(String, String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let inner = &forge.inner;
    let path = format!("{owner}/{name}/{sha}");
    inner.got.lock().push(Post {
        path: path.clone(),
        headers,
        body,
    });
    {
        let mut under_way = inner.under_way.lock();
        let count = under_way.entry(path.clone()).or_default();
        *count += 1;
        let mut most = inner.most.lock();
        *most = (*most).max(*count);
    }
    inner.news.notify_waiters();
    let permit = inner.leave.acquire().await.unwrap();
    permit.forget();
    if let Some(count) = inner.under_way.lock().get_mut(&path) {
        *count -= 1;
    }
    let (code, headers) = inner.answers.lock().pop_front().unwrap_or((201, &[]));
    let body = Json(json!({"message": format!("answer {code}")}));
    let mut response = (StatusCode::from_u16(code).unwrap(), body).into_response();
    for (name, value) in headers {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        response.headers_mut().insert(name, value);
    }
    response
}
