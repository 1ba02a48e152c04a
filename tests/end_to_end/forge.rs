//! From a commit in a bare repository, by way of a signed webhook, to machines and commit statuses.

mod pulls;

use std::{
    collections::{BTreeMap, VecDeque},
    process::Command,
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use fleetwright_api::{Cluster, Machine, MachineDeployment, condition};
use hmac::{Hmac, Mac as _};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, ObjectMeta, Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};

use crate::kit::{Engine, PATIENCE, Process, creates, fleet, send};

/// A server that takes commit statuses, as GitHub's does.
#[derive(Clone, Default)]
pub(crate) struct Forge {
    got: Arc<Mutex<Vec<(String, Value)>>>,
    news: Arc<Notify>,
    /// Pull requests, as it shows them.
    pub(crate) pulls: Arc<Mutex<Vec<Value>>>,
    /// Comments, with the number of their pull request.
    pub(crate) comments: Arc<Mutex<Vec<(u64, Value)>>>,
    /// How the next writes of comments are answered, in place of being done.
    pub(crate) refusals: Arc<Mutex<VecDeque<Refusal>>>,
    /// What people may do in the repository, by name.
    pub(crate) may: Arc<Mutex<BTreeMap<String, &'static str>>>,
    /// How often it was asked for one pull request alone.
    pub(crate) asked: Arc<Mutex<usize>>,
    last_comment: Arc<Mutex<u64>>,
}

