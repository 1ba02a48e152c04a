//! What is acknowledged stays: kills, the order of system calls, full disks, backups.

mod backup;
mod full;
mod kill;
mod trace;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config, ResourceExt as _,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::process::Command;

use crate::kit::{Process, fleetwright};

/// Makes the users' file beside the data folder.
fn tokens(dir: &Path) -> PathBuf {
    let file = dir.join("tokens");
    let users =
        "admintoken,admin,1,\"system:masters\"\nreadtoken,reader,2,\"fleetwright:read-only\"\n";
    std::fs::write(&file, users).unwrap();
    file
}

/// `fleetwright apiserver` on the data folder of `dir`.
fn apiserver(dir: &Path) -> Command {
    let (data, tokens) = (data(dir), tokens(dir));
    let (data, tokens) = (data.to_str().unwrap(), tokens.to_str().unwrap());
    fleetwright(&["apiserver", "--data", data, "--token-auth-file", tokens])
}

/// The same, run by another program: `program` with `args` before it.
fn apiserver_by(program: &Path, args: &[&str], dir: &Path) -> Command {
    let server = apiserver(dir);
    let mut command = Command::new(program);
    command.args(args);
    command.arg(server.as_std().get_program());
    command.args(server.as_std().get_args());
    command.kill_on_drop(true);
    command
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// A running API server.
struct Server {
    process: Process,
    client: Client,
}

impl Server {
    async fn start(dir: &Path) -> Self {
        Self::spawn(apiserver(dir), Path::new("/")).await
    }

    /// Starts a command; the kubeconfig that it names is below `root`.
    async fn spawn(command: Command, root: &Path) -> Self {
        let process = Process::spawn(command, "kubeconfig").await;
        let kubeconfig = PathBuf::from(process.told("kubeconfig"));
        let kubeconfig = root.join(kubeconfig.strip_prefix("/").unwrap());
        let client = client(&kubeconfig, None).await;
        Self { process, client }
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }
}

/// A client by a kubeconfig, as another user where a token is given.
async fn client(kubeconfig: &Path, token: Option<&str>) -> Client {
    let mut kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    if let (Some(token), Some(user)) = (token, kubeconfig.auth_infos[0].auth_info.as_mut()) {
        user.token = Some(token.to_owned().into());
    }
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options);
    Client::try_from(config.await.unwrap()).unwrap()
}

fn map(name: &str, text: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some(BTreeMap::from([("text".to_owned(), text.to_owned())]));
    map
}

fn text(map: &ConfigMap) -> String {
    map.data
        .as_ref()
        .map_or_else(String::new, |data| data["text"].clone())
}

fn version(map: &ConfigMap) -> u64 {
    map.resource_version().unwrap().parse().unwrap()
}

/// All ConfigMaps of the namespace by name, and the list's resource version.
async fn listed(maps: &Api<ConfigMap>) -> (BTreeMap<String, (u64, String)>, u64) {
    let list = maps.list(&Default::default()).await.unwrap();
    let revision = list.metadata.resource_version.unwrap().parse().unwrap();
    let all = list
        .items
        .iter()
        .map(|map| (map.name_any(), (version(map), text(map))));
    (all.collect(), revision)
}

/// Runs the binary to its end; whether it succeeded, and what it said.
async fn run(args: &[&str]) -> (bool, String) {
    let output = fleetwright(args)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}
