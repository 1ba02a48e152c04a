//! One client for each cluster, made of the Secret with its kubeconfig.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use async_trait::async_trait;
use fleetwright_api::random::Random;
use fleetwright_providers::{ClusterConnections, ClusterRef, ConnectionError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    back_off, certificates,
    client::{Doubt, connect},
    kubeconfig,
};

/// Key of the kubeconfig in its Secret, as in Cluster API.
const KEY: &str = "value";
/// How long what the Secret said holds while nothing gives reason to doubt it.
const SECRET: Duration = Duration::from_secs(60);
/// How long it holds that a cluster answered, and how long it may take to: less than who follows its nodes waits between two looks.
const PROBE: Duration = Duration::from_secs(25);
const PROBE_ANSWER: Duration = Duration::from_secs(10);
/// What of a reason is told, in characters.
const LONGEST_WHY: usize = 500;
/// A cluster that nobody asked for in so long is gone.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The way to real clusters: one client for each, for as long as its Secret stays as it is. A cluster that does not answer is left alone
/// for a while (1 to 60 s): who asks meanwhile is told the same at once.
pub struct Connections {
    /// Of the API that holds the Secrets.
    api: Client,
    random: Arc<dyn Random>,
    clusters: Mutex<BTreeMap<(String, String), Known>>,
}

struct Known {
    /// When somebody asked last.
    asked: Instant,
    way: Arc<tokio::sync::Mutex<Way>>,
}

/// What is known of the way to one cluster.
#[derive(Default)]
struct Way {
    live: Option<Live>,
    /// Failures in a row.
    failures: u32,
    /// Why and until when nobody is asked.
    down: Option<(ConnectionError, Instant)>,
}

struct Live {
    client: Client,
    /// Retires the client when another takes its place, or nobody asks for the cluster any more.
    _retires: DropGuard,
    doubt: Doubt,
    /// Name and resource version of the Secret that it is made of.
    secret: (String, Option<String>),
    /// When the Secret was read last.
    read: Instant,
    /// When the cluster answered last.
    answered: Option<Instant>,
}

impl Connections {
    /// Connections by the Secrets that `api` holds.
    pub fn new(api: Client, random: Arc<dyn Random>) -> Self {
        Self {
            api,
            random,
            clusters: Mutex::default(),
        }
    }

    fn way(&self, cluster: &ClusterRef) -> Arc<tokio::sync::Mutex<Way>> {
        let now = Instant::now();
        let key = (cluster.namespace.clone(), cluster.name.clone());
        let mut clusters = self.clusters.lock();
        if let Some(known) = clusters.get_mut(&key) {
            known.asked = now;
            return Arc::clone(&known.way);
        }
        clusters.retain(|_, known| now.duration_since(known.asked) < FORGOTTEN);
        let way = Arc::default();
        let known = Known {
            asked: now,
            way: Arc::clone(&way),
        };
        clusters.insert(key, known);
        way
    }

    /// The client of the cluster, once its Secret and the cluster itself are known to be well.
    async fn ensure(&self, cluster: &ClusterRef, way: &mut Way) -> Result<Client, ConnectionError> {
        let doubted = way.live.as_ref().is_some_and(|live| live.doubt.take());
        let holds = |since: Instant, time: Duration| !doubted && since.elapsed() < time;
        let known = way
            .live
            .as_ref()
            .is_some_and(|live| live.secret.0 == cluster.kubeconfig && holds(live.read, SECRET));
        if !known {
            self.look(cluster, way).await?;
        }
        let Some(live) = &mut way.live else {
            return Err(ConnectionError::NotYet);
        };
        if !live.answered.is_some_and(|at| holds(at, PROBE)) {
            live.answered = None;
            probe(cluster, &live.client).await?;
            // What the probe itself met was told.
            live.doubt.take();
            live.answered = Some(Instant::now());
        }
        Ok(live.client.clone())
    }

