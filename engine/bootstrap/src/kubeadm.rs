//! kubeadm's configuration, version v1beta4, which Kubernetes 1.31 and later have.

use std::collections::BTreeMap;

use fleetwright_api::{
    cluster::{ClusterNetwork, Endpoint, NetworkRanges},
    machine::MachineTaint,
    meta::TAINT_UNINITIALIZED,
    secret::SecretText,
    version::Version,
};
use serde_json::{Value, json};

use crate::{
    pki::{ClusterPki, PkiError},
    setup::OperatingSystem,
    token::{BootstrapToken, LIFE},
    yaml,
};

const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";
/// First minor version whose kubeadm reads v1beta4.
const FIRST_MINOR: u64 = 31;
/// Minor version from which kubelets of control planes talk to their own API server without being told so.
pub(crate) const LOCAL_KUBELET_MINOR: u64 = 33;
/// The feature gate that told them so before.
pub(crate) const LOCAL_KUBELET_GATE: &str = "ControlPlaneKubeletLocalMode";
const DEFAULT_PORT: i32 = 6443;
/// Stands for the provider's id where the instance finds it out.
pub(crate) const PROVIDER_ID_PLACEHOLDER: &str = "__FLEETWRIGHT_PROVIDER_ID__";

/// What every node of a cluster is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterValues {
    /// The cluster's name.
    pub name: String,
    /// Version of the control plane and of kubeadm: of a control-plane machine its own, of a worker the running control plane's.
    pub version: Version,
    /// Where the API server is reached by everybody, such as a load balancer.
    pub endpoint: Endpoint,
    /// The cluster's networks.
    pub network: ClusterNetwork,
    /// More names and addresses that API servers' certificates are valid for.
    pub certificate_sans: Vec<String>,
    /// Nodes wait for a cloud controller before they take pods.
    pub external_cloud_provider: bool,
}

/// What one node is told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeValues {
    /// Name that it registers as; its hostname when left out.
    pub name: Option<String>,
    /// Version of its kubelet, at most three minors below the control plane's.
    pub version: Version,
    /// Its id at the provider.
    pub provider_id: ProviderId,
    /// Labels that it registers with; those that a kubelet must not give itself are left for whoever labels the node later.
    pub labels: BTreeMap<String, String>,
    /// Taints that it registers with, besides those that say that it is new.
    pub taints: Vec<MachineTaint>,
}

/// A node's id at its provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProviderId {
    /// A cloud controller sets it.
    #[default]
    ByController,
    /// This.
    Known(String),
    /// A POSIX shell expression that the instance evaluates between double quotes. It is code: it comes from a provider of ours alone.
    Expression(String),
}

/// What a node becomes.
#[derive(Clone, Copy, Debug)]
pub enum Role<'a> {
    /// The first of its cluster's control plane.
    Init {
        /// The cluster's keys and certificates.
        pki: &'a ClusterPki,
        /// A token that kubeadm makes known in the new cluster, for those who join.
        token: &'a BootstrapToken,
    },
    /// One more of the control plane.
    JoinControlPlane {
        /// The cluster's keys and certificates.
        pki: &'a ClusterPki,
        /// A token that the cluster knows.
        token: &'a BootstrapToken,
    },
    /// A worker.
    JoinWorker {
        /// Hash of the cluster's authority ([`crate::pki::Authority::hash`]).
        authority: &'a str,
        /// A token that the cluster knows.
        token: &'a BootstrapToken,
    },
}

impl Role<'_> {
    /// Whether it runs an API server.
    pub fn is_control_plane(&self) -> bool {
        !matches!(self, Self::JoinWorker { .. })
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeadmError {
    /// A version that is too old.
    #[error(
        "Kubernetes {0} is too old: nodes are made with kubeadm's configuration v1beta4, which v1.31.0 and later read"
    )]
    TooOld(Version),
    /// A label that no node can have.
    #[error(
        "label {0:?} is none that a node can have: key and value consist of letters, digits, '.', '-' and '_', and the key of one '/' at most"
    )]
    Label(String),
    /// The authority cannot be read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It cannot be written.
    #[error("kubeadm's configuration cannot be written: {0}")]
    Write(String),
}

