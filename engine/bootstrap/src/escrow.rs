//! Escrow: a cluster's keys and certificates, encrypted to people who keep their own keys elsewhere.
//!
//! What is encrypted is a List of the cluster's Secrets, so that `age --decrypt --identity key.txt FILE | kubectl apply -f -` restores
//! them without any program of ours.

use std::io::{Read, Write};

use age::{
    Decryptor, Encryptor,
    armor::{ArmoredReader, ArmoredWriter, Format},
    x25519::{Identity, Recipient},
};
use fleetwright_api::secret::SecretText;
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};

use crate::pki::{ClusterPki, Found, PkiError};

/// Most bytes of an escrow that are read: ten times what one is.
const MOST_BYTES: u64 = 256 * 1024;

/// Why nothing was put into escrow, or nothing taken from it.
#[derive(Debug, thiserror::Error)]
pub enum EscrowError {
    /// Nobody could decrypt it.
    #[error(
        "escrow has no recipients: name at least one age public key (age1…), which age-keygen prints"
    )]
    NoRecipients,
    /// Not an age X25519 recipient.
    #[error(
        "{text:?} is no age recipient: write an age public key (age1…), which age-keygen prints"
    )]
    Recipient {
        /// What was given.
        text: String,
    },
    /// A secret key where a public one belongs. It is not repeated.
    #[error(
        "a recipient is a secret key: name the public key (age1…) in its place, and make a new pair because this one was shown"
    )]
    SecretAsRecipient,
    /// Not an age X25519 identity. It is not repeated.
    #[error(
        "the identity is none of age's: it has a line AGE-SECRET-KEY-1…, as age-keygen writes it"
    )]
    Identity,
    /// Not an age file.
    #[error("the escrow is no age file: {0}")]
    NoAgeFile(String),
    /// Another key.
    #[error(
        "the escrow is encrypted to other keys than this identity: use the identity of one of the recipients that were configured when the cluster was made"
    )]
    OtherKey,
    /// Changed or cut off.
    #[error("the escrow is damaged: {0}; take another copy")]
    Damaged(String),
    /// Decrypted, but not what [`escrow`] wrote.
    #[error("the escrow holds something else than a cluster's Secrets: {0}")]
    OtherContent(String),
    /// Not what etcd sent, or not all of it.
    #[error("the snapshot is not whole: the digest at its end is not that of what came before it")]
    Digest,
    /// The content is not a whole set of keys.
    #[error("the escrow's content: {0}")]
    Pki(#[from] PkiError),
}

/// What was in escrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escrowed {
    /// Namespace of the Cluster.
    pub namespace: String,
    /// Name of the Cluster.
    pub cluster: String,
    /// Its keys and certificates.
    pub pki: ClusterPki,
}

#[derive(Serialize, Deserialize)]
struct List {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    items: Vec<Secret>,
}

/// Encrypts the keys and certificates of a cluster to `recipients` (age public keys), as armored text. Each time gives other bytes.
///
/// # Errors
/// [`EscrowError::NoRecipients`], [`EscrowError::Recipient`], [`EscrowError::SecretAsRecipient`].
pub fn escrow(
    namespace: &str,
    cluster: &str,
    pki: &ClusterPki,
    recipients: &[String],
) -> Result<Vec<u8>, EscrowError> {
    let encryptor = encryptor(recipients)?;
    let list = List {
        api_version: "v1".to_owned(),
        kind: "List".to_owned(),
        items: pki.secrets(namespace, cluster).to_vec(),
    };
    let plain =
        serde_json::to_vec_pretty(&list).map_err(|e| EscrowError::OtherContent(e.to_string()))?;
    // Writing to memory does not fail.
    let mut sealed = Vec::new();
    let damaged = |e: std::io::Error| EscrowError::Damaged(e.to_string());
    let armor = ArmoredWriter::wrap_output(&mut sealed, Format::AsciiArmor).map_err(damaged)?;
    let mut writer = encryptor.wrap_output(armor).map_err(damaged)?;
    writer.write_all(&plain).map_err(damaged)?;
    writer
        .finish()
        .and_then(ArmoredWriter::finish)
        .map_err(damaged)?;
    Ok(sealed)
}

fn encryptor(recipients: &[String]) -> Result<Encryptor, EscrowError> {
    let recipients = recipients
        .iter()
        .map(|text| recipient(text))
        .collect::<Result<Vec<_>, _>>()?;
    Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn age::Recipient))
        .map_err(|_| EscrowError::NoRecipients)
}

fn recipient(text: &str) -> Result<Recipient, EscrowError> {
    let text = text.trim();
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err(EscrowError::SecretAsRecipient);
    }
    text.parse().map_err(|_| EscrowError::Recipient {
        text: text.to_owned(),
    })
}

/// Decrypts what [`escrow`] wrote, with an age identity: the secret key, or the file that age-keygen writes.
///
/// # Errors
/// What is wrong with file or identity, and what to do.
pub fn unseal(sealed: &[u8], identity: &SecretText) -> Result<Escrowed, EscrowError> {
    let identity: Identity = identity
        .expose()
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .and_then(|line| line.parse().ok())
        .ok_or(EscrowError::Identity)?;
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed))
        .map_err(|e| EscrowError::NoAgeFile(e.to_string()))?;
    let reader = decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(|e| match e {
            age::DecryptError::NoMatchingKeys => EscrowError::OtherKey,
            other => EscrowError::Damaged(other.to_string()),
        })?;
    let mut plain = Vec::new();
    reader
        .take(MOST_BYTES)
        .read_to_end(&mut plain)
        .map_err(|e| EscrowError::Damaged(e.to_string()))?;
    opened(&plain)
}

fn opened(plain: &[u8]) -> Result<Escrowed, EscrowError> {
    // What the reader says of broken JSON can repeat it, and it holds keys.
    let list: List = serde_json::from_slice(plain).map_err(|e| {
        EscrowError::OtherContent(format!(
            "no List of Secrets, at {}:{}",
            e.line(),
            e.column()
        ))
    })?;
    let first = list.items.first().map(|secret| &secret.metadata);
    let cluster = first
        .and_then(|meta| meta.labels.as_ref())
        .and_then(|labels| labels.get(fleetwright_api::meta::LABEL_CLUSTER_NAME))
        .ok_or_else(|| EscrowError::OtherContent("no cluster is named".to_owned()))?;
    match ClusterPki::find(cluster, &list.items)? {
        Found::All(pki) => Ok(Escrowed {
            namespace: first
                .and_then(|meta| meta.namespace.clone())
                .unwrap_or_default(),
            cluster: cluster.clone(),
            pki: *pki,
        }),
        Found::Nothing => Err(EscrowError::OtherContent(
            "no Secret of the cluster".to_owned(),
        )),
        Found::Lacking(names) => Err(EscrowError::OtherContent(format!(
            "without Secret {}",
            names.join(", ")
        ))),
    }
}

mod snapshot;
#[cfg(test)]
mod tests;

pub use self::snapshot::SnapshotSealer;
