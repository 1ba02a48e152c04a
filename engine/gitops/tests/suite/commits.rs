//! Real repositories followed commit by commit: what each commit's status says, and when it says so.

use std::{path::Path, process::Command, sync::Arc};

use fleetwright_api::{
    CommitStatus,
    commit_status::CommitState,
    fleet::{FleetSource, FleetSpec, Forge, GitRef},
};
use fleetwright_gitops::read::{Reader, Tree};
use jiff::Timestamp;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::json;

use crate::kit::{Following, World, cluster, config_map, pool, write};

/// Runs Git with `args` in `dir`.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(["-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "git {args:?}: {text}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A bare repository with a work tree beside it, and a Fleet that follows its folder `fleet`.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) fleet: Following,
    work: std::path::PathBuf,
}

/// The source that [`Scene`] follows.
pub(crate) fn spec(dir: &Path) -> FleetSpec {
    FleetSpec {
        source: FleetSource {
            url: Some(format!("file://{}/r.git", dir.display())),
            reference: Some(GitRef {
                branch: Some("main".into()),
                ..GitRef::default()
            }),
            path: Some("fleet".into()),
            ..FleetSource::default()
        },
        forge: Some(Forge {
            repository: "acme/fleet".into(),
            ..Forge::default()
        }),
        progress_deadline_seconds: Some(60),
        ..FleetSpec::default()
    }
}

/// A bare repository and a clone of it, whose folder it gives.
pub(crate) fn repository(dir: &Path) -> std::path::PathBuf {
    git(dir, &["init", "-q", "--bare", "r.git"]);
    git(dir, &["clone", "-q", "r.git", "work"]);
    let work = dir.join("work");
    git(&work, &["checkout", "-q", "-B", "main"]);
    work
}

/// Commits all and pushes; gives the commit.
pub(crate) fn push(work: &Path) -> String {
    git(work, &["add", "-A"]);
    git(work, &["commit", "-q", "--allow-empty", "-m", "change"]);
    git(work, &["push", "-q", "-f", "origin", "main"]);
    git(work, &["rev-parse", "HEAD"])
}

/// All commit statuses.
pub(crate) async fn statuses(world: &World) -> Vec<CommitStatus> {
    let api = Api::<CommitStatus>::namespaced(world.client(), "default");
    api.list(&ListParams::default()).await.unwrap().items
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let work = repository(world.dir.path());
        let fleet = world
            .fleet("repo", spec(world.dir.path()), work.clone())
            .await;
        Self { world, fleet, work }
    }

    /// Commits one file of the followed folder and looks; gives the commit.
    pub(crate) async fn commit(&mut self, file: &str, text: &str) -> String {
        write(&self.work, file, text);
        let sha = push(&self.work);
        self.fleet.look(&self.world).await;
        sha
    }

    /// Removes a file from the work tree.
    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.work.join(file)).unwrap();
    }

    pub(crate) async fn statuses(&self) -> Vec<CommitStatus> {
        statuses(&self.world).await
    }

    /// What is wanted for a commit as a whole.
    pub(crate) async fn wanted(&self, sha: &str) -> (CommitState, String) {
        let whole = "fleetwright/test/default.repo";
        let all = self.statuses().await.into_iter();
        let mut found = all.filter(|s| s.spec.sha == sha && s.spec.context == whole);
        let one = found.next().unwrap();
        assert!(found.next().is_none(), "one status per commit and context");
        (one.spec.wanted.state, one.spec.wanted.description)
    }

    /// What is wanted for a commit in a cluster, if anything is.
    pub(crate) async fn of_cluster(&self, sha: &str, name: &str) -> Option<(CommitState, String)> {
        let context = format!("fleetwright/test/default.repo/cluster/default.{name}");
        let all = self.statuses().await.into_iter();
        let mut found = all.filter(|s| s.spec.sha == sha && s.spec.context == context);
        let wanted = found.next()?.spec.wanted;
        Some((wanted.state, wanted.description))
    }

    async fn state(&self, sha: &str) -> CommitState {
        self.wanted(sha).await.0
    }

    /// Cluster a is where its spec says, as controllers would report it.
    async fn converge(&self) {
        self.world.converge("a").await;
    }
}

