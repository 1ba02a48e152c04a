//! The Kubernetes API over the store: in process as the service of a [`kube::Client`], or over TLS.
//!
//! A request is routed (`request`), its kind looked up (`registry`), and handled (`handlers`). What follows from a
//! deletion (`gc`) is done inside the server, without polling.

mod access;
mod audit;
mod auth;
mod backup;
pub mod connections;
mod convert;
mod core_kinds;
mod core_objects;
mod core_pods;
mod core_schemas;
mod core_specs;
mod core_types;
mod crd;
mod decode;
mod discovery;
mod error;
mod expiry;
mod gc;
mod handlers;
pub mod journal;
mod limits;
mod metadata;
mod metrics;
mod object;
mod openapi;
mod proto;
mod quantity;
mod registry;
mod request;
mod selector;
mod serve;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use bytes::{Buf, BufMut};
use fleetwright_api::random::Random;
use fleetwright_api::time::Clock;
use fleetwright_store::Store;
use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

pub use audit::Audit;
pub use auth::Auth;
pub use backup::{BACKUP_PATH, restamped};
pub use error::{Error, Result};
use registry::Registry;
pub use serve::{Tls, write_kubeconfig};

/// The version of Kubernetes whose behaviour is served.
pub(crate) const VERSION: &str = "v1.36.0+fleetwright";

/// What a server is made with.
#[derive(Clone)]
pub struct Options {
    /// Where times come from.
    pub clock: Arc<dyn Clock>,
    /// Where uids and generated names come from.
    pub random: Arc<dyn Random>,
    /// The largest request body, in bytes.
    pub body_limit: usize,
    /// Where it is written down who asked for what; nowhere when left out.
    pub audit: Option<Arc<Audit>>,
}

impl Options {
    /// Options with the given clock and source of chance, a body limit of 3 MiB and no audit log.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            clock,
            random,
            body_limit: 3 << 20,
            audit: None,
        }
    }
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The user's id.
    pub uid: String,
    /// The groups that the user is in.
    pub groups: Vec<String>,
}

impl User {
    /// The administrator.
    pub fn admin() -> Self {
        Self::master("system:admin")
    }

    /// The engine itself: in-process clients.
    pub fn engine() -> Self {
        Self::master("system:fleetwright")
    }

    fn master(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: String::new(),
            groups: vec![
                "system:masters".to_owned(),
                "system:authenticated".to_owned(),
            ],
        }
    }
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) options: Options,
    pub(crate) registry: RwLock<Arc<Registry>>,
    pub(crate) index: Mutex<Index>,
    pub(crate) pending: Mutex<std::collections::VecDeque<gc::Task>>,
    pub(crate) collecting: tokio::sync::Mutex<()>,
    pub(crate) limits: limits::Limits,
    pub(crate) metrics: metrics::Metrics,
}

/// Who belongs to whom, by uid. Entries may be stale: they are checked when used.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) dependents: BTreeMap<String, BTreeSet<String>>,
    pub(crate) keys: BTreeMap<String, Arc<str>>,
    /// What is removed at a time, in seconds since 1970.
    pub(crate) expiring: BTreeSet<(i64, String)>,
}

/// A Kubernetes API server over a store. Clones share everything; there is no task and no timer per server.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Inner>);

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ApiServer").field(&self.0.store).finish()
    }
}

impl ApiServer {
    /// A server over `store`, with the core kinds and the CustomResourceDefinitions that are stored.
    ///
    /// # Errors
    /// When a stored object cannot be read.
    pub fn new(store: Store, options: Options) -> Result<Self> {
        let server = Self::start(store, options, Arc::default())?;
        crd::reload(&server)?;
        Ok(server)
    }

    /// A server over another store that holds the same CustomResourceDefinitions as this one's: what was compiled of them is shared.
    ///
    /// # Errors
    /// When a stored object cannot be read.
    pub fn beside(&self, store: Store, options: Options) -> Result<Self> {
        Self::start(store, options, self.kinds())
    }

