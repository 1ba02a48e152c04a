//! Signatures by OpenPGP keys, as `git commit -S` makes them with GnuPG.
//!
//! The library verifies signatures and leaves it to us which keys are good. A key is as long as its newest valid binding says; one that was ever
//! revoked, for whatever reason, is refused, and so is one that has expired now, whenever it signed.

use jiff::Timestamp;
use pgp::{
    composed::{Deserializable as _, DetachedSignature, SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{KeyFlags, Signature, SignatureType},
    types::{KeyDetails, Tag},
};

/// How far a signer's clock may be ahead, in seconds.
const AHEAD: i64 = 600;

#[derive(Clone, Debug, Default)]
pub(super) struct Keys(Vec<SignedPublicKey>);

impl Keys {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds armored public keys.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let unreadable = |e: pgp::errors::Error| format!("it holds no OpenPGP public key: {e}");
        let (keys, _) = SignedPublicKey::from_string_many(text).map_err(unreadable)?;
        let before = self.0.len();
        for key in keys {
            self.0.push(key.map_err(unreadable)?);
        }
        match self.0.len() > before {
            true => Ok(()),
            false => Err("it holds no OpenPGP public key".into()),
        }
    }

    pub(super) fn check(
        &self,
        signature: &[u8],
        content: &[u8],
        now: Timestamp,
    ) -> Result<(), String> {
        let (made, _) = DetachedSignature::from_armor_single(signature)
            .map_err(|e| format!("its OpenPGP signature cannot be read: {e}"))?;
        let signature = &made.signature;
        if !matches!(
            signature.typ(),
            Some(SignatureType::Binary | SignatureType::Text)
        ) {
            return Err("its OpenPGP signature is not one of a content".into());
        }
        if is_weak(signature) {
            return Err("its OpenPGP signature is over a hash that can be forged: sign with SHA-256 or better".into());
        }
        let mut why = None;
        for key in &self.0 {
            let primary = &key.primary_key;
            if is_issuer(signature, primary) {
                let found = made
                    .verify(primary, content)
                    .map_err(|_| Flaw::Content)
                    .and_then(|()| primary_is_good(key, now, true))
                    .and_then(|()| is_in_time(signature, primary, now));
                match found {
                    Ok(()) => return Ok(()),
                    Err(flaw) => why = Some(flaw.of(primary)),
                }
            }
            for subkey in key
                .public_subkeys
                .iter()
                .filter(|s| is_issuer(signature, &s.key))
            {
                let found = made
                    .verify(&subkey.key, content)
                    .map_err(|_| Flaw::Content)
                    .and_then(|()| primary_is_good(key, now, false))
                    .and_then(|()| subkey_is_good(key, subkey, now))
                    .and_then(|()| is_in_time(signature, &subkey.key, now));
                match found {
                    Ok(()) => return Ok(()),
                    Err(flaw) => why = Some(flaw.of(&subkey.key)),
                }
            }
        }
        Err(why.unwrap_or_else(|| {
            format!(
                "{} signed it, which is none of those that are trusted",
                issuer(signature)
            )
        }))
    }
}

/// Why a key's signature does not count.
enum Flaw {
    Content,
    Revoked,
    Expired,
    Unbound,
    Purpose,
    Time,
}

impl Flaw {
    fn of(&self, key: &impl KeyDetails) -> String {
        let print = format!("{:X}", key.fingerprint());
        match self {
            Self::Content => format!(
                "it carries a signature of the OpenPGP key {print} that is not of this content"
            ),
            Self::Revoked => format!("the OpenPGP key {print} signed it, which is revoked"),
            Self::Expired => format!("the OpenPGP key {print} signed it, which has expired"),
            Self::Unbound => {
                format!("the OpenPGP key {print} signed it, which its owner does not vouch for")
            }
            Self::Purpose => format!("the OpenPGP key {print} signed it, which is not for signing"),
            Self::Time => format!("the OpenPGP key {print} signed it, at a time that cannot be"),
        }
    }
}

