//! Whole fleets on the simulated cloud, from nothing to running: the engine and the cloud are processes of their own, and
//! what is measured is seen through their APIs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use fleetwright_api::{Cluster, Machine, MachineDeployment, machine::MachinePhase};
use fleetwright_core::status;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    Args, Part,
    process::{Process, Usage},
    table::{Table, say},
};

/// Time between two looks of the checker at a small fleet; each costs the engine what it lists.
const LOOK: Duration = Duration::from_millis(100);
/// The same at a large one.
const SLOW_LOOK: Duration = Duration::from_millis(500);
/// Longest time that a fleet or an upgrade may take.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Nothing is written for this long once a fleet has come to rest.
pub(crate) const REST: Duration = Duration::from_secs(2);
/// Objects in a page of a list: a list in one piece would be the engine's peak of memory.
const PAGE: u32 = 250;

/// The layout of a fleet: each cluster has one control-plane machine and pools that share the others.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) machines: usize,
    pub(crate) clusters: usize,
    pub(crate) pools: usize,
}

impl Shape {
    /// Time between two looks.
    fn look(self) -> Duration {
        if self.machines > 2000 {
            SLOW_LOOK
        } else {
            LOOK
        }
    }

    /// Name, replicas and surge of each pool.
    pub(crate) fn bounds(self) -> BTreeMap<String, (usize, usize)> {
        (0..self.clusters)
            .flat_map(|n| {
                let sizes = self.sizes(n).into_iter().enumerate();
                sizes
                    .map(move |(pool, size)| (format!("c{n:03}-p{pool}"), (size, size.div_ceil(5))))
            })
            .collect()
    }

    /// Machines of each pool of the cluster `n`.
    pub(crate) fn sizes(self, n: usize) -> Vec<usize> {
        let share = |all: usize, parts: usize, n: usize| all / parts + usize::from(n < all % parts);
        let workers = share(self.machines, self.clusters, n).saturating_sub(1);
        (0..self.pools)
            .map(|pool| share(workers, self.pools, pool))
            .collect()
    }

    pub(crate) fn words(self) -> String {
        let (machines, clusters, pools) =
            (self.machines, self.clusters, self.pools * self.clusters);
        format!("{machines} machines, clusters × {clusters}, pools × {pools}")
    }

    /// The documents of the cluster `n`.
    fn documents(self, n: usize, version: &str) -> String {
        let account = ["sim-eu", "sim-us", "sim-ap"][n % 3];
        let config = format!(
            "{{apiVersion: sim.fleetwright.dev/v1alpha1, kind: SimMachineConfig, account: {account}, bootSeconds: 0}}"
        );
        let mut text = format!(
            "apiVersion: fleetwright.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: c{n:03}}}\nspec:\n  version: {version}\n  \
             controlPlane: {{machines: {{template: {{spec: {{providerConfig: {config}}}}}}}}}\n"
        );
        for (pool, size) in self.sizes(n).into_iter().enumerate() {
            text += &format!(
                "---\napiVersion: fleetwright.dev/v1alpha1\nkind: MachineDeployment\nmetadata: {{name: c{n:03}-p{pool}}}\nspec:\n  \
                 clusterName: c{n:03}\n  replicas: {size}\n  rollout: {{strategy: {{rollingUpdate: {{maxSurge: 20%, maxUnavailable: 0}}}}}}\n  \
                 template: {{spec: {{providerConfig: {config}}}}}\n"
            );
        }
        text
    }
}

/// What making a fleet took.
pub(crate) struct Made {
    pub(crate) shape: Shape,
    pub(crate) seconds: f64,
    pub(crate) engine: Usage,
    pub(crate) cloud: Usage,
    pub(crate) writes: u64,
    reconciles: BTreeMap<String, f64>,
    /// CPU of the engine for each second at rest, in milliseconds.
    rest: f64,
}

/// A fleet at work.
pub(crate) struct Fleet {
    pub(crate) shape: Shape,
    repo: PathBuf,
    pub(crate) cloud: Process,
    pub(crate) engine: Process,
    pub(crate) client: Client,
    begun: Instant,
    first: u64,
    dir: tempfile::TempDir,
}

