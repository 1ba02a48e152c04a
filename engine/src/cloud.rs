//! The simulated cloud as the engine uses it: in its process, as a process of its own, or not at all.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use fleetwright_api::{random::Random, time::Clock};
use fleetwright_provider_sim::{Cloud, CloudOptions, RemoteCloud, config};
use fleetwright_providers::{
    Account, ClusterConnections, ClusterRef, ConfigSchema, ConnectionError, CreateInstance,
    EtcdMember, EtcdMembers, Instance, ListScope, Provider, ProviderError, UpdateInstance,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    client::Connection,
    error::{Failure, step},
    http::{address, bind},
};

/// How long a simulated cloud of its own may take to answer at the start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cloud as a provider, and the way to its clusters.
#[derive(Clone)]
pub(crate) struct Cloudy {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) connections: Arc<dyn ClusterConnections>,
    pub(crate) etcd: Arc<dyn EtcdMembers>,
    /// Its URL; `None` where there is none.
    pub(crate) url: Option<String>,
}

/// The one that an engine runs in its process, as a command finds it: `None` where the engine has none.
///
/// # Errors
/// There is no place for the default data folder.
pub(crate) async fn of_engine(
    connection: &Connection,
) -> Result<Option<Arc<dyn Provider>>, Failure> {
    let Some(folder) = connection.folder()? else {
        return Ok(None);
    };
    let Ok(address) = tokio::fs::read_to_string(folder.join("simcloud.addr")).await else {
        return Ok(None);
    };
    let url = format!("http://{}", address.trim());
    let remote = RemoteCloud::connect_as(&url, None, Duration::ZERO).await;
    Ok(remote
        .ok()
        .map(|remote| Arc::new(remote) as Arc<dyn Provider>))
}

/// One that runs by itself. Its journal shows who of several engines asked, by their `identity`.
///
/// # Errors
/// It does not answer.
pub(crate) async fn remote(url: &str, identity: Option<&str>) -> Result<Cloudy, Failure> {
    let remote = RemoteCloud::connect_as(url, identity, PATIENCE).await;
    let remote = remote.map_err(|e| {
        Failure::usage(format!("cannot reach the simulated cloud: {e}"))
            .hint("start it with `fleetwright simcloud --listen ADDR --data DIR`")
    })?;
    let remote = Arc::new(remote);
    Ok(Cloudy {
        provider: remote.clone(),
        connections: remote.clone(),
        etcd: remote,
        url: Some(url.to_owned()),
    })
}

/// The one in this process, with its state in `data`.
///
/// # Errors
/// Its state cannot be read, or it cannot listen.
pub(crate) async fn local(
    data: &Path,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
    tasks: &mut JoinSet<Result<(), Failure>>,
    stop: &CancellationToken,
) -> Result<Cloudy, Failure> {
    let opened = Cloud::open(CloudOptions {
        dir: data.join("simcloud"),
        clock: Arc::clone(clock),
        random: Arc::clone(random),
    });
    let cloud = step(opened, "cannot start the simulated cloud")?;
    // Served too, so that kubectl reaches the simulated clusters, and faults can be asked for.
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = bind(any, &data.join("simcloud.addr")).await?;
    let url = format!("http://{}", address(&listener)?);
    cloud.served_at(url.clone());
    let serving = fleetwright_provider_sim::serve(cloud.clone(), listener, stop.clone());
    tasks.spawn(async move { step(serving.await, "the simulated cloud ended") });
    let (running, stop) = (cloud.clone(), stop.clone());
    tasks.spawn(async move {
        running.run(stop).await;
        Ok(())
    });
    Ok(Cloudy {
        provider: Arc::new(cloud.clone()),
        connections: Arc::new(cloud.clone()),
        etcd: Arc::new(cloud),
        url: Some(url),
    })
}

/// None: of several engines each would have a cloud of its own in its process. What its settings mean is known all the same.
pub(crate) fn none() -> Cloudy {
    Cloudy {
        provider: Arc::new(Absent),
        connections: Arc::new(Absent),
        etcd: Arc::new(Absent),
        url: None,
    }
}

/// Says what to do wherever the simulated cloud is asked for.
struct Absent;

const ABSENT: &str = "no simulated cloud: on Kubernetes it is a process of its own, which the engine is told of with --simcloud URL";

fn absent<T>() -> Result<T, ProviderError> {
    Err(ProviderError::Unavailable {
        message: ABSENT.into(),
    })
}

#[async_trait]
impl Provider for Absent {
    fn name(&self) -> &str {
        config::PROVIDER
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        config::schemas()
    }

    async fn create(&self, _: &Account, _: &CreateInstance) -> Result<Instance, ProviderError> {
        absent()
    }

    async fn get(&self, _: &Account, _: &str) -> Result<Option<Instance>, ProviderError> {
        absent()
    }

    async fn list(&self, _: &Account, _: &ListScope) -> Result<Vec<Instance>, ProviderError> {
        absent()
    }

    async fn update(
        &self,
        _: &Account,
        _: &str,
        _: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        absent()
    }

    async fn delete(&self, _: &Account, _: &str, _: &str) -> Result<(), ProviderError> {
        absent()
    }
}

#[async_trait]
impl EtcdMembers for Absent {
    async fn members(&self, _: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        Err(ConnectionError::Broken(ABSENT.into()))
    }

    async fn remove(&self, _: &ClusterRef, _: &str) -> Result<(), ConnectionError> {
        Err(ConnectionError::Broken(ABSENT.into()))
    }
}

#[async_trait]
impl ClusterConnections for Absent {
    async fn client(&self, _: &ClusterRef) -> Result<kube::Client, ConnectionError> {
        Err(ConnectionError::Broken(ABSENT.into()))
    }

    async fn kubeconfig(&self, _: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        Ok(None)
    }
}
