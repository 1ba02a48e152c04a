//! A pull request that is followed before its merge, in a real repository.

use std::path::PathBuf;

use fleetwright_api::{
    commit_status::CommitState,
    fleet::{ApplyWhen, FleetSpec, PullRequests},
};
use fleetwright_gitops::follow::Follower;
use serde_json::{Value, json};

use crate::{
    commits::{git, push, repository, spec, statuses},
    kit::{Following, World, config_map, write},
};

struct Scene {
    world: World,
    fleet: Following,
    work: PathBuf,
    /// Commit of the branch.
    base: String,
}

impl Scene {
    /// A Fleet that has applied ConfigMap a, and works on approval.
    async fn new() -> Self {
        let world = World::new().await;
        let work = repository(world.dir.path());
        let spec = FleetSpec {
            pull_requests: Some(PullRequests {
                plan: true,
                apply: Some(ApplyWhen::OnApproval),
                ..PullRequests::default()
            }),
            ..spec(world.dir.path())
        };
        let fleet = world.fleet("repo", spec, work.clone()).await;
        let mut scene = Self {
            world,
            fleet,
            work,
            base: String::new(),
        };
        write(&scene.work, "fleet/a.yaml", &config_map("a", "one"));
        scene.base = push(&scene.work);
        scene.look().await;
        scene
    }

    async fn look(&mut self) -> (String, String) {
        self.fleet.look(&self.world).await
    }

    /// Pushes a change of `file` as the head of pull request 7; gives the commit.
    fn propose(&self, file: &str, text: &str) -> String {
        let work = &self.work;
        git(work, &["checkout", "-q", "--detach", &self.base]);
        write(work, file, text);
        git(work, &["add", "-A"]);
        git(work, &["commit", "-q", "-m", "proposal"]);
        let head = git(work, &["rev-parse", "HEAD"]);
        git(
            work,
            &["push", "-q", "-f", "origin", "HEAD:refs/pull/7/head"],
        );
        git(work, &["checkout", "-q", "main"]);
        head
    }

    /// The approval of `head`, merged into `base`.
    async fn hold(&self, head: &str, more: Value) {
        let tree = git(
            &self.work,
            &["merge-tree", "--write-tree", &self.base, head],
        );
        let tree = git(&self.work, &["rev-parse", &format!("{tree}:fleet")]);
        let mut held = json!({"number": 7, "head": head, "base": self.base, "tree": tree,
            "plan": "0123456789ab", "approvedBy": "alice"});
        for (key, value) in more.as_object().unwrap() {
            held[key] = value.clone();
        }
        self.set(held).await;
    }

    async fn set(&self, held: Value) {
        self.world
            .status("Fleet", "repo", json!({"held": held}))
            .await;
    }

    async fn state(&self, sha: &str) -> Option<(CommitState, String)> {
        let all = statuses(&self.world).await.into_iter();
        let context = "fleetwright/test/default.repo";
        let mut of = all.filter(|s| s.spec.sha == sha && s.spec.context == context);
        let wanted = of.next()?.spec.wanted;
        Some((wanted.state, wanted.description))
    }

    /// What ConfigMap a says, and all there are.
    async fn live(&self) -> (Value, Vec<String>) {
        let said = self.world.field("ConfigMap", "a", "/data").await;
        (said, self.world.names("ConfigMap").await)
    }

    async fn observed(&self) -> Value {
        let at = "/status/observed/revision";
        self.world.field("Fleet", "repo", at).await
    }

    /// Another process takes over.
    fn restart(&mut self) {
        let fleet = self.fleet.follower.fleet.clone();
        self.fleet.follower = Follower::new(self.world.context.clone(), fleet);
    }
}

use CommitState::{Failure, Pending, Success};

