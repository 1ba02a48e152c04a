//! What a Fleet's source may be told: whom to trust, what to leave out, and what it costs.

use std::{
    error::Error,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{Arc, mpsc},
    time::Duration,
};

use async_trait::async_trait;
use fleetwright_api::{
    Fleet,
    cluster::LocalSecretRef,
    commit_status::CommitState,
    fleet::{Allow, FleetSource, FleetSpec, Verify, VerifyMode},
    meta::ANNOTATION_ALLOW_DELETE,
    secret::SecretText,
};
use fleetwright_gitops::{
    follow::Follower,
    read::Reader,
    settle::Seen,
    source::{AppTokens, GithubApp},
};
use fleetwright_tests::tools::tool;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams, core::ObjectMeta};
use parking_lot::Mutex;

use crate::{
    commits::{git, push, repository, spec, statuses},
    kit::{World, cluster, config_map, write},
    looping::{Running, data, until},
};

/// Keys of a Secret, with their texts.
type Parts<'a> = &'a [(&'a str, &'a str)];

pub(crate) async fn secret(world: &World, name: &str, parts: Parts<'_>) -> Option<LocalSecretRef> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let parts = parts.iter();
    let data = parts.map(|(key, text)| ((*key).to_owned(), bytes(text)));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        data: Some(data.collect()),
        ..Secret::default()
    };
    let api = Api::<Secret>::namespaced(world.client(), "default");
    api.create(&PostParams::default(), &secret).await.unwrap();
    Some(LocalSecretRef { name: name.into() })
}

