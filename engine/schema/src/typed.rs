//! Values walked along their schema: which fields they have, how two of them differ, and how they merge.
//!
//! The rules are those of Kubernetes' structured merge: objects merge by field and lists of type `map` or `set` by item,
//! unless the schema calls them atomic; everything else is one field. What the schema does not declare merges as if it
//! were an object of no declared fields, or an atomic list.

use crate::fields::{FieldSet, PathElement};
use crate::structural::{ListType, Node, Type};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::OnceLock;

/// How a value takes part in merging.
enum Shape<'a> {
    Leaf,
    Map(&'a Map<String, Value>),
    List(&'a [Value]),
}

fn shape<'a>(node: &Node, value: &'a Value) -> Shape<'a> {
    match value {
        Value::Object(map) if !node.atomic_map => Shape::Map(map),
        Value::Array(items) if node.list_type != ListType::Atomic => Shape::List(items),
        _ => Shape::Leaf,
    }
}

/// The schema of what no schema declares.
fn undeclared() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| Node {
        preserve_unknown: true,
        ..Node::default()
    })
}

/// The schema by which the value of a key merges; that of what is not declared where nothing declares it.
#[must_use]
pub fn child<'a>(node: &'a Node, name: &str) -> &'a Node {
    node.child(name).unwrap_or_else(|| undeclared())
}

/// The schema by which the items of a list merge.
#[must_use]
pub fn items(node: &Node) -> &Node {
    node.items.as_deref().unwrap_or_else(|| undeclared())
}

/// The element that names an item of a list: by its keys (defaults filled in) or its value.
#[must_use]
pub fn element(node: &Node, item: &Value) -> PathElement {
    match &node.list_type {
        ListType::Map(keys) => {
            let schema = items(node);
            let values = keys.iter().map(|key| {
                let default = || schema.properties.get(key).and_then(|p| p.default.as_ref());
                (
                    key.as_str(),
                    item.get(key).or_else(default).unwrap_or(&Value::Null),
                )
            });
            PathElement::key(values)
        }
        _ => PathElement::value(item),
    }
}

/// Every field that a value has: the set that an apply of it claims.
#[must_use]
pub fn field_set(node: &Node, value: &Value) -> FieldSet {
    field_set_but(node, value, &[])
}

/// As [`field_set`], without the fields of these names right below the value.
#[must_use]
pub(crate) fn field_set_but(node: &Node, value: &Value, but: &[&str]) -> FieldSet {
    let mut out = FieldSet::default();
    match shape(node, value) {
        Shape::Leaf => {}
        Shape::Map(map) => {
            for (name, value) in map {
                if but.contains(&name.as_str()) {
                    continue;
                }
                let below = child(node, name);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let member = empty
                    || !node.properties.contains_key(name)
                    || matches!(shape(below, value), Shape::Leaf);
                out.put(PathElement::field(name), member, field_set(below, value));
            }
        }
        Shape::List(list) => {
            for item in list {
                out.put(element(node, item), true, field_set(items(node), item));
            }
        }
    }
    out
}

/// Which fields an old and a new value have differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Only in the new one.
    pub added: FieldSet,
    /// In both, with different values.
    pub modified: FieldSet,
    /// Only in the old one.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether the values are the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Takes in how the values at an element differ; `node` is their schema, if one declares them.
    fn enter(
        &mut self,
        element: impl Fn() -> PathElement,
        node: Option<&Node>,
        old: Option<&Value>,
        new: Option<&Value>,
    ) {
        if old == new {
            return;
        }
        let element = element();
        let node = node.unwrap_or_else(|| undeclared());
        let leaf = |v: Option<&Value>| v.is_none_or(|v| matches!(shape(node, v), Shape::Leaf));
        match (old, new) {
            (None, _) => self.added.insert(element.clone()),
            (_, None) => self.removed.insert(element.clone()),
            _ if leaf(old) && leaf(new) => return self.modified.insert(element),
            _ => {}
        }
        let below = compare(
            node,
            old.unwrap_or(&Value::Null),
            new.unwrap_or(&Value::Null),
        );
        self.insert_below(&element, below);
    }

    /// Takes in how the values below an element differ.
    pub(crate) fn insert_below(&mut self, element: &PathElement, below: Self) {
        for (set, below) in [
            (&mut self.added, below.added),
            (&mut self.modified, below.modified),
            (&mut self.removed, below.removed),
        ] {
            if !below.is_empty() {
                set.insert_below(element.clone(), below);
            }
        }
    }
}

