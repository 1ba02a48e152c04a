//! Webhooks, metrics and probes over plain HTTP.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use fleetwright_webhook::receiver::Receiver;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Failure, chain, step};

/// How long the API may take to answer a probe; less than probes wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// The routes.
pub(crate) fn router(receiver: Receiver, metrics: Registry, client: Client) -> Router {
    let metrics = Router::new()
        .route("/metrics", get(show))
        .with_state(Arc::new(metrics));
    let probes = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .with_state(client);
    receiver.router().merge(metrics).merge(probes)
}

/// Ready is who reaches the API: without it a webhook wakes nobody. Whether it leads does not matter.
async fn ready(State(client): State<Client>) -> (StatusCode, String) {
    let why = match tokio::time::timeout(PATIENCE, client.apiserver_version()).await {
        Ok(Ok(_)) => return (StatusCode::OK, "ok".to_owned()),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("no answer in {} s", PATIENCE.as_secs()),
    };
    let text = format!("the Kubernetes API does not answer: {why}");
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    step(serving.await, "the HTTP server ended")
}

async fn show(State(metrics): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing into a string does not fail.
    prometheus_client::encoding::text::encode(&mut text, &metrics).ok();
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
}

/// Listens. With port 0 the address in `remembered` is tried first, so that a restart keeps what clients know.
///
/// # Errors
/// The address is taken.
pub(crate) async fn bind(wanted: SocketAddr, remembered: &Path) -> Result<TcpListener, Failure> {
    let before = std::fs::read_to_string(remembered)
        .ok()
        .and_then(|text| text.trim().parse::<SocketAddr>().ok());
    let again = before.filter(|before| wanted.port() == 0 && before.ip() == wanted.ip());
    let listener = match again {
        Some(again) => match TcpListener::bind(again).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(wanted).await,
        },
        None => TcpListener::bind(wanted).await,
    };
    let listener = listener.map_err(|e| {
        Failure::usage(format!("cannot listen on {wanted}: {e}"))
            .hint("choose another address with --listen or --http-listen")
    })?;
    std::fs::write(remembered, format!("{}\n", address(&listener)?)).ok();
    Ok(listener)
}

/// Where it listens.
///
/// # Errors
/// The listener is broken.
pub(crate) fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    step(listener.local_addr(), "the listener has no address")
}
