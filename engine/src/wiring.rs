//! Puts the parts together: store, API, cloud, controllers, sync, webhooks, commit statuses. Everything talks through
//! the API; one JoinSet owns all tasks, one token ends them.

use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use fleetwright_api::{
    crds,
    random::{OsRandom, Random, hex},
    secret::SecretText,
    time::{Clock, SystemClock},
};
use fleetwright_apiserver::{self as apiserver, ApiServer, Auth, Tls, User, write_kubeconfig};
use fleetwright_controllers::{Controllers, Metrics};
use fleetwright_gitops::{follow, sync::Sync};
use fleetwright_provider_sim::{Cloud, CloudOptions, RemoteCloud};
use fleetwright_providers::{ClusterConnections, Provider, Registry};
use fleetwright_webhook::{outbox, receiver::Receiver};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    data_dir::DataDir,
    error::{Failure, step},
    http,
    repository::catalogue,
    setup::{self, Wish},
    state,
};

/// How long a simulated cloud of its own may take to answer at the start.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long tasks may take to end.
const FAREWELL: Duration = Duration::from_millis(1500);

/// What an engine is started with.
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) http_listen: SocketAddr,
    pub(crate) installation: String,
    pub(crate) admin: Option<PathBuf>,
    pub(crate) simcloud: Option<String>,
    pub(crate) token: Option<SecretText>,
    pub(crate) webhook_secret: Option<SecretText>,
    pub(crate) wish: Wish,
}

/// A running engine.
pub(crate) struct Engine {
    pub(crate) client: kube::Client,
    pub(crate) api_url: String,
    pub(crate) http_url: String,
    /// Of the simulated cloud.
    pub(crate) cloud_url: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) tasks: JoinSet<Result<(), Failure>>,
    pub(crate) stop: CancellationToken,
}

impl Engine {
    /// Starts every part on the state in `data`.
    ///
    /// # Errors
    /// A part cannot start: an address is taken, the state cannot be read, the source is another one.
    pub(crate) async fn start(data: &DataDir, options: Options) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let random: Arc<dyn Random> = Arc::new(OsRandom);
        let server = open_api(data, &clock, &random).await?;
        let client = server.client("default");
        setup::fleet(&client, &options.wish).await?;
        if let Some(file) = &options.admin {
            admin::apply(&client, file).await?;
        }
        setup::accounts(&client).await?;

        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        let token = admin_token(data.path(), random.as_ref())?;
        let tls = step(
            Tls::open(&data.path().join("pki")),
            "cannot make or read the certificates",
        )?;
        let listener = bind(options.listen, &data.path().join("api.addr")).await?;
        let api_url = format!("https://{}", address(&listener)?);
        let kubeconfig = std::path::absolute(data.path().join("kubeconfig"))
            .context("the data folder has no path")?;
        step(
            write_kubeconfig(&kubeconfig, &api_url, tls.authority(), &token),
            "cannot write the kubeconfig",
        )?;
        let auth = Auth::default().with(&token, User::admin());
        let serving = server.serve(listener, tls, auth, stop.clone());
        tasks.spawn(async move { step(serving.await, "the API server ended") });

