//! Serving over TLS: certificates, connections, the kubeconfig.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::Action;
use crate::audit::{Peer, Who};
use crate::auth::Auth;
use crate::connections::{accept, answer};
use crate::error::ApiError;
use crate::limits::{LONGEST_REQUEST, LongestWatch, WATCH_SECONDS};
use crate::{ApiServer, Error, Result};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The server's certificate and the authority that clients trust.
#[derive(Clone)]
pub struct Tls {
    config: Arc<rustls::ServerConfig>,
    authority: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn tls_error(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

impl Tls {
    /// The certificates in `dir`, made for `localhost`, `127.0.0.1` and `::1` when they are not there yet.
    ///
    /// # Errors
    /// When they can neither be read nor be made.
    pub fn open(dir: &Path) -> Result<Self> {
        private_dir(dir)?;
        let (authority, certificate, key) = (
            dir.join("ca.crt"),
            dir.join("server.crt"),
            dir.join("server.key"),
        );
        if !(authority.exists() && certificate.exists() && key.exists()) {
            let ca_key = rcgen::KeyPair::generate().map_err(tls_error)?;
            let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(tls_error)?;
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, "fleetwright-ca");
            params.key_usages = vec![
                rcgen::KeyUsagePurpose::KeyCertSign,
                rcgen::KeyUsagePurpose::CrlSign,
            ];
            let ca = params.self_signed(&ca_key).map_err(tls_error)?;
            let issuer = rcgen::Issuer::new(params, ca_key);
            let names = ["localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec();
            let mut params = rcgen::CertificateParams::new(names).map_err(tls_error)?;
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, "fleetwright");
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            let server_key = rcgen::KeyPair::generate().map_err(tls_error)?;
            let server = params.signed_by(&server_key, &issuer).map_err(tls_error)?;
            private_file(&key, &server_key.serialize_pem())?;
            private_file(&certificate, &server.pem())?;
            private_file(&authority, &ca.pem())?;
        }
        let chain = CertificateDer::pem_file_iter(&certificate)
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(tls_error)?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(tls_error)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls_error)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(tls_error)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let authority = std::fs::read_to_string(&authority)
            .map_err(|e| Error::Io(format!("cannot read {}", authority.display()), e))?;
        Ok(Self {
            config: Arc::new(config),
            authority,
        })
    }

    /// The certificate of the authority, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl ApiServer {
    /// Serves until `stop` is cancelled; then closes all connections and returns.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Tls,
        auth: Auth,
        stop: CancellationToken,
    ) -> Result<()> {
        let acceptor = tokio_rustls::TlsAcceptor::from(tls.config);
        let auth = Arc::new(auth);
        accept(listener, stop, |stream| {
            let (acceptor, server, auth) = (acceptor.clone(), self.clone(), auth.clone());
            // A connection that is broken already has no other end.
            let peer = stream.peer_addr().ok().map(|peer| Peer(peer.ip()));
            async move {
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await
                else {
                    return;
                };
                let guarded = move |mut request: http::Request<_>| {
                    let (server, auth) = (server.clone(), auth.clone());
                    if let Some(peer) = peer {
                        request.extensions_mut().insert(peer);
                    }
                    async move {
                        Ok::<_, std::convert::Infallible>(server.guarded(&auth, request).await)
                    }
                };
                answer(stream, guarded).await;
            }
        })
        .await;
        Ok(())
    }

    /// Answers a request after finding out who makes it and whether that user may.
    pub async fn guarded<B>(
        &self,
        auth: &Auth,
        request: http::Request<B>,
    ) -> http::Response<axum::body::Body>
    where
        B: http_body::Body,
        B::Error: std::fmt::Display,
    {
        let head = request.method() == http::Method::HEAD;
        let audit = self.0.options.audit.as_ref();
        let asked = audit.map(|log| log.asked(&request));
        let mut who = Who::default();
        let mut answer = self.answered(auth, request, &mut who).await;
        if let (Some(log), Some(asked)) = (audit, asked) {
            log.answered(asked, &who, &answer);
        }
        if head {
            *answer.body_mut() = axum::body::Body::empty();
        }
        answer
    }

    async fn answered<B>(
        &self,
        auth: &Auth,
        request: http::Request<B>,
        who: &mut Who,
    ) -> http::Response<axum::body::Body>
    where
        B: http_body::Body,
        B::Error: std::fmt::Display,
    {
        let user = match auth.user(request.headers()) {
            Ok(user) => user,
            Err(error) => return error.response(),
        };
        who.user = Some(user.clone());
        let user = match crate::auth::impersonated(user, request.headers()) {
            Ok(user) => user,
            Err(error) => {
                who.allowed = Some(false);
                return error.response();
            }
        };
        if who.user.as_ref() != Some(&user) {
            who.impersonated = Some(user.clone());
        }
        let (parts, body) = request.into_parts();
        let action = Action::of(&parts);
        let allowed = user.may(&action);
        who.allowed = Some(allowed);
        if !allowed {
            return action.forbidden(&user).response();
        }
        let watch = action.watches();
        let Some(permit) = self.0.limits.take(&user.name, watch) else {
            return ApiError::too_many_requests().response();
        };
        let mut request = http::Request::from_parts(parts, body);
        if watch {
            let longest = LongestWatch(self.longest_watch());
            request.extensions_mut().insert(longest);
        }
        let answer = tokio::time::timeout(LONGEST_REQUEST, self.handle(user, request));
        match AssertUnwindSafe(answer).catch_unwind().await {
            Ok(Ok(answer)) if watch => permit.held_by(answer),
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => ApiError::timeout().response(),
            Err(_) => {
                tracing::error!("a request caused a panic");
                ApiError::panicked().response()
            }
        }
    }

    fn longest_watch(&self) -> Duration {
        let mut bytes = [0; 8];
        self.0.options.random.fill(&mut bytes);
        let more = u64::from_le_bytes(bytes) % WATCH_SECONDS;
        Duration::from_secs(WATCH_SECONDS + more)
    }
}

/// Writes a kubeconfig for `server` (a URL), readable for its owner alone.
///
/// # Errors
/// When the file cannot be written.
pub fn write_kubeconfig(path: &Path, server: &str, authority: &str, token: &str) -> Result<()> {
    use base64::Engine;
    let data = base64::engine::general_purpose::STANDARD.encode(authority);
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: fleetwright\n  cluster:\n    server: {server}\n    certificate-authority-data: {data}\nusers:\n- name: fleetwright\n  user:\n    token: {token}\ncontexts:\n- name: fleetwright\n  context:\n    cluster: fleetwright\n    user: fleetwright\n    namespace: default\ncurrent-context: fleetwright\n"
    );
    if let Some(dir) = path
        .parent()
        .filter(|d| !d.as_os_str().is_empty() && !d.exists())
    {
        private_dir(dir)?;
    }
    private_file(path, &text)
}

fn private_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::Io(format!("cannot make {}", dir.display()), e))
}

/// Replaces a file as a whole.
fn private_file(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let beside = path.with_extension("new");
        std::fs::remove_file(&beside).ok();
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|e| Error::Io(format!("cannot write {}", path.display()), e))
}
