//! GitHub's own description of its API is the judge: a validating proxy stands between our client and the stub, and tells what
//! of a request or of an answer is not as it is described.

use std::{collections::BTreeSet, process::Stdio, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use fleetwright_api::{
    commit_status::{CommitState, StatusContent},
    secret::SecretText,
};
use fleetwright_tests::tools::tool;
use fleetwright_webhook::{
    forge::{AppCredentials, Credentials, Destination, Forge as _, Forges, PostError, Remote},
    pull_requests::{Comment, PullRequests, StoredComment},
};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    kit::SHA,
    stub::{
        Forge, OTHER, PATIENCE, TOKEN, US,
        routes::{APP, INSTALLATION, write},
    },
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const PULL: u64 = 7;

/// The stub behind the proxy behind what keeps the proxy's word.
struct Judged {
    forge: Forge,
    remote: Remote,
    front: Arc<Front>,
    _proxy: Child,
    _tasks: JoinSet<()>,
}

/// What the proxy says goes through here.
struct Front {
    proxy: String,
    client: Client<HttpConnector, Full<axum::body::Bytes>>,
    /// Method and path of each request, and the answer's status.
    exchanges: Mutex<Vec<(String, u16)>>,
    /// What was not as described.
    verdicts: Mutex<Vec<String>>,
}

impl Judged {
    /// `None` where the proxy or the description is not installed.
    async fn start() -> Option<Self> {
        let (prism, description) = (tool("prism")?, tool("github-api.json")?);
        let mut tasks = JoinSet::new();
        let forge = Forge::start(&mut tasks).await;
        let mut proxy = Command::new(prism)
            .args(["proxy", "--errors", "--host", "127.0.0.1", "--port", "0"])
            .arg(description)
            .arg(&forge.url)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, url)) = line.split_once("listening on ") {
                    return url.trim().to_owned();
                }
            }
            panic!("the proxy ended");
        };
        let url = tokio::time::timeout(PATIENCE, listening).await.unwrap();
        // It goes on writing.
        tasks.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let front = Arc::new(Front {
            proxy: url,
            client: Client::builder(TokioExecutor::new()).build_http(),
            exchanges: Mutex::default(),
            verdicts: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(forward)
            .with_state(Arc::clone(&front));
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let forge = Forge {
            url: format!("http://{host}"),
            ..forge
        };
        Some(Self {
            remote: forge.remote(),
            forge,
            front,
            _proxy: proxy,
            _tasks: tasks,
        })
    }

    /// What was not as described since the last call.
    fn verdicts(&self) -> Vec<String> {
        std::mem::take(&mut self.front.verdicts.lock())
    }

    /// Sends a request that our client does not send.
    async fn raw(&self, method: &str, path: &str, kind: &str, body: &str) -> StatusCode {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.forge.url))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", kind)
            .body(Full::from(body.to_owned()));
        let sent = self.front.client.request(request.unwrap()).await;
        sent.unwrap().status()
    }
}