use CommitState::{Error, Failure, Pending, Success};

const FILE: &str = "fleet/a.yaml";

#[tokio::test]
async fn pending_until_it_has_converged_then_success_for_good() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    assert_eq!(scene.state(&sha).await, Pending);
    scene.converge().await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(
        scene.wanted(&sha).await,
        (Success, "1 object converged".into())
    );
    // Later ill health is not the commit's.
    scene
        .world
        .status("Cluster", "a", json!({"observedGeneration": 0}))
        .await;
    scene.fleet.settle(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(
        scene.wanted(&sha).await,
        (Success, "1 object converged".into())
    );
}

#[tokio::test]
async fn a_newer_commit_supersedes_what_is_pending_and_a_comes_back_after_b() {
    let mut scene = Scene::new().await;
    let a = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    scene.converge().await;
    scene.fleet.settle(&scene.world).await;
    let b = scene.commit(FILE, &cluster("a", "v1.34.1")).await;
    assert_eq!(
        (scene.state(&a).await, scene.state(&b).await),
        (Success, Pending)
    );
    // Back to the very same commit, in the middle of b.
    git(&scene.work, &["reset", "-q", "--hard", &a]);
    git(&scene.work, &["push", "-q", "-f", "origin", "main"]);
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&a).await, Pending);
    assert_eq!(
        scene.wanted(&b).await,
        (Success, format!("superseded by {a}"))
    );
    scene.converge().await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(
        scene.wanted(&a).await,
        (Success, "1 object converged".into())
    );
    let all = scene.statuses().await;
    let whole = |s: &&CommitStatus| s.spec.sha == a && !s.spec.context.contains("/cluster/");
    let of_a = all.iter().find(whole).unwrap();
    assert_eq!(
        of_a.spec.observation, 6,
        "seen, applied and converged, twice"
    );
}

#[tokio::test]
async fn what_a_newer_commit_took_the_place_of_stays_so_while_that_one_cannot_be_applied() {
    let mut scene = Scene::new().await;
    let a = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    *scene.world.away.lock() = Some("GET /apis/fleetwright.dev/v1alpha1/clusters");
    write(&scene.work, FILE, &cluster("a", "v1.34.1"));
    let b = push(&scene.work);
    scene.fleet.try_look(&scene.world).await.unwrap_err();
    *scene.world.away.lock() = None;
    let superseded = (Success, format!("superseded by {b}"));
    assert_eq!(scene.wanted(&a).await, superseded);
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.wanted(&a).await, superseded);
    assert_eq!(scene.state(&b).await, Pending);
}

#[tokio::test]
async fn a_commit_that_changes_nothing_ends_as_what_it_finds() {
    let mut scene = Scene::new().await;
    let first = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    // Beside the followed folder, in the middle of the rollout.
    let beside = scene.commit("README.md", "one").await;
    assert_eq!(
        scene.wanted(&first).await,
        (Success, format!("superseded by {beside}"))
    );
    assert_eq!(scene.state(&beside).await, Pending);
    scene.converge().await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.state(&beside).await, Success);
    // And when all is settled.
    let before = scene.world.versions().await;
    let idle = scene.commit("README.md", "two").await;
    assert_eq!(scene.wanted(&idle).await, (Success, "no changes".into()));
    assert_eq!(scene.world.versions().await, before);
}

