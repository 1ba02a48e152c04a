//! `POST /webhooks/github`: wakes the Fleets that follow the pushed repository and ref.
//!
//! The delivery says "look again" and nothing else: what is deployed is what the repository then shows.

use std::{collections::BTreeSet, sync::Arc};

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
    Fleet, meta::ANNOTATION_REQUESTED_AT, random::hex, secret::SecretText, time::Clock,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{repository, seen::Seen, signature};

/// Longest body that is read, in bytes.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// Deliveries that are remembered.
const REMEMBERED: usize = 4096;
const FIELD_MANAGER: &str = "fleetwright-webhook";

/// What the receiver needs.
pub struct Receiver {
    client: Client,
    clock: Arc<dyn Clock>,
    /// Secret for Fleets that name none of their own.
    secret: Option<SecretText>,
    seen: Seen,
}

impl Receiver {
    /// A receiver that wakes Fleets through `client`. `secret` signs for Fleets without a
    /// `webhookSecretRef`.
    pub fn new(client: Client, clock: Arc<dyn Clock>, secret: Option<SecretText>) -> Self {
        Self {
            client,
            clock,
            secret,
            seen: Seen::new(REMEMBERED),
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/webhooks/github", post(github))
            .with_state(Arc::new(self))
    }

    /// The secret of a Fleet; `None` when there is none or it cannot be read.
    async fn secret_of(&self, fleet: &Fleet) -> Option<SecretText> {
        let Some(reference) = fleet
            .spec
            .forge
            .as_ref()
            .and_then(|f| f.webhook_secret_ref.as_ref())
        else {
            return self.secret.clone();
        };
        let namespace = fleet.namespace().unwrap_or_default();
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &namespace);
        let secret = match secrets.get(&reference.name).await {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!(fleet = %fleet.name_any(), secret = %reference.name, %error, "cannot read the webhook secret");
                return None;
            }
        };
        let bytes = secret.data?.remove("secret")?.0;
        String::from_utf8(bytes)
            .ok()
            .map(|text| SecretText::new(text.trim_end_matches(['\r', '\n'])))
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

/// An answer that says why.
fn answer(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({"message": message.into()}))).into_response()
}

async fn github(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Body) -> Response {
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
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    deliver(
        &receiver,
        text("x-hub-signature-256"),
        text("x-github-event"),
        text("x-github-delivery"),
        &body,
    )
    .await
}

async fn deliver(
    receiver: &Receiver,
    signature: Option<&str>,
    event: Option<&str>,
    delivery: Option<&str>,
    body: &Bytes,
) -> Response {
    let fleets = match Api::<Fleet>::all(receiver.client.clone())
        .list(&ListParams::default())
        .await
    {
        Ok(list) => list.items,
        Err(error) => {
            tracing::error!(%error, "cannot list Fleets");
            return answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "cannot list Fleets now: deliver again later",
            );
        }
    };
    // Nothing of the body is parsed before a secret has vouched for it.
    let mut vouched = Vec::new();
    let mut refusal = None;
    let mut known: Vec<(SecretText, Result<(), signature::SignatureError>)> = Vec::new();
    for fleet in fleets {
        let Some(secret) = receiver.secret_of(&fleet).await else {
            continue;
        };
        let verdict = match known.iter().find(|(s, _)| *s == secret) {
            Some((_, verdict)) => *verdict,
            None => {
                let verdict = signature::verify_github(&secret, signature, body);
                known.push((secret, verdict));
                verdict
            }
        };
        match verdict {
            Ok(()) => vouched.push(fleet),
            Err(error) => refusal = Some(error),
        }
    }
    if vouched.is_empty() {
        let why = refusal.map_or_else(
            || "no Fleet has a webhook secret".to_owned(),
            |e| e.to_string(),
        );
        return answer(StatusCode::UNAUTHORIZED, why);
    }
    let Some(event) = event else {
        return answer(StatusCode::BAD_REQUEST, "no X-GitHub-Event header");
    };
    let payload: Value = match serde_json::from_slice(body) {
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
    if event != "push" {
        return (
            StatusCode::OK,
            Json(json!({"message": format!("{event} wakes nobody"), "woken": []})),
        )
            .into_response();
    }
    let Some(pushed) = payload["ref"].as_str() else {
        return answer(StatusCode::BAD_REQUEST, "the push names no ref");
    };
    let id = delivery.unwrap_or_default().to_owned();
    let keys = [
        format!("id:{id}"),
        format!("body:{}", hex(&Sha256::digest(body))),
    ];
    let fresh: Vec<_> = keys
        .iter()
        .filter(|k| !id.is_empty() || !k.starts_with("id:"))
        .map(|k| receiver.seen.is_new(k))
        .collect();
    if fresh.contains(&false) {
        return (
            StatusCode::OK,
            Json(json!({"message": "seen before", "woken": []})),
        )
            .into_response();
    }
    let names = repository_names(&payload["repository"]);
    let default_branch = payload["repository"]["default_branch"].as_str();
    let mut woken = Vec::new();
    for fleet in vouched
        .iter()
        .filter(|f| concerns(f, &names, pushed, default_branch))
    {
        if let Err(error) = receiver.wake(fleet, &id).await {
            tracing::error!(fleet = %fleet.name_any(), %error, "cannot wake the Fleet");
            // The forge's redelivery must not look like a repetition.
            keys.iter().for_each(|k| receiver.seen.forget(k));
            return answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "cannot wake a Fleet now: deliver again later",
            );
        }
        woken.push(format!(
            "{}/{}",
            fleet.namespace().unwrap_or_default(),
            fleet.name_any()
        ));
    }
    tracing::info!(delivery = %id, %pushed, ?woken, "push received");
    (StatusCode::ACCEPTED, Json(json!({"woken": woken}))).into_response()
}

/// All names by which the payload calls its repository.
fn repository_names(repository: &Value) -> BTreeSet<String> {
    let mut names: BTreeSet<_> = ["clone_url", "ssh_url", "html_url", "git_url", "url"]
        .iter()
        .filter_map(|key| repository::normalise(repository[*key].as_str()?))
        .collect();
    if let Some(full) = repository["full_name"].as_str() {
        names.insert(full.to_lowercase());
    }
    names
}

fn concerns(
    fleet: &Fleet,
    names: &BTreeSet<String>,
    pushed: &str,
    default_branch: Option<&str>,
) -> bool {
    let source = &fleet.spec.source;
    let by_url = source
        .url
        .as_deref()
        .and_then(repository::normalise)
        .is_some_and(|n| names.contains(&n));
    let by_forge = fleet
        .spec
        .forge
        .as_ref()
        .is_some_and(|f| names.contains(&f.repository.to_lowercase()));
    let reference = source.reference.clone().unwrap_or_default();
    let follows = if reference.semver.is_some() {
        pushed.starts_with("refs/tags/")
    } else {
        repository::follows(
            pushed,
            reference.branch.as_deref(),
            reference.tag.as_deref(),
            default_branch,
        )
    };
    // A pinned commit never moves.
    (by_url || by_forge) && reference.commit.is_none() && follows
}

#[cfg(test)]
mod tests;
