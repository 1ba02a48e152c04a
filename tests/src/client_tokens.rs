//! A proxy of our own in front of an emulator of Amazon EC2: it remembers client tokens, which none of the emulators does.
//!
//! A RunInstances with a token that was answered before gets the same answer, and makes nothing; with other parameters it is refused,
//! as AWS refuses it. Lists are asked for by short pages, so that they have several. Everything else passes as it came. All calls that
//! come are written down.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::task::JoinSet;

type Answer = Response<Full<Bytes>>;
type Turn = Arc<tokio::sync::Mutex<Option<(Bytes, http::response::Parts, Bytes)>>>;

/// A call that came.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was asked for, such as `RunInstances`.
    pub action: String,
    body: String,
    /// Whether it was answered, and with success.
    pub done: bool,
}

impl Call {
    fn of(head: &http::request::Parts, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body).into_owned();
        let target = head.headers.get("x-amz-target");
        let target = target.and_then(|t| t.to_str().ok()?.rsplit('.').next());
        let action = target.or_else(|| value(&body, "Action"));
        let action = action.map_or_else(|| format!("{} {}", head.method, head.uri), str::to_owned);
        Self {
            action,
            body,
            done: false,
        }
    }

    /// Whether it asks and changes nothing.
    pub fn reads(&self) -> bool {
        self.action.starts_with("Describe") || self.action.starts_with("Get")
    }

    /// A parameter of a call of EC2 or Elastic Load Balancing, such as `InstanceId.1`, as it was sent.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        value(&self.body, name)
    }
}

/// A running proxy.
#[derive(Clone, Debug)]
pub struct Front {
    url: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Front {
    /// Starts one in front of `upstream`, on a thread of its own that runs as long as the process. Where `balancers` is said it is the
    /// host name that load balancers have: nobody resolves those that an emulator gives.
    ///
    /// # Panics
    /// When there is no port to listen on.
    #[expect(clippy::expect_used, reason = "tests alone call it")]
    pub fn start(upstream: &str, balancers: Option<&'static str>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(any).expect("a port of loopback");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("its address");
        let proxy = Proxy {
            upstream: upstream.to_owned(),
            balancers,
            client: Client::builder(TokioExecutor::new()).build_http(),
            tokens: Arc::default(),
            calls: Arc::default(),
        };
        let calls = Arc::clone(&proxy.calls);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(serve(listener, proxy));
        });
        Self {
            url: format!("http://{address}"),
            calls,
        }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All calls up to now, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }
}

