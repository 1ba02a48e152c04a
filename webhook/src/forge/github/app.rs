//! Tokens of GitHub Apps: a signed statement of who we are is changed for a token that lives an hour.
//!
//! Wire format: GitHub REST API, "Create an installation access token for an app"; the statement is a JWT (RFC 7519) signed by
//! RS256.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fleetwright_api::{fleet::ForgeType, secret::SecretText};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use rustls::{
    SignatureScheme,
    pki_types::{PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::super::{
    AppCredentials, PostError,
    http::{Call, Http},
    remote,
};

/// Clocks differ: the statement is dated back, and ends before the ten minutes that GitHub grants.
const DATED_BACK: i64 = 60;
const STATEMENT: i64 = 9 * 60;
/// A token is not used in its last minutes: a request may take its time.
const RESERVE: SignedDuration = SignedDuration::from_mins(5);

/// A token, and until when it is given out.
struct Cached {
    token: SecretText,
    until: Timestamp,
}

type Slot = Arc<Mutex<Option<Cached>>>;

/// The tokens of all apps, kept until shortly before they end.
pub struct AppTokens {
    http: Arc<Http>,
    slots: Mutex<BTreeMap<String, Slot>>,
}

impl AppTokens {
    pub(in crate::forge) fn new(http: Arc<Http>) -> Self {
        Self {
            http,
            slots: Mutex::default(),
        }
    }

    /// A token of the app, for the API at `api` and for Git over https. It is good for at least five minutes.
    ///
    /// # Errors
    /// The key cannot be read, or GitHub refuses the app; see [`PostError`].
    pub async fn token(
        &self,
        app: &AppCredentials,
        api: &str,
        now: Timestamp,
    ) -> Result<SecretText, PostError> {
        let base = remote::base(ForgeType::Github, Some(api)).map_err(PostError::Configuration)?;
        let lane = remote::lane(&base, &app.identity());
        let slot = self.slot(&lane).await;
        // Who comes while it is asked for waits for the answer.
        let mut cached = slot.lock().await;
        if let Some(cached) = cached.as_ref().filter(|c| now < c.until) {
            return Ok(cached.token.clone());
        }
        let statement = statement(app, now)?;
        let mut url = base;
        if let Ok(mut path) = url.path_segments_mut() {
            let number = app.installation.to_string();
            let below = ["app", "installations", &number, "access_tokens"];
            path.pop_if_empty().extend(below);
        }
        let call = Call::write(Method::POST, url, json!({}));
        let reply = self
            .http
            .send(ForgeType::Github, &lane, &statement, call, now)
            .await?;
        let answer = reply.judged().map_err(explained)?.json()?;
        let fresh = read(&answer).ok_or_else(|| {
            PostError::Passing("the forge's answer holds no token of the app".into())
        })?;
        let token = fresh.token.clone();
        *cached = Some(fresh);
        Ok(token)
    }

    /// The token was refused: another one is asked for next time.
    pub(in crate::forge) async fn forget(&self, lane: &str) {
        *self.slot(lane).await.lock().await = None;
    }

    /// A lane tells all of the credentials apart: who does not have the key gets no token of those who do.
    async fn slot(&self, lane: &str) -> Slot {
        Arc::clone(self.slots.lock().await.entry(lane.to_owned()).or_default())
    }
}

/// What GitHub's refusals mean here.
fn explained(error: PostError) -> PostError {
    match error {
        PostError::Refused { status } => PostError::Configuration(format!(
            "GitHub refuses the app ({status}): do githubAppID and githubAppPrivateKey belong together, and is this machine's clock right?"
        )),
        PostError::Unknown { status, message } => PostError::Configuration(format!(
            "GitHub knows no such installation of the app ({status}): correct githubAppInstallationID: {message}"
        )),
        other => other,
    }
}

fn read(answer: &Value) -> Option<Cached> {
    let token = answer["token"].as_str().filter(|t| !t.is_empty())?;
    let ends: Timestamp = answer["expires_at"].as_str()?.parse().ok()?;
    Some(Cached {
        token: SecretText::new(token),
        until: ends.checked_sub(RESERVE).ok()?,
    })
}

/// Says who we are, for nine minutes.
pub(in crate::forge) fn statement(
    app: &AppCredentials,
    now: Timestamp,
) -> Result<SecretText, PostError> {
    // Neither the key nor what the parser says of it.
    let wrong = || {
        PostError::Configuration(
            "githubAppPrivateKey is no RSA key in PEM: download one in the app's settings".into(),
        )
    };
    let pem = app.private_key.expose().as_bytes();
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| wrong())?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| wrong())?;
    let signer = key
        .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
        .ok_or_else(wrong)?;
    let claims = json!({
        "exp": now.as_second() + STATEMENT,
        "iat": now.as_second() - DATED_BACK,
        "iss": app.app.to_string(),
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": "RS256", "typ": "JWT"})),
        part(&claims)
    );
    let signature = signer.sign(signed.as_bytes()).map_err(|_| wrong())?;
    let signature = URL_SAFE_NO_PAD.encode(signature);
    Ok(SecretText::new(format!("{signed}.{signature}")))
}
