//! The way to the API of an engine, for the commands that ask it.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{data_dir, error::Failure};

/// Where the engine's API is.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Connection {
    /// Kubeconfig of the engine, or of the Kubernetes that it works on; that of the data folder when left out.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one when left out.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Data folder of the engine.
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    data: Option<PathBuf>,
}

impl Connection {
    /// By a kubeconfig.
    pub(crate) fn of(kubeconfig: &Path, context: Option<&str>) -> Self {
        Self {
            kubeconfig: Some(kubeconfig.to_owned()),
            context: context.map(ToOwned::to_owned),
            data: None,
        }
    }

    /// A client.
    ///
    /// # Errors
    /// The kubeconfig is missing or cannot be used.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let config = self.config().await?;
        Client::try_from(config).map_err(|e| self.cannot(&e))
    }

    /// What a client is made of.
    ///
    /// # Errors
    /// As [`Connection::client`].
    pub(crate) async fn config(&self) -> Result<Config, Failure> {
        let path = self.path()?;
        if !path.is_file() {
            return Err(self.cannot(&"there is no such file"));
        }
        let kubeconfig = Kubeconfig::read_from(&path).map_err(|e| self.cannot(&e))?;
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|e| self.cannot(&e))
    }

    /// The data folder; `None` where a kubeconfig was named instead.
    ///
    /// # Errors
    /// None was named, and there is no place for the default one.
    pub(crate) fn folder(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(match (&self.kubeconfig, &self.data) {
            (Some(_), _) => None,
            (None, Some(dir)) => Some(dir.clone()),
            (None, None) => Some(data_dir::default_path()?),
        })
    }

    fn path(&self) -> Result<PathBuf, Failure> {
        Ok(match self.folder()? {
            Some(dir) => dir.join("kubeconfig"),
            None => self.kubeconfig.clone().unwrap_or_default(),
        })
    }

    fn cannot(&self, why: &dyn std::fmt::Display) -> Failure {
        let path = self.path().unwrap_or_default();
        Failure::usage(format!("cannot use the kubeconfig {}: {why}", path.display()))
            .hint("start the engine with `fleetwright up`, or say which one with --kubeconfig FILE or --data DIR")
    }
}

/// What a failed request means to the person who asked.
pub(crate) fn failure(what: &str, error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => Failure::input(format!("{what}: {}", status.message)),
        other => Failure::from(anyhow::Error::new(other).context(what.to_owned())).hint(
            "is it running, and is this its address? an engine is started with `fleetwright up`",
        ),
    }
}
