//! Pull requests at a forge, planned on the merge that they ask for.

use std::path::PathBuf;

use fleetwright_api::Cluster;
use kube::Api;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    forge::{Forge, commit, git, signed},
    kit::{Engine, fleet, send},
};

pub(crate) const SECRET: &str = "it's only a test";

/// A bare repository with a work tree beside it, and a forge that knows pull request 7.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    pub(crate) forge: Forge,
    forge_url: String,
    deliveries: u32,
    _tasks: JoinSet<()>,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
        git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
        let forge = Forge::default();
        let mut tasks = JoinSet::new();
        let forge_url = forge.start(&mut tasks).await;
        for (name, text) in [("token", "t0ken"), ("secret", SECRET)] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let scene = Self {
            dir,
            forge,
            forge_url,
            deliveries: 0,
            _tasks: tasks,
        };
        git(&scene.work(), &["checkout", "-q", "-B", "main"]);
        scene
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// An engine that looks when it is told to.
    pub(crate) async fn engine(&self) -> Engine {
        self.engine_with(&["--pull-requests"]).await
    }

    async fn engine_with(&self, options: &[&str]) -> Engine {
        let file = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let (token, secret) = (file("token"), file("secret"));
        let mut more = vec![
            "--branch",
            "main",
            "--interval",
            "3600",
            "--repository",
            "acme/fleet",
            "--forge-url",
            &self.forge_url,
            "--token-file",
            &token,
            "--webhook-secret-file",
            &secret,
        ];
        more.extend(options);
        let url = format!("file://{}", file("fleet.git"));
        Engine::up(&url, &self.dir.path().join("data"), &more).await
    }

    /// Pushes `text` as the head of pull request 7, made on top of `base`, and tells the engine, if there is one; gives the commit.
    pub(crate) async fn propose(
        &mut self,
        base: &str,
        text: &str,
        engine: Option<&Engine>,
    ) -> String {
        let work = self.work();
        git(&work, &["checkout", "-q", "--detach", base]);
        std::fs::write(work.join("fleet.yaml"), text).unwrap();
        git(&work, &["commit", "-q", "-a", "-m", "proposal"]);
        git(
            &work,
            &["push", "-q", "-f", "origin", "HEAD:refs/pull/7/head"],
        );
        let head = git(&work, &["rev-parse", "HEAD"]);
        git(&work, &["checkout", "-q", "main"]);
        let side = |name: &str, sha: &str| json!({"ref": name, "sha": sha, "repo": {"id": 1}});
        *self.forge.pulls.lock() = vec![
            json!({"number": 7, "state": "open", "title": "a change", "mergeable_state": "clean",
            "head": side("change", &head), "base": side("main", base)}),
        ];
        if let Some(engine) = engine {
            self.tell(engine, "synchronize").await;
        }
        head
    }

    /// Tells the engine that somebody wrote a comment.
    pub(crate) async fn tell_of_comment(&mut self, engine: &Engine) {
        self.deliveries += 1;
        let body = json!({"action": "created", "nonce": self.deliveries,
            "issue": {"number": 7, "pull_request": {}}, "comment": {"body": "not to be believed"},
            "repository": {"full_name": "acme/fleet", "default_branch": "main"}});
        let delivery = format!("comment-{}", self.deliveries);
        let (process, body) = (&engine.process, body.to_string());
        let (status, answer) = signed(process, "issue_comment", &delivery, &body, SECRET).await;
        assert!(status.contains(" 20"), "{status} {answer}");
    }

    pub(crate) async fn tell(&mut self, engine: &Engine, action: &str) {
        self.deliveries += 1;
        let body = json!({"action": action, "number": 7, "nonce": self.deliveries,
            "pull_request": {"number": 7, "head": {"sha": "x"}, "base": {"ref": "main"}},
            "repository": {"full_name": "acme/fleet", "default_branch": "main"}});
        let delivery = format!("pull-{}", self.deliveries);
        let (status, answer) = signed(
            &engine.process,
            "pull_request",
            &delivery,
            &body.to_string(),
            SECRET,
        )
        .await;
        assert!(status.contains(" 20"), "{status} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_request_is_planned_on_its_merge_and_its_comment_is_kept_up_to_date() {
    let mut scene = Scene::new().await;
    let first = commit(&scene.work(), &fleet("v1.33.2", Some(2)));
    let engine = scene.engine().await;
    scene.forge.until(&first, "success").await;

    let head = scene
        .propose(&first, &fleet("v1.34.1", Some(2)), Some(&engine))
        .await;
    let words = scene.forge.until_planned(&head, "success").await;
    assert_eq!(
        words,
        "Plan: 0 to create, 1 to change, 0 to delete, 0 refused; 3 machines made, 3 deleted."
    );
    let comment = scene.forge.until_said(7, &head[..12]).await;
    let body = comment["body"].as_str().unwrap();
    for part in [
        "v1.33.2",
        "v1.34.1",
        "a-cp-",
        &head[..12],
        &first[..12],
        "Machines, step by step",
    ] {
        assert!(body.contains(part), "no {part} in {body}");
    }

    // A mistake has its place, in the same comment.
    let bad = fleet("v1.34.1", Some(2)).replace("  replicas: 2", "  replicas: [2");
    let head = scene.propose(&first, &bad, Some(&engine)).await;
    let words = scene.forge.until_planned(&head, "failure").await;
    assert!(words.starts_with("fleet.yaml:"), "{words}");
    let edited = scene.forge.until_said(7, &head[..12]).await;
    assert_eq!(edited["id"], comment["id"]);
    let body = edited["body"].as_str().unwrap();
    assert!(body.contains("fleet.yaml:"), "{body}");

    // So has what the provider has not.
    let url = format!("{}/versions", engine.process.told("simcloud"));
    let (status, body) = send("PUT", &url, &[], r#"{"versions": ["v1.33.2", "v1.33.3"]}"#).await;
    assert!(status.contains(" 20"), "{status} {body}");
    let none = fleet("v1.34.2", Some(2));
    let head = scene.propose(&first, &none, Some(&engine)).await;
    let words = scene.forge.until_planned(&head, "failure").await;
    assert!(words.starts_with("fleet.yaml:11:27: "), "{words}");
    let edited = scene.forge.until_said(7, &head[..12]).await;
    let body = edited["body"].as_str().unwrap();
    assert!(body.contains("(fleet.yaml:11:27)"), "{body}");
    let (status, body) = send("PUT", &url, &[], r#"{"versions": null}"#).await;
    assert!(status.contains(" 20"), "{status} {body}");

    // What the base became meanwhile is part of the merge; here it does not merge.
    let head = scene
        .propose(&first, &fleet("v1.34.1", Some(2)), None)
        .await;
    let second = commit(&scene.work(), &fleet("v1.33.3", Some(2)));
    scene.tell(&engine, "synchronize").await;
    let words = scene.forge.until_planned(&head, "failure").await;
    assert!(
        words.starts_with("it does not merge into its base: fleet.yaml"),
        "{words}"
    );

    // Another process finds the comment again.
    let head = scene
        .propose(&second, &fleet("v1.34.1", Some(2)), None)
        .await;
    assert_eq!(engine.process.interrupt().await, Some(0));
    let engine = scene.engine().await;
    scene.forge.until_planned(&head, "success").await;
    let found = scene.forge.until_said(7, &head[..12]).await;
    assert_eq!(found["id"], comment["id"]);
    // Nothing of a pull request was done.
    let clusters = Api::<Cluster>::namespaced(engine.client.clone(), "default");
    assert_eq!(clusters.get("a").await.unwrap().spec.version, "v1.33.3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comment_says_nothing_old_after_a_restart() {
    let mut scene = Scene::new().await;
    let text = fleet("v1.33.2", Some(1));
    let first = commit(&scene.work(), &text);
    let engine = scene.engine().await;
    scene.forge.until(&first, "success").await;
    let changed = fleet("v1.33.3", Some(1));
    let head = scene.propose(&first, &changed, Some(&engine)).await;
    let comment = scene.forge.until_said(7, &head[..12]).await;
    // While nobody looks it comes to change nothing.
    assert_eq!(engine.process.interrupt().await, Some(0));
    let nothing = format!("{text}# nothing\n");
    let head = scene.propose(&first, &nothing, None).await;
    let engine = scene.engine().await;
    scene.forge.until_planned(&head, "success").await;
    let said = scene.forge.until_said(7, "No changes.").await;
    assert_eq!(said["id"], comment["id"]);
    let head = scene.propose(&first, &changed, Some(&engine)).await;
    scene.forge.until_said(7, &head[..12]).await;
    // While nobody looks its base becomes another.
    assert_eq!(engine.process.interrupt().await, Some(0));
    scene.forge.pulls.lock()[0]["base"]["ref"] = json!("next");
    let engine = scene.engine().await;
    scene.forge.until_said(7, "merges into no branch").await;
    scene.forge.pulls.lock()[0]["base"]["ref"] = json!("main");
    scene.tell(&engine, "reopened").await;
    scene.forge.until_said(7, &head[..12]).await;
    // And the Fleet plans no more.
    assert_eq!(engine.process.interrupt().await, Some(0));
    let engine = scene.engine_with(&[]).await;
    let said = scene.forge.until_said(7, "no longer asks for it").await;
    assert_eq!(said["id"], comment["id"]);
    assert_eq!(engine.process.interrupt().await, Some(0));
    let _engine = scene.engine().await;
    scene.forge.until_said(7, &head[..12]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comment_that_cannot_be_posted_follows_its_status_and_comes_once() {
    let mut scene = Scene::new().await;
    let first = commit(&scene.work(), &fleet("v1.33.2", Some(1)));
    let engine = scene.engine().await;
    scene.forge.until(&first, "success").await;
    let refusals = [(403, None), (502, None), (429, Some("1"))];
    scene.forge.refusals.lock().extend(refusals);
    let changed = fleet("v1.33.3", Some(1));
    let head = scene.propose(&first, &changed, Some(&engine)).await;
    let words = scene.forge.until_planned(&head, "success").await;
    assert!(words.contains("1 to change"), "{words}");
    scene.forge.until_refused(2).await;
    scene.tell(&engine, "synchronize").await;
    scene.forge.until_refused(1).await;
    scene.tell(&engine, "synchronize").await;
    scene.forge.until_refused(0).await;
    assert!(scene.forge.comments.lock().is_empty());
    // What the forge asks for is all that is waited for.
    scene.forge.until_said(7, &head[..12]).await;
    assert_eq!(scene.forge.plan_states(&head), ["pending", "success"]);
}
