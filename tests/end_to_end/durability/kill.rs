//! The server is killed under load, hundreds of times, and nothing that it acknowledged is lost.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Notify, task::JoinSet};

use super::{Server, apiserver, data, listed, map, run, text, version};
use crate::kit::PATIENCE;

const KILLS: usize = 225;
/// Each tenth kill comes while the server is starting.
const STARTING: usize = 10;
const WRITERS: usize = 8;
const KEYS: usize = 6;
/// At most so many writes are acknowledged before a kill.
const WRITES: usize = 40;

/// An object as a client knows it: version and content.
type Known = (u64, String);

/// One object of one writer.
#[derive(Clone, Debug, Default)]
struct Object {
    /// What was acknowledged last.
    acknowledged: Option<Known>,
    /// What was asked for and not answered: the new content, `None` for a removal.
    asked: Option<Option<String>>,
}

/// What any client, writer or watcher, has seen, since the first start.
#[derive(Default)]
struct Seen {
    /// Which version was what: name and content, `None` for a removal.
    versions: BTreeMap<u64, (String, Option<String>)>,
    /// Writes that were acknowledged.
    writes: usize,
}

impl Seen {
    fn newest(&self) -> u64 {
        self.versions
            .keys()
            .next_back()
            .copied()
            .unwrap_or_default()
    }

    /// Notes what somebody saw; one version is never two things.
    fn note(&mut self, version: u64, name: &str, content: Option<&str>) {
        let what = (name.to_owned(), content.map(str::to_owned));
        let before = self.versions.entry(version).or_insert_with(|| what.clone());
        assert_eq!(before, &what, "version {version} was given twice");
    }
}

struct Round {
    maps: Api<ConfigMap>,
    seen: Arc<Mutex<Seen>>,
    /// The newest version when the server started: all later ones are past it.
    start: u64,
    /// Told when `wanted` writes are acknowledged.
    enough: Arc<Notify>,
    wanted: usize,
}

impl Round {
    fn acknowledged(&self, version: u64, name: &str, content: &str) {
        assert!(version > self.start, "{version} is not past {}", self.start);
        self.seen.lock().note(version, name, Some(content));
    }

    /// Writes until the server is gone.
    async fn write(
        &self,
        mut random: StdRng,
        mut objects: BTreeMap<String, Object>,
    ) -> BTreeMap<String, Object> {
        let names: Vec<String> = objects.keys().cloned().collect();
        loop {
            let name = &names[random.random_range(0..names.len())];
            let object = objects.get_mut(name).unwrap();
            // Contents are told apart by a number, and are long enough to be torn.
            let content =
                format!("{:016x}", random.random::<u64>()).repeat(random.random_range(1..400));
            let new = map(name, &content);
            let removes = object.acknowledged.is_some() && random.random_bool(0.25);
            object.asked = Some((!removes).then(|| content.clone()));
            let answer = if removes {
                self.maps
                    .delete(name, &Default::default())
                    .await
                    .map(|_| None)
            } else if object.acknowledged.is_none() {
                self.maps
                    .create(&PostParams::default(), &new)
                    .await
                    .map(Some)
            } else if random.random_bool(0.5) {
                self.maps
                    .replace(name, &PostParams::default(), &new)
                    .await
                    .map(Some)
            } else {
                let patch = serde_json::json!({"data": new.data});
                self.maps
                    .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .map(Some)
            };
            match answer {
                Ok(written) => {
                    object.acknowledged = written.map(|written| {
                        assert_eq!(text(&written), content);
                        self.acknowledged(version(&written), name, &content);
                        (version(&written), content)
                    });
                    object.asked = None;
                    let mut seen = self.seen.lock();
                    seen.writes += 1;
                    if seen.writes >= self.wanted {
                        self.enough.notify_one();
                    }
                }
                Err(kube::Error::Api(status)) => panic!("{name} was refused: {status:?}"),
                // The server is gone.
                Err(_) => return objects,
            }
        }
    }

