//! A certificate authority of a test's own.

#![allow(clippy::unwrap_used, reason = "tests alone call it")]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// A certificate with its private key, as PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// What a kubelet of this user asks a serving certificate with, for these hosts.
///
/// # Panics
/// When no key can be made.
pub fn request(user: &str, hosts: &[&str]) -> String {
    let mut params = named(user, hosts);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, user);
    params.distinguished_name = subject;
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}

/// An authority that signs what it is told.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate and key.
    pub identity: Identity,
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    /// A new authority of this name.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let identity = Identity {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        };
        Self {
            issuer: Issuer::new(params, key),
            identity,
        }
    }

    /// The authority that has this certificate and this key.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn of(certificate: &str, key: &str) -> Self {
        let pair = KeyPair::from_pem(key).unwrap();
        Self {
            issuer: Issuer::from_ca_cert_pem(certificate, pair).unwrap(),
            identity: Identity {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
        }
    }

    /// A certificate for servers and clients called `name`, at these hosts.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn sign(&self, name: &str, hosts: &[&str]) -> Identity {
        self.sign_params(named(name, hosts))
    }

    /// The same, valid until so many seconds after 1970.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn sign_until(&self, name: &str, hosts: &[&str], seconds: i64) -> Identity {
        let mut params = named(name, hosts);
        let seconds = Duration::from_secs(seconds.unsigned_abs());
        params.not_after = date_time_ymd(1970, 1, 1) + seconds;
        self.sign_params(params)
    }

    fn sign_params(&self, mut params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Identity {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}
