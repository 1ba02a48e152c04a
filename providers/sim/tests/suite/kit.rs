//! A cloud on a folder of its own, with what runs it.

use std::{path::Path, sync::Arc, time::Duration};

use fleetwright_api::{random::SeededRandom, time::SystemClock};
use fleetwright_provider_sim::{
    Cloud, CloudOptions, Entry, Fault, FaultEffect, RemoteCloud, config, serve,
};
use fleetwright_providers::{
    Account, ClusterConnections, ClusterRef, CreateInstance, Instance, Ownership, Provider,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Kit {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cloud: Cloud,
    pub(crate) remote: RemoteCloud,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Kit {
    pub(crate) async fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn on(dir: tempfile::TempDir) -> Self {
        let cloud = Cloud::open(CloudOptions {
            dir: dir.path().to_owned(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SeededRandom::new(1)),
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let (running, token) = (cloud.clone(), stop.clone());
        tasks.spawn(async move { running.run(token).await });
        let (served, token) = (cloud.clone(), stop.clone());
        tasks.spawn(async move { serve(served, listener, token).await.unwrap() });
        let remote = RemoteCloud::connect(&url, PATIENCE).await.unwrap();
        Self {
            dir,
            cloud,
            remote,
            tasks,
            stop,
        }
    }

    /// Ends the cloud and opens it again on the same folder.
    pub(crate) async fn restart(self) -> Self {
        Self::on(self.stop().await).await
    }

    /// Ends the cloud; gives its folder.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let Self {
            dir, cloud, remote, ..
        } = self;
        drop((cloud, remote));
        dir
    }

    pub(crate) async fn create(&self, order: &CreateInstance) -> Instance {
        self.remote.create(&account(), order).await.unwrap()
    }

    /// A client of the cluster's API over HTTP, once it serves.
    pub(crate) async fn client(&self, key: &str) -> Client {
        let cluster = cluster_ref(key);
        until("the cluster serves", async || {
            self.remote.client(&cluster).await.ok()
        })
        .await
    }

    pub(crate) fn fault(&self, effect: FaultEffect, verb: &str, machine: &str) {
        self.cloud.add_fault(Fault {
            id: 0,
            effect,
            verb: Some(verb.into()),
            account: None,
            region: None,
            machine: Some(machine.into()),
            count: 1,
            fired: 0,
        });
    }

    pub(crate) fn journal(&self) -> Vec<Entry> {
        journal_text(self.dir.path())
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

pub(crate) fn journal_text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("journal.jsonl")).unwrap()
}

pub(crate) fn cluster_ref(key: &str) -> ClusterRef {
    ClusterRef {
        namespace: "default".into(),
        name: "eu".into(),
        key: key.into(),
        ..ClusterRef::default()
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

pub(crate) fn cluster_config(workloads: Value) -> Value {
    json!({
        "apiVersion": config::API_VERSION, "kind": config::CLUSTER_CONFIG, "account": "sim-eu", "workloads": workloads,
    })
}

/// Looks until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"))
}

pub(crate) fn account() -> Account {
    Account {
        name: "sim-eu".into(),
        provider: "sim".into(),
        region: "eu".into(),
        ..Account::default()
    }
}

pub(crate) fn machine_config(boot_seconds: f64) -> Value {
    json!({
        "apiVersion": config::API_VERSION, "kind": config::MACHINE_CONFIG, "account": "sim-eu",
        "instanceType": "sim.medium", "bootSeconds": boot_seconds, "tags": {"team": "a"},
    })
}

/// An order whose instance key is made from the name of the machine.
pub(crate) fn order(cluster: &str, machine: &str, control_plane: bool) -> CreateInstance {
    CreateInstance {
        owner: Ownership {
            installation: "test".into(),
            cluster_key: cluster.into(),
            cluster: "default/eu".into(),
            pool: if control_plane { "" } else { "web" }.into(),
            set: if control_plane { "" } else { "web-1" }.into(),
            machine: machine.into(),
            instance_key: format!("key-of-{machine}"),
        },
        control_plane,
        version: "v1.36.2".into(),
        config: machine_config(0.0),
        ..CreateInstance::default()
    }
}
