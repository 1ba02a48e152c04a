//! What a document says to be, and whether Git may hold that.

use std::sync::Arc;

use fleetwright_api::{API_VERSION, names::MAX_NAME};

use super::{
    ObjectKey,
    loader::{Loader, Source},
};
use crate::yaml::{Content, Node};

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

impl Loader<'_, '_> {
    /// `apiVersion` and kind, if Git may hold such documents.
    pub(super) fn head(&mut self, source: &Source, document: &Node) -> Option<(String, String)> {
        if !matches!(document.content, Content::Map(_)) {
            self.error(
                source,
                document.place,
                "a document must be an object with apiVersion, kind and metadata",
            );
            return None;
        }
        let api_version = self.text(source, document, document, "apiVersion");
        let kind = self.text(source, document, document, "kind");
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            return None;
        };
        let kind_place = document.get("kind").map_or(document.place, |n| n.place);
        let ours = api_version.starts_with("fleetwright.dev/") || api_version == "v1";
        if let Some((_, why)) = REFUSED.iter().find(|(k, _)| *k == kind && ours) {
            self.error(
                source,
                kind_place,
                format!("{kind} is refused in Git: {why}"),
            );
            return None;
        }
        if !KNOWN.iter().any(|(v, k)| *v == api_version && *k == kind) {
            let known: Vec<String> = KNOWN.iter().map(|(v, k)| format!("{k} ({v})")).collect();
            self.error(
                source,
                kind_place,
                format!(
                    "unknown kind {kind} of {api_version}: Git may hold {}; what is for a workload cluster stands in a file that the Cluster's bootstrapManifests name",
                    known.join(", ")
                ),
            );
            return None;
        }
        let allow = self.context.allow;
        if !allow.kinds.is_empty() && !allow.kinds.contains(&kind) {
            self.error(
                source,
                kind_place,
                format!("the Fleet does not allow kind {kind}"),
            );
        }
        Some((api_version, kind))
    }

    /// Who the document says to be; `None` where that is a mistake, or another says so too.
    pub(super) fn identity(
        &mut self,
        source: &Source,
        document: &Node,
        api_version: String,
        kind: &str,
    ) -> Option<ObjectKey> {
        let allow = self.context.allow;
        let Some(metadata) = document.get("metadata") else {
            self.error(
                source,
                document.place,
                "metadata is missing: add metadata.name",
            );
            return None;
        };
        let name = self.text(source, metadata, metadata, "name")?;
        let name_place = metadata.place_of("name");
        if let Err(why) = check_name(&name) {
            self.error(source, name_place, format!("metadata.name {name:?} {why}"));
        }
        let namespace = if kind == "Namespace" {
            String::new()
        } else {
            match metadata.get("namespace") {
                None => "default".to_owned(),
                Some(node) => match node.as_str() {
                    Some(text) if check_name(text).is_ok() => text.to_owned(),
                    _ => {
                        self.error(source, node.place, "metadata.namespace must be a DNS label");
                        return None;
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
                source,
                place,
                format!("the Fleet does not allow namespace {in_namespace}"),
            );
        }
        let key = ObjectKey {
            api_version,
            kind: kind.to_owned(),
            namespace,
            name,
        };
        if let Some((other, place)) = self.seen.get(&key) {
            let message = format!(
                "{key} is already declared at {other}:{}:{}: keep one of them",
                place.line, place.column
            );
            self.error(source, name_place, message);
            return None;
        }
        let file = source.files.first().map(Arc::clone).unwrap_or_default();
        self.seen.insert(key.clone(), (file, name_place));
        Some(key)
    }

    fn text(&mut self, source: &Source, at: &Node, parent: &Node, name: &str) -> Option<String> {
        match at.get(name) {
            Some(node) => match node.as_str() {
                Some(text) if !text.is_empty() => return Some(text.to_owned()),
                _ => self.error(
                    source,
                    node.place,
                    format!("{name} must be a text that is not empty"),
                ),
            },
            None => self.error(source, parent.place, format!("{name} is missing")),
        }
        None
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
