//! Commits and tags that Git signed itself, with real keys.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use fleetwright_tests::tools::tool;

use super::*;

/// A repository with a work tree, and a folder for keys.
struct Scene {
    dir: tempfile::TempDir,
    repository: Repository,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = git2::RepositoryInitOptions::new();
        let repository = Repository::init_opts(dir.path().join("r"), options.initial_head("main"));
        std::fs::create_dir(dir.path().join("gpg")).unwrap();
        Self {
            repository: repository.unwrap(),
            dir,
        }
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let home = self.dir.path().join("gpg");
        let out = Command::new(program)
            .args(args)
            .env("GNUPGHOME", &home)
            .current_dir(self.dir.path().join("r"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program} {args:?}: {text}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn git(&self, args: &[&str]) {
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        self.run("git", &[&who[..], args].concat());
    }

    /// A new SSH key; gives its path.
    fn ssh(&self, name: &str, kind: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let file = path.to_str().unwrap();
        self.run(
            "ssh-keygen",
            &["-q", "-t", kind, "-N", "", "-C", name, "-f", file],
        );
        path
    }

    /// Commits, signed by an SSH key where there is one; gives the commit.
    fn commit(&self, key: Option<&Path>) -> Oid {
        let empty = ["commit", "-q", "--allow-empty", "-m", "change"];
        match key {
            None => self.git(&empty),
            Some(key) => {
                let key = format!("user.signingkey={}", key.display());
                self.git(&[&["-c", "gpg.format=ssh", "-c", &key], &empty[..], &["-S"]].concat());
            }
        }
        self.head()
    }

    fn head(&self) -> Oid {
        self.repository.head().unwrap().target().unwrap()
    }

    /// A moment after a commit was made.
    fn after(&self, commit: Oid) -> Timestamp {
        let made = self.repository.find_commit(commit).unwrap().time();
        Timestamp::from_second(made.seconds() + 1).unwrap()
    }

    /// What a policy says of the head.
    fn check(&self, policy: &Policy) -> Result<(), String> {
        let head = self.head();
        let checked = policy.check(&self.repository, head, None, self.after(head));
        checked.map_err(|e| e.to_string())
    }

    /// A commit with another message under the same signature.
    fn tamper(&self, commit: Oid) -> Oid {
        let (signature, content) = self.repository.extract_signature(&commit, None).unwrap();
        let content = std::str::from_utf8(&content).unwrap();
        let other = content.replace("change", "choice");
        assert_ne!(other, content);
        let signature = std::str::from_utf8(&signature).unwrap();
        let made = self.repository.commit_signed(&other, signature, None);
        let made = made.unwrap();
        self.repository
            .reference("refs/heads/main", made, true, "")
            .unwrap();
        made
    }
}

fn public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).unwrap()
}

fn keys(parts: &[(&str, &str)]) -> Result<TrustedKeys, String> {
    let parts = parts.iter();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = parts.map(|(name, text)| ((*name).to_owned(), bytes(text)));
    TrustedKeys::of(&data.collect())
}

fn head_by(text: &str) -> Policy {
    Policy {
        mode: VerifyMode::Head,
        keys: keys(&[("team.pub", text)]).unwrap(),
        applied: None,
    }
}

fn print(key: &Path) -> String {
    let key = ssh_key::PublicKey::from_openssh(&public(key)).unwrap();
    key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}

