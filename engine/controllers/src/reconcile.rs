//! The reconcilers, and what they share.

mod check;
mod cluster;
mod control_plane;
mod group;
mod machine;
mod managed;
mod manifests;
mod pool;
mod provider;
mod rebuild;
mod set;

pub(crate) use self::{
    cluster::store_kubeconfig,
    machine::{account_provider, called},
    managed::Tokens,
    manifests::Manifests,
};

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineHealthCheck, MachineSet, ProviderAccount,
    cluster::ControlPlane, machine::MachineTemplateSpec, meta, names,
};
use fleetwright_core::{catalogue::Catalogue, machine_set::MachineUpdate, outcome::Outcome};
use fleetwright_providers::{
    ClusterRef, ProviderError,
    managed::{ManagedControlPlaneState, PoolState},
};
use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    bootstrap::{Approvals, Grounds},
    budgets::Budgets,
    cache::{Cached, Caches, Mark, name_of},
    certificates::Certificates,
    context::Context,
    credentials::Known,
    drift::Drifts,
    etcd::Etcds,
    images::Images,
    inventory::Inventory,
    nodes::{NodeView, Nodes},
    provided::Looks,
    queue::{Key, Queue},
    refusals::Refusals,
    rooms::Rooms,
    run::Follow,
    snapshots::Snapshots,
    storms::Storms,
    together::Together,
    write::merge_diff,
};

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API refused or did not answer.
    #[error("the API request failed")]
    Api(#[source] Box<kube::Error>),
    /// A workload cluster did not do what was asked.
    #[error("the workload cluster's API request failed")]
    Workload(#[source] Box<kube::Error>),
    /// The provider did not do what was asked.
    #[error("the provider call failed")]
    Provider(#[from] ProviderError),
    /// A value of ours cannot be written as JSON.
    #[error("cannot encode")]
    Encode(#[source] serde_json::Error),
    /// The object says something that cannot be done.
    #[error("{0}")]
    Invalid(String),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl Error {
    /// Whether somebody else wrote in between: the next event brings us back with fresh eyes.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) | Self::Workload(error) if matches!(error.as_ref(), kube::Error::Api(s) if s.code == 409))
    }

    /// Whether the API itself said no: the request had no effect.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Api(error) if matches!(error.as_ref(), kube::Error::Api(s) if s.code < 500))
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) | Self::Workload(error) if matches!(error.as_ref(), kube::Error::Api(s) if s.code == 404))
    }

    /// The provider's own error.
    pub(crate) fn of_provider(&self) -> Option<&ProviderError> {
        match self {
            Self::Provider(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provider(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// What all reconciles share.
pub(crate) struct Shared {
    pub(crate) context: Context,
    pub(crate) catalogue: Catalogue,
    pub(crate) caches: Caches,
    pub(crate) queue: Queue,
    pub(crate) nodes: Nodes,
    pub(crate) inventory: Inventory,
    pub(crate) credentials: Known,
    pub(crate) grounds: Grounds,
    pub(crate) approvals: Approvals,
    pub(crate) refusals: Refusals,
    pub(crate) budgets: Budgets,
    pub(crate) storms: Storms,
    pub(crate) rooms: Rooms,
    pub(crate) etcds: Etcds,
    pub(crate) certificates: Certificates,
    pub(crate) snapshots: Snapshots,
    pub(crate) manifests: Manifests,
    pub(crate) images: Images,
    pub(crate) drifts: Drifts,
    /// Control planes that providers run, their kubeconfigs, and groups of nodes.
    pub(crate) control_planes: Looks<ManagedControlPlaneState>,
    pub(crate) tokens: Tokens,
    pub(crate) groups: Looks<PoolState>,
    pub(crate) together: Together,
    /// Keys of the labels by which nodes of groups are told from others.
    pub(crate) group_labels: Vec<String>,
    /// Machines and sets that may have been written though no answer came.
    pub(crate) doubtful: parking_lot::Mutex<std::collections::BTreeSet<Key>>,
    /// Wakes who waits for complete caches.
    pub(crate) synced_wake: tokio::sync::Notify,
    /// Clusters whose nodes are to be followed.
    pub(crate) follow: UnboundedSender<Follow>,
    /// Why machines go that were deleted by a decision of ours, by namespace and name: each machine's own status keeps it from its
    /// next write on, so that knowing it costs none.
    pub(crate) goes: Mutex<BTreeMap<(String, String), String>>,
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// Whether a Cluster is paused: then so is all that belongs to it.
    pub(crate) fn cluster_is_paused(&self, namespace: &str, name: &str) -> bool {
        let cluster = self.caches.get::<Cluster>(namespace, name);
        cluster.is_some_and(|c| meta::is_paused(c.as_ref()))
    }

    /// A cluster with what is known of the way to it now.
    pub(crate) fn cluster_ref(&self, namespace: &str, name: &str) -> ClusterRef {
        let cluster = self.caches.get::<Cluster>(namespace, name);
        let form = cluster.as_ref().map(|c| &c.spec.control_plane);
        let account = form.and_then(ControlPlane::account);
        let account = account.and_then(|name| self.caches.get::<ProviderAccount>("", name));
        let external = form.and_then(|form| form.external.as_ref());
        ClusterRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: names::cluster_key(&self.context.installation, namespace, name),
            provider: account.map(|account| account.spec.provider.clone()),
            kubeconfig: match external {
                Some(external) => external.kubeconfig_secret_ref.name.clone(),
                None => names::kubeconfig_secret(name),
            },
        }
    }

    /// Wakes every machine of a cluster.
    pub(crate) fn wake_machines_of(&self, namespace: &str, cluster: &str) {
        for machine in self.caches.of_cluster::<Machine>(namespace, cluster) {
            self.queue
                .add(Key::Machine(namespace.to_owned(), machine.name_any()));
        }
    }

    /// Wakes every set of a cluster.
    pub(crate) fn wake_sets_of(&self, namespace: &str, cluster: &str) {
        for set in self.caches.of_cluster::<MachineSet>(namespace, cluster) {
            self.queue
                .add(Key::Set(namespace.to_owned(), set.name_any()));
        }
    }

    /// The Cluster, where its control plane is somebody else's.
    pub(crate) fn external(&self, namespace: &str, name: &str) -> Option<Arc<Cluster>> {
        let cluster = self.caches.get::<Cluster>(namespace, name)?;
        let external = cluster.spec.control_plane.external.is_some();
        external.then_some(cluster)
    }

    /// Wakes the machine of a node: the one with its providerID, or the one that was given this node. Whether there is one.
    pub(crate) fn wake_machine_of_node(&self, cluster: &ClusterRef, id: &str, node: &str) -> bool {
        let mut found = false;
        let (namespace, name) = (cluster.namespace.clone(), cluster.name.clone());
        let by_id = Mark::ProviderId(namespace.clone(), name.clone(), id.to_owned());
        let by_name = Mark::Node(namespace, name, node.to_owned());
        for machine in [by_id, by_name]
            .iter()
            .flat_map(|mark| self.caches.marked::<Machine>(mark))
        {
            let key = Key::Machine(cluster.namespace.clone(), machine.name_any());
            self.queue.add(key);
            found = true;
        }
        // A node that is named after its Machine may be faster than what its provider says.
        let namesake = self.caches.get::<Machine>(&cluster.namespace, node);
        if namesake
            .is_some_and(|m| m.spec.provider_id.is_none() && m.spec.cluster_name == cluster.name)
        {
            let key = Key::Machine(cluster.namespace.clone(), node.to_owned());
            self.queue.add(key);
        }
        found
    }

    /// Wakes the pools of a cluster whose nodes are a provider's.
    pub(crate) fn wake_groups_of(&self, cluster: &ClusterRef) {
        let pools = self
            .caches
            .of_cluster::<MachineDeployment>(&cluster.namespace, &cluster.name);
        for pool in pools.iter().filter(|pool| group::is_group(self, pool)) {
            let key = Key::Pool(cluster.namespace.clone(), pool.name_any());
            self.queue.add(key);
        }
    }

    /// Wakes the pool of a node that a provider runs.
    pub(crate) fn wake_group_of_node(&self, cluster: &ClusterRef, node: &NodeView) {
        let mut labels = self.group_labels.iter();
        if labels.any(|label| node.labels.contains_key(label)) {
            self.wake_groups_of(cluster);
        }
    }

    /// Takes news of an object in, whoever brings it, and wakes those whom it concerns.
    pub(crate) fn learn<K: Cached>(&self, object: K) {
        let news = K::of(&self.caches).write().apply(object);
        if let Some((now, before)) = news {
            K::wake(self, before.as_deref(), Some(&now));
        }
    }

    /// Takes in that an object is gone, and wakes those whom it concerns.
    pub(crate) fn forget<K: Cached>(&self, object: &K) {
        K::of(&self.caches).write().delete(object);
        K::wake(self, Some(object), None);
    }

    /// Deletes a machine that is still what was decided about (one that was broken may be well again), and remembers why until
    /// its status says it.
    pub(crate) async fn delete_machine(
        &self,
        machine: &Machine,
        because: String,
    ) -> Result<(), Error> {
        self.goes.lock().entry(name_of(machine)).or_insert(because);
        let done = self.delete_at(machine, machine.resource_version()).await;
        if let Err(error) = &done
            && error.is_conflict()
        {
            self.goes.lock().remove(&name_of(machine));
        }
        done
    }

    /// Changes a running machine's fields in place.
    async fn update_machine(
        &self,
        machine: &Machine,
        update: &MachineUpdate,
        by: &str,
    ) -> Result<(), Error> {
        let encode = |c: &MachineTemplateSpec| serde_json::to_value(c).map_err(Error::Encode);
        let mut patch = json!({});
        let put = |map: &std::collections::BTreeMap<String, Option<String>>| {
            map.iter()
                .map(|(k, v)| (k.clone(), json!(v)))
                .collect::<Map<String, Value>>()
        };
        if !update.labels.is_empty() {
            patch["metadata"]["labels"] = Value::Object(put(&update.labels));
        }
        if !update.annotations.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(put(&update.annotations));
        }
        if let Some(spec) = merge_diff(&encode(&machine.spec.content)?, &encode(&update.content)?) {
            patch["spec"] = spec;
        }
        self.patch(machine, patch, by).await?;
        Ok(())
    }

    /// The counter of a pool or a Cluster: the ordinal that its next machine gets.
    fn next_ordinal<K: ResourceExt>(owner: &K) -> u64 {
        owner
            .annotations()
            .get(meta::ANNOTATION_NEXT_ORDINAL)
            .and_then(|v| v.parse().ok())
            .unwrap_or(0)
    }

    fn ordinal_patch(next: u64) -> Value {
        json!({"metadata": {"annotations": {meta::ANNOTATION_NEXT_ORDINAL: next.to_string()}}})
    }
}

/// How a reconcile ends that has nothing to do: it waits for what `waits` says, and looks again at `next`.
fn rest(waits: Option<String>, next: Option<Timestamp>, now: Timestamp) -> Outcome {
    let next = next.map(|at| seconds_until(at, now));
    match (waits, next) {
        (waits, Some(seconds)) => {
            let waits = waits.unwrap_or_else(|| "its time has not come".to_owned());
            Outcome::wait_seconds(waits, seconds)
        }
        (Some(waits), None) => Outcome::wait(waits),
        (None, None) => Outcome::Done,
    }
}

/// Whole seconds after which `at` has passed.
fn seconds_until(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(at.duration_since(now).as_secs()).unwrap_or(0) + 1
}

/// The name of the node that a machine was given.
pub(crate) fn node_name(machine: &Machine) -> Option<&str> {
    let node = machine.status.as_ref()?.node_ref.as_ref()?;
    Some(&node.name)
}

/// Reconciles whatever `key` names.
pub(crate) async fn reconcile(shared: &Arc<Shared>, key: &Key) -> Result<Outcome, Error> {
    let (namespace, name) = key.namespaced();
    match key {
        Key::Cluster(..) => match shared.caches.get::<Cluster>(namespace, name) {
            Some(cluster) => cluster::reconcile(shared, &cluster).await,
            None => {
                shared.nodes.forget(namespace, name);
                shared.etcds.forget(namespace, name);
                shared.certificates.forget(namespace, name);
                shared.snapshots.forget(namespace, name);
                managed::forget(shared, namespace, name);
                shared.grounds.forget(namespace, name);
                shared.approvals.forget(namespace, name);
                shared.manifests.forget(namespace, name);
                shared
                    .drifts
                    .told(&shared.context.metrics, key.clone(), Vec::new());
                cluster::abandoned(shared, namespace, name).await?;
                Ok(Outcome::Deleted)
            }
        },
        Key::Pool(..) => match shared.caches.get::<MachineDeployment>(namespace, name) {
            Some(pool) if group::is_group(shared, &pool) => group::reconcile(shared, &pool).await,
            Some(pool) => pool::reconcile(shared, &pool).await,
            None => {
                group::forget(shared, key);
                Ok(Outcome::Deleted)
            }
        },
        Key::Set(..) => match shared.caches.get::<MachineSet>(namespace, name) {
            Some(set) => set::reconcile(shared, &set).await,
            None => Ok(Outcome::Deleted),
        },
        Key::Machine(..) => match shared.caches.get::<Machine>(namespace, name) {
            Some(machine) => machine::reconcile(shared, &machine).await,
            None => {
                let machine = (namespace.to_owned(), name.to_owned());
                shared.goes.lock().remove(&machine);
                shared
                    .drifts
                    .told(&shared.context.metrics, key.clone(), Vec::new());
                Ok(Outcome::Deleted)
            }
        },
        Key::Check(..) => match shared.caches.get::<MachineHealthCheck>(namespace, name) {
            Some(check) => check::reconcile(shared, &check).await,
            None => Ok(Outcome::Deleted),
        },
    }
}