/// Compares what is below two values of one schema.
#[must_use]
pub fn compare(node: &Node, old: &Value, new: &Value) -> Comparison {
    compare_but(node, old, new, &[])
}

/// As [`compare`], without the fields of these names right below the values.
#[must_use]
pub(crate) fn compare_but(node: &Node, old: &Value, new: &Value, but: &[&str]) -> Comparison {
    let mut out = Comparison::default();
    let (none, empty) = (Map::new(), Vec::new());
    let maps = |v| match shape(node, v) {
        Shape::Map(map) => map,
        _ => &none,
    };
    let (a, b) = (maps(old), maps(new));
    let both = a
        .iter()
        .map(|(name, value)| (name, Some(value), b.get(name)));
    let only = b.iter().filter(|(name, _)| !a.contains_key(*name));
    let only = only.map(|(name, value)| (name, None, Some(value)));
    for (name, old, new) in both.chain(only) {
        if !but.contains(&name.as_str()) {
            out.enter(|| PathElement::field(name), node.child(name), old, new);
        }
    }
    let lists = |v| -> BTreeMap<PathElement, &Value> {
        let list = match shape(node, v) {
            Shape::List(list) => list,
            _ => empty.as_slice(),
        };
        list.iter()
            .map(|item| (element(node, item), item))
            .collect()
    };
    let (a, b) = (lists(old), lists(new));
    let both = a
        .iter()
        .map(|(at, item)| (at, Some(*item), b.get(at).copied()));
    let only = b.iter().filter(|(at, _)| !a.contains_key(*at));
    let only = only.map(|(at, item)| (at, None, Some(*item)));
    for (at, old, new) in both.chain(only) {
        out.enter(|| at.clone(), Some(items(node)), old, new);
    }
    out
}

