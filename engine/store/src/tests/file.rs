//! The file: damage is found and left alone, older formats are migrated, room is given back, copies are whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;

use super::{delete, put, rt};
use crate::place::{beside, log_of, waiting};
use crate::{Decoder, Error, Op, Snapshot, Store};

/// What a store holds.
type Held = (u64, BTreeMap<String, String>);

fn held(store: &Store) -> Held {
    let snapshot = store.snapshot();
    let entry = |e: &crate::Entry| {
        (
            e.key.to_string(),
            String::from_utf8(e.value.bytes().to_vec()).unwrap(),
        )
    };
    (
        snapshot.revision,
        snapshot.entries.iter().map(entry).collect(),
    )
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A store of some size, closed: values of many lengths, some on several pages, and free pages.
fn filled(path: &Path) -> Held {
    rt().block_on(async {
        let store = Store::open(path).unwrap();
        for n in 0..60_usize {
            let value = format!("{n}:").repeat(1 + n * n * 3 % 1_900);
            store
                .commit(vec![put(&format!("/{n:02}"), &value, None)])
                .await
                .unwrap();
        }
        for n in 20..30 {
            store
                .commit(vec![delete(&format!("/{n:02}"))])
                .await
                .unwrap();
        }
        held(&store)
    })
}

/// A file of format 1 as its release left it, closed or killed, at `path`.
fn format_1(path: &Path, killed: bool) {
    let name = if killed {
        "format-1-killed.db"
    } else {
        "format-1.db"
    };
    fs::copy(data(name), path).unwrap();
    if killed {
        fs::copy(data("format-1-killed.db-wal"), log_of(path)).unwrap();
    }
}

/// What the files of format 1 hold.
fn held_in_format_1() -> Held {
    let object = |n: usize, revision: u64, text: &str| {
        let key = format!("/core/configmaps/default/cm-{n:02}");
        let value = format!(
            "{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"cm-{n:02}\",\"namespace\":\"default\",\"uid\":\"00000000-0000-4000-8000-0000000000{n:02}\",\"resourceVersion\":\"{revision}\",\"creationTimestamp\":\"2026-01-01T00:00:00Z\"}},\"data\":{{\"text\":\"{text}\"}}}}"
        );
        (key, value)
    };
    let long = "x".repeat(3_000);
    let all = [
        object(0, 2, "first"),
        object(1, 8, "second"),
        object(2, 9, "second"),
        object(3, 5, "first"),
        object(20, 8, &long),
        object(21, 9, &long),
    ];
    (11, all.into_iter().collect())
}

#[test]
fn a_file_of_format_1_is_migrated_however_it_was_left() {
    for killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        format_1(&path, killed);
        // What a migration that was killed leaves behind is no hindrance.
        fs::write(beside(&path, ".new"), "half of a file").unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(held(&store), held_in_format_1(), "killed: {killed}");
        rt().block_on(store.commit(vec![put("/a", "1", Some(0))]))
            .unwrap();
        drop(store);
        let connection = Connection::open(&path).unwrap();
        let pragma = |name: &str| -> i64 {
            connection
                .pragma_query_value(None, name, |row| row.get(0))
                .unwrap()
        };
        assert_eq!(pragma("user_version"), 2);
        assert_eq!(pragma("application_id"), 0x464c_5754);
        assert_eq!(pragma("auto_vacuum"), 2, "incremental");
        drop(connection);
        let (revision, mut all) = held_in_format_1();
        all.insert("/a".to_owned(), "1".to_owned());
        assert_eq!(held(&Store::open(&path).unwrap()), (revision + 1, all));
    }
}

#[test]
fn a_copy_of_any_format_is_read_without_changing_it() {
    for killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        format_1(&path, killed);
        let before = all_files(dir.path());
        let snapshot = Snapshot::read(&path, scratch.path()).unwrap();
        assert!(all_files(dir.path()) == before);
        let there = dir.path().join("other.db");
        assert_eq!(snapshot.replace(&there).unwrap(), None);
        assert_eq!(held(&Store::open(&there).unwrap()), held_in_format_1());
    }
}

/// All files with what is in them. SQLite makes an empty log when it reads: that says nothing.
fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let all = files.map(|path| (path.clone(), fs::read(path).unwrap()));
    let empty_log =
        |path: &Path, bytes: &[u8]| bytes.is_empty() && path.to_str().unwrap().ends_with("-wal");
    all.filter(|(path, bytes)| !empty_log(path, bytes))
        .collect()
}

