//! What a cluster needs at its provider beside instances: the way to its API.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{contract::Account, error::ProviderError};

/// Whose the infrastructure is, and what it is to be. What is ours is found again by its tags.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InfrastructureOrder {
    /// The installation of Fleetwright.
    pub installation: String,
    /// Key of the cluster ([`fleetwright_api::names::cluster_key`]).
    pub cluster_key: String,
    /// The Cluster as `namespace/name`.
    pub cluster: String,
    /// The Cluster's effective `providerConfig`.
    pub config: Value,
    /// Port of the API server.
    pub port: u16,
    /// Ids of the control plane's instances that run and are not on their way out: the API is reached through them.
    pub instances: Vec<String>,
}

/// The way to a cluster's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlaneEndpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A provider that makes the way to the API of clusters whose control plane runs on its instances.
#[async_trait]
pub trait Infrastructure: Send + Sync {
    /// Makes what is missing and puts right what differs; asked again with the same order it changes nothing. `None` while the
    /// endpoint is being made.
    async fn ensure(
        &self,
        account: &Account,
        order: &InfrastructureOrder,
    ) -> Result<Option<ControlPlaneEndpoint>, ProviderError>;

    /// Takes it away, whatever the order says of its settings; true once nothing of it is left.
    async fn remove(
        &self,
        account: &Account,
        order: &InfrastructureOrder,
    ) -> Result<bool, ProviderError>;
}
