//! Certificates of clients: made anew with a new key each time, renewed at half-life.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use fleetwright_api::secret::SecretText;

use super::{Authority, BACKDATED, PkiError, cannot_make};

/// Whom a certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The user.
    pub common_name: &'a str,
    /// The groups.
    pub organizations: &'a [&'a str],
}

/// An administrator of the cluster, as kubeadm names the first one.
pub const ADMIN: Subject<'static> = Subject {
    common_name: "kubernetes-admin",
    organizations: &["system:masters"],
};

/// A client's certificate and key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: SecretText,
}

impl Authority {
    /// Makes a key and signs a client's certificate for it, valid for `validity` from `now`, but not longer than the authority itself.
    ///
    /// # Errors
    /// [`PkiError::Unreadable`] when the authority is none, [`PkiError::Make`].
    pub fn client(
        &self,
        subject: Subject<'_>,
        validity: SignedDuration,
        now: Timestamp,
    ) -> Result<Leaf, PkiError> {
        let what = format!("the certificate of {}", subject.common_name);
        let (_, last) = super::keys::validity(&self.certificate)?;
        if last <= now {
            return Err(cannot_make(
                &what,
                format!("the authority that signs it expired at {last}"),
            ));
        }
        let key = KeyPair::generate().map_err(|e| cannot_make(&what, e))?;
        let mut params =
            CertificateParams::new(Vec::<String>::new()).map_err(|e| cannot_make(&what, e))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        for organization in subject.organizations {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *organization);
        }
        params
            .distinguished_name
            .push(DnType::CommonName, subject.common_name);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, validity.min(last.duration_since(now)));
        let certificate = params
            .signed_by(&key, &self.issuer()?)
            .map_err(|e| cannot_make(&what, e))?;
        Ok(Leaf {
            certificate: certificate.pem(),
            key: SecretText::new(key.serialize_pem()),
        })
    }
}

/// Valid for `validity` from `now`, and from a little before; whole seconds, as certificates have no others.
pub(super) fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    validity: SignedDuration,
) {
    let date = |time: SignedDuration| {
        let seconds = u64::try_from(time.as_secs()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    let now = now.duration_since(Timestamp::UNIX_EPOCH);
    params.not_before = date(now - BACKDATED);
    params.not_after = date(now + validity);
}

/// Whether a certificate is to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// At this time.
    At(Timestamp),
    /// Now.
    Due,
}

/// A certificate is made anew when half of its life has passed: whatever keeps that from happening has the other half to be
/// noticed and mended.
pub fn renewal(not_before: Timestamp, not_after: Timestamp, now: Timestamp) -> Renewal {
    let half = not_after.duration_since(not_before) / 2;
    match not_before.saturating_add(half) {
        Ok(at) if at > now => Renewal::At(at),
        _ => Renewal::Due,
    }
}
