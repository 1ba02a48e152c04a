//! `Cluster.spec.bootstrapManifests`: files that are for workload clusters, kept in ConfigMaps.
//!
//! A file that a Cluster, or a base of Clusters, names there holds no documents of the Fleet's own.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::names;
use fleetwright_core::{
    manifests::{Packed, contents, document, documents, hash_of, plain_path},
    plan::Origins,
};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{
    DesiredObject, MAX_TOTAL_BYTES, ObjectKey, SourceFile, is_manifest,
    loader::{Loader, Source},
};
use crate::yaml::{self, Content, Node, Place};

const FIELD: &str = "bootstrapManifests";

/// The manifests of a load.
#[derive(Default)]
pub(super) struct Manifests {
    /// The named files by their paths; those with mistakes are not packed.
    files: BTreeMap<String, Option<Packed>>,
    /// What Clusters name.
    wanted: Vec<Wanted>,
}

/// The list of one Cluster.
struct Wanted {
    cluster: ObjectKey,
    source: Source,
    list: Node,
}

/// The paths of files that Clusters, or their bases, name.
pub(super) fn named(files: &[&SourceFile]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let texts = files.iter().filter_map(|file| {
        let text = std::str::from_utf8(file.content.as_deref().ok()?).ok()?;
        text.contains(FIELD).then_some(text)
    });
    // A file that is none has its mistake told where it is loaded.
    for node in texts.flat_map(|text| yaml::parse(text).unwrap_or_default()) {
        let is_cluster = node.get("kind").and_then(Node::as_str) == Some("Cluster");
        let list = node.get("spec").and_then(|spec| spec.get(FIELD));
        if let (true, Some(Content::List(items))) = (is_cluster, list.map(|list| &list.content)) {
            let paths = items.iter().filter_map(|item| item.get("path")?.as_str());
            out.extend(paths.filter_map(|path| inside(path).ok()));
        }
    }
    out
}

/// A path from the followed folder, without empty parts.
fn inside(path: &str) -> Result<String, &'static str> {
    if path.contains("://") {
        return Err("nothing is fetched for a manifest: it is a file of what is followed");
    }
    if path.starts_with('/') {
        return Err("the path of a manifest begins at the folder that is followed");
    }
    if path.split('/').any(|part| part == "..") {
        return Err("a manifest is a file inside of what is followed: name it from there");
    }
    Ok(plain_path(path))
}

impl Loader<'_, '_> {
    /// Reads a file that Clusters name.
    pub(super) fn manifest(&mut self, file: &SourceFile) {
        let before = self.mistakes();
        let mut packed = None;
        if let Some((source, nodes)) = self.nodes(file) {
            for node in &nodes {
                if let Err((place, message)) = document(node) {
                    self.error(&source, place, message);
                }
            }
            match Packed::of(file.content.as_deref().unwrap_or_default()) {
                Ok(kept) => packed = Some(kept),
                Err(why) => self.error(&source, Place::START, why),
            }
        }
        let packed = packed.filter(|_| self.mistakes() == before);
        self.manifests.files.insert(file.path.clone(), packed);
    }

    /// Remembers what a Cluster wants of manifests.
    pub(super) fn wants(&mut self, cluster: &ObjectKey, source: &Source, node: &Node) {
        let list = node.get("spec").and_then(|spec| spec.get(FIELD));
        if let Some(list) = list.filter(|_| cluster.kind == "Cluster") {
            self.manifests.wanted.push(Wanted {
                cluster: cluster.clone(),
                source: source.clone(),
                list: list.clone(),
            });
        }
    }

    /// Adds the ConfigMaps of all Clusters' manifests, and says in the Clusters what is in them.
    pub(super) fn keep(&mut self) {
        let mut bytes = 0;
        for wanted in std::mem::take(&mut self.manifests.wanted) {
            let Content::List(items) = &wanted.list.content else {
                continue;
            };
            for (at, item) in items.iter().enumerate() {
                if let Some((place, _)) = item.entry("contentHash") {
                    let message =
                        "contentHash is filled in from what the manifest holds: remove it";
                    self.error(&wanted.source, place, message);
                }
                let [path, map] = ["path", "configMap"].map(|name| item.get(name));
                let found = match (path.and_then(Node::as_str), map.and_then(Node::as_str)) {
                    (Some(text), None) => self.packed(&wanted, text, &mut bytes),
                    (None, Some(name)) => self.declared(&wanted.cluster, name),
                    // What it must be the schema says.
                    _ => Ok(None),
                };
                match found {
                    Ok(Some(hash)) => self.fill(&wanted.cluster, at, hash),
                    Ok(None) => {}
                    Err(why) => {
                        let place = path.or(map).map_or(item.place, |node| node.place);
                        self.error(&wanted.source, place, why);
                    }
                }
            }
        }
    }

