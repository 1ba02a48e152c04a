//! A proxy of our own in front of an emulator of Amazon EC2: it remembers client tokens, which none of the emulators does.
//!
//! A RunInstances with a token that was answered before gets the same answer, and makes nothing; with other parameters it is refused,
//! as AWS refuses it. Lists are asked for by short pages, so that they have several. Everything else passes as it came.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
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

/// What it remembers: by region and token, request and answer.
#[derive(Clone)]
struct Proxy {
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    tokens: Arc<Mutex<BTreeMap<(String, String), Turn>>>,
}

/// Starts one in front of `upstream`, on a thread of its own that runs as long as the process; gives its URL.
///
/// # Panics
/// When there is no port to listen on.
#[expect(clippy::expect_used, reason = "tests alone call it")]
pub fn remember(upstream: &str) -> String {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).expect("a port of loopback");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("its address");
    let upstream = upstream.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(serve(listener, upstream));
    });
    format!("http://{address}")
}

async fn serve(listener: TcpListener, upstream: String) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let proxy = Proxy {
        upstream,
        client: Client::builder(TokioExecutor::new()).build_http(),
        tokens: Arc::default(),
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
        let Some(token) = token(&body) else {
            return self.forward(head, body).await.unwrap_or_else(bad_gateway);
        };
        let key = (scope(&head), token);
        let turn = {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The client token of a RunInstances.
fn token(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let value = |name: &str| {
        let mut pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    };
    let runs = value("Action") == Some("RunInstances");
    value("ClientToken").filter(|_| runs).map(str::to_owned)
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
}
