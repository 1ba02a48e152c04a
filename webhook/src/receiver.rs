//! `POST /webhooks/github`, `/webhooks/gitlab` and `/webhooks/gitea`: wake the Fleets that a delivery concerns.
//!
//! The delivery says "look again" and nothing else: what is deployed is what the repository then shows.

mod concerns;
mod events;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use fleetwright_api::{
    Fleet, fleet::ForgeType, meta::ANNOTATION_REQUESTED_AT, random::hex, secret::SecretText,
    time::Clock,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    metrics::Metrics,
    seen::Seen,
    signature::{self, SignatureError},
};
use concerns::concerns;
use events::{NoNews, header, read};

/// Longest body that is read, in bytes.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// Deliveries that are remembered.
const REMEMBERED: usize = 4096;
/// Longest name of a delivery that is kept, in characters.
const MAX_ID: usize = 100;
const FIELD_MANAGER: &str = "fleetwright-webhook";
/// Keys of the Secret that signs webhooks: the second holds what signed them before, while the forge is told of the first.
const SECRETS: [&str; 2] = ["secret", "previousSecret"];

/// What the receiver needs.
pub struct Receiver {
    client: Client,
    clock: Arc<dyn Clock>,
    /// Secret for Fleets that name none of their own.
    secret: Option<SecretText>,
    metrics: Metrics,
    seen: Seen,
}

impl Receiver {
    /// A receiver that wakes Fleets through `client`. `secret` signs for Fleets without a
    /// `webhookSecretRef`.
    pub fn new(
        client: Client,
        clock: Arc<dyn Clock>,
        secret: Option<SecretText>,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            clock,
            secret,
            metrics,
            seen: Seen::new(REMEMBERED),
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let take = |kind| {
            post(
                move |State(receiver): State<Arc<Self>>, headers: HeaderMap, body: Body| async move {
                    let begun = Instant::now();
                    let answer = receiver.take(kind, &headers, body).await;
                    let code = answer.status().as_u16();
                    receiver.metrics.delivered(kind, code, begun.elapsed());
                    answer
                },
            )
        };
        Router::new()
            .route("/webhooks/github", take(ForgeType::Github))
            .route("/webhooks/gitlab", take(ForgeType::Gitlab))
            .route("/webhooks/gitea", take(ForgeType::Gitea))
            .with_state(Arc::new(self))
    }

