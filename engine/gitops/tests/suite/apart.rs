//! One Fleet's repository goes bad in every way that we know: its commit says so, nothing of its own is changed, and the other
//! Fleet goes on.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use fleetwright_api::{
    CommitStatus,
    commit_status::CommitState::{self, Failure, Success},
    fleet::{Verify, VerifyMode},
};
use fleetwright_gitops::load::{MAX_FILE_BYTES, MAX_TOTAL_BYTES};
use futures::StreamExt as _;
use kube::{Api, runtime::watcher};

use crate::{
    commits::{git, push, repository, spec},
    kit::{Following, World, cluster, config_map, pool, write},
    looping::{PATIENCE, Running, data, until},
    sources::secret,
};

/// Waits until a commit's status ends so, and gives what it says. One that ends otherwise fails the test.
async fn ends(world: &World, sha: &str, fleet: &str, wanted: CommitState) -> String {
    let statuses = Api::<CommitStatus>::namespaced(world.client(), "default");
    let context = format!("fleetwright/test/default.{fleet}");
    let wait = async {
        let mut events = watcher::watcher(statuses, watcher::Config::default()).boxed();
        while let Some(event) = events.next().await {
            let (watcher::Event::Apply(status) | watcher::Event::InitApply(status)) =
                event.unwrap()
            else {
                continue;
            };
            let of = &status.spec;
            if of.sha == sha && of.context == context && of.wanted.state != CommitState::Pending {
                return of.wanted.clone();
            }
        }
        unreachable!("the watch ended")
    };
    let ended = tokio::time::timeout(PATIENCE, wait).await;
    let ended = ended.unwrap_or_else(|_| panic!("{fleet} at {sha} does not end"));
    assert_eq!(
        ended.state, wanted,
        "{fleet} at {sha}: {}",
        ended.description
    );
    ended.description
}

/// A Fleet with a repository of its own, asked each second.
async fn follow(world: &World, name: &str) -> Following {
    let dir = world.dir.path().join(name);
    std::fs::create_dir(&dir).unwrap();
    let work = repository(&dir);
    for object in ["stays", "moves"] {
        let object = format!("{object}-{name}");
        let file = format!("fleet/{object}.yaml");
        write(&work, &file, &config_map(&object, "v0"));
    }
    let mut spec = spec(&dir);
    spec.source.interval_seconds = Some(1);
    world.fleet(name, spec, work).await
}

/// Pushes a commit of the same content whose signature is none.
fn push_with_nonsense_for_a_signature(work: &Path) -> String {
    push(work);
    let commit = git(work, &["cat-file", "commit", "HEAD"]);
    let (head, message) = commit.split_once("\n\n").unwrap();
    let text = format!(
        "{head}\ngpgsig -----BEGIN SSH SIGNATURE-----\n bm9uc2Vuc2U=\n -----END SSH SIGNATURE-----\n\n{message}\n"
    );
    let mut child = Command::new("git")
        .args(["hash-object", "-t", "commit", "-w", "--stdin"])
        .current_dir(work)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let id = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let id = id.trim();
    git(work, &["reset", "-q", "--hard", id]);
    git(work, &["push", "-q", "-f", "origin", "main"]);
    id.to_owned()
}

/// Empties the followed folder but for one file.
fn only(work: &Path, file: &str, text: &[u8]) {
    empty(work);
    std::fs::write(work.join("fleet").join(file), text).unwrap();
}

fn empty(work: &Path) {
    let folder = work.join("fleet");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir(&folder).unwrap();
}

