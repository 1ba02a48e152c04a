//! Providers and clients that work only while this engine leads.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use fleetwright_api::{ProviderConfig, drift::InstanceSettings};
use fleetwright_providers::{
    Account, Bootstrap, ClusterConnections, ClusterRef, ConfigError, ConfigSchema, ConnectionError,
    CreateInstance, EtcdMember, EtcdMembers, Infrastructure, Instance, ListScope, Provider,
    ProviderError, Snapshot, UpdateInstance,
    managed::{ManagedControlPlanes, PoolProvider},
};
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::Value;
use tower::BoxError;

use super::{Leadership, NotLeading};

mod boot;
mod managed;

impl From<NotLeading> for ProviderError {
    fn from(error: NotLeading) -> Self {
        let message = error.to_string();
        if error.begun {
            Self::Ambiguous { message }
        } else {
            Self::Unavailable { message }
        }
    }
}

/// The client, for as long as this engine leads. Reads too: what cannot be read leads to no act.
pub(crate) fn client(leadership: &Leadership, inner: Client) -> Client {
    let leadership = leadership.clone();
    let namespace = inner.default_namespace().to_owned();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (leadership, inner) = (leadership.clone(), inner.clone());
        async move { Ok::<_, BoxError>(leadership.guard(inner.send(request)).await??) }
    });
    Client::new(service, namespace)
}

/// A provider, for as long as this engine leads.
pub(crate) struct Fenced<P: ?Sized> {
    leadership: Leadership,
    inner: Arc<P>,
}

impl<P: ?Sized> Fenced<P> {
    pub(crate) fn new(leadership: Leadership, inner: Arc<P>) -> Self {
        Self { leadership, inner }
    }
}

#[async_trait]
impl Provider for Fenced<dyn Provider> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        self.inner.schemas()
    }

    fn validate(&self, config: &Value) -> Vec<ConfigError> {
        self.inner.validate(config)
    }

    fn settings(&self, config: &ProviderConfig) -> InstanceSettings {
        self.inner.settings(config)
    }

    fn lists_catch_up_after(&self) -> std::time::Duration {
        self.inner.lists_catch_up_after()
    }

    fn failure_domains(&self, account: &Account, config: &ProviderConfig) -> Vec<String> {
        self.inner.failure_domains(account, config)
    }

    async fn resolve(
        &self,
        account: &Account,
        version: &str,
        config: &Value,
    ) -> Result<Value, ProviderError> {
        let call = self.inner.resolve(account, version, config);
        self.leadership.guard(call).await?
    }

    fn as_made(&self, config: &Value, instance: &Instance) -> Value {
        self.inner.as_made(config, instance)
    }

    fn bootstrap(&self) -> Option<&dyn Bootstrap> {
        self.inner.bootstrap()?;
        Some(self)
    }

    fn infrastructure(&self) -> Option<&dyn Infrastructure> {
        self.inner.infrastructure()?;
        Some(self)
    }

    fn control_planes(&self) -> Option<&dyn ManagedControlPlanes> {
        let inner = self.inner.control_planes();
        inner.map(|_| self as &dyn ManagedControlPlanes)
    }

    fn pools(&self) -> Option<&dyn PoolProvider> {
        self.inner.pools().map(|_| self as &dyn PoolProvider)
    }

    async fn missing_image(
        &self,
        account: &Account,
        version: &str,
        config: &Value,
    ) -> Result<Option<ConfigError>, ProviderError> {
        let call = self.inner.missing_image(account, version, config);
        self.leadership.guard(call).await?
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        let call = self.inner.create(account, order);
        self.leadership.guard(call).await?
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        self.leadership.guard(self.inner.get(account, id)).await?
    }

    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        let call = self.inner.list(account, scope);
        self.leadership.guard(call).await?
    }

    async fn update(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        let call = self.inner.update(account, id, change);
        self.leadership.guard(call).await?
    }

    async fn delete(
        &self,
        account: &Account,
        id: &str,
        instance_key: &str,
    ) -> Result<(), ProviderError> {
        let call = self.inner.delete(account, id, instance_key);
        self.leadership.guard(call).await?
    }
}

impl From<NotLeading> for ConnectionError {
    fn from(error: NotLeading) -> Self {
        Self::Broken(error.to_string())
    }
}

#[async_trait]
impl EtcdMembers for Fenced<dyn EtcdMembers> {
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        let call = self.inner.members(cluster);
        self.leadership.guard(call).await?
    }

    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError> {
        let call = self.inner.remove(cluster, name);
        self.leadership.guard(call).await?
    }

    async fn snapshot(&self, cluster: &ClusterRef) -> Result<Box<dyn Snapshot>, ConnectionError> {
        let call = self.inner.snapshot(cluster);
        self.leadership.guard(call).await?
    }
}

