//! A Kubernetes as the API: reached from inside or by a kubeconfig, shared with other engines.

use std::{path::PathBuf, sync::Arc};

use fleetwright_api::{GROUP, VERSION, crds, time::Clock};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{self, Connection},
    error::{Failure, step},
    leadership::{Elector, Leadership, fence::Fenced, since_boot},
    wiring::{FAREWELL, Workers},
};

/// Namespace of the engine where nothing else is said: that of `fleetwright install`.
pub(crate) const NAMESPACE: &str = "fleetwright-system";

/// Which Kubernetes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The one whose pod this process runs in.
    Inside,
    /// The one of a kubeconfig.
    File {
        file: PathBuf,
        context: Option<String>,
        /// Where the Lease is: the same for all engines.
        namespace: String,
    },
}

/// A Kubernetes that can be worked with.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) namespace: String,
}

impl Target {
    /// Connects, and looks whether our kinds and our namespace are there.
    ///
    /// # Errors
    /// It cannot be reached, or something is missing there.
    pub(crate) async fn connect(&self) -> Result<Connected, Failure> {
        let (config, namespace) = match self {
            Self::Inside => {
                let config = step(
                    Config::incluster(),
                    "cannot use the service account of this pod",
                )?;
                let namespace = config.default_namespace.clone();
                (config, namespace)
            }
            Self::File {
                file,
                context,
                namespace,
            } => {
                let connection = Connection::of(file, context.as_deref());
                (connection.config().await?, namespace.clone())
            }
        };
        let url = config.cluster_url.to_string();
        let url = url.trim_end_matches('/').to_owned();
        let client = step(Client::try_from(config), "cannot connect")?;
        prepared(&client, &url, &namespace).await?;
        Ok(Connected {
            client,
            url,
            namespace,
        })
    }
}

/// Whether `fleetwright install` was there.
async fn prepared(client: &Client, url: &str, namespace: &str) -> Result<(), Failure> {
    let missing = |what: String| {
        Failure::usage(format!("{url} has no {what}"))
            .hint("prepare it with `fleetwright install`, of this version")
    };
    let version = format!("{GROUP}/{VERSION}");
    let known = match client.list_api_group_resources(&version).await {
        Ok(known) => known.resources,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(client::failure(&format!("cannot reach {url}"), error)),
    };
    let wanted = crds::all().into_iter().map(|crd| crd.spec.names.plural);
    for plural in wanted {
        if !known.iter().any(|r| r.name == plural) {
            return Err(missing(format!("kind {plural}.{GROUP}")));
        }
    }
    let there = Api::<Namespace>::all(client.clone())
        .get_opt(namespace)
        .await;
    match there.map_err(|e| client::failure("cannot read our namespace", e))? {
        Some(_) => Ok(()),
        None => Err(missing(format!("namespace {namespace}"))),
    }
}

/// Takes part in the election, and works while it leads. Who has lost the Lease ends with a failure: a new process holds
/// nothing that was decided before.
pub(crate) async fn take_part(
    connected: &Connected,
    identity: String,
    clock: Arc<dyn Clock>,
    workers: Workers,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let leading = workers.leading.clone();
    let elector = Elector::new(
        connected.client.clone(),
        &connected.namespace,
        identity,
        Arc::new(since_boot),
        clock,
    );
    let mut term = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        term = elector.acquire() => term,
    };
    tracing::info!("leads");
    leading.set(1);
    let mut tasks = JoinSet::new();
    let client = crate::leadership::fence::client(&term.leadership, connected.client.clone());
    fenced(workers, &term.leadership).start(client, &mut tasks, &stop)?;
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        lost = elector.hold(&mut term) => {
            let why = format!("this engine leads no longer: {lost}");
            Some(Failure::again(why).hint("start it again: another engine works meanwhile"))
        }
        ended = tasks.join_next() => Some(crate::wiring::ended(ended)),
    };
    leading.set(0);
    let all = async {
        match &ended {
            None => while tasks.join_next().await.is_some() {},
            Some(_) => tasks.shutdown().await,
        }
    };
    // Given back only when nothing acts any more.
    match tokio::time::timeout(FAREWELL / 2, all).await {
        Ok(()) => elector.release(term).await,
        Err(_) => tracing::warn!("a task does not end: the Lease is not given back"),
    }
    ended.map_or(Ok(()), Err)
}

/// The same work, that stops at the deadline.
fn fenced(mut workers: Workers, leadership: &Leadership) -> Workers {
    let cloud = &mut workers.cloud;
    cloud.provider = Arc::new(Fenced::new(leadership.clone(), cloud.provider.clone()));
    cloud.connections = Arc::new(Fenced::new(leadership.clone(), cloud.connections.clone()));
    workers
}