    async fn take(&self, kind: ForgeType, headers: &HeaderMap, body: Body) -> Response {
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return answer(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body exceeds {MAX_BODY} bytes"),
                );
            }
            Err(error) => {
                return answer(
                    StatusCode::BAD_REQUEST,
                    format!("the body cannot be read: {error}"),
                );
            }
        };
        // Nothing of the body is parsed before a secret has vouched for it.
        let vouched = match self.vouched(kind, headers, &body).await {
            Ok(fleets) => fleets,
            Err(refusal) => return refusal,
        };
        let payload: Value = match serde_json::from_slice(&body) {
            Ok(value) => value,
            Err(error) => {
                return answer(
                    StatusCode::BAD_REQUEST,
                    format!(
                        "the body is no JSON: {error}: choose content type application/json in the forge's webhook"
                    ),
                );
            }
        };
        let news = match read(kind, headers, &payload) {
            Ok(news) => news,
            Err(NoNews::Malformed(why)) => return answer(StatusCode::BAD_REQUEST, why),
            Err(NoNews::Ignored(why)) => return ignored(why),
        };
        let id = delivery(kind, headers);
        let keys = keys(kind, &id, &body);
        let fresh: Vec<_> = keys.iter().map(|k| self.seen.is_new(k)).collect();
        if fresh.contains(&false) {
            return ignored("seen before".to_owned());
        }
        let mut woken = Vec::new();
        for fleet in vouched.iter().filter(|f| concerns(f, &news)) {
            if let Err(error) = self.wake(fleet, &id).await {
                tracing::error!(fleet = %fleet.name_any(), %error, "cannot wake the Fleet");
                // The forge's redelivery must not look like a repetition.
                keys.iter().for_each(|k| self.seen.forget(k));
                return answer(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "cannot wake a Fleet now: deliver again later",
                );
            }
            let namespace = fleet.namespace().unwrap_or_default();
            woken.push(format!("{namespace}/{}", fleet.name_any()));
        }
        tracing::info!(forge = kind.as_str(), delivery = %id, event = ?news.event, ?woken, "webhook received");
        if woken.is_empty() {
            return ignored("no Fleet follows this".to_owned());
        }
        (StatusCode::ACCEPTED, Json(json!({"woken": woken}))).into_response()
    }

    /// The Fleets of such a forge for whose secret the delivery is signed; or the answer that refuses it.
    async fn vouched(
        &self,
        kind: ForgeType,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Vec<Fleet>, Response> {
        let fleets = Api::<Fleet>::all(self.client.clone());
        let fleets = fleets.list(&ListParams::default()).await.map_err(|error| {
            tracing::error!(%error, "cannot list Fleets");
            answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "cannot list Fleets now: deliver again later",
            )
        })?;
        let now = self.clock.now();
        let mut vouched = Vec::new();
        let mut refusal = None;
        let mut known: Vec<(SecretText, Result<(), SignatureError>)> = Vec::new();
        let fits = |fleet: &Fleet| fleet.spec.forge.as_ref().is_none_or(|f| f.kind == kind);
        for fleet in fleets.items.into_iter().filter(fits) {
            let mut believed = false;
            for secret in self.secrets_of(&fleet).await {
                let verdict = match known.iter().find(|(s, _)| *s == secret) {
                    Some((_, verdict)) => *verdict,
                    None => {
                        let verdict = signature::verify(kind, &secret, headers, body, now);
                        known.push((secret, verdict));
                        verdict
                    }
                };
                believed |= verdict.is_ok();
                refusal = refusal.or(verdict.err());
            }
            if believed {
                vouched.push(fleet);
            }
        }
        if vouched.is_empty() {
            let none = || {
                format!(
                    "no Fleet of such a forge ({}) has a webhook secret",
                    kind.as_str()
                )
            };
            let why = refusal.map_or_else(none, |e| e.to_string());
            return Err(answer(StatusCode::UNAUTHORIZED, why));
        }
        Ok(vouched)
    }

    /// The secrets of a Fleet; none when there are none or they cannot be read.
    async fn secrets_of(&self, fleet: &Fleet) -> Vec<SecretText> {
        let Some(reference) = fleet
            .spec
            .forge
            .as_ref()
            .and_then(|f| f.webhook_secret_ref.as_ref())
        else {
            return self.secret.clone().into_iter().collect();
        };
        let namespace = fleet.namespace().unwrap_or_default();
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &namespace);
        let data = match secrets.get(&reference.name).await {
            Ok(secret) => secret.data.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(fleet = %fleet.name_any(), secret = %reference.name, %error, "cannot read the webhook secret");
                return Vec::new();
            }
        };
        let text = |key: &str| {
            let text = std::str::from_utf8(&data.get(key)?.0).ok()?;
            Some(SecretText::new(text.trim_end_matches(['\r', '\n'])))
        };
        SECRETS.iter().filter_map(|key| text(key)).collect()
    }

    /// Asks a Fleet to look at its repository now.
    async fn wake(&self, fleet: &Fleet, delivery: &str) -> Result<(), kube::Error> {
        let at = format!("{} {delivery}", self.clock.now());
        let patch = json!({"metadata": {"annotations": {ANNOTATION_REQUESTED_AT: at}}});
        Api::<Fleet>::namespaced(self.client.clone(), &fleet.namespace().unwrap_or_default())
            .patch_metadata(
                &fleet.name_any(),
                &PatchParams::apply(FIELD_MANAGER),
                &Patch::Merge(&patch),
            )
            .await?;
        Ok(())
    }
}

/// The forge's name of the delivery, the same when it delivers again; empty when it gives none.
fn delivery(kind: ForgeType, headers: &HeaderMap) -> String {
    let names: &[&str] = match kind {
        ForgeType::Github => &["x-github-delivery"],
        // The first is signed, where there is a signature.
        ForgeType::Gitlab => &["webhook-id", "idempotency-key"],
        ForgeType::Gitea => &["x-forgejo-delivery", "x-gitea-delivery"],
    };
    let id = header(headers, names).unwrap_or_default();
    id.chars()
        .filter(char::is_ascii_graphic)
        .take(MAX_ID)
        .collect()
}

/// By what a delivery is known again: its name, and its body, for names are not signed everywhere.
fn keys(kind: ForgeType, id: &str, body: &[u8]) -> Vec<String> {
    let kind = kind.as_str();
    let named = (!id.is_empty()).then(|| format!("{kind} id:{id}"));
    let whole = format!("{kind} body:{}", hex(&Sha256::digest(body)));
    named.into_iter().chain([whole]).collect()
}

/// An answer that says why.
fn answer(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({"message": message.into()}))).into_response()
}

/// It was understood, and there is nothing to do. Forges turn webhooks off that answer otherwise.
fn ignored(message: String) -> Response {
    (
        StatusCode::OK,
        Json(json!({"message": message, "woken": []})),
    )
        .into_response()
}

#[cfg(test)]
mod tests;
