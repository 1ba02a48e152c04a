//! The one HTTP client of all forges: time and sizes are bounded, no redirect is followed, and each account keeps its pace.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use fleetwright_api::{fleet::ForgeType, secret::SecretText};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{PostError, answer, github, headers, pace::Pace};

/// Longest answer that is read, in bytes: a page of pull requests with long texts.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A request to be.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) body: Option<Value>,
    /// What the forge called the answer that we have.
    pub(crate) etag: Option<String>,
}

impl Call {
    /// Reads.
    pub(crate) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            body: None,
            etag: None,
        }
    }

    /// Writes.
    pub(crate) fn write(method: Method, url: Url, body: Value) -> Self {
        Self {
            method,
            url,
            body: Some(body),
            etag: None,
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// As far as it was read; why no further, if so.
    body: (Bytes, Option<String>),
    token: SecretText,
}

impl Reply {
    /// Itself, if the forge did what was asked for.
    ///
    /// # Errors
    /// See [`PostError`].
    pub(crate) fn judged(self) -> Result<Self, PostError> {
        answer::judge(self.status, &self.body.0, &self.token)?;
        Ok(self)
    }

    /// What the forge says went wrong.
    pub(crate) fn said(&self) -> String {
        answer::said(&self.body.0)
    }

    /// What was asked for.
    ///
    /// # Errors
    /// The answer was cut off, is too long or no JSON.
    pub(crate) fn json(&self) -> Result<Value, PostError> {
        let passing = |why: String| PostError::Passing(format!("the forge's answer {why}"));
        if let Some(why) = &self.body.1 {
            return Err(passing(format!("cannot be read: {why}")));
        }
        serde_json::from_slice(&self.body.0).map_err(|e| passing(format!("is no JSON: {e}")))
    }
}

/// The client.
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    lanes: Mutex<BTreeMap<String, Pace>>,
}

impl Http {
    /// A client that trusts the platform's certificates.
    ///
    /// # Errors
    /// The platform's trust store cannot be read.
    pub(crate) fn new() -> Result<Self, PostError> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .try_with_platform_verifier()
            .map_err(|e| {
                PostError::Configuration(format!(
                    "cannot read the platform's trusted certificates: {e}"
                ))
            })?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            lanes: Mutex::default(),
        })
    }

    /// Sends a request and reads its answer. Whoever is in the same `lane` shares the pace.
    ///
    /// # Errors
    /// No answer in time, or one that asks for patience. All other answers are the caller's to judge.
    pub(crate) async fn send(
        &self,
        kind: ForgeType,
        lane: &str,
        token: &SecretText,
        call: Call,
        now: Timestamp,
    ) -> Result<Reply, PostError> {
        let windows = match kind {
            ForgeType::Github if call.method != Method::GET => github::CONTENT,
            _ => &[],
        };
        let request = request(kind, token, call)?;
        self.pace(lane, |pace| pace.admit(windows, now))
            .map_err(|after| PostError::Held { after })?;
        let sent = Instant::now();
        let exchange = async {
            let response = self.client.request(request).await;
            let (head, body) = response.map_err(|e| passing(&e))?.into_parts();
            let body = match Limited::new(body, MAX_ANSWER).collect().await {
                Ok(body) => (body.to_bytes(), None),
                Err(error) => (Bytes::new(), Some(error.to_string())),
            };
            Ok(Reply {
                status: head.status,
                headers: head.headers,
                body,
                token: token.clone(),
            })
        };
        let late = || PostError::Passing(format!("no answer in {} s", TIMEOUT.as_secs()));
        let reply = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(late()))?;
        // Patience counts from the answer on.
        let now = now
            .checked_add(SignedDuration::try_from(sent.elapsed()).unwrap_or_default())
            .unwrap_or(now);
        match answer::limited(reply.status, &reply.headers, &reply.body.0, now) {
            Some(after) => {
                let after = self.pace(lane, |pace| pace.limited(after, now));
                Err(PostError::RateLimited { after })
            }
            None => {
                self.pace(lane, |pace| pace.taken(now));
                Ok(reply)
            }
        }
    }

    fn pace<T>(&self, lane: &str, act: impl FnOnce(&mut Pace) -> T) -> T {
        act(self.lanes.lock().entry(lane.to_owned()).or_default())
    }
}

fn request(
    kind: ForgeType,
    token: &SecretText,
    call: Call,
) -> Result<Request<Full<Bytes>>, PostError> {
    let wrong = |text: &str| PostError::Configuration(text.to_owned());
    let mut request = Request::builder()
        .method(call.method)
        .uri(call.url.as_str())
        .header(
            header::USER_AGENT,
            concat!("fleetwright/", env!("CARGO_PKG_VERSION")),
        );
    for (name, value) in headers(kind, token) {
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| wrong("the token holds characters that no header can carry"))?;
        value.set_sensitive(name == "authorization");
        request = request.header(name, value);
    }
    if let Some(etag) = call.etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let body = match call.body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    request
        .body(Full::new(body))
        .map_err(|_| wrong("the request cannot be sent: is forge.apiURL a URL?"))
}

fn passing(error: &dyn std::error::Error) -> PostError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    PostError::Passing(text)
}
