//! Pull requests that are applied before their merge, because somebody who may said so.

use fleetwright_api::{Cluster, Fleet, fleet::Held};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use crate::{
    forge::{commit, deliver, git},
    kit::{Engine, PATIENCE, creates, fleet},
    pulls::{SECRET, Scene},
};

fn fleets(engine: &Engine) -> Api<Fleet> {
    Api::namespaced(engine.client.clone(), "default")
}

async fn held(engine: &Engine) -> Option<Held> {
    fleets(engine).get("default").await.unwrap().status?.held
}

/// Waits until a pull request is held, or none is.
async fn until_held(engine: &Engine, is: bool) {
    let done = move |fleet: Option<&Fleet>| {
        let status = fleet.and_then(|fleet| fleet.status.as_ref());
        status.is_some_and(|status| status.held.is_some()) == is
    };
    let wait = await_condition(fleets(engine), "default", done);
    let done = tokio::time::timeout(PATIENCE, wait).await;
    done.unwrap_or_else(|_| panic!("held: {is} did not come"))
        .unwrap();
}

async fn version(engine: &Engine) -> String {
    let clusters = Api::<Cluster>::namespaced(engine.client.clone(), "default");
    clusters.get("a").await.unwrap().spec.version.to_string()
}

/// A Fleet that has applied v1.33.2 and works on approval, and the command that has v1.33.3 applied.
struct Approving {
    scene: Scene,
    engine: Engine,
    first: String,
    head: String,
    command: String,
}

impl Approving {
    async fn new() -> Self {
        let mut scene = Scene::new().await;
        let first = commit(&scene.work(), &fleet("v1.33.2", Some(1)));
        let engine = scene.engine().await;
        scene.forge.until(&first, "success").await;
        let wish = json!({"spec": {"pullRequests": {"apply": "OnApproval"}}});
        let params = PatchParams::apply("test");
        let fleets = fleets(&engine);
        fleets
            .patch("default", &params, &Patch::Merge(wish))
            .await
            .unwrap();
        scene.forge.may.lock().insert("alice".into(), "write");
        scene.forge.may.lock().insert("bob".into(), "read");
        let changed = fleet("v1.33.3", Some(1));
        let head = scene.propose(&first, &changed, Some(&engine)).await;
        let comment = scene.forge.until_said(7, "fleetwright apply ").await;
        let body = comment["body"].as_str().unwrap();
        assert!(body.contains(&head[..12]), "{body}");
        let command = body.lines().find(|l| l.starts_with("fleetwright apply "));
        Self {
            command: command.unwrap().to_owned(),
            scene,
            engine,
            first,
            head,
        }
    }

