//! The documents of a load, one after the other: what they declare, and what is wrong with them.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use fleetwright_api::API_VERSION;
use fleetwright_core::{catalogue::Purpose, plan::Origins};
use serde_json::Value;

use super::{
    DesiredObject, LoadContext, LoadError, Loaded, MAX_ERRORS, ObjectKey, Outside, SourceFile,
    bases::{BASE, BASES, Library, TooMuch, origins},
    check::{self, Checker, Extent, refused_by_provider},
    manifests::Manifests,
    purposes::{misplaced, unsaid},
};
use crate::yaml::{self, Content, Node, Place};

/// Longest message of a mistake, in characters: it may quote what it is about.
const MAX_MESSAGE: usize = 500;

pub(super) struct Loader<'l, 'a> {
    pub(super) context: &'l LoadContext<'a>,
    schemas: &'static BTreeMap<String, Value>,
    checker: Checker,
    pub(super) library: Library<'l, 'a>,
    pub(super) manifests: Manifests,
    pub(super) seen: BTreeMap<ObjectKey, (Arc<str>, Place)>,
    pub(super) objects: BTreeMap<ObjectKey, DesiredObject>,
    pools: Vec<(ObjectKey, LoadError)>,
    /// Documents that are built on others: all files are looked through first.
    waiting: Vec<Waiting>,
    errors: BTreeMap<LoadError, Users>,
}

/// A document that is built on others.
struct Waiting {
    file: Arc<str>,
    kind: String,
    /// Who it is; `None` where it is itself only there to be built on.
    key: Option<ObjectKey>,
    node: Rc<Node>,
}

/// Where a document and what it is built on stand.
#[derive(Clone)]
pub(super) struct Source {
    /// The files of its layers.
    pub(super) files: Vec<Arc<str>>,
    /// What people know the document by, where it has more layers than itself.
    name: String,
}

impl Source {
    fn file(&self, place: Place) -> &str {
        let layer = usize::try_from(place.layer).unwrap_or(usize::MAX);
        self.files.get(layer).map_or("", |file| file)
    }
}

/// The documents that a mistake of a base gets into.
#[derive(Default)]
struct Users {
    first: Option<String>,
    more: usize,
}

impl Users {
    fn add(&mut self, name: &str) {
        match &self.first {
            None => self.first = Some(name.to_owned()),
            Some(_) => self.more += 1,
        }
    }

    /// The mistake as it is told.
    fn tell(self, mut error: LoadError) -> LoadError {
        if let Some(first) = self.first {
            let more = match self.more {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            error.message = format!("{} (used by {first}{more})", error.message);
        }
        error
    }
}

impl<'l, 'a> Loader<'l, 'a> {
    /// A loader of these files that has read none of them.
    pub(super) fn new(files: &[&'l SourceFile], context: &'l LoadContext<'a>) -> Self {
        Self {
            context,
            schemas: check::kind_schemas(),
            checker: Checker::default(),
            library: Library::new(files, context),
            manifests: Manifests::default(),
            seen: BTreeMap::new(),
            objects: BTreeMap::new(),
            pools: Vec::new(),
            waiting: Vec::new(),
            errors: BTreeMap::new(),
        }
    }

    /// What was read, with the documents that are built on others.
    pub(super) fn finish(mut self) -> Loaded {
        for document in std::mem::take(&mut self.waiting) {
            self.build(&document);
        }
        self.keep();
        let outside = self.outside();
        let errors = self.errors.into_iter().take(MAX_ERRORS);
        Loaded {
            objects: self.objects.into_values().collect(),
            errors: errors.map(|(error, users)| users.tell(error)).collect(),
            outside,
        }
    }

    pub(super) fn error(&mut self, source: &Source, place: Place, message: impl Into<String>) {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        let users = self.errors.entry(LoadError {
            file: source.file(place).to_owned(),
            line: place.line.into(),
            column: place.column.into(),
            message,
        });
        let users = users.or_default();
        if place.layer > 0 {
            users.add(&source.name);
        }
    }

    /// How many mistakes were found so far.
    pub(super) fn mistakes(&self) -> usize {
        self.errors.len()
    }

    pub(super) fn file(&mut self, file: &SourceFile) {
        if let Some((source, documents)) = self.nodes(file) {
            for document in documents {
                self.document(&source, document);
            }
        }
    }

    /// The documents of a file, as far as there is room for them.
    pub(super) fn nodes(&mut self, file: &SourceFile) -> Option<(Source, Vec<Node>)> {
        let source = Source {
            files: vec![file.path.as_str().into()],
            name: String::new(),
        };
        let bytes = match &file.content {
            Ok(bytes) => bytes,
            Err(why) => {
                self.error(&source, Place::START, why);
                return None;
            }
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let lines = before.iter().filter(|b| **b == b'\n').count();
                let place = Place {
                    line: u32::try_from(lines + 1).unwrap_or(u32::MAX),
                    ..Place::START
                };
                self.error(&source, place, "not UTF-8 text");
                return None;
            }
        };
        if self.library.spend(0).is_err() {
            return None;
        }
        let mut documents = match yaml::parse(text) {
            Ok(documents) => documents,
            Err(error) => {
                self.error(&source, error.place, error.message);
                return None;
            }
        };
        let spent = documents
            .iter()
            .position(|node| self.library.spend(node.count()).is_err());
        if let Some((at, node)) = spent.and_then(|at| Some((at, documents.get(at)?))) {
            self.error(&source, node.place, TooMuch.to_string());
            documents.truncate(at);
        }
        Some((source, documents))
    }

