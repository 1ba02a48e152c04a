//! The store against a model, and what survives on disk.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use proptest::prelude::*;

use crate::{Error, Op, Store, Value};

mod crash;
mod file;

fn put(key: &str, value: &str, expect: Option<u64>) -> Op {
    Op::Put {
        key: key.to_owned(),
        value: Value::plain(value),
        expect,
    }
}

fn delete(key: &str) -> Op {
    Op::Delete {
        key: key.to_owned(),
        expect: None,
        last: None,
    }
}

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_store_goes_on_from_entries_kept_elsewhere() {
    let store = Store::memory();
    store.commit(vec![put("/a", "1", Some(0))]).await.unwrap();
    let first = store.commit(vec![put("/b", "2", Some(0))]).await.unwrap();
    let kept = store.range("/", None, 0).0;
    let store = Store::memory_from(100, kept.clone());
    assert_eq!(store.range("/", None, 0), (kept, 100));
    let second = store.commit(vec![put("/b", "3", Some(first))]).await;
    assert_eq!(second.unwrap(), 101);
    assert!(matches!(
        store.watch("/", 99).next().await,
        Err(Error::Compacted { .. })
    ));
    assert_eq!(store.watch("/", 100).next().await.unwrap().len(), 1);
}

/// Values that memory packs are the same for whoever reads them, now, then or as they come.
#[tokio::test]
async fn old_values_take_little_room_and_are_what_they_were() {
    let value = |n: u64| {
        format!(
            "{{\"number\":{n},\"text\":\"{}\"}}",
            "0123456789".repeat(60)
        )
    };
    let limit = 40_000;
    let store = Store::memory_bounded(limit);
    let first = store.revision();
    for n in 0..200 {
        let key = format!("/kind/ns/{:02}", n % 20);
        store
            .commit(vec![put(&key, &value(n), None)])
            .await
            .unwrap();
    }
    store.commit(vec![delete("/kind/ns/00")]).await.unwrap();
    assert_eq!(
        store.compacted(),
        1,
        "200 values of 630 bytes fit {limit} bytes"
    );
    let mut watch = store.watch("/kind/", first);
    let mut seen = Vec::new();
    while seen.len() < 201 {
        seen.extend(watch.next().await.unwrap());
    }
    for (n, event) in seen[..200].iter().enumerate() {
        let n = n as u64;
        assert_eq!(event.value.bytes(), value(n));
        let before = n.checked_sub(20).map(value);
        assert_eq!(
            event.previous.as_ref().map(|p| p.bytes()),
            before.map(Into::into)
        );
    }
    assert_eq!(seen[200].value.bytes(), value(180));
    assert!(store.get("/kind/ns/00").is_none());
    for n in 181..200 {
        let key = format!("/kind/ns/{:02}", n % 20);
        assert_eq!(store.get(&key).unwrap().value.bytes(), value(n));
    }
    let then = store.range_at("/kind/", None, first + 20).unwrap();
    let then: Vec<_> = then.into_iter().map(|(_, value)| value.bytes()).collect();
    assert_eq!(
        then,
        (0..20)
            .map(|n| value(n).into())
            .collect::<Vec<bytes::Bytes>>()
    );
    for n in 0..1000 {
        store
            .commit(vec![put("/kind/ns/00", &value(n), None)])
            .await
            .unwrap();
    }
    assert!(store.compacted() > first + 200, "the history is bounded");
}

#[test]
fn reopening_gives_everything_back_and_never_repeats_a_revision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    rt().block_on(async {
        let store = Store::open(&path).unwrap();
        let first = store.commit(vec![put("/a", "1", Some(0))]).await.unwrap();
        let second = store.commit(vec![put("/b", "2", Some(0))]).await.unwrap();
        let third = store.commit(vec![delete("/b")]).await.unwrap();
        assert!(first < second && second < third);
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(
            store.revision(),
            third,
            "the revision of a removal counts too"
        );
        assert_eq!(store.get("/a").unwrap().value.bytes(), "1");
        assert_eq!(store.get("/a").unwrap().modified, first);
        assert!(store.get("/b").is_none());
        assert!(store.commit(vec![put("/c", "3", None)]).await.unwrap() > third);
        assert!(matches!(
            store.watch("/", first).next().await,
            Err(Error::Compacted { .. })
        ));
    });
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_copy_taken_without_closing_holds_every_acknowledged_commit() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    rt().block_on(async {
        let store = Store::open(dir.path().join("state.db")).unwrap();
        for n in 0..50 {
            store
                .commit(vec![put(&format!("/{n:02}"), "v", Some(0))])
                .await
                .unwrap();
        }
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let revision = store.revision();
        let again = Store::open(copy.path().join("state.db")).unwrap();
        assert_eq!(again.count("/", None), 50);
        assert_eq!(again.revision(), revision);
    });
}

