//! HTTP/1.1 over TLS with as little work as possible, so that the generator of the load costs little beside the server.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and the token of who asks.
#[derive(Clone)]
pub(crate) struct Target {
    address: String,
    token: String,
    tls: Arc<ClientConfig>,
}

impl Target {
    /// The server at `url` (`https://host:port`) that trusts the PEM certificates in `authority`.
    pub(crate) fn new(url: &str, authority: &Path, token: &str) -> anyhow::Result<Self> {
        let address = url.strip_prefix("https://").context("not an https URL")?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            address: address.to_owned(),
            token: token.to_owned(),
            tls: Arc::new(tls),
        })
    }

    /// The bytes of a request.
    pub(crate) fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> Vec<u8> {
        let (host, token, length) = (&self.address, &self.token, body.len());
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\naccept: application/json\r\n\
             content-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await?;
        Ok(Connection {
            stream,
            buffer: Vec::with_capacity(16 << 10),
        })
    }
}

/// A connection that answers one request after the other.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads its answer; gives the status code and the length of the body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, usize)> {
        tokio::time::timeout(PATIENCE, self.answer(request))
            .await
            .context("a request was not answered")?
    }

    async fn answer(&mut self, request: &[u8]) -> anyhow::Result<(u16, usize)> {
        self.send(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            self.fill().await?;
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let code = text
            .get(9..12)
            .and_then(|code| code.parse().ok())
            .context("no status code")?;
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .context("the answer has no length")?
            .parse::<usize>()?;
        let mut left = length.saturating_sub(self.buffer.len() - head - 4);
        while left > 0 {
            self.buffer.clear();
            left = left.saturating_sub(self.fill().await?);
        }
        Ok((code, length))
    }

    /// Sends a request whose answer never ends.
    pub(crate) async fn begin(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.send(request).await?;
        self.until(b"\r\n\r\n").await
    }

    async fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads until `mark` has come.
    pub(crate) async fn until(&mut self, mark: &[u8]) -> anyhow::Result<()> {
        loop {
            if let Some(at) = find(&self.buffer, mark) {
                self.buffer.drain(..at + mark.len());
                return Ok(());
            }
            let keep = self.buffer.len().min(mark.len());
            self.buffer.drain(..self.buffer.len() - keep);
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<usize> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => anyhow::bail!("the server closed the connection"),
            read => Ok(read),
        }
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len())
        .position(|window| window == needle)
}
