//! The simulated clusters: which serve, what they are to run, which instances are their nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleetwright_apiserver::Options;
use fleetwright_providers::ProviderError;
use fleetwright_store::{Op, Store, Value as Bytes};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    cloud::{Cloud, CloudError, CloudOptions, cannot_store},
    cluster::{Error, SimCluster, chain, removal},
    config,
    instance::SimInstance,
    node, pods,
    workloads::Workload,
};

/// Where the store has what a cluster's `providerConfig` declares.
const DECLARED: &str = "w/";

/// All simulated clusters, by key.
pub(crate) struct Clusters {
    store: Store,
    options: Options,
    open: Mutex<BTreeMap<String, Arc<SimCluster>>>,
    declared: Mutex<BTreeMap<String, Arc<Vec<Workload>>>>,
    /// Held while a cluster is opened, declared or torn down.
    changing: tokio::sync::Mutex<()>,
}

impl Clusters {
    /// The clusters in the cloud's store; none of them serves before [`Clusters::reload`].
    pub(crate) fn new(options: &CloudOptions, store: Store) -> Result<Self, CloudError> {
        let mut declared = BTreeMap::new();
        for entry in store.range(DECLARED, None, 0).0 {
            let stored = |source| CloudError::Stored {
                key: entry.key.to_string(),
                source,
            };
            let config: Value = serde_json::from_slice(&entry.value.bytes()).map_err(stored)?;
            let key = entry.key.trim_start_matches(DECLARED).to_owned();
            match config::workloads(Some(&config)) {
                Ok(workloads) => {
                    declared.insert(key, Arc::new(workloads));
                }
                // An earlier release allowed it; what is there stays until somebody declares it anew.
                Err(error) => {
                    tracing::warn!(cluster = %key, %error, "declared workloads cannot be kept");
                }
            }
        }
        Ok(Self {
            store,
            options: Options::new(Arc::clone(&options.clock), Arc::clone(&options.random)),
            open: Mutex::default(),
            declared: Mutex::new(declared),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// A cluster that serves.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<SimCluster>> {
        self.open.lock().get(key).cloned()
    }

    /// Keys of those that serve and of those that something is declared for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> {
        let open: Vec<_> = self.open.lock().keys().cloned().collect();
        let declared: Vec<_> = self.declared.lock().keys().cloned().collect();
        open.into_iter().chain(declared)
    }

    /// Whether there are pods to keep.
    pub(crate) fn has_workloads(&self, key: &str) -> bool {
        self.declared.lock().get(key).is_some_and(|w| !w.is_empty())
    }

    /// Opens the clusters that served; gives the keys of all that the store knows.
    pub(crate) async fn reload(&self) -> BTreeSet<String> {
        let mut keys: BTreeSet<String> = self.declared.lock().keys().cloned().collect();
        for entry in self.store.range("c/", None, 0).0 {
            let Some(key) = entry.key.strip_prefix("c/").filter(|k| !k.contains('/')) else {
                continue;
            };
            if let Err(error) = self.open(key).await {
                let error = chain(&error);
                tracing::error!(cluster = %key, %error, "a simulated cluster cannot be opened again");
            }
            keys.insert(key.to_owned());
        }
        keys
    }

    async fn open(&self, key: &str) -> Result<(), Error> {
        let _one = self.changing.lock().await;
        if self.get(key).is_some() {
            return Ok(());
        }
        let cluster = SimCluster::open(key, self.store.clone(), self.options.clone()).await?;
        self.open.lock().insert(key.to_owned(), Arc::new(cluster));
        Ok(())
    }

    /// Takes over what the cluster's `providerConfig` declares; gives whether that is something new.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing changes.
    pub(crate) async fn declare(
        &self,
        key: &str,
        cluster_config: Option<&Value>,
        workloads: Vec<Workload>,
    ) -> Result<bool, ProviderError> {
        let _one = self.changing.lock().await;
        let before = self.declared.lock().get(key).cloned();
        if before.as_deref().map_or(&[][..], Vec::as_slice) == workloads {
            return Ok(false);
        }
        let stored = format!("{DECLARED}{key}");
        let op = match cluster_config {
            Some(config) => Op::Put {
                key: stored,
                value: Bytes::plain(config.to_string()),
                expect: None,
            },
            None => removed(stored),
        };
        self.store
            .commit(vec![op])
            .await
            .map_err(|e| cannot_store(&e))?;
        // An empty declaration stays in memory, so that what was declared before is taken away.
        let mut declared = self.declared.lock();
        declared.insert(key.to_owned(), Arc::new(workloads));
        Ok(true)
    }

    /// The last instance of a cluster is gone, and with it all that was on its machines.
    ///
    /// # Errors
    /// When the file cannot be written; then it is to be tried again.
    pub(crate) async fn tear_down(&self, cloud: &Cloud, key: &str) -> Result<(), ProviderError> {
        let _one = self.changing.lock().await;
        if cloud.has_instances(key) {
            return Ok(());
        }
        if let Some(cluster) = self.get(key) {
            cluster.end().await;
        }
        let mut ops = removal(key, &self.store);
        ops.push(removed(format!("{DECLARED}{key}")));
        let done = self.store.commit(ops).await;
        // Forgotten last: whoever no longer finds it here finds nothing of it in the file either. One that could not be
        // removed is opened again when an instance comes.
        self.open.lock().remove(key);
        done.map_err(|e| cannot_store(&e))?;
        self.declared.lock().remove(key);
        Ok(())
    }

    /// A booted instance's kubelet registers its node.
    pub(crate) async fn register(
        &self,
        cloud: &Cloud,
        instance: &SimInstance,
    ) -> Result<(), Error> {
        let owner = &instance.order.owner;
        if instance.order.control_plane {
            self.open(&owner.cluster_key).await?;
        } else if self.get(&owner.cluster_key).is_none() {
            return Err(Error::NoControlPlane);
        }
        let nodes = Api::<Node>::all(cloud.cluster_client(&owner.cluster_key));
        let (node, status) = node::node_of(instance, cloud.now());
        let node = serde_json::from_value(node)?;
        let made = nodes.create(&PostParams::default(), &node).await;
        pods::unless(409, made.map(drop))?;
        let status = Patch::Merge(json!({"status": status}));
        let node = nodes
            .patch_status(&owner.machine, &PatchParams::default(), &status)
            .await?;
        // The cluster's node controller sees that the node is ready.
        let mut taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let before = taints.len();
        taints.retain(|taint| taint.key != NOT_READY);
        if taints.len() < before {
            let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
            nodes
                .patch(&owner.machine, &PatchParams::default(), &patch)
                .await?;
        }
        Ok(())
    }

    /// An instance is gone: so are the pods that ran on it. Its Node object stays, as it does in clouds, and nobody
    /// hears of its kubelet any more.
    pub(crate) async fn leave(&self, cloud: &Cloud, instance: &SimInstance) -> Result<(), Error> {
        let owner = &instance.order.owner;
        if self.get(&owner.cluster_key).is_none() {
            return Ok(());
        }
        let client = cloud.cluster_client(&owner.cluster_key);
        let silent = Patch::Strategic(node::silent(cloud.now()));
        let heard = Api::<Node>::all(client.clone())
            .patch_status(&owner.machine, &PatchParams::default(), &silent)
            .await;
        pods::unless(404, heard.map(drop))?;
        let on_node = ListParams::default().fields(&format!("spec.nodeName={}", owner.machine));
        for pod in Api::<Pod>::all(client.clone()).list(&on_node).await? {
            let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            let at_once = DeleteParams::default().grace_period(0);
            let gone = api.delete(&pod.name_any(), &at_once).await;
            pods::unless(404, gone.map(drop))?;
        }
        Ok(())
    }

    /// Keeps a cluster's pods; gives when to look again although nothing changed.
    pub(crate) async fn keep_pods(
        &self,
        cloud: &Cloud,
        key: &str,
    ) -> Result<Option<jiff::Timestamp>, Error> {
        let wanted = self.declared.lock().get(key).cloned();
        if self.get(key).is_none() {
            return Ok(None);
        }
        let wanted = wanted.unwrap_or_default();
        let client = cloud.cluster_client(key);
        pods::keep(&client, &wanted, cloud.now(), self.options.random.as_ref()).await
    }
}

fn removed(key: String) -> Op {
    Op::Delete {
        key,
        expect: None,
        last: None,
    }
}

/// The taint that the API server gives new nodes.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
