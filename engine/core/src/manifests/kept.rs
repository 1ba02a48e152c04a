//! How a manifest is kept in a ConfigMap, and what one says.

use std::io::{Read as _, Write as _};

use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use fleetwright_api::{
    API_VERSION,
    meta::{ANNOTATION_CONTENT_HASH, ANNOTATION_MANIFEST_PATH, LABEL_CLUSTER_NAME},
    names,
    random::hex,
};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::yaml::{self, Content, Node, Place, YamlError};

/// Largest value of a ConfigMap that is read, decompressed, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Most that all values of a ConfigMap may have, in bytes.
pub const MAX_KEPT_BYTES: usize = 1 << 20;
/// Most documents of all manifests of a cluster.
pub const MAX_DOCUMENTS: usize = 2_000;

/// The key below which a file of the repository is kept.
const KEY: &str = "manifest.yaml.gz";
/// How keys of compressed values end.
const COMPRESSED: &str = ".gz";

/// What a ConfigMap holds: keys with their contents, decompressed, in the order of the keys.
pub type Contents = Vec<(String, Vec<u8>)>;

/// A manifest that has the form in which it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Hash of the content.
    pub hash: String,
    bytes: ByteString,
}

impl Packed {
    /// Compresses a file. The same content has the same bytes, wherever and whenever.
    ///
    /// # Errors
    /// Why no ConfigMap can hold it.
    pub fn of(content: &[u8]) -> Result<Self, String> {
        let mut writer = GzBuilder::new().write(Vec::new(), Compression::best());
        let bytes = writer.write_all(content).and_then(|()| writer.finish());
        let bytes = bytes.map_err(|error| error.to_string())?;
        if bytes.len() > MAX_KEPT_BYTES {
            return Err(format!(
                "too large: it has {} bytes when it is compressed, and a ConfigMap, in which it is kept, may have {MAX_KEPT_BYTES}: divide it into several files",
                bytes.len()
            ));
        }
        Ok(Self {
            hash: hash([(KEY, content)]),
            bytes: ByteString(bytes),
        })
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.0.len()
    }

    /// The ConfigMap of a cluster's manifest at `path`.
    #[must_use]
    pub fn config_map(&self, namespace: &str, cluster: &str, path: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": names::bootstrap_manifest(cluster, path),
                "namespace": namespace,
                "labels": {LABEL_CLUSTER_NAME: cluster},
                "annotations": {ANNOTATION_CONTENT_HASH: self.hash, ANNOTATION_MANIFEST_PATH: path},
            },
            "binaryData": {KEY: self.bytes},
        })
    }
}

/// SHA-256, in hexadecimal digits, of contents with their keys.
pub fn hash<'a>(contents: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut sha = Sha256::new();
    for (key, content) in contents {
        for part in [key.as_bytes(), content] {
            sha.update((part.len() as u64).to_be_bytes());
            sha.update(part);
        }
    }
    hex(&sha.finalize())
}

/// [`hash`] of what a ConfigMap holds.
#[must_use]
pub fn hash_of(contents: &[(String, Vec<u8>)]) -> String {
    let parts = contents.iter();
    hash(parts.map(|(key, content)| (key.as_str(), content.as_slice())))
}

/// What a ConfigMap holds.
///
/// # Errors
/// The key whose value cannot be decompressed, or is too large then.
pub fn contents(kept: ConfigMap) -> Result<Contents, String> {
    let plain = kept.data.unwrap_or_default().into_iter();
    let plain = plain.map(|(key, text)| (key, text.into_bytes()));
    let bytes = kept.binary_data.unwrap_or_default().into_iter();
    let mut all: Contents = plain
        .chain(bytes.map(|(key, bytes)| (key, bytes.0)))
        .collect();
    all.sort();
    for (key, content) in &mut all {
        if key.ends_with(COMPRESSED) {
            let mut out = Vec::new();
            let decoder = MultiGzDecoder::new(content.as_slice());
            decoder
                .take(MAX_BYTES as u64 + 1)
                .read_to_end(&mut out)
                .map_err(|error| format!("{key} is not compressed by gzip: {error}"))?;
            *content = out;
        }
        if content.len() > MAX_BYTES {
            return Err(format!("{key} has more than {MAX_BYTES} bytes"));
        }
    }
    Ok(all)
}

/// An object of a workload cluster, as a manifest says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// `apiVersion`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, if it says one.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// All of it.
    pub value: Value,
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A document of a manifest.
///
/// # Errors
/// Where it is none, and what to do.
pub fn document(node: &Node) -> Result<Document, (Place, String)> {
    if !matches!(node.content, Content::Map(_)) {
        let message = "a document must be an object with apiVersion, kind and metadata";
        return Err((node.place, message.to_owned()));
    }
    let text = |parent: &Node, name: &str, path: &str| match parent.get(name) {
        None => Err((parent.place, format!("{path} is missing"))),
        Some(found) => match found.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err((
                found.place,
                format!("{path} must be a text that is not empty"),
            )),
        },
    };
    let api_version = text(node, "apiVersion", "apiVersion")?;
    let kind = text(node, "kind", "kind")?;
    let place = node.place_of("kind");
    let refused = match (api_version.as_str(), kind.as_str()) {
        ("v1", "List") => Some("write the items of a List as documents, with --- between them"),
        ("v1", "Secret") => {
            Some("plain Secrets may not be kept in manifests: create it in the cluster")
        }
        (version, _) if version == API_VERSION => Some(
            "this is no object of a workload cluster: declare it in a file of its own, which no bootstrapManifests name",
        ),
        _ => None,
    };
    if let Some(why) = refused {
        return Err((
            place,
            format!("{kind} is refused in a bootstrap manifest: {why}"),
        ));
    }
    let Some(metadata) = node.get("metadata") else {
        return Err((node.place, "metadata.name is missing".to_owned()));
    };
    let name = text(metadata, "name", "metadata.name")?;
    let namespace = match metadata.get("namespace") {
        Some(found) if !found.is_null() => Some(text(metadata, "namespace", "metadata.namespace")?),
        _ => None,
    };
    Ok(Document {
        api_version,
        kind,
        namespace,
        name,
        value: node.to_value(),
    })
}

/// All documents of what a ConfigMap holds.
///
/// # Errors
/// The first mistake, as `key:line:column: what is wrong`.
pub fn documents(contents: &[(String, Vec<u8>)]) -> Result<Vec<Document>, String> {
    let read = || {
        let mut out = Vec::new();
        for (key, content) in contents {
            let wrong = |(place, message): (Place, String)| {
                format!("{key}:{}:{}: {message}", place.line, place.column)
            };
            let text = std::str::from_utf8(content);
            let text = text.map_err(|_| format!("{key} is not UTF-8 text"))?;
            let nodes = yaml::parse(text);
            let nodes = nodes.map_err(|YamlError { place, message }| wrong((place, message)))?;
            for node in &nodes {
                out.push(document(node).map_err(wrong)?);
            }
        }
        Ok(out)
    };
    yaml::with_room(read)?
}
