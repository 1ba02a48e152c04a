//! How an instance becomes a node, where the provider's instances do not become nodes by themselves.

use async_trait::async_trait;
use fleetwright_api::secret::SecretText;
use serde_json::Value;

use crate::{
    contract::{Account, Ownership},
    error::ProviderError,
};

/// Where a node has its id at the provider from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeId {
    /// A cloud controller sets it.
    ByController,
    /// A POSIX shell expression that is evaluated on the instance, such as `aws:///$(...)/$(...)`.
    Expression(&'static str),
    /// This. The node has its Machine's name, since no cloud gives it one.
    Known(String),
}

/// A provider whose instances run what they are given as user data.
#[async_trait]
pub trait Bootstrap: Send + Sync {
    /// Operating system of instances with this effective `providerConfig`, such as `ubuntu-24.04`.
    fn operating_system<'a>(&self, config: &'a Value) -> &'a str;

    /// Whether nodes of clusters with this `providerConfig` of their own take no pods before a cloud controller has seen them.
    fn waits_for_cloud_controller(&self, cluster_config: Option<&Value>) -> bool;

    /// Most bytes of user data, before any encoding.
    fn user_data_limit(&self) -> usize;

    /// Where the node has its `spec.providerID` from.
    fn node_id(&self, owner: &Ownership) -> NodeId;

    /// Whether its instances are somebody else's to make. Who makes them has to read all of their user data, so secrets stand in it, and
    /// may take any time, so it is given anew when it holds no more. In a cluster whose nodes are not of our making they get none: who
    /// makes them joins them.
    fn made_by_others(&self) -> bool {
        false
    }

    /// Keeps `payload` where the machine's instance alone can read it, and gives a POSIX shell command that prints it there. User data
    /// is readable to whoever may describe instances, so what holds secrets goes this way. Keeping again replaces what was kept.
    ///
    /// # Errors
    /// [`ProviderError::Terminal`] where `config` gives the instance no way to read it.
    async fn keep(
        &self,
        account: &Account,
        owner: &Ownership,
        config: &Value,
        payload: &SecretText,
    ) -> Result<String, ProviderError>;

    /// Removes what was kept for the machine; nothing there is no error.
    async fn discard(&self, account: &Account, owner: &Ownership) -> Result<(), ProviderError>;
}