/// kubeadm's configuration for `role` on `system`. It holds a token.
///
/// # Errors
/// [`KubeadmError`].
pub fn configuration(
    system: OperatingSystem,
    cluster: &ClusterValues,
    node: &NodeValues,
    role: Role<'_>,
) -> Result<SecretText, KubeadmError> {
    if (cluster.version.major(), cluster.version.minor()) < (1, FIRST_MINOR) {
        return Err(KubeadmError::TooOld(cluster.version.clone()));
    }
    let registration = registration(system, cluster, node, role)?;
    let documents = match role {
        Role::Init { token, .. } => vec![
            init(cluster, token, registration),
            cluster_configuration(system, cluster),
            kubelet_configuration(),
        ],
        Role::JoinControlPlane { pki, token } => vec![join(
            cluster,
            token,
            &pki.cluster.hash()?,
            registration,
            Some(local_endpoint(cluster)),
        )],
        Role::JoinWorker { authority, token } => {
            vec![join(cluster, token, authority, registration, None)]
        }
    };
    yaml::documents(&documents)
        .map(SecretText::new)
        .map_err(|e| KubeadmError::Write(e.to_string()))
}

fn local_endpoint(cluster: &ClusterValues) -> Value {
    let port = cluster.network.api_server_port.unwrap_or(DEFAULT_PORT);
    json!({"bindPort": port})
}

fn init(cluster: &ClusterValues, token: &BootstrapToken, registration: Value) -> Value {
    // Otherwise kubeadm makes a token of its own, good for a day, and prints it.
    let known = json!({
        "token": token.token().expose(),
        "ttl": format!("{}m0s", LIFE.as_mins()),
        "usages": ["signing", "authentication"],
        "groups": [crate::token::NODE_GROUP],
    });
    json!({
        "apiVersion": API_VERSION,
        "kind": "InitConfiguration",
        "bootstrapTokens": [known],
        "localAPIEndpoint": local_endpoint(cluster),
        "nodeRegistration": registration,
    })
}

fn cluster_configuration(system: OperatingSystem, cluster: &ClusterValues) -> Value {
    let mut networking = serde_json::Map::new();
    let network = &cluster.network;
    for (key, ranges) in [
        ("podSubnet", &network.pods),
        ("serviceSubnet", &network.services),
    ] {
        if let Some(NetworkRanges { cidr_blocks }) = ranges {
            networking.insert(key.to_owned(), cidr_blocks.join(",").into());
        }
    }
    if let Some(domain) = &network.service_domain {
        networking.insert("dnsDomain".to_owned(), domain.clone().into());
    }
    let mut configuration = json!({
        "apiVersion": API_VERSION,
        "kind": "ClusterConfiguration",
        "clusterName": cluster.name,
        "kubernetesVersion": cluster.version.to_string(),
        "controlPlaneEndpoint": host_and_port(&cluster.endpoint),
        "encryptionAlgorithm": "ECDSA-P256",
        "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
        "networking": networking,
    });
    if !cluster.certificate_sans.is_empty() {
        configuration["apiServer"] = json!({"certSANs": cluster.certificate_sans});
    }
    if let Some(folder) = volume_plugins(system) {
        let argument = [json!({"name": "flex-volume-plugin-dir", "value": folder})];
        configuration["controllerManager"] = json!({"extraArgs": argument});
    }
    // While control planes are upgraded, a new kubelet must not meet an old API server behind the load balancer.
    if cluster.version.minor() < LOCAL_KUBELET_MINOR {
        configuration["featureGates"] = json!({LOCAL_KUBELET_GATE: true});
    }
    configuration
}

/// Folder of volume plugins, where Kubernetes' own cannot be written: Flatcar's /usr is read-only.
fn volume_plugins(system: OperatingSystem) -> Option<&'static str> {
    (system == OperatingSystem::Flatcar)
        .then_some("/opt/libexec/kubernetes/kubelet-plugins/volume/exec/")
}

