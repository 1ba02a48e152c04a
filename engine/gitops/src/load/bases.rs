//! What documents are built on: `bases: [../base/cluster.yaml, eu.yaml#web]`.
//!
//! All that a document is built on is put into one order, each document once, what it is built on itself before it; then each is
//! laid over those before it, and the document over all. The order alone decides, however the bases refer to each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use super::{
    LoadContext, LoadError, MAX_TOTAL_NODES, SourceFile,
    merge::{Merger, drop_nulls},
};
use crate::yaml::{self, Content, Node, Place};
use fleetwright_core::plan::{Origin, Origins, schema_of};
use fleetwright_schema::Schema;

/// Most documents that one is built on.
pub const MAX_MERGED: usize = 1_000;
/// Longest way from a document to a base of its bases.
pub const MAX_DEPTH: usize = 10;

/// The key that lists what a document is built on.
pub const BASES: &str = "bases";
/// The key that says of a document that it is only there to be built on.
pub const BASE: &str = "base";

/// A load has more values than it may have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "all files together have more than {MAX_TOTAL_NODES} values, aliases and bases expanded: what is here and after it was not looked at"
)]
pub struct TooMuch;

/// Finds and merges what documents are built on.
pub struct Library<'f, 'a> {
    files: BTreeMap<&'f str, &'f SourceFile>,
    merger: Merger<'f, 'a>,
    parsed: BTreeMap<Arc<str>, Result<Rc<Documents>, String>>,
    /// Values so far, those of the load included.
    values: usize,
}

/// The documents of a file, by what they are asked for: `apiVersion`, kind, and the name or none.
type Documents = BTreeMap<[Option<String>; 3], Vec<Rc<Node>>>;

/// A document in its file.
#[derive(Clone)]
struct Document {
    file: Arc<str>,
    node: Rc<Node>,
}

impl Document {
    fn mistake(&self, place: Place, message: impl ToString) -> LoadError {
        LoadError {
            file: self.file.to_string(),
            line: place.line.into(),
            column: place.column.into(),
            message: message.to_string(),
        }
    }
}

/// All that a document is built on, merged.
pub struct Below {
    /// Nothing, if the list of bases is empty.
    merged: Option<Node>,
    /// The files of the layers; the first is that of the document itself.
    pub files: Vec<Arc<str>>,
}

impl Below {
    /// Whether there is a value at `path`.
    pub fn says(&self, path: &[String]) -> bool {
        let root = self.merged.as_ref();
        let found = path.iter().try_fold(root, |at, key| Some(at?.get(key)));
        found.flatten().is_some_and(|node| !node.is_null())
    }
}

/// The order in which the bases of a document are merged, while it is made.
#[derive(Default)]
struct Order {
    way: Vec<(Arc<str>, Place)>,
    seen: BTreeSet<(Arc<str>, Place)>,
    documents: Vec<Document>,
}