    fn document(&mut self, source: &Source, mut node: Node) {
        let Some((api_version, kind)) = self.head(source, &node) else {
            return;
        };
        let is_base = match node.get(BASE).map(|n| (n.place, &n.content)) {
            None => false,
            Some((_, Content::Scalar(Value::Bool(is)))) => *is,
            Some((place, _)) => return self.error(source, place, "base must be true or false"),
        };
        let key = if is_base {
            if let Some((place, _)) = node.get("metadata").and_then(|m| m.entry("namespace")) {
                let message = "a base has no namespace: what is built on it says its own";
                self.error(source, place, message);
            }
            None
        } else {
            match self.identity(source, &node, api_version, &kind) {
                Some(key) => Some(key),
                None => return,
            }
        };
        if node.get(BASES).is_some() {
            self.waiting
                .extend(source.files.first().map(|file| Waiting {
                    file: Arc::clone(file),
                    kind,
                    key,
                    node: Rc::new(node),
                }));
            return;
        }
        if node.get(BASE).is_some() {
            node.remove(&[BASE]);
        }
        self.contents(source, &node, &kind, key.as_ref());
        self.put(source, &node, key, Origins::default());
    }

    /// Lays a document over what it is built on.
    fn build(&mut self, document: &Waiting) {
        let Waiting {
            file,
            kind,
            key,
            node,
        } = document;
        let place = format!("{file}:{}", node.place.line);
        let mut source = Source {
            files: vec![Arc::clone(file)],
            name: match key {
                Some(key) => format!("{key}, {place}"),
                None => format!("the base at {place}"),
            },
        };
        if self.library.spend(0).is_err() {
            return;
        }
        let below = match self.library.below(file, node) {
            Ok(below) => below,
            Err(error) => {
                let users = self.errors.entry(error);
                let elsewhere = users.key().file != **file;
                let users = users.or_default();
                if elsewhere {
                    users.add(&source.name);
                }
                return;
            }
        };
        let merged = self.library.over(&below, node);
        source.files = below.files;
        self.contents(&source, &merged, kind, key.as_ref());
        let origins = origins(&merged, &source.files);
        self.put(&source, &merged, key.clone(), origins);
    }

    fn put(&mut self, source: &Source, node: &Node, key: Option<ObjectKey>, origins: Origins) {
        let Some(key) = key else {
            return;
        };
        let mut value = node.to_value();
        if !key.namespace.is_empty()
            && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("namespace".into(), key.namespace.clone().into());
        }
        self.wants(&key, source, node);
        let object = DesiredObject {
            key: key.clone(),
            document: value,
            file: source.file(node.place).to_owned(),
            line: node.place.line.into(),
            origins,
        };
        self.objects.insert(key, object);
    }