/// Opens a file that must be refused and left as it is; gives what is said.
fn refused(path: &Path) -> String {
    let dir = path.parent().unwrap();
    let before = all_files(dir);
    let error = Store::open(path).unwrap_err();
    assert!(all_files(dir) == before, "files changed, though: {error}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    error.to_string()
}

#[test]
fn what_is_not_of_this_release_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let with = |sql: &str| {
        filled(&path);
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let said = refused(&path);
        fs::remove_file(&path).unwrap();
        said
    };
    let newer = with("PRAGMA user_version = 3");
    assert!(newer.contains("format 3 is newer than 2"), "{newer}");
    let other = with("PRAGMA application_id = 77");
    assert!(other.contains("another program's file"), "{other}");
    let codec = with("UPDATE data SET codec = 9");
    assert!(
        codec.contains("the encoding of /") && codec.contains("is not known"),
        "{codec}"
    );
    fs::write(&path, "a text of some length\n".repeat(10)).unwrap();
    let text = refused(&path);
    assert!(text.contains("does not begin as a database does"), "{text}");
    fs::write(&path, "").unwrap();
    let empty = refused(&path);
    assert!(empty.contains("the file is empty"), "{empty}");
    fs::remove_file(&path).unwrap();
    fs::write(log_of(&path), "x").unwrap();
    let gone = refused(&path);
    assert!(gone.contains("is missing, though its log"), "{gone}");
}

#[test]
fn rows_that_are_lost_old_or_changed_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let table = [
        ("DELETE FROM data WHERE id = 7", "rows are missing"),
        (
            "UPDATE data SET key = '/0x' WHERE id = 7",
            "the checksum of \"/0x\" is wrong",
        ),
        ("UPDATE data SET modified = 1 WHERE id = 7", "is wrong"),
        (
            "UPDATE meta SET value = value - 1 WHERE name = 'revision'",
            "the checksum of its revision is wrong",
        ),
        ("DELETE FROM meta", "no rows"),
        ("DROP TABLE data", "no such table"),
    ];
    for (sql, wanted) in table {
        filled(&path);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let said = refused(&path);
        assert!(
            said.contains(wanted) && said.contains("restore a backup"),
            "{sql}: {said}"
        );
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    filled(&path);
    let whole = fs::read(&path).unwrap();
    for kept in (0..whole.len()).step_by(1_024).chain([1, 99, 101]) {
        fs::write(&path, &whole[..kept]).unwrap();
        let said = refused(&path);
        assert!(said.contains("restore a backup"), "{kept}: {said}");
    }
}

/// Whatever byte is changed: it is found, or it says nothing.
#[test]
fn a_changed_byte_is_found_wherever_it_matters() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let wanted = filled(&path);
    let whole = fs::read(&path).unwrap();
    let mut found = 0;
    // A prime step comes to every offset of a page.
    let places: Vec<usize> = (0..120).chain((0..whole.len()).step_by(509)).collect();
    for at in &places {
        let mut changed = whole.clone();
        changed[*at] ^= 0x5a;
        fs::write(&path, &changed).unwrap();
        match Store::open(&path) {
            Ok(store) => {
                assert_eq!(held(&store), wanted, "byte {at}");
                drop(store);
            }
            Err(error) => {
                assert!(
                    matches!(error, Error::Damaged { .. } | Error::Format { .. }),
                    "byte {at}: {error}"
                );
                assert!(
                    fs::read(&path).unwrap() == changed,
                    "byte {at}: it was written"
                );
                found += 1;
            }
        }
        fs::remove_file(log_of(&path)).ok();
    }
    assert!(found * 2 > places.len(), "{found} of {}", places.len());
}

/// Whatever byte of the log is changed: it is found, or it says nothing, or only the last commit is gone, as after a
/// power loss. A log that is cut short is one of a power loss.
#[test]
fn a_changed_byte_of_the_log_is_found_unless_it_is_of_the_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut states = Vec::new();
    let (file, log) = rt().block_on(async {
        let store = Store::open(&path).unwrap();
        for n in 0..12_usize {
            let text = format!("{n} ").repeat(n * 400);
            let ops = vec![
                put(&format!("/{n}"), &text, None),
                delete(&format!("/{}", n / 2)),
            ];
            store.commit(ops).await.unwrap();
            states.push(held(&store));
        }
        (fs::read(&path).unwrap(), fs::read(log_of(&path)).unwrap())
    });
    let open = |log: &[u8]| {
        fs::write(&path, &file).unwrap();
        fs::write(log_of(&path), log).unwrap();
        Store::open(&path).map(|store| held(&store))
    };
    assert_eq!(open(&log).unwrap(), states[11]);
    let (mut found, mut lost) = (0, 0);
    for at in (0..120).chain((0..log.len()).step_by(211)) {
        let mut changed = log.clone();
        changed[at] ^= 0x21;
        match open(&changed) {
            Ok(held) if held == states[10] => lost += 1,
            Ok(held) => assert!(held == states[11], "byte {at}"),
            Err(error) => {
                assert!(matches!(error, Error::Damaged { .. }), "byte {at}: {error}");
                assert!(
                    error.to_string().contains("state.db-wal is damaged"),
                    "{error}"
                );
                assert!(
                    fs::read(log_of(&path)).unwrap() == changed,
                    "byte {at}: it was written"
                );
                found += 1;
            }
        }
    }
    assert!(found > 3 * lost && lost > 0, "{found} found, {lost} lost");
    for kept in (0..log.len()).step_by(1_021) {
        let held = open(&log[..kept]).unwrap();
        assert!(held.0 == 1 || states.contains(&held), "{kept}");
    }
}

