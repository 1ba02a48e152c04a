//! Pull requests in real repositories: what merging them would give.

use std::path::Path;

use fleetwright_api::{Fleet, fleet::ForgeType};
use fleetwright_gitops::{
    read::Reader,
    source::{Ends, PullRef, Snapshot, SourceError},
};
use jiff::Timestamp;

use crate::{
    commits::{git, push, repository, spec},
    kit::{World, config_map, write},
};

struct Scene {
    world: World,
    work: std::path::PathBuf,
    fleet: Fleet,
    reader: Reader,
}

impl Scene {
    /// A repository whose branch main has one file.
    async fn new() -> Self {
        let world = World::new().await;
        let work = repository(world.dir.path());
        write(&work, "fleet/a.yaml", &config_map("a", "one"));
        push(&work);
        let context = &world.context;
        let (client, catalogue) = (world.client(), context.catalogue.clone());
        Self {
            fleet: Fleet::new("repo", spec(world.dir.path())),
            reader: Reader::new(client, catalogue, context.cache.clone()),
            world,
            work,
        }
    }

    /// A commit on top of `base` with `text` in `file`, pushed as `name`; gives its id.
    fn propose(&self, base: &str, name: &str, file: &str, text: &str) -> String {
        let work = &self.work;
        git(work, &["checkout", "-q", "--detach", base]);
        write(work, file, text);
        git(work, &["add", "-A"]);
        git(work, &["commit", "-q", "-m", "proposal"]);
        git(
            work,
            &["push", "-q", "-f", "origin", &format!("HEAD:{name}")],
        );
        let head = git(work, &["rev-parse", "HEAD"]);
        git(work, &["checkout", "-q", "main"]);
        head
    }

    fn main(&self) -> String {
        git(&self.work, &["rev-parse", "main"])
    }

    async fn ends(&mut self, numbers: &[u64]) -> Vec<Result<Ends, SourceError>> {
        let refs = numbers
            .iter()
            .map(|n| PullRef::of(ForgeType::Github, *n, "main"));
        let ends = self
            .reader
            .pulls(&self.fleet, refs.collect(), Timestamp::UNIX_EPOCH);
        ends.await.unwrap()
    }

    async fn merged(&mut self, number: u64) -> Result<Snapshot, SourceError> {
        let ends = self.ends(&[number]).await.remove(0).unwrap();
        let of = PullRef::of(ForgeType::Github, number, "main");
        let now = Timestamp::UNIX_EPOCH;
        let merged = self.reader.merged(&self.fleet, of, ends, now);
        merged.await.unwrap().files
    }
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    let mut names: Vec<&str> = snapshot.files.iter().map(|f| f.path.as_str()).collect();
    names.sort_unstable();
    names
}

const HEAD: &str = "refs/pull/1/head";

#[tokio::test]
async fn it_is_merged_into_what_its_base_is_now() {
    let mut scene = Scene::new().await;
    let base = scene.main();
    let head = scene.propose(&base, HEAD, "fleet/b.yaml", &config_map("b", "one"));
    assert_eq!(names(&scene.merged(1).await.unwrap()), ["a.yaml", "b.yaml"]);
    write(&scene.work, "fleet/c.yaml", &config_map("c", "one"));
    let base = push(&scene.work);
    let ends = scene.ends(&[1]).await.remove(0).unwrap();
    assert_eq!(ends, Ends { base, head });
    assert_eq!(
        names(&scene.merged(1).await.unwrap()),
        ["a.yaml", "b.yaml", "c.yaml"]
    );
}

#[tokio::test]
async fn what_does_not_merge_says_where() {
    let mut scene = Scene::new().await;
    let base = scene.main();
    scene.propose(&base, HEAD, "fleet/a.yaml", &config_map("a", "two"));
    write(&scene.work, "fleet/a.yaml", &config_map("a", "three"));
    push(&scene.work);
    let error = scene.merged(1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "it does not merge into its base: fleet/a.yaml differ on both sides"
    );
    assert!(error.is_lasting());
    // Nothing in common.
    let work = &scene.work;
    git(work, &["checkout", "-q", "--orphan", "other"]);
    git(work, &["commit", "-q", "-m", "other"]);
    git(
        work,
        &["push", "-q", "-f", "origin", &format!("HEAD:{HEAD}")],
    );
    git(work, &["checkout", "-q", "main"]);
    let error = scene.merged(1).await.unwrap_err();
    assert!(matches!(error, SourceError::Unrelated), "{error}");
}

