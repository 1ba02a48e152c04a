//! EKS as the second half of the provider.

use async_trait::async_trait;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_eks::config::SharedCredentialsProvider;
use fleetwright_api::time::{Clock, SystemClock};
use fleetwright_providers::{
    Account, ProviderError,
    managed::{
        Access, ManagedControlPlaneOrder, ManagedControlPlaneState, ManagedControlPlanes,
        ManagedOwner, PoolOrder, PoolProvider, PoolState,
    },
};

use super::{NODE_LABEL, cluster_name, control_plane, group, token::token};
use crate::{errors::of_credentials, provider::Aws};

/// The keys that calls are signed with, for what is signed here.
async fn keys(
    identity: Option<&SharedCredentialsProvider>,
) -> Result<aws_credential_types::Credentials, ProviderError> {
    let identity = identity.ok_or_else(|| ProviderError::Credentials {
        message: "the account has no credentials".into(),
    })?;
    let found = identity.provide_credentials().await;
    found.map_err(|e| of_credentials("credentials for a token", &e))
}

#[async_trait]
impl ManagedControlPlanes for Aws {
    async fn ensure(
        &self,
        account: &Account,
        order: &ManagedControlPlaneOrder,
    ) -> Result<ManagedControlPlaneState, ProviderError> {
        let clients = self.clients(account).await?;
        control_plane::ensure(&clients.eks, self.ended(), order, SystemClock.now()).await
    }

    async fn get(
        &self,
        account: &Account,
        owner: &ManagedOwner,
    ) -> Result<Option<ManagedControlPlaneState>, ProviderError> {
        let clients = self.clients(account).await?;
        control_plane::get(&clients.eks, owner).await
    }

    async fn remove(&self, account: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError> {
        let clients = self.clients(account).await?;
        control_plane::remove(&clients.eks, owner).await
    }

    async fn access(
        &self,
        account: &Account,
        owner: &ManagedOwner,
    ) -> Result<Access, ProviderError> {
        let clients = self.clients(account).await?;
        let keys = keys(clients.identity.as_ref()).await?;
        // AWS compares with its own clock.
        token(
            &keys,
            &account.region,
            &cluster_name(owner),
            SystemClock.now(),
        )
    }
}

#[async_trait]
impl PoolProvider for Aws {
    fn node_label(&self) -> &str {
        NODE_LABEL
    }

    async fn ensure(
        &self,
        account: &Account,
        order: &PoolOrder,
    ) -> Result<PoolState, ProviderError> {
        let clients = self.clients(account).await?;
        group::ensure(&clients.eks, self.ended(), order, SystemClock.now()).await
    }

    async fn list(
        &self,
        account: &Account,
        cluster: &ManagedOwner,
    ) -> Result<Vec<PoolState>, ProviderError> {
        let clients = self.clients(account).await?;
        group::list(&clients.eks, cluster).await
    }

    async fn remove(&self, account: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError> {
        let clients = self.clients(account).await?;
        group::remove(&clients.eks, owner).await
    }
}