#[tokio::test]
async fn a_mistake_fails_with_its_place_and_the_failure_stays() {
    let mut scene = Scene::new().await;
    let good = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    scene.converge().await;
    scene.fleet.settle(&scene.world).await;
    let before = scene.world.versions().await;
    let bad = scene.commit(FILE, &cluster("a", "1.34")).await;
    let (state, why) = scene.wanted(&bad).await;
    assert_eq!(state, Failure);
    assert!(
        why.starts_with("a.yaml:5:12: spec.version must be a text"),
        "{why}"
    );
    assert_eq!(scene.world.versions().await, before);
    // A folder that is gone is an error of the commit, not an empty folder.
    git(&scene.work, &["rm", "-q", "-r", "fleet"]);
    let gone = push(&scene.work);
    scene.fleet.look(&scene.world).await;
    let (state, why) = scene.wanted(&gone).await;
    assert_eq!(state, Failure);
    assert!(why.contains("no folder \"fleet\""), "{why}");
    assert_eq!(scene.world.versions().await, before);
    let back = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    assert_eq!(scene.wanted(&back).await, (Success, "no changes".into()));
    assert_eq!(scene.state(&bad).await, Failure);
    assert_eq!(scene.state(&good).await, Success);
}

#[tokio::test]
async fn nothing_that_moves_until_the_deadline_is_a_failure_which_convergence_turns() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    let due = scene.fleet.follower.due().unwrap();
    assert_eq!(due.as_secs(), 60);
    scene.world.clock.advance_millis(59_000);
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Pending);
    scene.world.clock.advance_millis(61_000);
    let (reason, _) = scene.fleet.settle(&scene.world).await;
    let (state, why) = scene.wanted(&sha).await;
    assert_eq!((state, reason.as_str()), (Failure, "NotConverging"));
    assert!(
        why.contains("nothing moved for") && why.contains("cluster a is not looked at yet"),
        "{why}"
    );
    assert!(scene.fleet.follower.due().is_none(), "it fails once");
    // Also in another process.
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    scene.converge().await;
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Success);
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_rollout_ends_its_commit() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Pending);
    scene.converge().await;
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Success);
}

#[tokio::test]
async fn what_a_commit_deletes_is_waited_for_after_a_lost_answer_and_a_restart_too() {
    let mut scene = Scene::new().await;
    scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    scene.commit("fleet/web.yaml", &pool("web", "")).await;
    scene.converge().await;
    let finalizers = |all: &[&str]| json!({"metadata": {"finalizers": all}});
    let held = finalizers(&["example.org/held"]);
    scene.world.edit("MachineDeployment", "web", held).await;
    scene.remove("fleet/web.yaml");
    let sha = push(&scene.work);
    *scene.world.away.lock() = Some("lost DELETE ");
    scene.fleet.look(&scene.world).await;
    *scene.world.away.lock() = None;
    assert_eq!(scene.state(&sha).await, Error);
    // As it was when it was complete.
    let complete = json!({"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "upToDateReplicas": 1, "version": "v1.33.2", "conditions": [
            {"type": "Available", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    scene
        .world
        .status("MachineDeployment", "web", complete)
        .await;
    let pending = (Pending, "applied, converging".to_owned());
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.wanted(&sha).await, pending);
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.wanted(&sha).await, pending);
    scene
        .world
        .edit("MachineDeployment", "web", finalizers(&[]))
        .await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Success);
}

#[tokio::test]
async fn what_is_our_fault_is_an_error_that_another_try_turns() {
    let mut scene = Scene::new().await;
    *scene.world.away.lock() = Some("PATCH /api/v1/namespaces/default/configmaps/");
    let sha = scene.commit("fleet/c.yaml", &config_map("c", "one")).await;
    let (state, why) = scene.wanted(&sha).await;
    assert_eq!(state, Error, "{why}");
    *scene.world.away.lock() = None;
    scene.fleet.look(&scene.world).await;
    assert_eq!(
        scene.wanted(&sha).await,
        (Success, "1 object converged".into())
    );
}

#[tokio::test]
async fn what_was_written_though_no_answer_came_is_waited_for() {
    let mut scene = Scene::new().await;
    scene.commit("fleet/c.yaml", &config_map("c", "one")).await;
    *scene.world.away.lock() =
        Some("lost PATCH /apis/fleetwright.dev/v1alpha1/namespaces/default/clusters/");
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    assert_eq!(scene.state(&sha).await, Error);
    *scene.world.away.lock() = None;
    // There is nothing left to write, and the cluster is not there yet.
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Pending);
    scene.converge().await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Success);
}