#[tokio::test]
async fn the_forges_trial_merge_counts_only_while_it_is_of_these_two() {
    let mut scene = Scene::new().await;
    let base = scene.main();
    let head = scene.propose(&base, HEAD, "fleet/b.yaml", &config_map("b", "one"));
    let trial = |base: &str, file: &str| {
        let work = &scene.work;
        git(work, &["checkout", "-q", "--detach", base]);
        git(work, &["merge", "-q", "--no-ff", "--no-commit", &head]);
        write(work, file, &config_map("trial", "one"));
        git(work, &["add", "-A"]);
        git(work, &["commit", "-q", "-m", "trial"]);
        git(
            work,
            &["push", "-q", "-f", "origin", "HEAD:refs/pull/1/merge"],
        );
        git(work, &["checkout", "-q", "main"]);
    };
    trial(&base, "fleet/trial.yaml");
    let merged = scene.merged(1).await.unwrap();
    assert_eq!(names(&merged), ["a.yaml", "b.yaml", "trial.yaml"]);
    write(&scene.work, "fleet/c.yaml", &config_map("c", "one"));
    push(&scene.work);
    let merged = scene.merged(1).await.unwrap();
    assert_eq!(names(&merged), ["a.yaml", "b.yaml", "c.yaml"]);
}

#[tokio::test]
async fn one_that_is_not_there_says_nothing_of_the_others() {
    let mut scene = Scene::new().await;
    let base = scene.main();
    let head = scene.propose(&base, HEAD, "fleet/b.yaml", &config_map("b", "one"));
    let ends = scene.ends(&[9, 1]).await;
    assert!(matches!(&ends[0], Err(SourceError::NoRef(_))), "{ends:?}");
    assert_eq!(ends[1].as_ref().unwrap().head, head);
}

#[tokio::test]
async fn its_objects_stay_out_of_the_cache_that_is_followed() {
    let mut scene = Scene::new().await;
    scene
        .reader
        .find(&scene.fleet, Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    let base = scene.main();
    let head = scene.propose(&base, HEAD, "fleet/b.yaml", &config_map("b", "one"));
    scene.merged(1).await.unwrap();
    let mut holds = Vec::new();
    for entry in std::fs::read_dir(scene.world.context.cache.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            holds.push((name.ends_with("-pulls"), has(&path, &head)));
        }
    }
    holds.sort_unstable();
    assert_eq!(holds, [(false, false), (true, true)]);
}

fn has(store: &Path, commit: &str) -> bool {
    let out = std::process::Command::new("git")
        .args(["cat-file", "-e", commit])
        .env("GIT_DIR", store)
        .output();
    out.unwrap().status.success()
}

#[tokio::test]
async fn entries_of_a_merge_queue_are_what_will_be_merged() {
    let mut scene = Scene::new().await;
    let base = scene.main();
    let name = "refs/heads/gh-readonly-queue/main/pr-1-abc";
    let head = scene.propose(&base, name, "fleet/b.yaml", &config_map("b", "one"));
    // Of another branch's queue.
    let other = "refs/heads/gh-readonly-queue/maintenance/pr-2-abc";
    scene.propose(&base, other, "fleet/c.yaml", &config_map("c", "one"));
    let now = Timestamp::UNIX_EPOCH;
    let queue = scene
        .reader
        .queue(&scene.fleet, "main".into(), now)
        .await
        .unwrap();
    assert_eq!(queue.len(), 1, "{queue:?}");
    let ends = scene.reader.pulls(&scene.fleet, queue.clone(), now).await;
    let ends = ends.unwrap().remove(0).unwrap();
    assert_eq!(ends, Ends { base, head });
    let merged = scene
        .reader
        .merged(&scene.fleet, queue[0].clone(), ends, now)
        .await
        .unwrap();
    assert_eq!(names(&merged.files.unwrap()), ["a.yaml", "b.yaml"]);
    git(&scene.work, &["push", "-q", "origin", &format!(":{name}")]);
    let queue = scene
        .reader
        .queue(&scene.fleet, "main".into(), now)
        .await
        .unwrap();
    assert!(queue.is_empty(), "{queue:?}");
}

#[tokio::test]
async fn what_is_merged_is_what_was_asked_about() {
    let mut scene = Scene::new().await;
    let base = scene.main();
    scene.propose(&base, HEAD, "fleet/b.yaml", &config_map("b", "one"));
    let ends = scene.ends(&[1]).await.remove(0).unwrap();
    // Meanwhile another one fetches a new head into the same store.
    scene.propose(&base, HEAD, "fleet/c.yaml", &config_map("c", "one"));
    scene.ends(&[1]).await.remove(0).unwrap();
    let of = PullRef::of(ForgeType::Github, 1, "main");
    let now = Timestamp::UNIX_EPOCH;
    let merged = scene
        .reader
        .merged(&scene.fleet, of.clone(), ends, now)
        .await;
    assert_eq!(names(&merged.unwrap().files.unwrap()), ["a.yaml", "b.yaml"]);
    let gone = Ends {
        base,
        head: "0123456789".repeat(4),
    };
    let missing = scene.reader.merged(&scene.fleet, of, gone, now).await;
    let error = missing.unwrap_err().to_string();
    assert!(error.contains("commit 0123456789"), "{error}");
}