    fn start(store: Store, options: Options, kinds: Arc<Registry>) -> Result<Self> {
        let server = Self(Arc::new(Inner {
            store,
            options,
            registry: RwLock::new(kinds),
            index: Mutex::default(),
            pending: Mutex::default(),
            collecting: tokio::sync::Mutex::default(),
            limits: limits::Limits::default(),
            metrics: metrics::Metrics::default(),
        }));
        let (entries, _) = server.0.store.range("/", None, 0);
        for entry in entries {
            let object = object::head(&entry.value.bytes())
                .map_err(|source| Error::Stored(entry.key.to_string(), source))?;
            server.index(&entry.key, &object);
            gc::resume(&server, &entry.key, &object);
        }
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            if server
                .0
                .store
                .get(&object::key("", "namespaces", "", name))
                .is_none()
            {
                server
                    .0
                    .pending
                    .lock()
                    .push_back(gc::Task::MakeNamespace(name));
            }
        }
        Ok(server)
    }

    /// Creates or updates CustomResourceDefinitions; they are served when this returns.
    ///
    /// # Errors
    /// When one is not valid, or the store refuses.
    pub async fn install_crds(&self, crds: &[Value]) -> Result<()> {
        for crd in crds {
            let name = crd["metadata"]["name"].as_str().unwrap_or_default();
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            let key = object::key(
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                "",
                name,
            );
            if let Some((live, _)) = self.read(&key)
                && !changes(&live["spec"], &crd["spec"])
            {
                continue;
            }
            let mut answer = self.internal("POST", path, crd).await;
            if answer.0 == 409 {
                let patch = json!({"spec": crd["spec"]});
                answer = self
                    .internal("PATCH", &format!("{path}/{name}"), &patch)
                    .await;
            }
            if answer.0 >= 300 {
                let text = answer.1["message"].as_str().unwrap_or_default().to_owned();
                return Err(Error::Install(name.to_owned(), text));
            }
        }
        Ok(())
    }

    async fn internal(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(
                "content-type",
                if method == "PATCH" {
                    "application/merge-patch+json"
                } else {
                    "application/json"
                },
            )
            .header("user-agent", "fleetwright")
            .body(Body::from(body.to_string()));
        let Ok(request) = request else {
            return (400, json!({"message": "the name is not a name"}));
        };
        let answer = self.handle(User::engine(), request).await;
        let code = answer.status().as_u16();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let value = bytes.ok().and_then(|b| serde_json::from_slice(&b).ok());
        (code, value.unwrap_or_default())
    }

    /// A client of this server, without a socket, as the engine.
    pub fn client(&self, default_namespace: &str) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move {
                let asked = server
                    .0
                    .options
                    .audit
                    .as_ref()
                    .map(|log| log.asked(&request));
                let answer = server.handle(User::engine(), request).await;
                if let (Some(log), Some(asked)) = (&server.0.options.audit, asked) {
                    let who = audit::Who {
                        user: Some(User::engine()),
                        ..audit::Who::default()
                    };
                    log.answered(asked, &who, &answer);
                }
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        kube::Client::new(service, default_namespace)
    }

    /// Answers one request of an authenticated user. Whatever goes wrong is in the answer, as a `Status`.
    pub async fn handle<B>(&self, user: User, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        // Where the disk is full, reads go on without waiting for writes that fail.
        if parts.method != http::Method::GET || !self.0.store.failing() {
            self.expire().await;
            self.collect_garbage().await;
        }
        let answer = match read_body(body, self.0.options.body_limit).await {
            Ok(body) => handlers::dispatch(self, &user, &parts, body).await,
            Err(error) => Err(error),
        };
        if !self.0.pending.lock().is_empty() && !self.0.store.failing() {
            self.collect_garbage().await;
        }
        answer.unwrap_or_else(|error| error.response())
    }

    pub(crate) fn kinds(&self) -> Arc<Registry> {
        self.0.registry.read().clone()
    }

    pub(crate) fn now(&self) -> String {
        self.after(0)
    }

    /// The time in so many seconds.
    pub(crate) fn after(&self, seconds: i64) -> String {
        let now = self.0.options.clock.now();
        let then = now.checked_add(jiff::SignedDuration::from_secs(seconds));
        fleetwright_api::time::rfc3339_seconds(then.unwrap_or(now))
    }
}

/// Whether the merge patch `wanted` would change `live`. What the server defaulted is in `live` alone, and stays.
fn changes(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .any(|(field, wanted)| live.get(field).is_none_or(|live| changes(live, wanted))),
        (live, wanted) => live != wanted,
    }
}

async fn read_body<B>(body: B, limit: usize) -> error::ApiResult<bytes::Bytes>
where
    B: http_body::Body,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let mut all = bytes::BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| error::ApiError::bad_request(e.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.len() + data.remaining() > limit {
            return Err(error::ApiError::too_large(format!("limit is {limit}")));
        }
        all.put(data);
    }
    Ok(all.freeze())
}
