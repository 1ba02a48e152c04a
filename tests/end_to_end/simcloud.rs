//! The simulated cloud as a process of its own: killed, on a full disk, and followed by an engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use fleetwright_api::{Machine, ProviderAccount, names};
use fleetwright_provider_sim::{RemoteCloud, config};
use fleetwright_providers::{
    Account, ClusterConnections as _, ClusterRef, CreateInstance, Instance, InstanceState,
    ListScope, Ownership, Provider as _, ProviderError,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use rand::Rng as _;
use serde_json::{Value, json};

use crate::kit::{Engine, PATIENCE, Process, fleet, fleetwright};

fn account() -> Account {
    Account {
        name: "sim-eu".into(),
        provider: "sim".into(),
        region: "eu".into(),
        ..Account::default()
    }
}

fn order(n: usize) -> CreateInstance {
    let cluster_config = json!({
        "apiVersion": config::API_VERSION, "kind": config::CLUSTER_CONFIG, "account": "sim-eu",
        "workloads": [{"name": "shop", "replicas": 3, "minAvailable": 2, "startSeconds": 0}],
    });
    CreateInstance {
        owner: Ownership {
            cluster_key: "k".into(),
            cluster: "default/a".into(),
            machine: format!("m-{n}"),
            instance_key: format!("key-{n}"),
            ..Ownership::default()
        },
        control_plane: n == 0,
        version: "v1.33.2".into(),
        config: json!({
            "apiVersion": config::API_VERSION, "kind": config::MACHINE_CONFIG, "account": "sim-eu", "bootSeconds": 0,
        }),
        cluster_config: (n == 0).then_some(cluster_config),
        ..CreateInstance::default()
    }
}

fn cluster(key: &str) -> ClusterRef {
    ClusterRef {
        key: key.to_owned(),
        ..ClusterRef::default()
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, wait).await;
    seen.unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"))
}

/// The journal, every line of it.
fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

async fn list(cloud: &RemoteCloud) -> Vec<Instance> {
    cloud.list(&account(), &ListScope::Account).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_cloud_keeps_what_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let mut process = Process::start(&["simcloud", "--data", data], "journal").await;
    let url = process.told("simcloud");
    let cloud = RemoteCloud::connect(&url, PATIENCE).await.unwrap();
    let mut answered: BTreeMap<String, String> = BTreeMap::new();
    let mut next = 0;
    for _ in 0..8 {
        let moment = Duration::from_millis(rand::rng().random_range(20..300));
        let work = async {
            loop {
                match cloud.create(&account(), &order(next)).await {
                    Ok(made) => {
                        answered.insert(format!("key-{next}"), made.id);
                        next += 1;
                    }
                    Err(error) => return error,
                }
            }
        };
        let kill = async {
            tokio::time::sleep(moment).await;
            process.kill().await;
        };
        let (error, ()) = tokio::join!(work, kill);
        assert!(
            matches!(
                error,
                ProviderError::Ambiguous { .. } | ProviderError::Unavailable { .. }
            ),
            "{error:?}"
        );
        // On the port that it had.
        process = Process::start(&["simcloud", "--data", data], "journal").await;
        assert_eq!(process.told("simcloud"), url);
    }
    let listed = list(&cloud).await;
    let by_key: BTreeMap<_, _> = listed
        .iter()
        .map(|i| (i.owner.clone().unwrap().instance_key, i.id.clone()))
        .collect();
    assert_eq!(by_key.len(), listed.len(), "one instance for each key");
    for (key, id) in &answered {
        assert_eq!(by_key.get(key), Some(id), "{key} was answered");
    }
    // What was under way goes on: all boot, register, and carry the pods.
    until("all run", async || {
        let all = list(&cloud).await;
        all.iter()
            .all(|i| i.state == InstanceState::Running)
            .then_some(())
    })
    .await;
    let client = cloud.client(&cluster("k")).await.unwrap();
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    let nodes: BTreeSet<_> = nodes.iter().map(|n| n.name_any()).collect();
    let machines = listed
        .iter()
        .map(|i| i.owner.clone().unwrap().machine)
        .collect();
    assert_eq!(nodes, machines);
    until("three pods", async || {
        (running(&client, "default").await == 3).then_some(())
    })
    .await;
    process.kill().await;
    let numbers = lines(dir.path())
        .into_iter()
        .map(|l| l["seq"].as_u64().unwrap());
    assert!(
        numbers.zip(1..).all(|(seq, n)| seq == n),
        "numbers without gaps"
    );
}

async fn running(client: &Client, namespace: &str) -> usize {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let pods = pods.list(&ListParams::default()).await.unwrap();
    let phase = |p: &&Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    pods.iter().filter(phase).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    // No file may grow beyond 200 KiB: writing more fails as on a full disk.
    let mut command = tokio::process::Command::new("sh");
    let program = fleetwright(&[]);
    command
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 400; exec \"$0\" simcloud --data \"$1\"",
        ])
        .arg(program.as_std().get_program())
        .arg(data)
        .kill_on_drop(true);
    let process = Process::spawn(command, "journal").await;
    let url = process.told("simcloud");
    let cloud = RemoteCloud::connect(&url, PATIENCE).await.unwrap();
    let mut answered: BTreeMap<usize, String> = BTreeMap::new();
    let mut made = 0;
    // A delete may still find room where a create does not: then the disk is filled up again.
    let key = loop {
        let error = loop {
            match cloud.create(&account(), &order(made)).await {
                Ok(instance) => answered.insert(made, instance.id),
                Err(error) => break error,
            };
            made += 1;
        };
        let ProviderError::Unavailable { message } = &error else {
            panic!("{error:?}")
        };
        let words = "the simulated cloud cannot store: ";
        assert!(message.starts_with(words), "{message}");
        assert!(answered.len() > 3, "{answered:?}");
        let (key, id) = answered.pop_first().unwrap();
        let done = cloud.delete(&account(), &id, &format!("key-{key}")).await;
        if let Err(refused) = done {
            assert!(
                matches!(refused, ProviderError::Unavailable { .. }),
                "{refused:?}"
            );
            answered.insert(key, id);
            break key;
        }
    };
    // A delete that is refused has not begun: asked for again it is refused again, or really done.
    let again = cloud
        .delete(&account(), &answered[&key], &format!("key-{key}"))
        .await;
    let deleted = match again {
        Ok(()) => answered.remove(&key),
        Err(ProviderError::Unavailable { .. }) => None,
        Err(other) => panic!("{other:?}"),
    };
    let answered: Vec<String> = answered.into_values().collect();
    process.kill().await;

    let address = url.strip_prefix("http://").unwrap();
    let process = Process::start(
        &["simcloud", "--data", data, "--listen", address],
        "journal",
    )
    .await;
    let listed: BTreeSet<_> = list(&cloud).await.into_iter().map(|i| i.id).collect();
    assert!(
        answered.iter().all(|id| listed.contains(id)),
        "{answered:?} {listed:?}"
    );
    if let Some(deleted) = deleted {
        until("what was deleted is gone", async || {
            let there = list(&cloud).await.into_iter().any(|i| i.id == deleted);
            (!there).then_some(())
        })
        .await;
    }
    let again = cloud.create(&account(), &order(made)).await.unwrap();
    assert!(!answered.contains(&again.id));
    until("all run", async || {
        let all = list(&cloud).await;
        all.iter()
            .all(|i| i.state == InstanceState::Running)
            .then_some(())
    })
    .await;
    process.kill().await;
    let numbers = lines(dir.path())
        .into_iter()
        .map(|l| l["seq"].as_u64().unwrap());
    assert!(
        numbers.zip(1..).all(|(seq, n)| seq == n),
        "numbers without gaps"
    );
}

