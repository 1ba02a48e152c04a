//! One cache for several Fleets.

use std::sync::Arc;

use super::*;

fn of(branch: &str) -> Wanted {
    let branch = Some(branch.to_owned());
    Wanted::of(&GitRef {
        branch,
        ..GitRef::default()
    })
    .unwrap()
}

/// Names of what a cache has of its remote.
fn kept(source: &GitSource) -> Vec<String> {
    let repository = Repository::open_bare(&source.cache).unwrap();
    let all = repository.references_glob("refs/fleetwright/*").unwrap();
    all.map(|r| r.unwrap().name().unwrap().to_owned()).collect()
}

#[test]
fn credentials_and_trust_have_caches_of_their_own() {
    let caches = Caches::from("/caches");
    let of = |url: &str, parts: &[(&str, &str)]| {
        let address = Address::parse(url).unwrap();
        let data = ssh::secret(parts);
        let data = (!parts.is_empty()).then_some(&data);
        let credentials = Credentials::of(data, &address).unwrap();
        caches.source(address, credentials).cache
    };
    let (one, other) = ("https://example.org/a", "https://example.org/b");
    let same = of(one, &[("token", "x")]);
    assert_eq!(same, of(one, &[("token", "x"), ("note", "of no concern")]));
    let rows: [(&str, &[(&str, &str)]); 6] = [
        (one, &[]),
        (one, &[("token", "y")]),
        (one, &[("password", "x")]),
        (one, &[("username", "u"), ("token", "x")]),
        (other, &[("token", "x")]),
        (one, &[("token", "x\0"), ("password", "")]),
    ];
    for (url, parts) in rows {
        assert_ne!(of(url, parts), same, "{url} {parts:?}");
    }
    let (plain, key) = (
        "ssh://git@example.org/a",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
    );
    let trusts = |host: &str| {
        of(
            plain,
            &[("identity", "i"), ("known_hosts", &format!("{host} {key}"))],
        )
    };
    assert_ne!(
        trusts("example.org"),
        trusts("*"),
        "whoever trusts less gets nothing from who trusts more"
    );
}

#[tokio::test]
async fn a_fetch_brings_what_all_wait_for_and_prunes_nobodys() {
    let remote = Remote::new();
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    remote.git(&["branch", "eu", "main"]);
    remote.git(&["branch", "us", "main"]);
    let caches = Caches::from(remote.dir.path().join("caches"));
    let source = caches.source(remote.source.address.clone(), Credentials::default());

    // Three ask before the first one fetches.
    let mut main = caches.turn(source.clone(), of("main")).await;
    let eu = caches.turn(source.clone(), of("eu"));
    let us = caches.turn(source.clone(), of("us"));
    let (mut eu, mut us) = (Box::pin(eu), Box::pin(us));
    for waits in [&mut eu, &mut us] {
        assert!(futures::poll!(waits).is_pending());
    }
    assert_eq!(main.commit(now()).unwrap(), first);
    assert_eq!(kept(&source).len(), 1, "asked after this fetch had begun");
    drop(main);
    let mut eu = eu.await;
    assert_eq!(eu.commit(now()).unwrap(), first);
    assert_eq!(
        kept(&source).len(),
        3,
        "one fetch brought both, and left main"
    );
    // Nothing is fetched for who is answered: the remote has gone on meanwhile.
    let second = remote.commit(&[("a.yaml", "a: 2")]);
    remote.git(&["branch", "-f", "us", "main"]);
    drop(eu);
    let mut us = us.await;
    assert_eq!(us.commit(now()).unwrap(), first);
    drop(us);
    // Who asks later sees it.
    let mut us = caches.turn(source.clone(), of("us")).await;
    assert_eq!(us.commit(now()).unwrap(), second);
    drop(us);

    // What is gone at the remote is gone for who follows it, and for nobody else.
    remote.git(&["branch", "-D", "eu"]);
    let mut eu = caches.turn(source.clone(), of("eu")).await;
    assert!(matches!(eu.commit(now()), Err(SourceError::NoRef(_))));
    drop(eu);
    let left = ["refs/fleetwright/heads/main", "refs/fleetwright/heads/us"];
    assert_eq!(kept(&source), left);
}

#[tokio::test]
async fn another_fleets_fetch_that_fails_is_not_ours() {
    let remote = Remote::new();
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    let caches = Caches::from(remote.dir.path().join("caches"));
    let source = caches.source(remote.source.address.clone(), Credentials::default());
    let mut gone = caches.turn(source.clone(), of("gone")).await;
    let mut main = Box::pin(caches.turn(source.clone(), of("main")));
    assert!(futures::poll!(&mut main).is_pending());
    assert!(matches!(gone.commit(now()), Err(SourceError::NoRef(_))));
    drop(gone);
    assert_eq!(main.await.commit(now()).unwrap(), first);
}

