//! Signatures of webhooks: HMAC-SHA256 over the raw body, compared in constant time.

use fleetwright_api::secret::SecretText;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Why a delivery is not believed to come from the forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The secret is empty: anybody could sign with it.
    #[error(
        "the webhook secret is empty: set one in the forge and in the Secret that the Fleet names"
    )]
    EmptySecret,
    /// No `X-Hub-Signature-256` header. The older SHA-1 header does not count.
    #[error("no X-Hub-Signature-256 header: set the same secret in the forge's webhook")]
    Missing,
    /// The header is not `sha256=` and 64 hexadecimal digits.
    #[error("the X-Hub-Signature-256 header is malformed")]
    Malformed,
    /// The signature is another secret's or another body's.
    #[error("the signature does not match: is the secret the same on both sides?")]
    Wrong,
}

/// Checks GitHub's `X-Hub-Signature-256` header against the raw body.
///
/// # Errors
/// See [`SignatureError`].
pub fn verify_github(
    secret: &SecretText,
    header: Option<&str>,
    body: &[u8],
) -> Result<(), SignatureError> {
    if secret.is_empty() {
        return Err(SignatureError::EmptySecret);
    }
    let header = header.ok_or(SignatureError::Missing)?;
    let digits = header
        .strip_prefix("sha256=")
        .ok_or(SignatureError::Malformed)?;
    let signature = decode_hex32(digits).ok_or(SignatureError::Malformed)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .map_err(|_| SignatureError::EmptySecret)?;
    mac.update(body);
    mac.verify_slice(&signature)
        .map_err(|_| SignatureError::Wrong)
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
mod tests {
    use super::*;

    const SECRET: &str = "It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    /// The example in GitHub's documentation of webhook signatures.
    const SIGNED: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn table() {
        let upper = SIGNED.to_uppercase();
        let flipped = SIGNED.replacen('7', "8", 1);
        let no_hex = SIGNED.replacen('7', "g", 1);
        let cases = [
            (SECRET, Some(format!("sha256={SIGNED}")), Ok(())),
            (SECRET, Some(format!("sha256={upper}")), Ok(())),
            (
                SECRET,
                Some(format!("sha256={flipped}")),
                Err(SignatureError::Wrong),
            ),
            (
                SECRET,
                Some(format!("sha256={no_hex}")),
                Err(SignatureError::Malformed),
            ),
            (
                SECRET,
                Some(format!("sha256={}", &SIGNED[..62])),
                Err(SignatureError::Malformed),
            ),
            (
                SECRET,
                Some(format!("sha1={SIGNED}")),
                Err(SignatureError::Malformed),
            ),
            (SECRET, Some(String::new()), Err(SignatureError::Malformed)),
            (SECRET, None, Err(SignatureError::Missing)),
            (
                "other",
                Some(format!("sha256={SIGNED}")),
                Err(SignatureError::Wrong),
            ),
            // The signature that anybody can compute with the empty key.
            (
                "",
                Some(
                    "sha256=2bbcfa95d2a6b2be2bd1b07b2f1c2ec1a8ab6a4d1c83d3f9ef0e4f4a4a5dc769"
                        .to_owned(),
                ),
                Err(SignatureError::EmptySecret),
            ),
        ];
        for (secret, header, want) in cases {
            assert_eq!(
                verify_github(&SecretText::new(secret), header.as_deref(), BODY),
                want,
                "{secret} {header:?}"
            );
        }
    }
}
