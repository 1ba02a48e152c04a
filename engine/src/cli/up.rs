//! `fleetwright up`: everything in one process, following one directory or repository.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use fleetwright_api::secret::SecretText;

use super::stop_signal;
use crate::{
    data_dir::{self, DataDir},
    error::Failure,
    progress,
    setup::{Source, Wish},
    wiring::{Engine, Options},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory, or URL of a Git repository (https:// or file://), to follow.
    #[arg(value_name = "DIR|URL")]
    source: String,
    /// Branch of the repository; its HEAD when left out.
    #[arg(long)]
    branch: Option<String>,
    /// Folder in the repository that is followed; its root when left out.
    #[arg(long)]
    path: Option<String>,
    /// Seconds between polls of the repository.
    #[arg(long, value_name = "SECONDS")]
    interval: Option<i32>,
    /// Folder of all state [default: $XDG_STATE_HOME/fleetwright].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the Kubernetes API; port 0 takes the last one used, else a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of webhooks and metrics; port 0 takes the last one used, else a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    http_listen: SocketAddr,
    /// Name of this installation: part of commit statuses' contexts and of the clusters' keys.
    #[arg(long, default_value = "default")]
    installation: String,
    /// Follow another source than the state was made with.
    #[arg(long)]
    replace_source: bool,
    /// File with Namespaces, Secrets, ProviderAccounts and Fleets that are applied at the start.
    #[arg(long, value_name = "FILE")]
    admin: Option<PathBuf>,
    /// URL of a simulated cloud that runs as a process of its own.
    #[arg(long, value_name = "URL")]
    simcloud: Option<String>,
    /// Base URL of the forge's API; GitHub's own when left out.
    #[arg(long, value_name = "URL", requires = "repository")]
    forge_url: Option<String>,
    /// Repository at the forge that gets commit statuses, as owner/name.
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Option<String>,
    /// File with the token for the repository and for commit statuses.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the secret that signs webhooks.
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let source = Source::parse(&args.source)?;
    let token = args.token_file.as_deref().map(read_secret).transpose()?;
    let webhook_secret = args
        .webhook_secret_file
        .as_deref()
        .map(read_secret)
        .transpose()?;
    let place = match &args.data {
        Some(dir) => dir.clone(),
        None => data_dir::default_path()?,
    };
    if let Source::Directory(directory) = &source
        && std::path::absolute(&place).is_ok_and(|p| p.starts_with(directory))
    {
        let text = format!(
            "the state folder {} is inside the followed directory",
            place.display()
        );
        return Err(Failure::usage(text).hint("choose another folder with --data"));
    }
    let data = DataDir::open(&place)?;
    let wish = Wish {
        source,
        branch: args.branch,
        path: args.path,
        interval: args.interval,
        forge_url: args.forge_url,
        repository: args.repository,
        token: token.clone(),
        replace_source: args.replace_source,
    };
    let options = Options {
        listen: args.listen,
        http_listen: args.http_listen,
        installation: args.installation,
        admin: args.admin,
        simcloud: args.simcloud,
        token,
        webhook_secret,
        wish,
    };
    let mut engine = Engine::start(&data, options).await?;
    announce(&engine);
    let client = engine.client.clone();
    let stop = engine.stop.clone();
    engine.tasks.spawn(async move {
        progress::show(client, stop).await;
        Ok(())
    });
    let result = tokio::select! {
        biased;
        signal = stop_signal() => signal,
        ended = engine.tasks.join_next() => match ended {
            Some(Ok(Err(failure))) => Err(failure),
            Some(Err(panic)) => Err(Failure::from(anyhow::Error::new(panic).context("a part of the engine broke"))),
            _ => Err(Failure::from(anyhow::anyhow!("a part of the engine ended by itself"))),
        },
    };
    engine.shutdown().await;
    result
}

fn read_secret(file: &Path) -> Result<SecretText, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage(format!("{} is empty", file.display()))
            .hint("an empty secret protects nothing: put a random one there")),
        text => Ok(SecretText::new(text)),
    }
}

#[expect(clippy::print_stdout, reason = "tells where everything is")]
fn announce(engine: &Engine) {
    println!("API        {}", engine.api_url);
    println!("kubeconfig {}", engine.kubeconfig.display());
    println!("metrics    {}/metrics", engine.http_url);
    println!("webhooks   {}/webhooks/github", engine.http_url);
    println!("simcloud   {}", engine.cloud_url);
    println!(
        "try        kubectl --kubeconfig {} get clusters,machinedeployments,machines -A",
        engine.kubeconfig.display()
    );
}
