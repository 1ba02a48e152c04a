//! A certificate for one look at etcd, made of its authority.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

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
    const WRONG: &str = "tls.crt is no certificate of an authority in PEM";
    let ca_key =
        KeyPair::from_pem(key).map_err(|_| "tls.key is no private key in PEM (PKCS #8)")?;
    let issuer = Issuer::from_ca_cert_pem(certificate, ca_key).map_err(|_| WRONG)?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "fleetwright");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let ((y, m, d), (year, month, number)) = (day(now, -1)?, day(now, 2)?);
    params.not_before = date_time_ymd(y, m, d);
    params.not_after = date_time_ymd(year, month, number);
    let cannot = "no certificate can be signed with it";
    let own_key = KeyPair::generate().map_err(|_| cannot)?;
    let own = params.signed_by(&own_key, &issuer).map_err(|_| cannot)?;
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
        .map_err(|_| cannot)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.der().clone()], own_key.map_err(|_| cannot)?)
        .map_err(|_| cannot)
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
    use fleetwright_tests::pki::Authority;

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
}
