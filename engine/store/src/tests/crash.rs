//! Commits of several keys, by a process that is killed at any moment, on disks with and without room.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::{put, rt};
use crate::{Error, Op, Store};

/// Where the process that is killed keeps its store.
const CHILD: &str = "FLEETWRIGHT_STORE_CHILD";
/// Each commit writes so many keys.
const KEYS: usize = 3;
const GROUPS: usize = 4;

/// What the process that is killed does, in a test binary that was started for it.
#[test]
fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    rt().block_on(async {
        let store = Store::open(path).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for group in 0..GROUPS {
            let store = store.clone();
            tasks.spawn(async move { write(&store, group).await });
        }
        tasks.join_all().await;
    });
}

/// Counts the keys of a group up, all of them in one commit, and tells each answer in a line.
async fn write(store: &Store, group: usize) {
    let read = |key: usize| store.get(&format!("/{group}/{key}"));
    let mut number = read(0).map_or(0, |entry| number(&entry.value.bytes()));
    loop {
        number += 1;
        // Each third commit removes the last key, so that removals are torn or not too.
        let ops: Vec<Op> = (0..KEYS)
            .map(|key| {
                let name = format!("/{group}/{key}");
                if key == KEYS - 1 && number % 3 == 0 {
                    super::delete(&name)
                } else {
                    put(
                        &name,
                        &format!("{number} ").repeat(1 + 400 * (number % 7)),
                        None,
                    )
                }
            })
            .collect();
        let before = read(0);
        match store.commit(ops).await {
            Ok(revision) => println!("ok {group} {number} {revision}"),
            Err(Error::Io { .. }) => {
                assert_eq!(read(0), before, "what failed is seen");
                println!("failed {group} {number} {}", store.revision());
                number -= 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn number(value: &[u8]) -> usize {
    let text = std::str::from_utf8(value).unwrap();
    let first = text.split(' ').next().unwrap();
    assert!(
        text.split_terminator(' ').all(|word| word == first),
        "torn: {text}"
    );
    first.parse().unwrap()
}

/// Runs the process until it has told `answers`, and kills it; gives what it told, oldest first.
fn killed_after(
    path: &Path,
    answers: usize,
    blocks: Option<u64>,
) -> Vec<(bool, usize, usize, u64)> {
    let limit = blocks.map_or_else(String::new, |blocks| {
        format!("trap '' XFSZ; ulimit -S -f {blocks};")
    });
    let mut child = Command::new("sh")
        .args(["-euc", &format!("{limit} exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::crash::writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let parse = |line: &str| {
        // The first line of all begins with the harness's own words.
        let at = line.find("ok ").or_else(|| line.find("failed "))?;
        let words: Vec<&str> = line[at..].split(' ').collect();
        let [how, group, number, revision] = words.as_slice() else {
            return None;
        };
        let (group, number) = (group.parse().ok()?, number.parse().ok()?);
        Some((*how == "ok", group, number, revision.parse().ok()?))
    };
    while told.len() < answers {
        let line = lines.next().expect("the process ended by itself").unwrap();
        told.extend(parse(&line));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had told before it was killed counts too. A line is written at once, or not.
    let rest = lines.map_while(std::result::Result::ok);
    told.extend(rest.filter_map(|line| parse(&line)));
    told
}

#[test]
fn commits_are_whole_and_revisions_new_after_any_kill_with_room_and_without() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut acknowledged: BTreeMap<usize, usize> = BTreeMap::new();
    let mut newest = 0;
    let mut failures = 0;
    // Half of them with little room beyond what is there: blocks of 512 bytes for the file, or for its log.
    let kills = prop::collection::vec((1_usize..60, prop::option::weighted(0.5, 8_u64..200)), 40);
    let kills = kills
        .new_tree(&mut TestRunner::default())
        .unwrap()
        .current();
    for (answers, blocks) in kills {
        let size = std::fs::metadata(&path).map_or(100 << 10, |m| m.len());
        let told = killed_after(&path, answers, blocks.map(|more| size / 512 + more));
        let mut given = BTreeSet::new();
        for (done, group, number, revision) in told {
            if !done {
                failures += 1;
                continue;
            }
            assert!(revision > newest, "{revision} came after {newest}");
            assert!(given.insert(revision), "{revision} was given twice");
            acknowledged.insert(group, number);
        }
        let store = Store::open(&path).unwrap();
        let last = given.last().copied().unwrap_or(newest);
        assert!(
            store.revision() >= last,
            "{} after {last}",
            store.revision()
        );
        newest = store.revision();
        for group in 0..GROUPS {
            let values: Vec<Option<usize>> = (0..KEYS)
                .map(|key| {
                    store
                        .get(&format!("/{group}/{key}"))
                        .map(|e| number(&e.value.bytes()))
                })
                .collect();
            let Some(first) = values[0] else {
                assert_eq!(acknowledged.get(&group), None);
                continue;
            };
            let last = (first % 3 != 0).then_some(first);
            assert_eq!(
                values,
                [Some(first), Some(first), last],
                "a commit was torn"
            );
            let known = acknowledged.insert(group, first).unwrap_or_default();
            assert!(
                first == known || first == known + 1,
                "{first} is there, {known} was acknowledged"
            );
        }
    }
    assert!(failures > 0, "the disk was never full");
}
