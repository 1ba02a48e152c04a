use std::collections::BTreeMap;

use axum::{
    extract::{Path, State as Extract},
    routing::{get, patch},
};
use fleetwright_api::{
    cluster::LocalSecretRef,
    fleet::{FleetSource, FleetSpec, Forge, GitRef, PullRequests},
    time::ManualClock,
};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use parking_lot::Mutex;
use tower::ServiceExt;

use super::*;

mod secrets;

const SECRET: &str = "s3cret";

type Patches = Arc<Mutex<Vec<(String, Value)>>>;

/// The part of the Kubernetes API that the receiver uses, over a fixed list of Fleets and one Secret for all of them.
fn api(fleets: Vec<Fleet>, secret: Option<Secret>) -> (Client, Patches) {
    let patches = Patches::default();
    let named: BTreeMap<_, _> = fleets.iter().map(|f| (f.name_any(), f.clone())).collect();
    let list = json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "FleetList", "metadata": {}, "items": fleets});
    let router = Router::new()
        .route(
            "/apis/fleetwright.dev/v1alpha1/fleets",
            get(move || async move { Json(list) }),
        )
        .route(
            "/apis/fleetwright.dev/v1alpha1/namespaces/{ns}/fleets/{name}",
            patch(
                |Extract(patches): Extract<Patches>,
                 Path((_, name)): Path<(String, String)>,
                 Json(body): Json<Value>| async move {
                    let meta = json!({
                        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                        "metadata": named.get(&name).map(|f| &f.metadata),
                    });
                    patches.lock().push((name, body));
                    Json(meta)
                },
            ),
        )
        .route(
            "/api/v1/namespaces/{ns}/secrets/{name}",
            get(move || async move {
                let missing =
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404});
                secret.map_or(
                    (StatusCode::NOT_FOUND, Json(missing)).into_response(),
                    |s| Json(s).into_response(),
                )
            }),
        )
        .with_state(patches.clone());
    (Client::new(router, "default"), patches)
}

