//! When the serving certificates of a cluster's API servers expire: each shows its own when a TLS connection begins.

use std::{collections::BTreeMap, sync::Arc};

use fleetwright_bootstrap::pki::keys::validity_of_der;
use fleetwright_providers::ConnectionError;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::pods::{ANSWER, forward, list};

/// Labels of the API servers' pods, as kubeadm makes them.
const PODS: &str = "component=kube-apiserver,tier=control-plane";
/// Their port where their command names none.
const PORT: u16 = 6443;
/// What names the port in it.
const PORT_FLAG: &str = "--secure-port=";
/// A name that the certificate of every API server has.
const HOST: &str = "kubernetes";

/// Asks all API servers at once; those that do not answer are left out.
pub(crate) async fn look(client: &Client) -> Result<BTreeMap<String, Timestamp>, ConnectionError> {
    let (api, pods) = list(client, PODS, "the API servers'").await?;
    let ask = |pod: &Pod| {
        let (api, name, port) = (api.clone(), pod.name_any(), port_of(pod));
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        async move {
            let asked = timeout(ANSWER, ask_one(&api, &name, port)).await;
            match asked.unwrap_or_else(|_| Err("no answer".into())) {
                Ok(end) => Some((node?, end)),
                Err(why) => {
                    tracing::debug!(pod = %name, %why, "an API server does not show its certificate");
                    None
                }
            }
        }
    };
    let asked = join_all(pods.iter().map(ask)).await;
    Ok(asked.into_iter().flatten().collect())
}

fn port_of(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut words = containers.flat_map(|c| c.command.iter().chain(&c.args).flatten());
    let named = words.find_map(|word| word.strip_prefix(PORT_FLAG)?.parse().ok());
    named.unwrap_or(PORT)
}

async fn ask_one(api: &Api<Pod>, pod: &str, port: u16) -> Result<Timestamp, String> {
    let (_forwarded, stream) = forward(api, pod, port).await?;
    expiry(stream).await
}

/// When the certificate expires that the server at the other end shows.
async fn expiry(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Timestamp, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Whoever(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let host = ServerName::try_from(HOST).map_err(|e| e.to_string())?;
    let shaken = TlsConnector::from(Arc::new(config)).connect(host, stream);
    let stream = shaken.await.map_err(|e| format!("TLS: {e}"))?;
    let shown = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let shown = shown.ok_or("it shows no certificate")?;
    let (_, end) = validity_of_der(shown).map_err(|e| e.to_string())?;
    Ok(end)
}

/// Believes every server that has the key of the certificate that it shows: one that has expired is to be read too, and nothing is said to
/// whoever it is.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use fleetwright_tests::{
        openssl::{AUTHORITIES, Openssl},
        pki::{Authority, Identity},
        serving,
    };
    use serde_json::json;
    use tokio::{io::duplex, task::JoinSet};

    use super::*;

    async fn shown(identity: &Identity) -> Result<Timestamp, String> {
        let (ours, theirs) = duplex(1 << 16);
        let acceptor = serving::acceptor(identity);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { acceptor.accept(theirs).await.map(drop).ok() });
        expiry(ours).await
    }

    #[tokio::test]
    async fn the_end_of_a_certificate_is_read_whoever_signed_it_and_though_it_has_come() {
        let day = |text: &str| text.parse::<Timestamp>().unwrap();
        let authority = Authority::new("kubernetes");
        for end in [
            day("2026-01-02T03:04:05Z"),
            day("2049-12-31T23:59:59Z"),
            day("2050-01-01T00:00:00Z"),
        ] {
            let identity = authority.sign_until("kube-apiserver", &[HOST], end.as_second());
            assert_eq!(shown(&identity).await, Ok(end));
        }
        // RSA and EC, by another program.
        let Some(openssl) = Openssl::new() else {
            return;
        };
        for (label, recipe) in AUTHORITIES {
            let identity = openssl.authority(recipe);
            let end = shown(&identity)
                .await
                .unwrap_or_else(|e| panic!("{label}: {e}"));
            assert_eq!(
                openssl.end(&identity.certificate),
                end.to_string(),
                "{label}"
            );
        }
    }

    #[tokio::test]
    async fn what_shows_nothing_says_nothing() {
        let (ours, theirs) = duplex(1 << 10);
        drop(theirs);
        assert!(expiry(ours).await.unwrap_err().starts_with("TLS: "));
    }

    #[test]
    fn the_port_is_the_one_that_the_command_names() {
        let pod = |command: &[&str]| {
            let container = json!({"name": "kube-apiserver", "command": command});
            serde_json::from_value(json!({"spec": {"containers": [container]}})).unwrap()
        };
        for (command, want) in [
            (&["kube-apiserver", "--secure-port=8443"][..], 8443),
            (&["kube-apiserver", "--secure-port=x"], PORT),
            (&["kube-apiserver"], PORT),
            (&[], PORT),
        ] {
            assert_eq!(port_of(&pod(command)), want, "{command:?}");
        }
        assert_eq!(port_of(&Pod::default()), PORT);
    }
}
