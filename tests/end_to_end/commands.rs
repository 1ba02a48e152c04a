//! `rollout` and `why` against a running engine.

use std::{path::Path, process::Output};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineHealthCheck, meta,
    meta::{ANNOTATION_PAUSED, ANNOTATION_RESTARTED_AT, LABEL_DEPLOYMENT_NAME},
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    forge::{commit, git},
    kit::{Engine, fleet, fleetwright},
};

/// Runs a command for this engine; gives its exit code, what it printed and what it told.
async fn run(engine: &Engine, args: &[&str]) -> (Option<i32>, String, String) {
    let connection = engine.connection();
    let all: Vec<&str> = args.iter().copied().chain(connection).collect();
    let Output {
        status,
        stdout,
        stderr,
    } = fleetwright(&all).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// What a command that succeeds prints.
async fn print(engine: &Engine, args: &[&str]) -> String {
    let (code, out, err) = run(engine, args).await;
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    out
}

async fn document(engine: &Engine, args: &[&str]) -> Value {
    let all: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
    serde_json::from_str(&print(engine, &all).await).unwrap()
}

/// The fleet, with the pool's machines of this image.
fn with_image(image: &str) -> String {
    let text = fleet("v1.33.2", Some(2));
    let (before, pool) = text.split_once("---\n").unwrap();
    let pool = pool.replace(
        "bootSeconds: 0.2}",
        &format!("image: {image}, bootSeconds: 0.2}} # as Ann says"),
    );
    format!("{before}---\n{pool}")
}

async fn start(dir: &Path, content: &str) -> Engine {
    let repo = dir.join("repo");
    std::fs::create_dir(&repo).unwrap();
    std::fs::write(repo.join("a.yaml"), content).unwrap();
    let engine = Engine::up(repo.to_str().unwrap(), &dir.join("data"), &[]).await;
    engine.until_at("v1.33.2").await;
    engine
}

/// Waits until all of the pool's machines have this image, and the pool is at rest.
async fn until_image(engine: &Engine, pool: &str, image: &str) {
    let wanted = image.to_owned();
    let rolled = move |p: Option<&MachineDeployment>| {
        p.is_some_and(|p| {
            let config = p.spec.template.spec.provider_config.settings();
            config.get("image") == Some(&json!(wanted)) && fleetwright_core::status::is_complete(p)
        })
    };
    engine.until(pool, image, rolled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_git_owns_the_pool_undo_is_a_patch_for_the_repository() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), &with_image("ubuntu-22.04")).await;
    let file = dir.path().join("repo/a.yaml");
    std::fs::write(&file, with_image("ubuntu-24.04")).unwrap();
    until_image(&engine, "a-web", "ubuntu-24.04").await;

    let history = document(&engine, &["rollout", "history", "md/a-web"]).await;
    let rows: Vec<(u64, bool, Value)> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            (
                r["revision"].as_u64().unwrap(),
                r["current"] == true,
                r["changes"].clone(),
            )
        })
        .collect();
    let change = json!([{"path": "spec.providerConfig.image", "from": "ubuntu-22.04", "to": "ubuntu-24.04"}]);
    assert_eq!(rows, [(1, false, json!([])), (2, true, change.clone())]);
    let pool = engine.pool().await;
    let commit = &pool.annotations()[meta::ANNOTATION_REVISION];
    assert_eq!(
        history[1]["because"],
        json!({"commit": commit, "changes": change})
    );
    let text = print(&engine, &["rollout", "history", "machinedeployment/a-web"]).await;
    assert!(
        text.lines()
            .nth(2)
            .unwrap()
            .contains("spec.providerConfig.image: ubuntu-22.04 -> ubuntu-24.04"),
        "{text}"
    );
    let one = print(
        &engine,
        &["rollout", "history", "md/a-web", "--revision", "1"],
    )
    .await;
    assert!(
        one.contains("image: ubuntu-22.04") && one.starts_with("revision 1\n"),
        "{one}"
    );
    let (code, _, err) = run(
        &engine,
        &["rollout", "history", "md/a-web", "--revision", "9"],
    )
    .await;
    assert!(code == Some(1) && err.contains("there are: 1, 2"), "{err}");

    // Nothing is written; what is printed is for `git apply`, and takes the comment along.
    let (code, patch, err) = run(&engine, &["rollout", "undo", "md/a-web"]).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains(
            "nothing was written: Git owns MachineDeployment a-web (Fleet default/default)"
        ),
        "{err}"
    );
    assert_eq!(
        engine.pool().await.metadata.generation,
        pool.metadata.generation
    );
    let changed = |sign: &str| patch.lines().filter(|l| l.starts_with(sign)).count();
    assert_eq!((changed("-"), changed("+")), (2, 2), "{patch}");
    let apply = tokio::process::Command::new("git")
        .args(["apply", "-"])
        .current_dir(dir.path().join("repo"))
        .stdin(std::process::Stdio::piped())
        .spawn();
    let mut apply = apply.unwrap();
    let mut input = apply.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, patch.as_bytes())
        .await
        .unwrap();
    drop(input);
    assert!(apply.wait().await.unwrap().success());
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        with_image("ubuntu-22.04")
    );
    until_image(&engine, "a-web", "ubuntu-22.04").await;

    // The same from a directory that is named; and there is nothing to do where it says so already.
    let repo = dir.path().join("repo");
    let (code, out, _) = run(
        &engine,
        &[
            "rollout",
            "undo",
            "md/a-web",
            "--repo",
            repo.to_str().unwrap(),
            "-o",
            "json",
        ],
    )
    .await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &told["written"], &told["revision"]),
        (Some(3), &json!(false), &json!(2))
    );
    assert!(
        told["patch"]
            .as_str()
            .unwrap()
            .contains("+      providerConfig"),
        "{out}"
    );
    std::fs::write(&file, "").unwrap();
    let (code, out, err) = run(&engine, &["rollout", "undo", "md/a-web"]).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(
        out.contains("image: ubuntu-24.04") && out.contains("kind: MachineDeployment"),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_nobodys_goes_back_restarts_and_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), &fleet("v1.33.2", Some(1))).await;
    let pools = Api::<MachineDeployment>::namespaced(engine.client.clone(), "default");
    let mut own = engine.pool().await;
    own.metadata = kube::api::ObjectMeta {
        name: Some("own".into()),
        ..Default::default()
    };
    let config =
        |image: &str| json!({"spec": {"template": {"spec": {"providerConfig": {"image": image}}}}});
    pools.create(&PostParams::default(), &own).await.unwrap();
    for image in ["ubuntu-22.04", "ubuntu-24.04"] {
        let patch = Patch::Merge(config(image));
        pools
            .patch("own", &PatchParams::default(), &patch)
            .await
            .unwrap();
        until_image(&engine, "own", image).await;
    }
    let back = document(&engine, &["rollout", "undo", "md/own"]).await;
    assert_eq!(back["written"], true);
    until_image(&engine, "own", "ubuntu-22.04").await;
    let (code, _, err) = run(
        &engine,
        &["rollout", "undo", "md/own", "--to-revision", "77"],
    )
    .await;
    assert!(
        code == Some(1) && err.contains("there is no revision 77"),
        "{err}"
    );

    // A paused pool does not roll.
    let machines = Api::<Machine>::namespaced(engine.client.clone(), "default");
    let names = || async {
        let params = ListParams::default().labels(&format!("{LABEL_DEPLOYMENT_NAME}=own"));
        let list = machines.list(&params).await.unwrap();
        list.items
            .iter()
            .map(kube::ResourceExt::name_any)
            .collect::<Vec<_>>()
    };
    let before = names().await;
    let text = print(&engine, &["rollout", "pause", "md/own"]).await;
    assert_eq!(
        text,
        "MachineDeployment own in namespace default is paused\n"
    );
    let again = print(&engine, &["rollout", "pause", "md/own"]).await;
    assert_eq!(
        again,
        "MachineDeployment own in namespace default is paused already\n"
    );
    let restart = document(&engine, &["rollout", "restart", "md/own"]).await;
    assert_eq!(
        (&restart["changed"], &restart["paused"]),
        (&json!(true), &json!(true))
    );
    engine
        .until("own", "the pause", |p: Option<&MachineDeployment>| {
            let conditions = p.and_then(|p| Some(p.status.as_ref()?.conditions.as_slice()));
            conditions.is_some_and(|c| {
                fleetwright_api::condition::get(c, "RollingOut")
                    .is_some_and(|c| c.message.contains("paused"))
            })
        })
        .await;
    let why = print(&engine, &["why", "md/own"]).await;
    assert!(why.contains("paused"), "{why}");
    assert_eq!(names().await, before);
    let revision =
        |pool: &MachineDeployment| pool.annotations()[meta::ANNOTATION_ROLLOUT_REVISION].clone();
    let old = revision(&pools.get("own").await.unwrap());
    print(&engine, &["rollout", "resume", "md/own"]).await;
    let pool = pools.get("own").await.unwrap();
    assert!(!pool.annotations().contains_key(ANNOTATION_PAUSED));
    let restarted = pool.annotations()[ANNOTATION_RESTARTED_AT].clone();
    let rolled = move |p: Option<&MachineDeployment>| {
        p.is_some_and(|p| revision(p) != old && fleetwright_core::status::is_complete(p))
    };
    engine.until("own", "the restart", rolled).await;
    assert!(names().await.iter().all(|name| !before.contains(name)));
    let history = document(&engine, &["rollout", "history", "md/own"]).await;
    let last = history.as_array().unwrap().last().unwrap();
    assert_eq!(
        last["because"]["note"],
        json!(format!("machines made before {restarted} are replaced"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_pauses_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), &fleet("v1.33.2", Some(0))).await;
    let clusters = Api::<Cluster>::namespaced(engine.client.clone(), "default");
    print(&engine, &["rollout", "pause", "cluster/a"]).await;
    assert!(
        clusters
            .get("a")
            .await
            .unwrap()
            .annotations()
            .contains_key(ANNOTATION_PAUSED)
    );
    print(&engine, &["rollout", "resume", "cl/a"]).await;
    print(&engine, &["rollout", "restart", "clusters/a"]).await;
    let replaced = |c: Option<&Cluster>| {
        c.is_some_and(|c| {
            c.annotations()
                .get(meta::ANNOTATION_NEXT_ORDINAL)
                .is_some_and(|n| n != "1")
                && fleetwright_core::status::has_converged(c, &[])
        })
    };
    engine.until("a", "the restart", replaced).await;
    let why = print(&engine, &["why", "cluster/a"]).await;
    assert!(why.starts_with("Cluster default/a: runs v1.33.2"), "{why}");
    let why = print(&engine, &["why", "machine/a-cp-1"]).await;
    assert!(
        why.starts_with(
            "Machine default/a-cp-1: made because it replaces a-cp-0: machines made before "
        ) && why.contains(" are replaced; runs as node "),
        "{why}"
    );
    let (code, _, err) = run(&engine, &["rollout", "restart", "machine/a-cp-1"]).await;
    assert!(
        code == Some(2) && err.contains("is rolled out by its owner"),
        "{err}"
    );
    let (code, _, err) = run(&engine, &["why", "md/none"]).await;
    assert!(
        code == Some(1) && err.contains("there is no MachineDeployment none"),
        "{err}"
    );
}

