//! An authority of a Fleet's own for https.
//!
//! libgit2 takes authorities for the whole process alone, and shows us the server's own certificate, not those between it and
//! an authority. So the certificate is verified here, against what key `ca.crt` of the Fleet's Secret names and nothing else. That the
//! server holds its private key was proven in the handshake.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

/// Certificates that may have signed a server's.
#[derive(Clone, Debug)]
pub struct Authority(Arc<WebPkiServerVerifier>);

impl Authority {
    /// Of the certificates in a PEM text.
    ///
    /// # Errors
    /// It is no such text, or has no certificate.
    pub fn parse(pem: &str) -> Result<Self, String> {
        let unusable =
            |why: &dyn std::fmt::Display| format!("ca.crt holds no certificates in PEM: {why}");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|e| unusable(&e))?;
            roots.add(certificate).map_err(|e| unusable(&e))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        verifier.build().map(Self).map_err(|e| unusable(&e))
    }

    /// Whether one of them signed `certificate` (DER), and it holds for `host` at `now`.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, certificate: &[u8], host: &str, now: Timestamp) -> Result<(), String> {
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host).map_err(|e| format!("{host}: {e}"))?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let certificate = CertificateDer::from(certificate);
        self.0
            .verify_server_cert(&certificate, &[], &name, &[], now)
            .map(drop)
            .map_err(|e| e.to_string())
    }
}
