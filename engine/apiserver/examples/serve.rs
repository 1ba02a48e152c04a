//! Serves an API over a memory store: `serve DIR TOKEN_FILE`; the kubeconfig is written to `DIR/kubeconfig`.

use std::path::PathBuf;
use std::sync::Arc;

use fleetwright_api::{random::OsRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Auth, Options, Tls, write_kubeconfig};
use fleetwright_store::Store;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: serve DIR TOKEN_FILE")?);
    let tokens = PathBuf::from(args.next().ok_or("usage: serve DIR TOKEN_FILE")?);
    let tls = Tls::open(&dir.join("pki"))?;
    let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let server = ApiServer::new(Store::memory(), options)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    write_kubeconfig(&dir.join("kubeconfig"), &url, tls.authority(), "admintoken")?;
    let stop = tokio_util::sync::CancellationToken::new();
    let auth = Auth::from_file(&tokens)?;
    server.serve(listener, tls, auth, stop).await?;
    Ok(())
}