    /// Somebody writes a comment, and the forge tells of it.
    async fn say(&mut self, who: &str, text: &str) -> u64 {
        let id = self.scene.forge.write(7, who, text);
        self.scene.tell_of_comment(&self.engine).await;
        id
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_applied_when_who_may_says_so_and_merging_it_changes_nothing() {
    let mut it = Approving::new().await;
    let command = it.command.clone();
    // Not by these, not so.
    it.say("bob", &command).await;
    it.scene.forge.until_answered(7, "only who may write").await;
    it.say("alice", "fleetwright apply 0123456789ab").await;
    it.scene.forge.until_answered(7, "of the newest plan").await;
    it.say("robot", &command).await;
    let id = it.say("alice", "fleetwright apply").await;
    it.scene.forge.until_answered(7, "say which plan").await;
    // Whoever may edit others' comments has nobody's word.
    it.scene.forge.edit(id, &command);
    let id = it.scene.forge.write(7, "alice", "I have doubts.");
    it.scene.forge.edit(id, &command);
    it.scene.tell_of_comment(&it.engine).await;
    it.scene.forge.until_answered(7, "was changed after").await;
    assert_eq!(held(&it.engine).await, None);
    assert_eq!(version(&it.engine).await, "v1.33.2");
    let before = creates(&it.engine.journal());

    // It is applied, the answer cannot be posted, and then the engine dies: the answer comes all the same.
    let refusals = std::iter::repeat_n((502, None), 1_000);
    it.scene.forge.refusals.lock().extend(refusals);
    let digits = command.rsplit(' ').next().unwrap().to_uppercase();
    let id = it
        .say("alice", &format!("fleetwright apply {digits}"))
        .await;
    it.scene.forge.until(&it.head, "success").await;
    it.engine.until_at("v1.33.3").await;
    it.engine.process.kill().await;
    it.scene.forge.refusals.lock().clear();
    it.engine = it.scene.engine().await;
    let answer = it.scene.forge.until_answered(7, "Applying").await;
    assert!(
        answer.contains("`alice`") && answer.contains(&it.head[..12]),
        "{answer}"
    );
    let found = held(&it.engine).await.unwrap();
    assert_eq!((found.number, found.approved_by.as_str()), (7, "alice"));
    assert_eq!((&found.head, &found.base), (&it.head, &it.first));
    assert_eq!(version(&it.engine).await, "v1.33.3");
    // Taking the words back takes back nothing.
    it.scene.forge.delete(id);
    it.say("bob", "fleetwright apply").await;
    it.scene.forge.until_answered(7, "only who may write").await;
    assert_eq!(held(&it.engine).await, Some(found));

    // What comes into the branch without it waits.
    let work = it.scene.work();
    std::fs::write(work.join("README.md"), "ours\n").unwrap();
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-q", "-m", "readme"]);
    git(&work, &["push", "-q", "origin", "main"]);
    let second = git(&work, &["rev-parse", "HEAD"]);
    deliver(&it.engine.process, &second, SECRET).await;
    let words = it.scene.forge.until(&second, "pending").await;
    assert!(words.contains("pull request 7"), "{words}");
    git(&work, &["merge", "-q", "--no-ff", "-m", "merge", &it.head]);
    git(&work, &["push", "-q", "origin", "main"]);
    let merge = git(&work, &["rev-parse", "HEAD"]);
    {
        let mut pulls = it.scene.forge.pulls.lock();
        pulls[0]["state"] = json!("closed");
        pulls[0]["merged"] = json!(true);
        pulls[0]["merge_commit_sha"] = json!(merge);
    }
    it.scene.tell(&it.engine, "closed").await;
    it.scene.forge.until(&merge, "success").await;
    assert_eq!(version(&it.engine).await, "v1.33.3");
    let made = creates(&it.engine.journal()) - before;
    assert_eq!(made, 2, "each machine was replaced once");
    it.scene.tell(&it.engine, "closed").await;
    until_held(&it.engine, false).await;
    assert_eq!(version(&it.engine).await, "v1.33.3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_is_closed_the_branch_is_applied_again_and_old_words_count_no_more() {
    let mut it = Approving::new().await;
    let command = it.command.clone();
    // What the forge would not let merge is not applied, nor a draft, nor what comes from a fork.
    it.scene.forge.pulls.lock()[0]["mergeable_state"] = json!("blocked");
    it.say("alice", &command).await;
    it.scene
        .forge
        .until_answered(7, "does not let it be merged")
        .await;
    it.scene.forge.pulls.lock()[0]["head"]["repo"]["id"] = json!(2);
    it.say("alice", &command).await;
    it.scene.forge.until_answered(7, "fork").await;
    {
        let mut pulls = it.scene.forge.pulls.lock();
        pulls[0]["head"]["repo"]["id"] = json!(1);
        // Nobody has looked yet: that is waited for.
        pulls[0]["mergeable_state"] = json!("unknown");
    }
    let asked = *it.scene.forge.asked.lock();
    it.say("alice", &command).await;
    it.scene.forge.until_asked(asked + 1).await;
    assert_eq!(held(&it.engine).await, None);
    it.scene.forge.pulls.lock()[0]["mergeable_state"] = json!("clean");
    it.scene.tell(&it.engine, "synchronize").await;
    it.engine.until_at("v1.33.3").await;
    it.scene.forge.until_answered(7, "Applying").await;

    it.scene.forge.pulls.lock()[0]["state"] = json!("closed");
    it.scene.tell(&it.engine, "closed").await;
    until_held(&it.engine, false).await;
    it.engine.until_at("v1.33.2").await;
    // Opened again it has the same plan, and the old words are there; who wants it must say so again.
    it.scene.forge.pulls.lock()[0]["state"] = json!("open");
    it.scene.tell(&it.engine, "reopened").await;
    it.say("bob", "fleetwright apply").await;
    it.scene.forge.until_answered(7, "only who may write").await;
    assert_eq!(held(&it.engine).await, None);
    let fleet = fleets(&it.engine).get("default").await.unwrap();
    let observed = fleet.status.as_ref().and_then(|s| s.observed.as_ref());
    assert_eq!(
        observed.map(|o| &o.revision),
        Some(&it.first),
        "{}",
        fleet.name_any()
    );
    // What is live has other machines by now, which is another plan; the answer tells which.
    it.say("alice", "fleetwright apply").await;
    let answer = it.scene.forge.until_answered(7, "say which plan").await;
    let newest = answer
        .split('`')
        .find(|part| part.starts_with("fleetwright apply "));
    assert_ne!(newest, Some(command.as_str()));
    it.say("alice", newest.unwrap()).await;
    it.engine.until_at("v1.33.3").await;
    // Who no longer wants to work so has the branch again.
    let wish = json!({"spec": {"pullRequests": {"apply": "AfterMerge"}}});
    let params = PatchParams::apply("test");
    let fleets = fleets(&it.engine);
    fleets
        .patch("default", &params, &Patch::Merge(wish))
        .await
        .unwrap();
    until_held(&it.engine, false).await;
    it.engine.until_at("v1.33.2").await;
}