    /// Reads the Secret, and makes another client where it has changed.
    async fn look(&self, cluster: &ClusterRef, way: &mut Way) -> Result<(), ConnectionError> {
        let (namespace, name) = (&cluster.namespace, &cluster.kubeconfig);
        let broken = |why: String| {
            ConnectionError::Broken(format!(
                "the kubeconfig in Secret {namespace}/{name}: {why}"
            ))
        };
        let secrets = Api::<Secret>::namespaced(self.api.clone(), namespace);
        let secret = match secrets.get_opt(name).await {
            Ok(secret) => secret,
            // Nothing is known of the Secret, so nothing is concluded from that.
            Err(_) if way.live.as_ref().is_some_and(|live| live.secret.0 == *name) => return Ok(()),
            Err(error) => return Err(broken(format!("it cannot be read: {}", chain(&error)))),
        };
        let Some(secret) = secret else {
            way.live = None;
            return Err(match cluster.provider {
                Some(_) => ConnectionError::NotYet,
                None => broken(
                    "there is no such Secret: make it, with the kubeconfig under key value".into(),
                ),
            });
        };
        let now = Instant::now();
        let read = (name.clone(), secret.resource_version());
        if let Some(live) = way.live.as_mut().filter(|live| live.secret == read) {
            live.read = now;
            return Ok(());
        }
        way.live = None;
        let value = secret.data.as_ref().and_then(|data| data.get(KEY));
        let Some(value) = value else {
            return Err(broken(
                "it has no key value, which holds the kubeconfig".into(),
            ));
        };
        let config = kubeconfig::read(&value.0).map_err(|why| broken(why.to_string()))?;
        let (doubt, retired) = (Doubt::default(), CancellationToken::new());
        let client = connect(&config, doubt.clone(), retired.clone());
        let client = client.map_err(|e| broken(chain(&e)))?;
        tracing::debug!(%namespace, cluster = %cluster.name, secret = %name, "another kubeconfig is used");
        way.live = Some(Live {
            client,
            _retires: retired.drop_guard(),
            doubt,
            secret: read,
            read: now,
            answered: None,
        });
        Ok(())
    }
}

/// Asks the cluster for its version, which everybody with credentials may know.
async fn probe(cluster: &ClusterRef, client: &Client) -> Result<(), ConnectionError> {
    let why = match timeout(PROBE_ANSWER, client.apiserver_version()).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => format!(
            "the cluster's API does not accept the credentials in Secret {}/{}: {}",
            cluster.namespace, cluster.kubeconfig, status.message
        ),
        Ok(Err(error)) => format!("the cluster's API does not answer: {}", chain(&error)),
        Err(_) => format!(
            "the cluster's API has not answered within {} s",
            PROBE_ANSWER.as_secs()
        ),
    };
    Err(broken(why))
}

/// Why the way is broken, in words that are in part those of others' servers.
pub(crate) fn broken(why: impl Into<String>) -> ConnectionError {
    let why: String = why.into();
    ConnectionError::Broken(why.chars().take(LONGEST_WHY).collect())
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Some repeat their cause.
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[async_trait]
impl ClusterConnections for Connections {
    async fn client(&self, cluster: &ClusterRef) -> Result<Client, ConnectionError> {
        let way = self.way(cluster);
        let mut way = way.lock().await;
        if let Some((error, until)) = &way.down
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let found = self.ensure(cluster, &mut way).await;
        match &found {
            Ok(_) => (way.failures, way.down) = (0, None),
            // Nobody was asked: the next look costs no cluster anything.
            Err(ConnectionError::NotYet) => way.down = None,
            Err(error) => {
                way.failures = way.failures.saturating_add(1);
                let wait = back_off::wait(way.failures, self.random.next_u64());
                way.down = Some((error.clone(), Instant::now() + wait));
            }
        }
        found
    }

    /// Whoever made the cluster has its kubeconfig.
    async fn kubeconfig(&self, _: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        Ok(None)
    }

    async fn serving_certificates(
        &self,
        cluster: &ClusterRef,
    ) -> Result<BTreeMap<String, Timestamp>, ConnectionError> {
        certificates::look(&self.client(cluster).await?).await
    }
}