#[tokio::test]
async fn a_commit_that_nobody_signed_is_not_applied() {
    let Some(keygen) = tool("ssh-keygen") else {
        return;
    };
    let world = World::new().await;
    let work = repository(world.dir.path());
    let key = world.dir.path().join("key");
    let args = ["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()];
    assert!(Command::new(keygen).args(args).status().unwrap().success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let keys = secret(&world, "keys", &[("team.pub", &public)]).await;
    let mut spec = spec(world.dir.path());
    spec.source.verify = Some(Verify {
        mode: VerifyMode::History,
        secret_ref: keys.unwrap(),
    });
    let mut fleet = world.fleet("repo", spec, work.clone()).await;
    let signed = |value: &str| {
        write(&work, "fleet/c.yaml", &config_map("c", value));
        git(&work, &["add", "-A"]);
        let key = format!("user.signingkey={}", key.display());
        let commit = ["commit", "-q", "-S", "-m", "change"];
        git(
            &work,
            &[&["-c", "gpg.format=ssh", "-c", &key], &commit[..]].concat(),
        );
        git(&work, &["push", "-q", "-f", "origin", "main"]);
        git(&work, &["rev-parse", "HEAD"])
    };
    let good = signed("one");
    fleet.look(&world).await;
    let value = async || world.field("ConfigMap", "c", "/data/key").await;
    assert_eq!(value().await, "one");

    write(&work, "fleet/c.yaml", &config_map("c", "two"));
    let bad = push(&work);
    let (reason, message) = fleet.look(&world).await;
    assert_eq!(reason, "SourceFailed");
    assert!(
        message.contains(&bad) && message.contains("nobody signed it"),
        "{message}"
    );
    assert_eq!(value().await, "one", "nothing is applied");
    // A signed one on top does not bring it in.
    let top = signed("three");
    let (_, message) = fleet.look(&world).await;
    assert!(
        message.contains(&format!("commit {bad}, which commit {top}")),
        "{message}"
    );
    assert_eq!(value().await, "one");
    for (sha, wanted) in [(&good, CommitState::Success), (&top, CommitState::Failure)] {
        let all = statuses(&world).await;
        let status = all.iter().find(|s| s.spec.sha == *sha).unwrap();
        assert_eq!(status.spec.wanted.state, wanted, "{sha}");
    }
    // Without it.
    git(&work, &["reset", "-q", "--hard", &good]);
    let mended = signed("four");
    let (_, message) = fleet.look(&world).await;
    assert_eq!(value().await, "four", "{message}");
    let applied = fleet
        .follower
        .fleet
        .status
        .as_ref()
        .unwrap()
        .applied
        .clone();
    assert_eq!(applied.unwrap().revision, mended);
    // Keys that are gone say nothing of the commit.
    let api = Api::<Secret>::namespaced(world.client(), "default");
    api.delete("keys", &Default::default()).await.unwrap();
    fleet.try_look(&world).await.unwrap_err();
    let (reason, message) = fleet.ready();
    assert_eq!(reason, "SourceFailed");
    assert!(message.contains("default/keys"), "{message}");
}

#[tokio::test]
async fn what_is_excluded_of_a_sudden_is_guarded_like_what_is_removed() {
    let world = World::new().await;
    let mut fleet = world.directory("repo").await;
    fleet.write("a.yaml", &cluster("a", "v1.33.2"));
    fleet.write("maps/c.yaml", &config_map("c", "one"));
    fleet.write("maps/d.yaml", &config_map("d", "one"));
    fleet.look(&world).await;
    let before = world.versions().await;
    let exclude = async |fleet: &crate::kit::Following, globs: &[&str]| {
        let globs = globs.iter().map(ToString::to_string).collect();
        fleet.change(|spec| spec.source.exclude = globs).await;
    };
    for all in [&["*.yaml"][..], &["a.yaml"]] {
        exclude(&fleet, all).await;
        let (reason, message) = fleet.look(&world).await;
        assert_eq!(reason, "Refused", "{all:?}");
        assert!(message.contains(ANNOTATION_ALLOW_DELETE), "{message}");
        assert_eq!(world.versions().await, before, "{all:?}");
    }
    exclude(&fleet, &["["]).await;
    fleet.try_look(&world).await.unwrap_err();
    let (reason, message) = fleet.ready();
    assert_eq!(reason, "SourceFailed");
    assert!(
        message.contains("spec.source.exclude has \"[\""),
        "{message}"
    );
    assert_eq!(world.versions().await, before);
    // What needs no consent goes as if it were removed.
    exclude(&fleet, &["d.yaml"]).await;
    let (reason, message) = fleet.look(&world).await;
    assert_ne!(reason, "Refused", "{message}");
    assert_eq!(world.names("ConfigMap").await, ["c"]);
    assert_eq!(world.names("Cluster").await, ["a"]);
}

#[tokio::test]
async fn an_exclude_reads_the_same_tree_anew() {
    let world = World::new().await;
    let work = repository(world.dir.path());
    write(&work, "fleet/c.yaml", &config_map("c", "one"));
    write(&work, "fleet/d.yaml", &config_map("d", "one"));
    push(&work);
    let mut fleet = world.fleet("repo", spec(world.dir.path()), work).await;
    fleet.look(&world).await;
    assert_eq!(world.names("ConfigMap").await, ["c", "d"]);
    fleet
        .change(|spec| spec.source.include = vec!["c.*".into()])
        .await;
    fleet.look(&world).await;
    assert_eq!(world.names("ConfigMap").await, ["c"]);
}

/// Makes tokens, or says why not.
#[derive(Default)]
struct Tokens {
    asked: Mutex<Vec<GithubApp>>,
}

#[async_trait]
impl AppTokens for Tokens {
    async fn token(
        &self,
        app: &GithubApp,
        _: Timestamp,
    ) -> Result<SecretText, Box<dyn Error + Send + Sync>> {
        self.asked.lock().push(app.clone());
        Err("the installation is suspended".into())
    }
}

#[tokio::test]
async fn a_github_app_is_asked_for_its_token() {
    let mut world = World::new().await;
    let parts = [
        ("githubAppID", "17"),
        ("githubAppInstallationID", "42"),
        ("githubAppPrivateKey", "s3cret"),
    ];
    let mut spec = spec(world.dir.path());
    spec.source.url = Some("https://127.0.0.1:1/acme/fleet".into());
    spec.source.secret_ref = secret(&world, "app", &parts).await;
    spec.forge.as_mut().unwrap().api_url = Some("https://forge.example.org/api/v3".into());
    let tokens = Arc::new(Tokens::default());
    let folder = world.dir.path().to_owned();
    for (given, wanted) in [
        (None, "makes no tokens"),
        (Some(tokens.clone()), "is suspended"),
    ] {
        world.context.tokens = given.clone().map(|t| t as Arc<dyn AppTokens>);
        let name = if given.is_some() { "with" } else { "without" };
        let mut fleet = world.fleet(name, spec.clone(), folder.clone()).await;
        fleet.try_look(&world).await.unwrap_err();
        let (_, message) = fleet.ready();
        assert!(
            message.contains(wanted) && !message.contains("s3cret"),
            "{message}"
        );
    }
    let asked = tokens.asked.lock();
    let wanted = GithubApp {
        id: "17".into(),
        installation: "42".into(),
        private_key: SecretText::new("s3cret"),
        api_url: Some("https://forge.example.org/api/v3".into()),
    };
    assert_eq!(*asked, [wanted]);
}

#[tokio::test]
async fn secrets_that_do_not_fit_say_what_is_wrong() {
    let world = World::new().await;
    let rows: [(&str, Parts<'_>, &str); 6] = [
        (
            "https://example.org/x",
            &[("note", "x")],
            "token or password",
        ),
        (
            "https://example.org/x",
            &[("githubAppID", "x")],
            "needs all of",
        ),
        (
            "https://example.org/x",
            &[("token", "x"), ("ca.crt", "x")],
            "ca.crt",
        ),
        ("git@example.org:x", &[("token", "x")], "key identity"),
        ("git@example.org:x", &[("identity", "x")], "known_hosts"),
        (
            "ssh://example.org/x",
            &[("identity", "x"), ("known_hosts", "h k")],
            "known_hosts, line 1",
        ),
    ];
    for (n, (url, parts, wanted)) in rows.into_iter().enumerate() {
        let name = format!("s{n}");
        let mut spec = spec(world.dir.path());
        spec.source.url = Some(url.into());
        spec.source.secret_ref = secret(&world, &name, parts).await;
        let mut fleet = world.fleet(&name, spec, world.dir.path().to_owned()).await;
        fleet.try_look(&world).await.unwrap_err();
        let (reason, message) = fleet.ready();
        assert_eq!(reason, "SourceFailed");
        assert!(
            message.contains(wanted) && message.contains(&name),
            "{message}"
        );
    }
}

#[tokio::test]
async fn cve_2026_44935_secrets_of_other_namespaces() {
    let world = World::new().await;
    let mut spec = spec(world.dir.path());
    spec.source.url = Some("https://127.0.0.1:1/x".into());
    spec.source.secret_ref = secret(&world, "mine", &[("token", "s3cret")]).await;
    let namespace =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    let namespace = serde_json::from_value(namespace).unwrap();
    let params = PostParams::default();
    let namespaces = world.api("Namespace");
    namespaces.create(&params, &namespace).await.unwrap();
    let fleets = Api::<Fleet>::namespaced(world.client(), "other");
    let made = fleets.create(&params, &Fleet::new("repo", spec)).await;
    let mut follower = Follower::new(world.context.clone(), made.unwrap());
    let failed = follower.look(&Seen::default()).await.unwrap_err();
    let text = failed.to_string();
    assert!(
        text.contains("other/mine") && text.contains("no text in key token"),
        "{text}"
    );
}

#[tokio::test]
async fn cve_2025_47933_url_schemes() {
    let world = World::new().await;
    let fleets = Api::<Fleet>::namespaced(world.client(), "default");
    let create = async |n: usize, url: &str, verify: bool, directory: bool| {
        let mut source = FleetSource::default();
        match directory {
            true => source.directory = Some(url.into()),
            false => source.url = Some(url.into()),
        }
        source.verify = verify.then(|| Verify {
            mode: VerifyMode::Head,
            secret_ref: LocalSecretRef { name: "x".into() },
        });
        let spec = FleetSpec {
            source,
            ..FleetSpec::default()
        };
        let fleet = Fleet::new(&format!("f{n}"), spec);
        fleets.create(&PostParams::default(), &fleet).await
    };
    let rows = [
        ("https://example.org/x", true),
        ("ssh://git@example.org:2222/x", true),
        ("git@example.org:acme/fleet.git", true),
        ("file:///srv/x", true),
        ("http://example.org/x", false),
        ("javascript:alert(1)", false),
        ("example.org:x", false),
        ("git@example.org", false),
        ("/srv/x", false),
    ];
    for (n, (url, good)) in rows.into_iter().enumerate() {
        let made = create(n, url, true, false).await;
        assert_eq!(made.is_ok(), good, "{url}: {made:?}");
    }
    create(90, "/srv/x", false, true).await.unwrap();
    let refused = create(91, "/srv/x", true, true).await.unwrap_err();
    assert!(
        refused.to_string().contains("verify needs url"),
        "{refused}"
    );
}

/// Commits files of main of a bare repository on top of what is there, without a work tree.
fn import(bare: &Path, from: &str, files: impl Iterator<Item = (String, String)>) {
    let mut stream =
        format!("commit refs/heads/main\ncommitter t <t@example.org> 0 +0000\ndata 1\nx\n{from}");
    for (path, text) in files {
        let length = text.len();
        stream += &format!("M 100644 inline {path}\ndata {length}\n{text}\n");
    }
    let file = bare.with_extension("stream");
    std::fs::write(&file, stream).unwrap();
    let imported = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(bare)
        .stdin(std::fs::File::open(&file).unwrap())
        .status();
    assert!(imported.unwrap().success());
}

#[tokio::test]
async fn a_commit_beside_the_path_costs_nothing_among_twenty_thousand_files() {
    let world = World::new().await;
    let folder = world.dir.path().to_owned();
    git(&folder, &["init", "-q", "--bare", "r.git"]);
    let bare = folder.join("r.git");
    let texts = (0..19_000).map(|n| (format!("texts/{}/{n}.txt", n % 100), "x".to_owned()));
    let maps = (0..1_000).map(|n| {
        let path = format!("fleet/{}/{n}.yaml", n % 100);
        (path, config_map(&format!("c{n}"), "one"))
    });
    import(&bare, "", texts.chain(maps));
    let fleet = world.fleet("repo", spec(&folder), folder.clone()).await;
    let fleet = fleet.follower.fleet;
    let context = &world.context;
    let catalogue = Arc::clone(&context.catalogue);
    let mut reader = Reader::new(context.client.clone(), catalogue, context.cache.clone());
    let allow = Allow::default();
    let first = reader.find(&fleet, Timestamp::UNIX_EPOCH).await.unwrap();
    let declared = reader.declared(first.tree.unwrap(), &allow).await.unwrap();
    assert_eq!((declared.desired.len(), declared.errors.len()), (1_000, 0));
    // Another permission is another reading.
    let narrow = Allow {
        kinds: vec!["Namespace".into()],
        ..Allow::default()
    };
    let again = reader.find(&fleet, Timestamp::UNIX_EPOCH).await.unwrap();
    let narrowed = reader.declared(again.tree.unwrap(), &narrow).await.unwrap();
    assert!(!narrowed.errors.is_empty());

    let other = ("texts/0/0.txt".to_owned(), "other".to_owned());
    import(&bare, "from refs/heads/main^0\n", std::iter::once(other));
    let second = reader.find(&fleet, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_ne!(second.revision, first.revision);
    // Whoever reads a file of the cache now, or loads it, fails.
    std::fs::remove_dir_all(context.cache.folder()).unwrap();
    let again = reader
        .declared(second.tree.unwrap(), &narrow)
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&narrowed, &again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_that_never_answers_holds_up_nobody_else() {
    let world = World::new().await;
    let work = repository(world.dir.path());
    write(&work, "fleet/c.yaml", &config_map("c", "one"));
    push(&work);
    // It takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, connections) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    let silent = 40;
    for n in 0..silent {
        let mut spec = spec(world.dir.path());
        // Some share a repository, others have one of their own.
        spec.source.url = Some(format!("https://127.0.0.1:{port}/{}", n % 20));
        spec.source.interval_seconds = Some(1);
        let folder = world.dir.path().to_owned();
        world.fleet(&format!("silent-{n}"), spec, folder).await;
    }
    let running = Running::start(&world);
    // Each repository has one connection, however many follow it.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(connections.recv_timeout(Duration::from_secs(60)).unwrap());
    }
    let mut fast = spec(world.dir.path());
    fast.source.interval_seconds = Some(1);
    world.fleet("repo", fast, work.clone()).await;
    until(&world, "ConfigMap", "c", data("one")).await;
    write(&work, "fleet/c.yaml", &config_map("c", "two"));
    push(&work);
    until(&world, "ConfigMap", "c", data("two")).await;
    assert!(
        connections.try_recv().is_err(),
        "no second connection to any"
    );
    running.stop().await;
    // The remotes go away, and with them the threads that wait for them.
    drop((held, connections));
}