#[test]
fn an_exchange_that_was_cut_off_anywhere_is_finished_by_who_opens_next() {
    let old = tempfile::tempdir().unwrap();
    let path = old.path().join("state.db");
    let before = filled(&path);
    let store = Store::open(&path).unwrap();
    rt().block_on(store.commit(vec![put("/late", "in the log", None)]))
        .unwrap();
    let live = all_files(old.path());
    assert!(live.contains_key(&log_of(&path)));
    let snapshot = Snapshot {
        revision: 1_000,
        entries: store.snapshot().entries[..5].to_vec(),
    };
    // The renames of an exchange, in their order; a kill comes after the first `done` of them.
    for done in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        for (file, bytes) in &live {
            fs::write(dir.path().join(file.file_name().unwrap()), bytes).unwrap();
        }
        snapshot.replace(&dir.path().join("new.db")).unwrap();
        fs::rename(dir.path().join("new.db"), waiting(&path)).unwrap();
        let kept = beside(&path, ".replaced-1");
        let renames = [(log_of(&path), log_of(&kept)), (path.clone(), kept.clone())];
        for (from, to) in &renames[..done] {
            fs::rename(from, to).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.revision(), 1_000, "{done}");
        assert_eq!(store.snapshot().entries, snapshot.entries, "{done}");
        drop(store);
        let old = held(&Store::open(&kept).unwrap());
        assert_eq!(old.0, before.0 + 1, "the old one is kept with its log");
        assert_eq!(old.1.len(), before.1.len() + 1);
        // The next one gets another name.
        let again = snapshot.replace(&path).unwrap();
        assert_eq!(again, Some(beside(&path, ".replaced-2")));
    }
}

#[test]
fn a_file_shrinks_after_many_removals_and_its_log_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    rt().block_on(async {
        let store = Store::open(&path).unwrap();
        let text = "x".repeat(20_000);
        let mut log = 0;
        for n in 0..3_000_usize {
            store
                .commit(vec![put(&format!("/{n:04}"), &text, None)])
                .await
                .unwrap();
            log = log.max(size(&log_of(&path)));
        }
        // 60 MB went through it.
        assert!(log < 40 << 20, "the log grew to {log} bytes");
        let full = size(&path);
        assert!(full > 45 << 20, "{full}");
        for n in 0..3_000_usize {
            store
                .commit(vec![delete(&format!("/{n:04}"))])
                .await
                .unwrap();
        }
        // The writer goes on by itself while nobody writes; there is no event to wait for but the file's own size.
        let begun = std::time::Instant::now();
        while size(&path) > 3 << 20 {
            assert!(
                begun.elapsed().as_secs() < 60,
                "{} of {full} bytes are left",
                size(&path)
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        store.commit(vec![put("/a", "1", None)]).await.unwrap();
        assert!(size(&log_of(&path)) <= 40 << 20);
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(held(&store).1.len(), 1);
    });
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = (0_u8..12, prop::option::of(0_usize..9_000)).prop_map(|(key, length)| match length {
        Some(length) => put(&format!("/{key}"), &"v".repeat(length), None),
        None => delete(&format!("/{key}")),
    });
    prop::collection::vec(op, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Commits of several changes, of one key twice too, are the same in memory, in the file, and as a stream.
    #[test]
    fn memory_file_and_stream_hold_the_same(commits in prop::collection::vec(ops(), 1..25), cut in 1_usize..4_000) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        rt().block_on(async {
            let memory = Store::memory();
            let store = Store::open(&path).unwrap();
            for commit in &commits {
                let wanted = memory.commit(commit.clone()).await.unwrap();
                assert_eq!(store.commit(commit.clone()).await.unwrap(), wanted);
            }
            let snapshot = store.snapshot();
            assert_eq!(&snapshot, &memory.snapshot());
            drop(store);
            let store = Store::open(&path).unwrap();
            assert_eq!(&store.snapshot(), &snapshot);
            let mut decoder = Decoder::default();
            let mut entries = Vec::new();
            let all: Vec<u8> = snapshot.clone().stream().flatten().collect();
            assert_eq!(all.len(), snapshot.stream_length());
            for piece in all.chunks(cut) {
                decoder.feed(piece);
                while let Some(entry) = decoder.next_entry().unwrap() {
                    entries.push(entry);
                }
            }
            assert_eq!(decoder.finish().unwrap(), snapshot.revision);
            assert_eq!(entries, snapshot.entries);
        });
    }
}

#[test]
fn a_stream_that_is_not_whole_is_refused() {
    let store = Store::memory();
    rt().block_on(store.commit(vec![put("/a", "text", None), put("/b", "more", None)]))
        .unwrap();
    let whole: Vec<u8> = store.snapshot().stream().flatten().collect();
    let read = |bytes: &[u8]| -> crate::Result<u64> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        while decoder.next_entry()?.is_some() {}
        decoder.finish()
    };
    assert_eq!(read(&whole).unwrap(), store.revision());
    for kept in 0..whole.len() {
        assert!(
            matches!(read(&whole[..kept]), Err(Error::Stream(_))),
            "{kept}"
        );
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert!(matches!(read(&changed), Err(Error::Stream(_))), "{at}");
    }
    assert!(read(&[&whole[..], b"x"].concat()).is_err());
}
