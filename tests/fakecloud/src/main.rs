//! EKS of fakecloud, without its hundred other services, which take a quarter of an hour to build: `fakecloud-eks-alone --addr HOST:PORT`.
//! What answers is fakecloud's; this program opens the port.

use std::{net::SocketAddr, sync::Arc};

use axum::{Extension, Router, routing::get};
use fakecloud_core::{
    dispatch::{DispatchConfig, dispatch},
    multi_account::MultiAccountState,
    registry::ServiceRegistry,
};
use fakecloud_eks::{EksService, SharedEksState};
use parking_lot::RwLock;

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = match std::env::args().skip_while(|one| one != "--addr").nth(1) {
        Some(address) => address.parse::<SocketAddr>()?,
        None => return Err("--addr HOST:PORT is not given".into()),
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let state: SharedEksState =
        Arc::new(RwLock::new(MultiAccountState::new(ACCOUNT, REGION, &url)));
    let mut services = ServiceRegistry::new();
    services.register(Arc::new(EksService::new(state)));
    let app = Router::new()
        .route("/_fakecloud/health", get(|| async { "ok" }))
        .fallback(dispatch)
        .layer(Extension(Arc::new(services)))
        .layer(Extension(Arc::new(DispatchConfig::new(REGION, ACCOUNT))));
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await?;
    Ok(())
}
