//! Reading PEM: certificates, and private keys in the forms that others write.

use fleetwright_api::secret::SecretText;
use jiff::Timestamp;
use pkcs8::{
    AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfo,
    der::{AnyRef, Encode, Tag},
};
use rcgen::KeyPair;
use x509_parser::{certificate::X509Certificate, pem::Pem, time::ASN1Time};

use super::{PkiError, unreadable};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// The content of the first PEM block with `label`.
pub(crate) fn block(text: &str, label: &str) -> Option<Vec<u8>> {
    Pem::iter_from_buffer(text.as_bytes())
        .filter_map(Result::ok)
        .find(|pem| pem.label == label)
        .map(|pem| pem.contents)
}

/// Reads a private key: PKCS #8, PKCS #1 (`RSA PRIVATE KEY`, as Cluster API writes its own) or SEC 1 (`EC PRIVATE KEY`).
///
/// # Errors
/// [`PkiError::Unreadable`], without anything of the key.
pub fn read(key: &SecretText) -> Result<KeyPair, PkiError> {
    let text = key.expose();
    // What a library says of a key that it cannot read may repeat it.
    let useless = || {
        unreadable(
            "the private key",
            "is none that can be used: RSA, P-256 and P-384 can",
        )
    };
    if let Some(der) = block(text, "PRIVATE KEY") {
        return KeyPair::try_from(der).map_err(|_| useless());
    }
    let wrapped: Vec<Vec<u8>> = if let Some(der) = block(text, "RSA PRIVATE KEY") {
        let null = AnyRef::new(Tag::Null, &[]).map_err(|_| useless())?;
        pkcs8(RSA, null, &der).into_iter().collect()
    } else if let Some(der) = block(text, "EC PRIVATE KEY") {
        [P256, P384]
            .iter()
            .filter_map(|curve| pkcs8(EC, AnyRef::from(curve), &der))
            .collect()
    } else {
        return Err(unreadable(
            "the private key",
            "has no block PRIVATE KEY: it must be unencrypted PEM",
        ));
    };
    wrapped
        .into_iter()
        .find_map(|der| KeyPair::try_from(der).ok())
        .ok_or_else(useless)
}

fn pkcs8(algorithm: ObjectIdentifier, parameters: AnyRef<'_>, key: &[u8]) -> Option<Vec<u8>> {
    let algorithm = AlgorithmIdentifierRef {
        oid: algorithm,
        parameters: Some(parameters),
    };
    PrivateKeyInfo::new(algorithm, key).to_der().ok()
}

/// The SubjectPublicKeyInfo (DER) that a PEM certificate certifies.
pub(crate) fn certified_key(certificate: &str) -> Result<Vec<u8>, PkiError> {
    Ok(parse(&der(certificate)?)?.public_key().raw.to_vec())
}

/// From when to when a PEM certificate is valid.
///
/// # Errors
/// [`PkiError::Unreadable`].
pub fn validity(certificate: &str) -> Result<(Timestamp, Timestamp), PkiError> {
    validity_of_der(&der(certificate)?)
}

/// The same of a certificate in DER.
///
/// # Errors
/// [`PkiError::Unreadable`].
pub fn validity_of_der(der: &[u8]) -> Result<(Timestamp, Timestamp), PkiError> {
    let parsed = parse(der)?;
    let time = |at: ASN1Time| {
        let time = Timestamp::from_second(at.timestamp());
        time.map_err(|e| unreadable("the certificate's validity", e))
    };
    let validity = parsed.validity();
    Ok((time(validity.not_before)?, time(validity.not_after)?))
}

fn der(certificate: &str) -> Result<Vec<u8>, PkiError> {
    block(certificate, "CERTIFICATE")
        .ok_or_else(|| unreadable("the certificate", "has no block CERTIFICATE"))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    let parsed = x509_parser::parse_x509_certificate(der);
    let (_, parsed) = parsed.map_err(|e| unreadable("the certificate", e))?;
    Ok(parsed)
}
