//! Accepting connections and serving HTTP on them: the part that every server of ours shares.

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take for the head of a request, and to answer whether it is still there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Accepts connections until `stop` is cancelled and gives each to `serve`; then ends all that are open.
pub async fn accept<S, F>(listener: TcpListener, stop: CancellationToken, serve: S)
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    stream.set_nodelay(true).ok();
                    connections.spawn(serve(stream));
                }
                Err(error) => {
                    // Out of file descriptors, or a client gone already: neither ends the server.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Answers the requests of one connection, HTTP/1.1 and HTTP/2. An error of `answer` cuts the connection.
pub async fn answer<I, A, F, E>(stream: I, answer: A)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = hyper::service::service_fn(answer);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    let served = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}
