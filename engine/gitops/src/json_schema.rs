//! JSON Schemas (draft 07, which editors' language servers take) of what a repository may hold, with the providers' settings.
//!
//! They say what loading says of fields, types and bounds. What is null is left out, so null is allowed everywhere. A document
//! that is built on others, or is only there to be built on, may leave out what is required. Rules in CEL have no equal here.

use fleetwright_api::{API_VERSION, names::MAX_NAME};
use fleetwright_core::catalogue::Catalogue;
use serde_json::{Map, Value, json};

use crate::load::{
    bases::{BASE, BASES},
    check::kind_schemas,
};

/// The kinds that have a schema.
pub const KINDS: [&str; 4] = [
    "Cluster",
    "MachineDeployment",
    "MachineDrainRule",
    "MachineHealthCheck",
];
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// The schema of the documents of a kind; `None` for kinds without one.
#[must_use]
pub fn of_kind(kind: &str, catalogue: &Catalogue) -> Option<Value> {
    let mut schema = document(kind, catalogue)?;
    schema
        .as_object_mut()?
        .insert("$schema".into(), DRAFT.into());
    Some(schema)
}

/// The schema of all documents that a repository may hold; kinds that have none of their own are not looked into.
#[must_use]
pub fn of_all(catalogue: &Catalogue) -> Value {
    let rules: Vec<Value> = KINDS
        .iter()
        .filter_map(|kind| {
            Some(json!({
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": document(kind, catalogue)?,
            }))
        })
        .collect();
    let kinds: Vec<&str> = KINDS
        .into_iter()
        .chain(["ConfigMap", "Namespace"])
        .collect();
    json!({
        "$schema": DRAFT,
        "title": "A document of a repository that Fleetwright follows",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"kind": {"enum": kinds}},
        "allOf": rules,
    })
}

fn document(kind: &str, catalogue: &Catalogue) -> Option<Value> {
    if !KINDS.contains(&kind) {
        return None;
    }
    let root = kind_schemas().get(kind)?;
    let spec = root.get("properties")?.get("spec")?;
    let texts = || json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}});
    let name = json!({
        "type": "string", "maxLength": MAX_NAME, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    });
    let described = |mut schema: Value, text: &str| {
        schema["description"] = text.into();
        schema
    };
    let built_on = json!({"anyOf": [
        {"required": [BASES]},
        {"required": [BASE], "properties": {BASE: {"const": true}}},
    ]});
    Some(json!({
        "title": kind,
        "description": root.get("description"),
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind"],
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": "Group and version of the kind."},
            "kind": {"const": kind, "description": "The kind of the document."},
            BASE: {"type": "boolean", "description": "The document is only there to be built on: it is never applied, needs no name, and may leave out what is required."},
            BASES: {
                "type": "array",
                "items": {"type": "string", "minLength": 1},
                "description": "Documents that this one is built on, from left to right: files of the same repository, as paths from here; #NAME names one of several.",
            },
            "metadata": {
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": {
                    "name": described(name.clone(), "Name of the object; a document never has it from its bases."),
                    "namespace": described(name, "Namespace of the object; default where it is left out."),
                    "labels": described(texts(), "Labels."),
                    "annotations": described(texts(), "Annotations."),
                },
            },
            "spec": open(spec, &settings(catalogue)),
        },
        "if": {"required": [BASE], "properties": {BASE: {"const": true}}},
        "else": {"required": ["metadata"], "properties": {"metadata": {"type": "object", "required": ["name"]}}},
        "allOf": [{"if": built_on, "else": required(root, &needed(catalogue))}],
    }))
}

/// The settings of providers, by their kinds.
fn settings(catalogue: &Catalogue) -> Vec<Value> {
    let heads = ["apiVersion", "kind", "account"];
    let rule = |(version, kind, schema): (&str, &str, &Value)| {
        let mut then = open(schema, &[]);
        if let Some(properties) = then.get_mut("properties").and_then(Value::as_object_mut) {
            for head in heads {
                properties
                    .entry(head)
                    .or_insert_with(|| json!({"type": "string"}));
            }
        }
        json!({"if": of_settings(version, kind), "then": then})
    };
    catalogue.kinds().map(rule).collect()
}