impl<'f, 'a> Library<'f, 'a> {
    /// A library of the bases in `files`, which are the whole of what is followed.
    pub fn new(files: &[&'f SourceFile], context: &'f LoadContext<'a>) -> Self {
        Self {
            files: files.iter().map(|f| (f.path.as_str(), *f)).collect(),
            merger: Merger::new(context),
            parsed: BTreeMap::new(),
            values: 0,
        }
    }

    /// The compiled schema of a kind of `providerConfig`; `None` where no provider knows it.
    pub(super) fn provider(&mut self, version: &str, kind: &str) -> Option<Schema> {
        self.merger.provider(version.to_owned(), kind.to_owned())
    }

    /// Whether there are files below this path.
    pub fn has_folder(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let next = self.files.range(below.as_str()..).next();
        next.is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// Whether so many values more are within the bounds of a load.
    ///
    /// # Errors
    /// They are not; nothing is then, and nothing more is to be looked at.
    pub fn spend(&mut self, values: usize) -> Result<(), TooMuch> {
        self.values = self.values.saturating_add(values);
        if self.values > MAX_TOTAL_NODES {
            return Err(TooMuch);
        }
        Ok(())
    }

    /// What `document` of `file` is built on.
    ///
    /// # Errors
    /// The first mistake in the lists of bases, with its place.
    pub fn below(&mut self, file: &Arc<str>, document: &Rc<Node>) -> Result<Below, LoadError> {
        let this = Document {
            file: Arc::clone(file),
            node: Rc::clone(document),
        };
        let mut order = Order::default();
        order.way.push((Arc::clone(file), document.place));
        self.collect(&this, &mut order)?;
        let schema = schema_of(kind_of(document));
        let mut below = Below {
            merged: None,
            files: vec![Arc::clone(file)],
        };
        for (layer, base) in (1..).zip(order.documents) {
            let mut node = (*base.node).clone();
            node.remove(&[BASES, BASE, "apiVersion", "kind"]);
            if let Some(metadata) = node.get_mut("metadata") {
                // Who an object is stands in its own document.
                metadata.remove(&["name", "namespace"]);
            }
            node.set_layer(layer);
            self.spend(node.count())
                .map_err(|e| this.mistake(document.place, e))?;
            below.files.push(base.file);
            below.merged = Some(match below.merged.take() {
                Some(under) => self.merger.merge(schema.root(), under, node),
                None => node,
            });
        }
        Ok(below)
    }

    /// `document` laid over what it is built on.
    pub fn over(&mut self, below: &Below, document: &Node) -> Node {
        let schema = schema_of(kind_of(document)).root();
        let mut own = document.clone();
        own.remove(&[BASES, BASE]);
        let mut merged = match &below.merged {
            Some(under) => self.merger.merge(schema, under.clone(), own),
            None => own,
        };
        drop_nulls(schema, &mut merged);
        merged
    }

    fn collect(&mut self, from: &Document, order: &mut Order) -> Result<(), LoadError> {
        let Some(list) = from.node.get(BASES) else {
            return Ok(());
        };
        let Content::List(entries) = &list.content else {
            let message = "bases must be a list of files, such as [../base/cluster.yaml]";
            return Err(from.mistake(list.place, message));
        };
        for entry in entries {
            self.spend(1).map_err(|e| from.mistake(entry.place, e))?;
            let found = match entry.as_str() {
                Some(text) => self.find(from, text),
                None => Err("a base is a text: the path of a file from here".to_owned()),
            };
            let base = found.map_err(|message| from.mistake(entry.place, message))?;
            let id = (Arc::clone(&base.file), base.node.place);
            if let Some(at) = order.way.iter().position(|on_the_way| *on_the_way == id) {
                let circle = order.way.iter().skip(at).chain([&id]);
                let names: Vec<String> = circle.map(|(f, p)| format!("{f}:{}", p.line)).collect();
                let message = format!("bases go round in a circle: {}", names.join(" -> "));
                return Err(from.mistake(entry.place, message));
            }
            if order.seen.contains(&id) {
                continue;
            }
            if order.way.len() > MAX_DEPTH {
                let message = format!("bases of bases go deeper than {MAX_DEPTH}");
                return Err(from.mistake(entry.place, message));
            }
            order.way.push(id.clone());
            self.collect(&base, order)?;
            order.way.pop();
            if order.documents.len() >= MAX_MERGED {
                let message = format!("this is built on more than {MAX_MERGED} documents");
                return Err(from.mistake(entry.place, message));
            }
            order.seen.insert(id);
            order.documents.push(base);
        }
        Ok(())
    }

    /// The document that `text` names as a base of `from`.
    fn find(&mut self, from: &Document, text: &str) -> Result<Document, String> {
        let (path, name) = match text.split_once('#') {
            Some((path, name)) => (path, Some(name)),
            None => (text, None),
        };
        let file: Arc<str> = match path {
            "" => Arc::clone(&from.file),
            path => resolve(&from.file, path)?.into(),
        };
        let documents = self.documents(&file)?;
        let key = [
            text_at(&from.node, "apiVersion"),
            text_at(&from.node, "kind"),
            name,
        ];
        let found = documents.get(&key.map(|text| text.map(ToOwned::to_owned)));
        let kind = kind_of(&from.node);
        let named = name.map_or_else(String::new, |name| format!(" named {name}"));
        match found.map(Vec::as_slice).unwrap_or_default() {
            [node] => Ok(Document {
                file,
                node: Rc::clone(node),
            }),
            [] => Err(format!(
                "{file} has no {kind}{named}: a base has the apiVersion and kind of what is built on it"
            )),
            [first, ..] => Err(format!(
                "{file} has several documents of kind {kind}{named}: add the name of one, such as #{}",
                name_of(first).unwrap_or("NAME")
            )),
        }
    }

    fn documents(&mut self, file: &Arc<str>) -> Result<Rc<Documents>, String> {
        if let Some(known) = self.parsed.get(file) {
            return known.clone();
        }
        let read = || {
            let found = self.files.get(file.as_ref()).ok_or_else(|| {
                format!("there is no file {file}: bases are .yaml, .yml or .json files of what is followed")
            })?;
            let own = |_| format!("{file} cannot be read: see its own mistake");
            let bytes = found.content.as_ref().map_err(|_| own(()))?;
            let text = std::str::from_utf8(bytes).map_err(|_| own(()))?;
            let nodes = yaml::parse(text).map_err(|_| own(()))?;
            Ok(Rc::new(by_name(nodes)))
        };
        let read = read();
        self.parsed.insert(Arc::clone(file), read.clone());
        read
    }
}

fn by_name(nodes: Vec<Node>) -> Documents {
    let mut out = Documents::new();
    for node in nodes.into_iter().map(Rc::new) {
        let own = |text: Option<&str>| text.map(ToOwned::to_owned);
        let [version, kind] = ["apiVersion", "kind"].map(|field| own(text_at(&node, field)));
        let name = own(name_of(&node));
        let mut put = |name| {
            let same = out.entry([version.clone(), kind.clone(), name]);
            same.or_default().push(Rc::clone(&node));
        };
        put(None);
        if name.is_some() {
            put(name);
        }
    }
    out
}

/// The path of a base, from the root of what is followed.
fn resolve(from: &str, path: &str) -> Result<String, String> {
    if path.contains("://") {
        return Err(format!(
            "{path}: nothing is fetched for a base: it is a file of what is followed"
        ));
    }
    if path.starts_with('/') {
        return Err(format!(
            "{path}: the path of a base begins at the folder of this file"
        ));
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => {
                return Err(format!(
                    "{path} leaves what is followed: a base is a file inside of it"
                ));
            }
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Where the leaves of a merged document were written; `files` are those of its layers.
pub fn origins(node: &Node, files: &[Arc<str>]) -> Origins {
    let below = |part: String, node: &Node| (part, origins(node, files));
    match &node.content {
        Content::Map(entries) if !entries.is_empty() => {
            let all = entries
                .iter()
                .map(|(key, _, node)| below(key.clone(), node));
            Origins::Below(all.collect())
        }
        Content::List(items) if !items.is_empty() => {
            let all = items.iter().enumerate();
            Origins::Below(all.map(|(at, item)| below(at.to_string(), item)).collect())
        }
        _ => {
            let layer = usize::try_from(node.place.layer).ok();
            let file = layer.and_then(|layer| files.get(layer));
            file.map_or(Origins::One, |file| {
                Origins::Leaf(Origin {
                    file: Arc::clone(file),
                    line: node.place.line,
                    column: node.place.column,
                })
            })
        }
    }
}

fn text_at<'n>(document: &'n Node, field: &str) -> Option<&'n str> {
    document.get(field).and_then(Node::as_str)
}

fn kind_of(document: &Node) -> &str {
    text_at(document, "kind").unwrap_or_default()
}

fn name_of(document: &Node) -> Option<&str> {
    text_at(document.get("metadata")?, "name")
}

#[cfg(test)]
mod tests;