#[tokio::test]
async fn bad_content_deletes_nothing_and_holds_up_nobody_else() {
    let world = World::new().await;
    let (bad, good) = (follow(&world, "bad").await, follow(&world, "good").await);
    let first = push(&bad.folder);
    push(&good.folder);
    let running = Running::start(&world);
    ends(&world, &first, "bad", Success).await;
    until(&world, "ConfigMap", "moves-good", data("v0")).await;
    let mine = async |world: &World| {
        let all = world.versions().await;
        all.into_iter()
            .filter(|(name, _)| name.contains("-bad"))
            .collect::<Vec<_>>()
    };
    let before = mine(&world).await;
    assert_eq!(before.len(), 2);

    type Spoil = Box<dyn Fn(&Path)>;
    let file = |name: &'static str, text: Vec<u8>| -> Spoil {
        Box::new(move |work| only(work, name, &text))
    };
    let wrong = cluster("a", "v1.33.2").replace("spec:\n", "spec:\n  verson: v1\n");
    let anothers = config_map("stays-good", "stolen");
    let rows: Vec<(&str, Spoil)> = vec![
        ("a.yaml:2:", file("a.yaml", b"a: 1\nb: c: d".to_vec())),
        (
            "a.yaml:5:3: unknown field spec.verson",
            file("a.yaml", wrong.into_bytes()),
        ),
        (
            "a.yaml:1:1: too large",
            file("a.yaml", vec![b'#'; MAX_FILE_BYTES + 1]),
        ),
        ("a.yaml:1:1: not UTF-8", file("a.yaml", b"a: \xff".to_vec())),
        (
            "a.yaml:",
            file("a.yaml", [b"a: ".as_slice(), &[b'['; 100_000]].concat()),
        ),
        (
            "a.yaml:2:7: Secret is refused",
            file("a.yaml", b"apiVersion: v1\nkind: Secret\n".to_vec()),
        ),
        (
            "there is no Cluster",
            file("a.yaml", pool("web", "replicas: 1").into_bytes()),
        ),
        (
            "it belongs to Fleet default/good",
            file("a.yaml", anothers.into_bytes()),
        ),
        (
            "a.yaml:1:1: a symbolic link",
            Box::new(|work| {
                empty(work);
                std::os::unix::fs::symlink("/etc/hosts", work.join("fleet/a.yaml")).unwrap();
            }),
        ),
        (
            "more:1:1: a symbolic link that leads out",
            Box::new(|work| {
                empty(work);
                std::os::unix::fs::symlink("/etc", work.join("fleet/more")).unwrap();
            }),
        ),
        (
            "sub:1:1: a submodule",
            Box::new(|work| {
                empty(work);
                std::fs::create_dir(work.join("fleet/sub")).unwrap();
                let link = format!("160000,{},fleet/sub", "1".repeat(40));
                git(work, &["update-index", "--add", "--cacheinfo", &link]);
            }),
        ),
        (
            "too large: a file may have",
            Box::new(|work| {
                empty(work);
                for n in 0..=MAX_TOTAL_BYTES / MAX_FILE_BYTES {
                    let name = work.join(format!("fleet/{n}.yaml"));
                    std::fs::write(name, vec![b'#'; MAX_FILE_BYTES]).unwrap();
                }
            }),
        ),
        (
            "no folder \"fleet\"",
            Box::new(|work| std::fs::remove_dir_all(work.join("fleet")).unwrap()),
        ),
    ];
    let mut turn = 0;
    let values: Vec<&'static str> = (0..=rows.len())
        .map(|n| &*format!("v{n}x").leak())
        .collect();
    let mut check = async |sha: String, words: &str| {
        let said = ends(&world, &sha, "bad", Failure).await;
        assert!(said.contains(words), "wanted {words}, got {said}");
        // The other one's next commit comes after it.
        write(
            &good.folder,
            "fleet/moves-good.yaml",
            &config_map("moves-good", values[turn]),
        );
        let next = push(&good.folder);
        ends(&world, &next, "good", Success).await;
        until(&world, "ConfigMap", "moves-good", data(values[turn])).await;
        until(&world, "ConfigMap", "stays-good", data("v0")).await;
        assert_eq!(mine(&world).await, before, "{words}");
        turn += 1;
    };
    for (words, spoil) in &rows {
        spoil(&bad.folder);
        let sha = push(&bad.folder);
        println!("{sha}: {words}");
        check(sha, words).await;
    }
    // A signature that nobody can read, where one is asked for.
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    let keys = secret(&world, "keys", &[("team.pub", key)]).await.unwrap();
    bad.change(|spec| {
        spec.source.verify = Some(Verify {
            mode: VerifyMode::Head,
            secret_ref: keys,
        });
    })
    .await;
    empty(&bad.folder);
    let sha = push_with_nonsense_for_a_signature(&bad.folder);
    check(sha, "signature").await;
    assert_eq!(turn, rows.len() + 1);
    running.stop().await;
}
