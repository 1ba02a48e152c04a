//! A client of one cluster over TLS: small, with time-outs, and telling when it fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt, RustlsTlsError},
};
use rustls::{client::Resumption, pki_types::ServerName};
use secrecy::{ExposeSecret, SecretString};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneService};

/// Longest time for a connection, the TLS handshake with it.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for the head of an answer; watches begin to answer at once too.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);
/// Longest silence in the middle of an answer: watches end at the latest after 290 s.
const SILENCE: Duration = Duration::from_secs(300);
/// After so long without a word the other end is asked whether it is there, thrice: a way that is cut gives no sign.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Largest buffer of a connection: the least that the library takes. Each cluster has one connection for its watch.
const BUFFER: usize = 8 << 10;
/// How long a connection is kept for the next call, and how many: machines of a rollout ask one after the other.
const IDLE: (Duration, usize) = (Duration::from_secs(30), 1);

/// Raised when a call gives reason to look whether the cluster is there and knows us.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether there was a reason since the last time that this was asked.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What is wrong with the credentials and certificates of a configuration, and what would be right.
pub(crate) fn check(config: &Config) -> Result<(), &'static str> {
    // The library panics otherwise.
    let token = config.auth_info.token.as_ref();
    let unfit = |token: &SecretString| HeaderValue::from_str(token.expose_secret()).is_err();
    if token.is_some_and(unfit) || config.auth_layer().is_err() {
        return Err("token has characters that no header can have");
    }
    let names = config.extra_headers_layer().map(drop);
    names.map_err(|_| "as, as-uid, as-groups and as-user-extra are words without line breaks")?;
    match config.rustls_client_config() {
        Ok(_) => Ok(()),
        Err(kube::Error::RustlsTls(RustlsTlsError::AddRootCertificate(_))) => {
            Err("a certificate in certificate-authority-data of its cluster cannot be used")
        }
        Err(_) => Err(
            "client-certificate-data and client-key-data must be base64 of a certificate and its private key in PEM, both or neither",
        ),
    }
}

/// A client that raises `doubt` when a connection fails and when the cluster does not accept the credentials.
///
/// # Errors
/// What [`check`] finds.
pub(crate) fn connect(config: &Config, doubt: Doubt) -> kube::Result<kube::Client> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE / 3));
    http.set_keepalive_retries(Some(3));
    let mut tls = config.rustls_client_config()?;
    // The memory for sessions of servers is a third of all that a cluster takes, and there is one server.
    tls.resumption = Resumption::disabled();
    let name = config.tls_server_name.clone();
    let name = move |url: &Uri| {
        // The brackets around an address of IPv6 are the URL's.
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(name.as_deref().unwrap_or(host).to_owned())
    };
    let https = HttpsConnector::new(http, tls, true, Arc::new(name));
    let mut connector = TimeoutConnector::new(https);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_write_timeout(Some(ANSWER));
    connector.set_reset_reader_on_write(true);
    let http: Client<_, Body> = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE.0)
        .pool_max_idle_per_host(IDLE.1)
        .http1_max_buf_size(BUFFER)
        .build(connector);
    let calls = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    let calls = BoxCloneService::new(calls);
    let timed = tower::service_fn(move |request: Request<Body>| {
        let (call, doubt) = (calls.clone().oneshot(request), doubt.clone());
        async move {
            let answer = match tokio::time::timeout(ANSWER, call).await {
                Ok(answer) => answer,
                Err(_) => Err(BoxError::from(format!(
                    "no answer within {} s",
                    ANSWER.as_secs()
                ))),
            };
            let refused = |a: &http::Response<_>| a.status() == StatusCode::UNAUTHORIZED;
            if answer.as_ref().map_or(true, refused) {
                doubt.raise();
            }
            answer
        }
    });
    let namespace = config.default_namespace.clone();
    Ok(kube::Client::new(timed, namespace))
}
