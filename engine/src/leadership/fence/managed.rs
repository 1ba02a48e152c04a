//! Control planes and groups of nodes of a provider that works only while this engine leads.

use async_trait::async_trait;
use fleetwright_providers::{
    Account, Provider, ProviderError,
    managed::{
        Access, ManagedControlPlaneOrder, ManagedControlPlaneState, ManagedControlPlanes,
        ManagedOwner, PoolOrder, PoolProvider, PoolState,
    },
};

use super::Fenced;

impl Fenced<dyn Provider> {
    fn planes(&self) -> Result<&dyn ManagedControlPlanes, ProviderError> {
        self.inner.control_planes().ok_or_else(lacks)
    }

    fn groups(&self) -> Result<&dyn PoolProvider, ProviderError> {
        self.inner.pools().ok_or_else(lacks)
    }
}

pub(super) fn lacks() -> ProviderError {
    let message = "the provider runs no such thing".into();
    ProviderError::Terminal { message }
}

#[async_trait]
impl ManagedControlPlanes for Fenced<dyn Provider> {
    async fn ensure(
        &self,
        account: &Account,
        order: &ManagedControlPlaneOrder,
    ) -> Result<ManagedControlPlaneState, ProviderError> {
        let call = self.planes()?.ensure(account, order);
        self.leadership.guard(call).await?
    }

    async fn get(
        &self,
        account: &Account,
        owner: &ManagedOwner,
    ) -> Result<Option<ManagedControlPlaneState>, ProviderError> {
        let call = self.planes()?.get(account, owner);
        self.leadership.guard(call).await?
    }

    async fn remove(&self, account: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError> {
        let call = self.planes()?.remove(account, owner);
        self.leadership.guard(call).await?
    }

    async fn access(
        &self,
        account: &Account,
        owner: &ManagedOwner,
    ) -> Result<Access, ProviderError> {
        let call = self.planes()?.access(account, owner);
        self.leadership.guard(call).await?
    }
}

#[async_trait]
impl PoolProvider for Fenced<dyn Provider> {
    fn node_label(&self) -> &str {
        self.inner.pools().map_or("", PoolProvider::node_label)
    }

    async fn ensure(
        &self,
        account: &Account,
        order: &PoolOrder,
    ) -> Result<PoolState, ProviderError> {
        let call = self.groups()?.ensure(account, order);
        self.leadership.guard(call).await?
    }

    async fn list(
        &self,
        account: &Account,
        cluster: &ManagedOwner,
    ) -> Result<Vec<PoolState>, ProviderError> {
        let call = self.groups()?.list(account, cluster);
        self.leadership.guard(call).await?
    }

    async fn remove(&self, account: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError> {
        let call = self.groups()?.remove(account, owner);
        self.leadership.guard(call).await?
    }
}