#[test]
fn ssh_signatures() {
    if tool("ssh-keygen").is_none() {
        return;
    }
    let scene = Scene::new();
    let (ours, theirs) = (scene.ssh("ours", "ed25519"), scene.ssh("theirs", "ed25519"));
    let trusted = head_by(&public(&ours));
    scene.commit(None);
    let why = scene.check(&trusted).unwrap_err();
    assert!(why.contains("nobody signed it"), "{why}");
    assert!(why.contains(&scene.head().to_string()), "{why}");
    for kind in ["rsa", "ecdsa"] {
        let key = scene.ssh(kind, kind);
        scene.commit(Some(&key));
        scene.check(&head_by(&public(&key))).unwrap();
    }
    scene.commit(Some(&theirs));
    let why = scene.check(&trusted).unwrap_err();
    assert!(why.contains(&print(&theirs)), "{why}");
    let good = scene.commit(Some(&ours));
    scene.check(&trusted).unwrap();
    // Whose lines may be trusted, and for what.
    let line = public(&ours);
    let line = line.trim();
    let bare = line.rsplit_once(' ').unwrap().0;
    let lines = [
        format!("# ours\n\n{line}\n"),
        format!("{}\n{line}", public(&theirs)),
        format!("namespaces=\"git\" {line}"),
        format!("namespaces=\"git\" {bare}"),
        format!("namespaces=\"file,git\" {line}"),
    ];
    for lines in lines {
        scene.check(&head_by(&lines)).unwrap();
    }
    let bad = [
        format!("namespaces=\"file\" {line}"),
        format!("cert-authority {line}"),
        format!("valid-before=\"20300101\" {line}"),
        format!("{line}\nssh-ed25519 AAAA"),
        "# nobody".to_owned(),
    ];
    for lines in bad {
        keys(&[("team.pub", &lines)]).unwrap_err();
    }
    keys(&[("readme", line)]).unwrap_err();
    // A signature that says the same of something else.
    scene.tamper(good);
    let why = scene.check(&trusted).unwrap_err();
    assert!(
        why.contains("not of this content") && why.contains(&print(&ours)),
        "{why}"
    );
    // One that was made for files, over the very content of a commit.
    let (_, content) = scene.repository.extract_signature(&good, None).unwrap();
    let file = scene.dir.path().join("content");
    std::fs::write(&file, &*content).unwrap();
    let (key, file) = (ours.to_str().unwrap(), file.to_str().unwrap());
    scene.run(
        "ssh-keygen",
        &["-q", "-Y", "sign", "-f", key, "-n", "file", file],
    );
    let signature = std::fs::read(format!("{file}.sig")).unwrap();
    let why = trusted
        .keys
        .check(&signature, &content, Timestamp::UNIX_EPOCH);
    assert!(why.unwrap_err().contains("not of this content"));
    for odd in [&b""[..], b"x", SSH, PGP, &vec![b'x'; MAX_SIGNATURE + 1]] {
        trusted
            .keys
            .check(odd, &content, Timestamp::UNIX_EPOCH)
            .unwrap_err();
    }
}

#[test]
fn a_history_is_signed_from_the_last_applied_commit_on() {
    if tool("ssh-keygen").is_none() {
        return;
    }
    let scene = Scene::new();
    let ours = scene.ssh("ours", "ed25519");
    let sign = Some(ours.as_path());
    let since = |applied: Option<Oid>| Policy {
        mode: VerifyMode::History,
        applied: applied.map(|oid| oid.to_string()),
        ..head_by(&public(&ours))
    };
    let first = scene.commit(None);
    let second = scene.commit(sign);
    let third = scene.commit(sign);
    scene.check(&since(None)).unwrap();
    scene.check(&since(Some(first))).unwrap();
    scene.check(&since(Some(third))).unwrap();
    // In the middle.
    let middle = scene.commit(None);
    scene.commit(sign);
    scene.check(&head_by(&public(&ours))).unwrap();
    scene.check(&since(None)).unwrap();
    let why = scene.check(&since(Some(third))).unwrap_err();
    assert!(why.contains(&format!("commit {middle}, which")), "{why}");
    scene.check(&since(Some(middle))).unwrap();
    // Merged.
    scene.git(&["reset", "-q", "--hard", &third.to_string()]);
    scene.git(&["checkout", "-q", "-b", "side", &second.to_string()]);
    let side = scene.commit(None);
    scene.git(&["checkout", "-q", "main"]);
    scene.commit(sign);
    let key = format!("user.signingkey={}", ours.display());
    let merge = ["merge", "-q", "--no-ff", "-S", "-m", "merge", "side"];
    scene.git(&[&["-c", "gpg.format=ssh", "-c", &key], &merge[..]].concat());
    let why = scene.check(&since(Some(third))).unwrap_err();
    assert!(why.contains(&format!("commit {side}, which")), "{why}");
    // Back to what was before the applied one: the head alone.
    let merged = scene.head();
    scene.git(&["reset", "-q", "--hard", &second.to_string()]);
    scene.check(&since(Some(merged))).unwrap();
    scene.git(&["reset", "-q", "--hard", &first.to_string()]);
    scene.check(&since(Some(merged))).unwrap_err();
    scene.git(&["reset", "-q", "--hard", &second.to_string()]);
    // Nobody can tell what came since.
    let lost = Oid::from_str(&"3".repeat(40)).unwrap();
    let why = scene.check(&since(Some(lost))).unwrap_err();
    assert!(why.contains("verify.mode to head"), "{why}");
    // What was applied before was no commit.
    let directory = Policy {
        applied: Some(format!("dir:{lost}")),
        ..since(None)
    };
    scene.check(&directory).unwrap();
}