/// What all kubelets of the cluster have in common; kubeadm keeps it in the cluster for those who join.
fn kubelet_configuration() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
    })
}

fn join(
    cluster: &ClusterValues,
    token: &BootstrapToken,
    authority: &str,
    registration: Value,
    control_plane: Option<Value>,
) -> Value {
    let mut configuration = json!({
        "apiVersion": API_VERSION,
        "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": {
            "apiServerEndpoint": host_and_port(&cluster.endpoint),
            "caCertHashes": [authority],
            "token": token.token().expose(),
        }},
        "nodeRegistration": registration,
    });
    if let Some(endpoint) = control_plane {
        configuration["controlPlane"] = json!({"localAPIEndpoint": endpoint});
    }
    configuration
}

/// `host:port`, an IPv6 address in brackets.
fn host_and_port(endpoint: &Endpoint) -> String {
    let Endpoint { host, port } = endpoint;
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn registration(
    system: OperatingSystem,
    cluster: &ClusterValues,
    node: &NodeValues,
    role: Role<'_>,
) -> Result<Value, KubeadmError> {
    let mut arguments = Vec::new();
    let mut argument =
        |name: &str, value: &str| arguments.push(json!({"name": name, "value": value}));
    if cluster.external_cloud_provider {
        argument("cloud-provider", "external");
    }
    let labels = self_given(&node.labels)?;
    if !labels.is_empty() {
        argument("node-labels", &labels);
    }
    match &node.provider_id {
        ProviderId::ByController => {}
        ProviderId::Known(id) => argument("provider-id", id),
        ProviderId::Expression(_) => argument("provider-id", PROVIDER_ID_PLACEHOLDER),
    }
    if let Some(folder) = volume_plugins(system) {
        argument("volume-plugin-dir", folder);
    }
    let mut registration = json!({
        "criSocket": "unix:///run/containerd/containerd.sock",
        "kubeletExtraArgs": arguments,
        "taints": taints(&node.taints, role),
    });
    if let Some(name) = &node.name {
        registration["name"] = name.clone().into();
    }
    Ok(registration)
}

/// Taints of the node's own, and those of its role: kubeadm adds none where some are given. A worker takes no pods before it has the
/// labels and taints of its Machine; a control plane has to run what its cluster needs to work at all.
fn taints(own: &[MachineTaint], role: Role<'_>) -> Vec<Value> {
    let first = if role.is_control_plane() {
        "node-role.kubernetes.io/control-plane"
    } else {
        TAINT_UNINITIALIZED
    };
    let mut taints = vec![json!({"key": first, "effect": "NoSchedule"})];
    for taint in own {
        let mut written = json!({"key": taint.key, "effect": taint.effect.as_str()});
        if let Some(value) = &taint.value {
            written["value"] = value.clone().into();
        }
        if !(taint.key == first && taint.effect.as_str() == "NoSchedule") {
            taints.push(written);
        }
    }
    taints
}

/// Labels that a kubelet may give itself, as its flag `--node-labels` takes them.
fn self_given(labels: &BTreeMap<String, String>) -> Result<String, KubeadmError> {
    let mut given = Vec::new();
    for (key, value) in labels {
        let good = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        if !good(namespace) || !good(name) || !good(value) || name.is_empty() {
            return Err(KubeadmError::Label(format!("{key}={value}")));
        }
        if may_give_itself(key, namespace) {
            given.push(format!("{key}={value}"));
        }
    }
    Ok(given.join(","))
}

/// kubelet refuses to start with other labels of Kubernetes' own namespaces.
fn may_give_itself(key: &str, namespace: &str) -> bool {
    let within = |domain: &str| {
        namespace
            .strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
        || matches!(
            key,
            "kubernetes.io/arch"
                | "kubernetes.io/hostname"
                | "kubernetes.io/os"
                | "topology.kubernetes.io/region"
                | "topology.kubernetes.io/zone"
        )
}

#[cfg(test)]
mod tests;
