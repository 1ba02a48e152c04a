//! From a wish to a note in a real repository, by way of the outbox.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use async_trait::async_trait;
use fleetwright_api::{
    CommitStatus, Fleet,
    commit_status::{CommitState, CommitStatusSpec},
    condition, crds,
    fleet::{FleetSource, FleetSpec},
    random::SeededRandom,
    time::SystemClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_gitops::{
    notes::Notes as Git,
    wishes::{About, Wishes},
};
use fleetwright_store::Store;
use fleetwright_webhook::{
    Metrics,
    forge::{Defaults, Destination, Forge, PostError},
    outbox::{self, Outbox},
};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::Notes;

const PATIENCE: Duration = Duration::from_secs(60);

/// Nothing is at a forge here.
struct Nowhere;

#[async_trait]
impl Forge for Nowhere {
    async fn post(
        &self,
        _: &Destination<'_>,
        _: &fleetwright_api::commit_status::StatusContent,
        _: Timestamp,
    ) -> Result<(), PostError> {
        panic!("a note went to a forge");
    }
}

/// Writes, and never comes back: as one that dies before it can record that.
struct Dying {
    notes: Notes,
    written: Notify,
}

#[async_trait]
impl outbox::Notes for Dying {
    async fn write(
        &self,
        fleet: &Fleet,
        status: &CommitStatusSpec,
        now: Timestamp,
    ) -> Result<(), PostError> {
        outbox::Notes::write(&self.notes, fleet, status, now).await?;
        self.written.notify_one();
        std::future::pending().await
    }
}

/// An API, a repository with one commit, and a Fleet that follows it.
struct Scene {
    client: Client,
    dir: tempfile::TempDir,
    wishes: Wishes,
    sha: String,
}

impl Scene {
    async fn new() -> Self {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        let server = ApiServer::new(Store::memory(), Options::new(clock, random)).unwrap();
        let ours: Result<Vec<Value>, _> = crds::all().iter().map(serde_json::to_value).collect();
        server.install_crds(&ours.unwrap()).await.unwrap();
        let client = server.client("default");
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
        let repository = dir.path().join("fleet.git");
        let tree = git(&repository, &["mktree"]);
        let sha = git(&repository, &["commit-tree", &tree, "-m", "one"]);
        let source = FleetSource {
            url: Some(format!("file://{}", repository.display())),
            notes: true,
            ..FleetSource::default()
        };
        let spec = FleetSpec {
            source,
            ..FleetSpec::default()
        };
        let fleet = Fleet::new("repo", spec);
        let fleets = Api::<Fleet>::namespaced(client.clone(), "default");
        let fleet = fleets.create(&PostParams::default(), &fleet).await.unwrap();
        Self {
            wishes: Wishes::of(&client, &fleet, "test").unwrap(),
            client,
            dir,
            sha,
        }
    }

    fn notes(&self) -> Notes {
        let caches = self.dir.path().join("caches");
        let client = self.client.clone();
        Notes(Git::new(client, Arc::default(), caches.into(), None))
    }

    fn outbox(&self, notes: Arc<dyn outbox::Notes>) -> JoinSet<()> {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        let client = self.client.clone();
        let outbox = Outbox::new(
            client,
            Arc::new(Nowhere),
            Defaults::default(),
            clock,
            random,
            Metrics::register(&mut Registry::default()),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(outbox.with_notes(notes).run(CancellationToken::new()));
        tasks
    }

    async fn want(&self, state: CommitState, words: &str) {
        let about = About::Fleet;
        self.wishes
            .want(about, &self.sha, state, words)
            .await
            .unwrap();
    }

    async fn until(&self, what: &str, is: impl Fn(&CommitStatus) -> bool) {
        let api = Api::<CommitStatus>::namespaced(self.client.clone(), "default");
        let all = api.list(&ListParams::default()).await.unwrap().items;
        let [one] = &all[..] else {
            panic!("{all:#?}");
        };
        let done = |found: Option<&CommitStatus>| found.is_some_and(&is);
        let name = one.name_any();
        let wait = await_condition(api, &name, done);
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("{what} did not come"))
            .unwrap();
    }

    async fn until_posted(&self, state: CommitState) {
        self.until(state.as_str(), |status| {
            let posted = status.status.as_ref().and_then(|s| s.posted.as_ref());
            posted.is_some_and(|posted| posted.state == state)
        })
        .await;
    }

    async fn until_reason(&self, reason: &str) {
        self.until(reason, |status| {
            let status = status.status.as_ref();
            let posted = status.and_then(|s| condition::get(&s.conditions, "Posted"));
            posted.is_some_and(|posted| posted.reason == reason)
        })
        .await;
    }

    /// What Git shows, and how many pushes made it.
    fn noted(&self) -> (String, usize) {
        let repository = self.dir.path().join("fleet.git");
        let text = git(
            &repository,
            &["notes", "--ref=fleetwright", "show", &self.sha],
        );
        let count = git(
            &repository,
            &["rev-list", "--count", "refs/notes/fleetwright"],
        );
        (text, count.parse().unwrap())
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "git {args:?}: {text}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_crash_between_push_and_record_loses_nothing_and_pushes_nothing_again() {
    let scene = Scene::new().await;
    let line = "fleetwright/test/default.repo: ";
    for (round, (state, words)) in [
        (CommitState::Pending, "looking"),
        (CommitState::Success, "done"),
        (CommitState::Pending, "looking"),
    ]
    .into_iter()
    .enumerate()
    {
        scene.want(state, words).await;
        let dying = Arc::new(Dying {
            notes: scene.notes(),
            written: Notify::new(),
        });
        let tasks = scene.outbox(Arc::clone(&dying) as _);
        let written = tokio::time::timeout(PATIENCE, dying.written.notified()).await;
        written.expect("it is written");
        drop(tasks);
        let said = (format!("{line}{}: {words}", state.as_str()), round + 1);
        assert_eq!(scene.noted(), said);
        let _tasks = scene.outbox(Arc::new(scene.notes()));
        scene.until_posted(state).await;
        assert_eq!(scene.noted(), said);
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_told_and_comes_later() {
    let scene = Scene::new().await;
    let (here, away) = (
        scene.dir.path().join("fleet.git"),
        scene.dir.path().join("away"),
    );
    std::fs::rename(&here, &away).unwrap();
    scene.want(CommitState::Success, "done").await;
    let _tasks = scene.outbox(Arc::new(scene.notes()));
    scene.until_reason("Unreachable").await;
    std::fs::rename(&away, &here).unwrap();
    scene.until_posted(CommitState::Success).await;
    // Who wants no notes any more gets none.
    let fleets = Api::<Fleet>::namespaced(scene.client.clone(), "default");
    let none = Patch::Merge(json!({"spec": {"source": {"notes": false}}}));
    fleets
        .patch("repo", &PatchParams::default(), &none)
        .await
        .unwrap();
    scene.want(CommitState::Pending, "looking").await;
    scene.until_reason("Misconfigured").await;
    let said = "fleetwright/test/default.repo: success: done";
    assert_eq!(scene.noted(), (said.to_owned(), 1));
}

#[tokio::test]
async fn what_waits_together_is_pushed_together() {
    let scene = Scene::new().await;
    let fleets = Api::<Fleet>::namespaced(scene.client.clone(), "default");
    let fleet = fleets.get("repo").await.unwrap();
    let notes = scene.notes();
    let status = |n: usize| CommitStatusSpec {
        sha: scene.sha.clone(),
        context: format!("fleetwright/test/{n}"),
        ..CommitStatusSpec::default()
    };
    let all: Vec<CommitStatusSpec> = (0..30).map(status).collect();
    let write = |status| outbox::Notes::write(&notes, &fleet, status, Timestamp::UNIX_EPOCH);
    let results = futures::future::join_all(all.iter().map(write)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let (text, pushes) = scene.noted();
    assert_eq!(text.lines().count(), 30, "{text}");
    assert_eq!(
        pushes, 2,
        "the first, and all that came while it was under way"
    );
}