#[test]
fn a_tag_vouches_for_its_commit() {
    if tool("ssh-keygen").is_none() {
        return;
    }
    let scene = Scene::new();
    let (ours, theirs) = (scene.ssh("ours", "ed25519"), scene.ssh("theirs", "ed25519"));
    let tag = |name: &str, key: Option<&Path>| {
        let key = key.map(|key| format!("user.signingkey={}", key.display()));
        match &key {
            None => scene.git(&["tag", "-a", "-m", "release", name]),
            Some(key) => {
                let args = [
                    "-c",
                    "gpg.format=ssh",
                    "-c",
                    key,
                    "tag",
                    "-s",
                    "-m",
                    "release",
                    name,
                ];
                scene.git(&args);
            }
        }
        let reference = format!("refs/tags/{name}");
        NamedTag {
            name: name.into(),
            object: scene.repository.refname_to_id(&reference).unwrap(),
        }
    };
    let head = scene.commit(None);
    let now = scene.after(head);
    let trusted = head_by(&public(&ours));
    let check = |tag: NamedTag| trusted.check(&scene.repository, head, Some(&tag), now);
    let good = tag("good", Some(&ours));
    let renamed = NamedTag {
        name: b"better".to_vec(),
        ..good
    };
    check(good).unwrap();
    check(renamed).unwrap_err();
    check(tag("bare", None)).unwrap_err();
    check(tag("theirs", Some(&theirs))).unwrap_err();
    // In history mode it vouches for the head alone.
    let second = scene.commit(None);
    let signed = tag("late", Some(&ours));
    let history = Policy {
        mode: VerifyMode::History,
        applied: None,
        ..trusted.clone()
    };
    let by = |policy: &Policy| policy.check(&scene.repository, second, Some(&signed), now);
    by(&history).unwrap();
    scene.commit(None);
    let third = scene.head();
    let signed = tag("later", Some(&ours));
    let since = Policy {
        applied: Some(head.to_string()),
        ..history
    };
    let why = since
        .check(&scene.repository, third, Some(&signed), now)
        .unwrap_err();
    assert!(why.to_string().contains(&second.to_string()), "{why}");
}

/// A GnuPG home; its agent ends with it.
struct Gpg<'a>(&'a Scene);

impl Gpg<'_> {
    fn run(&self, args: &[&str]) -> String {
        let batch = [
            "--batch",
            "--yes",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        ];
        self.0.run("gpg", &[&batch[..], args].concat())
    }

    /// Makes a key; gives its fingerprint.
    fn key(&self, who: &str, usage: &str, life: &str) -> String {
        self.run(&["--quick-generate-key", who, "ed25519", usage, life]);
        let listed = self.run(&["--with-colons", "--list-keys", who]);
        let line = listed.lines().find(|l| l.starts_with("fpr")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    fn export(&self, key: &str) -> String {
        self.run(&["--armor", "--export", key])
    }

    fn commit(&self, key: &str) -> Oid {
        let key = format!("user.signingkey={key}");
        let args = [
            "-c",
            &key,
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "change",
            "-S",
        ];
        self.0.git(&args);
        self.0.head()
    }
}

impl Drop for Gpg<'_> {
    fn drop(&mut self) {
        self.0.run("gpgconf", &["--kill", "all"]);
    }
}

