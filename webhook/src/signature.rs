//! Whether a delivery comes from the forge: signatures over the raw body and plain tokens, compared in constant time.

use base64::{Engine, engine::general_purpose::STANDARD};
use fleetwright_api::{fleet::ForgeType, secret::SecretText};
use hmac::{Hmac, Mac};
use http::HeaderMap;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use SignatureError::{Malformed, Missing, Stale, Wrong};

/// How far the time in a signed delivery may be from ours, in seconds.
const WINDOW: u64 = 300;

/// Why a delivery is not believed to come from the forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The secret is empty: anybody could sign with it.
    #[error(
        "the webhook secret is empty: set one in the forge and in the Secret that the Fleet names"
    )]
    EmptySecret,
    /// No header that proves anything, or an empty one. GitHub's older SHA-1 header does not count.
    #[error("no {0} header: set the same secret in the forge's webhook")]
    Missing(&'static str),
    /// The header is not what the forge writes.
    #[error("the {0} header is malformed")]
    Malformed(&'static str),
    /// The signature is another secret's or another body's.
    #[error("the {0} header does not match: is the secret the same on both sides?")]
    Wrong(&'static str),
    /// Signed too long ago, or in the future: a delivery that somebody repeats, or a wrong clock.
    #[error(
        "the delivery was signed more than {WINDOW} s from now: it is repeated, or a clock is wrong"
    )]
    Stale,
}

/// Checks what proves that the delivery comes from the forge.
///
/// # Errors
/// See [`SignatureError`].
pub fn verify(
    kind: ForgeType,
    secret: &SecretText,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureError> {
    if secret.is_empty() {
        return Err(SignatureError::EmptySecret);
    }
    match kind {
        ForgeType::Github => {
            let name = "X-Hub-Signature-256";
            let value = present(headers, name)?;
            let digits = value.strip_prefix("sha256=").ok_or(Malformed(name))?;
            hexadecimal(secret, name, digits, body)
        }
        ForgeType::Gitea => {
            // Forgejo writes both.
            let names = ["X-Forgejo-Signature", "X-Gitea-Signature"];
            let name = names.into_iter().find(|n| headers.contains_key(*n));
            let name = name.ok_or(Missing("X-Gitea-Signature"))?;
            hexadecimal(secret, name, present(headers, name)?, body)
        }
        // A signature that is there counts alone: whoever knows the plain token cannot do without it.
        ForgeType::Gitlab if headers.contains_key("webhook-signature") => {
            standard(secret, headers, body, now)
        }
        ForgeType::Gitlab => {
            let name = "X-Gitlab-Token";
            let value = present(headers, name)?;
            // Hashes are of one length, so that the time tells not even the secret's.
            let same = Sha256::digest(value).ct_eq(&Sha256::digest(secret.expose()));
            if same.into() {
                Ok(())
            } else {
                Err(Wrong(name))
            }
        }
    }
}

/// A header's text, if there is any.
fn present<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, SignatureError> {
    let value = headers.get(name).ok_or(Missing(name))?;
    let value = value.to_str().map_err(|_| Malformed(name))?.trim();
    if value.is_empty() {
        return Err(Missing(name));
    }
    Ok(value)
}

/// GitHub's and Gitea's: HMAC-SHA256 of the body in hexadecimal digits of either case.
fn hexadecimal(
    secret: &SecretText,
    name: &'static str,
    digits: &str,
    body: &[u8],
) -> Result<(), SignatureError> {
    let signature = decode_hex32(digits).ok_or(Malformed(name))?;
    let mut mac = keyed(secret.expose().as_bytes())?;
    mac.update(body);
    mac.verify_slice(&signature).map_err(|_| Wrong(name))
}

/// GitLab's signing token, by Standard Webhooks: HMAC-SHA256 of id, time and body; several may be told while a key is changed.
fn standard(
    secret: &SecretText,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureError> {
    let name = "webhook-signature";
    let signatures = present(headers, name)?;
    let id = present(headers, "webhook-id")?;
    let time = present(headers, "webhook-timestamp")?;
    let signed_at: i64 = time.parse().map_err(|_| Malformed("webhook-timestamp"))?;
    let secret = secret.expose();
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| Wrong(name))?,
        None => secret.as_bytes().to_vec(),
    };
    let mut mac = keyed(&key)?;
    for part in [id.as_bytes(), b".", time.as_bytes(), b".", body] {
        mac.update(part);
    }
    let ours = signatures
        .split(' ')
        .filter_map(|part| STANDARD.decode(part.strip_prefix("v1,")?).ok())
        .any(|signature| mac.clone().verify_slice(&signature).is_ok());
    if !ours {
        return Err(Wrong(name));
    }
    if signed_at.abs_diff(now.as_second()) > WINDOW {
        return Err(Stale);
    }
    Ok(())
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, SignatureError> {
    if key.is_empty() {
        return Err(SignatureError::EmptySecret);
    }
    Hmac::new_from_slice(key).map_err(|_| SignatureError::EmptySecret)
}

fn decode_hex32(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests;
