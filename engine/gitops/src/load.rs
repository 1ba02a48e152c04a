//! From files to desired objects: all mistakes at once, each with file, line and column.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fleetwright_api::{API_VERSION, fleet::Allow, names::MAX_NAME};
use serde_json::Value;

use crate::yaml::{self, Content, Node, Place};

pub mod check;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Most bytes of one load.
pub const MAX_TOTAL_BYTES: usize = 64 << 20;
/// Most mistakes that are reported.
pub const MAX_ERRORS: usize = 200;

/// Longest message of a mistake, in characters: it may quote what it is about.
const MAX_MESSAGE: usize = 500;
/// Stack of the thread that loads: what is nested as deep as is allowed needs more than threads have.
const STACK: usize = 16 << 20;

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
    /// The raw document, with `metadata.namespace` filled in; no defaults.
    pub document: Value,
    /// File.
    pub file: String,
    /// Line where the document begins.
    pub line: u64,
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

const REFUSED: &[(&str, &str)] = &[
    (
        "Fleet",
        "a Fleet is made by an administrator, never by the repository that it follows",
    ),
    (
        "ProviderAccount",
        "accounts are made by an administrator: remove it here",
    ),
    (
        "MachineSet",
        "sets are made by pools: declare a MachineDeployment",
    ),
    (
        "Machine",
        "machines are made by pools and control planes: declare a MachineDeployment or a Cluster",
    ),
    (
        "Secret",
        "plain Secrets may not be kept in Git: create it with kubectl",
    ),
    (
        "CommitStatus",
        "commit statuses are made by Fleetwright itself",
    ),
];

const KNOWN: &[(&str, &str)] = &[
    (API_VERSION, "Cluster"),
    (API_VERSION, "MachineDeployment"),
    (API_VERSION, "MachineDrainRule"),
    (API_VERSION, "MachineHealthCheck"),
    ("v1", "Namespace"),
    ("v1", "ConfigMap"),
];

/// Reads all documents of `files`. Files that are not YAML or JSON, and those below a name that begins with a dot, are ignored.
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
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        match thread.spawn_scoped(scope, || load_here(files, context)) {
            Ok(loading) => loading
                .join()
                .unwrap_or_else(|_| broken("a bug of ours, please report it".into())),
            Err(error) => broken(error.to_string()),
        }
    })
}

fn load_here(files: &[SourceFile], context: &LoadContext<'_>) -> Loaded {
    let mut loader = Loader {
        context,
        schemas: check::kind_schemas(),
        seen: BTreeMap::new(),
        objects: BTreeMap::new(),
        pools: Vec::new(),
        errors: Vec::new(),
    };
    let mut sorted: Vec<&SourceFile> = files.iter().filter(|f| is_manifest(&f.path)).collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    for file in sorted {
        match &file.content {
            Ok(bytes) => loader.file(&file.path, bytes),
            Err(why) => loader.error(&file.path, Place { line: 1, column: 1 }, why),
        }
    }
    let outside = loader.outside();
    let mut errors = loader.errors;
    errors.sort();
    errors.dedup();
    errors.truncate(MAX_ERRORS);
    Loaded {
        objects: loader.objects.into_values().collect(),
        errors,
        outside,
    }
}

/// Whether a file of this path is read.
pub fn is_manifest(path: &str) -> bool {
    let hidden = path.split('/').any(|part| part.starts_with('.'));
    let known = [".yaml", ".yml", ".json"]
        .iter()
        .any(|end| path.ends_with(end));
    known && !hidden
}

struct Loader<'l, 'a> {
    context: &'l LoadContext<'a>,
    schemas: &'static BTreeMap<String, Value>,
    seen: BTreeMap<ObjectKey, (String, Place)>,
    objects: BTreeMap<ObjectKey, DesiredObject>,
    pools: Vec<(String, Place, String, String)>,
    errors: Vec<LoadError>,
}

impl Loader<'_, '_> {
    fn error(&mut self, file: &str, place: Place, message: impl Into<String>) {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        self.errors.push(LoadError {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            message,
        });
    }