    /// Adds the ConfigMap of the file at a path; gives the hash of its content, none where its mistakes are told already.
    fn packed(
        &mut self,
        wanted: &Wanted,
        path: &str,
        bytes: &mut usize,
    ) -> Result<Option<String>, String> {
        let cluster = &wanted.cluster;
        let path = inside(path).map_err(|why| format!("{path}: {why}"))?;
        let Some(packed) = self.manifests.files.get(&path) else {
            return Err(self.missing(&path));
        };
        let Some(packed) = packed else {
            return Ok(None);
        };
        *bytes += packed.size();
        if *bytes > MAX_TOTAL_BYTES {
            return Err(format!(
                "the manifests of all clusters together have more than {} MiB when they are compressed",
                MAX_TOTAL_BYTES >> 20
            ));
        }
        let hash = packed.hash.clone();
        let allow = &self.context.allow.kinds;
        if !allow.is_empty() && !allow.iter().any(|kind| kind == "ConfigMap") {
            let why = "the Fleet does not allow kind ConfigMap, in which manifests are kept";
            return Err(why.to_owned());
        }
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: cluster.namespace.clone(),
            name: names::bootstrap_manifest(&cluster.name, &path),
        };
        let document = packed.config_map(&cluster.namespace, &cluster.name, &path);
        if let Some((other, place)) = self.seen.get(&key) {
            return Err(format!(
                "{path} is kept in {key}, which is declared at {other}:{}:{} already: name it once, and call no object so",
                place.line, place.column
            ));
        }
        let at = (path.as_str().into(), Place::START);
        self.seen.insert(key.clone(), at);
        let object = DesiredObject {
            key: key.clone(),
            document,
            file: path,
            line: 1,
            origins: Origins::default(),
        };
        self.objects.insert(key, object);
        Ok(Some(hash))
    }

    /// Why there is no manifest at a path.
    fn missing(&self, path: &str) -> String {
        if self.library.has_folder(path) {
            return format!("{path} is a folder: name each of its files");
        }
        if !is_manifest(path) {
            return format!(
                "{path} is not read: the name of a manifest ends in .yaml, .yml or .json, and no part of it begins with a dot"
            );
        }
        format!(
            "there is no {path} in what is followed: correct it (it begins at the folder that the Fleet follows), and see that spec.source.include and exclude take it"
        )
    }

    /// The hash of what a ConfigMap of the files holds; none where no file declares it.
    fn declared(&self, cluster: &ObjectKey, name: &str) -> Result<Option<String>, String> {
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: cluster.namespace.clone(),
            name: name.to_owned(),
        };
        let Some(object) = self.objects.get(&key) else {
            return Ok(None);
        };
        let DesiredObject { file, line, .. } = object;
        let wrong = |why: String| format!("{key}, {file}:{line}, holds no manifest: {why}");
        let map: ConfigMap = serde_json::from_value(object.document.clone())
            .map_err(|error| wrong(error.to_string()))?;
        let contents = contents(map).map_err(wrong)?;
        documents(&contents).map_err(wrong)?;
        Ok(Some(hash_of(&contents)))
    }

    fn fill(&mut self, cluster: &ObjectKey, at: usize, hash: String) {
        let object = self.objects.get_mut(cluster);
        let list =
            object.and_then(|object| object.document.pointer_mut("/spec/bootstrapManifests"));
        let item = list.and_then(|list| list.get_mut(at)?.as_object_mut());
        if let Some(item) = item {
            item.insert("contentHash".into(), Value::from(hash));
        }
    }
}

#[cfg(test)]
mod tests;