#[tokio::test]
async fn it_is_followed_until_it_is_closed_and_then_the_branch_again() {
    let mut scene = Scene::new().await;
    let before = scene.live().await;
    let head = scene.propose("fleet/a.yaml", &config_map("a", "two"));
    scene.look().await;
    assert_eq!(
        scene.live().await,
        before,
        "a proposal alone changes nothing"
    );
    scene.hold(&head, json!({})).await;
    let ready = scene.look().await;
    assert_eq!(ready.0, "Converged", "{ready:?}");
    let (said, _) = scene.live().await;
    assert_ne!(said, before.0);
    assert_eq!(scene.state(&head).await.unwrap().0, Success);
    assert_eq!(scene.observed().await, json!(head));
    // What the follower writes leaves the approval as it is, also that of a process that starts with it.
    scene.restart();
    scene.look().await;
    assert_eq!(scene.live().await.0, said);
    let kept = scene
        .world
        .field("Fleet", "repo", "/status/held/head")
        .await;
    assert_eq!(kept, json!(head));
    // The branch goes on without it: that waits, and says for what.
    write(&scene.work, "fleet/b.yaml", &config_map("b", "one"));
    let later = push(&scene.work);
    scene.look().await;
    let (state, words) = scene.state(&later).await.unwrap();
    assert_eq!(state, Pending);
    assert!(words.contains("pull request 7"), "{words}");
    assert_eq!(scene.live().await.1, before.1);
    assert_eq!(scene.state(&head).await.unwrap().0, Success);
    scene.set(Value::Null).await;
    scene.look().await;
    let (again, names) = scene.live().await;
    assert_eq!(again, before.0);
    assert!(names.contains(&"b".to_owned()), "{names:?}");
    assert_eq!(scene.state(&later).await.unwrap().0, Success);
    assert_eq!(scene.observed().await, json!(later));
    // A process that knew of it does not bring it back.
    scene.restart();
    scene.look().await;
    let held = scene.world.field("Fleet", "repo", "/status/held").await;
    assert_eq!(held, Value::Null);
}

#[tokio::test]
async fn a_branch_that_has_it_is_followed_whatever_the_forge_says() {
    let mut scene = Scene::new().await;
    let head = scene.propose("fleet/a.yaml", &config_map("a", "two"));
    scene.hold(&head, json!({})).await;
    scene.look().await;
    // Forward to the head itself: it is the same commit, which has ended well.
    git(&scene.work, &["merge", "-q", "--ff-only", &head]);
    git(&scene.work, &["push", "-q", "origin", "main"]);
    scene.look().await;
    assert_eq!(scene.state(&head).await.unwrap().0, Success);
    write(&scene.work, "fleet/b.yaml", &config_map("b", "one"));
    let later = push(&scene.work);
    scene.look().await;
    assert_eq!(scene.observed().await, json!(later));
    assert_eq!(scene.state(&later).await.unwrap().0, Success);
}

#[tokio::test]
async fn when_it_is_squashed_the_branch_is_followed_once_it_has_that() {
    let mut scene = Scene::new().await;
    let head = scene.propose("fleet/a.yaml", &config_map("a", "two"));
    scene.hold(&head, json!({})).await;
    scene.look().await;
    let (said, _) = scene.live().await;
    let versions = scene.world.versions().await;
    // Merged by words alone: what the remote shows does not have it yet.
    let work = scene.work.clone();
    git(&work, &["merge", "-q", "--squash", &head]);
    git(&work, &["commit", "-q", "-m", "squashed"]);
    let merge = git(&work, &["rev-parse", "HEAD"]);
    scene.hold(&head, json!({"mergedAs": merge})).await;
    scene.look().await;
    assert_eq!(
        scene.live().await.0,
        said,
        "nothing is rolled back in between"
    );
    assert_eq!(scene.observed().await, json!(head));
    git(&work, &["push", "-q", "origin", "main"]);
    scene.look().await;
    assert_eq!(scene.observed().await, json!(merge));
    assert_eq!(
        scene.state(&merge).await,
        Some((Success, "no changes".into()))
    );
    assert_eq!(scene.world.versions().await, versions);
    // And what comes on top of it is followed, though nobody has let go yet.
    write(&work, "fleet/b.yaml", &config_map("b", "one"));
    let later = push(&work);
    scene.look().await;
    assert_eq!(scene.observed().await, json!(later));
}

#[tokio::test]
async fn a_head_that_moved_stays_what_was_approved_and_one_that_is_lost_changes_nothing() {
    let mut scene = Scene::new().await;
    let head = scene.propose("fleet/b.yaml", &config_map("b", "one"));
    scene.hold(&head, json!({})).await;
    scene.look().await;
    let live = scene.live().await;
    assert!(live.1.contains(&"b".to_owned()), "{live:?}");
    // Another head, which nobody approved.
    scene.propose("fleet/c.yaml", &config_map("c", "one"));
    scene.restart();
    scene.look().await;
    assert_eq!(scene.live().await, live);
    // Caches are lost; the old head is asked for, and nobody has it any more.
    let bare = scene.world.dir.path().join("r.git");
    git(&bare, &["gc", "-q", "--prune=now"]);
    std::fs::remove_dir_all(scene.world.context.cache.folder()).unwrap();
    scene.restart();
    let (reason, message) = scene.look().await;
    assert_eq!(reason, "SourceFailed", "{message}");
    assert!(
        message.contains("pull request 7") && message.contains("gone"),
        "{message}"
    );
    assert_eq!(scene.state(&head).await.unwrap().0, Failure);
    assert_eq!(scene.live().await, live, "nothing is deleted");
    // Neither is a merge applied that is another than was approved.
    let (old, head) = (head, scene.propose("fleet/c.yaml", &config_map("c", "two")));
    let other = json!({"tree": "0".repeat(40), "replaces": old});
    scene.hold(&head, other).await;
    let (_, message) = scene.look().await;
    assert!(message.contains("no longer the one"), "{message}");
    assert_eq!(scene.live().await, live);
}

