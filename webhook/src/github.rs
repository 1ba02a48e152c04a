//! Commit statuses of GitHub and GitHub Enterprise Server.
//!
//! Wire format: GitHub REST API, version 2022-11-28, "Commit statuses".

use std::time::Duration;

use bytes::Bytes;
use fleetwright_api::{commit_status::StatusContent, names, secret::SecretText};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use serde_json::json;
use url::Url;

/// API of github.com; an Enterprise Server has `https://HOST/api/v3`.
pub const PUBLIC_API: &str = "https://api.github.com";

/// Longest description and context that GitHub takes, in characters.
const MAX_DESCRIPTION: usize = 140;
const MAX_CONTEXT: usize = 255;
/// Longest answer that is read: an error's text matters, nothing beyond.
const MAX_ANSWER: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why a status was not posted, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The configuration is wrong; asking again cannot help.
    #[error("{0}")]
    Configuration(String),
    /// The forge asks for patience.
    #[error("the forge limits our rate; next try in {} s", after.as_secs())]
    RateLimited {
        /// How long.
        after: Duration,
    },
    /// The token was refused or may not write statuses.
    #[error("the forge refuses the token ({status}): it needs permission to write commit statuses")]
    Refused {
        /// HTTP status code.
        status: u16,
    },
    /// The forge knows no such repository or commit (perhaps not yet).
    #[error("the forge knows no such repository or commit ({status}): {message}")]
    Unknown {
        /// HTTP status code.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Anything that may pass: network, 5xx.
    #[error("{0}")]
    Passing(String),
}

/// Where a status goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Base URL of the forge's API.
    pub api: &'a str,
    /// Token that may write statuses.
    pub token: &'a SecretText,
    /// `owner/name`.
    pub repository: &'a str,
    /// Full commit id.
    pub sha: &'a str,
    /// Context; one that is too long is cut by [`context_name`].
    pub context: &'a str,
}

/// Posts commit statuses.
#[derive(Clone)]
pub struct GitHub {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl GitHub {
    /// A client that trusts the platform's certificates.
    ///
    /// # Errors
    /// The platform's trust store cannot be read.
    pub fn new() -> Result<Self, PostError> {
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
            http: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Posts one status: `POST {api}/repos/{repository}/statuses/{sha}`.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn post(
        &self,
        destination: &Destination<'_>,
        content: &StatusContent,
        now: Timestamp,
    ) -> Result<(), PostError> {
        let Destination {
            api,
            token,
            repository,
            sha,
            context,
        } = *destination;
        let url = status_url(api, repository, sha)?;
        let body = json!({
            "state": content.state.as_str(),
            "description": cut(&content.description, MAX_DESCRIPTION),
            "context": context_name(context),
            "target_url": content.target_url,
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose()))
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("fleetwright/", env!("CARGO_PKG_VERSION")),
            )
            .header("X-GitHub-Api-Version", "2022-11-28")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|_| {
                PostError::Configuration(
                    "the token holds characters that no header can carry".into(),
                )
            })?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|e| passing(&e))?;
            let (head, body) = response.into_parts();
            let text = Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .map(|b| b.to_bytes())
                .unwrap_or_default();
            judge(head.status, &head.headers, &text, now)
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(PostError::Passing(format!(
                    "no answer in {} s",
                    TIMEOUT.as_secs()
                )))
            })
    }
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

fn status_url(api: &str, repository: &str, sha: &str) -> Result<Url, PostError> {
    let wrong = |what: String| PostError::Configuration(what);
    let base = Url::parse(api)
        .map_err(|e| wrong(format!("the forge's URL {api:?} cannot be read: {e}")))?;
    let loopback = base.host().is_some_and(|host| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    });
    if base.scheme() != "https" && !(base.scheme() == "http" && loopback) {
        return Err(wrong(format!(
            "the token is sent over https only, but the forge's URL is {api}"
        )));
    }
    let part = |text: &str| {
        !text.is_empty()
            && text != "."
            && text != ".."
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    match repository.split_once('/') {
        Some((owner, name)) if part(owner) && part(name) => {}
        _ => {
            return Err(wrong(format!(
                "the forge's repository {repository:?} is not of the form owner/name"
            )));
        }
    }
    if !matches!(sha.len(), 40 | 64) || !sha.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(wrong(format!("{sha:?} is no full commit id")));
    }
    let whole = format!(
        "{}/repos/{repository}/statuses/{sha}",
        api.trim_end_matches('/')
    );
    Url::parse(&whole).map_err(|e| wrong(format!("{whole:?} is no URL: {e}")))
}

fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), PostError> {
    if status.is_success() {
        return Ok(());
    }
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let limited = || {
        if let Some(seconds) = number("retry-after") {
            return Some(seconds);
        }
        (number("x-ratelimit-remaining") == Some(0))
            .then(|| number("x-ratelimit-reset").map_or(60, |reset| reset - now.as_second()))
    };
    let message = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|v| v["message"].as_str().map(|m| cut(m, 200)))
        .unwrap_or_default();
    let code = status.as_u16();
    match code {
        429 | 403 if limited().is_some() || code == 429 => {
            let seconds = limited().unwrap_or(60).clamp(1, 3600);
            Err(PostError::RateLimited {
                after: Duration::from_secs(seconds.unsigned_abs()),
            })
        }
        401 | 403 => Err(PostError::Refused { status: code }),
        404 | 422 => Err(PostError::Unknown {
            status: code,
            message,
        }),
        500..=599 | 408 => Err(PostError::Passing(format!(
            "the forge answered {code} {message}"
        ))),
        _ => Err(PostError::Configuration(format!(
            "the forge answered {code} {message}"
        ))),
    }
}

/// The text in at most `most` characters, with an ellipsis where it was cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// The context in at most 255 characters; a cut one ends with a hash of the whole, so that long ones stay
/// different.
pub fn context_name(context: &str) -> String {
    if context.chars().count() <= MAX_CONTEXT {
        return context.to_owned();
    }
    let hash = names::short_hash(["context", context], 12);
    let head: String = context.chars().take(MAX_CONTEXT - 13).collect();
    format!("{head}-{hash}")
}

#[cfg(test)]
mod tests;