impl Fleet {
    pub(crate) async fn start(shape: Shape, folder: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir_in(folder)?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let repo = dir.path().join("repo");
        std::fs::create_dir(&repo)?;
        let cloud = Process::start(&["simcloud", "--data", &path("cloud")], "journal").await?;
        let url = cloud.told("simcloud")?.to_owned();
        let (repo_path, data) = (path("repo"), path("data"));
        let args = ["up", &repo_path, "--data", &data, "--simcloud", &url];
        let engine = Process::start(&args, "try").await?;
        let client = connect(Kubeconfig::read_from(engine.told("kubeconfig")?)?).await?;
        let first = revision(&client).await?;
        let begun = Instant::now();
        // A directory is followed as a whole: it appears in one move, as a checkout would.
        let beside = dir.path().join("fleet");
        std::fs::create_dir(&beside)?;
        for n in 0..shape.clusters {
            std::fs::write(
                beside.join(format!("c{n:03}.yaml")),
                shape.documents(n, "v1.33.2"),
            )?;
        }
        std::fs::rename(&beside, repo.join("fleet"))?;
        Ok(Self {
            shape,
            repo,
            cloud,
            engine,
            client,
            begun,
            first,
            dir,
        })
    }

    /// Waits until every Machine runs and has its node in its cluster's API.
    pub(crate) async fn made(&self) -> anyhow::Result<Made> {
        let pools = Api::<MachineDeployment>::all(self.client.clone());
        let wanted = self.shape.clusters * self.shape.pools;
        loop {
            // The pools are few: asking them costs the engine little. What they say is then checked machine by machine.
            let list = list(&pools).await?;
            let complete = list.iter().filter(|pool| status::is_complete(pool)).count();
            if complete == wanted && self.all_there().await? {
                break;
            }
            anyhow::ensure!(
                self.begun.elapsed() < PATIENCE,
                "the fleet does not run after {PATIENCE:?}: {complete} of {wanted} pools are complete"
            );
            tokio::time::sleep(self.shape.look()).await;
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let writes = self.rest().await? - self.first;
        let engine = self.engine.usage()?;
        tokio::time::sleep(REST).await;
        let later = self.engine.usage()?.cpu;
        Ok(Made {
            shape: self.shape,
            seconds,
            engine,
            cloud: self.cloud.usage()?,
            writes,
            reconciles: self.reconciles().await?,
            rest: (later - engine.cpu) * 1e3 / REST.as_secs_f64(),
        })
    }

    /// Whether every Machine runs and its node is in the workload cluster's own API.
    async fn all_there(&self) -> anyhow::Result<bool> {
        let machines = list(&Api::<Machine>::all(self.client.clone())).await?;
        let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for machine in &machines {
            let status = machine.status.clone().unwrap_or_default();
            match status.node_ref {
                Some(node) if status.phase == Some(MachinePhase::Running) => named
                    .entry(machine.spec.cluster_name.clone())
                    .or_default()
                    .insert(node.name),
                _ => return Ok(false),
            };
        }
        if machines.len() != self.shape.machines || named.len() != self.shape.clusters {
            return Ok(false);
        }
        for (cluster, wanted) in named {
            let secrets = Api::<Secret>::namespaced(self.client.clone(), "default");
            let secret = secrets.get(&format!("{cluster}-kubeconfig")).await?;
            let value = secret.data.and_then(|mut data| data.remove("value"));
            let text = String::from_utf8(value.context("the Secret has no kubeconfig")?.0)?;
            let client = connect(Kubeconfig::from_yaml(&text)?).await?;
            let nodes = Api::<Node>::all(client)
                .list(&ListParams::default())
                .await?;
            let there: BTreeSet<_> = nodes.iter().map(ResourceExt::name_any).collect();
            if !wanted.is_subset(&there) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until nothing is written any more; gives the revision.
    pub(crate) async fn rest(&self) -> anyhow::Result<u64> {
        let begun = Instant::now();
        let (mut last, mut since) = (revision(&self.client).await?, begun);
        while since.elapsed() < REST {
            tokio::time::sleep(LOOK).await;
            let now = revision(&self.client).await?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "the fleet does not come to rest: revision {now} after {PATIENCE:?}"
            );
        }
        Ok(last)
    }

    /// Reconciles so far, by controller.
    async fn reconciles(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        self.counted("reconciles", |labels| {
            label(labels, "controller").to_owned()
        })
        .await
    }

    /// A counter of the engine's: its values summed by what `name` makes of their labels.
    pub(crate) async fn counted(
        &self,
        counter: &str,
        name: impl Fn(&str) -> String,
    ) -> anyhow::Result<BTreeMap<String, f64>> {
        let text = get(self.engine.told("metrics")?).await?;
        let start = format!("fleetwright_{counter}_total{{");
        let mut out: BTreeMap<String, f64> = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(&start)) {
            if let Some((labels, count)) = line.rsplit_once("} ") {
                *out.entry(name(labels)).or_default() += count.parse::<f64>()?;
            }
        }
        Ok(out)
    }

    /// The calls in the cloud's journal so far, by verb.
    pub(crate) fn calls(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let text = std::fs::read_to_string(self.dir.path().join("cloud/journal.jsonl"))?;
        let mut out = BTreeMap::new();
        for line in text.lines() {
            let call: serde_json::Value = serde_json::from_str(line)?;
            let verb = call["verb"].as_str().unwrap_or_default().to_owned();
            *out.entry(verb).or_default() += 1;
        }
        Ok(out)
    }

    /// Changes the version of the first `clusters` clusters and waits until all of their machines have it.
    pub(crate) async fn upgrade_to(&self, version: &str, clusters: usize) -> anyhow::Result<f64> {
        let begun = Instant::now();
        for n in 0..clusters {
            let beside = self.repo.join(format!("fleet/.c{n:03}.yaml.new"));
            std::fs::write(&beside, self.shape.documents(n, version))?;
            std::fs::rename(beside, self.repo.join(format!("fleet/c{n:03}.yaml")))?;
        }
        loop {
            let there = list(&Api::<Cluster>::all(self.client.clone())).await?;
            let at = |cluster: &&Cluster| {
                cluster.status.as_ref().and_then(|s| s.version.as_deref()) == Some(version)
            };
            if there.iter().filter(at).count() == clusters {
                let pools = list(&Api::<MachineDeployment>::all(self.client.clone())).await?;
                let at = |pool: &&MachineDeployment| {
                    let at = pool.status.as_ref().and_then(|s| s.version.as_deref());
                    at == Some(version) && status::is_complete(pool)
                };
                if pools.iter().filter(at).count() == clusters * self.shape.pools {
                    return Ok(begun.elapsed().as_secs_f64());
                }
            }
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "the upgrade is not done after {PATIENCE:?}"
            );
            tokio::time::sleep(self.shape.look()).await;
        }
    }