#[test]
fn concurrent_commits_of_one_key_have_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    rt().block_on(async {
        for store in [
            Store::memory(),
            Store::open(dir.path().join("s.db")).unwrap(),
        ] {
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..20 {
                let store = store.clone();
                tasks.spawn(async move {
                    store
                        .commit(vec![put("/a", &n.to_string(), Some(0))])
                        .await
                        .is_ok()
                });
            }
            let won = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
            assert_eq!(won, 1);
        }
    });
}

#[test]
fn a_conflict_leaves_everything_as_it_was() {
    rt().block_on(async {
        let store = Store::memory();
        let revision = store.commit(vec![put("/a", "1", Some(0))]).await.unwrap();
        let refused = store
            .commit(vec![
                put("/b", "x", None),
                put("/a", "2", Some(revision + 7)),
            ])
            .await;
        assert!(matches!(refused, Err(Error::Conflict { found, .. }) if found == revision));
        assert!(store.get("/b").is_none());
        assert_eq!(store.revision(), revision);
    });
}

#[test]
fn watchers_see_what_was_before_and_the_stamped_revision() {
    rt().block_on(async {
        let store = Store::memory();
        let from = store.revision();
        let mut watch = store.watch("/a/", from);
        let value = Value {
            bytes: b"rv=;".to_vec(),
            stamp: Some(3),
        };
        let op = Op::Put {
            key: "/a/x".to_owned(),
            value: value.clone(),
            expect: None,
        };
        store
            .commit(vec![op, put("/other", "1", None)])
            .await
            .unwrap();
        let gone = Op::Delete {
            key: "/a/x".to_owned(),
            expect: None,
            last: Some(value),
        };
        store.commit(vec![gone]).await.unwrap();
        let events = watch.next().await.unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].value.bytes(), "rv=2;");
        assert_eq!(events[0].previous, None);
        assert!(events[1].deleted);
        assert_eq!(events[1].value.bytes(), "rv=3;");
        assert_eq!(events[1].previous, Some("rv=2;".into()));
    });
}

