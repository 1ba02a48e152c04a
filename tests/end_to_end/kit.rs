//! A running `fleetwright`, and what the tests see of it from outside.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use fleetwright_api::{Cluster, MachineDeployment};
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{Condition, await_condition},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use crate::stock::Stock;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The binary with `args`, ended with the test.
pub(crate) fn fleetwright(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright"));
    command.args(args).kill_on_drop(true);
    command
}

/// A process that tells its addresses on the first lines, such as `metrics    http://…`.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    told: Vec<String>,
}

impl Process {
    /// Starts it and reads up to the line that begins with `last`.
    pub(crate) async fn start(args: &[&str], last: &str) -> Self {
        Self::spawn(fleetwright(args), last).await
    }

    /// The same with a command of one's own.
    pub(crate) async fn spawn(mut command: Command, last: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self {
            child,
            lines,
            told: Vec::new(),
        };
        while !process.told.last().is_some_and(|l| l.starts_with(last)) {
            let line = process.lines.next_line().await.unwrap();
            process
                .told
                .push(line.unwrap_or_else(|| panic!("{command:?} ended: {:?}", process.told)));
        }
        process
    }

    /// What it told about `name`.
    pub(crate) fn told(&self, name: &str) -> String {
        let line = self.told.iter().find_map(|l| l.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {:?}", self.told))
            .trim()
            .to_owned()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends it SIGKILL and waits for its end.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends it SIGINT, as Ctrl-C does, and gives its exit code.
    pub(crate) async fn interrupt(self) -> Option<i32> {
        self.signal("INT").await;
        self.end().await
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, name: &str) {
        self.signal_at(self.id(), name).await;
    }

    /// The same for a program that runs it as process `id`.
    pub(crate) async fn signal_at(&self, id: u32, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &id.to_string()])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end; gives its exit code.
    pub(crate) async fn end(mut self) -> Option<i32> {
        // A full pipe must not hold it up.
        let drain = async { while let Ok(Some(_)) = self.lines.next_line().await {} };
        let (status, ()) = tokio::join!(self.child.wait(), drain);
        status.unwrap().code()
    }
}

/// A running engine: with the API in its process, or on the cluster of `FLEETWRIGHT_TEST_KUBECONFIG`.
pub(crate) struct Engine {
    pub(crate) process: Process,
    pub(crate) client: Client,
    data: PathBuf,
    /// The cluster, as long as the state in it is this engine's.
    stock: Option<Arc<Stock>>,
}

impl Engine {
    /// `fleetwright up SOURCE --data DATA …`.
    pub(crate) async fn up(source: &str, data: &Path, more: &[&str]) -> Self {
        Self::up_with(source, data, more, &[]).await
    }

    /// The same with variables of the environment.
    pub(crate) async fn up_with(
        source: &str,
        data: &Path,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let stock = Stock::of(data).await;
        Self::up_on(stock, source, data, more, environment).await
    }

    /// On an API of its own, whatever cluster the tests are told to use: for what is about its state.
    pub(crate) async fn up_embedded(source: &str, data: &Path, more: &[&str]) -> Self {
        Self::up_on(None, source, data, more, &[]).await
    }

    async fn up_on(
        stock: Option<Arc<Stock>>,
        source: &str,
        data: &Path,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut args = vec!["up", source, "--data", data.to_str().unwrap()];
        args.extend(more);
        if let Some(stock) = &stock {
            args.extend(["--kubeconfig", stock.kubeconfig()]);
            if !more.contains(&"--simcloud") {
                let cloud = stock.cloud(&data.join("simcloud")).await;
                args.extend(["--simcloud", cloud]);
            }
        }
        let mut command = fleetwright(&args);
        command.envs(environment.iter().copied());
        let process = Process::spawn(command, "try").await;
        let client = client(Path::new(&process.told("kubeconfig"))).await;
        Self {
            process,
            client,
            data: data.to_owned(),
            stock,
        }
    }

