//! A followed directory: start, stop, resume, wrong input.

use std::path::Path;

use rand::RngCore as _;

use crate::{
    forge::{commit, git},
    kit::{Engine, PATIENCE, creates, fleet, fleetwright},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_and_the_next_start_makes_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, data) = (dir.path().join("repo"), dir.path().join("data"));
    std::fs::create_dir(&repo).unwrap();
    std::fs::write(repo.join("a.yaml"), fleet("v1.33.2", Some(2))).unwrap();
    let engine = Engine::up(repo.to_str().unwrap(), &data, &[]).await;
    engine.until_at("v1.33.2").await;
    let before = engine.journal();
    assert_eq!(engine.process.interrupt().await, Some(0));

    let engine = Engine::up(repo.to_str().unwrap(), &data, &[]).await;
    assert_eq!(engine.journal(), before);
    // It works on from there: one machine more, and no other.
    std::fs::write(repo.join("a.yaml"), fleet("v1.33.2", Some(3))).unwrap();
    engine
        .until(
            "a-web",
            "three machines",
            |p: Option<&fleetwright_api::MachineDeployment>| {
                p.and_then(|p| Some(p.status.as_ref()?.available_replicas)) == Some(3)
            },
        )
        .await;
    assert_eq!(creates(&engine.journal()), creates(&before) + 1);
}

#[tokio::test]
async fn wrong_calls_end_with_code_2_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let rows: &[&[&str]] = &[
        &["up", "/no/such/directory", "--data", data],
        &["up", "ssh://git@example.org/fleet", "--data", data],
        &["simcloud", "--listen", "192.0.2.1:0", "--data", data],
    ];
    for args in rows {
        let out = fleetwright(args).output().await.unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains("error: "), "{args:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_fetch_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let (work, data) = (dir.path().join("work"), dir.path().join("data"));
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    // What cannot be compressed takes its time.
    let mut noise = vec![0u8; 48 << 20];
    rand::rng().fill_bytes(&mut noise);
    std::fs::write(work.join("noise"), noise).unwrap();
    commit(&work, &fleet("v1.33.2", Some(1)));
    let url = format!("file://{}/fleet.git", dir.path().display());
    let up = async || Engine::up(&url, &data, &["--branch", "main"]).await;
    let engine = up().await;
    let begun = async {
        while !is_fetching(&data) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    engine.process.kill().await;
    assert!(is_fetching(&data), "it was killed in the middle");
    let engine = up().await;
    engine.until_at("v1.33.2").await;
    assert_eq!(engine.process.interrupt().await, Some(0));
}

/// Whether there is a cache without a whole pack.
fn is_fetching(data: &Path) -> bool {
    let files = |folder: &Path| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|f| f.path()).collect::<Vec<_>>()
    };
    files(&data.join("git")).iter().any(|cache| {
        let packs = files(&cache.join("objects/pack"));
        !packs.is_empty()
            && !packs
                .iter()
                .any(|p| p.extension().is_some_and(|e| e == "idx"))
    })
}
