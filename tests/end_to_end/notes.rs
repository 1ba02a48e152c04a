//! What becomes of commits, as Git notes in their repository.

use std::path::Path;

use fleetwright_api::{CommitStatus, commit_status::CommitState};
use futures::TryStreamExt as _;
use kube::{Api, runtime::watcher};
use tokio::task::JoinSet;

use crate::{
    forge::{Forge, commit, git},
    kit::{Engine, PATIENCE, fleet},
};

/// Waits until the whole commit has this state in its note.
async fn until_noted(engine: &Engine, sha: &str, state: CommitState) {
    let statuses = Api::<CommitStatus>::namespaced(engine.client.clone(), "default");
    let events = watcher::watcher(statuses, watcher::Config::default());
    let is = |status: &CommitStatus| {
        let posted = status.status.as_ref().and_then(|s| s.posted.as_ref());
        let spec = &status.spec;
        let whole = spec.note && spec.sha == sha && spec.context.ends_with("default.default");
        whole && posted.is_some_and(|posted| posted.state == state)
    };
    let mut found = std::pin::pin!(events.try_filter(|event| {
        let hit = match event {
            watcher::Event::Apply(status) | watcher::Event::InitApply(status) => is(status),
            _ => false,
        };
        std::future::ready(hit)
    }));
    let found = tokio::time::timeout(PATIENCE, found.try_next()).await;
    found
        .unwrap_or_else(|_| panic!("no {state:?} for {sha}"))
        .unwrap();
}

/// What `git log` shows below a commit.
fn shown(repository: &Path, sha: &str) -> String {
    git(
        repository,
        &["log", "-1", "--format=%N", "--notes=fleetwright", sha],
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_repository_tells_in_notes_and_a_forge_beside_it_in_statuses() {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    let (bare, work) = (dir.path().join("fleet.git"), dir.path().join("work"));
    git(&work, &["checkout", "-q", "-B", "main"]);
    let first = commit(&work, &fleet("v1.33.2", Some(1)));
    let (url, data) = (
        format!("file://{}", bare.display()),
        dir.path().join("data"),
    );
    let mut more = vec!["--branch", "main", "--interval", "1", "--notes"];
    let engine = Engine::up(&url, &data, &more).await;
    until_noted(&engine, &first, CommitState::Success).await;
    let context = "fleetwright/default/default.default";
    let note = shown(&bare, &first);
    assert!(note.contains(&format!("{context}: success: ")), "{note}");
    let cluster = format!("{context}/cluster/default.a: success: ");
    assert!(note.contains(&cluster), "{note}");
    // A mistake has its place; and nothing of it is news to the next process.
    let bad = fleet("v1.33.2", Some(1)).replace("  replicas: 1", "  replicas: [1");
    let second = commit(&work, &bad);
    until_noted(&engine, &second, CommitState::Failure).await;
    let note = shown(&bare, &second);
    assert!(
        note.starts_with(&format!("{context}: failure: fleet.yaml:")),
        "{note}"
    );
    assert_eq!(engine.process.interrupt().await, Some(0));
    let pushes = || git(&bare, &["rev-list", "--count", "refs/notes/fleetwright"]);
    let before = pushes();

    let forge = Forge::default();
    let mut tasks = JoinSet::new();
    let forge_url = forge.start(&mut tasks).await;
    let token = dir.path().join("token");
    std::fs::write(&token, "t0ken").unwrap();
    let token = token.to_str().unwrap();
    let at_forge = ["--repository", "acme/fleet", "--forge-url", &forge_url];
    more.extend(at_forge);
    more.extend(["--token-file", token]);
    let engine = Engine::up(&url, &data, &more).await;
    // The forge learns of it as well; the note says so already.
    forge.until(&second, "failure").await;
    assert_eq!(pushes(), before);
    let third = commit(&work, &fleet("v1.33.2", Some(2)));
    until_noted(&engine, &third, CommitState::Success).await;
    let told = forge.until(&third, "success").await;
    let note = shown(&bare, &third);
    assert!(
        note.contains(&format!("{context}: success: {told}")),
        "{note}"
    );
}
