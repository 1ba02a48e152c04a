//! Control planes and groups of nodes that a provider runs by itself: the second, optional half of a provider.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fleetwright_api::{cluster::ClusterNetwork, machine::MachineTaint, secret::SecretText};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{contract::Account, error::ProviderError};

/// Whose a managed thing is. All of it is written on it as tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedOwner {
    /// The installation of Fleetwright.
    pub installation: String,
    /// Key of the cluster ([`fleetwright_api::names::cluster_key`]).
    pub cluster_key: String,
    /// The Cluster as `namespace/name`.
    pub cluster: String,
    /// The pool; empty for a control plane.
    pub pool: String,
}

/// An order for a managed control plane. Its name at the provider is the provider's to choose, the same one each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedControlPlaneOrder {
    /// Whose it is.
    pub owner: ManagedOwner,
    /// Kubernetes version: never more than one minor above the running one.
    pub version: String,
    /// The effective `providerConfig`.
    pub config: Value,
    /// Networks of the cluster, where its Cluster says any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<ClusterNetwork>,
}

/// An order for a provider's own group of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolOrder {
    /// Whose it is.
    pub owner: ManagedOwner,
    /// Kubernetes version.
    pub version: String,
    /// The effective `providerConfig`.
    pub config: Value,
    /// Wanted nodes; `None` where an autoscaler decides, or where what somebody else set is to stay.
    pub replicas: Option<i32>,
    /// Fewest and most nodes, where an autoscaler decides.
    #[serde(default)]
    pub bounds: Option<(i32, i32)>,
    /// Labels that nodes register with.
    pub labels: BTreeMap<String, String>,
    /// Taints that nodes register with.
    pub taints: Vec<MachineTaint>,
}

/// Where in its life a managed thing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagedPhase {
    /// It is being made.
    Creating,
    /// It is as it was last ordered.
    Active,
    /// It changes, to this version where that is known.
    Updating(Option<String>),
    /// It goes.
    Deleting,
    /// It needs somebody: why, in the provider's words.
    Failed(String),
}

/// A managed control plane as its provider shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedControlPlaneState {
    /// The provider's own id.
    pub id: String,
    /// Where in its life it is.
    pub phase: ManagedPhase,
    /// The version that serves. A provider that chooses patch versions by itself shows the ordered one once its minor serves.
    pub version: Option<String>,
    /// URL of the API, once there is one.
    pub endpoint: Option<String>,
    /// Certificate authority of the API, as PEM.
    pub certificate_authority: Option<String>,
}

/// A group of nodes as its provider shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolState {
    /// The provider's own id.
    pub id: String,
    /// Whose it is, read back from the tags.
    pub owner: ManagedOwner,
    /// Where in its life it is.
    pub phase: ManagedPhase,
    /// Version that all of its nodes have: while they are rolled the old one. Patches as in [`ManagedControlPlaneState::version`].
    pub version: Option<String>,
    /// Wanted nodes as the provider has it.
    pub replicas: i32,
    /// What [`PoolProvider::node_label`] says on its nodes.
    pub node_label: String,
}

/// A token for a managed control plane's API, and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Bearer token.
    pub token: SecretText,
    /// When it ends.
    pub expires: Timestamp,
}

/// A provider that runs control planes.
#[async_trait]
pub trait ManagedControlPlanes: Send + Sync {
    /// Makes it, or moves it one step on towards the order, and shows it. What is as ordered is left alone, and so is all of it
    /// while it still moves. It never goes back to an older minor: such an order changes no version.
    ///
    /// # Errors
    /// [`ProviderError::Terminal`] for a field that cannot change any more, or where something of its name is not the owner's.
    async fn ensure(
        &self,
        account: &Account,
        order: &ManagedControlPlaneOrder,
    ) -> Result<ManagedControlPlaneState, ProviderError>;

    /// Shows it without an order, as while its Cluster is paused; `None` where there is none of the owner's.
    async fn get(
        &self,
        account: &Account,
        owner: &ManagedOwner,
    ) -> Result<Option<ManagedControlPlaneState>, ProviderError>;

    /// Begins to delete it; true once it is gone. One that is not the owner's is left alone with [`ProviderError::Terminal`].
    async fn remove(&self, account: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError>;

    /// A token for its API, of short life.
    async fn access(
        &self,
        account: &Account,
        owner: &ManagedOwner,
    ) -> Result<Access, ProviderError>;
}

/// A provider that runs groups of nodes.
#[async_trait]
pub trait PoolProvider: Send + Sync {
    /// Key of the label, on nodes, whose value tells the group that they are of.
    fn node_label(&self) -> &str;

    /// Makes the group, or moves it one step on towards the order; what is as ordered is left alone, and all of it while it still
    /// moves. Shows it.
    async fn ensure(
        &self,
        account: &Account,
        order: &PoolOrder,
    ) -> Result<PoolState, ProviderError>;

    /// All groups of a cluster, complete, sorted by id.
    async fn list(
        &self,
        account: &Account,
        cluster: &ManagedOwner,
    ) -> Result<Vec<PoolState>, ProviderError>;

    /// Begins to delete the group; true once it is gone. One that is not the owner's is left alone with
    /// [`ProviderError::Terminal`].
    async fn remove(&self, account: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError>;
}
