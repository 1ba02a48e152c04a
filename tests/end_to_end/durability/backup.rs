//! Backup and restore, and what clients see of it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    ResourceExt as _,
    api::{PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::task::JoinSet;

use super::{Server, client, data, listed, map, run, text, version};
use crate::kit::{Engine, PATIENCE, fleet};

const WRITERS: usize = 4;

fn words(said: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = data(dir.path());
    let (at, file) = (at.to_str().unwrap(), dir.path().join("backup.db"));
    let name = file.to_str().unwrap();
    let server = Server::start(dir.path()).await;
    let maps = server.maps();
    // Each writer counts one object up, and knows what it had written when a backup began and when it ended.
    let counts: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        maps.create(&PostParams::default(), &map(&format!("w{writer}"), "0"))
            .await
            .unwrap();
        let (maps, counts, stop) = (maps.clone(), Arc::clone(&counts), Arc::clone(&stop));
        writers.spawn(async move {
            let name = format!("w{writer}");
            while !stop.load(Ordering::Relaxed) {
                let next = counts[writer].load(Ordering::Acquire) + 1;
                let written = maps
                    .replace(
                        &name,
                        &PostParams::default(),
                        &map(&name, &next.to_string()),
                    )
                    .await;
                assert_eq!(text(&written.unwrap()), next.to_string());
                counts[writer].store(next, Ordering::Release);
            }
        });
    }
    let all = || {
        counts
            .iter()
            .map(|count| count.load(Ordering::Acquire))
            .collect::<Vec<_>>()
    };
    let mut backups = Vec::new();
    for n in 0..5 {
        let (before, file) = (all(), dir.path().join(format!("{n}.db")));
        let (done, said) = run(&["backup", file.to_str().unwrap(), "--data", at]).await;
        assert!(done, "{said}");
        backups.push((file, before, all()));
    }
    let (done, said) = run(&["backup", name, "--data", at]).await;
    assert!(done, "{said}");
    words(&said, &[name, "objects at resource version"]);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    stop.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let (done, said) = run(&["backup", name, "--data", at]).await;
    assert!(!done);
    words(&said, &["is there already", "--overwrite"]);
    let (done, said) = run(&["restore", name, "--data", at, "--replace"]).await;
    assert!(!done);
    words(&said, &["another fleetwright process uses the data folder"]);
    let (done, said) = run(&["backup", name, "--data", at, "--overwrite"]).await;
    assert!(done, "{said}");
    let (there, revision) = listed(&maps).await;
    let left = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    let parts: Vec<String> = left.filter(|name| name.contains("part")).collect();
    assert!(parts.is_empty(), "{parts:?}");

    // Only administrators get one.
    let reader = client(&Path::new(at).join("kubeconfig"), Some("readtoken")).await;
    let request = http::Request::get("/fleetwright/backup")
        .body(Vec::new())
        .unwrap();
    let answer = reader.request_text(request).await;
    assert!(
        matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403),
        "{answer:?}"
    );

    // A client that was there before the backup, and writes after it that will be undone.
    let events = watcher(maps.clone(), watcher::Config::default()).default_backoff();
    let mut events = events.boxed();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    while seen.len() < there.len() {
        if let Some(watcher::Event::InitApply(map)) = events.try_next().await.unwrap() {
            seen.insert(map.name_any(), version(&map));
        }
    }
    drop(events);
    maps.create(&PostParams::default(), &map("later", "1"))
        .await
        .unwrap();
    let later = maps
        .replace("w0", &PostParams::default(), &map("w0", "later"))
        .await
        .unwrap();
    let undone = version(&later);
    server.process.kill().await;

    let (done, said) = run(&["restore", name, "--data", at]).await;
    assert!(!done);
    words(&said, &["is there already", "--replace"]);
    let (done, said) = run(&["restore", name, "--data", at, "--replace"]).await;
    assert!(done, "{said}");
    words(
        &said,
        &["the state before is kept as", "state.db.replaced-1"],
    );
    let server = Server::start(dir.path()).await;
    let maps = server.maps();
    let (restored, now) = listed(&maps).await;
    assert!(now > undone && now > revision);
    let contents = |all: &BTreeMap<String, (u64, String)>| {
        all.iter()
            .map(|(name, (_, text))| (name.clone(), text.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(contents(&restored), contents(&there));
    for (name, (version, _)) in &restored {
        assert!(
            *version > undone,
            "{name} is at {version}, and {undone} was seen"
        );
    }
    // A watch from before is told to list anew, also from a version that was written after the backup.
    for old in [1, revision, undone] {
        let watch = maps
            .watch(&WatchParams::default(), &old.to_string())
            .await
            .unwrap();
        let first = tokio::time::timeout(PATIENCE, watch.boxed().try_next())
            .await
            .unwrap();
        assert!(
            matches!(&first, Ok(Some(WatchEvent::Error(status))) if status.code == 410),
            "{first:?}"
        );
    }
    // What was replaced is whole, and is restored as any backup.
    server.process.kill().await;
    let kept = Path::new(at).join("state.db.replaced-1");
    let (done, said) = run(&["restore", kept.to_str().unwrap(), "--data", at, "--replace"]).await;
    assert!(done, "{said}");
    let server = Server::start(dir.path()).await;
    let (back, last) = listed(&server.maps()).await;
    assert_eq!(back["w0"].1, "later");
    assert!(back.contains_key("later") && last > now);
    server.process.kill().await;

    // Each backup under load is one that lay between its begin and its end.
    for (file, before, after) in backups {
        let other = tempfile::tempdir().unwrap();
        let place = data(other.path());
        let (done, said) = run(&[
            "restore",
            file.to_str().unwrap(),
            "--data",
            place.to_str().unwrap(),
        ])
        .await;
        assert!(done, "{said}");
        let server = Server::start(other.path()).await;
        let (there, _) = listed(&server.maps()).await;
        for (writer, (before, after)) in before.iter().zip(after).enumerate() {
            let count: u64 = there[&format!("w{writer}")].1.parse().unwrap();
            // One write may have been done and not yet counted.
            assert!(
                *before <= count && count <= after + 1,
                "{before} <= {count} <= {after}"
            );
        }
        server.process.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_whole_backup_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = data(dir.path());
    let server = Server::start(dir.path()).await;
    server
        .maps()
        .create(&PostParams::default(), &map("a", "1"))
        .await
        .unwrap();
    assert_eq!(server.process.interrupt().await, Some(0));
    // Without an engine the file is copied.
    let file = dir.path().join("backup.db");
    let (at, name) = (at.to_str().unwrap(), file.to_str().unwrap());
    let (done, said) = run(&["backup", name, "--data", at]).await;
    assert!(done, "{said}");
    let state = Path::new(at).join("state.db");
    let (before, whole) = (fs::read(&state).unwrap(), fs::read(&file).unwrap());
    let restore = ["restore", name, "--data", at, "--replace"];
    let mut flipped = whole.clone();
    let middle = whole
        .windows(4)
        .position(|window| window == b"data")
        .unwrap();
    flipped[middle] ^= 1;
    let cut = whole[..whole.len() / 2].to_vec();
    for (bytes, word) in [
        (flipped, "is damaged"),
        (cut, "is damaged"),
        (Vec::new(), "the file is empty"),
        (b"text".to_vec(), "is damaged"),
    ] {
        fs::write(&file, bytes).unwrap();
        let (done, said) = run(&restore).await;
        assert!(!done);
        words(&said, &["cannot restore", name, word]);
        assert!(fs::read(&state).unwrap() == before);
    }
    // A file of the first format is a backup too.
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("store/tests/data/format-1.db");
    let (done, said) = run(&["restore", old.to_str().unwrap(), "--data", at, "--replace"]).await;
    assert!(done, "{said}");
    let server = Server::start(dir.path()).await;
    assert_eq!(listed(&server.maps()).await.0["cm-01"].1, "second");
    server.process.kill().await;
    let (done, said) = run(&["backup", name, "--data", dir.path().to_str().unwrap()]).await;
    assert!(!done);
    words(&said, &["is there already"]);
    fs::remove_file(&file).unwrap();
    let (done, said) = run(&["backup", name, "--data", dir.path().to_str().unwrap()]).await;
    assert!(!done);
    words(&said, &["there is no state in"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_backed_up_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (source, at, file) = (
        dir.path().join("fleet"),
        data(dir.path()),
        dir.path().join("backup.db"),
    );
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("fleet.yaml"), fleet("v1.33.2", Some(2))).unwrap();
    let up = || Engine::up_embedded(source.to_str().unwrap(), &at, &["--interval", "1"]);
    let engine = up().await;
    engine.until_at("v1.33.2").await;
    let (at, name) = (at.to_str().unwrap(), file.to_str().unwrap());
    let (done, said) = run(&["backup", name, "--data", at]).await;
    assert!(done, "{said}");
    assert_eq!(engine.process.interrupt().await, Some(0));
    let (done, said) = run(&["restore", name, "--data", at, "--replace"]).await;
    assert!(done, "{said}");
    let engine = up().await;
    engine.until_at("v1.33.2").await;
    fs::write(source.join("fleet.yaml"), fleet("v1.33.4", Some(2))).unwrap();
    engine.until_at("v1.33.4").await;
    assert_eq!(engine.process.interrupt().await, Some(0));
}