/// What `live` becomes when `config` is applied to it: what the configuration has wins, the rest stays.
#[must_use]
pub fn merge(node: &Node, live: &Value, config: &Value) -> Value {
    match (shape(node, live), shape(node, config)) {
        (Shape::Map(live), Shape::Map(config)) => {
            let mut out = live.clone();
            for (name, value) in config {
                let merged = live
                    .get(name)
                    .map_or_else(|| value.clone(), |old| merge(child(node, name), old, value));
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::List(live), Shape::List(config)) => merge_lists(node, live, config),
        _ => config.clone(),
    }
}

/// Whether [`merge`] would leave `live` as it is. Of neither value more than lists that merge is copied.
#[must_use]
pub fn is_merged(node: &Node, live: &Value, config: &Value) -> bool {
    match (shape(node, live), shape(node, config)) {
        (Shape::Map(live), Shape::Map(config)) => config.iter().all(|(name, value)| {
            let old = live.get(name);
            old.is_some_and(|old| is_merged(child(node, name), old, value))
        }),
        (Shape::List(_), Shape::List(_)) => merge(node, live, config) == *live,
        _ => live == config,
    }
}

fn merge_lists(node: &Node, live: &[Value], config: &[Value]) -> Value {
    let elements = |list: &[Value]| -> Vec<PathElement> {
        list.iter().map(|item| element(node, item)).collect()
    };
    let order = merge_order(&elements(live), &elements(config));
    let merged = order.into_iter().filter_map(|(old, new)| {
        let old = old.and_then(|i| live.get(i));
        let new = new.and_then(|i| config.get(i));
        match (old, new) {
            (Some(old), Some(new)) => Some(merge(items(node), old, new)),
            (one, other) => one.or(other).cloned(),
        }
    });
    Value::Array(merged.collect())
}

/// Which items of two lists make up the merged one, and in which order: their places in the one and in the other list.
///
/// The configuration's order holds for its items. Items that only `live` has keep their place: each comes before the
/// configuration's items that are not older than it.
#[must_use]
pub fn merge_order(
    live: &[PathElement],
    config: &[PathElement],
) -> Vec<(Option<usize>, Option<usize>)> {
    // Of items that are there twice the first counts.
    let olds = live.iter().enumerate().rev().map(|(place, at)| (at, place));
    let olds: BTreeMap<&PathElement, usize> = olds.collect();
    let wanted: BTreeSet<&PathElement> = config.iter().collect();
    let mut shared = config.iter().filter(|at| olds.contains_key(at)).peekable();
    let mut left = live.iter().zip(0..).peekable();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    for (at, new) in config.iter().zip(0..) {
        while let Some((old, place)) = left.peek().copied() {
            if !wanted.contains(old) {
                out.push((Some(place), None));
            } else if Some(&old) == shared.peek() && old != at {
                // The next shared item: what is new in the configuration comes before it.
                break;
            }
            left.next();
            if old == at {
                break;
            }
        }
        if shared.peek() == Some(&at) {
            shared.next();
        }
        out.push((olds.get(at).copied(), Some(new)));
    }
    let rest = left.filter(|(old, _)| !wanted.contains(old));
    out.extend(rest.map(|(_, place)| (Some(place), None)));
    out
}

/// `value` without the fields of `set`, each with all below it.
#[must_use]
pub fn without(node: &Node, value: &Value, set: &FieldSet) -> Value {
    match shape(node, value) {
        Shape::Leaf => value.clone(),
        Shape::Map(map) => {
            let mut out = Map::new();
            for (name, value) in map {
                let at = PathElement::field(name);
                if set.has(&at) {
                    continue;
                }
                let kept = set.below(&at).map_or_else(
                    || value.clone(),
                    |below| without(child(node, name), value, below),
                );
                out.insert(name.clone(), kept);
            }
            Value::Object(out)
        }
        Shape::List(list) => {
            let mut out = Vec::with_capacity(list.len());
            for item in list {
                let at = element(node, item);
                if set.has(&at) {
                    continue;
                }
                out.push(
                    set.below(&at)
                        .map_or_else(|| item.clone(), |below| without(items(node), item, below)),
                );
            }
            Value::Array(out)
        }
    }
}

/// `set` with every declared field that it holds something below of as a path of its own.
#[must_use]
pub fn with_named_fields(node: &Node, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for at in set.elements() {
        let (named, below) = match at.as_field() {
            Some(name) => (node.properties.contains_key(name), child(node, name)),
            None => (false, items(node)),
        };
        if named || set.has(at) {
            out.insert(at.clone());
        }
        if let Some(rest) = set.below(at) {
            out.insert_below(at.clone(), with_named_fields(below, rest));
        }
    }
    out
}

/// Why a value cannot be merged by its schema: wrong types, undeclared fields, items without keys, items twice.
/// Each fault with its path, such as `.spec.replicas: expected numeric (int or float), got string`.
#[must_use]
pub fn faults(node: &Node, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    check(node, value, &mut String::new(), true, &mut out);
    out
}

/// The wrong types among them, with paths that begin with `prefix`.
#[must_use]
pub fn mistyped(node: &Node, value: &Value, prefix: &str) -> Vec<String> {
    let mut out = Vec::new();
    check(node, value, &mut prefix.to_owned(), false, &mut out);
    out
}

fn check(node: &Node, value: &Value, path: &mut String, strict: bool, out: &mut Vec<String>) {
    let got = match value {
        Value::Null => return,
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    };
    let expected = match node.kind {
        Type::Object if !value.is_object() => Some("map"),
        Type::Array if !value.is_array() => Some("list"),
        Type::String if !value.is_string() => Some("string"),
        Type::Boolean if !value.is_boolean() => Some("boolean"),
        Type::Integer | Type::Number if !value.is_number() => Some("numeric (int or float)"),
        _ => None,
    };
    let length = path.len();
    if let Some(expected) = expected {
        out.push(format!("{path}: expected {expected}, got {got}"));
        return;
    }
    match value {
        Value::Object(map) => {
            let open = !strict || node.preserve_unknown || node.additional.is_some();
            for (name, value) in map {
                match node.child(name) {
                    Some(known) => {
                        path.push('.');
                        path.push_str(name);
                        check(known, value, path, strict, out);
                        path.truncate(length);
                    }
                    None if open => {}
                    None => out.push(format!("{path}.{name}: field not declared in schema")),
                }
            }
        }
        Value::Array(list) => {
            let mut seen = BTreeSet::new();
            for (i, item) in list.iter().enumerate() {
                if strict && let ListType::Map(keys) = &node.list_type {
                    let schema = items(node);
                    let has = |key: &String| {
                        item.get(key).is_some()
                            || schema
                                .properties
                                .get(key)
                                .is_some_and(|p| p.default.is_some())
                    };
                    if !keys.iter().any(has) {
                        out.push(format!(
                            "{path}: element {i}: associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default values for any key fields)"
                        ));
                        continue;
                    }
                }
                // Writing into a text does not fail.
                if node.list_type == ListType::Atomic {
                    write!(path, "[{i}]").ok();
                } else {
                    let at = element(node, item);
                    if strict && seen.contains(&at) {
                        out.push(format!("{path}: duplicate entries for key {at}"));
                    }
                    write!(path, "{at}").ok();
                    seen.insert(at);
                }
                check(items(node), item, path, strict, out);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
