//! How workload clusters are reached.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A cluster, by all its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterRef {
    /// Namespace of the Cluster.
    pub namespace: String,
    /// Name of the Cluster.
    pub name: String,
    /// Its key ([`fleetwright_api::names::cluster_key`]).
    pub key: String,
    /// The provider that its control plane is of; `None` where that is somebody else's, or not known any more.
    pub provider: Option<String>,
    /// The Secret in its namespace whose key `value` is a kubeconfig that leads to it.
    pub kubeconfig: String,
}

/// Why a workload cluster cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Its API does not exist yet: no control-plane machine has served.
    #[error("the cluster's API does not serve yet")]
    NotYet,
    /// The way to it is broken.
    #[error("{0}")]
    Broken(String),
}

/// Gives clients of workload clusters.
#[async_trait]
pub trait ClusterConnections: Send + Sync + 'static {
    /// A client of the cluster's API. Who asks now and then learns whether the cluster can still be reached.
    async fn client(&self, cluster: &ClusterRef) -> Result<kube::Client, ConnectionError>;

    /// A kubeconfig of the cluster for people and tools, as YAML; `None` where there is no address to give.
    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError>;

    /// When the serving certificates of the cluster's API servers expire, by the name of the node that each runs on. Those that cannot be
    /// asked are left out.
    ///
    /// # Errors
    /// Nobody knows which API servers there are.
    async fn serving_certificates(
        &self,
        _: &ClusterRef,
    ) -> Result<BTreeMap<String, Timestamp>, ConnectionError> {
        Ok(BTreeMap::new())
    }
}

/// A member of a cluster's etcd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EtcdMember {
    /// The member's own name: that of its machine's node.
    pub name: String,
    /// Whether it answers and raises no alarm.
    pub healthy: bool,
    /// Whether it only learns: it does not vote, and counts for no quorum.
    pub learner: bool,
    /// Whether it was added and has not started yet.
    pub starting: bool,
}

/// Looks at the members of clusters' etcd, and takes members away.
#[async_trait]
pub trait EtcdMembers: Send + Sync + 'static {
    /// All members, by name.
    ///
    /// # Errors
    /// etcd cannot be asked: nothing may be concluded from that.
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError>;

    /// Hands leadership to another member where `name` leads, and removes the member; one that is gone is no error.
    ///
    /// # Errors
    /// etcd cannot be asked, or refuses.
    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError>;

    /// A snapshot of all that etcd holds, as it begins to come.
    ///
    /// # Errors
    /// etcd cannot be asked, or gives none.
    async fn snapshot(&self, cluster: &ClusterRef) -> Result<Box<dyn Snapshot>, ConnectionError> {
        Err(ConnectionError::Broken(format!(
            "the etcd of cluster {} gives no snapshots",
            cluster.name
        )))
    }
}

/// A snapshot of etcd on its way: the file that `etcdutl snapshot restore` takes. It ends with its SHA-256, by which whoever keeps it knows
/// that it is whole.
#[async_trait]
pub trait Snapshot: Send {
    /// The next part; `None` after the last one.
    ///
    /// # Errors
    /// It broke off.
    async fn part(&mut self) -> Result<Option<Vec<u8>>, ConnectionError>;
}
