//! The simulated clusters: an API each, the nodes of the instances in it, and pods kept on the nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use fleetwright_api::{random::Random, time::Clock};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_store::Store;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cloud::{Cloud, CloudOptions, Due},
    instance::SimInstance,
    provider::stamp,
};

/// Label of the pods of a workload.
const APP: &str = "app";

/// Why a simulated cluster did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its API refused.
    #[error("the simulated cluster's API refused")]
    Api(#[from] kube::Error),
    /// Its API cannot start.
    #[error("the simulated cluster's API cannot start: {0}")]
    Start(String),
    /// No control plane serves.
    #[error("no control plane of the cluster serves yet")]
    NoControlPlane,
    /// A document of ours is wrong.
    #[error("cannot build an object")]
    Build(#[from] serde_json::Error),
}

/// Pods that a cluster keeps.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workload {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    replicas: usize,
    #[serde(default)]
    min_available: Option<usize>,
    #[serde(default = "one")]
    termination_seconds: f64,
}

fn default_namespace() -> String {
    "default".into()
}

const fn one() -> f64 {
    1.0
}

struct SimCluster {
    server: ApiServer,
    workloads: Vec<Workload>,
}

/// All simulated clusters, by key.
pub(crate) struct Clusters {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    open: Mutex<BTreeMap<String, SimCluster>>,
}

impl Clusters {
    pub(crate) fn new(options: &CloudOptions) -> Self {
        Self {
            dir: options.dir.join("clusters"),
            clock: Arc::clone(&options.clock),
            random: Arc::clone(&options.random),
            open: Mutex::default(),
        }
    }

    pub(crate) fn client(&self, key: &str) -> Option<Client> {
        self.server(key).map(|s| s.client("default"))
    }

    /// The API of a cluster that serves.
    pub(crate) fn server(&self, key: &str) -> Option<ApiServer> {
        self.open.lock().get(key).map(|c| c.server.clone())
    }

    pub(crate) fn has_pods(&self, key: &str) -> bool {
        self.open
            .lock()
            .get(key)
            .is_some_and(|c| !c.workloads.is_empty())
    }

    /// Opens the APIs of clusters whose control planes run; gives their keys.
    pub(crate) async fn reload(&self, cloud: &Cloud) -> Vec<String> {
        let running: Vec<_> = {
            let state = cloud.0.state.lock();
            let booted =
                |i: &&SimInstance| i.state != fleetwright_providers::InstanceState::Pending;
            state
                .instances
                .values()
                .filter(|i| i.order.control_plane)
                .filter(booted)
                .cloned()
                .collect()
        };
        let mut keys = BTreeSet::new();
        for instance in running {
            match self.open(&instance) {
                Ok(()) => {
                    keys.insert(instance.order.owner.cluster_key.clone());
                }
                Err(error) => tracing::error!(%error, "a simulated cluster cannot be opened again"),
            }
        }
        keys.into_iter().collect()
    }

    fn open(&self, instance: &SimInstance) -> Result<(), Error> {
        let key = &instance.order.owner.cluster_key;
        let mut open = self.open.lock();
        let workloads = instance
            .order
            .cluster_config
            .as_ref()
            .and_then(|c| c.get("workloads"))
            .map(|w| serde_json::from_value(w.clone()))
            .transpose()?
            .unwrap_or_default();
        if let Some(cluster) = open.get_mut(key) {
            cluster.workloads = workloads;
            return Ok(());
        }
        std::fs::create_dir_all(&self.dir).map_err(|e| Error::Start(e.to_string()))?;
        let store = Store::open(self.dir.join(format!("{key}.db")))
            .map_err(|e| Error::Start(e.to_string()))?;
        let options = Options::new(Arc::clone(&self.clock), Arc::clone(&self.random));
        let server = ApiServer::new(store, options).map_err(|e| Error::Start(e.to_string()))?;
        open.insert(key.clone(), SimCluster { server, workloads });
        Ok(())
    }

