//! Real repositories, made by Git itself and, where Git would refuse, object by object.

mod https;
mod links;
mod notes;
mod shared;
mod ssh;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::Command,
};

use fleetwright_api::fleet::GitRef;
use git2::{Oid, Repository};
use jiff::Timestamp;
use k8s_openapi::ByteString;

use super::*;

/// A bare repository, with a cache for it.
pub(super) struct Remote {
    pub(super) dir: tempfile::TempDir,
    pub(super) repository: Repository,
    pub(super) source: GitSource,
}

impl Remote {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.git");
        let mut options = git2::RepositoryInitOptions::new();
        let repository =
            Repository::init_opts(&path, options.bare(true).initial_head("main")).unwrap();
        let source = GitSource {
            cache: dir.path().join("cache"),
            address: Address::parse(&format!("file://{}", path.display())).unwrap(),
            credentials: Credentials::default().into(),
        };
        Self {
            dir,
            repository,
            source,
        }
    }

    /// Commits these files on main, and no others.
    fn commit(&self, files: &[(&str, &str)]) -> Oid {
        let mut index = git2::Index::new().unwrap();
        self.repository.set_index(&mut index).unwrap();
        for (path, text) in files {
            let id = self.repository.blob(text.as_bytes()).unwrap();
            index.add(&entry(path.as_bytes(), 0o100_644, id)).unwrap();
        }
        self.commit_tree(index.write_tree_to(&self.repository).unwrap())
    }

    fn commit_tree(&self, tree: Oid) -> Oid {
        let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(0, 0)).unwrap();
        let tree = self.repository.find_tree(tree).unwrap();
        let parent = self.repository.refname_to_id("refs/heads/main").ok();
        let parent = parent.map(|id| self.repository.find_commit(id).unwrap());
        let parents: Vec<_> = parent.iter().collect();
        let main = Some("refs/heads/main");
        self.repository
            .commit(main, &who, &who, "m", &tree, &parents)
            .unwrap()
    }

    fn tree(&self, entries: &[(&str, &[u8], Oid)]) -> Oid {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(id.as_bytes());
        }
        let odb = self.repository.odb().unwrap();
        odb.write(git2::ObjectType::Tree, &bytes).unwrap()
    }

    fn git(&self, args: &[&str]) {
        let out = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(args)
            .current_dir(self.repository.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "git {args:?}: {text}");
    }

    fn resolve(&self, reference: &GitRef) -> Result<Oid, SourceError> {
        let wanted = Wanted::of(reference)?;
        self.source
            .resolve(std::slice::from_ref(&wanted), &wanted, now())
    }

    fn branch(&self, name: &str) -> Result<Oid, SourceError> {
        self.resolve(&GitRef {
            branch: Some(name.into()),
            ..GitRef::default()
        })
    }

    fn semver(&self, range: &str) -> Result<Oid, SourceError> {
        self.resolve(&GitRef {
            semver: Some(range.into()),
            ..GitRef::default()
        })
    }

    /// Files of main's head, as path and content.
    fn files(&self) -> Vec<(String, Result<String, String>)> {
        let commit = self.branch("main").unwrap();
        let tree = self.source.tree(commit, "").unwrap();
        named(self.source.files(tree, &Filter::default()).unwrap())
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn entry(path: &[u8], mode: u32, id: Oid) -> git2::IndexEntry {
    let zero = git2::IndexTime::new(0, 0);
    git2::IndexEntry {
        ctime: zero,
        mtime: zero,
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.to_vec(),
    }
}

fn named(files: Vec<SourceFile>) -> Vec<(String, Result<String, String>)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let mut named: Vec<_> = files
        .into_iter()
        .map(|f| (f.path, f.content.map(text)))
        .collect();
    named.sort();
    named
}

