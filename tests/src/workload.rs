//! A workload cluster: an API server of ours over TLS on loopback, which dies, comes back, falls silent and changes its version.

#![allow(clippy::unwrap_used, reason = "tests alone call it")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use fleetwright_api::{random::SeededRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Auth, Options, User, connections};
use fleetwright_store::Store;
use http::{Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{forward, kubeadm, pki::Authority};

/// What a test changes while the cluster serves.
struct Knobs {
    auth: Mutex<Auth>,
    version: Mutex<String>,
    silent: AtomicBool,
    /// What it answers to requests whose path and query have this in them, without looking.
    canned: Mutex<Option<(String, StatusCode, String)>>,
    /// What stands for the ports of pods.
    forwards: Mutex<BTreeMap<String, forward::To>>,
    forwarding: Mutex<JoinSet<()>>,
    accepted: AtomicUsize,
}

/// A workload cluster. It accepts the tokens that it was told of, and client certificates of its authority as an administrator's.
pub struct Workload {
    /// Its authority.
    pub authority: Authority,
    server: ApiServer,
    tls: TlsAcceptor,
    address: SocketAddr,
    knobs: Arc<Knobs>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Token of the administrator of each such cluster.
pub const TOKEN: &str = "workload-admin";

impl Workload {
    /// One that serves.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn start() -> Self {
        let authority = Authority::new("workload-ca");
        Self::of(authority, ([127, 0, 0, 1], 0).into(), "v1.33.2").await
    }

    /// One with this authority, at this address and of this version.
    ///
    /// # Panics
    /// When it cannot serve there.
    pub async fn of(authority: Authority, address: SocketAddr, version: &str) -> Self {
        let options = Options::new(Arc::new(SystemClock), Arc::new(SeededRandom::new(7)));
        let tls = acceptor(&authority);
        let mut workload = Self {
            authority,
            server: ApiServer::new(Store::memory(), options).unwrap(),
            tls,
            address,
            knobs: Arc::new(Knobs {
                auth: Mutex::new(Auth::default().with(TOKEN, User::admin())),
                version: Mutex::new(version.into()),
                silent: AtomicBool::new(false),
                canned: Mutex::default(),
                forwards: Mutex::default(),
                forwarding: Mutex::default(),
                accepted: AtomicUsize::new(0),
            }),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        let more = [kubeadm::certificate_requests()];
        workload.server.install_crds(&more).await.unwrap();
        workload.come_back().await;
        workload
    }

    /// Its address, the same for ever.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A client without a socket, as its own people have.
    pub fn client(&self) -> kube::Client {
        self.server.client("default")
    }

    /// A kubeconfig with `user` as the entry of its user.
    pub fn kubeconfig(&self, user: &serde_json::Value) -> String {
        let authority = base64(&self.authority.identity.certificate);
        let cluster = json!({"server": self.url(), "certificate-authority-data": authority});
        let context = json!({"cluster": "c", "user": "u"});
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": context}],
        })
        .to_string()
    }

    /// From now on these tokens alone are accepted, as these users.
    ///
    /// # Panics
    /// When the test has panicked elsewhere.
    pub fn accept(&self, tokens: &[(&str, &str)]) {
        let add = |auth: Auth, (token, name): &(&str, &str)| {
            let mut user = User::admin();
            user.name = (*name).to_owned();
            auth.with(token, user)
        };
        *self.knobs.auth.lock().unwrap() = tokens.iter().fold(Auth::default(), add);
    }

    /// From now on it says that it is of this version.
    ///
    /// # Panics
    /// When the test has panicked elsewhere.
    pub fn be(&self, version: &str) {
        version.clone_into(&mut self.knobs.version.lock().unwrap());
    }

    /// Port-forward to this pod, to whatever port, leads to a port of this machine.
    ///
    /// # Panics
    /// When the test has panicked elsewhere.
    pub fn forward(&self, pod: &str, port: u16) {
        let mut forwards = self.knobs.forwards.lock().unwrap();
        forwards.insert(pod.to_owned(), forward::To::Port(port));
    }

    /// Port-forward to this pod is taken and never answered, not even when it is given up; begin and end of such a connection are told.
    ///
    /// # Panics
    /// When the test has panicked elsewhere.
    pub fn swallow(&self, pod: &str) -> UnboundedReceiver<()> {
        let (sender, news) = unbounded_channel();
        let mut forwards = self.knobs.forwards.lock().unwrap();
        forwards.insert(pod.to_owned(), forward::To::Nowhere(sender));
        news
    }

    /// Runs something beside it for as long as it is there.
    pub(crate) fn serve(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.knobs.forwarding.lock().unwrap().spawn(task);
    }

    /// Whether it takes requests and never answers.
    pub fn silent(&self, is: bool) {
        self.knobs.silent.store(is, Ordering::SeqCst);
    }

    /// From now on it answers requests whose path or query has `part` in it like this.
    ///
    /// # Panics
    /// When the test has panicked elsewhere.
    pub fn say(&self, part: &str, status: u16, body: String) {
        let status = StatusCode::from_u16(status).unwrap();
        *self.knobs.canned.lock().unwrap() = Some((part.to_owned(), status, body));
    }

    /// Connections that it has accepted.
    pub fn accepted(&self) -> usize {
        self.knobs.accepted.load(Ordering::SeqCst)
    }

    /// Dies: all connections break, and none is accepted. What it stores is there again later.
    ///
    /// # Panics
    /// When it broke.
    pub async fn die(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Serves, at the address that it had.
    ///
    /// # Panics
    /// When another has the address.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        self.stop = CancellationToken::new();
        let (stop, tls) = (self.stop.clone(), self.tls.clone());
        let (server, knobs) = (self.server.clone(), Arc::clone(&self.knobs));
        self.tasks.spawn(async move {
            connections::accept(listener, stop, |stream| {
                let (tls, server, knobs) = (tls.clone(), server.clone(), Arc::clone(&knobs));
                async move {
                    knobs.accepted.fetch_add(1, Ordering::SeqCst);
                    // Who does not trust the authority hangs up.
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let certified = stream.get_ref().1.peer_certificates().is_some();
                    let service = service_fn(move |request| {
                        let (server, knobs) = (server.clone(), Arc::clone(&knobs));
                        async move {
                            Ok::<_, std::convert::Infallible>(
                                answer(&server, &knobs, request, certified).await,
                            )
                        }
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    let served =
                        builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                    // Whoever broke off knows.
                    served.await.ok();
                }
            })
            .await;
        });
    }
}

async fn answer(
    server: &ApiServer,
    knobs: &Knobs,
    request: Request<Incoming>,
    certified: bool,
) -> Response<Body> {
    if knobs.silent.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let path = request.uri().path();
    let asked = request.uri().to_string();
    if let Some((part, status, body)) = knobs.canned.lock().unwrap().clone()
        && asked.contains(&part)
    {
        let mut answer = Response::new(Body::from(body));
        *answer.status_mut() = status;
        return answer;
    }
    let pod = path.strip_suffix("/portforward");
    if let Some((_, pod)) = pod.and_then(|path| path.rsplit_once("/pods/")) {
        let to = knobs.forwards.lock().unwrap().get(pod).cloned();
        let to = to.unwrap_or(forward::To::Nobody);
        let mut tasks = knobs.forwarding.lock().unwrap();
        return forward::answer(request, to, &mut tasks);
    }
    let version = path == "/version";
    let auth = knobs.auth.lock().unwrap().clone();
    let answer = if certified && !request.headers().contains_key(header::AUTHORIZATION) {
        server.handle(User::admin(), request).await
    } else {
        server.guarded(&auth, request).await
    };
    if !version || !answer.status().is_success() {
        return answer;
    }
    let version = knobs.version.lock().unwrap().clone();
    let minor = version.split('.').nth(1).unwrap_or_default();
    let info = json!({
        "major": "1", "minor": minor, "gitVersion": version, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    });
    let (mut head, _) = answer.into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(info.to_string()))
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let identity = authority.sign("workload", &["localhost", "127.0.0.1"]);
    let trusted = authority.identity.certificate.as_bytes();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Base64, as kubeconfigs have it.
pub fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
