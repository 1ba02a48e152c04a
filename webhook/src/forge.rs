//! Forges: GitHub, GitLab, Gitea and Forgejo.
//!
//! What is common is here and in [`http`]: one client, one kind of error, one rate. Each forge has a small module that says
//! where its requests go and what they look like.

mod answer;
pub mod credentials;
mod gitea;
mod github;
mod gitlab;
pub(crate) mod http;
mod pace;
mod remote;

use std::sync::Arc;

use ::http::StatusCode;
use async_trait::async_trait;
use fleetwright_api::{commit_status::StatusContent, fleet::ForgeType, names, secret::SecretText};
use jiff::Timestamp;

pub use answer::PostError;
pub use credentials::{AppCredentials, Credentials};
pub use github::app::AppTokens;
pub use remote::{Defaults, PUBLIC_GITHUB_API, Remote};

use http::{Call, Http, Reply};

/// What takes commit statuses: the forges, or what stands for them in a simulation.
#[async_trait]
pub trait Forge: Send + Sync + 'static {
    /// Posts one status.
    ///
    /// # Errors
    /// See [`PostError`]; the status may have been taken all the same.
    async fn post(
        &self,
        destination: &Destination<'_>,
        content: &StatusContent,
        now: Timestamp,
    ) -> Result<(), PostError>;
}

/// Where a status goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The repository.
    pub remote: &'a Remote,
    /// Full commit id.
    pub sha: &'a str,
    /// Context; one that is too long is cut so that it stays different from others.
    pub context: &'a str,
    /// Branch or tag on which the commit was seen, where that is known.
    pub reference: Option<&'a str>,
}

/// The forges over HTTP.
pub struct Forges {
    http: Arc<Http>,
    apps: Arc<AppTokens>,
    pub(crate) remembered: crate::pull_requests::Remembered,
}

impl Forges {
    /// A client that trusts the platform's certificates.
    ///
    /// # Errors
    /// The platform's trust store cannot be read.
    pub fn new() -> Result<Self, PostError> {
        let http = Arc::new(Http::new()?);
        Ok(Self {
            apps: Arc::new(AppTokens::new(Arc::clone(&http))),
            http,
            remembered: Default::default(),
        })
    }

    /// The tokens of GitHub Apps: for what else reaches GitHub with them, such as Git over https.
    #[must_use]
    pub fn apps(&self) -> Arc<AppTokens> {
        Arc::clone(&self.apps)
    }

    /// Sends one request to the remote's forge, with its token.
    ///
    /// # Errors
    /// No token, no answer, or one that asks for patience. All other answers are the caller's to judge.
    pub(crate) async fn send(
        &self,
        remote: &Remote,
        call: Call,
        now: Timestamp,
    ) -> Result<Reply, PostError> {
        let token = match &remote.credentials {
            Credentials::Token(token) => token.clone(),
            Credentials::App(app) => self.apps.token(app, remote.api.as_str(), now).await?,
        };
        let lane = remote.lane();
        let reply = self
            .http
            .send(remote.kind, &lane, &token, call, now)
            .await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            // An app's token was revoked before its time: the next request gets another one.
            self.apps.forget(&lane).await;
        }
        Ok(reply)
    }
}

#[async_trait]
impl Forge for Forges {
    async fn post(
        &self,
        destination: &Destination<'_>,
        content: &StatusContent,
        now: Timestamp,
    ) -> Result<(), PostError> {
        let Destination { remote, sha, .. } = destination;
        if !matches!(sha.len(), 40 | 64) || !sha.chars().all(|c| c.is_ascii_hexdigit()) {
            let text = format!("{sha:?} is no full commit id");
            return Err(PostError::Configuration(text));
        }
        let call = match remote.kind {
            ForgeType::Github => github::status(destination, content),
            ForgeType::Gitlab => gitlab::status(destination, content),
            ForgeType::Gitea => gitea::status(destination, content),
        };
        let reply = self.send(remote, call, now).await?;
        if remote.kind == ForgeType::Gitlab && gitlab::has_it_already(&reply, content.state) {
            return Ok(());
        }
        reply.judged().map(drop)
    }
}

/// Headers that say who asks, and in which version of the API.
fn headers(kind: ForgeType, token: &SecretText) -> Vec<(&'static str, String)> {
    match kind {
        ForgeType::Github => github::headers(token),
        ForgeType::Gitlab => gitlab::headers(token),
        ForgeType::Gitea => gitea::headers(token),
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

/// Longest context of GitHub and of GitLab, in characters; Gitea has no limit and keeps the same.
const MAX_CONTEXT: usize = 255;

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
