//! The controllers against a real API server and the simulated cloud, all in this process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, ProviderAccount, crds,
    provider_account::ProviderAccountSpec, random::SeededRandom, time::SystemClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_controllers::{Context, Controllers, Metrics};
use fleetwright_core::status;
use fleetwright_provider_sim::{Cloud, CloudOptions};
use fleetwright_providers::{Provider, Registry};
use fleetwright_store::Store;
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct Kit {
    client: Client,
    cloud: Cloud,
    context: Context,
    dir: tempfile::TempDir,
    tasks: JoinSet<()>,
    token: CancellationToken,
}

impl Kit {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let random = Arc::new(SeededRandom::new(1));
        let server =
            ApiServer::new(Store::memory(), Options::new(clock.clone(), random.clone())).unwrap();
        let ours: Vec<Value> = crds::all()
            .iter()
            .map(|c| serde_json::to_value(c).unwrap())
            .collect();
        server.install_crds(&ours).await.unwrap();
        let client = server.client("default");
        let account = ProviderAccount::new(
            "sim-eu",
            ProviderAccountSpec {
                provider: "sim".into(),
                region: Some("eu".into()),
                ..Default::default()
            },
        );
        Api::<ProviderAccount>::all(client.clone())
            .create(&PostParams::default(), &account)
            .await
            .unwrap();
        let cloud = Cloud::open(CloudOptions {
            dir: dir.path().to_owned(),
            clock: clock.clone(),
            random: random.clone(),
        })
        .unwrap();
        let context = Context {
            client: client.clone(),
            providers: Registry::new([Arc::new(cloud.clone()) as Arc<dyn Provider>]),
            connections: Arc::new(cloud.clone()),
            clock,
            random,
            installation: "test".into(),
            metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        };
        let mut kit = Self {
            client,
            cloud,
            context,
            dir,
            tasks: JoinSet::new(),
            token: CancellationToken::new(),
        };
        let (cloud, token) = (kit.cloud.clone(), kit.token.clone());
        kit.tasks.spawn(async move { cloud.run(token).await });
        kit.start_controllers();
        kit
    }

    fn start_controllers(&mut self) {
        self.tasks
            .spawn(Controllers::new(self.context.clone()).run(self.token.clone()));
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create(&self, version: &str, replicas: i32) {
        let cluster: Cluster = serde_json::from_value(json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "eu"},
            "spec": {"version": version, "controlPlane": {"machines": {"template": {"spec": {"providerConfig": config("sim.small")}}}}},
        }))
        .unwrap();
        self.api()
            .create(&PostParams::default(), &cluster)
            .await
            .unwrap();
        let pool: MachineDeployment = serde_json::from_value(json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment", "metadata": {"name": "eu-web"},
            "spec": {"clusterName": "eu", "replicas": replicas, "template": {"spec": {"providerConfig": config("sim.small")}}},
        }))
        .unwrap();
        self.api()
            .create(&PostParams::default(), &pool)
            .await
            .unwrap();
    }

    /// Waits until `done` says so of the machines, looking at each change of one.
    async fn until(
        &self,
        what: &str,
        done: impl Fn(&[Machine], &Cluster, &MachineDeployment) -> bool,
    ) -> Vec<Machine> {
        let wait = async {
            let mut machines =
                watcher::watcher(self.api::<Machine>(), watcher::Config::default()).boxed();
            let mut pools =
                watcher::watcher(self.api::<MachineDeployment>(), watcher::Config::default())
                    .boxed();
            let mut clusters =
                watcher::watcher(self.api::<Cluster>(), watcher::Config::default()).boxed();
            loop {
                tokio::select! {
                    _ = machines.next() => {}
                    _ = pools.next() => {}
                    _ = clusters.next() => {}
                }
                let cluster = self.api::<Cluster>().get("eu").await.unwrap();
                let pool = self.api::<MachineDeployment>().get("eu-web").await.unwrap();
                // Last: what a status says must hold of machines seen after it.
                let list = self.machines().await;
                if done(&list, &cluster, &pool) {
                    return list;
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), wait).await {
            Ok(list) => list,
            Err(_) => {
                for m in self.machines().await {
                    println!("{} {:?}", m.name_any(), serde_json::to_string(&m.status));
                }
                let cluster = self.api::<Cluster>().get("eu").await.unwrap();
                println!("{}", serde_json::to_string(&cluster.status).unwrap());
                let pool = self.api::<MachineDeployment>().get("eu-web").await.unwrap();
                println!("{}", serde_json::to_string(&pool.status).unwrap());
                panic!("not within a minute: {what}");
            }
        }
    }

    async fn machines(&self) -> Vec<Machine> {
        self.api::<Machine>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    }

    async fn settled(&self, workers: i32) -> Vec<Machine> {
        self.until("available", move |machines, cluster, pool| {
            // What a reader is told is enough; what follows holds at that very moment.
            if pool.spec.replicas != Some(workers)
                || !status::has_converged(cluster, std::slice::from_ref(pool))
            {
                return false;
            }
            let version = Some(&cluster.spec.version);
            assert_eq!(
                cluster.status.as_ref().and_then(|s| s.version.as_ref()),
                version
            );
            let old: Vec<_> = machines
                .iter()
                .filter(|m| m.spec.content.version.as_ref() != version)
                .map(|m| m.name_any())
                .collect();
            assert!(old.is_empty(), "settled with machines of before: {old:?}");
            assert_eq!(machines.len(), usize::try_from(workers).unwrap() + 1);
            true
        })
        .await
    }

    /// The journal's creates and deletes, in order.
    fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap();
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    async fn stop(mut self) {
        self.token.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

fn config(kind: &str) -> Value {
    json!({
        "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimMachineConfig",
        "account": "sim-eu", "instanceType": kind, "bootSeconds": 0.2,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_to_available_then_upgraded_scaled_and_rolled() {
    let kit = Kit::start().await;
    kit.create("v1.33.2", 2).await;
    let first = kit.settled(2).await;
    assert!(
        first
            .iter()
            .all(|m| m.spec.content.version.as_deref() == Some("v1.33.2"))
    );

    // An upgrade replaces the control plane first, then the pool.
    let patch = Patch::Merge(json!({"spec": {"version": "v1.34.1"}}));
    kit.api::<Cluster>()
        .patch("eu", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let upgraded = kit.settled(2).await;
    assert!(
        upgraded
            .iter()
            .all(|m| m.spec.content.version.as_deref() == Some("v1.34.1"))
    );
    assert!(
        upgraded
            .iter()
            .all(|m| !first.iter().any(|f| f.name_any() == m.name_any()))
    );

    // A scale-up makes one machine and touches no other.
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    kit.api::<MachineDeployment>()
        .patch("eu-web", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let scaled = kit.settled(3).await;
    assert!(
        upgraded
            .iter()
            .all(|m| scaled.iter().any(|s| s.name_any() == m.name_any()))
    );

    // Every Machine has had exactly one instance, whatever happened.
    let mut instances: BTreeMap<String, std::collections::BTreeSet<String>> = BTreeMap::new();
    for entry in kit.journal().iter().filter(|e| e["verb"] == "create") {
        if let Some(id) = entry["instance"].as_str() {
            instances
                .entry(entry["machine"].to_string())
                .or_default()
                .insert(id.to_owned());
        }
    }
    assert!(
        instances.values().all(|ids| ids.len() == 1),
        "{instances:?}"
    );
    kit.stop().await;
}
