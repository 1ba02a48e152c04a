//! The reconcilers, and what they share.

mod cluster;
mod machine;
mod pool;
mod set;

use std::{sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, machine::MachineTemplateSpec, meta, names,
};
use fleetwright_core::{catalogue::Catalogue, machine_set::MachineUpdate, outcome::Outcome};
use fleetwright_providers::{ClusterRef, ProviderError};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;

pub(crate) use self::machine::to_account as account_of;
use crate::{
    cache::{Cached, Caches, Mark},
    context::Context,
    inventory::Inventory,
    nodes::Nodes,
    queue::{Key, Queue},
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
        matches!(self, Self::Api(error) if matches!(error.as_ref(), kube::Error::Api(s) if s.code == 409))
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if matches!(error.as_ref(), kube::Error::Api(s) if s.code == 404))
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
    /// Machines that may have been made though no answer came, by namespace and name.
    pub(crate) doubtful: parking_lot::Mutex<std::collections::BTreeSet<(String, String)>>,
    /// Wakes who waits for complete caches.
    pub(crate) synced_wake: tokio::sync::Notify,
    /// Clusters whose nodes are to be followed.
    pub(crate) follow: UnboundedSender<ClusterRef>,
}

impl Shared {
    pub(crate) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    pub(crate) fn cluster_ref(&self, namespace: &str, name: &str) -> ClusterRef {
        ClusterRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: names::cluster_key(&self.context.installation, namespace, name),
        }
    }

    /// Wakes every machine of a cluster.
    pub(crate) fn wake_machines_of(&self, namespace: &str, cluster: &str) {
        for machine in self.caches.of_cluster::<Machine>(namespace, cluster) {
            self.queue
                .add(Key::Machine(namespace.to_owned(), machine.name_any()));
        }
    }

    /// Wakes the machine of a node: the one with its providerID, or the one that was given this node.
    pub(crate) fn wake_machine_of_node(&self, cluster: &ClusterRef, id: &str, node: &str) {
        let (namespace, name) = (cluster.namespace.clone(), cluster.name.clone());
        let by_id = Mark::ProviderId(namespace.clone(), name.clone(), id.to_owned());
        let by_name = Mark::Node(namespace, name, node.to_owned());
        for machine in [by_id, by_name]
            .iter()
            .flat_map(|mark| self.caches.marked::<Machine>(mark))
        {
            let key = Key::Machine(cluster.namespace.clone(), machine.name_any());
            self.queue.add(key);
        }
    }

    /// Takes news of an object in, whoever brings it, and wakes those whom it concerns.
    pub(crate) fn learn<K: Cached>(&self, object: K) {
        let news = K::of(&self.caches).write().apply(object);
        if let Some((now, before)) = news {
            K::wake(self, before.as_deref(), Some(&now));
        }
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
                Ok(Outcome::Deleted)
            }
        },
        Key::Pool(..) => match shared.caches.get::<MachineDeployment>(namespace, name) {
            Some(pool) => pool::reconcile(shared, &pool).await,
            None => Ok(Outcome::Deleted),
        },
        Key::Set(..) => match shared.caches.get::<MachineSet>(namespace, name) {
            Some(set) => set::reconcile(shared, &set).await,
            None => Ok(Outcome::Deleted),
        },
        Key::Machine(..) => match shared.caches.get::<Machine>(namespace, name) {
            Some(machine) => machine::reconcile(shared, &machine).await,
            None => Ok(Outcome::Deleted),
        },
    }
}
