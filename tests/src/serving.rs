//! API servers that show their certificates and say nothing else, each behind the port-forward of its pod in a workload cluster.

#![allow(clippy::unwrap_used, reason = "tests alone call it")]

use std::{net::Ipv4Addr, sync::Arc};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{pki::Identity, workload::Workload};

/// A server's side of TLS with this certificate.
///
/// # Panics
/// When it is none.
pub fn acceptor(identity: &Identity) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Workload {
    /// The pod of an API server on this node, which shows this certificate, as kubeadm makes it.
    ///
    /// # Panics
    /// When there is no port, or there is such a pod.
    pub async fn api_server(&self, node: &str, identity: &Identity) {
        let name = format!("kube-apiserver-{node}");
        let container = json!({
            "name": "kube-apiserver", "image": "kube-apiserver",
            "command": ["kube-apiserver", "--secure-port=6443"],
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"component": "kube-apiserver", "tier": "control-plane"}},
            "spec": {"nodeName": node, "containers": [container]},
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        self.forward(&name, listener.local_addr().unwrap().port());
        let acceptor = acceptor(identity);
        self.serve(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who has seen enough hangs up.
                acceptor.accept(stream).await.ok();
            }
        });
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        let pods = Api::<DynamicObject>::namespaced_with(self.client(), "kube-system", &kind);
        let pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
}