    /// Watches from `from` until the server is gone. What happened before the start is no longer known.
    async fn watch(&self, from: u64) {
        let parameters = WatchParams::default();
        let mut from = from;
        loop {
            let Ok(stream) = self.maps.watch(&parameters, &from.to_string()).await else {
                return;
            };
            let mut stream = stream.boxed();
            let mut last = from;
            let mut gone = false;
            while let Ok(Some(event)) = stream.try_next().await {
                match event {
                    WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                        assert!(version(&map) > last, "{} after {last}", version(&map));
                        last = version(&map);
                        self.seen
                            .lock()
                            .note(last, &map.name_any(), Some(&text(&map)));
                    }
                    WatchEvent::Deleted(map) => {
                        assert!(version(&map) > last, "{} after {last}", version(&map));
                        last = version(&map);
                        self.seen.lock().note(last, &map.name_any(), None);
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => {
                        assert_eq!(status.code, 410, "{status:?}");
                        assert!(
                            from < self.start,
                            "a watch from {from} is too old at {}",
                            self.start
                        );
                        gone = true;
                    }
                }
            }
            if !gone {
                return;
            }
            from = self.start;
        }
    }
}

/// Holds what a server has against what was acknowledged, and settles what was not answered.
fn compare(
    objects: &mut BTreeMap<String, Object>,
    there: &BTreeMap<String, Known>,
    seen: &mut Seen,
) {
    for (name, object) in objects {
        let found = there.get(name);
        let content = found.map(|(_, content)| content.clone());
        if found != object.acknowledged.as_ref() {
            // Only what was asked for and not answered may have happened instead, and then as a whole.
            assert_eq!(
                object.asked,
                Some(content.clone()),
                "{name} was {:?}",
                object.acknowledged
            );
        }
        if let Some((version, content)) = found {
            seen.note(*version, name, Some(content));
        }
        *object = Object {
            acknowledged: found.cloned(),
            asked: None,
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let seed = std::env::var("FLEETWRIGHT_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("FLEETWRIGHT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let name = |writer: usize, key: usize| (format!("w{writer}-{key}"), Object::default());
    let mut all: Vec<BTreeMap<String, Object>> = (0..WRITERS)
        .map(|writer| (0..KEYS).map(|key| name(writer, key)).collect())
        .collect();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let begun = Instant::now();
    for kill in 0..=KILLS {
        if kill % STARTING == STARTING - 1 {
            // Wherever it is in its start; there is nothing to wait for but the time.
            let mut starting = apiserver(dir.path());
            let mut child = starting
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
            child.kill().await.unwrap();
            continue;
        }
        let server = Server::start(dir.path()).await;
        let maps = server.maps();
        let (there, start) = listed(&maps).await;
        let newest = seen.lock().newest();
        assert!(
            start >= newest,
            "after {newest} was seen, the newest is {start}"
        );
        let known = all
            .iter()
            .flatten()
            .filter(|(name, _)| there.contains_key(*name))
            .count();
        // There is one more: the one that every namespace has.
        let strangers: Vec<_> = there.keys().filter(|name| name.starts_with('w')).collect();
        assert_eq!(strangers.len(), known, "{strangers:?}");
        for objects in &mut all {
            compare(objects, &there, &mut seen.lock());
        }
        if kill == KILLS {
            assert_eq!(server.process.interrupt().await, Some(0));
            break;
        }
        let enough = Arc::new(Notify::new());
        let wanted = seen.lock().writes + random.random_range(1..=WRITES);
        let round = Arc::new(Round {
            maps,
            seen: Arc::clone(&seen),
            start,
            enough: Arc::clone(&enough),
            wanted,
        });
        let mut writers = JoinSet::new();
        for objects in std::mem::take(&mut all) {
            let (round, random) = (Arc::clone(&round), StdRng::seed_from_u64(random.random()));
            writers.spawn(async move { round.write(random, objects).await });
        }
        let watcher = Arc::clone(&round);
        let mut watchers = JoinSet::new();
        watchers.spawn(async move { watcher.watch(newest.max(1)).await });
        tokio::select! {
            () = enough.notified() => {}
            ended = writers.join_next() => panic!("a writer ended: {ended:?}"),
            ended = watchers.join_next() => panic!("the watcher ended: {ended:?}"),
            () = tokio::time::sleep(PATIENCE) => panic!("{wanted} writes were not done"),
        }
        server.process.kill().await;
        all = writers.join_all().await;
        watchers.join_all().await;
    }
    let (seconds, writes) = (begun.elapsed().as_secs_f64(), seen.lock().writes);
    println!("{KILLS} kills in {seconds:.1} s, {writes} writes acknowledged");
    assert!(writes >= KILLS);
    let (file, data) = (dir.path().join("backup.db"), data(dir.path()));
    let (whole, said) = run(&[
        "backup",
        file.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ])
    .await;
    assert!(whole, "{said}");
}