    /// A booted instance's kubelet registers its node.
    pub(crate) async fn register(
        &self,
        cloud: &Cloud,
        instance: &SimInstance,
    ) -> Result<(), Error> {
        let key = &instance.order.owner.cluster_key;
        if instance.order.control_plane {
            self.open(instance)?;
        }
        let client = self.client(key).ok_or(Error::NoControlPlane)?;
        let nodes = Api::<Node>::all(client);
        let (node, status) = node_of(instance, self.clock.now());
        let name = instance.order.owner.machine.clone();
        match nodes
            .create(&PostParams::default(), &serde_json::from_value(node)?)
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
        let node = nodes
            .patch_status(
                &name,
                &PatchParams::default(),
                &Patch::Merge(json!({"status": status})),
            )
            .await?;
        // The cluster's node controller sees that the node is ready.
        let mut taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let before = taints.len();
        taints.retain(|taint| taint.key != NOT_READY);
        if taints.len() < before {
            let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
            nodes.patch(&name, &PatchParams::default(), &patch).await?;
        }
        if self.has_pods(key) {
            cloud.schedule(self.clock.now(), Due::Pods(key.clone()));
        }
        Ok(())
    }

    /// An instance is gone: so are the pods that ran on it. Its Node object stays, as it does in clouds.
    pub(crate) async fn leave(&self, instance: &SimInstance) {
        let Some(client) = self.client(&instance.order.owner.cluster_key) else {
            return;
        };
        let on_node = ListParams::default()
            .fields(&format!("spec.nodeName={}", instance.order.owner.machine));
        let Ok(pods) = Api::<Pod>::all(client.clone()).list(&on_node).await else {
            return;
        };
        for pod in pods {
            let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                .await
                .ok();
        }
    }

    /// Keeps each workload's pods: makes missing ones on nodes that take them, lets new ones become ready,
    /// and ends those whose time is over.
    pub(crate) async fn keep_pods(&self, key: &str, now: Timestamp) -> Result<(), Error> {
        let Some((client, workloads)) = self
            .open
            .lock()
            .get(key)
            .map(|c| (c.server.client("default"), c.workloads.clone()))
        else {
            return Ok(());
        };
        if workloads.is_empty() {
            return Ok(());
        }
        let nodes = Api::<Node>::all(client.clone())
            .list(&ListParams::default())
            .await?
            .items;
        let free: Vec<String> = nodes
            .iter()
            .filter(|n| takes_pods(n))
            .map(ResourceExt::name_any)
            .collect();
        for workload in &workloads {
            keep(&client, workload, &free, now, self.random.as_ref()).await?;
        }
        Ok(())
    }
}

fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let shut = spec
        .taints
        .unwrap_or_default()
        .iter()
        .any(|t| t.effect != "PreferNoSchedule");
    node.metadata.deletion_timestamp.is_none() && spec.unschedulable != Some(true) && !shut
}

