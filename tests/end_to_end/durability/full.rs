//! Disks that are full, fail, or cannot be written.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use fleetwright_tests::tools::tool;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{PostParams, WatchEvent, WatchParams},
};
use tokio::process::Command;

use super::{Server, apiserver_by, data, listed, map, run, text, version};
use crate::kit::PATIENCE;

/// How large files may become, or how large the file system is.
const SMALL: usize = 3 << 20;
/// What takes room until it is removed.
const FILLER: &str = "filler";

/// What makes a disk small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Small {
    /// A file system of its own, which only the server's process sees.
    FileSystem,
    /// The process may not make files larger.
    Limit,
}

/// Runs the server by `sh` with a script that ends in `exec "$@"`, in a mount namespace of its own where that is wanted.
fn by_shell(script: &str, namespace: bool, dir: &Path) -> Command {
    let shell = [script, "exec \"$@\""].join("\n");
    if namespace {
        let args = [
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-euc",
            &shell,
            "sh",
        ];
        return apiserver_by(Path::new("unshare"), &args, dir);
    }
    apiserver_by(Path::new("sh"), &["-euc", &shell, "sh"], dir)
}

/// Whether this machine lets its users have mounts of their own. Some containers do not.
fn may_mount() -> bool {
    let tried = std::process::Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "mount",
            "-t",
            "tmpfs",
            "tmpfs",
            "/mnt",
        ])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

impl Small {
    async fn start(self, dir: &Path) -> (Server, PathBuf) {
        let data = data(dir);
        fs::create_dir_all(&data).unwrap();
        let at = data.display();
        let script = match self {
            Self::FileSystem => format!(
                "mount -t tmpfs -o size={SMALL},mode=0700 tmpfs '{at}'; head -c {} /dev/zero > '{at}/{FILLER}'",
                SMALL / 2
            ),
            // Who writes more gets an error, not the signal that would end it.
            Self::Limit => format!("trap '' XFSZ; ulimit -S -f {}", SMALL / 2 / 512),
        };
        let mut command = by_shell(&script, self == Self::FileSystem, dir);
        command.stderr(File::create(dir.join("log")).unwrap());
        if self == Self::Limit {
            return (Server::spawn(command, Path::new("/")).await, data);
        }
        // What is mounted is seen through the process alone: its kubeconfig too.
        let process = crate::kit::Process::spawn(command, "kubeconfig").await;
        let data = PathBuf::from(format!("/proc/{}/root{}", process.id(), data.display()));
        let client = super::client(&data.join("kubeconfig"), None).await;
        (Server { process, client }, data)
    }

    /// Makes room for the server.
    fn give_room(self, server: &Server, data: &Path) {
        match self {
            Self::FileSystem => fs::remove_file(data.join(FILLER)).unwrap(),
            Self::Limit => {
                let id = server.process.id().to_string();
                let raised = std::process::Command::new("prlimit")
                    .args(["--pid", &id, "--fsize=unlimited"])
                    .status();
                assert!(raised.unwrap().success());
            }
        }
    }
}

/// Creates objects until one is refused; gives the refusal.
async fn fill(
    maps: &Api<ConfigMap>,
    known: &mut BTreeMap<String, (u64, String)>,
    prefix: &str,
) -> kube::core::Status {
    let long = "x".repeat(20_000);
    for n in 0..2 * SMALL / long.len() {
        let name = format!("{prefix}-{n:03}");
        match maps
            .create(&PostParams::default(), &map(&name, &long))
            .await
        {
            Ok(written) => known.insert(name, (version(&written), long.clone())),
            Err(kube::Error::Api(status)) => return *status,
            Err(error) => panic!("{error}"),
        };
    }
    panic!("the disk did not become full");
}

/// What is there of what the test wrote.
async fn ours(maps: &Api<ConfigMap>) -> BTreeMap<String, (u64, String)> {
    let mut there = listed(maps).await.0;
    there.retain(|name, _| !name.starts_with("kube-"));
    there
}

