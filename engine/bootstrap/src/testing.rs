//! Values that several tests share.

use std::{collections::BTreeMap, path::PathBuf};

use fleetwright_api::{
    cluster::{ClusterNetwork, Endpoint, NetworkRanges},
    machine::{MachineTaint, TaintEffect},
    secret::SecretText,
};

use crate::{
    kubeadm::{ClusterValues, NodeValues, ProviderId, Role},
    pki::{Authority, ClusterPki, ServiceAccountKey},
    token::BootstrapToken,
};

pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

pub(crate) fn cluster() -> ClusterValues {
    let ranges = |range: &str| {
        Some(NetworkRanges {
            cidr_blocks: vec![range.to_owned()],
        })
    };
    ClusterValues {
        name: "prod".to_owned(),
        version: "v1.33.2".parse().unwrap(),
        endpoint: Endpoint {
            host: "lb.example.org".to_owned(),
            port: 6443,
        },
        network: ClusterNetwork {
            pods: ranges("10.244.0.0/16"),
            services: ranges("10.96.0.0/12"),
            service_domain: Some("cluster.local".to_owned()),
            ..ClusterNetwork::default()
        },
        certificate_sans: vec!["10.0.0.10".to_owned()],
        external_cloud_provider: true,
    }
}

pub(crate) fn node() -> NodeValues {
    NodeValues {
        name: Some("prod-web-1".to_owned()),
        version: "v1.32.6".parse().unwrap(),
        provider_id: ProviderId::Expression("aws:///$(zone)/$(instance)".to_owned()),
        labels: BTreeMap::from([("pool".to_owned(), "web".to_owned())]),
        taints: vec![MachineTaint {
            key: "dedicated".to_owned(),
            value: Some("web".to_owned()),
            effect: TaintEffect::NoExecute,
            propagation: None,
        }],
    }
}

/// Keys and certificates that are always the same: one certificate that is one, the rest are words.
pub(crate) fn pki() -> ClusterPki {
    let authority = |name: &str| Authority {
        certificate: format!("certificate of {name}\n"),
        key: SecretText::new(format!("key of {name}\n")),
    };
    ClusterPki {
        cluster: Authority {
            certificate: std::fs::read_to_string(golden("ca.crt")).unwrap(),
            ..authority("the cluster")
        },
        etcd: authority("etcd"),
        front_proxy: authority("the front proxy"),
        service_account: ServiceAccountKey {
            public: "public key of service accounts\n".to_owned(),
            key: SecretText::new("private key of service accounts\n"),
        },
    }
}

pub(crate) fn token() -> BootstrapToken {
    BootstrapToken::parse(&SecretText::new("abcdef.0123456789abcdef")).unwrap()
}

/// Each role with its name.
pub(crate) fn roles<'a>(
    pki: &'a ClusterPki,
    authority: &'a str,
    token: &'a BootstrapToken,
) -> [(&'static str, Role<'a>); 3] {
    [
        ("init", Role::Init { pki, token }),
        ("join-control-plane", Role::JoinControlPlane { pki, token }),
        ("join-worker", Role::JoinWorker { authority, token }),
    ]
}