    /// How other commands are told of this engine.
    pub(crate) fn connection(&self) -> [&str; 2] {
        match &self.stock {
            None => ["--data", self.data.to_str().unwrap()],
            Some(stock) => ["--kubeconfig", stock.kubeconfig()],
        }
    }

    /// Waits until an object fulfils a condition.
    pub(crate) async fn until<K>(&self, name: &str, what: &str, condition: impl Condition<K>)
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Send
            + serde::de::DeserializeOwned
            + 'static,
    {
        let api = Api::<K>::namespaced(self.client.clone(), "default");
        let wait = await_condition(api, name, condition);
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("{name}: {what} did not come"))
            .unwrap();
    }

    /// Waits until the cluster is at `version` and done, its pool with it.
    pub(crate) async fn until_at(&self, version: &str) {
        let cluster =
            |version: String| move |c: Option<&Cluster>| c.is_some_and(|c| is_done(c, &version));
        let pool = |version: String| {
            move |p: Option<&MachineDeployment>| p.is_some_and(|p| is_rolled(p, &version))
        };
        self.until("a", version, cluster(version.to_owned())).await;
        self.until("a-web", version, pool(version.to_owned())).await;
    }

    /// Machines as the API shows them.
    pub(crate) async fn pool(&self) -> MachineDeployment {
        Api::namespaced(self.client.clone(), "default")
            .get("a-web")
            .await
            .unwrap()
    }

    /// Journal of the cloud in the engine's process.
    pub(crate) fn journal(&self) -> Vec<Value> {
        journal(&self.data.join("simcloud"))
    }
}

/// A client by the current context of a kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

pub(crate) fn is_done(cluster: &Cluster, version: &str) -> bool {
    cluster.status.as_ref().is_some_and(|s| {
        s.version.as_deref() == Some(version)
            && fleetwright_core::status::has_converged(cluster, &[])
    })
}

pub(crate) fn is_rolled(pool: &MachineDeployment, version: &str) -> bool {
    fleetwright_core::status::is_complete(pool)
        && pool
            .status
            .as_ref()
            .is_some_and(|s| s.version.as_deref() == Some(version))
}

/// All lines of a cloud's journal that make or end instances.
pub(crate) fn journal(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok())
        .filter(|e| matches!(e["verb"].as_str(), Some("create" | "delete")))
        .collect()
}

/// How many instances were made.
pub(crate) fn creates(journal: &[Value]) -> usize {
    journal.iter().filter(|e| e["verb"] == "create").count()
}

/// A request over plain HTTP; gives the answer's first line and body.
pub(crate) async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (String, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let mut text = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream
        .write_all(format!("{text}\r\n{body}").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// One cluster with one control-plane machine and a pool, which boot fast.
pub(crate) fn fleet(version: &str, replicas: Option<u32>) -> String {
    let config = "providerConfig: {apiVersion: sim.fleetwright.dev/v1alpha1, kind: SimMachineConfig, account: sim-eu, bootSeconds: 0.2}";
    let replicas = replicas.map_or_else(String::new, |n| format!("  replicas: {n}\n"));
    format!(
        "apiVersion: fleetwright.dev/v1alpha1
kind: Cluster
metadata:
  name: a
spec:
  version: {version}
  controlPlane:
    machines:
      template:
        spec:
          {config}
  providerConfig:
    apiVersion: sim.fleetwright.dev/v1alpha1
    kind: SimClusterConfig
    account: sim-eu
    workloads: [{{name: shop, namespace: shop, replicas: 3, minAvailable: 2, terminationSeconds: 0}}]
---
apiVersion: fleetwright.dev/v1alpha1
kind: MachineDeployment
metadata:
  name: a-web
spec:
  clusterName: a
{replicas}  rollout: {{strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}}}
  template:
    spec:
      {config}
"
    )
}
