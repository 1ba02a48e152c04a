//! A client of the running engine, for the commands that ask it.

use std::path::Path;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{data_dir, error::Failure};

/// Connects by the given kubeconfig, else by the one in the engine's data folder.
///
/// # Errors
/// The file is missing or cannot be read.
pub(crate) async fn connect(
    kubeconfig: Option<&Path>,
    data: Option<&Path>,
) -> Result<Client, Failure> {
    let path = match (kubeconfig, data) {
        (Some(file), _) => file.to_owned(),
        (None, Some(dir)) => dir.join("kubeconfig"),
        (None, None) => data_dir::default_path()?.join("kubeconfig"),
    };
    let cannot = |e: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot use the kubeconfig {}: {e}", path.display()))
            .hint("start the engine with `fleetwright up`, or say which one with --kubeconfig FILE or --data DIR")
    };
    if !path.is_file() {
        return Err(cannot(&"there is no such file"));
    }
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|e| cannot(&e))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| cannot(&e))?;
    Client::try_from(config).map_err(|e| cannot(&e))
}

/// What a failed request means to the person who asked.
pub(crate) fn failure(what: &str, error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => Failure::input(format!("{what}: {}", status.message)),
        other => Failure::from(anyhow::Error::new(other).context(what.to_owned()))
            .hint("is the engine running? start it with `fleetwright up`"),
    }
}
