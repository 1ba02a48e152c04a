//! Notes in real repositories, read by Git itself.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use fleetwright_tests::tools::tool;

use super::{
    https::{Ca, Role, Server},
    *,
};

const CONTEXT: &str = "fleetwright/default/default.repo";

fn note(commit: Oid, context: &str, text: &str) -> Note {
    Note {
        commit: commit.to_string(),
        context: context.into(),
        text: text.into(),
    }
}

impl Remote {
    /// What Git shows of a commit's note.
    fn note(&self, commit: Oid) -> String {
        let log = ["log", "-1", "--format=%N", "--notes=fleetwright"];
        self.said(&[&log[..], &[&commit.to_string()]].concat())
    }

    fn said(&self, args: &[&str]) -> String {
        let out = Command::new("git")
            .args(args)
            .current_dir(self.repository.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "git {args:?}: {text}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// Commits that the notes have.
    fn pushes(&self) -> usize {
        let count = self.said(&["rev-list", "--count", "refs/notes/fleetwright"]);
        count.parse().unwrap()
    }

    fn by_hand(&self, args: &[&str]) {
        self.git(&[&["notes", "--ref=fleetwright"], args].concat());
    }

    /// A program that Git runs before a push is taken.
    fn hook(&self, script: &str) {
        let folder = self.repository.path().join("hooks");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("pre-receive");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }

    /// The same repository behind https, and what serves it.
    fn behind_https(&self, ca: &Ca) -> (Server, GitSource) {
        let path = self.repository.path().to_str().unwrap().to_owned();
        let config = ca.sign("127.0.0.1", 2100);
        let server = Server::start(config, Role::Repository(path, "t0ken"));
        let data = ssh::secret(&[("token", "t0ken"), ("ca.crt", &ca.pem)]);
        let source = self.reached(&server.url(), &data);
        (server, source)
    }

    fn reached(&self, url: &str, data: &BTreeMap<String, ByteString>) -> GitSource {
        let address = Address::parse(url).unwrap();
        let credentials = Credentials::of(Some(data), &address).unwrap();
        let caches = Caches::from(self.dir.path().join("caches"));
        caches.source(address, credentials).beside("notes")
    }
}

/// Writes one note, and proves that it takes one push at most.
fn write(source: &GitSource, notes: &[Note]) {
    let there = source.write_notes(notes, now()).unwrap();
    assert!(there.iter().all(|there| *there), "{there:?}");
}

/// What all ways to a repository have in common.
fn states_are_kept_by_context(remote: &Remote, source: &GitSource) {
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    let second = remote.commit(&[("a.yaml", "a: 2")]);
    write(source, &[note(first, CONTEXT, "pending: looking\nat it")]);
    assert_eq!(
        remote.note(first),
        format!("{CONTEXT}: pending: looking at it")
    );
    // Several go in one push, and what is there already is not pushed again.
    let plan = format!("{CONTEXT}/plan");
    let batch = [
        note(first, CONTEXT, "success: 3 objects converged"),
        note(first, &plan, "success"),
        note(second, CONTEXT, "pending"),
    ];
    write(source, &batch);
    write(source, &batch);
    write(source, &batch[1..2]);
    assert_eq!(remote.pushes(), 2);
    let said = format!("{CONTEXT}: success: 3 objects converged\n{plan}: success");
    assert_eq!(remote.note(first), said);
    assert_eq!(remote.note(second), format!("{CONTEXT}: pending"));
    // Others' lines stay as they are, wherever Git puts the note.
    let id = second.to_string();
    let theirs = format!("fleetwright/other/x.y: failure: no\n{CONTEXT}: old\n\nLooks good to me.");
    remote.by_hand(&["add", "-f", "-m", &theirs, &id]);
    write(source, &[note(second, CONTEXT, "success")]);
    assert_eq!(remote.note(second), theirs.replace(": old", ": success"));
    assert_eq!(remote.note(first), said);
    remote.by_hand(&["append", "-m", "And to me.", &id]);
    assert!(remote.note(second).ends_with("And to me."));
    write(source, &[note(second, &plan, "failure: no")]);
    let all = remote.note(second);
    assert!(
        all.ends_with(&format!("And to me.\n{plan}: failure: no")),
        "{all}"
    );
    assert_eq!(all.matches(CONTEXT).count(), 2, "{all}");
    remote.git(&["fsck", "--strict"]);
}

#[test]
fn a_repository_of_this_machine_has_notes() {
    let remote = Remote::new();
    states_are_kept_by_context(&remote, &remote.source);
    assert!(!remote.source.cache.exists(), "nothing is copied");
}

#[test]
fn notes_are_pushed_over_https() {
    let (remote, ca) = (Remote::new(), Ca::new());
    let (_server, source) = remote.behind_https(&ca);
    states_are_kept_by_context(&remote, &source);
    // A cache that was lost is no loss.
    std::fs::remove_dir_all(&source.cache).unwrap();
    let head = remote.branch("main").unwrap();
    write(&source, &[note(head, "fleetwright/third/x.y", "success")]);
    let all = remote.note(head);
    assert!(all.contains("fleetwright/other/x.y: failure: no"), "{all}");
}

#[test]
fn notes_are_pushed_over_ssh() {
    let remote = Remote::new();
    let dir = remote.dir.path();
    if tool("ssh-keygen").is_none() {
        return;
    }
    let host = ssh::key(dir, "host", &["-t", "ed25519", "-N", ""]);
    let ours = ssh::key(dir, "ours", &["-t", "ed25519", "-N", ""]);
    let Some(server) = ssh::Server::start(dir, &[&host], &ssh::public(&ours)) else {
        return;
    };
    let known = format!("[127.0.0.1]:{} {}", server.port, ssh::public(&host));
    let identity = std::fs::read_to_string(&ours).unwrap();
    let data = ssh::secret(&[("identity", &identity), ("known_hosts", &known)]);
    let source = remote.reached(&server.url(remote.repository.path()), &data);
    states_are_kept_by_context(&remote, &source);
}

/// Writes `count` contexts of one commit from each of two sources, at once.
fn race(remote: &Remote, sources: [GitSource; 2], count: usize) {
    let commit = remote.commit(&[("a.yaml", "a: 1")]);
    let start = Arc::new(std::sync::Barrier::new(2));
    let writers = sources.into_iter().enumerate().map(|(who, source)| {
        let start = Arc::clone(&start);
        std::thread::spawn(move || {
            start.wait();
            for n in 0..count {
                let context = format!("fleetwright/installation-{who}/n{n}");
                let notes = [note(commit, &context, "success")];
                // Who loses each time comes again, as the outbox does.
                while let Err(error) = source.write_notes(&notes, now()) {
                    assert!(matches!(error, SourceError::NotesMoved), "{error}");
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    let all = remote.note(commit);
    assert_eq!(all.lines().count(), 2 * count, "{all}");
    assert_eq!(remote.pushes(), 2 * count, "each is pushed once");
}

#[test]
fn of_two_writers_neither_loses_a_state_in_place() {
    let remote = Remote::new();
    let other = GitSource {
        cache: remote.dir.path().join("other"),
        ..remote.source.clone()
    };
    race(&remote, [remote.source.clone(), other], 25);
}

#[test]
fn of_two_writers_neither_loses_a_state_over_https() {
    let (remote, ca) = (Remote::new(), Ca::new());
    let ((_a, one), (_b, other)) = (remote.behind_https(&ca), remote.behind_https(&ca));
    assert_ne!(one.cache, other.cache);
    race(&remote, [one, other], 8);
}

#[test]
fn who_comes_between_fetch_and_push_is_not_overwritten() {
    let (remote, ca) = (Remote::new(), Ca::new());
    let (_server, source) = remote.behind_https(&ca);
    let commit = remote.commit(&[("a.yaml", "a: 1")]);
    write(&source, &[note(commit, CONTEXT, "pending")]);
    // The first push finds that somebody wrote while it was under way.
    let fresh = remote.dir.path().join("came");
    remote.hook(&format!(
        "if [ ! -e {0} ]; then touch {0}; unset GIT_QUARANTINE_PATH; \
         git -c user.name=t -c user.email=t@example.org notes --ref=fleetwright append -m theirs {commit}; fi",
        fresh.display()
    ));
    write(&source, &[note(commit, CONTEXT, "success")]);
    assert!(fresh.exists());
    let all = remote.note(commit);
    assert!(all.contains(&format!("{CONTEXT}: success")), "{all}");
    assert!(all.contains("theirs"), "{all}");
}

#[test]
fn what_the_remote_does_not_take_is_told_in_its_words() {
    let (remote, ca) = (Remote::new(), Ca::new());
    let (_server, source) = remote.behind_https(&ca);
    let commit = remote.commit(&[("a.yaml", "a: 1")]);
    remote.hook("echo run >> runs; exit 1");
    let notes = [note(commit, CONTEXT, "pending")];
    let error = source.write_notes(&notes, now()).unwrap_err();
    assert!(matches!(error, SourceError::NotesRefused(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("hook") && text.contains("refs/notes/fleetwright"),
        "{text}"
    );
    let runs = std::fs::read_to_string(remote.repository.path().join("runs")).unwrap();
    assert_eq!(
        runs.lines().count(),
        2,
        "it is asked twice, since the first may have come late"
    );
    // Without a right to enter nothing is tried.
    let data = ssh::secret(&[("ca.crt", &ca.pem)]);
    let outside = remote.reached(&source.address.url, &data);
    let error = outside.write_notes(&notes, now()).unwrap_err();
    assert!(matches!(error, SourceError::Login(_)), "{error}");
}

#[test]
fn what_cannot_be_a_note_holds_up_no_other() {
    let remote = Remote::new();
    let commit = remote.commit(&[("a.yaml", "a: 1")]);
    let other = remote.commit(&[("a.yaml", "a: 2")]);
    let long = "x".repeat(5_000);
    remote.by_hand(&["add", "-m", &long, &commit.to_string()]);
    let mut odd = note(commit, CONTEXT, "success");
    odd.commit = "dir:abc".into();
    let notes = [
        note(commit, CONTEXT, "success"),
        odd,
        note(other, CONTEXT, "success"),
    ];
    let there = remote.source.write_notes(&notes, now()).unwrap();
    assert_eq!(there, [false, false, true]);
    assert_eq!(remote.note(commit), long);
    assert_eq!(remote.note(other), format!("{CONTEXT}: success"));
}

#[test]
fn notes_lie_where_git_finds_them_among_thousands() {
    let remote = Remote::new();
    let real = remote.commit(&[("a.yaml", "a: 1")]);
    // Of commits that are nowhere, as those of forks are.
    let some = |n: u32| {
        let text = fleetwright_api::names::short_hash([n.to_string().as_str()], 40);
        Oid::from_str(&text).unwrap()
    };
    let notes: Vec<Note> = (0..2_000)
        .map(|n| note(some(n), CONTEXT, "success"))
        .collect();
    write(&remote.source, &notes);
    write(&remote.source, &[note(real, CONTEXT, "pending")]);
    assert_eq!(remote.pushes(), 2);
    // Git moves them into folders of its own choice; all are found there.
    remote.by_hand(&["append", "-m", "by hand", &real.to_string()]);
    write(&remote.source, &notes);
    assert_eq!(remote.pushes(), 3);
    write(&remote.source, &[note(real, CONTEXT, "success")]);
    let all = remote.note(real);
    assert_eq!(
        all.lines().next(),
        Some(format!("{CONTEXT}: success").as_str())
    );
    assert!(all.ends_with("by hand"), "{all}");
    assert_eq!(
        remote
            .said(&["notes", "--ref=fleetwright", "list"])
            .lines()
            .count(),
        2_001
    );
}