    fn file(&mut self, path: &str, bytes: &[u8]) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = 1 + before.iter().filter(|b| **b == b'\n').count() as u64;
                self.error(path, Place { line, column: 1 }, "not UTF-8 text");
                return;
            }
        };
        match yaml::parse(text) {
            Ok(documents) => {
                for document in &documents {
                    self.document(path, document);
                }
            }
            Err(error) => self.error(path, error.place, error.message),
        }
    }

    fn document(&mut self, file: &str, document: &Node) {
        if !matches!(document.content, Content::Map(_)) {
            self.error(
                file,
                document.place,
                "a document must be an object with apiVersion, kind and metadata",
            );
            return;
        }
        let api_version = self.text(file, document, document, "apiVersion");
        let kind = self.text(file, document, document, "kind");
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            return;
        };
        let kind_place = document.get("kind").map_or(document.place, |n| n.place);
        let ours = api_version.starts_with("fleetwright.dev/") || api_version == "v1";
        if let Some((_, why)) = REFUSED.iter().find(|(k, _)| *k == kind && ours) {
            self.error(file, kind_place, format!("{kind} is refused in Git: {why}"));
            return;
        }
        if !KNOWN.iter().any(|(v, k)| *v == api_version && *k == kind) {
            let known: Vec<String> = KNOWN.iter().map(|(v, k)| format!("{k} ({v})")).collect();
            self.error(
                file,
                kind_place,
                format!(
                    "unknown kind {kind} of {api_version}: Git may hold {}",
                    known.join(", ")
                ),
            );
            return;
        }
        let allow = self.context.allow;
        if !allow.kinds.is_empty() && !allow.kinds.contains(&kind) {
            self.error(
                file,
                kind_place,
                format!("the Fleet does not allow kind {kind}"),
            );
        }
        let Some(metadata) = document.get("metadata") else {
            self.error(
                file,
                document.place,
                "metadata is missing: add metadata.name",
            );
            return;
        };
        let Some(name) = self.text(file, metadata, metadata, "name") else {
            return;
        };
        let name_place = metadata.place_of("name");
        if let Err(why) = check_name(&name) {
            self.error(file, name_place, format!("metadata.name {name:?} {why}"));
        }
        let namespace = if kind == "Namespace" {
            String::new()
        } else {
            match metadata.get("namespace") {
                None => "default".to_owned(),
                Some(node) => match node.as_str() {
                    Some(text) if check_name(text).is_ok() => text.to_owned(),
                    _ => {
                        self.error(file, node.place, "metadata.namespace must be a DNS label");
                        return;
                    }
                },
            }
        };
        let in_namespace = if namespace.is_empty() {
            &name
        } else {
            &namespace
        };
        if !allow.namespaces.is_empty() && !allow.namespaces.contains(in_namespace) {
            let place = metadata.place_of("namespace");
            self.error(
                file,
                place,
                format!("the Fleet does not allow namespace {in_namespace}"),
            );
        }
        let key = ObjectKey {
            api_version,
            kind,
            namespace,
            name,
        };
        if let Some((other, place)) = self.seen.get(&key) {
            let message = format!(
                "{key} is already declared at {other}:{}:{}: keep one of them",
                place.line, place.column
            );
            self.error(file, name_place, message);
            return;
        }
        self.seen.insert(key.clone(), (file.to_owned(), name_place));
        self.contents(file, document, &key);
        let mut value = document.to_value();
        if !key.namespace.is_empty()
            && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("namespace".into(), key.namespace.clone().into());
        }
        let object = DesiredObject {
            key: key.clone(),
            document: value,
            file: file.to_owned(),
            line: document.place.line,
        };
        self.objects.insert(key, object);
    }

    fn text(&mut self, file: &str, at: &Node, parent: &Node, name: &str) -> Option<String> {
        match at.get(name) {
            Some(node) => match node.as_str() {
                Some(text) if !text.is_empty() => return Some(text.to_owned()),
                _ => self.error(
                    file,
                    node.place,
                    format!("{name} must be a text that is not empty"),
                ),
            },
            None => self.error(file, parent.place, format!("{name} is missing")),
        }
        None
    }

    fn contents(&mut self, file: &str, document: &Node, key: &ObjectKey) {
        if let Some((place, _)) = document.entry("status") {
            self.error(
                file,
                place,
                "status is written by controllers: remove it here",
            );
        }
        for field in [
            "uid",
            "resourceVersion",
            "managedFields",
            "ownerReferences",
            "finalizers",
            "generateName",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
        ] {
            if let Some((place, _)) = document.get("metadata").and_then(|m| m.entry(field)) {
                self.error(
                    file,
                    place,
                    format!("metadata.{field} may not be kept in Git: remove it"),
                );
            }
        }
        for field in ["labels", "annotations"] {
            let map = document.get("metadata").and_then(|m| m.get(field));
            let entries = match map.map(|map| (map.place, &map.content)) {
                Some((_, Content::Map(entries))) => entries.as_slice(),
                Some((place, content)) if !matches!(content, Content::Scalar(Value::Null)) => {
                    self.error(file, place, format!("metadata.{field} must be an object"));
                    continue;
                }
                _ => continue,
            };
            for (name, _, value) in entries.iter().filter(|(_, _, v)| v.as_str().is_none()) {
                let message = format!("metadata.{field}.{name} must be a text: put it in quotes");
                self.error(file, value.place, message);
            }
        }
        if let Some(schema) = self.schemas.get(&key.kind) {
            let mut found = Vec::new();
            check::object(document, schema, &mut found);
            for (place, message) in found {
                self.error(file, place, message);
            }
        }
        self.provider_configs(file, document);
        if key.kind == "MachineDeployment"
            && let Some(node) = document.get("spec").and_then(|s| s.get("clusterName"))
            && let Some(cluster) = node.as_str()
        {
            self.pools.push((
                file.to_owned(),
                node.place,
                key.namespace.clone(),
                cluster.to_owned(),
            ));
        }
    }

    fn provider_configs(&mut self, file: &str, node: &Node) {
        match &node.content {
            Content::Map(entries) => {
                for (key, _, child) in entries {
                    if key == "providerConfig" {
                        self.provider_config(file, child);
                    } else {
                        self.provider_configs(file, child);
                    }
                }
            }
            Content::List(items) => items
                .iter()
                .for_each(|item| self.provider_configs(file, item)),
            Content::Scalar(_) => {}
        }
    }

    fn provider_config(&mut self, file: &str, node: &Node) {
        let text = |name| node.get(name).and_then(Node::as_str);
        if let (Some(account), allowed) = (text("account"), &self.context.allow.accounts)
            && !allowed.is_empty()
            && !allowed.iter().any(|a| a == account)
        {
            let message = format!("the Fleet does not allow ProviderAccount {account}");
            self.error(file, node.place_of("account"), message);
        }
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            return;
        };
        match (self.context.provider_schema)(version, kind) {
            None => {
                let message = format!("no provider knows {kind} of {version}");
                self.error(file, node.place_of("kind"), message);
            }
            Some(schema) => {
                let mut found = Vec::new();
                check::provider(node, schema, &mut found);
                for (place, message) in found {
                    self.error(file, place, message);
                }
            }
        }
    }

    fn outside(&mut self) -> Vec<Outside> {
        let mut outside = Vec::new();
        for (file, place, namespace, cluster) in std::mem::take(&mut self.pools) {
            let key = ObjectKey {
                api_version: API_VERSION.to_owned(),
                kind: "Cluster".to_owned(),
                namespace: namespace.clone(),
                name: cluster.clone(),
            };
            if self.seen.contains_key(&key) {
                continue;
            }
            let message = format!(
                "there is no Cluster {namespace}/{cluster}: declare it or correct clusterName"
            );
            outside.push(Outside {
                cluster: (namespace, cluster),
                otherwise: LoadError {
                    file,
                    line: place.line,
                    column: place.column,
                    message,
                },
            });
        }
        outside
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() > MAX_NAME {
        return Err(format!("is longer than {MAX_NAME} characters"));
    }
    if name.is_empty() || !name.chars().all(inner) || name.starts_with('-') || name.ends_with('-') {
        return Err("must consist of lower-case letters, digits and '-', and begin and end with a letter or digit".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
