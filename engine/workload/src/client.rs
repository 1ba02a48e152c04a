//! A client of one cluster over TLS: small, with time-outs, and telling when it fails.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri};
use hyper::body::{Frame, Incoming, SizeHint};
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
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
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

/// How many calls are under way at once, watches aside: each has a connection of its own while it lasts, and as many machines as a
/// rollout moves may ask at the same time.
const CALLS: usize = 4;
/// Longest time that a call waits for others to end. It says nothing of the cluster: nobody asked it.
const TURN: Duration = Duration::from_secs(15);

/// What is said of what a retired client was asked.
const RETIRED: &str = "another kubeconfig is used by now";
/// Largest answer: pages of lists have some megabytes.
const MOST_BYTES: usize = 64 << 20;
/// Largest event of a watch: etcd takes objects of 1.5 MiB.
const MOST_OF_EVENT: usize = 8 << 20;
/// Largest refusal.
const MOST_OF_REFUSAL: usize = 64 << 10;

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

/// How much of an answer may come: of all of it, or of each line where it is a stream of events.
struct Limit {
    most: usize,
    left: usize,
    lines: bool,
}

impl Limit {
    fn new(watch: bool, status: StatusCode) -> Self {
        let most = match (watch, status.is_success()) {
            (_, false) => MOST_OF_REFUSAL,
            (true, true) => MOST_OF_EVENT,
            (false, true) => MOST_BYTES,
        };
        Self {
            most,
            left: most,
            lines: watch && status.is_success(),
        }
    }

    /// Counts bytes that came; whether they may.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut lines = bytes.split(|byte| self.lines && *byte == b'\n');
        let first = lines.next().map_or(0, <[u8]>::len);
        let Some(mut left) = self.left.checked_sub(first) else {
            return false;
        };
        for line in lines {
            match self.most.checked_sub(line.len()) {
                Some(now) => left = now,
                None => return false,
            }
        }
        self.left = left;
        true
    }
}

/// An answer that is not too large, and breaks off once its client is retired. The next call has its place once it is read.
struct Answer {
    body: Incoming,
    limit: Limit,
    _place: Option<OwnedSemaphorePermit>,
    retired: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Answer {
    fn new(
        answer: http::Response<Incoming>,
        watch: bool,
        place: Option<OwnedSemaphorePermit>,
        retired: CancellationToken,
    ) -> http::Response<Self> {
        let limit = Limit::new(watch, answer.status());
        answer.map(|body| Self {
            body,
            limit,
            _place: place,
            retired: Box::pin(retired.cancelled_owned()),
        })
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.retired.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(RETIRED.into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
            && !self.limit.take(bytes)
        {
            let why = format!("an answer of more than {} bytes", self.limit.most);
            return Poll::Ready(Some(Err(why.into())));
        }
        Poll::Ready(frame.map(|f| f.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn busy() -> String {
    format!(
        "{CALLS} calls to the cluster are under way, and none has ended within {} s",
        TURN.as_secs()
    )
}

/// Whether a request asks for events without end.
fn is_watch(url: &Uri) -> bool {
    let mut parts = url.query().unwrap_or_default().split('&');
    parts.any(|part| matches!(part, "watch=true" | "watch=1"))
}

/// Whether a request waits until fewer are under way. Watches last, and whether a cluster answers is not told by how much it is asked.
fn waits(url: &Uri) -> bool {
    !is_watch(url) && url.path() != "/version"
}

/// A client that raises `doubt` when a connection fails and when the cluster does not accept the credentials. Once it is `retired` nothing
/// is asked through it, and answers that still come break off: watches do not stay with a cluster that is another by now.
///
/// # Errors
/// What [`check`] finds.
pub(crate) fn connect(
    config: &Config,
    doubt: Doubt,
    retired: CancellationToken,
) -> kube::Result<kube::Client> {
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
    let places = Arc::new(Semaphore::new(CALLS));
    let timed = tower::service_fn(move |request: Request<Body>| {
        let (watch, waits) = (is_watch(request.uri()), waits(request.uri()));
        let (calls, doubt) = (calls.clone(), doubt.clone());
        let (places, retired) = (Arc::clone(&places), retired.clone());
        async move {
            let turn = async {
                match waits {
                    true => timeout(TURN, places.acquire_owned()).await.map(Some),
                    false => Ok(None),
                }
            };
            let place = tokio::select! {
                biased;
                () = retired.cancelled() => return Err(RETIRED.into()),
                place = turn => place.map_err(|_| busy())?.transpose()?,
            };
            let answer = tokio::select! {
                biased;
                () = retired.cancelled() => return Err(RETIRED.into()),
                answer = timeout(ANSWER, calls.oneshot(request)) => answer,
            };
            let answer = match answer {
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
            answer.map(|answer| Answer::new(answer, watch, place, retired))
        }
    });
    let namespace = config.default_namespace.clone();
    Ok(kube::Client::new(timed, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_whole_and_events_line_by_line() {
        let limit = |lines| Limit {
            most: 4,
            left: 4,
            lines,
        };
        for (lines, parts, want) in [
            (false, &["ab", "cd"][..], true),
            (false, &["ab", "cde"], false),
            (false, &["a\nb\nc"], false),
            (true, &["a\nb\nc\n", "abcd\nabcd"], true),
            (true, &["abcd", "\nabcd"], true),
            (true, &["abc", "de\n"], false),
            (true, &["a\nabcde\n"], false),
            (true, &["a\nab", "cde"], false),
            (true, &["abcd", ""], true),
        ] {
            let mut limit = limit(lines);
            let fits = parts.iter().all(|part| limit.take(part.as_bytes()));
            assert_eq!(fits, want, "{lines} {parts:?}");
        }
        let most = |watch, status| Limit::new(watch, status).most;
        assert_eq!(most(true, StatusCode::FORBIDDEN), MOST_OF_REFUSAL);
        assert_eq!(most(true, StatusCode::OK), MOST_OF_EVENT);
        assert_eq!(most(false, StatusCode::OK), MOST_BYTES);
    }

    #[test]
    fn whether_a_cluster_answers_is_asked_at_once() {
        for (url, want) in [
            ("https://a/version", false),
            ("https://a/api/v1/nodes?watch=true", false),
            ("https://a/api/v1/nodes", true),
            ("https://a/apis/x/v1/version", true),
        ] {
            assert_eq!(waits(&url.parse().unwrap()), want, "{url}");
        }
    }

    #[test]
    fn events_are_told_from_other_answers() {
        for (url, want) in [
            (
                "https://a/api/v1/nodes?&watch=true&timeoutSeconds=290",
                true,
            ),
            (
                "https://a/api/v1/nodes?allowWatchBookmarks=true&watch=1",
                true,
            ),
            ("https://a/api/v1/nodes?&limit=500", false),
            ("https://a/api/v1/nodes?labelSelector=watch%3Dtrue", false),
            ("https://a/api/v1/watch", false),
        ] {
            assert_eq!(is_watch(&url.parse().unwrap()), want, "{url}");
        }
    }
}
