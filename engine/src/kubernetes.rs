//! A Kubernetes as the API: reached from inside or by a kubeconfig, shared with other engines.

use std::{path::PathBuf, sync::Arc};

use fleetwright_api::{GROUP, VERSION, crds};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{self, Connection},
    error::{Failure, step},
    leadership::{
        Elector, Leadership, Now,
        fence::{self, Fenced},
    },
    wiring::{self, FAREWELL, Workers},
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
    now: Now,
    workers: Workers,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let leading = workers.metrics.leading.clone();
    let elector = Elector::new(
        connected.client.clone(),
        &connected.namespace,
        identity,
        now,
        Arc::clone(&workers.clock),
    );
    let mut term = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        term = elector.acquire() => term,
    };
    tracing::info!("leads");
    leading.set(1);
    let mut tasks = JoinSet::new();
    let client = fence::client(&term.leadership, connected.client.clone());
    fenced(workers, &term.leadership).start(client, &mut tasks, &stop)?;
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        lost = elector.hold(&mut term) => {
            let why = format!("this engine leads no longer: {lost}");
            Some(Failure::again(why).hint("start it again: another engine works meanwhile"))
        }
        ended = tasks.join_next() => Some(wiring::ended(ended)),
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
    cloud.connections = Arc::new(Fenced::new(leadership.clone(), cloud.connections.clone()));
    cloud.etcd = Arc::new(Fenced::new(leadership.clone(), cloud.etcd.clone()));
    let fence = |provider| Arc::new(Fenced::new(leadership.clone(), provider)) as _;
    workers.providers = workers.providers.map(fence);
    workers
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use async_trait::async_trait;
    use fleetwright_api::{
        ProviderAccount,
        provider_account::ProviderAccountSpec,
        random::{OsRandom, Random},
        time::{Clock, SystemClock},
    };
    use fleetwright_providers::{
        Account, ConfigSchema, CreateInstance, Instance, ListScope, Provider, ProviderError,
        Registry, UpdateInstance,
    };
    use kube::api::PostParams;
    use parking_lot::Mutex;

    use super::*;
    use crate::{cloud, embedded::Embedded, error::Kind, metrics::Metrics};

    /// Sleeps through the deadline inside a call, as a stopped process does; counts the steps after it.
    struct Sleeper {
        now: Arc<Mutex<Duration>>,
        before: AtomicUsize,
        after: AtomicUsize,
    }

    #[async_trait]
    impl Provider for Sleeper {
        fn name(&self) -> &str {
            "sleeper"
        }
        fn schemas(&self) -> Vec<ConfigSchema> {
            Vec::new()
        }
        async fn create(&self, _: &Account, _: &CreateInstance) -> Result<Instance, ProviderError> {
            unreachable!("there are no Machines")
        }
        async fn get(&self, _: &Account, _: &str) -> Result<Option<Instance>, ProviderError> {
            unreachable!("there are no Machines")
        }
        async fn list(&self, _: &Account, _: &ListScope) -> Result<Vec<Instance>, ProviderError> {
            self.before.fetch_add(1, Ordering::SeqCst);
            *self.now.lock() += Duration::from_secs(30);
            tokio::task::yield_now().await;
            self.after.fetch_add(1, Ordering::SeqCst);
            Ok(Vec::new())
        }
        async fn update(
            &self,
            _: &Account,
            _: &str,
            _: &UpdateInstance,
        ) -> Result<Instance, ProviderError> {
            unreachable!("there are no Machines")
        }
        async fn delete(&self, _: &Account, _: &str, _: &str) -> Result<(), ProviderError> {
            unreachable!("there are no Machines")
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_leads_stops_at_its_deadline_before_anybody_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        let data = crate::data_dir::DataDir::open(dir.path()).unwrap();
        let api = Embedded::open(&data, None, &clock, &random).await.unwrap();
        let client = api.server.client("default");
        let spec = ProviderAccountSpec {
            provider: "sleeper".into(),
            ..ProviderAccountSpec::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &ProviderAccount::new("a", spec))
            .await
            .unwrap();
        let connected = Connected {
            client,
            url: String::new(),
            namespace: "default".into(),
        };
        let now = Arc::new(Mutex::new(Duration::from_secs(100)));
        let sleeper = Arc::new(Sleeper {
            now: Arc::clone(&now),
            before: AtomicUsize::new(0),
            after: AtomicUsize::new(0),
        });
        let workers = Workers {
            providers: Registry::new([sleeper.clone() as Arc<dyn Provider>]),
            cloud: cloud::none(),
            clock,
            random,
            installation: "default".into(),
            metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
            cache: dir.path().join("git"),
            trail: Default::default(),
            token: None,
            escrow: None,
        };
        let stop = CancellationToken::new();
        let read: Now = Arc::new(move || *now.lock());
        let ended = take_part(&connected, "me".into(), read, workers, stop).await;
        let failure = ended.unwrap_err();
        assert_eq!(failure.kind, Kind::Again, "{failure}");
        assert_eq!(sleeper.before.load(Ordering::SeqCst), 1);
        assert_eq!(sleeper.after.load(Ordering::SeqCst), 0, "it went on");
    }
}
