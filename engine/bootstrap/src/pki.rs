//! A cluster's keys and certificates, made once and kept in Secrets that are laid out as Cluster API's.
//!
//! Keys come from the operating system's entropy and nowhere else; everything else is an argument.

pub mod keys;
pub mod leaf;
pub mod secrets;

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use sha2::{Digest, Sha256};

use fleetwright_api::{random::hex, secret::SecretText};

pub use leaf::{Leaf, Renewal, Subject, renewal};
pub use secrets::{Found, SECRET_TYPE};

/// How long an authority's certificate is valid: ten years, as kubeadm's.
pub const AUTHORITY_VALIDITY: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long a client's certificate is valid: a year, as kubeadm's.
pub const LEAF_VALIDITY: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Certificates are valid from so long before they were made, because clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

/// What is wrong with a cluster's keys and certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// Something could not be made.
    #[error("cannot make {what}: {why}")]
    Make {
        /// What was to be made.
        what: String,
        /// The library's reason.
        why: String,
    },
    /// A Secret is not what it should be.
    #[error("Secret {secret}: {why}")]
    Secret {
        /// The Secret's name.
        secret: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A text is no certificate, or no key.
    #[error("{what}: {why}")]
    Unreadable {
        /// What was to be read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

pub(crate) fn cannot_make(what: &str, why: impl std::fmt::Display) -> PkiError {
    PkiError::Make {
        what: what.to_owned(),
        why: why.to_string(),
    }
}

pub(crate) fn unreadable(what: &str, why: impl std::fmt::Display) -> PkiError {
    PkiError::Unreadable {
        what: what.to_owned(),
        why: why.to_string(),
    }
}

/// Everything that a cluster's certificates hang on. Whoever has it is the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPki {
    /// Signs API servers, kubelets and users.
    pub cluster: Authority,
    /// Signs etcd's members and their clients.
    pub etcd: Authority,
    /// Signs the API server as the front of extension API servers.
    pub front_proxy: Authority,
    /// Signs service accounts' tokens.
    pub service_account: ServiceAccountKey,
}

/// An authority: certificate and key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: SecretText,
}

/// The pair of keys that service accounts' tokens are signed with, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountKey {
    /// The public key.
    pub public: String,
    /// The private key.
    pub key: SecretText,
}

impl ClusterPki {
    /// Makes all of it, valid from `now`.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the operating system gives no entropy.
    pub fn generate(now: Timestamp) -> Result<Self, PkiError> {
        Ok(Self {
            cluster: Authority::generate(CLUSTER_NAME, now)?,
            etcd: Authority::generate(ETCD_NAME, now)?,
            front_proxy: Authority::generate(FRONT_PROXY_NAME, now)?,
            service_account: ServiceAccountKey::generate()?,
        })
    }
}

/// Common names of the authorities, as kubeadm has them.
pub(crate) const CLUSTER_NAME: &str = "kubernetes";
pub(crate) const ETCD_NAME: &str = "etcd-ca";
pub(crate) const FRONT_PROXY_NAME: &str = "front-proxy-ca";

/// Hash of the authority with this certificate: [`Authority::hash`].
///
/// # Errors
/// [`PkiError::Unreadable`].
pub fn hash(certificate: &str) -> Result<String, PkiError> {
    let digest = Sha256::digest(keys::certified_key(certificate)?);
    Ok(format!("sha256:{}", hex(&digest)))
}

impl Authority {
    /// Makes an authority that signs itself, with an ECDSA P-256 key.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the operating system gives no entropy.
    pub fn generate(common_name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let what = format!("the authority {common_name}");
        let key = KeyPair::generate().map_err(|e| cannot_make(&what, e))?;
        let mut params = CertificateParams::new(vec![common_name.to_owned()])
            .map_err(|e| cannot_make(&what, e))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        leaf::set_validity(&mut params, now, AUTHORITY_VALIDITY);
        let certificate = params
            .self_signed(&key)
            .map_err(|e| cannot_make(&what, e))?;
        Ok(Self {
            certificate: certificate.pem(),
            key: SecretText::new(key.serialize_pem()),
        })
    }

    /// What kubeadm calls the hash of the authority: `sha256:` and the digest of its public key's SubjectPublicKeyInfo. A node
    /// that joins by a token believes only a cluster with it.
    ///
    /// # Errors
    /// [`PkiError::Unreadable`].
    pub fn hash(&self) -> Result<String, PkiError> {
        hash(&self.certificate)
    }

    /// Certificate and key belong together.
    pub(crate) fn check(&self) -> Result<(), PkiError> {
        let key = keys::read(&self.key)?;
        if rcgen::PublicKeyData::subject_public_key_info(&key)
            != keys::certified_key(&self.certificate)?
        {
            return Err(unreadable(
                "tls.key",
                "is not the key of the certificate in tls.crt",
            ));
        }
        Ok(())
    }

    pub(crate) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let key = keys::read(&self.key)?;
        Issuer::from_ca_cert_pem(&self.certificate, key)
            .map_err(|e| unreadable("the authority's certificate", e))
    }
}

impl ServiceAccountKey {
    /// Makes an ECDSA P-256 pair.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the operating system gives no entropy.
    pub fn generate() -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(|e| cannot_make("the service accounts' key", e))?;
        Ok(Self {
            public: key.public_key_pem(),
            key: SecretText::new(key.serialize_pem()),
        })
    }

    /// The two keys belong together.
    pub(crate) fn check(&self) -> Result<(), PkiError> {
        let key = keys::read(&self.key)?;
        let public = keys::block(&self.public, "PUBLIC KEY")
            .ok_or_else(|| unreadable("tls.crt", "has no block PUBLIC KEY"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != public {
            return Err(unreadable(
                "tls.key",
                "is not the private key of the public key in tls.crt",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
