//! A cluster's keys and certificates as Secrets: names, type and keys are Cluster API's, so that what people have for those works.

use std::collections::BTreeMap;

use fleetwright_api::{meta::LABEL_CLUSTER_NAME, names, secret::SecretText};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    Authority, CLUSTER_NAME, ClusterPki, ETCD_NAME, FRONT_PROXY_NAME, PkiError, ServiceAccountKey,
};

/// Type of a cluster's Secrets.
pub const SECRET_TYPE: &str = "cluster.x-k8s.io/secret";
/// Cluster API's label on them: the cluster's name.
const LABEL_CLUSTER_API_NAME: &str = "cluster.x-k8s.io/cluster-name";

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The four Secrets of [`ClusterPki`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The cluster's authority.
    Cluster,
    /// etcd's authority.
    Etcd,
    /// The front proxy's authority.
    FrontProxy,
    /// The service accounts' keys.
    ServiceAccount,
}

impl Purpose {
    /// All four, in the order in which they are made.
    pub const ALL: [Self; 4] = [
        Self::Cluster,
        Self::Etcd,
        Self::FrontProxy,
        Self::ServiceAccount,
    ];

    /// Name of `cluster`'s Secret.
    pub fn secret_name(self, cluster: &str) -> String {
        let suffix = match self {
            Self::Cluster => "ca",
            Self::Etcd => return names::etcd_secret(cluster),
            Self::FrontProxy => "proxy",
            Self::ServiceAccount => "sa",
        };
        format!("{cluster}-{suffix}")
    }
}

/// What of a cluster's keys and certificates there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: a new cluster, or one that lost its state.
    Nothing,
    /// All of it.
    All(Box<ClusterPki>),
    /// Some, but not the Secrets with these names. Before the first API server ever served, making them was cut off and
    /// [`ClusterPki::complete`] goes on; afterwards somebody deleted them, and new ones would not be the cluster's.
    Lacking(Vec<String>),
}

impl ClusterPki {
    /// What there is among `secrets`, which are those of the cluster's namespace or any part that has its four.
    ///
    /// # Errors
    /// [`PkiError::Secret`] when a Secret holds something else: it is never written over.
    pub fn find(cluster: &str, secrets: &[Secret]) -> Result<Found, PkiError> {
        let there = Parts::read(cluster, secrets)?;
        let lacking: Vec<String> = Purpose::ALL
            .into_iter()
            .filter(|purpose| !there.has(*purpose))
            .map(|purpose| purpose.secret_name(cluster))
            .collect();
        Ok(match there {
            Parts {
                cluster: Some(cluster),
                etcd: Some(etcd),
                front_proxy: Some(front_proxy),
                service_account: Some(service_account),
            } => Found::All(Box::new(Self {
                cluster,
                etcd,
                front_proxy,
                service_account,
            })),
            _ if lacking.len() == Purpose::ALL.len() => Found::Nothing,
            _ => Found::Lacking(lacking),
        })
    }

    /// Keeps what there is among `secrets` and makes the rest, valid from `now`.
    ///
    /// # Errors
    /// As [`find`](Self::find) and [`generate`](Self::generate).
    pub fn complete(cluster: &str, secrets: &[Secret], now: Timestamp) -> Result<Self, PkiError> {
        let there = Parts::read(cluster, secrets)?;
        let authority = |found: Option<Authority>, name| match found {
            Some(found) => Ok(found),
            None => Authority::generate(name, now),
        };
        Ok(Self {
            cluster: authority(there.cluster, CLUSTER_NAME)?,
            etcd: authority(there.etcd, ETCD_NAME)?,
            front_proxy: authority(there.front_proxy, FRONT_PROXY_NAME)?,
            service_account: match there.service_account {
                Some(found) => found,
                None => ServiceAccountKey::generate()?,
            },
        })
    }

    /// The four Secrets, in the order of [`Purpose::ALL`]. Whoever stores them adds the Cluster as owner.
    pub fn secrets(&self, namespace: &str, cluster: &str) -> [Secret; 4] {
        let (ca, etcd, proxy, sa) = (
            &self.cluster,
            &self.etcd,
            &self.front_proxy,
            &self.service_account,
        );
        [
            (Purpose::Cluster, &ca.certificate, &ca.key),
            (Purpose::Etcd, &etcd.certificate, &etcd.key),
            (Purpose::FrontProxy, &proxy.certificate, &proxy.key),
            (Purpose::ServiceAccount, &sa.public, &sa.key),
        ]
        .map(|(purpose, certificate, key)| {
            let data = [(CERTIFICATE, certificate.as_str()), (KEY, key.expose())];
            cluster_secret(namespace, cluster, purpose.secret_name(cluster), &data)
        })
    }
}

/// A Secret of `cluster`.
pub(crate) fn cluster_secret(
    namespace: &str,
    cluster: &str,
    name: String,
    data: &[(&str, &str)],
) -> Secret {
    let label = |key: &str| (key.to_owned(), cluster.to_owned());
    Secret {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name),
            labels: Some(BTreeMap::from([
                label(LABEL_CLUSTER_NAME),
                label(LABEL_CLUSTER_API_NAME),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(
            data.iter()
                .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                .collect(),
        ),
        ..Secret::default()
    }
}

#[derive(Default)]
struct Parts {
    cluster: Option<Authority>,
    etcd: Option<Authority>,
    front_proxy: Option<Authority>,
    service_account: Option<ServiceAccountKey>,
}

impl Parts {
    fn has(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Cluster => self.cluster.is_some(),
            Purpose::Etcd => self.etcd.is_some(),
            Purpose::FrontProxy => self.front_proxy.is_some(),
            Purpose::ServiceAccount => self.service_account.is_some(),
        }
    }

    fn read(cluster: &str, secrets: &[Secret]) -> Result<Self, PkiError> {
        let mut parts = Self::default();
        for purpose in Purpose::ALL {
            let name = purpose.secret_name(cluster);
            let found = secrets
                .iter()
                .find(|secret| secret.metadata.name.as_deref() == Some(name.as_str()));
            let Some(secret) = found else { continue };
            let wrong = |why: String| PkiError::Secret {
                secret: name.clone(),
                why,
            };
            let certificate = text(secret, CERTIFICATE).map_err(wrong)?;
            let key = SecretText::new(text(secret, KEY).map_err(wrong)?);
            if purpose == Purpose::ServiceAccount {
                let pair = ServiceAccountKey {
                    public: certificate,
                    key,
                };
                pair.check().map_err(|e| wrong(e.to_string()))?;
                parts.service_account = Some(pair);
                continue;
            }
            let authority = Authority { certificate, key };
            authority.check().map_err(|e| wrong(e.to_string()))?;
            match purpose {
                Purpose::Cluster => parts.cluster = Some(authority),
                Purpose::Etcd => parts.etcd = Some(authority),
                _ => parts.front_proxy = Some(authority),
            }
        }
        Ok(parts)
    }
}

fn text(secret: &Secret, key: &str) -> Result<String, String> {
    let value = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(|| format!("has no key {key}: put the PEM of the cluster's own there, or restore it from escrow"))?;
    String::from_utf8(value.0.clone()).map_err(|_| format!("{key} is no text: it must be PEM"))
}
