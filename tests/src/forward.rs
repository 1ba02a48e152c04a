//! Port-forward as a cluster's API server offers it over WebSockets: a stand-in, which leads from a pod's name to a port of this machine.

#![allow(clippy::unwrap_used, reason = "tests alone call it")]

use axum::body::Body;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::UnboundedSender,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

/// The subprotocol that channels have: each message begins with the number of its channel.
const PROTOCOL: &str = "v4.channel.k8s.io";
/// Channels of the first port: what it says, and why it cannot be used.
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// Where a port-forward leads.
#[derive(Clone)]
pub enum To {
    /// To this port.
    Port(u16),
    /// To one that nobody listens at.
    Nobody,
    /// Nowhere: all that comes is swallowed. Here is told when the connection begins, and when it has ended.
    Nowhere(UnboundedSender<()>),
}

/// Answers with the switch to WebSockets, and carries bytes to where it leads in one of `tasks`.
///
/// # Panics
/// When the request is none for port-forward.
pub fn answer(mut request: Request<Incoming>, to: To, tasks: &mut JoinSet<()>) -> Response<Body> {
    let asked = asked_port(&request).unwrap();
    let key = header_of(request.headers(), &header::SEC_WEBSOCKET_KEY);
    let protocols = header_of(request.headers(), &header::SEC_WEBSOCKET_PROTOCOL);
    assert!(protocols.split(',').any(|p| p.trim() == PROTOCOL));
    let accept = derive_accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    tasks.spawn(async move {
        // Who asked may be gone.
        if let Ok(stream) = upgraded.await {
            let port = match to {
                To::Port(port) => Some(port),
                To::Nobody => None,
                To::Nowhere(news) => {
                    news.send(()).ok();
                    let mut stream = TokioIo::new(stream);
                    tokio::io::copy(&mut stream, &mut tokio::io::sink())
                        .await
                        .ok();
                    news.send(()).ok();
                    return;
                }
            };
            let stream = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None);
            carry(stream.await, asked, port).await;
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Body::empty())
        .unwrap()
}

fn header_of(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn asked_port<B>(request: &Request<B>) -> Option<u16> {
    let query = request.uri().query()?;
    let ports = query.split('&').find_map(|p| p.strip_prefix("ports="));
    ports?.parse().ok()
}

/// Both directions, until one ends.
async fn carry<S>(mut socket: WebSocketStream<S>, asked: u16, port: Option<u16>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let message = |channel: u8, bytes: &[u8]| {
        let all: Vec<u8> = [&[channel], bytes].concat();
        Message::binary(all)
    };
    // Each channel begins with the port that it is of.
    for channel in [DATA, ERROR] {
        let first = message(channel, &asked.to_le_bytes());
        socket.send(first).await.ok();
    }
    let stream = match port {
        Some(port) => TcpStream::connect(("127.0.0.1", port)).await.ok(),
        None => None,
    };
    let Some(stream) = stream else {
        let why = message(ERROR, b"an error occurred forwarding: connection refused");
        socket.send(why).await.ok();
        socket.close(None).await.ok();
        return;
    };
    let (mut from, mut to) = stream.into_split();
    let mut buffer = vec![0; 16 << 10];
    loop {
        tokio::select! {
            biased;
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => if socket.send(message(DATA, &buffer[..n])).await.is_err() {
                    break;
                }
            },
            received = socket.next() => match received {
                Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&DATA) => {
                    if to.write_all(&bytes[1..]).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    socket.close(None).await.ok();
}
