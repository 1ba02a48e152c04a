//! The JSON gateway of one member of etcd, through its pod.

use std::{fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rustls::pki_types::ServerName;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::view::{Alarms, Answer, Members, Status};
use crate::pods::forward;

/// etcd's port for clients.
const PORT: u16 = 2379;
/// A name that the certificate of every member has: kubeadm gives it to them, and each is asked in its own pod.
const HOST: &str = "localhost";
/// Largest answer: a list of members has some hundred bytes for each.
const MOST_BYTES: usize = 1 << 20;

/// Why a call did not do what it was to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no such member.
    #[error("there is no such member")]
    NotFound,
    /// etcd says no, or says nothing that can be understood.
    #[error("{0}")]
    Other(String),
}

fn other(error: impl fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}

/// A connection to one member. It ends with this.
pub(crate) struct Gateway {
    calls: SendRequest<Full<Bytes>>,
    // What carries the connection; it ends when this is dropped.
    _carriers: JoinSet<()>,
}

impl Gateway {
    /// Connects to the etcd in `pod`.
    ///
    /// # Errors
    /// Which part of the way is broken.
    pub(crate) async fn open(
        api: &Api<Pod>,
        pod: &str,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, String> {
        let (forwarded, stream) = forward(api, pod, PORT).await?;
        let host = ServerName::try_from(HOST).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(tls).connect(host, stream).await;
        let stream = stream.map_err(|e| format!("TLS: {e}"))?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (calls, connection) = shaken.map_err(|e| e.to_string())?;
        let mut carriers = JoinSet::new();
        carriers.spawn(async move {
            // Whoever waits for an answer is told.
            connection.await.ok();
            drop(forwarded);
        });
        Ok(Self {
            calls,
            _carriers: carriers,
        })
    }

    /// Makes one call: `path` is below `/v3`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        let answer = self.send(path, body).await?;
        let well = answer.status().is_success();
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let bytes = bytes.map_err(|e| Failure::Other(format!("the answer broke off: {e}")))?;
        let bytes = bytes.to_bytes();
        if well {
            return serde_json::from_slice(&bytes).map_err(other);
        }
        let refusal: Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(match refusal.code {
            NOT_FOUND => Failure::NotFound,
            _ if refusal.error.is_empty() => Failure::Other(format!("it answers {status}")),
            _ => Failure::Other(refusal.error),
        })
    }

    async fn send(&mut self, path: &str, body: &Value) -> Result<Response<Incoming>, Failure> {
        let request = Request::post(format!("/v3/{path}"))
            .header(header::HOST, HOST)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))
            .map_err(other)?;
        self.calls.ready().await.map_err(other)?;
        self.calls.send_request(request).await.map_err(other)
    }

    /// Asks for a snapshot of what this member has.
    pub(crate) async fn snapshot(mut self) -> Result<Parts, Failure> {
        let answer = self.send("maintenance/snapshot", &json!({})).await?;
        match answer.status() {
            status if status.is_success() => Ok(Parts {
                _gateway: self,
                body: answer.into_body(),
                line: Vec::new(),
            }),
            status => Err(Failure::Other(format!("it answers {status}"))),
        }
    }

    pub(crate) async fn status(&mut self) -> Result<Status, Failure> {
        self.call("maintenance/status", &json!({})).await
    }

    /// What this member says of itself, and of all where it does: one that only learns says nothing of others, nor does one without a
    /// leader. What it says of all is what a quorum knows, not what it was told last.
    pub(crate) async fn answer(&mut self) -> Result<Answer, Failure> {
        let status = self.status().await?;
        let of_all = match status.leader {
            0 => None,
            _ => self.of_all().await.ok(),
        };
        Ok(Answer::new(status, of_all))
    }

    async fn of_all(&mut self) -> Result<(Members, Alarms), Failure> {
        let linearizable = json!({"linearizable": true});
        let members = self.call("cluster/member/list", &linearizable).await?;
        let action = json!({"action": "GET"});
        Ok((members, self.call("maintenance/alarm", &action).await?))
    }
}

/// A snapshot as it comes: one JSON object a line.
pub(crate) struct Parts {
    // Its connection.
    _gateway: Gateway,
    body: Incoming,
    /// What has come of the next lines.
    line: Vec<u8>,
}

impl Parts {
    /// The next part; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                return Part::read(&line).map(Some);
            }
            if self.line.len() > MOST_BYTES {
                return Err(other("a part of it is too large"));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(bytes) = frame.map_err(other)?.into_data() {
                        self.line.extend_from_slice(&bytes);
                    }
                }
                None if self.line.is_empty() => return Ok(None),
                None => return Part::read(&std::mem::take(&mut self.line)).map(Some),
            }
        }
    }
}

/// What one line of a snapshot says.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Part {
    result: Blob,
    error: Option<Refused>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Blob {
    /// Base64.
    blob: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    message: String,
}

impl Part {
    fn read(line: &[u8]) -> Result<Vec<u8>, Failure> {
        let part: Self = serde_json::from_slice(line).map_err(other)?;
        match part.error {
            Some(error) => Err(Failure::Other(error.message)),
            None => BASE64_STANDARD.decode(part.result.blob).map_err(other),
        }
    }
}

/// gRPC's code of what is not there.
const NOT_FOUND: i32 = 5;

/// What the gateway answers where a call fails.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: i32,
    error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_snapshot_are_read() {
        for (line, want) in [
            (
                r#"{"result":{"header":{},"remaining_bytes":"7","blob":"aHVzaA=="}}"#,
                Ok("hush"),
            ),
            (
                r#"{"result":{"blob":"aHVzaA==","version":"3.6.1"}}"#,
                Ok("hush"),
            ),
            (r#"{"result":{"remaining_bytes":"7"}}"#, Ok("")),
            (
                r#"{"error":{"grpc_code":14,"message":"no leader"}}"#,
                Err("no leader"),
            ),
            (r#"{"result":{"blob":"?"}}"#, Err("Invalid symbol")),
            ("<html>", Err("expected value")),
        ] {
            let read = Part::read(line.as_bytes()).map_err(|e| e.to_string());
            match want {
                Ok(want) => assert_eq!(read, Ok(want.as_bytes().to_vec()), "{line}"),
                Err(want) => assert!(read.unwrap_err().contains(want), "{line}"),
            }
        }
    }
}
