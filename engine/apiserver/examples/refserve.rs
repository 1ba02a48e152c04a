//! dev only
#![allow(clippy::all, missing_docs)]
use fleetwright_api::{random::OsRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Auth, Options, Tls};
use fleetwright_store::Store;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
#[tokio::main]
async fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let port = std::env::args().nth(2).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    let tokens = dir.join("tokens");
    std::fs::write(
        &tokens,
        "admintoken,admin,admin,\"system:masters\"\nusertoken,user,user,\n",
    )
    .unwrap();
    let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let api = ApiServer::new(Store::memory(), options).unwrap();
    let auth = Auth::from_file(&tokens).unwrap();
    let tls = Tls::open(&dir.join("pki")).unwrap();
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .unwrap();
    api.serve(listener, tls, auth, CancellationToken::new())
        .await
        .unwrap();
}
