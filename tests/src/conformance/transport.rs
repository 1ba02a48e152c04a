//! Requests over real HTTPS to a server on loopback, or to a server in this process.

use std::{sync::Arc, time::Duration};

use fleetwright_apiserver::{ApiServer, Auth};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName,
    pki_types::pem::PemObject,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// A request that got no answer.
#[derive(Debug)]
pub struct TransportError(String);

impl TransportError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl std::fmt::Display for TransportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TransportError {}

/// The server under test.
#[derive(Clone)]
pub struct Target {
    way: Way,
    token: Option<String>,
}

#[derive(Clone)]
enum Way {
    Https(String, Arc<ClientConfig>),
    InProcess(ApiServer, Auth),
}

impl Target {
    /// A server at `host:port` over TLS that trusts the PEM certificates in `ca`.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn https(address: &str, ca: &[u8], token: Option<&str>) -> Result<Self, TransportError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            let certificate = certificate.map_err(|e| TransportError::new(format!("CA: {e}")))?;
            roots
                .add(certificate)
                .map_err(|e| TransportError::new(format!("CA: {e}")))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| TransportError::new(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            way: Way::Https(address.into(), Arc::new(config)),
            token: token.map(Into::into),
        })
    }

    /// A server in this process, behind the same check of who may do what.
    pub fn in_process(server: ApiServer, auth: Auth, token: Option<&str>) -> Self {
        Self {
            way: Way::InProcess(server, auth),
            token: token.map(Into::into),
        }
    }

    /// Sends one request in the recordings' form and gives the answer in the recordings' form.
    ///
    /// # Errors
    /// No connection, a broken one, or no answer in 20 s.
    pub async fn call(&self, request: &Value) -> Result<Value, TransportError> {
        tokio::time::timeout(Duration::from_secs(20), self.exchange(request))
            .await
            .map_err(|_| TransportError::new("no answer in 20 s"))?
    }

    async fn exchange(&self, request: &Value) -> Result<Value, TransportError> {
        let failed =
            |what: &str, e: &dyn std::fmt::Display| TransportError::new(format!("{what}: {e}"));
        let message = self.message(request)?;
        let response = match &self.way {
            Way::Https(address, config) => {
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(|e| failed("connect", &e))?;
                let host = address
                    .rsplit_once(':')
                    .map_or(address.as_str(), |(h, _)| h);
                let name =
                    ServerName::try_from(host.to_owned()).map_err(|e| failed("server name", &e))?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                let stream = connector
                    .connect(name, stream)
                    .await
                    .map_err(|e| failed("TLS", &e))?;
                send(TokioIo::new(stream), message).await?
            }
            Way::InProcess(server, auth) => {
                let (head, body) = server.guarded(auth, message).await.into_parts();
                let body = body.collect().await.map_err(|e| failed("body", &e))?;
                (head, body.to_bytes())
            }
        };
        let (head, raw) = response;
        let text = String::from_utf8_lossy(&raw);
        let content_type = head
            .headers
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let mut answer = json!({
            "status": head.status.as_u16(),
            "content_type": content_type.split(',').next().unwrap_or_default(),
        });
        let warnings: Vec<_> = head
            .headers
            .get_all("warning")
            .iter()
            .filter_map(|v| v.to_str().ok())
            .collect();
        if !warnings.is_empty() {
            answer["warnings"] = json!(warnings);
        }
        let watch = request["query"]["watch"].to_string();
        let watching = matches!(
            watch.trim_matches('"').to_lowercase().as_str(),
            "1" | "true"
        );
        if watching && head.status == 200 {
            let events = text
                .lines()
                .filter(|l| !l.trim().is_empty())
                .map(serde_json::from_str::<Value>);
            answer["events"] = events
                .collect::<Result<_, _>>()
                .map_err(|e| failed("watch event", &e))?;
        } else {
            answer["body"] = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        }
        Ok(answer)
    }

    fn host(&self) -> &str {
        match &self.way {
            Way::Https(address, _) => address,
            Way::InProcess(..) => "localhost",
        }
    }

    fn message(&self, request: &Value) -> Result<http::Request<Full<Bytes>>, TransportError> {
        let mut path = request["path"].as_str().unwrap_or("/").to_owned();
        if let Some(query) = request["query"].as_object().filter(|q| !q.is_empty()) {
            let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), Into::into);
            let pairs: Vec<_> = query
                .iter()
                .map(|(k, v)| format!("{}={}", encode(k), encode(&plain(v))))
                .collect();
            path = format!("{path}?{}", pairs.join("&"));
        }
        let mut builder = http::Request::builder()
            .method(request["method"].as_str().unwrap_or("GET"))
            .uri(path)
            .header("host", self.host())
            .header("accept-encoding", "identity");
        let extra = request["headers"].as_object();
        let has =
            |name: &str| extra.is_some_and(|h| h.keys().any(|k| k.eq_ignore_ascii_case(name)));
        if !has("accept") {
            builder = builder.header("accept", "application/json");
        }
        let token = match request.get("token") {
            Some(own) => own.as_str(),
            None => self.token.as_deref(),
        };
        if let Some(token) = token.filter(|t| !t.is_empty() && !has("authorization")) {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        let body = match request.get("body") {
            None | Some(Value::Null) => Bytes::new(),
            Some(body) => {
                if !has("content-type") {
                    builder = builder.header(
                        "content-type",
                        request["type"].as_str().unwrap_or("application/json"),
                    );
                }
                body.as_str()
                    .map_or_else(|| spaced(body), Into::into)
                    .into()
            }
        };
        for (name, value) in extra.into_iter().flatten() {
            builder = builder.header(name, value.as_str().unwrap_or_default());
        }
        builder
            .body(Full::new(body))
            .map_err(|e| TransportError::new(format!("request: {e}")))
    }
}

async fn send<S>(
    stream: TokioIo<S>,
    message: http::Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Bytes), TransportError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let failed = |e: hyper::Error| TransportError::new(format!("HTTP: {e}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(failed)?;
    // The connection lives exactly as long as the exchange does.
    let exchange = async {
        let response = sender.send_request(message).await?;
        let (head, body) = response.into_parts();
        Ok((head, body.collect().await?.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            result = &mut exchange => return result.map_err(failed),
            _ = &mut connection, if open => open = false,
        }
    }
}

/// JSON with spaces after colons and commas, as the recorded requests were sent: some answers quote them.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<_> = map
                .iter()
                .map(|(k, v)| format!("{}: {}", json!(k), spaced(v)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}