#[test]
fn openpgp_signatures() {
    if tool("gpg").is_none() {
        return;
    }
    let scene = Scene::new();
    let gpg = Gpg(&scene);
    let ours = gpg.key("ours <ours@example.org>", "sign", "0");
    let theirs = gpg.key("theirs <theirs@example.org>", "sign", "0");
    let short = gpg.key("short <short@example.org>", "sign", "1d");
    let parent = gpg.key("parent <parent@example.org>", "cert", "0");
    gpg.run(&["--quick-add-key", &parent, "ed25519", "sign", "1d"]);
    let by = |key: &str| Policy {
        keys: keys(&[("team.asc", &gpg.export(key))]).unwrap(),
        ..head_by(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
        )
    };
    let check = |policy: &Policy, head: Oid, days: i64| {
        let now = scene.after(head).as_second() + days * 24 * 60 * 60;
        let now = Timestamp::from_second(now).unwrap();
        let checked = policy.check(&scene.repository, head, None, now);
        checked.map_err(|e| e.to_string())
    };
    let good = gpg.commit(&ours);
    check(&by(&ours), good, 0).unwrap();
    check(&by(&ours), good, 3650).unwrap();
    let why = check(&by(&theirs), good, 0).unwrap_err();
    assert!(
        why.contains(&ours) && why.contains("none of those"),
        "{why}"
    );
    let why = check(&by(&ours), good, -1).unwrap_err();
    assert!(
        why.contains("does not vouch") || why.contains("cannot be"),
        "{why}"
    );
    let both = Policy {
        keys: keys(&[
            ("a.asc", &gpg.export(&theirs)),
            ("b.asc", &gpg.export(&ours)),
        ])
        .unwrap(),
        ..by(&ours)
    };
    check(&both, good, 0).unwrap();

    let brief = gpg.commit(&short);
    check(&by(&short), brief, 0).unwrap();
    let why = check(&by(&short), brief, 2).unwrap_err();
    assert!(why.contains("has expired"), "{why}");
    // A subkey signs for its owner, as long as it lives.
    let below = gpg.commit(&parent);
    check(&by(&parent), below, 0).unwrap();
    let why = check(&by(&parent), below, 2).unwrap_err();
    assert!(why.contains("has expired"), "{why}");

    let head = gpg.commit(&ours);
    let tampered = scene.tamper(head);
    let why = check(&by(&ours), tampered, 0).unwrap_err();
    assert!(why.contains("not of this content"), "{why}");

    // Over a hash that can be forged.
    let settings = scene.dir.path().join("gpg/gpg.conf");
    std::fs::write(&settings, "digest-algo SHA1\n").unwrap();
    let weak = gpg.commit(&ours);
    let why = check(&by(&ours), weak, 0).unwrap_err();
    assert!(why.contains("can be forged"), "{why}");
    std::fs::remove_file(settings).unwrap();

    // Revoked, for whatever reason.
    let home = scene.dir.path().join("gpg/openpgp-revocs.d");
    let text = std::fs::read_to_string(home.join(format!("{ours}.rev"))).unwrap();
    let file = scene.dir.path().join("revocation");
    std::fs::write(&file, text.replace(":-----BEGIN", "-----BEGIN")).unwrap();
    gpg.run(&["--import", file.to_str().unwrap()]);
    let why = check(&by(&ours), good, 0).unwrap_err();
    assert!(why.contains("revoked"), "{why}");
    for bad in [
        "",
        "x",
        &gpg.run(&["--armor", "--export-secret-keys", &theirs]),
    ] {
        keys(&[("team.asc", bad)]).unwrap_err();
    }
}
