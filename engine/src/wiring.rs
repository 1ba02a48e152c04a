//! Puts the parts together: API, cloud, controllers, sync, webhooks, commit statuses. Everything talks through the API; one
//! JoinSet owns all tasks, one token ends them. Only here it is known where the API lives.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use fleetwright_api::{
    decision::Trail,
    random::{OsRandom, Random},
    secret::SecretText,
    time::{Clock, SystemClock},
};
use fleetwright_controllers::{Controllers, Escrow};
use fleetwright_gitops::{
    follow,
    notes::Notes,
    source::{AppTokens, Caches},
    sync::Sync,
};
use fleetwright_providers::Registry;
use fleetwright_webhook::{
    forge::{Defaults, Forges},
    outbox::Outbox,
    receiver::Receiver,
};
use fleetwright_workload::{Connections, Etcd};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    cloud::{self, Cloudy},
    clusters::Routed,
    data_dir::DataDir,
    embedded::Embedded,
    error::{Failure, step},
    http::{self, address, bind},
    kubernetes::{self, Connected, Target},
    leadership,
    metrics::Metrics,
    notes, progress, providers,
    pulls::Pulls,
    repository::catalogue_of,
    setup::{self, Wish},
    tokens::Tokens,
    trail,
};

/// How long tasks may take to end.
pub(crate) const FAREWELL: Duration = Duration::from_millis(1500);

/// Where the API lives.
pub(crate) enum Place {
    /// In this process, and served there.
    Here {
        /// Where it is served.
        listen: SocketAddr,
        /// The file of its audit log.
        audit: Option<PathBuf>,
    },
    /// On a Kubernetes.
    Kubernetes(Target),
}

/// What an engine is started with.
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) http_listen: SocketAddr,
    pub(crate) installation: String,
    pub(crate) admin: Option<PathBuf>,
    pub(crate) simcloud: Option<String>,
    pub(crate) token: Option<SecretText>,
    pub(crate) webhook_secret: Option<SecretText>,
    pub(crate) escrow: Option<Escrow>,
    /// The Fleet to make; on Kubernetes there may be others.
    pub(crate) wish: Option<Wish>,
}

/// An engine that serves, and that works once it is told to.
pub(crate) struct Engine {
    pub(crate) api_url: String,
    pub(crate) http_url: String,
    /// Of the simulated cloud.
    pub(crate) cloud_url: Option<String>,
    /// That leads to the API.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Its name in the election.
    pub(crate) identity: Option<String>,
    client: kube::Client,
    connected: Option<Connected>,
    workers: Workers,
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
}

impl Engine {
    /// Starts what serves, on the state in `data`: in the process the whole state, on Kubernetes caches alone.
    ///
    /// # Errors
    /// A part cannot start: an address is taken, the state cannot be read, the source is another one.
    pub(crate) async fn start(data: &DataDir, options: Options) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        let identity = leadership::identity(random.as_ref());
        let mut metrics = prometheus_client::registry::Registry::with_prefix("fleetwright");
        let (client, connected, api_url, kubeconfig, simulated) = match &options.place {
            Place::Here { listen, audit } => {
                let api = Embedded::open(data, audit.as_deref(), &clock, &random).await?;
                api.server.register_metrics(&mut metrics);
                let client = api.server.client("default");
                prepare(&client, &options, true).await?;
                let served = api.listen(*listen, random.as_ref()).await?;
                let serving =
                    api.server
                        .serve(served.listener, served.tls, served.auth, stop.clone());
                tasks.spawn(async move { step(serving.await, "the API server ended") });
                let simulated = match &options.simcloud {
                    Some(url) => cloud::remote(url, None).await?,
                    None => cloud::local(data.path(), &clock, &random, &mut tasks, &stop).await?,
                };
                let kubeconfig = Some(served.kubeconfig);
                (client, None, served.url, kubeconfig, simulated)
            }
            Place::Kubernetes(target) => {
                let connected = target.connect().await?;
                let client = connected.client.clone();
                let simulated = match &options.simcloud {
                    Some(url) => cloud::remote(url, Some(&identity)).await?,
                    None => cloud::none(),
                };
                prepare(&client, &options, options.simcloud.is_some()).await?;
                let kubeconfig = match target {
                    Target::File { file, .. } => Some(file.clone()),
                    Target::Inside => None,
                };
                let url = connected.url.clone();
                (client, Some(connected), url, kubeconfig, simulated)
            }
        };