    /// Upgrades one cluster and prints what that took.
    async fn upgrade(&self) -> anyhow::Result<()> {
        let (before, first) = (self.engine.usage()?, revision(&self.client).await?);
        let seconds = self.upgrade_to("v1.34.1", 1).await?;
        let writes = self.rest().await? - first;
        let cpu = self.engine.usage()?.cpu - before.cpu;
        let replaced = self.shape.sizes(0).iter().sum::<usize>() + 1;
        let each = |all: f64| all / replaced as f64;
        say(format_args!(
            "\nUpgrade of one cluster of {}, {replaced} machines replaced, maxSurge 20 %\n  {seconds:.1} s; engine CPU {cpu:.2} s, {:.1} ms a machine replaced; {writes} writes, {:.1} a machine replaced",
            self.shape.words(),
            each(cpu * 1e3),
            each(writes as f64)
        ));
        Ok(())
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.engine.end().await?;
        self.cloud.end().await
    }
}

/// The value of a label in a line of metrics.
pub(crate) fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    let value = labels.split(&start).nth(1);
    value
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
}

/// All objects of a kind, in pages.
async fn list<K>(api: &Api<K>) -> anyhow::Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut all = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

async fn connect(kubeconfig: Kubeconfig) -> anyhow::Result<Client> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The newest revision of the engine's API.
pub(crate) async fn revision(client: &Client) -> anyhow::Result<u64> {
    let one = ListParams::default().limit(1);
    let list = Api::<Cluster>::all(client.clone()).list(&one).await?;
    let text = list
        .metadata
        .resource_version
        .context("the list has no resource version")?;
    Ok(text.parse()?)
}

