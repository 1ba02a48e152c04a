//! From files to desired objects: all mistakes at once, each with file, line and column.

use std::{collections::BTreeSet, fmt};

use fleetwright_api::fleet::Allow;
use fleetwright_core::{plan::Origins, yaml::with_room};
use serde_json::Value;

pub use self::later::{place, refused};
use self::loader::Loader;

pub mod bases;
pub mod check;
mod identity;
mod later;
mod loader;
mod manifests;
mod merge;
mod purposes;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Most bytes of one load.
pub const MAX_TOTAL_BYTES: usize = 64 << 20;
/// Most values of one load, aliases and bases expanded; less in tests, which make them.
pub const MAX_TOTAL_NODES: usize = if cfg!(test) { 100_000 } else { 4_000_000 };
/// Most mistakes that are reported.
pub const MAX_ERRORS: usize = 200;

/// A file: path with `/` between its parts, relative to the followed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path, fit to be shown.
    pub path: String,
    /// Content, or why it is not read: a mistake of the repository.
    pub content: Result<Vec<u8>, String>,
}

/// What loading must know besides the files.
pub struct LoadContext<'a> {
    /// Schema of a `providerConfig` kind, by `apiVersion` and `kind`.
    pub provider_schema: &'a (dyn Fn(&str, &str) -> Option<&'a Value> + Sync),
    /// What the Fleet allows.
    pub allow: &'a Allow,
}

/// Identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// `apiVersion`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for Namespaces.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object that the files declare.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredObject {
    /// Who it is.
    pub key: ObjectKey,
    /// The raw document, laid over its bases, with `metadata.namespace` filled in; no defaults.
    pub document: Value,
    /// File.
    pub file: String,
    /// Line where the document begins.
    pub line: u64,
    /// Where its values were written, if it is built on other documents.
    pub origins: Origins,
}

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct LoadError {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// What is wrong and what to do.
    pub message: String,
}

/// What the files say. Objects may be applied, and the absence of others believed, only when there is no error.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Objects, by key.
    pub objects: Vec<DesiredObject>,
    /// Mistakes, by file and place; at most [`MAX_ERRORS`].
    pub errors: Vec<LoadError>,
    /// Clusters that pools name but no file declares: they must live outside the files.
    pub outside: Vec<Outside>,
}

/// A Cluster that a pool names but no file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Namespace and name.
    pub cluster: (String, String),
    /// The mistake, if there is no such Cluster.
    pub otherwise: LoadError,
}

/// The mistakes when `live` are the Clusters that there are, as (namespace, name).
pub fn dangling(outside: &[Outside], live: &BTreeSet<(String, String)>) -> Vec<LoadError> {
    let missing = outside.iter().filter(|o| !live.contains(&o.cluster));
    missing.map(|o| o.otherwise.clone()).collect()
}

/// Reads all documents of `files`; those of files that Clusters name as their bootstrap manifests are for the clusters. Files that are not YAML or JSON, and those below a name that begins with a dot, are ignored, unless
/// they could not be read: a link or a submodule in a folder's place may hide what the folder held.
pub fn load(files: &[SourceFile], context: &LoadContext<'_>) -> Loaded {
    let broken = |why: String| Loaded {
        errors: vec![LoadError {
            file: String::new(),
            line: 1,
            column: 1,
            message: format!("loading broke off, nothing is concluded from the files: {why}"),
        }],
        ..Loaded::default()
    };
    with_room(|| load_here(files, context)).unwrap_or_else(broken)
}

fn load_here(files: &[SourceFile], context: &LoadContext<'_>) -> Loaded {
    let counts = |file: &&SourceFile| file.content.is_err() || is_manifest(&file.path);
    let mut sorted: Vec<&SourceFile> = files.iter().filter(counts).collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let manifests = manifests::named(&sorted);
    let mut loader = Loader::new(&sorted, context);
    for file in sorted {
        match manifests.contains(&file.path) {
            true => loader.manifest(file),
            false => loader.file(file),
        }
    }
    loader.finish()
}

/// Whether a file of this path is read.
pub fn is_manifest(path: &str) -> bool {
    let hidden = path.split('/').any(|part| part.starts_with('.'));
    let known = [".yaml", ".yml", ".json"]
        .iter()
        .any(|end| path.ends_with(end));
    known && !hidden
}

#[cfg(test)]
mod tests;