/// Quotas of the account and workloads of the cluster reach a cloud that is another process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_brings_quotas_and_workloads_to_the_cloud() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, data, sim) = (
        dir.path().join("repo"),
        dir.path().join("data"),
        dir.path().join("sim"),
    );
    std::fs::create_dir(&repo).unwrap();
    let file = repo.join("a.yaml");
    std::fs::write(&file, fleet("v1.33.2", Some(1))).unwrap();
    let process = Process::start(&["simcloud", "--data", sim.to_str().unwrap()], "journal").await;
    let url = process.told("simcloud");
    let engine = Engine::up(repo.to_str().unwrap(), &data, &["--simcloud", &url]).await;
    engine.until_at("v1.33.2").await;

    let accounts = Api::<ProviderAccount>::all(engine.client.clone());
    let quota = |n: i64| Patch::Merge(json!({"spec": {"quotas": {"instances": n}}}));
    accounts
        .patch("sim-eu", &PatchParams::default(), &quota(3))
        .await
        .unwrap();
    std::fs::write(&file, fleet("v1.33.2", Some(4))).unwrap();
    let machines = Api::<Machine>::default_namespaced(engine.client.clone());
    let said = "account sim-eu may use 3 instances, uses 3, and sim.small needs 1 more: raise spec.quotas.instances";
    until("a machine says what to do", async || {
        let all = machines.list(&ListParams::default()).await.unwrap();
        let says = |m: &Machine| json!(m.status).to_string().contains(said);
        all.iter().any(says).then_some(())
    })
    .await;
    let made = lines(&sim).into_iter().filter(|e| e["verb"] == "create");
    let (ok, refused): (Vec<_>, Vec<_>) = made.partition(|e| e["outcome"] == "ok");
    assert_eq!(ok.len(), 3);
    assert!(
        refused.iter().all(|e| e["outcome"] == "QuotaExceeded"),
        "{refused:?}"
    );
    accounts
        .patch("sim-eu", &PatchParams::default(), &quota(5))
        .await
        .unwrap();
    engine.until_at("v1.33.2").await;
    until("four workers", async || {
        let pool = engine.pool().await.status.unwrap_or_default();
        (pool.available_replicas == 4).then_some(())
    })
    .await;

    let cloud = RemoteCloud::connect(&url, PATIENCE).await.unwrap();
    let key = names::cluster_key("default", "default", "a");
    let client = cloud.client(&cluster(&key)).await.unwrap();
    until("three pods", async || {
        (running(&client, "shop").await == 3).then_some(())
    })
    .await;
    let more = fleet("v1.33.2", Some(4)).replace(
        "replicas: 3, minAvailable: 2",
        "replicas: 5, minAvailable: 4",
    );
    std::fs::write(&file, more).unwrap();
    until("five pods", async || {
        (running(&client, "shop").await == 5).then_some(())
    })
    .await;
    let updates = lines(&sim).into_iter().filter(|e| e["verb"] == "update");
    assert_eq!(updates.count(), 1, "the control plane alone is told, once");
    engine.process.interrupt().await;
    process.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_goes_on_when_the_cloud_is_killed_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, data, sim) = (
        dir.path().join("repo"),
        dir.path().join("data"),
        dir.path().join("sim"),
    );
    std::fs::create_dir(&repo).unwrap();
    let file = repo.join("a.yaml");
    std::fs::write(&file, fleet("v1.33.2", Some(4))).unwrap();
    let start = async || {
        let args = ["simcloud", "--data", sim.to_str().unwrap()];
        Process::start(&args, "journal").await
    };
    let mut process = start().await;
    let url = process.told("simcloud");
    let engine = Engine::up(repo.to_str().unwrap(), &data, &["--simcloud", &url]).await;
    engine.until_at("v1.33.2").await;
    std::fs::write(&file, fleet("v1.34.1", Some(4))).unwrap();
    let made = || lines(&sim).iter().filter(|e| e["verb"] == "create").count();
    for count in [6, 8] {
        until("the rollout is under way", async || {
            (made() >= count).then_some(())
        })
        .await;
        let moment = rand::rng().random_range(0..300);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        process.kill().await;
        process = start().await;
        assert_eq!(process.told("simcloud"), url);
    }
    engine.until_at("v1.34.1").await;
    let cloud = RemoteCloud::connect(&url, PATIENCE).await.unwrap();
    let live = until("what was replaced is gone", async || {
        let live = list(&cloud).await;
        (live.len() == 5).then_some(live)
    })
    .await;
    assert!(
        live.iter().all(|i| i.state == InstanceState::Running),
        "{live:?}"
    );
    let mut instances: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines(&sim).iter().filter(|e| e["verb"] == "create") {
        if let Some(instance) = line["instance"].as_str() {
            let machine = line["machine"].to_string();
            instances
                .entry(machine)
                .or_default()
                .insert(instance.to_owned());
        }
    }
    assert!(
        instances.values().all(|ids| ids.len() == 1),
        "{instances:?}"
    );
    engine.process.interrupt().await;
    process.interrupt().await;
}