/// The body of a page over plain HTTP.
async fn get(url: &str) -> anyhow::Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (host, path) = url
        .trim_start_matches("http://")
        .split_once('/')
        .context("no path")?;
    let mut stream = tokio::net::TcpStream::connect(host).await?;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Prints what fleets cost.
pub(crate) async fn report(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let spread = |machines: usize| Shape {
        machines,
        clusters: (machines / 100).max(1),
        pools: 2,
    };
    let large = Shape {
        machines: args.machines,
        clusters: 1,
        pools: 1,
    };
    let mut runs = Vec::new();
    if args.has(Part::Fleet) {
        runs.extend([spread(args.machines), spread(args.machines * 2)]);
    } else if args.has(Part::Upgrade) {
        runs.push(spread(args.machines));
    }
    if args.has(Part::Large) {
        runs.push(large);
    }
    let mut made = Vec::new();
    for (n, shape) in runs.into_iter().enumerate() {
        let fleet = Fleet::start(shape, folder).await?;
        made.push(fleet.made().await?);
        if n == 0 && args.has(Part::Upgrade) && shape.clusters > 0 {
            fleet.upgrade().await?;
        }
        fleet.end().await?;
    }
    print(&made);
    Ok(())
}

fn print(made: &[Made]) {
    let head = [
        "fleet",
        "s",
        "engine CPU s",
        "cloud CPU s",
        "writes",
        "peak MiB",
        "CPU ms at rest, a s",
    ];
    let mut table = Table::new(
        "Fleets from nothing to every Machine Running with its node",
        &head,
    );
    for run in made {
        table.row([
            run.shape.words(),
            format!("{:.1}", run.seconds),
            format!("{:.2}", run.engine.cpu),
            format!("{:.2}", run.cloud.cpu),
            run.writes.to_string(),
            format!("{:.0}", run.engine.peak),
            format!("{:.0}", run.rest),
        ]);
    }
    table.print();

    let head = [
        "for each machine",
        "engine CPU ms",
        "cloud CPU ms",
        "writes",
        "peak KiB",
        "reconciles",
    ];
    let mut table = Table::new("", &head);
    let mut row = |name: String, machines: f64, large: &Made, small: Option<&Made>| {
        let each = |of: &dyn Fn(&Made) -> f64| (of(large) - small.map_or(0.0, of)) / machines;
        let reconciles: Vec<String> = large
            .reconciles
            .keys()
            .map(|controller| {
                let count = each(&|m: &Made| m.reconciles.get(controller).copied().unwrap_or(0.0));
                format!("{controller} {count:.1}")
            })
            .collect();
        table.row([
            name,
            format!("{:.2}", each(&|m| m.engine.cpu * 1e3)),
            format!("{:.2}", each(&|m| m.cloud.cpu * 1e3)),
            format!("{:.1}", each(&|m| m.writes as f64)),
            format!("{:.0}", each(&|m| m.engine.peak * 1024.0)),
            reconciles.join(", "),
        ]);
    };
    for run in made {
        row(run.shape.words(), run.shape.machines as f64, run, None);
    }
    if let [small, large, ..] = made
        && large.shape.machines > small.shape.machines
    {
        let more = large.shape.machines - small.shape.machines;
        row(
            format!("the {more} machines more (marginal)"),
            more as f64,
            large,
            Some(small),
        );
    }
    table.print();
}