#[tokio::test]
async fn a_revert_is_waited_for_after_a_restart_too() {
    let mut scene = Scene::new().await;
    scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    scene.converge().await;
    scene.fleet.look(&scene.world).await;
    scene.commit(FILE, &cluster("a", "v1.34.1")).await;
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    assert_eq!(scene.state(&sha).await, Pending);
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Pending);
    scene.converge().await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Success);
}

#[tokio::test]
async fn a_field_that_somebody_holds_is_taken_by_a_commit_that_came_while_no_engine_ran() {
    let mut scene = Scene::new().await;
    write(&scene.work, FILE, &cluster("a", "v1.33.2"));
    scene
        .commit("fleet/web.yaml", &pool("web", "replicas: 3"))
        .await;
    let by_hand = json!({"spec": {"replicas": 7}});
    scene.world.edit("MachineDeployment", "web", by_hand).await;
    let replicas = async |scene: &Scene| {
        let world = &scene.world;
        world
            .field("MachineDeployment", "web", "/spec/replicas")
            .await
    };
    // What changed elsewhere leaves it, as ever.
    scene.fleet.restart(&scene.world).await;
    scene.commit(FILE, &cluster("a", "v1.34.1")).await;
    assert_eq!(replicas(&scene).await, 7);
    scene.fleet.restart(&scene.world).await;
    scene
        .commit("fleet/web.yaml", &pool("web", "replicas: 5"))
        .await;
    assert_eq!(replicas(&scene).await, 5);
    assert_eq!(scene.fleet.condition("InSync").0, "InSync");
}

#[tokio::test]
async fn a_history_that_was_rewritten_while_no_engine_ran_is_followed_without_what_came_before() {
    let mut scene = Scene::new().await;
    scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    write(&scene.work, FILE, &cluster("a", "v1.34.1"));
    git(&scene.work, &["checkout", "-q", "--orphan", "anew"]);
    git(&scene.work, &["commit", "-q", "-a", "-m", "anew"]);
    git(&scene.work, &["branch", "-q", "-M", "main"]);
    // The commit that was applied is nowhere any more.
    let dir = scene.world.dir.path();
    for folder in ["r.git", "cache"] {
        std::fs::remove_dir_all(dir.join(folder)).unwrap();
    }
    git(dir, &["init", "-q", "--bare", "r.git"]);
    let sha = push(&scene.work);
    scene.fleet.restart(&scene.world).await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Pending);
    let version = scene.world.field("Cluster", "a", "/spec/version").await;
    assert_eq!(version, "v1.34.1");
}

#[tokio::test]
async fn a_success_that_could_not_be_told_is_told_later() {
    let mut scene = Scene::new().await;
    scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    scene.converge().await;
    scene.fleet.look(&scene.world).await;
    write(&scene.work, "README.md", "nothing that is followed");
    let sha = push(&scene.work);
    let told = "PATCH /apis/fleetwright.dev/v1alpha1/namespaces/default/commitstatuses/";
    *scene.world.away.lock() = Some(told);
    scene.fleet.try_look(&scene.world).await.unwrap_err();
    assert_eq!(scene.state(&sha).await, Pending);
    *scene.world.away.lock() = None;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.wanted(&sha).await, (Success, "no changes".into()));
}

#[tokio::test]
async fn a_failure_turns_after_a_bad_look_and_a_restart_too() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    scene.fleet.settle(&scene.world).await;
    scene.world.clock.advance_millis(61_000);
    scene.fleet.settle(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Failure);
    let reads = "GET /apis/fleetwright.dev/v1alpha1/machinedeployments";
    *scene.world.away.lock() = Some(reads);
    scene.fleet.try_look(&scene.world).await.unwrap_err();
    *scene.world.away.lock() = None;
    scene.fleet.restart(&scene.world).await;
    scene.converge().await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Success);
}