fn is_weak(signature: &Signature) -> bool {
    let strong = |hash| {
        matches!(
            hash,
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    };
    !signature.hash_alg().is_some_and(strong)
}

/// Whether a signature says that `key` made it; one that does not say may be of any.
fn is_issuer(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (prints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
    let (print, id) = (key.fingerprint(), key.legacy_key_id());
    if prints.is_empty() && ids.is_empty() {
        return true;
    }
    prints.iter().any(|p| **p == print) || ids.iter().any(|i| **i == id)
}

fn issuer(signature: &Signature) -> String {
    let print = signature
        .issuer_fingerprint()
        .first()
        .map(|p| format!("{p:X}"));
    let id = || {
        signature
            .issuer_key_id()
            .first()
            .map(|id| id.to_string().to_uppercase())
    };
    match print.or_else(id) {
        Some(name) => format!("the OpenPGP key {name}"),
        None => "an OpenPGP key that is not named".into(),
    }
}

/// Seconds at which something was made.
fn made(signature: &Signature) -> i64 {
    signature.created().map_or(0, |at| i64::from(at.as_secs()))
}

/// The newest of some signatures, as of `now`.
fn newest<'a>(all: impl Iterator<Item = &'a Signature>, now: Timestamp) -> Option<&'a Signature> {
    let made_yet = all.filter(|s| made(s) <= now.as_second() + AHEAD);
    made_yet.max_by_key(|s| made(s))
}

/// Whether a key that `binding` speaks of is still good.
fn is_alive(key: &impl KeyDetails, binding: &Signature, now: Timestamp) -> bool {
    let life = binding
        .key_expiration_time()
        .map_or(0, |life| life.as_secs());
    let end = i64::from(key.created_at().as_secs()) + i64::from(life);
    life == 0 || now.as_second() < end
}

/// Whether a key may sign; a binding that says nothing of its use allows all.
fn is_for_signing(binding: &Signature) -> bool {
    let flags = binding.key_flags();
    flags.sign() || flags == KeyFlags::default()
}

fn primary_is_good(key: &SignedPublicKey, now: Timestamp, signs: bool) -> Result<(), Flaw> {
    // A revocation by somebody whom the owner named cannot be verified without their key: it counts as well.
    if !key.details.revocation_signatures.is_empty() {
        return Err(Flaw::Revoked);
    }
    let primary = &key.primary_key;
    let own = key.details.users.iter().flat_map(|user| {
        let of_owner = |s: &&Signature| {
            s.is_certification()
                && s.verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        };
        user.signatures.iter().filter(of_owner)
    });
    let direct = key.details.direct_signatures.iter();
    let direct = direct.filter(|s| s.verify_key(primary).is_ok());
    let binding = newest(own.chain(direct), now).ok_or(Flaw::Unbound)?;
    if !is_alive(primary, binding, now) {
        return Err(Flaw::Expired);
    }
    match signs && !is_for_signing(binding) {
        true => Err(Flaw::Purpose),
        false => Ok(()),
    }
}

fn subkey_is_good(
    key: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    now: Timestamp,
) -> Result<(), Flaw> {
    let typed = |typ: SignatureType| {
        subkey
            .signatures
            .iter()
            .filter(move |s| s.typ() == Some(typ))
    };
    if typed(SignatureType::SubkeyRevocation).next().is_some() {
        return Err(Flaw::Revoked);
    }
    let primary = &key.primary_key;
    let bindings = typed(SignatureType::SubkeyBinding)
        .filter(|s| s.verify_subkey_binding(primary, &subkey.key).is_ok());
    let binding = newest(bindings, now).ok_or(Flaw::Unbound)?;
    if !is_alive(&subkey.key, binding, now) {
        return Err(Flaw::Expired);
    }
    if !binding.key_flags().sign() {
        return Err(Flaw::Purpose);
    }
    // Else anybody could put another's signing key below their own.
    let back = binding.embedded_signature().ok_or(Flaw::Unbound)?;
    back.verify_primary_key_binding(&subkey.key, primary)
        .map_err(|_| Flaw::Unbound)
}

fn is_in_time(signature: &Signature, key: &impl KeyDetails, now: Timestamp) -> Result<(), Flaw> {
    let at = made(signature);
    let life = signature
        .signature_expiration_time()
        .map_or(0, |life| life.as_secs());
    let over = life != 0 && at + i64::from(life) <= now.as_second();
    let before = at < i64::from(key.created_at().as_secs());
    match before || over || at > now.as_second() + AHEAD {
        true => Err(Flaw::Time),
        false => Ok(()),
    }
}