#[async_trait]
impl ClusterConnections for Fenced<dyn ClusterConnections> {
    async fn client(&self, cluster: &ClusterRef) -> Result<Client, ConnectionError> {
        let inner = self.inner.client(cluster).await?;
        Ok(client(&self.leadership, inner))
    }

    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        self.inner.kubeconfig(cluster).await
    }

    async fn serving_certificates(
        &self,
        cluster: &ClusterRef,
    ) -> Result<BTreeMap<String, Timestamp>, ConnectionError> {
        self.inner.serving_certificates(cluster).await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use k8s_openapi::api::core::v1::Namespace;
    use kube::{
        Api,
        api::{ListParams, PostParams},
    };

    use super::*;
    use crate::leadership::tests::settable;

    /// Counts what reaches it; answers that nothing is there.
    struct Counting(AtomicUsize);

    impl Counting {
        fn count<T>(&self) -> Result<T, ProviderError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(ProviderError::NotFound {
                message: String::new(),
            })
        }
    }

    #[async_trait]
    impl Provider for Counting {
        fn name(&self) -> &str {
            "counting"
        }
        fn schemas(&self) -> Vec<ConfigSchema> {
            Vec::new()
        }
        async fn create(&self, _: &Account, _: &CreateInstance) -> Result<Instance, ProviderError> {
            self.count()
        }
        async fn get(&self, _: &Account, _: &str) -> Result<Option<Instance>, ProviderError> {
            self.count()
        }
        async fn list(&self, _: &Account, _: &ListScope) -> Result<Vec<Instance>, ProviderError> {
            self.count()
        }
        async fn update(
            &self,
            _: &Account,
            _: &str,
            _: &UpdateInstance,
        ) -> Result<Instance, ProviderError> {
            self.count()
        }
        async fn delete(&self, _: &Account, _: &str, _: &str) -> Result<(), ProviderError> {
            self.count()
        }
    }

    /// Makes each call once; gives how many said that this engine leads no longer.
    async fn all(provider: &dyn Provider) -> usize {
        let account = Account::default();
        let results = [
            provider
                .create(&account, &CreateInstance::default())
                .await
                .map(drop),
            provider.get(&account, "i").await.map(drop),
            provider.list(&account, &ListScope::Account).await.map(drop),
            provider
                .update(&account, "i", &UpdateInstance::default())
                .await
                .map(drop),
            provider.delete(&account, "i", "k").await,
        ];
        let refused = |r: &&Result<(), ProviderError>| matches!(r, Err(ProviderError::Unavailable { message }) if message == "this engine leads no longer");
        results.iter().filter(refused).count()
    }

    #[tokio::test]
    async fn every_call_stops_at_the_deadline() {
        let (millis, now) = settable();
        let leadership = Leadership::new(now, Duration::from_millis(10));
        let counting = Arc::new(Counting(AtomicUsize::new(0)));
        let provider: Arc<dyn Provider> = counting.clone();
        let fenced = Fenced::new(leadership, provider);
        assert_eq!(all(&fenced).await, 0);
        assert_eq!(counting.0.load(Ordering::SeqCst), 5);
        millis.store(10, Ordering::SeqCst);
        assert_eq!(all(&fenced).await, 5);
        assert_eq!(counting.0.load(Ordering::SeqCst), 5, "none reached it");
    }

    #[tokio::test]
    async fn every_request_stops_at_the_deadline() {
        let (millis, now) = settable();
        let leadership = Leadership::new(now, Duration::from_millis(10));
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let service = tower::service_fn(move |_: http::Request<Body>| {
            counter.fetch_add(1, Ordering::SeqCst);
            let list = r#"{"kind":"NamespaceList","apiVersion":"v1","metadata":{},"items":[]}"#;
            async move { Ok::<_, BoxError>(http::Response::new(Body::from(list.as_bytes().to_vec()))) }
        });
        let fenced = client(&leadership, Client::new(service, "default"));
        let api = Api::<Namespace>::all(fenced);
        api.list(&ListParams::default()).await.unwrap();
        millis.store(10, Ordering::SeqCst);
        let refused = api.list(&ListParams::default()).await.unwrap_err();
        assert!(format!("{refused:?}").contains("NotLeading"), "{refused:?}");
        let made = Namespace::default();
        api.create(&PostParams::default(), &made).await.unwrap_err();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "none reached it");
    }
}
