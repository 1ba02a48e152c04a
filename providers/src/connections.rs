//! How workload clusters are reached.

use async_trait::async_trait;

/// A cluster, by all its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterRef {
    /// Namespace of the Cluster.
    pub namespace: String,
    /// Name of the Cluster.
    pub name: String,
    /// Its key ([`fleetwright_api::names::cluster_key`]).
    pub key: String,
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
    /// A client of the cluster's API.
    async fn client(&self, cluster: &ClusterRef) -> Result<kube::Client, ConnectionError>;

    /// A kubeconfig of the cluster for people and tools, as YAML; `None` where there is no address to give.
    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError>;
}
