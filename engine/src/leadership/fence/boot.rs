//! What a provider gives instances to boot from, and the way to clusters' APIs, only while this engine leads.

use async_trait::async_trait;
use fleetwright_api::secret::SecretText;
use fleetwright_providers::{
    Account, Bootstrap, ControlPlaneEndpoint, Infrastructure, InfrastructureOrder, NodeId,
    Ownership, Provider, ProviderError,
};
use serde_json::Value;

use super::{Fenced, managed::lacks};

impl Fenced<dyn Provider> {
    fn boots(&self) -> Result<&dyn Bootstrap, ProviderError> {
        self.inner.bootstrap().ok_or_else(lacks)
    }

    fn ground(&self) -> Result<&dyn Infrastructure, ProviderError> {
        self.inner.infrastructure().ok_or_else(lacks)
    }
}

#[async_trait]
impl Bootstrap for Fenced<dyn Provider> {
    fn operating_system<'a>(&self, config: &'a Value) -> &'a str {
        self.boots()
            .map_or("", |boot| boot.operating_system(config))
    }

    fn waits_for_cloud_controller(&self, cluster_config: Option<&Value>) -> bool {
        self.boots()
            .is_ok_and(|boot| boot.waits_for_cloud_controller(cluster_config))
    }

    fn user_data_limit(&self) -> usize {
        self.boots().map_or(0, Bootstrap::user_data_limit)
    }

    fn node_id(&self, owner: &Ownership) -> NodeId {
        self.boots()
            .map_or(NodeId::ByController, |boot| boot.node_id(owner))
    }

    fn made_by_others(&self) -> bool {
        self.boots().is_ok_and(Bootstrap::made_by_others)
    }

    async fn keep(
        &self,
        account: &Account,
        owner: &Ownership,
        config: &Value,
        payload: &SecretText,
    ) -> Result<String, ProviderError> {
        let call = self.boots()?.keep(account, owner, config, payload);
        self.leadership.guard(call).await?
    }

    async fn discard(&self, account: &Account, owner: &Ownership) -> Result<(), ProviderError> {
        let call = self.boots()?.discard(account, owner);
        self.leadership.guard(call).await?
    }
}

#[async_trait]
impl Infrastructure for Fenced<dyn Provider> {
    async fn ensure(
        &self,
        account: &Account,
        order: &InfrastructureOrder,
    ) -> Result<Option<ControlPlaneEndpoint>, ProviderError> {
        let call = self.ground()?.ensure(account, order);
        self.leadership.guard(call).await?
    }

    async fn remove(
        &self,
        account: &Account,
        order: &InfrastructureOrder,
    ) -> Result<bool, ProviderError> {
        let call = self.ground()?.remove(account, order);
        self.leadership.guard(call).await?
    }
}
