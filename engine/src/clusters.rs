//! Which way leads to a cluster: those of the simulated cloud are reached through the cloud, all others by their kubeconfigs.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use fleetwright_provider_sim::config;
use fleetwright_providers::{
    ClusterConnections, ClusterRef, ConnectionError, EtcdMember, EtcdMembers, Snapshot,
};
use jiff::Timestamp;

/// Two ways, of which each cluster has one.
pub(crate) struct Routed<T: ?Sized> {
    pub(crate) simulated: Arc<T>,
    pub(crate) real: Arc<T>,
}

impl<T: ?Sized> Routed<T> {
    fn of(&self, cluster: &ClusterRef) -> &T {
        match cluster.provider.as_deref() {
            Some(config::PROVIDER) => &self.simulated,
            _ => &self.real,
        }
    }
}

#[async_trait]
impl ClusterConnections for Routed<dyn ClusterConnections> {
    async fn client(&self, cluster: &ClusterRef) -> Result<kube::Client, ConnectionError> {
        self.of(cluster).client(cluster).await
    }

    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        self.of(cluster).kubeconfig(cluster).await
    }

    async fn serving_certificates(
        &self,
        cluster: &ClusterRef,
    ) -> Result<BTreeMap<String, Timestamp>, ConnectionError> {
        self.of(cluster).serving_certificates(cluster).await
    }
}

#[async_trait]
impl EtcdMembers for Routed<dyn EtcdMembers> {
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        self.of(cluster).members(cluster).await
    }

    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError> {
        self.of(cluster).remove(cluster, name).await
    }

    async fn snapshot(&self, cluster: &ClusterRef) -> Result<Box<dyn Snapshot>, ConnectionError> {
        self.of(cluster).snapshot(cluster).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    #[async_trait]
    impl ClusterConnections for Named {
        async fn client(&self, _: &ClusterRef) -> Result<kube::Client, ConnectionError> {
            Err(ConnectionError::Broken(self.0.into()))
        }

        async fn kubeconfig(&self, _: &ClusterRef) -> Result<Option<String>, ConnectionError> {
            Ok(Some(self.0.into()))
        }
    }

    #[tokio::test]
    async fn clusters_of_the_simulated_cloud_are_reached_through_it_and_others_are_not() {
        let routed: Routed<dyn ClusterConnections> = Routed {
            simulated: Arc::new(Named("simulated")),
            real: Arc::new(Named("real")),
        };
        for (provider, want) in [
            (Some("sim"), "simulated"),
            (Some("aws"), "real"),
            (None, "real"),
        ] {
            let cluster = ClusterRef {
                provider: provider.map(Into::into),
                ..ClusterRef::default()
            };
            let told = routed.kubeconfig(&cluster).await;
            assert_eq!(told, Ok(Some(want.to_owned())));
            let refused = routed.client(&cluster).await.err();
            assert_eq!(refused, Some(ConnectionError::Broken(want.into())));
        }
    }
}