async fn keep(
    client: &Client,
    workload: &Workload,
    free: &[String],
    now: Timestamp,
    random: &dyn Random,
) -> Result<(), Error> {
    let pods_api = Api::<Pod>::namespaced(client.clone(), &workload.namespace);
    let ours = ListParams::default().labels(&format!("{APP}={}", workload.name));
    let pods = match pods_api.list(&ours).await {
        Ok(list) => list.items,
        Err(error) => return Err(error.into()),
    };
    let mut load: BTreeMap<&str, usize> = free.iter().map(|n| (n.as_str(), 0)).collect();
    let mut alive = 0;
    for pod in &pods {
        let name = pod.name_any();
        if let Some(ends) = &pod.metadata.deletion_timestamp {
            let over = now.duration_since(ends.0).as_secs_f64() >= 0.0
                || workload.termination_seconds <= 0.0;
            if over {
                pods_api
                    .delete(&name, &DeleteParams::default().grace_period(0))
                    .await
                    .ok();
            }
            continue;
        }
        alive += 1;
        if let Some(count) = pod
            .spec
            .as_ref()
            .and_then(|s| s.node_name.as_deref())
            .and_then(|n| load.get_mut(n))
        {
            *count += 1;
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase != Some("Running") {
            let status = json!({"status": {
                "phase": "Running",
                "startTime": stamp(now),
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": stamp(now)}],
            }});
            pods_api
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
                .await?;
        }
    }
    for _ in alive..workload.replicas {
        let Some(node) = load
            .iter()
            .min_by_key(|(_, count)| **count)
            .map(|(n, _)| (*n).to_owned())
        else {
            break;
        };
        *load
            .entry(free.iter().find(|n| **n == node).map_or("", String::as_str))
            .or_default() += 1;
        ensure_namespace_and_budget(client, workload).await?;
        let suffix: String = random.key128().chars().take(5).collect();
        // Without an owner: there is no object for the workload, and pods of an owner that is not there are
        // collected.
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{}-{suffix}", workload.name),
                "namespace": workload.namespace,
                "labels": {APP: workload.name},
            },
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": workload.termination_seconds.ceil() as i64,
                "containers": [{"name": "main", "image": "sim/app"}],
            },
        });
        pods_api
            .create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
    }
    Ok(())
}

async fn ensure_namespace_and_budget(client: &Client, workload: &Workload) -> Result<(), Error> {
    let exists = |r: Result<(), kube::Error>| match r {
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(()),
        other => other,
    };
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": workload.namespace}}))?;
    exists(
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .map(|_: Namespace| ()),
    )?;
    if let Some(min) = workload.min_available {
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"name": workload.name, "namespace": workload.namespace},
            "spec": {"minAvailable": min, "selector": {"matchLabels": {APP: workload.name}}},
        }))?;
        let api = Api::<PodDisruptionBudget>::namespaced(client.clone(), &workload.namespace);
        exists(
            api.create(&PostParams::default(), &budget)
                .await
                .map(|_| ()),
        )?;
    }
    Ok(())
}

/// The taint that the API server gives new nodes.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The Node that an instance registers, and its status.
fn node_of(instance: &SimInstance, now: Timestamp) -> (Value, Value) {
    let order = &instance.order;
    let shown = instance.show();
    let mut labels = order.labels.clone();
    labels.insert("kubernetes.io/hostname".into(), order.owner.machine.clone());
    labels.insert(
        "node.kubernetes.io/instance-type".into(),
        shown.instance_type,
    );
    labels.insert(
        "topology.kubernetes.io/region".into(),
        instance.region.clone(),
    );
    labels.insert(
        "topology.kubernetes.io/zone".into(),
        shown.failure_domain.unwrap_or_default(),
    );
    let mut taints: Vec<_> = order
        .taints
        .iter()
        .map(|t| json!({"key": t.key, "value": t.value, "effect": t.effect.as_str()}))
        .collect();
    if order.control_plane {
        labels.insert(
            "node-role.kubernetes.io/control-plane".into(),
            String::new(),
        );
        taints
            .push(json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}));
    }
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": order.owner.machine, "labels": labels},
        "spec": {"providerID": instance.provider_id(), "taints": taints},
    });
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Simulated", "message": "",
            "lastHeartbeatTime": stamp(now), "lastTransitionTime": stamp(now),
        })
    };
    let status = json!({
        "nodeInfo": {
            "kubeletVersion": order.version, "kubeProxyVersion": order.version, "osImage": instance.image(),
            "architecture": "amd64", "operatingSystem": "linux", "bootID": instance.id, "machineID": instance.id,
            "systemUUID": instance.id, "containerRuntimeVersion": "containerd://2.1.0", "kernelVersion": "6.12.0",
        },
        "addresses": [{"type": "InternalIP", "address": instance.address()}],
        "conditions": [
            condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False"),
        ],
    });
    (node, status)
}
