//! The Kubernetes API in this process, on one file of state.

use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use fleetwright_api::{
    crds,
    random::{Random, hex},
    time::Clock,
};
use fleetwright_apiserver::{
    self as apiserver, ApiServer, Audit, Auth, Tls, User, write_kubeconfig,
};
use tokio::net::TcpListener;

use crate::{
    data_dir::DataDir,
    error::{Failure, chain, step},
    http::{address, bind},
    state,
};

/// The API, open to this process; [`Embedded::listen`] opens it to others.
pub(crate) struct Embedded {
    pub(crate) server: ApiServer,
    data: PathBuf,
}

/// Where the API is served.
pub(crate) struct Served {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    pub(crate) url: String,
    pub(crate) kubeconfig: PathBuf,
}

impl Embedded {
    /// The API over the state in `data`, with our kinds; `audit` is the file of its audit log.
    ///
    /// # Errors
    /// The state cannot be read, or the audit log cannot be written.
    pub(crate) async fn open(
        data: &DataDir,
        audit: Option<&Path>,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> Result<Self, Failure> {
        let server = open_api(data, audit, clock, random).await?;
        Ok(Self {
            server,
            data: data.path().to_owned(),
        })
    }

    /// Takes the address, and writes the kubeconfig that leads there.
    ///
    /// # Errors
    /// The address is taken, or a file in the data folder cannot be written.
    pub(crate) async fn listen(
        &self,
        listen: SocketAddr,
        random: &dyn Random,
    ) -> Result<Served, Failure> {
        let token = admin_token(&self.data, random)?;
        let tls = step(
            Tls::open(&self.data.join("pki")),
            "cannot make or read the certificates",
        )?;
        let listener = bind(listen, &self.data.join("api.addr")).await?;
        let url = format!("https://{}", address(&listener)?);
        let kubeconfig = std::path::absolute(self.data.join("kubeconfig"))
            .context("the data folder has no path")?;
        step(
            write_kubeconfig(&kubeconfig, &url, tls.authority(), &token),
            "cannot write the kubeconfig",
        )?;
        Ok(Served {
            listener,
            tls,
            auth: Auth::default().with(&token, User::admin()),
            url,
            kubeconfig,
        })
    }
}

/// The API over the state in `data`, with our kinds.
async fn open_api(
    data: &DataDir,
    audit: Option<&Path>,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<ApiServer, Failure> {
    let store = state::open(data)?;
    let mut options = apiserver::Options::new(Arc::clone(clock), Arc::clone(random));
    options.audit = audit
        .map(|file| audit_log(file, clock, random))
        .transpose()?;
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

/// The audit log on `file`.
///
/// # Errors
/// It cannot be written.
pub(crate) fn audit_log(
    file: &Path,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Arc<Audit>, Failure> {
    let log = Audit::open(file, Arc::clone(clock), Arc::clone(random));
    log.map(Arc::new)
        .map_err(|error| Failure::usage(chain(&error)).hint("choose another file with --audit-log"))
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