        let mut metrics = prometheus_client::registry::Registry::with_prefix("fleetwright");
        let (provider, connections, cloud_url) =
            cloud(data.path(), &options, &clock, &random, &mut tasks, &stop).await?;
        let providers = Registry::new([provider]);
        let catalogue = catalogue(providers.schemas());
        let controllers = Controllers::new(fleetwright_controllers::Context {
            client: client.clone(),
            providers,
            connections,
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            installation: options.installation.clone(),
            metrics: Metrics::register(&mut metrics),
        });
        let run = controllers.run(stop.clone());
        tasks.spawn(async move {
            run.await;
            Ok(())
        });
        let sync = Sync::new(follow::Context {
            client: client.clone(),
            catalogue: Arc::new(catalogue),
            cache: data.path().join("git"),
            installation: options.installation,
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
        });
        let run = sync.run(stop.clone());
        tasks.spawn(async move {
            run.await;
            Ok(())
        });
        let defaults = outbox::Defaults {
            token: options.token,
            api_url: None,
        };
        let outbox = outbox::Outbox::new(client.clone(), defaults, Arc::clone(&clock), random);
        let run = step(outbox, "cannot post commit statuses")?.run(stop.clone());
        tasks.spawn(async move {
            run.await;
            Ok(())
        });
        let listener = bind(options.http_listen, &data.path().join("http.addr")).await?;
        let http_url = format!("http://{}", address(&listener)?);
        let receiver = Receiver::new(client.clone(), clock, options.webhook_secret);
        tasks.spawn(http::serve(
            listener,
            http::router(receiver, metrics),
            stop.clone(),
        ));
        Ok(Self {
            client,
            api_url,
            http_url,
            cloud_url,
            kubeconfig,
            tasks,
            stop,
        })
    }

    /// Ends all tasks; what does not end in time is cut off.
    pub(crate) async fn shutdown(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            self.tasks.abort_all();
        }
    }
}

/// The API over the state in `data`, with our kinds.
async fn open_api(
    data: &DataDir,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<ApiServer, Failure> {
    let store = state::open(data)?;
    let options = apiserver::Options::new(Arc::clone(clock), Arc::clone(random));
    let server = step(
        ApiServer::new(store, options),
        "cannot start the API server",
    )?;
    let ours = crds::all()
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>();
    step(
        server.install_crds(&step(ours, "our kinds")?).await,
        "cannot install our kinds",
    )?;
    Ok(server)
}

/// The cloud as a provider, the way to its clusters, and its URL.
type Cloudy = (Arc<dyn Provider>, Arc<dyn ClusterConnections>, String);

/// The simulated cloud: in this process, or one that runs by itself.
async fn cloud(
    data: &Path,
    options: &Options,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
    tasks: &mut JoinSet<Result<(), Failure>>,
    stop: &CancellationToken,
) -> Result<Cloudy, Failure> {
    if let Some(url) = &options.simcloud {
        let remote = RemoteCloud::connect(url, PATIENCE).await.map_err(|e| {
            Failure::usage(format!("cannot reach the simulated cloud: {e}"))
                .hint("start it with `fleetwright simcloud --listen ADDR --data DIR`")
        })?;
        let remote = Arc::new(remote);
        return Ok((remote.clone(), remote, url.clone()));
    }
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
    Ok((Arc::new(cloud.clone()), Arc::new(cloud), url))
}

/// The administrator's token, made at the first start.
fn admin_token(data: &Path, random: &dyn Random) -> Result<String, Failure> {
    let file = data.join("token");
    if let Ok(token) = std::fs::read_to_string(&file)
        && !token.trim().is_empty()
    {
        return Ok(token.trim().to_owned());
    }
    let mut bytes = [0u8; 24];
    random.fill(&mut bytes);
    let token = hex(&bytes);
    let write = || -> std::io::Result<()> {
        let mut out = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&file)?;
        out.write_all(token.as_bytes())
    };
    step(write(), "cannot write the token")?;
    Ok(token)
}

/// Listens. With port 0 the address in `remembered` is tried first, so that a restart keeps what clients know.
pub(crate) async fn bind(wanted: SocketAddr, remembered: &Path) -> Result<TcpListener, Failure> {
    let before = std::fs::read_to_string(remembered)
        .ok()
        .and_then(|text| text.trim().parse::<SocketAddr>().ok());
    let again = before.filter(|before| wanted.port() == 0 && before.ip() == wanted.ip());
    let listener = match again {
        Some(again) => match TcpListener::bind(again).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(wanted).await,
        },
        None => TcpListener::bind(wanted).await,
    };
    let listener = listener.map_err(|e| {
        Failure::usage(format!("cannot listen on {wanted}: {e}"))
            .hint("choose another address with --listen or --http-listen")
    })?;
    std::fs::write(remembered, format!("{}\n", address(&listener)?)).ok();
    Ok(listener)
}

fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    step(listener.local_addr(), "the listener has no address")
}