#[tokio::test]
async fn a_remote_that_is_away_changes_nothing_and_says_so() {
    let mut scene = Scene::new().await;
    let sha = scene.commit(FILE, &cluster("a", "v1.33.2")).await;
    let before = scene.world.versions().await;
    let (here, away) = (
        scene.world.dir.path().join("r.git"),
        scene.world.dir.path().join("x"),
    );
    std::fs::rename(&here, &away).unwrap();
    scene.fleet.try_look(&scene.world).await.unwrap_err();
    let (reason, message) = scene.fleet.ready();
    assert_eq!(reason, "SourceFailed");
    assert!(
        message.contains("connecting to the repository"),
        "{message}"
    );
    assert_eq!(scene.world.versions().await, before);
    std::fs::rename(&away, &here).unwrap();
    scene.converge().await;
    scene.fleet.look(&scene.world).await;
    assert_eq!(scene.state(&sha).await, Success);
}

#[tokio::test]
async fn a_suspended_fleet_applies_nothing() {
    let mut scene = Scene::new().await;
    scene.fleet.change(|spec| spec.suspend = Some(true)).await;
    write(&scene.work, FILE, &cluster("a", "v1.33.2"));
    push(&scene.work);
    assert_eq!(scene.fleet.look(&scene.world).await.0, "Suspended");
    assert!(scene.world.get("Cluster", "a").await.is_none());
    scene.fleet.change(|spec| spec.suspend = None).await;
    scene.fleet.look(&scene.world).await;
    assert!(scene.world.get("Cluster", "a").await.is_some());
}

#[tokio::test]
async fn statuses_that_the_forge_has_are_kept_in_bounded_number() {
    let mut scene = Scene::new().await;
    let first = scene.commit("fleet/c.yaml", &config_map("c", "one")).await;
    let one = scene.statuses().await.remove(0);
    for n in 0..130 {
        let mut old = CommitStatus::new(&format!("old-{n:03}"), one.spec.clone());
        old.metadata.labels.clone_from(&one.metadata.labels);
        old.spec.sha = format!("{n:040x}");
        let api = Api::<CommitStatus>::namespaced(scene.world.client(), "default");
        api.create(&PostParams::default(), &old).await.unwrap();
        // The last ten never reached the forge.
        if n < 120 {
            let at = format!("2026-01-01T{:02}:{:02}:00Z", n / 60, n % 60);
            let status = json!({"posted": old.spec.wanted, "postedAt": at});
            scene
                .world
                .status("CommitStatus", &format!("old-{n:03}"), status)
                .await;
        }
    }
    scene.commit("README.md", "one").await;
    let left = scene.world.names("CommitStatus").await;
    assert!(!left.contains(&"old-019".to_owned()) && left.contains(&"old-020".to_owned()));
    assert!(
        left.contains(&"old-129".to_owned()),
        "what is not posted stays"
    );
    assert_eq!(left.len(), 100 + 10 + 2);
    assert_eq!(scene.state(&first).await, Success);
}

#[tokio::test]
async fn a_directory_is_read_when_an_edit_may_have_changed_it_and_not_else() {
    let world = World::new().await;
    let fleet = world.directory("repo").await;
    fleet.write("c.yaml", &config_map("c", "one"));
    let context = &world.context;
    let catalogue = Arc::clone(&context.catalogue);
    let mut reader = Reader::new(context.client.clone(), catalogue, context.cache.clone());
    let (now, later) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
    let mut look = async |now| {
        let found = reader.find(&fleet.follower.fleet, now).await.unwrap();
        let tree = found.tree.unwrap();
        (found.revision, matches!(tree, Tree::Unchanged(..)))
    };
    let (first, _) = look(now).await;
    // So soon after the edit, another one might not show.
    assert_eq!(look(later).await, (first.clone(), false));
    assert_eq!(look(later).await, (first.clone(), true));
    fleet.write("c.yaml", &config_map("c", "twelve"));
    let (second, unchanged) = look(later).await;
    assert!(second != first && !unchanged);
    assert_eq!(look(later).await, (second, true));
}