#[test]
fn a_repository_is_followed_and_a_directory_has_the_same_tree() {
    let remote = Remote::new();
    let first = remote.commit(&[
        ("fleet/a.yaml", "a: 1\n"),
        ("fleet/b/c.json", "{}"),
        ("x.yaml", ""),
    ]);
    assert_eq!(remote.branch("main").unwrap(), first);
    let tree = remote.source.tree(first, "./fleet/").unwrap();
    let files = remote.source.files(tree, &Filter::default()).unwrap();
    assert_eq!(files.len(), 2);
    for file in &files {
        let path = remote.dir.path().join("fleet").join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file.content.as_ref().unwrap()).unwrap();
    }
    let read = read_directory(remote.dir.path(), "fleet", &Filter::default()).unwrap();
    assert_eq!(read.tree, tree.to_string());
    assert_eq!(read.revision, format!("dir:{tree}"));

    let second = remote.commit(&[("x.yaml", "")]);
    assert_eq!(remote.branch("main").unwrap(), second);
    let gone = remote.source.tree(second, "fleet");
    assert!(matches!(gone, Err(SourceError::NoPath(_))));
    let outside = remote.source.tree(second, "../x");
    assert!(matches!(outside, Err(SourceError::Outside)));
    let file = remote.source.tree(second, "x.yaml");
    assert!(matches!(file, Err(SourceError::NoPath(_))));
}

#[test]
fn branches_tags_commits_and_head() {
    let remote = Remote::new();
    let empty = remote.resolve(&GitRef::default());
    assert!(matches!(empty, Err(SourceError::NoRef(_))), "{empty:?}");
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    remote.git(&["tag", "light", "main"]);
    remote.git(&["tag", "-a", "-m", "x", "heavy", "main"]);
    let second = remote.commit(&[("a.yaml", "a: 2")]);
    remote.git(&["branch", "side/one", "main"]);
    let tag = |name: &str| {
        remote.resolve(&GitRef {
            tag: Some(name.into()),
            ..GitRef::default()
        })
    };
    let commit = |id: &str| {
        remote.resolve(&GitRef {
            commit: Some(id.into()),
            ..GitRef::default()
        })
    };
    let head = remote.resolve(&GitRef::default());
    assert_eq!(head.unwrap(), second);
    assert_eq!(tag("light").unwrap(), first);
    assert_eq!(tag("heavy").unwrap(), first);
    assert_eq!(remote.branch("side/one").unwrap(), second);
    assert_eq!(commit(&first.to_string()).unwrap(), first);

    // What is gone is not there any more, though the cache had it; a name below takes its place.
    remote.git(&["branch", "-D", "side/one"]);
    remote.git(&["tag", "-d", "light"]);
    assert!(matches!(
        remote.branch("side/one"),
        Err(SourceError::NoRef(_))
    ));
    assert!(matches!(tag("light"), Err(SourceError::NoRef(_))));
    remote.git(&["branch", "side/one/two", "main"]);
    assert_eq!(remote.branch("side/one/two").unwrap(), second);

    let never = "1".repeat(40);
    assert!(matches!(commit(&never), Err(SourceError::NoRef(_))));
    for bad in ["", "abc", "main", &"z".repeat(40)] {
        assert!(matches!(commit(bad), Err(SourceError::BadRef(_))), "{bad}");
    }
    for bad in ["", "a b", "a..b", "*", "x:y"] {
        let result = remote.branch(bad);
        assert!(matches!(result, Err(SourceError::BadRef(_))), "{bad}");
    }
    remote.git(&[
        "tag",
        "blob",
        &remote.repository.blob(b"x").unwrap().to_string(),
    ]);
    assert!(matches!(tag("blob"), Err(SourceError::BadRef(_))));
}

#[test]
fn a_range_takes_the_highest_tag_in_it() {
    let remote = Remote::new();
    let mut at = std::collections::BTreeMap::new();
    let tags = [
        "v1.2.0",
        "1.10.0",
        "v1.9.9",
        "v2.0.0-rc.1",
        "v2.0.0",
        "latest",
        "v3",
        "v1.11.0-rc.1",
    ];
    for name in tags {
        at.insert(name, remote.commit(&[("a.yaml", name)]));
        remote.git(&["tag", name, "main"]);
    }
    let rows = [
        ("^1", "1.10.0"),
        ("~1.9", "v1.9.9"),
        (">=1", "v2.0.0"),
        ("*", "v2.0.0"),
        (">=2.0.0-rc.0, <2.0.0", "v2.0.0-rc.1"),
        ("=1.2.0", "v1.2.0"),
    ];
    for (range, tag) in rows {
        assert_eq!(remote.semver(range).unwrap(), at[tag], "{range}");
    }
    assert!(matches!(remote.semver("^7"), Err(SourceError::NoRef(_))));
    assert!(matches!(remote.semver("one"), Err(SourceError::BadRef(_))));
    // A tag that is taken back counts no more.
    remote.git(&["tag", "-d", "1.10.0"]);
    assert_eq!(remote.semver("^1").unwrap(), at["v1.9.9"]);
}

