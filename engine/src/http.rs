//! Webhooks and metrics over plain HTTP.

use std::sync::Arc;

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use fleetwright_webhook::receiver::Receiver;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Failure, step};

/// The routes.
pub(crate) fn router(receiver: Receiver, metrics: Registry) -> Router {
    let ours = Router::new()
        .route("/metrics", get(show))
        .route("/healthz", get(async || "ok"))
        .with_state(Arc::new(metrics));
    receiver.router().merge(ours)
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
