//! Checks of a located tree against OpenAPI schemas: fields, types, enums, bounds and patterns.
//!
//! CEL rules are evaluated by the API server; its refusal changes nothing either.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use crate::yaml::{Content, Node, Place};

/// A mistake and where it is.
pub type Found = (Place, String);

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

/// Checks a whole object; `apiVersion`, `kind` and `metadata` are not the schema's.
pub fn object(node: &Node, schema: &Value, found: &mut Vec<Found>) {
    walk(node, schema, "", true, found);
}

/// Checks a `providerConfig`; `apiVersion`, `kind` and `account` need not be in the provider's schema.
pub fn provider(node: &Node, schema: &Value, found: &mut Vec<Found>) {
    walk(node, schema, "providerConfig", true, found);
}

fn walk(node: &Node, schema: &Value, path: &str, root: bool, found: &mut Vec<Found>) {
    if node.is_null() && !root {
        return;
    }
    let here = if path.is_empty() {
        "the document"
    } else {
        path
    };
    if let Some(wanted) = wrong_type(node, schema) {
        found.push((node.place, format!("{here} must be {wanted}")));
        return;
    }
    match &node.content {
        Content::Map(entries) => {
            for name in schema
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if let Some(name) = name.as_str()
                    && node.get(name).is_none_or(Node::is_null)
                {
                    found.push((node.place, format!("{} is missing", join(path, name))));
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
                    Some(child_schema) => walk(child, child_schema, &join(path, key), false, found),
                    None if root
                        && ["apiVersion", "kind", "metadata", "status", "account"]
                            .contains(&key.as_str()) => {}
                    None if keep || others == Some(&Value::Bool(true)) => {}
                    None if properties.is_none() => {}
                    None => {
                        let names = properties.into_iter().flat_map(|p| p.keys());
                        found.push((*place, unknown(&join(path, key), key, names)));
                    }
                }
            }
        }
        Content::List(items) => {
            bound(
                node.place,
                here,
                items.len() as f64,
                schema,
                ["minItems", "maxItems"],
                "items",
                found,
            );
            if let Some(item_schema) = schema.get("items") {
                for (at, item) in items.iter().enumerate() {
                    walk(item, item_schema, &format!("{path}[{at}]"), false, found);
                }
            }
        }
        Content::Scalar(value) => scalar(node.place, value, schema, here, found),
    }
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

fn scalar(place: Place, value: &Value, schema: &Value, path: &str, found: &mut Vec<Found>) {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names: Vec<String> = allowed
            .iter()
            .filter(|v| !v.is_null())
            .map(Value::to_string)
            .collect();
        found.push((
            place,
            format!("{path} is {value}: it must be one of {}", names.join(", ")),
        ));
    }
    if let Some(number) = value.as_f64() {
        bound(
            place,
            path,
            number,
            schema,
            ["minimum", "maximum"],
            "",
            found,
        );
    }
    if let Some(text) = value.as_str() {
        bound(
            place,
            path,
            text.chars().count() as f64,
            schema,
            ["minLength", "maxLength"],
            "characters",
            found,
        );
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && let Ok(regex) = regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
            && !regex.is_match(text)
        {
            found.push((place, format!("{path} is {value}: it must match {pattern}")));
        }
    }
}

fn bound(
    place: Place,
    path: &str,
    have: f64,
    schema: &Value,
    names: [&str; 2],
    unit: &str,
    found: &mut Vec<Found>,
) {
    let limit = |name| schema.get(name).and_then(Value::as_f64);
    if let Some(least) = limit(names[0]).filter(|least| have < *least) {
        found.push((
            place,
            format!("{path} must be at least {least} {unit}")
                .trim_end()
                .to_owned(),
        ));
    }
    if let Some(most) = limit(names[1]).filter(|most| have > *most) {
        found.push((
            place,
            format!("{path} must be at most {most} {unit}")
                .trim_end()
                .to_owned(),
        ));
    }
}
