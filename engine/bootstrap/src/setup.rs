//! What an instance gets and runs to become a node: files and commands, by its operating system and its role.

use std::{fmt, str::FromStr};

use fleetwright_api::secret::SecretText;

use crate::{
    kubeadm::{
        self, ClusterValues, KubeadmError, NodeValues, PROVIDER_ID_PLACEHOLDER, ProviderId, Role,
    },
    pki::ClusterPki,
    shell::quote,
};

/// The script that does everything.
pub const SCRIPT: &str = "/etc/fleetwright/bootstrap.sh";
/// kubeadm's configuration; removed once the node is one.
pub const KUBEADM_CONFIG: &str = "/etc/fleetwright/kubeadm.yaml";
/// There once the instance is a node, until its next start: what Cluster API and images made for it look at.
pub const SUCCESS: &str = "/run/cluster-api/bootstrap-success.complete";
/// There for good once the instance became a node.
pub const BOOTSTRAPPED: &str = "/var/lib/fleetwright/bootstrapped";

const ROOT: &str = "root:root";

/// Files and commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSetup {
    /// Files, which are there before the first command runs.
    pub files: Vec<File>,
    /// POSIX shell commands, run in turn as root; one that fails ends it.
    pub commands: Vec<String>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permissions, such as 0o600.
    pub mode: u32,
    /// `user:group`.
    pub owner: String,
    /// Content.
    pub content: Content,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Anybody may see it.
    Open(String),
    /// It is never in user data, which whoever may describe instances can read.
    Secret(SecretText),
}

impl Content {
    /// The text itself.
    pub(crate) fn expose(&self) -> &str {
        match self {
            Self::Open(text) => text,
            Self::Secret(text) => text.expose(),
        }
    }
}

impl NodeSetup {
    /// Whether anything in it is a secret.
    pub fn has_secrets(&self) -> bool {
        self.files
            .iter()
            .any(|file| matches!(file.content, Content::Secret(_)))
    }
}

/// An operating system that we know how to set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperatingSystem {
    /// Ubuntu 22.04 LTS.
    Ubuntu2204,
    /// Ubuntu 24.04 LTS.
    Ubuntu2404,
    /// Debian 12.
    Debian12,
    /// Flatcar Container Linux.
    Flatcar,
}

impl OperatingSystem {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Ubuntu2204,
        Self::Ubuntu2404,
        Self::Debian12,
        Self::Flatcar,
    ];

    /// Its name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ubuntu2204 => "ubuntu-22.04",
            Self::Ubuntu2404 => "ubuntu-24.04",
            Self::Debian12 => "debian-12",
            Self::Flatcar => "flatcar",
        }
    }

    /// The format of user data that its images read.
    pub const fn format(self) -> crate::user_data::Format {
        match self {
            Self::Flatcar => crate::user_data::Format::Ignition,
            _ => crate::user_data::Format::CloudInit,
        }
    }
}

impl fmt::Display for OperatingSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name of no operating system that we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "operating system {0:?} has no profile: there are ubuntu-22.04, ubuntu-24.04, debian-12 and flatcar"
)]
pub struct NoProfile(String);

impl FromStr for OperatingSystem {
    type Err = NoProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| NoProfile(text.to_owned()))
    }
}

/// Files and commands that make an instance of `system` a node in `role`.
///
/// # Errors
/// [`KubeadmError`].
pub fn node_setup(
    system: OperatingSystem,
    cluster: &ClusterValues,
    node: &NodeValues,
    role: Role<'_>,
) -> Result<NodeSetup, KubeadmError> {
    let mut files = vec![
        open("/etc/modules-load.d/fleetwright.conf", 0o644, MODULES),
        open("/etc/sysctl.d/99-fleetwright.conf", 0o644, SYSCTLS),
    ];
    files.extend(match system {
        OperatingSystem::Flatcar => vec![
            open(
                "/etc/systemd/system/kubelet.service",
                0o644,
                include_str!("setup/kubelet.service"),
            ),
            open(
                "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf",
                0o644,
                include_str!("setup/10-kubeadm.conf"),
            ),
        ],
        _ => vec![
            open(
                "/etc/containerd/config.toml",
                0o644,
                include_str!("setup/containerd.toml"),
            ),
            open(
                "/etc/systemd/system/containerd.service",
                0o644,
                include_str!("setup/containerd.service"),
            ),
        ],
    });
    if let Role::Init { pki, .. } | Role::JoinControlPlane { pki, .. } = role {
        files.extend(authorities(pki));
    }
    let configuration = kubeadm::configuration(system, cluster, node, role)?;
    files.push(secret(KUBEADM_CONFIG, &configuration));
    files.push(open(SCRIPT, 0o700, &script(system, cluster, node, role)));
    Ok(NodeSetup {
        files,
        commands: vec![format!("/bin/sh {SCRIPT}")],
    })
}