    fn contents(&mut self, source: &Source, document: &Node, kind: &str, key: Option<&ObjectKey>) {
        let extent = match key {
            Some(_) => Extent::Whole,
            None => Extent::Part,
        };
        if let Some((place, _)) = document.entry("status") {
            self.error(
                source,
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
                    source,
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
                    self.error(source, place, format!("metadata.{field} must be an object"));
                    continue;
                }
                _ => continue,
            };
            for (name, _, value) in entries.iter().filter(|(_, _, v)| v.as_str().is_none()) {
                let message = format!("metadata.{field}.{name} must be a text: put it in quotes");
                self.error(source, value.place, message);
            }
        }
        if let Some(schema) = self.schemas.get(kind) {
            for (place, message) in self.checker.object(document, schema, extent) {
                self.error(source, place, message);
            }
        }
        self.provider_configs(source, document, extent);
        let schema = self.context.provider_schema;
        let purpose = |version: &str, kind: &str| schema(version, kind).map(Purpose::of);
        for (place, message) in misplaced(kind, document, purpose) {
            self.error(source, place, message);
        }
        if kind == "Cluster"
            && extent == Extent::Whole
            && let Some((place, message)) = unsaid(document, schema)
        {
            self.error(source, place, message);
        }
        if kind == "MachineDeployment"
            && let Some(key) = key
            && let Some(node) = document.get("spec").and_then(|s| s.get("clusterName"))
            && let Some(name) = node.as_str()
        {
            self.pool(source, node.place, &key.namespace, name);
        }
    }

    /// Remembers which Cluster a pool belongs to.
    fn pool(&mut self, source: &Source, place: Place, namespace: &str, cluster: &str) {
        let cluster = ObjectKey {
            api_version: API_VERSION.to_owned(),
            kind: "Cluster".to_owned(),
            namespace: namespace.to_owned(),
            name: cluster.to_owned(),
        };
        let otherwise = LoadError {
            file: source.file(place).to_owned(),
            line: place.line.into(),
            column: place.column.into(),
            message: format!("there is no {cluster}: declare it or correct clusterName"),
        };
        let mut users = Users::default();
        if place.layer > 0 {
            users.add(&source.name);
        }
        self.pools.push((cluster, users.tell(otherwise)));
    }

    fn provider_configs(&mut self, source: &Source, node: &Node, extent: Extent) {
        match &node.content {
            Content::Map(entries) => {
                for (key, _, child) in entries {
                    if key == "providerConfig" {
                        self.provider_config(source, child, extent);
                    } else {
                        self.provider_configs(source, child, extent);
                    }
                }
            }
            Content::List(items) => items
                .iter()
                .for_each(|item| self.provider_configs(source, item, extent)),
            Content::Scalar(_) => {}
        }
    }

    fn provider_config(&mut self, source: &Source, node: &Node, extent: Extent) {
        let text = |name| node.get(name).and_then(Node::as_str);
        if let (Some(account), allowed) = (text("account"), &self.context.allow.accounts)
            && !allowed.is_empty()
            && !allowed.iter().any(|a| a == account)
        {
            let message = format!("the Fleet does not allow ProviderAccount {account}");
            self.error(source, node.place_of("account"), message);
        }
        let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            return;
        };
        match (self.context.provider_schema)(version, kind) {
            None => {
                let message = format!("no provider knows {kind} of {version}{}", hint(version));
                self.error(source, node.place_of("kind"), message);
            }
            Some(schema) => {
                let mut found = self.checker.provider(node, schema, extent);
                if found.is_empty()
                    && extent == Extent::Whole
                    && let Some(schema) = self.library.provider(version, kind)
                {
                    found = refused_by_provider(node, &schema);
                }
                for (place, message) in found {
                    self.error(source, place, message);
                }
            }
        }
    }

    fn outside(&mut self) -> Vec<Outside> {
        let pools = std::mem::take(&mut self.pools).into_iter();
        let outside = pools.filter(|(cluster, _)| !self.seen.contains_key(cluster));
        let outside = outside.map(|(cluster, otherwise)| Outside {
            cluster: (cluster.namespace, cluster.name),
            otherwise,
        });
        outside.collect()
    }
}

/// What to do about a kind in a group of ours: it may be that of a provider that this program was built without.
fn hint(api_version: &str) -> &'static str {
    match api_version.split_once('/') {
        Some((group, _)) if group.ends_with(".fleetwright.dev") => {
            ": mistyped, or of a real cloud that this program was built without (cargo build --features aws)"
        }
        _ => "",
    }
}