async fn a_full_disk(small: Small) {
    let dir = tempfile::tempdir().unwrap();
    let (server, seen_data) = small.start(dir.path()).await;
    let maps = server.maps();
    let mut known = BTreeMap::new();
    let start = listed(&maps).await.1;
    let watch = maps
        .watch(&WatchParams::default(), &start.to_string())
        .await
        .unwrap();
    let mut watch = watch.boxed();

    let refused = fill(&maps, &mut known, "a").await;
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (500, "InternalError"),
        "{refused:?}"
    );
    let file = data(dir.path()).join("state.db");
    let mut words = vec![
        file.to_str().unwrap(),
        "cannot write",
        "writes go on by themselves then",
    ];
    if small == Small::FileSystem {
        words.extend([
            "database or disk is full",
            "No space left on device",
            "make room",
        ]);
    }
    for word in &words {
        assert!(
            refused.message.contains(word),
            "{word}: {}",
            refused.message
        );
    }
    // Reads go on, and so does the watch.
    assert_eq!(ours(&maps).await, known);
    let mut last = start;
    for _ in 0..known.len() {
        let event = tokio::time::timeout(PATIENCE, watch.try_next())
            .await
            .unwrap();
        let Ok(Some(WatchEvent::Added(map))) = event else {
            panic!("{event:?}")
        };
        assert!(version(&map) > last);
        last = version(&map);
        assert_eq!(known[&map.name_any()], (last, text(&map)));
    }
    // Many at once: each is refused and not there, or there. A log that was emptied may have room for some.
    let many = (0..20).map(|n| {
        let maps = maps.clone();
        let map = map(&format!("b-{n}"), &"y".repeat(200_000));
        async move { maps.create(&PostParams::default(), &map).await }
    });
    let mut refused = 0;
    for answer in futures::future::join_all(many).await {
        match answer {
            Ok(map) => drop(known.insert(map.name_any(), (version(&map), text(&map)))),
            Err(kube::Error::Api(status)) if status.code == 500 => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0, "the disk had room for all");
    assert_eq!(ours(&maps).await, known);

    small.give_room(&server, &seen_data);
    let full = listed(&maps).await.1;
    let written = maps
        .create(&PostParams::default(), &map("c", "there is room"))
        .await
        .unwrap();
    assert!(version(&written) > full);
    known.insert(
        "c".to_owned(),
        (version(&written), "there is room".to_owned()),
    );
    while last < version(&written) {
        let event = tokio::time::timeout(PATIENCE, watch.try_next())
            .await
            .unwrap();
        let Ok(Some(WatchEvent::Added(map))) = event else {
            panic!("{event:?}")
        };
        last = version(&map);
        assert_eq!(known[&map.name_any()], (last, text(&map)));
    }
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    let line = log
        .lines()
        .find(|line| line.contains("a transaction of the store failed"));
    for word in &words {
        assert!(
            line.is_some_and(|line| line.contains(word)),
            "{word}: {log}"
        );
    }
    assert!(log.contains("the store can write again"), "{log}");
    if small == Small::FileSystem {
        return;
    }
    // What was refused does not come back, and what was acknowledged stays.
    server.process.kill().await;
    let server = Server::start(dir.path()).await;
    assert_eq!(ours(&server.maps()).await, known);
    assert!(listed(&server.maps()).await.1 >= version(&written));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_reads_go_on_and_writes_come_back() {
    a_full_disk(if may_mount() {
        Small::FileSystem
    } else {
        Small::Limit
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_of_a_file_reads_go_on_and_writes_come_back() {
    a_full_disk(Small::Limit).await;
}

/// Syncs that fail now and then, under load and with kills: what was refused may be there after a kill, as a whole and
/// under a version that nobody saw; all the rest is as acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_is_not_acknowledged() {
    let Some(strace) = tool("strace") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut refused: Vec<String> = Vec::new();
    // The start is not what fails.
    Server::start(dir.path()).await.process.kill().await;
    let mut newest = 0;
    for round in 0..4 {
        // The tracer is a grandchild, so that the server is what is killed.
        let inject = format!(
            "inject=fsync,fdatasync:error=EIO:when={}+{}",
            12 + round,
            5 + round
        );
        let options = [
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            &inject,
        ];
        let server = if round == 3 {
            Server::start(dir.path()).await
        } else {
            Server::spawn(apiserver_by(&strace, &options, dir.path()), Path::new("/")).await
        };
        let maps = server.maps();
        let (there, start) = listed(&maps).await;
        assert!(start >= newest, "{start} is before {newest}");
        for (name, known) in &acknowledged {
            assert_eq!(there.get(name), Some(known), "round {round}");
        }
        for (name, found) in there.iter().filter(|(name, _)| name.starts_with('r')) {
            if !acknowledged.contains_key(name) {
                assert!(
                    refused.contains(name) && found.0 > newest,
                    "{name} at {} came from nowhere",
                    found.0
                );
            }
        }
        acknowledged = there;
        newest = start;
        let mut failed = 0;
        for n in 0..30 {
            let writes = (0..3).map(|k| {
                let (maps, name) = (maps.clone(), format!("r{round}-{n}-{k}"));
                async move {
                    (
                        maps.create(&PostParams::default(), &map(&name, &name))
                            .await,
                        name,
                    )
                }
            });
            for (answer, name) in futures::future::join_all(writes).await {
                match answer {
                    Ok(written) => {
                        newest = newest.max(version(&written));
                        let twice = acknowledged
                            .values()
                            .any(|(known, _)| *known == version(&written));
                        assert!(!twice, "{} was given twice", version(&written));
                        acknowledged.insert(name.clone(), (version(&written), name));
                    }
                    Err(kube::Error::Api(status)) => {
                        assert_eq!(
                            (status.code, status.reason.as_str()),
                            (500, "InternalError")
                        );
                        assert!(status.message.contains("state.db"), "{}", status.message);
                        let read = maps.get_opt(&name).await.unwrap();
                        assert!(read.is_none(), "{name} was refused, and is there");
                        refused.push(name);
                        failed += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(failed > 0 || round == 3, "no sync failed");
        server.process.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let at = data(dir.path());
    fs::create_dir_all(&at).unwrap();
    let ended = |command: Command| async move {
        let output = { command }.output().await.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    if may_mount() {
        let script = format!("mount -t tmpfs -o ro,mode=0700 tmpfs '{}'", at.display());
        let (code, said) = ended(by_shell(&script, true, dir.path())).await;
        assert_eq!(code, Some(2), "{said}");
        for word in [at.to_str().unwrap(), "Read-only file system", "--data"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    // No byte may be written at all: the certificates are the first that fail.
    let none = by_shell("trap '' XFSZ; ulimit -S -f 0", false, dir.path());
    let (code, said) = ended(none).await;
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(
        said.contains(at.to_str().unwrap()) && said.contains("File too large"),
        "{said}"
    );
    // With them, it is the state.
    Server::start(dir.path()).await.process.kill().await;
    fs::remove_file(at.join("state.db")).unwrap();
    fs::remove_file(at.join("state.db-wal")).unwrap();
    let (code, said) = ended(by_shell("trap '' XFSZ; ulimit -S -f 1", false, dir.path())).await;
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(
        said.contains("cannot open the state") && said.contains("state.db"),
        "{said}"
    );
    assert!(!at.join("state.db").exists(), "half of a file was left");
    // A damaged file is named with its remedy, and stays as it is.
    fs::write(at.join("state.db"), "no database").unwrap();
    let (data, file) = (at.to_str().unwrap(), at.join("state.db"));
    let tokens = super::tokens(dir.path());
    let (started, said) = run(&[
        "apiserver",
        "--data",
        data,
        "--token-auth-file",
        tokens.to_str().unwrap(),
    ])
    .await;
    assert!(!started);
    for word in [
        file.to_str().unwrap(),
        "is damaged",
        "fleetwright restore FILE --replace --data",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"no database");
}