fn fleet(name: &str, url: Option<&str>, forge: Option<&str>, branch: Option<&str>) -> Fleet {
    let source = FleetSource {
        url: url.map(Into::into),
        reference: branch.map(|b| GitRef {
            branch: Some(b.into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let forge = forge.map(|repository| Forge {
        kind: ForgeType::Github,
        repository: repository.into(),
        api_url: None,
        secret_ref: None,
        webhook_secret_ref: None,
        ..Forge::default()
    });
    let mut fleet = Fleet::new(
        name,
        FleetSpec {
            source,
            forge,
            ..Default::default()
        },
    );
    fleet.metadata.namespace = Some("default".into());
    fleet
}

/// A Fleet of a forge, with a Secret of its own for webhooks.
fn fleet_of(name: &str, kind: ForgeType) -> Fleet {
    let mut fleet = fleet(name, None, Some("acme/fleet"), None);
    if let Some(forge) = &mut fleet.spec.forge {
        forge.kind = kind;
        forge.webhook_secret_ref = Some(LocalSecretRef {
            name: "webhooks".into(),
        });
    }
    fleet
}

fn secret(pairs: &[(&str, &str)]) -> Secret {
    let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()));
    Secret {
        data: Some(pairs.iter().map(pair).collect()),
        ..Secret::default()
    }
}

fn push(reference: &str) -> Vec<u8> {
    json!({
        "ref": reference,
        "after": "1".repeat(40),
        "repository": {
            "full_name": "Acme/Fleet",
            "clone_url": "https://github.com/acme/fleet.git",
            "ssh_url": "git@github.com:acme/fleet.git",
            "default_branch": "main",
        },
    })
    .to_string()
    .into_bytes()
}

fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

struct Kit {
    router: Router,
    patches: Patches,
}

fn uncounted() -> Metrics {
    Metrics::register(&mut prometheus_client::registry::Registry::default())
}

impl Kit {
    fn new(fleets: Vec<Fleet>, secret: Option<&str>) -> Self {
        Self::with(fleets, secret, None)
    }

    fn with(fleets: Vec<Fleet>, secret: Option<&str>, stored: Option<Secret>) -> Self {
        let (client, patches) = api(fleets, stored);
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let router =
            Receiver::new(client, clock, secret.map(SecretText::new), uncounted()).router();
        Self { router, patches }
    }

    async fn send(&self, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Value) {
        self.send_to("github", headers, body).await
    }

    async fn send_to(&self, forge: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Value) {
        let mut request = http::Request::post(format!("/webhooks/{forge}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .router
            .clone()
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn push(&self, reference: &str, delivery: &str) -> (u16, Value) {
        let body = push(reference);
        let signature = sign(SECRET, &body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", "push"),
            ("x-github-delivery", delivery),
        ];
        self.send(&headers, body).await
    }
}

#[tokio::test]
async fn wakes_the_fleets_that_follow_the_repository_and_ref() {
    let fleets = vec![
        fleet(
            "by-url",
            Some("ssh://git@github.com/acme/fleet"),
            None,
            None,
        ),
        fleet(
            "by-forge",
            Some("file:///srv/fleet.git"),
            Some("acme/fleet"),
            Some("main"),
        ),
        fleet(
            "other-branch",
            Some("https://github.com/acme/fleet"),
            None,
            Some("next"),
        ),
        fleet(
            "other-repository",
            Some("https://github.com/acme/other"),
            None,
            None,
        ),
    ];
    let kit = Kit::new(fleets, Some(SECRET));
    let (status, body) = kit.push("refs/heads/main", "d-1").await;
    assert_eq!(
        (status, &body["woken"]),
        (202, &json!(["default/by-url", "default/by-forge"]))
    );
    let patches = kit.patches.lock().clone();
    assert_eq!(patches.len(), 2);
    let asked = patches[0].1["metadata"]["annotations"][ANNOTATION_REQUESTED_AT]
        .as_str()
        .unwrap();
    assert!(asked.ends_with(" d-1"), "{asked}");
}

#[tokio::test]
async fn a_repeated_delivery_or_body_wakes_nobody() {
    let kit = Kit::new(
        vec![fleet(
            "f",
            Some("https://github.com/acme/fleet"),
            None,
            None,
        )],
        Some(SECRET),
    );
    assert_eq!(kit.push("refs/heads/main", "d-1").await.0, 202);
    for delivery in ["d-1", "d-2"] {
        let (status, body) = kit.push("refs/heads/main", delivery).await;
        assert_eq!((status, &body["woken"]), (200, &json!([])), "{delivery}");
    }
    assert_eq!(kit.patches.lock().len(), 1);
}

#[tokio::test]
async fn refusals_say_why() {
    let kit = Kit::new(
        vec![fleet(
            "f",
            Some("https://github.com/acme/fleet"),
            None,
            None,
        )],
        Some(SECRET),
    );
    let body = push("refs/heads/main");
    let good = sign(SECRET, &body);
    let junk = b"{\"ref\": ".to_vec();
    let no_ref = b"{}".to_vec();
    let big = vec![b' '; MAX_BODY + 1];
    type Headers = Vec<(&'static str, String)>;
    let cases: Vec<(Headers, Vec<u8>, u16)> = vec![
        (vec![("x-github-event", "push".into())], body.clone(), 401),
        (
            vec![
                ("x-hub-signature-256", sign("wrong", &body)),
                ("x-github-event", "push".into()),
            ],
            body.clone(),
            401,
        ),
        (
            vec![
                ("x-hub-signature", "sha1=00".into()),
                ("x-github-event", "push".into()),
            ],
            body.clone(),
            401,
        ),
        (
            vec![("x-hub-signature-256", good.clone())],
            body.clone(),
            400,
        ),
        (
            vec![
                ("x-hub-signature-256", sign(SECRET, &junk)),
                ("x-github-event", "push".into()),
            ],
            junk,
            400,
        ),
        (
            vec![
                ("x-hub-signature-256", sign(SECRET, &no_ref)),
                ("x-github-event", "push".into()),
            ],
            no_ref,
            400,
        ),
        (
            vec![
                ("x-hub-signature-256", good.clone()),
                ("x-github-event", "ping".into()),
            ],
            body,
            200,
        ),
        (vec![], big, 413),
    ];
    for (headers, body, want) in cases {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (status, answer) = kit.send(&headers, body).await;
        assert_eq!(status, want, "{headers:?} {answer}");
        assert!(answer["message"].as_str().is_some_and(|m| !m.is_empty()));
    }
    assert!(kit.patches.lock().is_empty());
}

#[tokio::test]
async fn each_forge_wakes_its_own_fleets_and_those_that_name_none() {
    let fleets = vec![
        fleet_of("hub", ForgeType::Github),
        fleet_of("lab", ForgeType::Gitlab),
        fleet_of("tea", ForgeType::Gitea),
        fleet(
            "any",
            Some("https://git.example.com/acme/fleet"),
            None,
            None,
        ),
    ];
    let stored = Some(secret(&[("secret", SECRET)]));
    let kit = Kit::with(fleets, Some(SECRET), stored);
    let body = json!({
        "ref": "refs/heads/main",
        "repository": {"full_name": "acme/fleet", "clone_url": "https://git.example.com/acme/fleet"},
        "project": {"path_with_namespace": "acme/fleet", "web_url": "https://git.example.com/acme/fleet"},
    })
    .to_string()
    .into_bytes();
    let signed = sign(SECRET, &body);
    let bare = signed.trim_start_matches("sha256=");
    for (forge, headers, own) in [
        (
            "github",
            [
                ("x-hub-signature-256", signed.as_str()),
                ("x-github-event", "push"),
                ("x-github-delivery", "1"),
            ],
            "hub",
        ),
        (
            "gitlab",
            [
                ("x-gitlab-token", SECRET),
                ("x-gitlab-event", "Push Hook"),
                ("idempotency-key", "1"),
            ],
            "lab",
        ),
        (
            "gitea",
            [
                ("x-gitea-signature", bare),
                ("x-gitea-event", "push"),
                ("x-gitea-delivery", "1"),
            ],
            "tea",
        ),
    ] {
        // Neither id nor body was seen before by this forge.
        let (status, answer) = kit.send_to(forge, &headers, body.clone()).await;
        let want = json!([format!("default/{own}"), "default/any"]);
        assert_eq!((status, &answer["woken"]), (202, &want), "{forge} {answer}");
        let (status, answer) = kit.send_to(forge, &headers, body.clone()).await;
        assert_eq!(
            (status, &answer["message"]),
            (200, &json!("seen before")),
            "{forge}"
        );
        // What another forge's proof is, is none here.
        for other in ["github", "gitlab", "gitea"]
            .into_iter()
            .filter(|f| *f != forge)
        {
            assert_eq!(
                kit.send_to(other, &headers, body.clone()).await.0,
                401,
                "{forge} {other}"
            );
        }
    }
}

#[tokio::test]
async fn what_wakes_nobody_is_answered_with_a_reason() {
    let mut plans = fleet(
        "plans",
        Some("https://github.com/acme/fleet"),
        None,
        Some("main"),
    );
    plans.spec.pull_requests = Some(PullRequests {
        plan: true,
        ..PullRequests::default()
    });
    let kit = Kit::new(vec![plans], Some(SECRET));
    let payload = |action: &str| {
        let mut value: Value = serde_json::from_slice(&push("refs/heads/topic")).unwrap();
        value["action"] = json!(action);
        value.to_string().into_bytes()
    };
    for (event, body, want) in [
        ("ping", payload(""), (200, "pong")),
        ("push", payload(""), (200, "no Fleet follows this")),
        (
            "pull_request",
            payload("labeled"),
            (200, "labeled wakes nobody"),
        ),
        ("release", payload("x"), (200, "release wakes nobody")),
        ("pull_request", payload("opened"), (202, "")),
        ("merge_group", payload("checks_requested"), (202, "")),
    ] {
        let signature = sign(SECRET, &body);
        let headers = [
            ("x-hub-signature-256", signature.as_str()),
            ("x-github-event", event),
        ];
        let (status, answer) = kit.send(&headers, body).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!((status, message), want, "{event}");
    }
    assert_eq!(kit.patches.lock().len(), 2);
}