const MODULES: &str = "overlay\nbr_netfilter\n";
const SYSCTLS: &str = "net.bridge.bridge-nf-call-ip6tables = 1\nnet.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.ip_forward = 1\n";

fn open(path: &str, mode: u32, content: &str) -> File {
    File {
        path: path.to_owned(),
        mode,
        owner: ROOT.to_owned(),
        content: Content::Open(content.to_owned()),
    }
}

fn secret(path: &str, content: &SecretText) -> File {
    File {
        path: path.to_owned(),
        mode: 0o600,
        owner: ROOT.to_owned(),
        content: Content::Secret(content.clone()),
    }
}

/// The cluster's authorities where kubeadm looks for them: it makes everything else of a control plane itself.
fn authorities(pki: &ClusterPki) -> Vec<File> {
    let mut files = Vec::new();
    let mut pair = |name: &str, public: &str, content: &str, key: &SecretText| {
        let path = |suffix| format!("/etc/kubernetes/pki/{name}.{suffix}");
        files.push(open(&path(public), 0o644, content));
        files.push(secret(&path("key"), key));
    };
    for (name, authority) in [
        ("ca", &pki.cluster),
        ("etcd/ca", &pki.etcd),
        ("front-proxy-ca", &pki.front_proxy),
    ] {
        pair(name, "crt", &authority.certificate, &authority.key);
    }
    pair(
        "sa",
        "pub",
        &pki.service_account.public,
        &pki.service_account.key,
    );
    files
}

/// The script: values first, then steps that are the same for everybody.
fn script(
    system: OperatingSystem,
    cluster: &ClusterValues,
    node: &NodeValues,
    role: Role<'_>,
) -> String {
    let bare = |version: &fleetwright_api::version::Version| {
        quote(version.to_string().trim_start_matches('v'))
    };
    let action = match role {
        Role::Init { .. } => "init",
        Role::JoinControlPlane { .. } => "join_control_plane",
        Role::JoinWorker { .. } => "join_worker",
    };
    // The one value that is code.
    let provider_id = match &node.provider_id {
        ProviderId::Expression(expression) => format!(
            "\nprovider_id() {{\n    printf '%s' \"{expression}\"\n}}\nprovider_id_placeholder={}\n",
            quote(PROVIDER_ID_PLACEHOLDER)
        ),
        ProviderId::ByController | ProviderId::Known(_) => String::new(),
    };
    let find_out = match &node.provider_id {
        ProviderId::Expression(_) => include_str!("setup/provider_id.sh"),
        ProviderId::ByController | ProviderId::Known(_) => "",
    };
    let install = match system {
        OperatingSystem::Flatcar => include_str!("setup/flatcar.sh"),
        _ => include_str!("setup/apt.sh"),
    };
    let values = format!(
        "#!/bin/sh\n# Makes this instance a node of its cluster.\nset -eu\numask 022\n\n\
         kubeadm_version={}\nkubelet_version={}\nkubeadm_config={}\nbootstrapped={}\nsuccess={}\naction={action}\n{provider_id}",
        bare(&cluster.version),
        bare(&node.version),
        quote(KUBEADM_CONFIG),
        quote(BOOTSTRAPPED),
        quote(SUCCESS),
    );
    [
        &values,
        include_str!("setup/common.sh"),
        install,
        find_out,
        include_str!("setup/kubeadm.sh"),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests;
