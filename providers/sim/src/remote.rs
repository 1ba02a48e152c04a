//! A simulated cloud that runs in another process, reached over HTTP.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fleetwright_api::{ProviderConfig, drift::InstanceSettings};
use fleetwright_providers::{
    Account, ClusterConnections, ClusterRef, ConfigError, ConfigSchema, ConnectionError,
    CreateInstance, EtcdMember, EtcdMembers, Instance, ListScope, Provider, ProviderError,
    UpdateInstance,
};
use http::{HeaderValue, Method, Request, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, Error as HttpError, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    config,
    wire::{self, Answer, Create, Delete, Get, List, Missing, Update},
};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: a list of many thousands of instances.
const MOST_BYTES: usize = 256 << 20;
/// Largest buffer of a connection: there is one for the watch of each cluster, and what a burst made large stays so.
const BUFFER: usize = 8 << 10;
/// Connections that are kept for the next call: a burst of calls needs more, the hours after it do not.
const IDLE: usize = 16;
/// Time between two tries to reach a cloud that starts.
const AGAIN: Duration = Duration::from_millis(100);

/// Why a simulated cloud cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not one of a simulated cloud.
    #[error("{0:?} is no URL of a simulated cloud: it is of the form http://127.0.0.1:PORT")]
    Url(String),
    /// It does not answer.
    #[error("no simulated cloud answers at {url} ({why}): start one with `fleetwright simcloud`")]
    NoAnswer {
        /// Its URL.
        url: String,
        /// What happened.
        why: String,
    },
}

struct Inner {
    authority: Authority,
    /// Who asks, as the cloud's journal shows it.
    caller: Option<HeaderValue>,
    http: Client<HttpConnector, Full<Bytes>>,
    /// The same for the clusters' APIs.
    kube: Client<HttpConnector, kube::client::Body>,
    clusters: Mutex<BTreeMap<String, kube::Client>>,
}

/// A simulated cloud in another process. Clones share their connections.
#[derive(Clone)]
pub struct RemoteCloud(Arc<Inner>);

impl RemoteCloud {
    /// The cloud at `url` (`http://127.0.0.1:PORT`), whether it runs or not.
    ///
    /// # Errors
    /// [`ConnectError::Url`].
    pub fn new(url: &str) -> Result<Self, ConnectError> {
        Self::of_caller(url, None)
    }

    fn of_caller(url: &str, caller: Option<&str>) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().cloned().ok_or_else(wrong)?;
        let bare = uri.scheme_str() == Some("http")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        if !bare {
            return Err(wrong());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(TIMEOUT));
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .http1_max_buf_size(BUFFER)
            .pool_max_idle_per_host(IDLE);
        Ok(Self(Arc::new(Inner {
            authority,
            caller: caller.and_then(|c| HeaderValue::from_str(c).ok()),
            http: builder.build(connector.clone()),
            kube: builder.build(connector),
            clusters: Mutex::default(),
        })))
    }

    /// The cloud at `url`, once it answers; tries again for at most `patience`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(url: &str, patience: Duration) -> Result<Self, ConnectError> {
        Self::connect_as(url, None, patience).await
    }

    /// The same for `caller`, one of several: the cloud's journal shows which asked.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_as(
        url: &str,
        caller: Option<&str>,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let cloud = Self::of_caller(url, caller)?;
        let until = tokio::time::Instant::now() + patience;
        loop {
            let why = match cloud.ask::<Value>(Method::GET, "/clusters/-", None).await {
                Ok(_) => return Ok(cloud),
                Err(error) => error.to_string(),
            };
            if tokio::time::Instant::now() >= until {
                let url = url.to_owned();
                return Err(ConnectError::NoAnswer { url, why });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.authority)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<T, ProviderError> {
        let body = serde_json::to_vec(body).map_err(|e| ProviderError::Terminal {
            message: format!("the call cannot be written: {e}"),
        })?;
        self.ask(Method::POST, &format!("/instances/{verb}"), Some(body))
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ProviderError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url()))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(caller) = &self.0.caller {
            request = request.header(wire::CALLER, caller);
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| ProviderError::Terminal {
                message: format!("the call cannot be written: {e}"),
            })?;
        let exchange = async {
            let answer = self.0.http.request(request).await.map_err(|e| failed(&e))?;
            let status = answer.status();
            let bytes = Limited::new(answer.into_body(), MOST_BYTES)
                .collect()
                .await
                .map_err(|e| ambiguous(format!("the answer broke off: {e}")))?
                .to_bytes();
            match serde_json::from_slice(&bytes) {
                Ok(Answer::Result(value)) => Ok(value),
                Ok(Answer::Error(error)) => Err(error),
                Err(e) => Err(ambiguous(format!(
                    "{} answered {status} with what is no answer of a simulated cloud: {e}",
                    self.url()
                ))),
            }
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(ambiguous(format!(
                    "{} did not answer in {} s",
                    self.url(),
                    TIMEOUT.as_secs()
                )))
            })
    }

    fn cluster_client(&self, key: &str) -> kube::Client {
        let (http, base) = (
            self.0.kube.clone(),
            format!("{}/clusters/{key}", self.url()),
        );
        let service = tower::service_fn(move |mut request: Request<kube::client::Body>| {
            let http = http.clone();
            let inner = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let uri = format!("{base}{inner}").parse::<Uri>();
            async move {
                *request.uri_mut() = uri?;
                Ok::<_, tower::BoxError>(http.request(request).await?)
            }
        });
        kube::Client::new(service, "default")
    }
}