/// Starts a proxy in front of `upstream`; gives its URL.
///
/// # Panics
/// As [`Front::start`] does.
pub fn remember(upstream: &str) -> String {
    Front::start(upstream, None).url
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it knows: by region and token, request and answer.
#[derive(Clone)]
struct Proxy {
    upstream: String,
    balancers: Option<&'static str>,
    client: Client<HttpConnector, Full<Bytes>>,
    tokens: Arc<Mutex<BTreeMap<(String, String), Turn>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

async fn serve(listener: TcpListener, proxy: Proxy) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let proxy = proxy.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| {
                let proxy = proxy.clone();
                async move { Ok::<_, Infallible>(proxy.answer(request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            connection.await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return bad_gateway();
        };
        let body = with_short_pages(body.to_bytes());
        let at = {
            let mut calls = lock(&self.calls);
            calls.push(Call::of(&head, &body));
            calls.len() - 1
        };
        let answer = self.answer_to(head, body).await;
        if let Some(call) = lock(&self.calls).get_mut(at) {
            call.done = answer.status().is_success();
        }
        answer
    }

    async fn answer_to(&self, head: http::request::Parts, body: Bytes) -> Answer {
        let Some(token) = token(&body) else {
            return self.forward(head, body).await.unwrap_or_else(bad_gateway);
        };
        let key = (scope(&head), token);
        let turn = {
            let mut tokens = lock(&self.tokens);
            Arc::clone(tokens.entry(key).or_default())
        };
        // Of several at once the later ones wait for the answer of the first.
        let mut known = turn.lock().await;
        match &*known {
            Some((before, head, answer)) if *before == body => {
                Response::from_parts(head.clone(), Full::new(answer.clone()))
            }
            Some(_) => mismatch(),
            None => {
                let Some(answer) = self.forward(head, body.clone()).await else {
                    return bad_gateway();
                };
                let (head, text) = answer.into_parts();
                let Ok(text) = text.collect().await;
                let text = text.to_bytes();
                if head.status == StatusCode::OK {
                    *known = Some((body, head.clone(), text.clone()));
                }
                Response::from_parts(head, Full::new(text))
            }
        }
    }

    async fn forward(&self, mut head: http::request::Parts, body: Bytes) -> Option<Answer> {
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
        head.uri = format!("{}{path}", self.upstream).parse().ok()?;
        let request = Request::from_parts(head, Full::new(body));
        let (mut head, body) = self.client.request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        head.headers.remove("transfer-encoding");
        let body = match self.balancers {
            Some(host) => {
                head.headers.remove("content-length");
                with_host(body, host)
            }
            None => body,
        };
        Some(Response::from_parts(head, Full::new(body)))
    }
}

/// A request for a list of instances with few on a page, which has the length that it had.
fn with_short_pages(body: Bytes) -> Bytes {
    let text = String::from_utf8_lossy(&body);
    if !text.starts_with("Action=DescribeInstances&") {
        return body;
    }
    text.replace("MaxResults=1000", "MaxResults=0005").into()
}

/// An answer in which load balancers have this host name.
fn with_host(body: Bytes, host: &str) -> Bytes {
    const NAME: [&str; 2] = ["<DNSName>", "</DNSName>"];
    let text = String::from_utf8_lossy(&body);
    if !text.contains(NAME[0]) {
        return body;
    }
    let mut parts = text.split(NAME[0]);
    let mut with = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once(NAME[1]).map_or(part, |(_, rest)| rest);
        with.extend([NAME[0], host, NAME[1], rest]);
    }
    with.into()
}

/// A parameter of a form.
fn value<'a>(form: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// The client token of a RunInstances.
fn token(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let runs = value(text, "Action") == Some("RunInstances");
    value(text, "ClientToken")
        .filter(|_| runs)
        .map(str::to_owned)
}

/// Region that the request was signed for: tokens of two regions have nothing to do with each other.
fn scope(head: &http::request::Parts) -> String {
    let header = head.headers.get("authorization");
    let text = header.and_then(|h| h.to_str().ok()).unwrap_or_default();
    let scope = text.split("Credential=").nth(1).unwrap_or_default();
    let scope = scope.split(',').next().unwrap_or_default();
    scope.split('/').skip(2).take(1).collect::<String>()
}

fn mismatch() -> Answer {
    let text = "<Response><Errors><Error><Code>IdempotentParameterMismatch</Code><Message>Arguments on this idempotent request are \
                inconsistent with arguments used in previous request(s).</Message></Error></Errors><RequestID>none</RequestID></Response>";
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer
}

fn bad_gateway() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_machines_that_are_made_have_a_token() {
        let body = b"Action=RunInstances&Version=2016-11-15&ClientToken=abc&MaxCount=1";
        assert_eq!(token(body).as_deref(), Some("abc"));
        assert_eq!(token(b"Action=CreateVolume&ClientToken=abc"), None);
        assert_eq!(token(b"Action=RunInstances"), None);
        let list = with_short_pages(Bytes::from_static(
            b"Action=DescribeInstances&MaxResults=1000",
        ));
        assert_eq!(list, "Action=DescribeInstances&MaxResults=0005");
    }

    #[test]
    fn load_balancers_alone_have_another_host() {
        let two = Bytes::from_static(b"<a><DNSName>x.aws</DNSName><b/><DNSName>y</DNSName></a>");
        let want = "<a><DNSName>localhost</DNSName><b/><DNSName>localhost</DNSName></a>";
        assert_eq!(with_host(two, "localhost"), want);
        let none = Bytes::from_static(b"<a>x.aws</a>");
        assert_eq!(with_host(none, "localhost"), "<a>x.aws</a>");
    }
}