/// A machine that a budget keeps: `why` and `status` tell commit, field, rule and what it waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_tells_the_chain_from_the_commit_to_the_pod() {
    let dir = tempfile::tempdir().unwrap();
    // As many pods must be available as there are: no eviction is allowed.
    let stuck = |image: &str| with_image(image).replace("minAvailable: 2", "minAvailable: 3");
    let engine = start(dir.path(), &stuck("ubuntu-22.04")).await;
    let file = dir.path().join("repo/a.yaml");
    std::fs::write(&file, stuck("ubuntu-24.04")).unwrap();
    let machines = Api::<Machine>::namespaced(engine.client.clone(), "default");
    let draining = |p: Option<&MachineDeployment>| {
        let conditions = p.and_then(|p| Some(p.status.as_ref()?.conditions.as_slice()));
        conditions.is_some_and(|c| {
            fleetwright_api::condition::get(c, "ScalingDown")
                .is_some_and(|c| c.message.contains("budget"))
        })
    };
    engine
        .until("a-web", "a drain that a budget holds up", draining)
        .await;
    let params = ListParams::default().labels(&format!("{LABEL_DEPLOYMENT_NAME}=a-web"));
    let all = machines.list(&params).await.unwrap();
    let doomed = all
        .items
        .iter()
        .find(|m| m.metadata.deletion_timestamp.is_some())
        .unwrap();
    let node = &doomed
        .status
        .as_ref()
        .unwrap()
        .node_ref
        .as_ref()
        .unwrap()
        .name;
    let doomed = doomed.name_any();
    let pool = engine.pool().await;
    let commit = fleetwright_core::why::short(&pool.annotations()[meta::ANNOTATION_REVISION]);
    let because = format!(
        "replaced because providerConfig.image changed from ubuntu-22.04 to ubuntu-24.04 in {commit}"
    );
    let text = print(&engine, &["why", &format!("machine/{doomed}")]).await;
    let line = text.lines().next().unwrap();
    assert!(
        line.starts_with(&format!("Machine default/{doomed}: {because}; drain")),
        "{text}"
    );
    assert!(
        line.contains("budget") && line.contains(", since "),
        "{text}"
    );
    // The node leads to its Machine.
    let text = print(&engine, &["why", &format!("node/{node}")]).await;
    assert!(
        text.starts_with(&format!("Machine default/{doomed}: {because}; drain")),
        "{text}"
    );
    let (code, _, err) = run(&engine, &["why", "node/none"]).await;
    assert!(
        code == Some(1) && err.contains("no Machine in namespace default has a node none"),
        "{err}"
    );
    let tree = document(&engine, &["why", &format!("ma/{doomed}")]).await;
    assert_eq!(tree["says"][0]["text"], json!(because));
    assert!(
        tree["says"][1]["since"].is_string() && tree["because"][0]["name"] == "a-web",
        "{tree}"
    );
    let text = print(&engine, &["why", "md/a-web"]).await;
    assert!(
        text.contains(&format!("  Machine {doomed}: {because}")),
        "{text}"
    );
    let text = print(&engine, &["status"]).await;
    let line = text
        .lines()
        .find(|l| l.starts_with("    pool a-web: "))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(
        line.contains("budget")
            && line.contains(", since ")
            && line.ends_with(&format!("; as {commit} says")),
        "{text}"
    );
    let status = document(&engine, &["status"]).await;
    assert!(status["pools"][0]["waits"]["text"].is_string(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_tells_of_a_health_check_whether_it_lets_machines_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), &fleet("v1.33.2", Some(1))).await;
    let check = serde_json::from_value(json!({
        "metadata": {"name": "web", "annotations": {ANNOTATION_PAUSED: ""}},
        "spec": {"clusterName": "a", "selector": {"matchLabels": {LABEL_DEPLOYMENT_NAME: "a-web"}}},
    }));
    Api::<MachineHealthCheck>::namespaced(engine.client.clone(), "default")
        .create(&PostParams::default(), &check.unwrap())
        .await
        .unwrap();
    let counted = |c: Option<&MachineHealthCheck>| {
        let status = c.and_then(|c| c.status.as_ref());
        status.is_some_and(|s| s.expected_machines == 1)
    };
    engine.until("web", "the check counts", counted).await;
    let text = print(&engine, &["why", "mhc/web"]).await;
    let want = "MachineHealthCheck default/web: looks at 1 machines of Cluster a; none of them is broken; \
                not all broken machines may be replaced: the health check is paused, since ";
    assert!(text.starts_with(want), "{text}");
    let (code, _, err) = run(&engine, &["rollout", "pause", "mhc/web"]).await;
    assert!(
        code == Some(2) && err.contains("MachineHealthCheck web is not rolled out"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_repository_the_patch_has_its_path_and_the_commit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (work, data) = (dir.path().join("work"), dir.path().join("data"));
    git(dir.path(), &["init", "-q", "--bare", "fleet.git"]);
    git(dir.path(), &["clone", "-q", "fleet.git", "work"]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    let eu = work.join("regions/eu");
    std::fs::create_dir_all(&eu).unwrap();
    commit(&eu, &with_image("ubuntu-22.04"));
    let url = format!("file://{}/fleet.git", dir.path().display());
    let more = [
        "--branch",
        "main",
        "--path",
        "regions/eu",
        "--interval",
        "5",
    ];
    let engine = Engine::up(&url, &data, &more).await;
    engine.until_at("v1.33.2").await;
    let sha = commit(&eu, &with_image("ubuntu-24.04"));
    until_image(&engine, "a-web", "ubuntu-24.04").await;

    let why = print(&engine, &["why", "md/a-web"]).await;
    let line = format!(
        "at revision 2 because providerConfig.image changed from ubuntu-22.04 to ubuntu-24.04 in {}; ",
        &sha[..7]
    );
    assert!(why.contains(&line), "{why}");
    let (code, patch, err) = run(&engine, &["rollout", "undo", "md/a-web"]).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(patch.contains("+++ b/regions/eu/fleet.yaml\n"), "{patch}");
    assert!(
        err.contains(&format!("`git revert {}`", &sha[..7])),
        "{err}"
    );
    std::fs::write(work.join("undo.patch"), patch).unwrap();
    git(&work, &["apply", "undo.patch"]);
    let text = std::fs::read_to_string(eu.join("fleet.yaml")).unwrap();
    assert_eq!(text, with_image("ubuntu-22.04"));
}