#[test]
fn names_of_refs_that_are_not_utf8_harm_nothing() {
    let remote = Remote::new();
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    remote.git(&["tag", "v1.0.0", "main"]);
    let packed = remote.repository.path().join("packed-refs");
    let mut text = b"# pack-refs with: peeled fully-peeled sorted \n".to_vec();
    for name in [&b"refs/heads/\xff\xfe"[..], b"refs/tags/v1.\xff"] {
        text.extend([first.to_string().as_bytes(), b" ", name, b"\n"].concat());
    }
    std::fs::write(packed, text).unwrap();
    assert_eq!(remote.branch("main").unwrap(), first);
    assert_eq!(remote.semver("^1").unwrap(), first);
}

#[test]
fn trees_that_grow_without_end_are_refused() {
    let remote = Remote::new();
    let blob = remote.repository.blob(b"a: 1").unwrap();
    // Each level names the one below ten times: ten to the power of twelve files.
    let mut tree = remote.tree(&[("100644", b"a.txt", blob)]);
    for _ in 0..12 {
        let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
        let entries: Vec<_> = names
            .iter()
            .map(|n| ("40000", n.as_bytes(), tree))
            .collect();
        tree = remote.tree(&entries);
    }
    let deep = (0..10_000).fold(remote.tree(&[("100644", b"a.yaml", blob)]), |below, _| {
        remote.tree(&[("40000", b"d", below)])
    });
    let root = remote.tree(&[("40000", b"bomb", tree), ("40000", b"deep", deep)]);
    let commit = remote.commit_tree(root);
    assert_eq!(remote.branch("main").unwrap(), commit);
    let read = |path| {
        let tree = remote.source.tree(commit, path).unwrap();
        remote.source.files(tree, &Filter::default())
    };
    assert!(matches!(read("bomb"), Err(SourceError::TooMany)));
    assert!(matches!(read("deep"), Err(SourceError::TooDeep)));
}

#[test]
fn ten_thousand_files_are_read_and_more_than_the_bound_are_refused() {
    let remote = Remote::new();
    let blob = remote.repository.blob(b"a: 1").unwrap();
    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("{n:05}.yaml")).collect();
        let entries: Vec<_> = names
            .iter()
            .map(|n| ("100644", n.as_bytes(), blob))
            .collect();
        remote.tree(&entries)
    };
    remote.commit_tree(many(10_000));
    assert_eq!(remote.files().len(), 10_000);
    let commit = remote.commit_tree(many(MAX_FILES + 2));
    assert_eq!(remote.branch("main").unwrap(), commit);
    let tree = remote.source.tree(commit, "").unwrap();
    let files = remote.source.files(tree, &Filter::default());
    assert!(matches!(files, Err(SourceError::TooMany)));
}

#[test]
fn a_fetch_that_is_too_large_is_cut_off() {
    let remote = Remote::new();
    // Text that does not compress: each line is a hash of the one before.
    let mut line = Oid::hash_object(git2::ObjectType::Blob, b"x").unwrap();
    let mut noise = Vec::new();
    while noise.len() < MAX_FETCH_BYTES + (1 << 20) {
        noise.extend_from_slice(line.as_bytes());
        line = Oid::hash_object(git2::ObjectType::Blob, line.as_bytes()).unwrap();
    }
    let blob = remote.repository.blob(&noise).unwrap();
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    let large = remote.tree(&[("100644", b"noise", blob)]);
    remote.commit_tree(large);
    let refused = remote.branch("main");
    assert!(matches!(refused, Err(SourceError::TooLarge)), "{refused:?}");
    remote.git(&["branch", "-f", "main", &first.to_string()]);
    assert_eq!(remote.branch("main").unwrap(), first);
}

