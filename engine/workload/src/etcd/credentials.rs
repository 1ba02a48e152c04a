//! A certificate for one look at etcd, made of its authority.

use std::sync::Arc;

use fleetwright_api::secret::SecretText;
use fleetwright_bootstrap::pki::keys;
use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};
use rcgen::{
    Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

const CANNOT: &str = "no certificate can be signed with it";
const WRONG: &str = "tls.crt is no certificate of an authority in PEM";

/// What a client of etcd needs whose authority has this certificate and key (PEM). Its own certificate holds on the day of `now`, the one
/// before and the one after, and is kept nowhere.
///
/// # Errors
/// What of the authority cannot be used, without any of it.
pub(crate) fn make(
    certificate: &str,
    key: &str,
    now: Timestamp,
) -> Result<ClientConfig, &'static str> {
    let (own, own_key) = sign(certificate, key, now)?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(certificate.as_bytes()) {
        roots
            .add(authority.map_err(|_| WRONG)?)
            .map_err(|_| WRONG)?;
    }
    let own_key = PrivateKeyDer::from_pem_slice(own_key.serialize_pem().as_bytes());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| CANNOT)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.der().clone()], own_key.map_err(|_| CANNOT)?)
        .map_err(|_| CANNOT)
}

/// Our certificate and its key.
fn sign(
    certificate: &str,
    key: &str,
    now: Timestamp,
) -> Result<(Certificate, KeyPair), &'static str> {
    let ca_key = keys::read(&SecretText::new(key)).map_err(
        |_| "tls.key is no private key in PEM that can be used: RSA, P-256 and P-384 can",
    )?;
    let issuer = Issuer::from_ca_cert_pem(certificate, ca_key).map_err(|_| WRONG)?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "fleetwright");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let ((y, m, d), (year, month, number)) = (day(now, -1)?, day(now, 2)?);
    params.not_before = date_time_ymd(y, m, d);
    params.not_after = date_time_ymd(year, month, number);
    let own_key = KeyPair::generate().map_err(|_| CANNOT)?;
    let own = params.signed_by(&own_key, &issuer).map_err(|_| CANNOT)?;
    Ok((own, own_key))
}

/// Year, month and day of the day so many days after that of `now`, in UTC.
fn day(now: Timestamp, days: i64) -> Result<(i32, u8, u8), &'static str> {
    let day = Zoned::new(now, TimeZone::UTC).checked_add(days.days()).ok();
    let parts = |day: Zoned| {
        let (month, number) = (u8::try_from(day.month()), u8::try_from(day.day()));
        Some((i32::from(day.year()), month.ok()?, number.ok()?))
    };
    day.and_then(parts)
        .ok_or("the clock shows no time that certificates can have")
}

#[cfg(test)]
mod tests {
    use fleetwright_api::time::{Clock, SystemClock};
    use fleetwright_tests::{
        openssl::{AUTHORITIES, Openssl},
        pki::Authority,
    };

    use super::*;

    #[test]
    fn what_cannot_be_used_is_told_without_showing_it() {
        let (one, other) = (
            Authority::new("one").identity,
            Authority::new("other").identity,
        );
        let now = "2026-03-04T05:06:07Z".parse().unwrap();
        assert!(make(&one.certificate, &one.key, now).is_ok());
        for (certificate, key, want) in [
            ("hush", one.key.as_str(), "tls.crt"),
            (one.certificate.as_str(), "hush", "tls.key"),
            (
                one.certificate.as_str(),
                other.certificate.as_str(),
                "tls.key",
            ),
        ] {
            let why = make(certificate, key, now).map(drop).unwrap_err();
            assert!(why.starts_with(want), "{why}");
        }
    }

    /// Authorities that others made, with keys in the forms that they write, and one of ours.
    #[test]
    fn openssl_accepts_what_is_made_of_any_authority() {
        let Some(openssl) = Openssl::new() else {
            return;
        };
        let others = AUTHORITIES.map(|(label, recipe)| (label, openssl.authority(recipe)));
        let ours = ("PRIVATE KEY", Authority::new("etcd-ca").identity);
        let stranger = Authority::new("etcd-ca").identity;
        for (label, authority) in others.into_iter().chain([ours]) {
            assert!(authority.key.contains(&format!("BEGIN {label}")));
            let (certificate, key) = (&authority.certificate, &authority.key);
            let now = SystemClock.now();
            make(certificate, key, now).unwrap_or_else(|e| panic!("{label}: {e}"));
            let (own, _) = sign(certificate, key, now).unwrap();
            assert!(openssl.verifies(certificate, &own.pem()), "{label}");
            assert!(
                !openssl.verifies(&stranger.certificate, &own.pem()),
                "{label}: another authority's"
            );
            let shown = openssl.text(&own.pem());
            for part in [
                "Subject: CN=fleetwright",
                "TLS Web Client Authentication",
                "Digital Signature",
                "prime256v1",
            ] {
                assert!(shown.contains(part), "{part} is not in {shown}");
            }
            assert!(!shown.contains("CA:TRUE"), "{shown}");
        }
    }
}