#[tokio::test]
async fn a_fleet_that_does_not_work_so_follows_its_branch() {
    let rows = [
        json!({"pullRequests": {"apply": "AfterMerge"}}),
        json!({"pullRequests": {"plan": false, "apply": "AfterMerge"}}),
        json!({"forge": null}),
        json!({"source": {"verify": {"secretRef": {"name": "signers"}}}}),
    ];
    for change in rows {
        let mut scene = Scene::new().await;
        let head = scene.propose("fleet/b.yaml", &config_map("b", "one"));
        scene.hold(&head, json!({})).await;
        scene
            .world
            .edit("Fleet", "repo", json!({"spec": change}))
            .await;
        scene.fleet.try_look(&scene.world).await.ok();
        assert!(!scene.live().await.1.contains(&"b".to_owned()), "{change}");
        assert_eq!(scene.observed().await, json!(scene.base), "{change}");
    }
}

#[tokio::test]
async fn a_plan_that_is_refused_fails_the_head_and_the_branch_comes_back() {
    let mut scene = Scene::new().await;
    let live = scene.live().await;
    let head = scene.propose("fleet/a.yaml", "kind: ConfigMap\n");
    scene.hold(&head, json!({})).await;
    scene.look().await;
    assert_eq!(scene.state(&head).await.unwrap().0, Failure);
    assert_eq!(scene.live().await, live);
    scene.set(Value::Null).await;
    scene.look().await;
    assert_eq!(scene.state(&scene.base).await.unwrap().0, Success);
    assert_eq!(scene.observed().await, json!(scene.base));
}

#[tokio::test]
async fn an_approval_that_comes_too_late_takes_nothing_back() {
    let mut scene = Scene::new().await;
    let head = scene.propose("fleet/c.yaml", &config_map("c", "one"));
    // The branch moves and is applied before the approval arrives.
    write(&scene.work, "fleet/b.yaml", &config_map("b", "one"));
    let later = push(&scene.work);
    scene.look().await;
    scene.hold(&head, json!({})).await;
    scene.look().await;
    let (_, names) = scene.live().await;
    assert!(names.contains(&"b".to_owned()) && !names.contains(&"c".to_owned()));
    assert_eq!(scene.observed().await, json!(later));
    // Of a branch that moved and was not applied yet nothing is taken back.
    scene.set(Value::Null).await;
    scene.base = later;
    let head = scene.propose("fleet/c.yaml", &config_map("c", "one"));
    write(&scene.work, "fleet/d.yaml", &config_map("d", "one"));
    push(&scene.work);
    scene.hold(&head, json!({})).await;
    scene.look().await;
    let (_, names) = scene.live().await;
    assert!(names.contains(&"b".to_owned()) && names.contains(&"c".to_owned()));
    assert!(!names.contains(&"d".to_owned()), "{names:?}");
    assert_eq!(scene.observed().await, json!(head));
}

#[tokio::test]
async fn what_was_begun_goes_on_after_a_crash_though_the_branch_has_moved() {
    let mut scene = Scene::new().await;
    let head = scene.propose("fleet/b.yaml", &config_map("b", "one"));
    scene.hold(&head, json!({})).await;
    *scene.world.away.lock() = Some("PATCH /api/v1/namespaces/default/configmaps/b");
    let (reason, _) = scene.look().await;
    assert_eq!(reason, "ApplyFailed");
    *scene.world.away.lock() = None;
    write(&scene.work, "fleet/c.yaml", &config_map("c", "one"));
    push(&scene.work);
    let fleet = scene.fleet.fleets.get("repo").await.unwrap();
    scene.fleet.follower = Follower::new(scene.world.context.clone(), fleet);
    scene.look().await;
    let (_, names) = scene.live().await;
    assert!(names.contains(&"b".to_owned()) && !names.contains(&"c".to_owned()));
}