        let real = Arc::new(Connections::new(client.clone(), Arc::clone(&random)));
        let real_etcd = Etcd::new(client.clone(), Arc::clone(&real), Arc::clone(&clock));
        let cloud = Cloudy {
            connections: Arc::new(Routed {
                simulated: Arc::clone(&simulated.connections),
                real,
            }),
            etcd: Arc::new(Routed {
                simulated: Arc::clone(&simulated.etcd),
                real: Arc::new(real_etcd),
            }),
            ..simulated
        };
        let trail = match &options.place {
            Place::Here { .. } => trail::in_folder(data.path(), &clock)?,
            Place::Kubernetes(_) => trail::in_log(),
        };
        let counted = Metrics::register(&mut metrics);
        let forges = counted.forges.clone();
        let workers = Workers {
            providers: providers::registry(
                Arc::clone(&cloud.provider),
                &client,
                &options.installation,
            ),
            cloud,
            clock: Arc::clone(&clock),
            random,
            installation: options.installation,
            metrics: counted,
            cache: data.path().join("git"),
            trail,
            token: options.token,
            escrow: options.escrow,
        };
        let listener = bind(options.http_listen, &data.path().join("http.addr")).await?;
        let http_url = format!("http://{}", address(&listener)?);
        let receiver = Receiver::new(client.clone(), clock, options.webhook_secret, forges);
        let router = http::router(receiver, metrics, client.clone());
        tasks.spawn(http::serve(listener, router, stop.clone()));
        Ok(Self {
            api_url,
            http_url,
            cloud_url: workers.cloud.url.clone(),
            kubeconfig,
            identity: connected.is_some().then_some(identity),
            client,
            connected,
            workers,
            tasks,
            stop,
        })
    }

    /// Works until `until` is ready, or until a part ends by itself; then ends all parts.
    ///
    /// # Errors
    /// That of `until` or of the part that ended.
    pub(crate) async fn work(
        self,
        until: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let Self {
            client,
            connected,
            identity,
            workers,
            mut tasks,
            stop,
            ..
        } = self;
        match connected {
            None => {
                workers.metrics.leading.set(1);
                workers.start(client, &mut tasks, &stop)?;
            }
            Some(connected) => {
                let stop = stop.clone();
                let identity = identity.unwrap_or_default();
                let now: leadership::Now = Arc::new(leadership::since_boot);
                tasks.spawn(async move {
                    kubernetes::take_part(&connected, identity, now, workers, stop).await
                });
            }
        }
        let result = tokio::select! {
            biased;
            result = until => result,
            part = tasks.join_next() => Err(ended(part)),
        };
        stop.cancel();
        let all = async { while tasks.join_next().await.is_some() {} };
        // What does not end in time is cut off.
        tokio::time::timeout(FAREWELL, all).await.ok();
        result
    }
}

/// What the end of a part means that was to go on.
pub(crate) fn ended(part: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Failure {
    match part {
        Some(Ok(Err(failure))) => failure,
        Some(Err(panic)) => {
            Failure::from(anyhow::Error::new(panic).context("a part of the engine broke"))
        }
        _ => Failure::from(anyhow::anyhow!("a part of the engine ended by itself")),
    }
}

/// Writes what the command line wants into the API.
async fn prepare(client: &kube::Client, options: &Options, simulated: bool) -> Result<(), Failure> {
    if let Some(wish) = &options.wish {
        setup::fleet(client, wish).await?;
    }
    if let Some(file) = &options.admin {
        admin::apply(client, file).await?;
    }
    if simulated {
        setup::accounts(client).await?;
    }
    Ok(())
}

/// What one engine alone may do at a time: controllers, sync and commit statuses.
pub(crate) struct Workers {
    pub(crate) providers: Registry,
    pub(crate) cloud: Cloudy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) installation: String,
    pub(crate) metrics: Metrics,
    /// Folder of what was fetched.
    pub(crate) cache: PathBuf,
    /// Where decisions are written down.
    pub(crate) trail: Trail,
    pub(crate) token: Option<SecretText>,
    /// Where the keys of clusters are kept beside the state.
    pub(crate) escrow: Option<Escrow>,
}

impl Workers {
    /// Starts them over `client`.
    ///
    /// # Errors
    /// The platform's trust store cannot be read.
    pub(crate) fn start(
        self,
        client: kube::Client,
        tasks: &mut JoinSet<Result<(), Failure>>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let providers = self.providers;
        let catalogue = Arc::new(catalogue_of(providers.schemas()));
        let forges = Arc::new(step(Forges::new(), "cannot reach forges")?);
        let tokens: Arc<dyn AppTokens> = Arc::new(Tokens(forges.apps()));
        let caches = Caches::from(self.cache);
        let defaults = Defaults {
            token: self.token,
            api_url: None,
        };
        let controllers = Controllers::new(fleetwright_controllers::Context {
            client: client.clone(),
            providers: providers.clone(),
            connections: self.cloud.connections,
            etcd: self.cloud.etcd,
            escrow: self.escrow,
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            installation: self.installation.clone(),
            metrics: self.metrics.controllers,
            trail: self.trail.clone(),
        });
        let sync = Sync::new(follow::Context {
            client: client.clone(),
            catalogue: Arc::clone(&catalogue),
            cache: caches.clone(),
            tokens: Some(Arc::clone(&tokens)),
            repositories: None,
            installation: self.installation.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            metrics: self.metrics.sync,
            trail: self.trail,
        });
        let notes = Notes::new(
            client.clone(),
            Arc::clone(&catalogue),
            caches.clone(),
            Some(Arc::clone(&tokens)),
        );
        let pulls = Pulls {
            client: client.clone(),
            catalogue,
            caches,
            tokens: Some(tokens),
            providers,
            forge: Arc::clone(&forges) as _,
            defaults: defaults.clone(),
            installation: self.installation,
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            metrics: self.metrics.pulls,
        };
        let outbox = Outbox::new(
            client.clone(),
            forges,
            defaults,
            self.clock,
            self.random,
            self.metrics.forges,
        )
        .with_notes(Arc::new(notes::Notes(notes)));
        let mut spawn = |part: futures::future::BoxFuture<'static, ()>| {
            tasks.spawn(async move {
                part.await;
                Ok(())
            });
        };
        spawn(Box::pin(controllers.run(stop.clone())));
        spawn(Box::pin(sync.run(stop.clone())));
        spawn(Box::pin(outbox.run(stop.clone())));
        spawn(Box::pin(pulls.run(stop.clone())));
        spawn(Box::pin(progress::show(client, stop.clone())));
        Ok(())
    }
}
