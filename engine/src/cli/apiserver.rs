//! `fleetwright apiserver`: the Kubernetes API of Fleetwright alone.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use fleetwright_api::{
    crds,
    random::{OsRandom, Random},
    time::{Clock, SystemClock},
};
use fleetwright_apiserver::{ApiServer, Auth, Options, Tls, write_kubeconfig};
use fleetwright_store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::stop_signal;
use crate::{data_dir::DataDir, embedded::audit_log, error::Failure, state};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on; loopback unless you know better.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Folder of the state and the kubeconfig; `memory` keeps the state in memory.
    #[arg(long, value_name = "DIR|memory")]
    data: PathBuf,
    /// Users as kube-apiserver's file has them: `token,user,uid,"group,group"` a line.
    #[arg(long, value_name = "FILE")]
    token_auth_file: PathBuf,
    /// File of the audit log: a line for each write, and for each request that is refused; none when left out.
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let in_memory = args.data == Path::new("memory");
    // Also without state of its own the server needs a private place for its keys and the kubeconfig.
    let place = if in_memory {
        std::env::temp_dir().join(format!("fleetwright-apiserver-{}", std::process::id()))
    } else {
        args.data.clone()
    };
    let data = DataDir::open(&place)?;
    let auth = Auth::from_file(&args.token_auth_file)
        .map_err(|e| Failure::usage(format!("{}: {e}", args.token_auth_file.display())))?;
    let token = first_token(&args.token_auth_file)?;
    let tls =
        Tls::open(&data.path().join("pki")).context("cannot make or read the certificates")?;
    let store = if in_memory {
        Store::memory()
    } else {
        state::open(&data)?
    };
    let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) =
        (Arc::new(SystemClock), Arc::new(OsRandom));
    let mut options = Options::new(Arc::clone(&clock), Arc::clone(&random));
    options.audit = match &args.audit_log {
        Some(file) => Some(audit_log(file, &clock, &random)?),
        None => None,
    };
    let server = ApiServer::new(store, options).context("cannot start the API server")?;
    let ours = crds::all()
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>();
    server
        .install_crds(&ours.context("our kinds")?)
        .await
        .context("cannot install our kinds")?;

    let listener = TcpListener::bind(args.listen).await.map_err(|e| {
        Failure::usage(format!("cannot listen on {}: {e}", args.listen))
            .hint("choose another address with --listen")
    })?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let url = format!("https://{address}");
    let kubeconfig = data.path().join("kubeconfig");
    write_kubeconfig(&kubeconfig, &url, tls.authority(), &token)
        .context("cannot write the kubeconfig")?;
    announce(&url, &kubeconfig);

    let stop = CancellationToken::new();
    let serving = server.serve(listener, tls, auth, stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        biased;
        ended = &mut serving => ended.context("the API server ended").map_err(Failure::from),
        signal = stop_signal() => {
            stop.cancel();
            signal
        }
    }?;
    if in_memory {
        std::fs::remove_dir_all(&place).ok();
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "tells where the API is")]
fn announce(url: &str, kubeconfig: &Path) {
    println!("API        {url}");
    println!("kubeconfig {}", kubeconfig.display());
}

/// The token of the file's first user: the one that the kubeconfig gets.
fn first_token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("cannot read {}: {e}", file.display())))?;
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .find_map(|line| line.split(',').next())
        .map(|token| token.trim_matches('"').to_owned())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| {
            Failure::usage(format!("{} names no user", file.display())).hint(
                "a line is token,user,uid,\"group,group\"; group system:masters may do everything",
            )
        })
}