fn ambiguous(message: String) -> ProviderError {
    ProviderError::Ambiguous { message }
}

/// A call without a connection had no effect; one whose connection broke may have had its effect.
fn failed(error: &HttpError) -> ProviderError {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    if error.is_connect() {
        ProviderError::Unavailable { message }
    } else {
        ambiguous(message)
    }
}

#[async_trait]
impl Provider for RemoteCloud {
    fn name(&self) -> &str {
        config::PROVIDER
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        config::schemas()
    }

    fn lists_catch_up_after(&self) -> std::time::Duration {
        crate::provider::CAUGHT_UP
    }

    fn settings(&self, config: &ProviderConfig) -> InstanceSettings {
        config::settings(config.settings())
    }

    fn failure_domains(&self, account: &Account, _: &ProviderConfig) -> Vec<String> {
        config::failure_domains(&account.region)
    }

    async fn missing_image(
        &self,
        _: &Account,
        version: &str,
        config: &Value,
    ) -> Result<Option<ConfigError>, ProviderError> {
        let body = Missing {
            version: version.to_owned(),
            config: config.clone(),
        };
        self.call("missing", &body).await
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        let body = Create {
            account: account.clone(),
            order: order.clone(),
        };
        self.call("create", &body).await
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        let body = Get {
            account: account.clone(),
            id: id.to_owned(),
        };
        self.call("get", &body).await
    }

    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        self.call("list", &List::new(account, scope)).await
    }

    async fn update(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        let body = Update {
            account: account.clone(),
            id: id.to_owned(),
            change: change.clone(),
        };
        self.call("update", &body).await
    }

    async fn delete(
        &self,
        account: &Account,
        id: &str,
        instance_key: &str,
    ) -> Result<(), ProviderError> {
        let body = Delete {
            account: account.clone(),
            id: id.to_owned(),
            instance_key: instance_key.to_owned(),
        };
        self.call("delete", &body).await
    }
}

#[async_trait]
impl EtcdMembers for RemoteCloud {
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        let path = format!("/etcd/{}", cluster.key);
        let members: Option<_> = self
            .ask(Method::GET, &path, None)
            .await
            .map_err(|e| ConnectionError::Broken(e.to_string()))?;
        members.ok_or(ConnectionError::NotYet)
    }

    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError> {
        let path = format!("/etcd/{}/{name}", cluster.key);
        self.ask(Method::DELETE, &path, None)
            .await
            .map_err(|e| ConnectionError::Broken(e.to_string()))
    }
}

#[async_trait]
impl ClusterConnections for RemoteCloud {
    async fn client(&self, cluster: &ClusterRef) -> Result<kube::Client, ConnectionError> {
        if let Some(client) = self.0.clusters.lock().get(&cluster.key) {
            return Ok(client.clone());
        }
        let path = format!("/clusters/{}", cluster.key);
        let answer: Value = self
            .ask(Method::GET, &path, None)
            .await
            .map_err(|e| ConnectionError::Broken(e.to_string()))?;
        if answer["serves"] != true {
            return Err(ConnectionError::NotYet);
        }
        let client = self.cluster_client(&cluster.key);
        let mut clusters = self.0.clusters.lock();
        Ok(clusters
            .entry(cluster.key.clone())
            .or_insert(client)
            .clone())
    }

    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        Ok(Some(wire::kubeconfig(cluster, &self.url())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_bare() {
        let url = |text: &str| RemoteCloud::new(text).map(|c| c.url());
        for good in ["http://127.0.0.1:81", "http://127.0.0.1:81/"] {
            assert_eq!(url(good), Ok("http://127.0.0.1:81".into()));
        }
        for bad in [
            "",
            "127.0.0.1:81",
            "https://127.0.0.1:81",
            "http://127.0.0.1/x",
            "http://t@127.0.0.1",
            "/x",
        ] {
            assert_eq!(url(bad), Err(ConnectError::Url(bad.into())));
        }
    }
}
