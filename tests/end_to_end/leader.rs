//! Two engines on one Kubernetes: one works, and the other takes over when the first is killed or stopped.
//!
//! That Kubernetes is the embedded API server in a process of its own, or the cluster of `FLEETWRIGHT_TEST_KUBECONFIG`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use fleetwright_api::{Cluster, MachineDeployment};
use fleetwright_provider_sim::RemoteCloud;
use fleetwright_providers::{Account, InstanceState, ListScope, Provider as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, runtime::wait::await_condition};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    kit::{PATIENCE, Process, fleet, is_done, is_rolled, send},
    stock::{Kubernetes, NAMESPACE},
};

/// Longest time from the end of a leader until another leads.
const TAKEOVER: Duration = Duration::from_secs(15);

/// What engines share: an API, a cloud and what they follow.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    pub(crate) kubernetes: Kubernetes,
    pub(crate) client: Client,
    pub(crate) cloud_url: String,
    cloud: RemoteCloud,
    _cloud: Process,
}

impl Scene {
    pub(crate) async fn start(replicas: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("repo")).unwrap();
        let kubernetes = Kubernetes::start(dir.path()).await;
        let folder = dir.path().join("sim");
        let cloud =
            Process::start(&["simcloud", "--data", folder.to_str().unwrap()], "journal").await;
        let cloud_url = cloud.told("simcloud");
        let scene = Self {
            client: kubernetes.client.clone(),
            cloud: RemoteCloud::connect(&cloud_url, PATIENCE).await.unwrap(),
            dir,
            kubernetes,
            cloud_url,
            _cloud: cloud,
        };
        scene.write("v1.33.2", replicas);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, version: &str, replicas: u32) {
        std::fs::write(self.path("repo/a.yaml"), fleet(version, Some(replicas))).unwrap();
    }

    /// An engine, which reaches the cloud at `cloud`.
    pub(crate) async fn engine(&self, name: &str, cloud: &str) -> Process {
        let (repo, data) = (self.path("repo"), self.path(name));
        let (repo, data) = (repo.to_str().unwrap(), data.to_str().unwrap());
        let kubeconfig = [
            "--kubeconfig",
            &self.kubernetes.kubeconfig,
            "--simcloud",
            cloud,
        ];
        let args = [&["up", repo, "--data", data], &kubeconfig[..]].concat();
        Process::start(&args, "try").await
    }

    /// Waits until `engine` holds the Lease.
    async fn until_led_by(&self, engine: &Process) {
        let me = engine.told("identity");
        let leases = Api::<Lease>::namespaced(self.client.clone(), NAMESPACE);
        let held = {
            let me = me.clone();
            move |lease: Option<&Lease>| {
                let holder = lease.and_then(|l| l.spec.as_ref()?.holder_identity.as_ref());
                holder == Some(&me)
            }
        };
        let wait = await_condition(leases, "fleetwright", held);
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("{me} does not lead"))
            .unwrap();
    }

    pub(crate) async fn until_at(&self, version: &str) {
        let (v, w) = (version.to_owned(), version.to_owned());
        let clusters = Api::<Cluster>::namespaced(self.client.clone(), "default");
        let pools = Api::<MachineDeployment>::namespaced(self.client.clone(), "default");
        let cluster = await_condition(clusters, "a", move |c: Option<&Cluster>| {
            c.is_some_and(|c| is_done(c, &v))
        });
        let pool = await_condition(pools, "a-web", move |p: Option<&MachineDeployment>| {
            p.is_some_and(|p| is_rolled(p, &w))
        });
        let both = async { (cluster.await.unwrap(), pool.await.unwrap()) };
        let done = tokio::time::timeout(PATIENCE, both).await;
        done.unwrap_or_else(|_| panic!("{version} was not reached"));
    }

    /// Lines of the cloud's journal, of those that `engine` caused.
    fn journal(&self, engine: Option<&str>) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("sim/journal.jsonl")).unwrap();
        let lines = text
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        let caused = |l: &Value| engine.is_none_or(|e| l["caller"] == e);
        lines.filter(caused).collect()
    }

    /// There is one instance for each Machine, and there has never been a second one.
    async fn one_instance_each(&self, machines: usize) {
        let account = Account {
            name: "sim-eu".into(),
            provider: "sim".into(),
            region: "eu".into(),
            ..Account::default()
        };
        let live = async {
            loop {
                let all = self
                    .cloud
                    .list(&account, &ListScope::Account)
                    .await
                    .unwrap();
                let going = |state| state == InstanceState::Deleting;
                if !all.iter().any(|i| going(i.state)) {
                    return all;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let live = tokio::time::timeout(PATIENCE, live).await.unwrap();
        assert_eq!(live.len(), machines, "{live:#?}");
        let mut made: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.journal(None).iter().filter(|l| l["verb"] == "create") {
            if let (Some(machine), Some(instance)) =
                (line["machine"].as_str(), line["instance"].as_str())
            {
                let of = made.entry(machine.to_owned()).or_default();
                if !of.iter().any(|i| i == instance) {
                    of.push(instance.to_owned());
                }
            }
        }
        assert!(made.values().all(|of| of.len() == 1), "{made:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_in_the_middle_of_a_rollout() {
    let scene = Scene::start(4).await;
    let first = scene.engine("first", &scene.cloud_url).await;
    scene.until_led_by(&first).await;
    let second = scene.engine("second", &scene.cloud_url).await;
    scene.until_at("v1.33.2").await;
    let (me, other) = (first.told("identity"), second.told("identity"));
    assert!(scene.journal(Some(&other)).is_empty(), "it waits");

    scene.write("v1.34.1", 4);
    let pools = Api::<MachineDeployment>::namespaced(scene.client.clone(), "default");
    let middle = await_condition(pools, "a-web", |p: Option<&MachineDeployment>| {
        let status = p.and_then(|p| p.status.as_ref());
        status.is_some_and(|s| (1..4).contains(&s.up_to_date_replicas))
    });
    tokio::time::timeout(PATIENCE, middle)
        .await
        .unwrap()
        .unwrap();
    first.kill().await;
    let killed = Instant::now();
    let before = scene.journal(Some(&me)).len();
    assert!(before > 0);
    scene.until_led_by(&second).await;
    assert!(killed.elapsed() <= TAKEOVER, "{:?}", killed.elapsed());
    scene.until_at("v1.34.1").await;
    scene.one_instance_each(5).await;
    assert_eq!(scene.journal(Some(&me)).len(), before);

    // Who ends in order gives the Lease back: the next need not wait for its end.
    let third = scene.engine("third", &scene.cloud_url).await;
    assert_eq!(second.interrupt().await, Some(0));
    let ended = Instant::now();
    scene.until_led_by(&third).await;
    assert!(
        ended.elapsed() < Duration::from_secs(5),
        "{:?}",
        ended.elapsed()
    );
    assert_eq!(third.interrupt().await, Some(0));
}

/// A way to the cloud on which one sees creates leave.
async fn observed(cloud: &str, tasks: &mut JoinSet<()>) -> (String, watch::Receiver<usize>) {
    let cloud = cloud.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (creates, seen) = watch::channel(0);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (engine, _) = listener.accept().await.unwrap();
            let (cloud, creates) = (cloud.clone(), creates.clone());
            connections.spawn(async move {
                let cloud = TcpStream::connect(cloud).await.unwrap();
                let (mut from_engine, mut to_engine) = engine.into_split();
                let (mut from_cloud, mut to_cloud) = cloud.into_split();
                let there = async move {
                    let mut bytes = vec![0; 64 << 10];
                    while let Ok(n @ 1..) = from_engine.read(&mut bytes).await {
                        if to_cloud.write_all(&bytes[..n]).await.is_err() {
                            break;
                        }
                        if bytes[..n].starts_with(b"POST /instances/create") {
                            creates.send_modify(|n| *n += 1);
                        }
                    }
                };
                let back = tokio::io::copy(&mut from_cloud, &mut to_engine);
                tokio::select! {
                    () = there => {}
                    _ = back => {}
                }
            });
        }
    });
    (url, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_stopped_inside_a_create_does_nothing_when_it_wakes() {
    let scene = Scene::start(3).await;
    let mut tasks = JoinSet::new();
    let (way, mut creates) = observed(&scene.cloud_url, &mut tasks).await;
    let first = scene.engine("first", &way).await;
    scene.until_led_by(&first).await;
    let second = scene.engine("second", &scene.cloud_url).await;
    scene.until_at("v1.33.2").await;
    let me = first.told("identity");

    // Creates take their time from here on, so that the engine is stopped inside one.
    let slow = r#"[{"millis": 2500, "verb": "create"}]"#;
    put_latencies(&scene.cloud_url, slow).await;
    let begun = *creates.borrow_and_update();
    scene.write("v1.34.1", 3);
    let next = creates.wait_for(|n| *n > begun);
    tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap();
    let settled = scene.journal(Some(&me));
    first.signal("STOP").await;
    let stopped = Instant::now();
    put_latencies(&scene.cloud_url, "[]").await;

    scene.until_led_by(&second).await;
    assert!(stopped.elapsed() <= TAKEOVER, "{:?}", stopped.elapsed());
    scene.until_at("v1.34.1").await;
    // The stop is what is tested: nothing is awaited here.
    tokio::time::sleep(Duration::from_secs(30).saturating_sub(stopped.elapsed())).await;
    let asleep = scene.journal(Some(&me));
    let landed = &asleep[settled.len()..];
    assert!(
        landed
            .iter()
            .any(|l| l["verb"] == "create" && l["outcome"] == "ok"),
        "it was stopped inside a create: {landed:#?}"
    );
    let sent = *creates.borrow();

    first.signal("CONT").await;
    // 75: nothing is wrong, and a new start is due.
    assert_eq!(first.end().await, Some(75));
    assert_eq!(
        scene.journal(Some(&me)),
        asleep,
        "no call after its deadline"
    );
    assert_eq!(*creates.borrow(), sent);
    scene.until_at("v1.34.1").await;
    scene.one_instance_each(4).await;
    assert_eq!(second.interrupt().await, Some(0));
}

async fn put_latencies(cloud: &str, list: &str) {
    let (status, body) = send("PUT", &format!("{cloud}/latencies"), &[], list).await;
    assert!(status.contains(" 200"), "{status} {body}");
}