#[test]
fn a_broken_cache_is_fetched_again() {
    let remote = Remote::new();
    remote.commit(&[("a.yaml", "a: 1")]);
    remote.files();
    let cache = &remote.source.cache;
    let packs = || {
        let files = std::fs::read_dir(cache.join("objects/pack")).unwrap();
        files.map(|f| f.unwrap().path()).collect::<Vec<_>>()
    };
    let breakages: [(&str, &dyn Fn()); 6] = [
        ("a lock that a crash left", &|| {
            let lock = cache.join("refs/fleetwright/heads/main.lock");
            std::fs::write(lock, "").unwrap();
        }),
        ("no HEAD", &|| {
            std::fs::remove_file(cache.join("HEAD")).unwrap();
        }),
        ("an empty folder", &|| {
            std::fs::remove_dir_all(cache).unwrap();
            std::fs::create_dir(cache).unwrap();
        }),
        ("packs cut off", &|| {
            for pack in packs() {
                let mut permissions = std::fs::metadata(&pack).unwrap().permissions();
                #[expect(
                    clippy::permissions_set_readonly_false,
                    reason = "for the test's own file"
                )]
                permissions.set_readonly(false);
                std::fs::set_permissions(&pack, permissions).unwrap();
                let bytes = std::fs::read(&pack).unwrap();
                std::fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();
            }
        }),
        ("packs gone", &|| {
            packs()
                .iter()
                .for_each(|p| std::fs::remove_file(p).unwrap());
        }),
        ("the rest of many fetches", &|| {
            for n in 0..200 {
                let name = format!("objects/pack/pack_{n}.tmp");
                std::fs::write(cache.join(name), "rest").unwrap();
            }
        }),
    ];
    for (n, (what, break_it)) in breakages.into_iter().enumerate() {
        break_it();
        let text = format!("a: {n}");
        let commit = remote.commit(&[("a.yaml", &text)]);
        // At most one look fails.
        let look = || {
            let found = remote.branch("main")?;
            let tree = remote.source.tree(found, "")?;
            Ok::<_, SourceError>((found, named(remote.source.files(tree, &Filter::default())?)))
        };
        let (found, files) = look().or_else(|_| look()).unwrap();
        assert_eq!(found, commit, "{what}");
        assert_eq!(files, [("a.yaml".to_owned(), Ok(text))], "{what}");
    }
    assert!(packs().len() < 100, "the rest of fetches is gone");
}

#[test]
fn a_remote_that_is_away_leaves_the_cache() {
    let remote = Remote::new();
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    remote.files();
    let (here, away) = (remote.dir.path().join("r.git"), remote.dir.path().join("x"));
    std::fs::rename(&here, &away).unwrap();
    let error = remote.branch("main").unwrap_err();
    assert!(!error.is_lasting(), "{error:?}");
    assert!(remote.source.cache.join("HEAD").exists());
    let pinned = GitRef {
        commit: Some(first.to_string()),
        ..GitRef::default()
    };
    assert_eq!(remote.resolve(&pinned).unwrap(), first);
}

#[test]
fn a_fingerprint_shows_every_edit_of_a_manifest_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("below")).unwrap();
    std::fs::write(at("a.yaml"), "a: 1").unwrap();
    std::fs::write(at("below/b.yaml"), "b: 1").unwrap();
    let print = || Fingerprint::of(dir.path(), "").unwrap();
    let mut last = print();
    assert_eq!(print(), last);
    let edits: [(&str, &dyn Fn()); 6] = [
        ("another size", &|| {
            std::fs::write(at("a.yaml"), "a: 12").unwrap();
        }),
        ("below", &|| {
            std::fs::write(at("below/b.yaml"), "b: 12").unwrap();
        }),
        ("a new file", &|| {
            std::fs::write(at("below/c.json"), "{}").unwrap();
        }),
        ("a rename", &|| {
            std::fs::rename(at("a.yaml"), at("z.yaml")).unwrap();
        }),
        ("one in its place", &|| {
            std::fs::write(at("new"), "a: 13").unwrap();
            std::fs::rename(at("new"), at("z.yaml")).unwrap();
        }),
        ("a file that goes", &|| {
            std::fs::remove_file(at("below/b.yaml")).unwrap();
        }),
    ];
    for (what, edit) in edits {
        edit();
        let next = print();
        assert_ne!(next.clone(), last, "{what}");
        last = next;
    }
    // What was changed just now may be changed again without a trace.
    let now = std::fs::metadata(dir.path()).unwrap();
    let now = std::os::unix::fs::MetadataExt::ctime(&now);
    assert!(!last.is_old(now) && last.is_old(now + 10));
}
