//! Tokens of GitHub Apps.

use fleetwright_api::{
    commit_status::CommitState::Success, condition, fleet::ForgeType, secret::SecretText,
};
use fleetwright_webhook::forge::{AppCredentials, Credentials, Forges, PostError};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::ObjectMeta;
use tokio::task::JoinSet;

use crate::{
    kit::Engine,
    stub::{
        Fault, Forge,
        routes::{APP, INSTALLATION},
    },
};

const PKCS1: &str = include_str!("../keys/app.pkcs1.pem");
const PKCS8: &str = include_str!("../keys/app.pkcs8.pem");
const START: i64 = 1_700_000_000;

fn app(key: &str) -> AppCredentials {
    AppCredentials {
        app: APP,
        installation: INSTALLATION,
        private_key: SecretText::new(key),
    }
}

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

async fn start(tasks: &mut JoinSet<()>) -> (Forge, Forges) {
    let forge = Forge::of(ForgeType::Github, tasks).await;
    forge.inner.state.lock().expires_at = after(3600).to_string();
    (forge, Forges::new().unwrap())
}

#[tokio::test]
async fn a_token_is_used_until_shortly_before_its_end() {
    let mut tasks = JoinSet::new();
    let (forge, forges) = start(&mut tasks).await;
    let app = app(PKCS1);
    let apps = forges.apps();
    let token = async |seconds| {
        let token = apps.token(&app, &forge.url, after(seconds)).await;
        token.unwrap().expose().to_owned()
    };
    assert_eq!(token(0).await, "ghs_1");
    assert_eq!(token(55 * 60 - 1).await, "ghs_1");
    assert_eq!(forge.seen().len(), 1);
    forge.inner.state.lock().expires_at = after(2 * 3600).to_string();
    assert_eq!(token(55 * 60).await, "ghs_2", "in its last five minutes");
    assert_eq!(token(60 * 60).await, "ghs_2");
    assert_eq!(forge.seen().len(), 1);
}

#[tokio::test]
async fn who_comes_together_asks_once() {
    let mut tasks = JoinSet::new();
    let (forge, forges) = start(&mut tasks).await;
    let mut all = JoinSet::new();
    for _ in 0..10 {
        let (apps, url) = (forges.apps(), forge.url.clone());
        all.spawn(async move { apps.token(&app(PKCS1), &url, after(0)).await });
    }
    while let Some(token) = all.join_next().await {
        assert_eq!(token.unwrap().unwrap().expose(), "ghs_1");
    }
    assert_eq!(forge.seen().len(), 1);
}

/// Two Fleets may name the same app; who has another key than the one that a token was got with does not get that token.
#[tokio::test]
async fn a_token_is_given_to_those_with_the_key_alone() {
    let mut tasks = JoinSet::new();
    let (forge, forges) = start(&mut tasks).await;
    let apps = forges.apps();
    let token = apps.token(&app(PKCS1), &forge.url, after(0)).await.unwrap();
    for key in ["", "nonsense", include_str!("../keys/ec.pem")] {
        let refused = apps.token(&app(key), &forge.url, after(0)).await;
        assert!(
            matches!(refused, Err(PostError::Configuration(_))),
            "{refused:?}"
        );
    }
    let other = apps.token(&app(PKCS8), &forge.url, after(0)).await.unwrap();
    assert_ne!(token, other);
}

#[tokio::test]
async fn what_github_refuses_says_what_to_correct() {
    for (fault, words) in [
        (
            Fault::Says(401, "A JSON web token could not be decoded"),
            "githubAppID",
        ),
        (Fault::Says(404, "Not Found"), "githubAppInstallationID"),
        (Fault::Cut, "cannot be read"),
        (Fault::Answer((502, &[])), "502"),
    ] {
        let mut tasks = JoinSet::new();
        let (forge, forges) = start(&mut tasks).await;
        forge.fault(&[fault]);
        let refused = forges.apps().token(&app(PKCS1), &forge.url, after(0)).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(words) && !text.contains("PRIVATE"), "{text}");
        // It may pass.
        let token = forges.apps().token(&app(PKCS1), &forge.url, after(1)).await;
        assert!(token.is_ok(), "{token:?}");
    }
    let mut tasks = JoinSet::new();
    let (forge, forges) = start(&mut tasks).await;
    let plain = forge.url.replace("127.0.0.1", "forge.example");
    let refused = forges.apps().token(&app(PKCS1), &plain, after(0)).await;
    assert!(refused.unwrap_err().to_string().contains("https only"));
}

/// The outbox posts as the app, and once more when its token was revoked.
#[tokio::test]
async fn statuses_are_posted_by_the_app() {
    let mut tasks = JoinSet::new();
    let forge = Forge::of(ForgeType::Github, &mut tasks).await;
    let far = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 200);
    forge.inner.state.lock().expires_at = far.to_string();
    let keys = [
        ("githubAppID", APP.to_string()),
        ("githubAppInstallationID", INSTALLATION.to_string()),
        ("githubAppPrivateKey", PKCS8.to_owned()),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("app".into()),
            ..ObjectMeta::default()
        },
        data: Some(
            keys.map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes())))
                .into(),
        ),
        ..Secret::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::with_secret(dir.path(), &forge, None, Some(secret)).await;
    engine.want("x", Success, "done").await;
    engine.until_posted("x", Success).await;
    let said = forge.got();
    assert_eq!(
        said.last().unwrap().headers["authorization"],
        "Bearer ghs_1"
    );
    forge.inner.state.lock().app_tokens[0] = "revoked".into();
    engine.want("y", Success, "done").await;
    let told = engine.until_reason("y", "Refused").await;
    let text = condition::get(&told.status.unwrap().conditions, "Posted")
        .unwrap()
        .message
        .clone();
    assert!(!text.contains("ghs_"), "{text}");
    engine.want("z", Success, "done").await;
    engine.until_posted("z", Success).await;
    let said = forge.got();
    assert_eq!(
        said.last().unwrap().headers["authorization"],
        "Bearer ghs_2"
    );
    let remote = forge.remote_with(Credentials::App(app(PKCS8)));
    assert!(!format!("{remote:?}").contains("PRIVATE"));
}