#[test]
fn history_is_bounded_by_bytes() {
    rt().block_on(async {
        let store = Store::memory_bounded(2000);
        let from = store.revision();
        let mut behind = store.watch("/", from);
        for n in 0..100 {
            store
                .commit(vec![put("/a", &format!("{n:0100}"), None)])
                .await
                .unwrap();
        }
        assert!(matches!(behind.next().await, Err(Error::Compacted { .. })));
        let mut kept = store.watch("/", store.compacted());
        let events = kept.next().await.unwrap();
        assert!(events.len() < 12 && events.len() > 5, "{}", events.len());
        assert_eq!(events.last().unwrap().revision, store.revision());
    });
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Create(u8, u8),
    Delete(u8),
    Pair(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        (0u8..8, any::<u8>()).prop_map(|(k, v)| Step::Create(k, v)),
        (0u8..8).prop_map(Step::Delete),
        (0u8..8, 0u8..8).prop_map(|(a, b)| Step::Pair(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn both_stores_agree_with_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        rt().block_on(async {
            let memory = Store::memory();
            let disk = Store::open(&path).unwrap();
            let mut model: BTreeMap<String, String> = BTreeMap::new();
            let mut replay: BTreeMap<String, String> = BTreeMap::new();
            let mut watch = disk.watch("/", disk.revision());
            for step in steps {
                let key = |k: u8| format!("/{k}");
                let (ops, ok) = match &step {
                    Step::Put(k, v) => {
                        model.insert(key(*k), v.to_string());
                        (vec![put(&key(*k), &v.to_string(), None)], true)
                    }
                    Step::Create(k, v) => {
                        let ok = !model.contains_key(&key(*k));
                        model.entry(key(*k)).or_insert_with(|| v.to_string());
                        (vec![put(&key(*k), &v.to_string(), Some(0))], ok)
                    }
                    Step::Delete(k) => {
                        model.remove(&key(*k));
                        (vec![delete(&key(*k))], true)
                    }
                    Step::Pair(a, b) => {
                        model.remove(&key(*a));
                        model.insert(key(*b), "p".to_owned());
                        (vec![delete(&key(*a)), put(&key(*b), "p", None)], true)
                    }
                };
                for store in [&memory, &disk] {
                    assert_eq!(store.commit(ops.clone()).await.is_ok(), ok);
                }
                for event in watch.ready().unwrap() {
                    let key = event.key.to_string();
                    assert_eq!(replay.get(&key).map(String::as_bytes), event.previous.map(|value| value.bytes()).as_deref());
                    if event.deleted {
                        replay.remove(&key);
                    } else {
                        replay.insert(key, String::from_utf8(event.value.bytes().to_vec()).unwrap());
                    }
                }
                assert_eq!(&replay, &model);
            }
            assert_eq!(memory.revision(), disk.revision());
            let revision = disk.revision();
            drop(watch);
            drop(disk);
            let again = Store::open(&path).unwrap();
            assert_eq!(again.revision(), revision);
            for store in [&memory, &again] {
                let (entries, _) = store.range("/", None, 0);
                let got: BTreeMap<String, String> = entries.iter().map(|e| {
                    (e.key.to_string(), String::from_utf8(e.value.bytes().to_vec()).unwrap())
                }).collect();
                assert_eq!(&got, &model);
                let mut paged = Vec::new();
                loop {
                    let after = paged.last().cloned();
                    let (page, _) = store.range("/", after.as_deref(), 3);
                    if page.is_empty() { break; }
                    paged.extend(page.iter().map(|e| e.key.to_string()));
                }
                assert_eq!(paged, model.keys().cloned().collect::<Vec<_>>());
            }
        });
    }
}

#[test]
fn the_past_is_what_was_listed_then() {
    rt().block_on(async {
        let store = Store::memory();
        let mut seen = Vec::new();
        let steps = [
            put("/a", "1", None),
            put("/b", "1", None),
            put("/a", "2", None),
            delete("/b"),
            put("/c", "1", None),
            put("/b", "2", None),
        ];
        for step in steps {
            let revision = store.commit(vec![step]).await.unwrap();
            let (entries, _) = store.range("/", None, 0);
            let listed: Vec<_> = entries.into_iter().map(|e| (e.key, e.value)).collect();
            seen.push((revision, listed));
        }
        for (revision, listed) in &seen {
            assert_eq!(&store.range_at("/", None, *revision).unwrap(), listed);
            let after: Vec<_> = listed
                .iter()
                .filter(|(key, _)| &**key > "/a")
                .cloned()
                .collect();
            assert_eq!(store.range_at("/", Some("/a"), *revision).unwrap(), after);
        }
        let short = Store::memory_bounded(1);
        let first = short.commit(vec![put("/a", "1", None)]).await.unwrap();
        short.commit(vec![put("/a", "2", None)]).await.unwrap();
        let gone = short.range_at("/", None, first);
        assert!(matches!(gone, Err(Error::Compacted { .. })));
    });
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_watch_sleeps_while_others_write_and_is_not_left_behind() {
    let store = Store::memory_bounded(20_000);
    let first = store.revision();
    let mut watch = store.watch("/quiet/", first);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut next = std::pin::pin!(watch.next());
    assert!(next.as_mut().poll(&mut context).is_pending());
    let mut woken = 0;
    for _ in 0..2_000 {
        store.commit(vec![put("/loud/a", "x", None)]).await.unwrap();
        if wakes.0.swap(0, Ordering::Relaxed) > 0 {
            woken += 1;
            assert!(next.as_mut().poll(&mut context).is_pending());
        }
    }
    assert!(store.compacted() > first);
    assert!((1..100).contains(&woken), "{woken}");
    store
        .commit(vec![put("/quiet/b", "y", None)])
        .await
        .unwrap();
    assert_eq!(next.await.unwrap().len(), 1);
}
