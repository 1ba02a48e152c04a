//! Sets of field paths, and their wire form `FieldsV1`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// One step of a path. Values are kept as canonical JSON text, so that they can be ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object.
    Field(String),
    /// An item of a map list, by its keys: a JSON object with sorted names.
    Key(String),
    /// An item of a set list, by its value: JSON.
    Value(String),
    /// An item of a list, by its position.
    Index(u64),
}

impl PathElement {
    /// The element of an item with these key values.
    pub(crate) fn key<'a>(values: impl Iterator<Item = (&'a str, &'a Value)>) -> Self {
        let sorted: BTreeMap<&str, &Value> = values.collect();
        let mut text = String::from("{");
        for (name, value) in sorted {
            if text.len() > 1 {
                text.push(',');
            }
            quote(&mut text, name);
            text.push(':');
            match value {
                Value::String(value) => quote(&mut text, value),
                value => text.push_str(&value.to_string()),
            }
        }
        text.push('}');
        Self::Key(text)
    }

    /// The wire form, such as `f:spec` or `k:{"name":"http"}`.
    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => format!("k:{key}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (tag, rest) = text.split_once(':')?;
        match tag {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => {
                let parsed: Map<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::key(
                    parsed.iter().map(|(name, value)| (name.as_str(), value)),
                ))
            }
            "v" => Some(Self::Value(
                serde_json::from_str::<Value>(rest).ok()?.to_string(),
            )),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

/// Appends a string as JSON.
fn quote(out: &mut String, text: &str) {
    if text.bytes().any(|b| b < 0x20 || matches!(b, b'"' | b'\\')) {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(key) => {
                let parsed: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = parsed
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                write!(f, "[{}]", parts.join(","))
            }
        }
    }
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    nodes: BTreeMap<PathElement, Branch>,
}

/// What a set holds at and below one element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Branch {
    /// The path that ends here is in the set.
    member: bool,
    below: FieldSet,
}

impl FieldSet {
    /// Whether no path is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Puts the path of this one element in.
    pub(crate) fn insert(&mut self, element: PathElement) {
        self.nodes.entry(element).or_default().member = true;
    }

    /// Puts paths below an element in.
    pub(crate) fn insert_below(&mut self, element: PathElement, below: Self) {
        if !below.is_empty() {
            self.nodes.entry(element).or_default().below = below;
        }
    }

    /// Whether the path of this one element is in it.
    #[must_use]
    pub fn has(&self, element: &PathElement) -> bool {
        self.nodes.get(element).is_some_and(|b| b.member)
    }

    /// What it holds below an element.
    #[must_use]
    pub fn below(&self, element: &PathElement) -> Option<&Self> {
        self.nodes
            .get(element)
            .map(|b| &b.below)
            .filter(|b| !b.is_empty())
    }

    /// The elements at this level.
    pub(crate) fn elements(&self) -> impl Iterator<Item = &PathElement> {
        self.nodes.keys()
    }

    /// Paths that are in either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }

    fn add(&mut self, other: &Self) {
        for (element, branch) in &other.nodes {
            let own = self.nodes.entry(element.clone()).or_default();
            own.member |= branch.member;
            own.below.add(&branch.below);
        }
    }

    /// Paths of this set that the other has not.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |own, others| own && !others, true)
    }

    /// Paths that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |own, others| own && others, false)
    }

    /// Whether one of its paths is in the set of this wire form.
    #[must_use]
    pub fn touches(&self, wire: &Value) -> bool {
        let Some(wire) = wire.as_object() else {
            return false;
        };
        self.nodes.iter().any(|(element, branch)| {
            let there = wire.get(&element.encode());
            let member = || {
                let map = there.and_then(Value::as_object);
                map.is_some_and(|map| map.is_empty() || map.contains_key("."))
            };
            (branch.member && member()) || there.is_some_and(|below| branch.below.touches(below))
        })
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool, alone: bool) -> Self {
        let mut out = Self::default();
        for (element, branch) in &self.nodes {
            let combined = match other.nodes.get(element) {
                Some(others) => Branch {
                    member: keep(branch.member, others.member),
                    below: branch.below.combine(&others.below, keep, alone),
                },
                None if alone => branch.clone(),
                None => continue,
            };
            if combined.member || !combined.below.is_empty() {
                out.nodes.insert(element.clone(), combined);
            }
        }
        out
    }

    /// Every path as text, such as `.spec.ports[name="http"].port`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        // The paths that end here come before longer ones.
        for (element, _) in self.nodes.iter().filter(|(_, branch)| branch.member) {
            out.push(format!("{prefix}{element}"));
        }
        for (element, branch) in &self.nodes {
            branch.below.collect(&format!("{prefix}{element}"), out);
        }
    }

    /// The wire form.
    #[must_use]
    pub fn to_fields_v1(&self) -> Value {
        let mut out = Map::new();
        for (element, branch) in &self.nodes {
            let mut below = branch.below.to_fields_v1();
            if branch.member
                && let Value::Object(map) = &mut below
                && !map.is_empty()
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            out.insert(element.encode(), below);
        }
        Value::Object(out)
    }

    /// From the wire form; `None` when it is none.
    #[must_use]
    pub fn from_fields_v1(value: &Value) -> Option<Self> {
        let mut out = Self::default();
        for (name, child) in value.as_object()? {
            if name == "." {
                continue;
            }
            let map = child.as_object()?;
            let branch = Branch {
                member: map.is_empty() || map.contains_key("."),
                below: Self::from_fields_v1(child)?,
            };
            out.nodes.insert(PathElement::decode(name)?, branch);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: &Value) -> FieldSet {
        FieldSet::from_fields_v1(value).unwrap()
    }

    #[test]
    fn goes_to_the_wire_and_back() {
        let wire = json!({"f:spec": {"f:ports": {".": {}, "k:{\"name\":\"http\"}": {".": {}, "f:port": {}}}, "f:tags": {"v:\"a\"": {}}}});
        assert_eq!(set(&wire).to_fields_v1(), wire);
        assert_eq!(
            set(&wire).paths(),
            [
                ".spec.ports",
                ".spec.ports[name=\"http\"]",
                ".spec.ports[name=\"http\"].port",
                ".spec.tags[=\"a\"]"
            ]
        );
        assert!(FieldSet::from_fields_v1(&json!({"x": {}})).is_none());
    }

    #[test]
    fn sets_combine() {
        let a = set(&json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(&json!({"f:a": {"f:b": {}}, "f:d": {}}));
        assert_eq!(a.difference(&b), set(&json!({"f:a": {}, "f:c": {}})));
        assert_eq!(a.intersection(&b), set(&json!({"f:a": {"f:b": {}}})));
        assert_eq!(a.difference(&b).union(&a.intersection(&b)), a);
    }
}