async fn forward(State(front): State<Arc<Front>>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().unwrap().to_string();
    let method = head.method.clone();
    let what = format!("{method} {}", head.uri.path());
    head.uri = format!("{}{path}", front.proxy).parse::<Uri>().unwrap();
    head.headers.remove("host");
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let request = Request::from_parts(head, Full::new(body));
    let answer = front.client.request(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let bytes = to_bytes(Body::new(body), usize::MAX).await.unwrap();
    front.exchanges.lock().push((what, head.status.as_u16()));
    if let Some(why) = violations(&head.headers, &bytes) {
        let verdict = format!("{method} {path}: {why}");
        // What our client makes of it may fail the test first.
        println!("{verdict}");
        front.verdicts.lock().push(verdict);
    }
    Response::from_parts(head, Body::from(bytes))
}

/// What the proxy found wrong. That a code is not listed is a warning alone: GitHub lists few of those that it answers with.
fn violations(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    if headers.get("content-type")?.as_bytes() == b"application/problem+json" {
        return Some(String::from_utf8_lossy(body).into_owned());
    }
    let found = headers.get("sl-violations")?.as_bytes();
    let found: Vec<Value> = serde_json::from_slice(found).unwrap();
    let errors: Vec<_> = found
        .into_iter()
        .filter(|one| one["severity"] == "Error")
        .collect();
    (!errors.is_empty()).then(|| json!(errors).to_string())
}

fn pull_request(number: u64, from: u64) -> Value {
    json!({
        "number": number, "title": format!("Number {number}"),
        "head": {"ref": "topic", "sha": SHA, "repo": {"id": from}},
        "base": {"ref": "main", "sha": SHA, "repo": {"id": 1}},
    })
}

async fn status(
    forges: &Forges,
    remote: &Remote,
    content: StatusContent,
    now: Timestamp,
) -> Result<(), PostError> {
    let context = "fleetwright/test/".repeat(20);
    let destination = Destination {
        remote,
        sha: SHA,
        context: &context,
        reference: Some("main"),
    };
    forges.post(&destination, &content, now).await
}

async fn statuses(judged: &Judged, forges: &Forges) {
    use CommitState::{Error, Failure, Pending, Success};
    for state in [Pending, Success, Failure, Error] {
        for target_url in [None, Some("https://fleet.example.com/x".to_owned())] {
            let content = StatusContent {
                state,
                description: "ä".repeat(500),
                target_url,
            };
            let posted = status(forges, &judged.remote, content, NOW).await;
            assert_eq!(posted, Ok(()));
        }
    }
    // Patience, refusals, and what is not known.
    type Headers = &'static [(&'static str, &'static str)];
    let limited: [(u16, Headers); 3] = [
        (429, &[("retry-after", "1")]),
        (403, &[("retry-after", "1")]),
        (
            403,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")],
        ),
    ];
    for (minute, answer) in limited.into_iter().enumerate() {
        let now = NOW + SignedDuration::from_mins(i64::try_from(minute).unwrap() + 2);
        judged.forge.answer(&[answer]);
        let patience = status(forges, &judged.remote, StatusContent::default(), now).await;
        let asked = matches!(patience, Err(PostError::RateLimited { .. }));
        assert!(asked, "{answer:?} {patience:?}");
    }
    let wrong = Credentials::Token(SecretText::new("wrong"));
    let wrong = judged.forge.remote_with(wrong);
    let refused = status(forges, &wrong, StatusContent::default(), NOW).await;
    assert_eq!(refused, Err(PostError::Refused { status: 401 }));
    let token = Credentials::Token(SecretText::new(TOKEN));
    let nowhere = Remote::new(judged.remote.kind(), Some(&judged.forge.url), "a/b", token);
    let later = NOW + SignedDuration::from_mins(10);
    let unknown = status(forges, &nowhere.unwrap(), StatusContent::default(), later).await;
    let unknown = matches!(unknown, Err(PostError::Unknown { status: 404, .. }));
    assert!(unknown);
}

async fn pull_requests(judged: &Judged, forges: &Forges) {
    {
        let mut held = judged.forge.inner.state.lock();
        held.page = 2;
        held.pull_requests = (1..=5).rev().map(|n| pull_request(n, n)).collect();
        // One whose repository is gone has none, which the description does not know.
    }
    // The second time by their ETags.
    for _ in 0..2 {
        let open = forges.list_open(&judged.remote, NOW).await.unwrap();
        assert!(open.complete, "{open:?}");
        let forks: Vec<_> = open.pull_requests.iter().map(|p| p.from_fork).collect();
        assert_eq!(forks, [false, true, true, true, true]);
    }
    let one = forges.get(&judged.remote, 4, NOW).await.unwrap();
    assert_eq!(one.unwrap().number, 4);
    assert_eq!(forges.get(&judged.remote, 6, NOW).await, Ok(None));
}

async fn comments(judged: &Judged, forges: &Forges, remote: &Remote) -> StoredComment {
    let upsert = async |body: &str, known: Option<&StoredComment>| {
        let comment = Comment {
            context: "fleetwright/test/plan",
            body,
            known,
            make: true,
        };
        let stored = forges.upsert_comment(remote, PULL, &comment, NOW).await;
        stored.unwrap().expect("it is made where there is none")
    };
    for author in [US, OTHER, OTHER] {
        let mut held = judged.forge.inner.state.lock();
        let kind = judged.forge.kind;
        write(kind, &mut held, &PULL.to_string(), "words", false, author);
    }
    let made = upsert("one", None).await;
    let found = upsert(&"two ".repeat(20_000), None).await;
    assert_eq!(made.id, found.id);
    let known = upsert("three", Some(&found)).await;
    assert_eq!(known.id, made.id);
    // Somebody else's, and one that is gone.
    for id in [2, 9999] {
        let digest = String::new();
        let moved = upsert(&format!("not {id}"), Some(&StoredComment { id, digest })).await;
        assert_eq!(moved.id, made.id);
    }
    made
}

fn app(key: &str) -> Credentials {
    Credentials::App(AppCredentials {
        app: APP,
        installation: INSTALLATION,
        private_key: SecretText::new(key),
    })
}

/// Method and path without what differs, and the answer's status.
fn pattern((what, status): &(String, u16)) -> String {
    let segments = what.split('/').map(|segment| match segment {
        segment if segment.parse::<u64>().is_ok() || segment == SHA => "*",
        segment => segment,
    });
    let path: Vec<_> = segments.collect();
    format!("{} {status}", path.join("/"))
}

#[tokio::test]
async fn all_that_we_ask_and_are_answered_is_as_github_describes_it() {
    let Some(judged) = Judged::start().await else {
        return;
    };
    let forges = Forges::new().unwrap();
    statuses(&judged, &forges).await;
    // Another account's pace, so to speak.
    let forges = Forges::new().unwrap();
    pull_requests(&judged, &forges).await;
    comments(&judged, &forges, &judged.remote).await;
    judged.forge.inner.state.lock().expires_at = "2100-01-01T00:00:00Z".into();
    let remote = judged
        .forge
        .remote_with(app(include_str!("../keys/app.pkcs8.pem")));
    judged.forge.answer(&[(401, &[])]);
    let refused = status(&forges, &remote, StatusContent::default(), NOW).await;
    assert!(matches!(refused, Err(PostError::Configuration(_))));
    let posted = status(&forges, &remote, StatusContent::default(), NOW).await;
    assert_eq!(posted, Ok(()));
    comments(&judged, &forges, &remote).await;

    assert_eq!(judged.verdicts(), Vec::<String>::new());
    let exchanges = judged.front.exchanges.lock().clone();
    let seen: BTreeSet<_> = exchanges.iter().map(pattern).collect();
    let seen: Vec<_> = seen.iter().map(String::as_str).collect();
    let want = [
        "GET /repos/acme/fleet/issues/*/comments 200",
        "GET /repos/acme/fleet/pulls 200",
        "GET /repos/acme/fleet/pulls 304",
        "GET /repos/acme/fleet/pulls/* 200",
        "GET /repos/acme/fleet/pulls/* 404",
        "GET /user 200",
        "PATCH /repos/acme/fleet/issues/comments/* 200",
        "PATCH /repos/acme/fleet/issues/comments/* 403",
        "PATCH /repos/acme/fleet/issues/comments/* 404",
        "POST /app/installations/*/access_tokens 201",
        "POST /app/installations/*/access_tokens 401",
        "POST /repos/a/b/statuses/* 404",
        "POST /repos/acme/fleet/issues/*/comments 201",
        "POST /repos/acme/fleet/statuses/* 201",
        "POST /repos/acme/fleet/statuses/* 401",
        "POST /repos/acme/fleet/statuses/* 403",
        "POST /repos/acme/fleet/statuses/* 429",
    ];
    assert_eq!(seen, want);
}

/// A request that lacks what GitHub asks for does not reach the stub, and an answer that lacks what it promises is told.
#[tokio::test]
async fn what_is_not_as_described_is_told() {
    let Some(judged) = Judged::start().await else {
        return;
    };
    const JSON: &str = "application/json";
    let sha = format!("/repos/acme/fleet/statuses/{SHA}");
    let (comments, pulls) = (
        "/repos/acme/fleet/issues/7/comments",
        "/repos/acme/fleet/pulls",
    );
    let rows: [(&str, &str, &str, &str, &str); 9] = [
        (
            "POST",
            &sha,
            JSON,
            r#"{"context": "x"}"#,
            "property 'state'",
        ),
        (
            "POST",
            &sha,
            JSON,
            r#"{"state": "running"}"#,
            "allowed values",
        ),
        (
            "POST",
            &sha,
            JSON,
            r#"{"state": "error", "context": 1}"#,
            "property context",
        ),
        (
            "POST",
            &sha,
            "text/plain",
            r#"{"state": "error"}"#,
            "application/json",
        ),
        (
            "POST",
            comments,
            JSON,
            r#"{"text": "x"}"#,
            "property 'body'",
        ),
        (
            "PATCH",
            "/repos/acme/fleet/issues/comments/1",
            JSON,
            "{}",
            "property 'body'",
        ),
        (
            "GET",
            "/repos/acme/fleet/pulls?state=opened",
            JSON,
            "",
            "allowed values",
        ),
        (
            "GET",
            "/repos/acme/fleet/merges",
            JSON,
            "",
            "no path matched",
        ),
        ("PUT", pulls, JSON, "{}", "no method matched"),
    ];
    for (method, path, kind, body, words) in rows {
        let answered = judged.raw(method, path, kind, body).await;
        let verdicts = judged.verdicts();
        assert!(
            verdicts.len() == 1 && verdicts[0].contains(words),
            "{method} {path} {body}: {answered} {verdicts:?}"
        );
        assert_eq!(judged.forge.seen(), [], "{method} {path} {body}");
    }
    // The stub's answers.
    let forges = Forges::new().unwrap();
    for (place, value, words) in [
        ("/head", Value::Null, "head"),
        ("/title", json!(1), "title"),
        ("/state", json!("opened"), "state"),
    ] {
        let mut torn = pull_request(1, 1);
        torn["state"] = json!("open");
        *torn.pointer_mut(place).unwrap() = value;
        judged.forge.inner.state.lock().pull_requests = vec![torn];
        let got = forges.get(&judged.remote, 1, NOW).await;
        let verdicts = judged.verdicts();
        assert!(
            verdicts.len() == 1
                && verdicts[0].contains("\"response\"")
                && verdicts[0].contains(words),
            "{place} {got:?} {verdicts:?}"
        );
    }
    judged.forge.answer(&[(201, &[])]);
    let nothing = status(&forges, &judged.remote, StatusContent::default(), NOW).await;
    let verdicts = judged.verdicts();
    assert!(
        nothing.is_err() && verdicts[0].contains("property 'creator'"),
        "{verdicts:?}"
    );
}