#[test]
fn a_cache_that_grew_is_made_anew_with_all_that_is_followed() {
    let remote = Remote::new();
    let noise = |n: u32| {
        // Text that does not compress.
        let mut line = Oid::hash_object(git2::ObjectType::Blob, &n.to_be_bytes()).unwrap();
        let mut text = String::new();
        while text.len() < 60_000 {
            line = Oid::hash_object(git2::ObjectType::Blob, line.as_bytes()).unwrap();
            text += &line.to_string();
        }
        text
    };
    remote.commit(&[("a.yaml", "a: 1")]);
    remote.git(&["branch", "eu", "main"]);
    let eu = remote.branch("eu").unwrap();
    remote.branch("main").unwrap();
    let size = || {
        let packs = std::fs::read_dir(remote.source.cache.join("objects/pack")).unwrap();
        packs
            .map(|p| p.unwrap().metadata().unwrap().len())
            .sum::<u64>()
    };
    let mut largest = 0;
    for n in 0..12 {
        // The history is rewritten each time, so that what was fetched before is waste.
        remote.git(&["update-ref", "refs/heads/main", "refs/heads/eu"]);
        let head = remote.commit(&[("noise.txt", &noise(n))]);
        assert_eq!(remote.branch("main").unwrap(), head);
        largest = largest.max(size());
    }
    assert!(largest < 200_000, "{largest}");
    let all = ["refs/fleetwright/heads/eu", "refs/fleetwright/heads/main"];
    assert_eq!(kept(&remote.source), all);
    // Still there, without another fetch.
    let tree = remote.source.tree(eu, "").unwrap();
    assert_eq!(
        remote.source.files(tree, &Filter::default()).unwrap().len(),
        1
    );
}

#[test]
fn a_cache_that_nobody_uses_is_removed() {
    let remote = Remote::new();
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    let wanted = of("main");
    let caches = Caches::from(remote.dir.path().join("caches"));
    let with = |token: &str| {
        let credentials = Credentials {
            identifier: token.into(),
            ..Credentials::default()
        };
        caches.source(remote.source.address.clone(), credentials)
    };
    let day = 24 * 60 * 60;
    let look = |source: &GitSource, days: i64| {
        let now = Timestamp::from_second(now().as_second() + days * day).unwrap();
        assert_eq!(
            source
                .resolve(std::slice::from_ref(&wanted), &wanted, now)
                .unwrap(),
            first
        );
    };
    let (old, busy, new) = (with("old"), with("busy"), with("new"));
    look(&old, 0);
    look(&busy, 0);
    look(&busy, 25);
    look(&new, 40);
    assert!(!old.cache.exists() && busy.cache.exists() && new.cache.exists());
    look(&old, 41);
}

/// Many Fleets and one remote that takes its time: each waits, none waits twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_fleets_of_one_repository_are_answered_by_two_connections() {
    let Some((remote, server, source)) = ssh::served() else {
        return;
    };
    let first = remote.commit(&[("a.yaml", "a: 1")]);
    let caches = Caches::from(remote.dir.path().join("caches"));
    let source = caches.source(source.address, (*source.credentials).clone());
    let wanted = of("main");
    let mut turns = Vec::new();
    let mut begun = caches.turn(source.clone(), wanted.clone()).await;
    for _ in 0..40 {
        let (caches, source, wanted) = (caches.clone(), source.clone(), wanted.clone());
        turns.push(Box::pin(async move { caches.turn(source, wanted).await }));
    }
    for turn in &mut turns {
        assert!(futures::poll!(turn).is_pending());
    }
    assert_eq!(begun.commit(now()).unwrap(), first);
    drop(begun);
    for turn in turns {
        let mut turn = turn.await;
        assert_eq!(turn.commit(now()).unwrap(), first);
    }
    let connections = Arc::clone(&server.connections);
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 2);
}

/// Somebody who can write into the cache puts another content in a file's place: by its id it is found out.
#[test]
fn cve_2024_31989_a_poisoned_cache_is_not_believed() {
    let remote = Remote::new();
    let commit = remote.commit(&[("a.yaml", "a: 1")]);
    remote.files();
    let cache = &remote.source.cache;
    // As objects of their own, which can be exchanged.
    let packs: Vec<_> = std::fs::read_dir(cache.join("objects/pack"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for pack in packs
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "pack"))
    {
        let aside = remote.dir.path().join("aside.pack");
        std::fs::rename(pack, &aside).unwrap();
        let unpacked = Command::new("git")
            .args(["--git-dir", cache.to_str().unwrap(), "unpack-objects", "-q"])
            .stdin(std::fs::File::open(aside).unwrap())
            .status();
        assert!(unpacked.unwrap().success());
    }
    packs
        .iter()
        .for_each(|file| drop(std::fs::remove_file(file)));
    let repository = Repository::open_bare(cache).unwrap();
    let tree = repository.find_commit(commit).unwrap().tree().unwrap();
    let good = tree.get_name("a.yaml").unwrap().id().to_string();
    let evil = repository.blob(b"a: 2").unwrap().to_string();
    let object = |id: &str| cache.join("objects").join(&id[..2]).join(&id[2..]);
    std::fs::remove_file(object(&good)).unwrap();
    std::fs::rename(object(&evil), object(&good)).unwrap();
    let found = remote.source.tree(commit, "").unwrap();
    let read = remote.source.files(found, &Filter::default());
    assert!(matches!(read, Err(SourceError::Cache { .. })), "{read:?}");
    // It is thrown away, and fetched again.
    assert_eq!(
        remote.files(),
        [("a.yaml".to_owned(), Ok("a: 1".to_owned()))]
    );
}
