//! Checks of a located tree against OpenAPI schemas: fields, types, enums, bounds and patterns.
//!
//! CEL rules of our kinds are evaluated by the API server; its refusal changes nothing either. Those of providers are evaluated here: to the
//! API server a `providerConfig` is any object.

use std::{collections::BTreeMap, sync::LazyLock};

use fleetwright_schema::{Schema, default, validate};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::yaml::{Content, Node, Place};

/// A mistake and where it is.
pub type Found = (Place, String);

/// How much of a document there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All that is required.
    Whole,
    /// Required fields may be missing: it is there to be built on.
    Part,
}

/// The `openAPIV3Schema` of each of our kinds, by kind.
pub fn kind_schemas() -> &'static BTreeMap<String, Value> {
    static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(read_schemas);
    &SCHEMAS
}

fn read_schemas() -> BTreeMap<String, Value> {
    let mut schemas = BTreeMap::new();
    for crd in fleetwright_api::crds::all() {
        let schema = crd.spec.versions.first().and_then(|v| v.schema.as_ref());
        if let Some(root) = schema.and_then(|s| s.open_api_v3_schema.as_ref())
            && let Ok(value) = serde_json::to_value(root)
        {
            schemas.insert(crd.spec.names.kind, value);
        }
    }
    schemas
}

/// Checks trees against schemas, and gathers what is wrong with them.
#[derive(Default)]
pub struct Checker {
    /// Patterns of schemas, compiled once.
    patterns: BTreeMap<String, Option<Regex>>,
    found: Vec<Found>,
}

impl Checker {
    /// What is wrong with a whole object; `apiVersion`, `kind` and `metadata` are not the schema's.
    pub fn object(&mut self, node: &Node, schema: &Value, extent: Extent) -> Vec<Found> {
        self.walk(node, schema, "", extent, true);
        std::mem::take(&mut self.found)
    }

    /// What is wrong with a `providerConfig`; `apiVersion`, `kind` and `account` need not be in the provider's schema.
    pub fn provider(&mut self, node: &Node, schema: &Value, extent: Extent) -> Vec<Found> {
        self.walk(node, schema, "providerConfig", extent, true);
        std::mem::take(&mut self.found)
    }

    fn walk(&mut self, node: &Node, schema: &Value, path: &str, extent: Extent, root: bool) {
        if node.is_null() && !root {
            return;
        }
        let here = if path.is_empty() {
            "the document"
        } else {
            path
        };
        if let Some(wanted) = wrong_type(node, schema) {
            self.found
                .push((node.place, format!("{here} must be {wanted}")));
            return;
        }
        match &node.content {
            Content::Map(entries) => {
                let required = schema.get("required").and_then(Value::as_array);
                let required = required.filter(|_| extent == Extent::Whole);
                for name in required.into_iter().flatten() {
                    if let Some(name) = name.as_str()
                        && node.get(name).is_none_or(Node::is_null)
                    {
                        self.found
                            .push((node.place, format!("{} is missing", join(path, name))));
                    }
                }
                let keep =
                    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
                let properties = schema.get("properties").and_then(Value::as_object);
                let others = schema.get("additionalProperties");
                for (key, place, child) in entries {
                    let known = properties
                        .and_then(|p| p.get(key))
                        .or(others.filter(|o| o.is_object()));
                    match known {
                        Some(child_schema) => {
                            self.walk(child, child_schema, &join(path, key), extent, false);
                        }
                        None if root
                            && ["apiVersion", "kind", "metadata", "status", "account"]
                                .contains(&key.as_str()) => {}
                        None if keep || others == Some(&Value::Bool(true)) => {}
                        None if properties.is_none() => {}
                        None => {
                            let names = properties.into_iter().flat_map(|p| p.keys());
                            self.found
                                .push((*place, unknown(&join(path, key), key, names)));
                        }
                    }
                }
            }
            Content::List(items) => {
                let names = ["minItems", "maxItems"];
                self.bound(node.place, here, items.len() as f64, schema, names, "items");
                if let Some(item_schema) = schema.get("items") {
                    for (at, item) in items.iter().enumerate() {
                        let path = format!("{path}[{at}]");
                        self.walk(item, item_schema, &path, extent, false);
                    }
                }
            }
            Content::Scalar(value) => self.scalar(node.place, value, schema, here),
        }
    }