/// What settings need.
fn needed(catalogue: &Catalogue) -> Vec<Value> {
    let rule = |(version, kind, schema): (&str, &str, &Value)| json!({"if": of_settings(version, kind), "then": required(schema, &[])});
    catalogue.kinds().map(rule).collect()
}

fn of_settings(version: &str, kind: &str) -> Value {
    json!({
        "required": ["kind"],
        "properties": {"kind": {"const": kind}, "apiVersion": {"const": version}},
    })
}

/// What may stand in a value: as its schema says, without what is required. `settings` hold for a `providerConfig` in it.
fn open(schema: &Value, settings: &[Value]) -> Value {
    let mut out = Map::new();
    for field in [
        "description",
        "default",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "multipleOf",
        "uniqueItems",
    ] {
        if let Some(value) = schema.get(field) {
            out.insert(field.into(), value.clone());
        }
    }
    let is = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    for (exclusive, bound) in [
        ("exclusiveMinimum", "minimum"),
        ("exclusiveMaximum", "maximum"),
    ] {
        if is(exclusive)
            && let Some(value) = out.remove(bound)
        {
            out.insert(exclusive.into(), value);
        }
    }
    if is("x-kubernetes-int-or-string") {
        out.insert("type".into(), json!(["integer", "string", "null"]));
    } else if let Some(kind) = schema.get("type") {
        out.insert("type".into(), json!([kind, "null"]));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        let mut allowed = allowed.clone();
        if !allowed.contains(&Value::Null) {
            allowed.push(Value::Null);
        }
        out.insert("enum".into(), allowed.into());
    }
    if schema.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("set") {
        out.insert("uniqueItems".into(), true.into());
    }
    if let Some(items) = schema.get("items") {
        out.insert("items".into(), open(items, settings));
    }
    if let Some(others) = schema.get("additionalProperties").filter(|o| o.is_object()) {
        out.insert("additionalProperties".into(), open(others, settings));
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let one = |(name, below): (&String, &Value)| {
            let mut value = open(below, settings);
            if name == "providerConfig" {
                value["allOf"] = settings.into();
                let kinds = settings
                    .iter()
                    .filter_map(|rule| rule.pointer("/if/properties/kind/const"));
                value["properties"]["kind"]["enum"] = kinds.cloned().collect();
            }
            (name.clone(), value)
        };
        out.insert(
            "properties".into(),
            properties.iter().map(one).collect::<Map<_, _>>().into(),
        );
        let kept = is("x-kubernetes-preserve-unknown-fields") || is("additionalProperties");
        if !kept && !out.contains_key("additionalProperties") {
            out.insert("additionalProperties".into(), false.into());
        }
    }
    out.into()
}

/// What is required of a value and of all that is in it, and nothing else.
fn required(schema: &Value, settings: &[Value]) -> Value {
    let mut out = Map::new();
    if let Some(names) = schema.get("required") {
        out.insert("required".into(), names.clone());
    }
    if let Some(items) = schema.get("items").map(|items| required(items, settings)) {
        out.insert("items".into(), items);
    }
    let others = schema.get("additionalProperties").filter(|o| o.is_object());
    if let Some(others) = others.map(|others| required(others, settings)) {
        out.insert("additionalProperties".into(), others);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let one = |(name, below): (&String, &Value)| {
        let mut value = required(below, settings);
        if name == "providerConfig" {
            value["allOf"] = settings.into();
        }
        let says = value.as_object().is_some_and(|map| !map.is_empty());
        says.then(|| (name.clone(), value))
    };
    let properties: Map<String, Value> = properties.into_iter().flatten().filter_map(one).collect();
    if !properties.is_empty() {
        out.insert("properties".into(), properties.into());
    }
    out.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    out.into()
}

#[cfg(test)]
mod tests;
