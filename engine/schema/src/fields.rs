//! Sets of field paths, and their wire form `FieldsV1`.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

/// One step of a path, in its wire form: `f:` a field, `k:` an item of a map list by its keys (JSON with sorted names),
/// `v:` an item of a set list by its value (JSON), `i:` an item by its position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathElement(String);

impl Borrow<str> for PathElement {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PathElement {
    /// A field of an object.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self(["f:", name].concat())
    }

    /// An item of a set list, by its value.
    pub(crate) fn value(value: &Value) -> Self {
        let mut text = String::from("v:");
        json(&mut text, value);
        Self(text)
    }

    /// The element of an item with these key values.
    pub(crate) fn key<'a>(values: impl Iterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut values: Vec<(&str, &Value)> = values.collect();
        values.sort_by_key(|(name, _)| *name);
        let mut text = String::from("k:{");
        for (n, (name, value)) in values.into_iter().enumerate() {
            if n > 0 {
                text.push(',');
            }
            quote(&mut text, name);
            text.push(':');
            json(&mut text, value);
        }
        text.push('}');
        Self(text)
    }

    /// The name of the field that it is.
    pub(crate) fn as_field(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    /// Reads a wire form, which others may have written with other spaces or another order.
    fn decode(text: &str) -> Option<Self> {
        let (tag, rest) = text.split_once(':')?;
        match tag {
            "f" => Some(Self(text.to_owned())),
            "k" => {
                let parsed: Map<String, Value> = serde_json::from_str(rest).ok()?;
                Some(Self::key(
                    parsed.iter().map(|(name, value)| (name.as_str(), value)),
                ))
            }
            "v" => Some(Self::value(&serde_json::from_str(rest).ok()?)),
            "i" => rest.parse::<u64>().ok().map(|i| Self(format!("i:{i}"))),
            _ => None,
        }
    }
}

/// Appends a value as JSON.
fn json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => quote(out, text),
        value => out.push_str(&value.to_string()),
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
        match self.0.split_once(':') {
            Some(("f", name)) => write!(f, ".{name}"),
            Some(("v", value)) => write!(f, "[={value}]"),
            Some(("k", key)) => {
                let parsed: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = parsed
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                write!(f, "[{}]", parts.join(","))
            }
            _ => write!(f, "[{}]", self.0.trim_start_matches("i:")),
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

    /// Puts the path of an element in, if it is a `member`, and those below it.
    pub(crate) fn put(&mut self, element: PathElement, member: bool, below: Self) {
        if member || !below.is_empty() {
            self.nodes.insert(element, Branch { member, below });
        }
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

    /// How many paths it has.
    fn count(&self) -> usize {
        let at = |branch: &Branch| usize::from(branch.member) + branch.below.count();
        self.nodes.values().map(at).sum()
    }

    /// How much of it is in the set of this wire form, which is only walked through.
    #[must_use]
    pub fn overlap(&self, wire: &RawValue) -> Overlap {
        let found = Wire(self).deserialize(wire).unwrap_or_default().paths;
        Overlap {
            any: found > 0,
            all: found == self.count(),
        }
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

    /// From the wire form; `None` when it is none.
    #[must_use]
    pub fn from_fields_v1(value: &Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }
}

/// How much of a set another holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// At least one path.
    pub any: bool,
    /// Every path.
    pub all: bool,
}

impl Serialize for FieldSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (element, branch) in &self.nodes {
            map.serialize_entry(&element.0, branch)?;
        }
        map.end()
    }
}

impl Serialize for Branch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.member && !self.below.is_empty() {
            map.serialize_entry(".", &EMPTY)?;
        }
        for (element, branch) in &self.below.nodes {
            map.serialize_entry(&element.0, branch)?;
        }
        map.end()
    }
}

const EMPTY: BTreeMap<(), ()> = BTreeMap::new();

impl<'de> Deserialize<'de> for FieldSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Branch::deserialize(deserializer)?.below)
    }
}

impl<'de> Deserialize<'de> for Branch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReadBranch)
    }
}

struct ReadBranch;

impl<'de> Visitor<'de> for ReadBranch {
    type Value = Branch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Branch, A::Error> {
        let mut out = Branch::default();
        let mut entries = 0;
        while let Some(element) = map.next_key_seed(Step(PathElement::decode))? {
            entries += 1;
            match element {
                None => {
                    map.next_value::<IgnoredAny>()?;
                    out.member = true;
                }
                Some(None) => return Err(A::Error::custom("no element of a path")),
                Some(Some(element)) => {
                    let below = map.next_value()?;
                    out.below.nodes.insert(element, below);
                }
            }
        }
        out.member |= entries == 0;
        Ok(out)
    }
}

/// Reads a key: `None` for the `.` that stands for the path itself, else what is made of it.
struct Step<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Step<F> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, T, F: FnOnce(&str) -> T> Visitor<'de> for Step<F> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an element of a path")
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<T>, E> {
        Ok((text != ".").then(|| (self.0)(text)))
    }
}

/// Finds the paths of a set in a wire form.
struct Wire<'a>(&'a FieldSet);

/// What was found at one element.
#[derive(Default)]
struct Found {
    /// The path that ends here.
    member: bool,
    /// How many paths of the set below.
    paths: usize,
}

impl<'de> DeserializeSeed<'de> for Wire<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wire<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        let mut entries = 0;
        while let Some(branch) = map.next_key_seed(Step(|text: &str| self.0.nodes.get(text)))? {
            entries += 1;
            let Some(Some(branch)) = branch else {
                found.member |= branch.is_none();
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let below = map.next_value_seed(Wire(&branch.below))?;
            found.paths += below.paths + usize::from(branch.member && below.member);
        }
        found.member |= entries == 0;
        Ok(found)
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
        assert_eq!(serde_json::to_value(set(&wire)).unwrap(), wire);
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

    #[test]
    fn a_wire_form_is_searched_without_being_read() {
        let wire =
            json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"k:{\"n\":\"x\"}": {".": {}, "f:n": {}}}});
        let wire = serde_json::value::to_raw_value(&wire).unwrap();
        for (paths, any, all) in [
            (json!({"f:a": {}}), true, true),
            (json!({"f:a": {"f:b": {}}}), true, true),
            (json!({"f:a": {"f:b": {}, "f:x": {}}}), true, false),
            (json!({"f:c": {}}), false, false),
            (json!({"f:c": {"k:{\"n\":\"x\"}": {}}}), true, true),
            (json!({"f:c": {"k:{\"n\":\"y\"}": {}}}), false, false),
            (json!({}), false, true),
        ] {
            assert_eq!(set(&paths).overlap(&wire), Overlap { any, all }, "{paths}");
        }
    }
}