    fn scalar(&mut self, place: Place, value: &Value, schema: &Value, path: &str) {
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            let names: Vec<String> = allowed
                .iter()
                .filter(|v| !v.is_null())
                .map(Value::to_string)
                .collect();
            self.found.push((
                place,
                format!("{path} is {value}: it must be one of {}", names.join(", ")),
            ));
        }
        if let Some(number) = value.as_f64() {
            self.bound(place, path, number, schema, ["minimum", "maximum"], "");
        }
        if let Some(text) = value.as_str() {
            let length = text.chars().count() as f64;
            let names = ["minLength", "maxLength"];
            self.bound(place, path, length, schema, names, "characters");
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !self.matches(pattern, text)
            {
                let what = meaning(schema).map_or_else(String::new, |what| format!(" ({what})"));
                let message = format!("{path} is {value}: it must match {pattern}{what}");
                self.found.push((place, message));
            }
        }
    }

    /// Whether a text matches a schema's pattern; a pattern that is none refuses nothing.
    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        if !self.patterns.contains_key(pattern) {
            let built = RegexBuilder::new(pattern).size_limit(1 << 20).build();
            self.patterns.insert(pattern.to_owned(), built.ok());
        }
        let known = self.patterns.get(pattern).and_then(Option::as_ref);
        known.is_none_or(|regex| regex.is_match(text))
    }

    fn bound(
        &mut self,
        place: Place,
        path: &str,
        have: f64,
        schema: &Value,
        names: [&str; 2],
        unit: &str,
    ) {
        let limit = |name| schema.get(name).and_then(Value::as_f64);
        if let Some(least) = limit(names[0]).filter(|least| have < *least) {
            self.found.push((
                place,
                format!("{path} must be at least {least} {unit}")
                    .trim_end()
                    .to_owned(),
            ));
        }
        if let Some(most) = limit(names[1]).filter(|most| have > *most) {
            self.found.push((
                place,
                format!("{path} must be at most {most} {unit}")
                    .trim_end()
                    .to_owned(),
            ));
        }
    }
}

/// What a provider refuses of settings in which [`Checker::provider`] finds nothing wrong: what breaks its rules.
pub fn refused_by_provider(node: &Node, schema: &Schema) -> Vec<Found> {
    let mut settings = node.to_value();
    default::apply(schema, &mut settings);
    let errors = validate::validate(schema, &settings, None).into_iter();
    let found = errors.map(|error| match error.field.as_str() {
        "" | "<nil>" => (node.place, format!("providerConfig: {}", error.message)),
        field => (node.place_of(field), format!("providerConfig.{error}")),
    });
    found.collect()
}

/// The first sentence of a field's description: it says what to write.
fn meaning(schema: &Value) -> Option<String> {
    let description = schema.get("description")?.as_str()?.replace('\n', " ");
    let sentence = description.split(". ").next()?.trim_end_matches('.');
    Some(sentence.to_owned()).filter(|sentence| !sentence.is_empty())
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn unknown<'a>(path: &str, key: &str, names: impl Iterator<Item = &'a String>) -> String {
    let near = names
        .filter(|n| n.eq_ignore_ascii_case(key) || distance(n, key) <= 2)
        .min_by_key(|n| distance(n, key));
    match near {
        Some(near) => format!("unknown field {path}: did you mean {near}?"),
        None => format!("unknown field {path}"),
    }
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

fn wrong_type(node: &Node, schema: &Value) -> Option<&'static str> {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        let fits = matches!(&node.content, Content::Scalar(v) if v.is_string() || v.is_i64() || v.is_u64());
        return (!fits).then_some("a whole number or a text");
    }
    let (fits, wanted) = match (schema.get("type").and_then(Value::as_str)?, &node.content) {
        ("object", content) => (matches!(content, Content::Map(_)), "an object"),
        ("array", content) => (matches!(content, Content::List(_)), "a list"),
        ("string", Content::Scalar(v)) => (v.is_string(), "a text: put it in quotes"),
        ("string", _) => (false, "a text"),
        ("boolean", Content::Scalar(v)) => (v.is_boolean(), "true or false"),
        ("boolean", _) => (false, "true or false"),
        ("integer", Content::Scalar(v)) => (v.is_i64() || v.is_u64(), "a whole number"),
        ("integer", _) => (false, "a whole number"),
        ("number", Content::Scalar(v)) => (v.is_number(), "a number"),
        ("number", _) => (false, "a number"),
        _ => return None,
    };
    (!fits).then_some(wanted)
}