/// Status code, and seconds of `Retry-After`.
pub(crate) type Refusal = (u16, Option<&'static str>);

const PLAN: &str = "fleetwright/default/default.default/plan";

/// Whether a status speaks of a whole commit, not of one cluster or of a plan.
fn is_whole(body: &Value) -> bool {
    body["context"] == "fleetwright/default/default.default"
}

impl Forge {
    /// Serves in `tasks`; gives its address.
    pub(crate) async fn start(&self, tasks: &mut JoinSet<()>) -> String {
        let take =
            async |State(forge): State<Self>, path: Path<String>, Json(body): Json<Value>| {
                forge.got.lock().push((path.0, body));
                forge.news.notify_waiters();
                (StatusCode::CREATED, Json(json!({})))
            };
        let router = Router::new()
            .route("/repos/acme/fleet/statuses/{sha}", post(take))
            .merge(pulls::routes())
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// Waits for the state of a commit; gives its description.
    pub(crate) async fn until(&self, sha: &str, state: &str) -> String {
        self.until_of(sha, state, is_whole).await
    }

    /// The same of the plan of a pull request's head.
    pub(crate) async fn until_planned(&self, sha: &str, state: &str) -> String {
        self.until_of(sha, state, |body| body["context"] == PLAN)
            .await
    }

    async fn until_of(&self, sha: &str, state: &str, is: impl Fn(&Value) -> bool) -> String {
        let wait = async {
            loop {
                let news = self.news.notified();
                let found = self.got.lock().iter().find_map(|(of, body)| {
                    (of == sha && body["state"] == state && is(body))
                        .then(|| body["description"].as_str().unwrap_or_default().to_owned())
                });
                match found {
                    Some(description) => return description,
                    None => news.await,
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found.unwrap_or_else(|_| panic!("no {state} for {sha}: {:#?}", self.got.lock()))
    }

    fn states(&self, sha: &str) -> Vec<String> {
        let mut states = self.posted(sha, is_whole);
        states.dedup();
        states
    }

    /// States of the plan of a pull request's head, as often as they were posted.
    pub(crate) fn plan_states(&self, sha: &str) -> Vec<String> {
        self.posted(sha, |body| body["context"] == PLAN)
    }

    fn posted(&self, sha: &str, is: impl Fn(&Value) -> bool) -> Vec<String> {
        let got = self.got.lock();
        let of = got.iter().filter(|(of, body)| of == sha && is(body));
        of.map(|(_, b)| b["state"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Runs Git in `dir`; gives what it says.
pub(crate) fn git(dir: &std::path::Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A bare repository with a work tree beside it, followed by an engine that is woken by webhooks alone.
struct Scene {
    dir: tempfile::TempDir,
    forge: Forge,
    engine: Engine,
    first: String,
    /// Ends the forge with the scene.
    _tasks: JoinSet<()>,
}

const SECRET: &str = "it's only a test";

impl Scene {
    async fn start(replicas: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
        git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
        git(&work, &["checkout", "-q", "-B", "main"]);
        let first = commit(&work, &fleet("v1.33.2", Some(replicas)));
        let forge = Forge::default();
        let mut tasks = JoinSet::new();
        let forge_url = forge.start(&mut tasks).await;
        for (name, text) in [("token", "t0ken"), ("secret", SECRET)] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let more = [
            "--branch",
            "main",
            "--interval",
            "3600",
            "--repository",
            "acme/fleet",
            "--forge-url",
            &forge_url,
            "--token-file",
            &file("token"),
            "--webhook-secret-file",
            &file("secret"),
        ];
        let url = format!("file://{}", file("fleet.git"));
        let engine = Engine::up(&url, &dir.path().join("data"), &more).await;
        forge.until(&first, "success").await;
        Self {
            dir,
            forge,
            engine,
            first,
            _tasks: tasks,
        }
    }

    /// Commits, pushes and delivers the webhook; gives the commit.
    async fn push(&self, text: &str) -> String {
        let sha = commit(&self.dir.path().join("work"), text);
        let (status, body) = self.deliver(&sha, SECRET).await;
        assert!(status.contains(" 20"), "{status} {body}");
        sha
    }

    async fn deliver(&self, sha: &str, secret: &str) -> (String, String) {
        deliver(&self.engine.process, sha, secret).await
    }
}

/// Tells an engine of a push, as GitHub does; gives the answer's first line and body.
pub(crate) async fn deliver(engine: &Process, sha: &str, secret: &str) -> (String, String) {
    let body = json!({"ref": "refs/heads/main", "after": sha,
        "repository": {"full_name": "acme/fleet", "default_branch": "main"}});
    let delivery = format!("{sha}-{}", secret.len());
    signed(engine, "push", &delivery, &body.to_string(), secret).await
}

/// Delivers an event, as GitHub does.
pub(crate) async fn signed(
    engine: &Process,
    event: &str,
    delivery: &str,
    body: &str,
    secret: &str,
) -> (String, String) {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let signature = format!("sha256={hex}");
    let headers = [
        ("x-github-event", event),
        ("x-github-delivery", delivery),
        ("x-hub-signature-256", signature.as_str()),
    ];
    send("POST", &engine.told("webhooks"), &headers, body).await
}

/// Commits the file and pushes it; gives the commit.
pub(crate) fn commit(work: &std::path::Path, text: &str) -> String {
    std::fs::write(work.join("fleet.yaml"), text).unwrap();
    git(work, &["add", "-A"]);
    git(work, &["commit", "-q", "-m", "change"]);
    git(work, &["push", "-q", "origin", "main"]);
    git(work, &["rev-parse", "HEAD"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_webhook_rolls_and_the_commit_is_told() {
    let scene = Scene::start(2).await;
    assert_eq!(scene.forge.states(&scene.first), ["pending", "success"]);
    let context = scene.forge.got.lock()[0].1["context"].clone();
    assert_eq!(context, "fleetwright/default/default.default");

    let before = creates(&scene.engine.journal());
    let (refused, _) = scene.deliver(&scene.first, "another secret").await;
    assert!(
        refused.contains(" 401") || refused.contains(" 403"),
        "{refused}"
    );
    let sha = scene.push(&fleet("v1.34.1", Some(2))).await;
    scene.forge.until(&sha, "success").await;
    assert_eq!(scene.forge.states(&sha), ["pending", "success"]);
    scene.engine.until_at("v1.34.1").await;
    let made: Vec<Value> = scene
        .engine
        .journal()
        .into_iter()
        .filter(|e| e["verb"] == "create")
        .skip(before)
        .collect();
    assert!(
        made[0]["machine"].as_str().unwrap().starts_with("a-cp-"),
        "control plane first: {made:#?}"
    );
    assert_eq!(made.len(), 3, "each machine is made once: {made:#?}");
    nobody_else_writes_spec(&scene.engine).await;
}

/// Controllers write no `spec` of what Git owns.
async fn nobody_else_writes_spec(engine: &Engine) {
    let clusters = Api::<Cluster>::all(engine.client.clone());
    let pools = Api::<MachineDeployment>::all(engine.client.clone());
    let params = ListParams::default();
    let mut all: Vec<ObjectMeta> = Vec::new();
    all.extend(
        clusters
            .list(&params)
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|o| o.metadata),
    );
    all.extend(
        pools
            .list(&params)
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|o| o.metadata),
    );
    assert_eq!(all.len(), 2);
    for entry in all.into_iter().flat_map(|m| m.managed_fields.unwrap()) {
        let fields = serde_json::to_value(&entry.fields_v1).unwrap();
        let writes_spec = fields.get("f:spec").is_some();
        let manager = entry.manager.unwrap();
        assert_eq!(
            writes_spec,
            manager == "fleetwright/default.default",
            "{manager}: {fields}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_and_emptied_paths_change_nothing_and_say_why() {
    let scene = Scene::start(1).await;
    let before = scene.engine.journal();

    let bad = fleet("v1.34.1", Some(1)).replace("  replicas: 1", "  replicas: [1");
    let sha = scene.push(&bad).await;
    let why = scene.forge.until(&sha, "failure").await;
    let place = why
        .split("fleet.yaml:")
        .nth(1)
        .unwrap_or_else(|| panic!("no place in {why}"));
    let mut numbers = place.split(':').take(2).map(|n| n.parse::<u32>());
    assert!(numbers.all(|n| n.is_ok()), "no line and column in {why}");

    let sha = scene.push("# nothing\n").await;
    let why = scene.forge.until(&sha, "failure").await;
    assert!(
        why.contains("consent") || why.contains("allow-delete"),
        "{why}"
    );
    assert_eq!(
        scene.engine.journal(),
        before,
        "nothing was made or deleted"
    );

    let sha = scene.push(&fleet("v1.33.2", Some(1))).await;
    scene.forge.until(&sha, "success").await;
    assert_eq!(scene.engine.journal(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_provider_refuses_for_good_fails_the_commit_and_the_next_one_mends_it() {
    let scene = Scene::start(2).await;
    let before = creates(&scene.engine.journal());
    // What no schema knows: the cloud has no image of this version.
    let url = format!("{}/versions", scene.engine.process.told("simcloud"));
    let (status, body) = send("PUT", &url, &[], r#"{"versions": ["v1.33.2"]}"#).await;
    assert!(status.contains(" 20"), "{status} {body}");
    let good = fleet("v1.33.2", Some(2));
    let (cluster, pool) = good.split_once("---\n").unwrap();
    let pinned = |version: &str| {
        let spec = format!("    spec:\n      version: {version}\n");
        format!("{cluster}---\n{}", pool.replace("    spec:\n", &spec))
    };
    let sha = scene.push(&pinned("v1.33.1")).await;
    let why = scene.forge.until(&sha, "failure").await;
    let machines = Api::<Machine>::namespaced(scene.engine.client.clone(), "default");
    let refused = |m: &Machine| m.spec.content.version.as_deref() == Some("v1.33.1");
    let all = machines.list(&ListParams::default()).await.unwrap().items;
    let [machine] = &all.iter().filter(|m| refused(m)).collect::<Vec<_>>()[..] else {
        panic!("one machine more than wanted may be asked for: {all:#?}");
    };
    let name = machine.name_any();
    assert!(why.contains(&name) && why.contains("no image"), "{why}");
    let told = |conditions: &[condition::Condition], kind: &str| {
        let found = condition::get(conditions, kind).unwrap();
        format!("{} {}: {}", found.status, found.reason, found.message)
    };
    let status = machine.status.as_ref().unwrap();
    let line = told(&status.conditions, condition::kind::INFRASTRUCTURE_READY);
    assert!(
        line.starts_with("False Terminal: ") && line.contains("no image"),
        "{line}"
    );
    let pool = scene.engine.pool().await;
    let line = told(
        &pool.status.unwrap().conditions,
        condition::kind::SCALING_UP,
    );
    assert!(
        line.starts_with("True Terminal: ") && line.contains(&name),
        "{line}"
    );
    // Whatever wakes the machine: the same call is not made again.
    for n in 0..3 {
        let note = json!({"metadata": {"annotations": {"note": n.to_string()}}});
        let params = PatchParams::default();
        machines
            .patch(&name, &params, &Patch::Merge(note))
            .await
            .unwrap();
    }
    let mended = good.replace(
        "bootSeconds: 0.2}",
        "image: ubuntu-22.04, bootSeconds: 0.2}",
    );
    let (_, pool) = mended.split_once("---\n").unwrap();
    let sha = scene.push(&format!("{cluster}---\n{pool}")).await;
    scene.forge.until(&sha, "success").await;
    assert_eq!(scene.forge.states(&sha), ["pending", "success"]);
    let made = scene.engine.journal();
    let made: Vec<&Value> = made
        .iter()
        .filter(|e| e["verb"] == "create")
        .skip(before)
        .collect();
    let asked = made
        .iter()
        .filter(|e| e["machine"] == name.as_str())
        .count();
    assert_eq!((asked, made.len()), (1, 3), "{made:#?}");
    assert!(machines.get_opt(&name).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_git_no_longer_declares_stay() {
    let scene = Scene::start(10).await;
    let before = scene.engine.journal();
    let sha = scene.push(&fleet("v1.33.2", None)).await;
    scene.forge.until(&sha, "success").await;
    assert_eq!(scene.engine.pool().await.spec.replicas, Some(10));
    assert_eq!(scene.engine.journal(), before);
}
