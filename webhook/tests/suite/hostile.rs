//! Deliveries that are signed and hold anything: no panic, and never a failure of ours.
//!
//! The payloads in `tests/payloads` are examples by the forges' documentation.

use std::sync::Arc;

use axum::{Router, body::Body};
use fleetwright_api::{
    Fleet, crds,
    fleet::{FleetSource, FleetSpec, ForgeType, PullRequests},
    random::{SeededRandom, hex},
    secret::SecretText,
    time::ManualClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_store::Store;
use fleetwright_webhook::receiver::Receiver;
use hmac::{Hmac, Mac};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use sha2::Sha256;
use tower::ServiceExt;

const SECRET: &str = "s3cret";

use ForgeType::{Gitea, Github, Gitlab};

/// Forge, its name of the event, the payload, and whether it wakes as it is.
macro_rules! payload {
    ($kind:expr, $event:literal, $file:literal, $wakes:literal) => {
        (
            $kind,
            $event,
            include_str!(concat!("../payloads/", $file, ".json")),
            $wakes,
        )
    };
}

type Payload = (ForgeType, &'static str, &'static str, bool);

const PAYLOADS: &[Payload] = &[
    payload!(Github, "push", "github_push", true),
    payload!(Github, "push", "github_push_deleted", false),
    payload!(Github, "pull_request", "github_pull_request", true),
    payload!(Github, "pull_request", "github_pull_request_edited", true),
    payload!(Github, "merge_group", "github_merge_group", true),
    payload!(Github, "ping", "github_ping", false),
    payload!(Gitlab, "Push Hook", "gitlab_push", true),
    payload!(Gitlab, "Tag Push Hook", "gitlab_tag_push", false),
    payload!(Gitlab, "Merge Request Hook", "gitlab_merge_request", true),
    payload!(
        Gitlab,
        "Merge Request Hook",
        "gitlab_merge_request_target",
        true
    ),
    payload!(Gitlab, "System Hook", "gitlab_system_push", true),
    payload!(Gitea, "push", "gitea_push", true),
    payload!(Gitea, "create", "gitea_create", false),
    payload!(Gitea, "delete", "gitea_delete", true),
    payload!(Gitea, "pull_request_sync", "gitea_pull_request", true),
    payload!(Gitea, "pull_request", "gitea_pull_request_edited", true),
];

/// A receiver over a real API server with a Fleet of each forge's repository.
async fn receiver() -> Router {
    receiver_of(&[Github, Gitlab, Gitea]).await
}

async fn receiver_of(kinds: &[ForgeType]) -> Router {
    let fleets = kinds.iter().map(|kind| {
        let url = match kind {
            Github => "https://github.com/acme/fleet",
            Gitlab => "https://gitlab.example.com/acme/eu/fleet",
            Gitea => "https://git.example.com/acme/fleet",
        };
        let spec = FleetSpec {
            source: FleetSource {
                url: Some(url.to_owned()),
                ..FleetSource::default()
            },
            pull_requests: Some(PullRequests {
                plan: true,
                ..PullRequests::default()
            }),
            ..FleetSpec::default()
        };
        Fleet::new(kind.as_str(), spec)
    });
    receiver_for(fleets).await
}

/// A receiver over a real API server with these Fleets.
pub(crate) async fn receiver_for(all: impl Iterator<Item = Fleet>) -> Router {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let random = Arc::new(SeededRandom::new(1));
    let server = ApiServer::new(Store::memory(), Options::new(clock.clone(), random)).unwrap();
    let ours: Result<Vec<Value>, _> = crds::all().iter().map(serde_json::to_value).collect();
    server.install_crds(&ours.unwrap()).await.unwrap();
    let client = server.client("default");
    let fleets = Api::<Fleet>::namespaced(client.clone(), "default");
    for fleet in all {
        fleets.create(&PostParams::default(), &fleet).await.unwrap();
    }
    Receiver::new(
        client,
        clock,
        Some(SecretText::new(SECRET)),
        crate::kit::uncounted(),
    )
    .router()
}

pub(crate) async fn deliver(
    router: &Router,
    kind: ForgeType,
    event: &str,
    body: Vec<u8>,
) -> (u16, Value) {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(&body);
    let signature = hex(&mac.finalize().into_bytes());
    let request = http::Request::post(format!("/webhooks/{}", kind.as_str()));
    let request = match kind {
        Github => request
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .header("x-github-event", event),
        Gitlab => request
            .header("x-gitlab-token", SECRET)
            .header("x-gitlab-event", event),
        Gitea => request
            .header("x-gitea-signature", signature)
            .header("x-gitea-event-type", event),
    };
    let response = router
        .clone()
        .oneshot(request.body(Body::from(body)).unwrap());
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// All places of a document, the document itself among them.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{at}/{key}"), all);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

/// The document without what is at a place.
fn without(document: &Value, place: &str) -> Option<Value> {
    let (parent, key) = place.rsplit_once('/')?;
    let mut document = document.clone();
    match document.pointer_mut(parent)? {
        Value::Object(fields) => drop(fields.remove(&key.replace("~1", "/").replace("~0", "~"))),
        Value::Array(items) => drop(items.remove(key.parse().ok()?)),
        _ => return None,
    }
    Some(document)
}

/// Each place becomes each of these, and is taken away.
pub(crate) fn spoiled(document: &Value) -> impl Iterator<Item = (String, Value)> {
    let mut all = Vec::new();
    places(document, "", &mut all);
    let values = [Value::Null, json!(true), json!(""), json!([]), json!({})];
    let document = document.clone();
    all.into_iter().flat_map(move |place| {
        let mut forms: Vec<_> = values
            .iter()
            .filter_map(|value| {
                let mut spoiled = document.clone();
                *spoiled.pointer_mut(&place)? = value.clone();
                Some(spoiled)
            })
            .collect();
        forms.extend(without(&document, &place));
        forms
            .into_iter()
            .map(move |form| (place.clone(), form))
            .collect::<Vec<_>>()
    })
}

#[tokio::test]
async fn what_is_whole_wakes_whom_it_concerns() {
    let router = receiver().await;
    for (kind, event, text, wakes) in PAYLOADS {
        let (status, answer) = deliver(&router, *kind, event, text.as_bytes().to_vec()).await;
        let want = if *wakes { 202 } else { 200 };
        assert_eq!(status, want, "{kind:?} {event}: {answer}");
        let woken = answer["woken"].as_array().unwrap().len();
        assert_eq!(woken, usize::from(*wakes), "{kind:?} {event}: {answer}");
    }
}

#[tokio::test]
async fn whatever_a_payload_holds_is_answered() {
    let mut routers = std::collections::BTreeMap::new();
    for kind in [Github, Gitlab, Gitea] {
        routers.insert(kind, receiver_of(&[kind]).await);
    }
    let mut seen = std::collections::BTreeMap::<u16, usize>::new();
    for (kind, event, text, _) in PAYLOADS {
        let router = &routers[kind];
        let document: Value = serde_json::from_str(text).unwrap();
        for (place, form) in spoiled(&document) {
            let body = form.to_string().into_bytes();
            let (status, answer) = deliver(router, *kind, event, body).await;
            let fine = matches!(status, 200 | 202 | 400);
            assert!(
                fine,
                "{kind:?} {event} {place}: {status} {answer} of {form}"
            );
            assert!(status == 202 || answer["message"].is_string(), "{answer}");
            *seen.entry(status).or_default() += 1;
        }
    }
    assert!(seen.len() == 3, "all ways are taken: {seen:?}");
}

/// Every event with every other's payload, and with none that is known.
#[tokio::test]
async fn an_event_with_anothers_payload_is_answered() {
    let router = receiver().await;
    for (kind, event, ..) in PAYLOADS {
        for (number, (_, _, text, _)) in PAYLOADS.iter().enumerate() {
            let mut document: Value = serde_json::from_str(text).unwrap();
            document["number of the delivery"] = json!([event, number]);
            let (status, answer) =
                deliver(&router, *kind, event, document.to_string().into_bytes()).await;
            assert!(
                matches!(status, 200 | 202 | 400),
                "{kind:?} {event} {number}: {status} {answer}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let router = receiver().await;
    let deep = "[".repeat(100_000).into_bytes();
    for kind in [Github, Gitlab, Gitea] {
        for body in [
            vec![],
            b"{".to_vec(),
            vec![0xff, 0xfe],
            b"payload=%7B%7D".to_vec(),
            deep.clone(),
        ] {
            let (status, answer) = deliver(&router, kind, "push", body).await;
            assert_eq!(status, 400, "{kind:?} {answer}");
        }
        for body in ["null", "[]", "1", "\"\""] {
            let (status, answer) = deliver(&router, kind, "push", body.into()).await;
            assert!(matches!(status, 200 | 400), "{kind:?} {body} {answer}");
        }
    }
}

/// A push without changes (Argo CD: an empty list of ref updates ended the server) wakes as any other.
#[tokio::test]
async fn cve_2025_59538_empty_changes() {
    let router = receiver().await;
    for (kind, event, text) in [
        (Github, "push", include_str!("../payloads/github_push.json")),
        (
            Gitlab,
            "Push Hook",
            include_str!("../payloads/gitlab_push.json"),
        ),
        (Gitea, "push", include_str!("../payloads/gitea_push.json")),
    ] {
        let mut document: Value = serde_json::from_str(text).unwrap();
        document["commits"] = json!([]);
        document["head_commit"] = Value::Null;
        let (status, answer) =
            deliver(&router, kind, event, document.to_string().into_bytes()).await;
        assert_eq!(status, 202, "{kind:?} {answer}");
    }
}

/// A repository's URL that is no text (Argo CD: a link of another type ended the server).
#[tokio::test]
async fn cve_2025_59531_link_of_another_type() {
    let router = receiver().await;
    for (kind, event, text, holder) in [
        (
            Github,
            "push",
            include_str!("../payloads/github_push.json"),
            "repository",
        ),
        (
            Gitlab,
            "Push Hook",
            include_str!("../payloads/gitlab_push.json"),
            "project",
        ),
        (
            Gitea,
            "push",
            include_str!("../payloads/gitea_push.json"),
            "repository",
        ),
    ] {
        for link in [
            json!([]),
            json!({"href": []}),
            json!("boom"),
            json!(1),
            Value::Null,
        ] {
            let mut document: Value = serde_json::from_str(text).unwrap();
            for key in ["clone_url", "git_http_url", "url", "web_url", "html_url"] {
                document[holder][key] = link.clone();
            }
            // By the ssh URL it is still known.
            let (status, answer) =
                deliver(&router, kind, event, document.to_string().into_bytes()).await;
            assert_eq!(status, 202, "{kind:?} {link} {answer}");
        }
    }
}

/// A push without a repository (Argo CD: Gogs' null repository ended the server).
#[tokio::test]
async fn cve_2025_59537_null_repository() {
    let router = receiver().await;
    for (kind, event, text, holder) in [
        (
            Github,
            "push",
            include_str!("../payloads/github_push.json"),
            "repository",
        ),
        (
            Gitlab,
            "Push Hook",
            include_str!("../payloads/gitlab_push.json"),
            "project",
        ),
        (
            Gitea,
            "push",
            include_str!("../payloads/gitea_push.json"),
            "repository",
        ),
    ] {
        for repository in [Value::Null, json!({}), json!([])] {
            let mut document: Value = serde_json::from_str(text).unwrap();
            document[holder] = repository;
            let (status, answer) =
                deliver(&router, kind, event, document.to_string().into_bytes()).await;
            assert_eq!(
                (status, &answer["message"]),
                (400, &json!("the payload names no repository"))
            );
        }
    }
}

/// A body without end, from somebody who has no secret (Argo CD: it took all memory).
#[tokio::test]
async fn cve_2024_40634_body_without_end() {
    let router = receiver().await;
    for kind in [Github, Gitlab, Gitea] {
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let endless = futures::stream::repeat_with(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])
        });
        let request = http::Request::post(format!("/webhooks/{}", kind.as_str()));
        let request = request.body(Body::from_stream(endless)).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 413, "{kind:?}");
        let read = taken.load(std::sync::atomic::Ordering::SeqCst) * 64 * 1024;
        assert!(read <= 4 * 1024 * 1024, "{read} bytes were read");
    }
}

/// An answer without end, from a forge that is not what it was taken for (Argo CD: an index of charts took all memory).
#[tokio::test]
async fn go_2024_2667_answer_without_end() {
    use fleetwright_webhook::{
        forge::{Credentials, Forges, PostError, Remote},
        pull_requests::PullRequests as _,
    };
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let endless = move || {
        let counter = Arc::clone(&counter);
        async move {
            Body::from_stream(futures::stream::repeat_with(move || {
                counter.fetch_add(64 * 1024, SeqCst);
                Ok::<_, std::io::Error>(vec![b'['; 64 * 1024])
            }))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(endless);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    for (kind, base) in [(Github, ""), (Gitlab, "/api/v4"), (Gitea, "/api/v1")] {
        let before = sent.load(SeqCst);
        let token = Credentials::Token(SecretText::new(SECRET));
        let api = format!("{url}{base}");
        let remote = Remote::new(kind, Some(&api), "acme/fleet", token).unwrap();
        let forges = Forges::new().unwrap();
        let got = forges.list_open(&remote, Timestamp::UNIX_EPOCH).await;
        let Err(PostError::Passing(why)) = got else {
            panic!("{kind:?} {got:?}");
        };
        assert!(why.contains("cannot be read"), "{why}");
        // 16 MiB, and what was on its way.
        let read = sent.load(SeqCst) - before;
        assert!(read < 32 << 20, "{kind:?}: {read} bytes");
    }
}
