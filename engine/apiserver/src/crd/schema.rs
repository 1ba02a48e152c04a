//! What is wrong with the schema of a custom kind, in the words of the API server.

use fleetwright_schema::{Schema, prune, validate};
use serde_json::{Map, Value, json};

use super::check::{forbidden, invalid, not_supported, required, text};
use crate::error::Cause;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// How deep a schema is looked at; deeper ones are refused when they are compiled.
const DEPTH: usize = 64;

/// What a schema stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Root,
    Field,
    Item,
    /// In `allOf`, `anyOf`, `oneOf` or `not`.
    Junctor,
    /// The same, of what is a number or a text.
    IntOrString,
}

/// All faults of a schema that stands at `path`.
pub(super) fn faults(schema: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    node(schema, path, Role::Root, 0, &mut causes);
    causes
}

fn flag(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_some_and(|value| value == true)
}

fn word<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).map_or("", text)
}

fn node(schema: &Value, at: &str, role: Role, depth: usize, out: &mut Vec<Cause>) {
    let Some(map) = schema.as_object().filter(|_| depth <= DEPTH) else {
        return;
    };
    let kind = word(map, "type");
    let has = |key: &str| map.get(key).is_some_and(|value| !value.is_null());
    if has("$ref") {
        out.push(forbidden(format!("{at}.$ref"), "$ref is not supported"));
    }
    for key in ["definitions", "dependencies", "id", "additionalItems"] {
        if has(key) {
            out.push(forbidden(
                format!("{at}.{key}"),
                &format!("{key} is not supported"),
            ));
        }
    }
    let patterns = map.get("patternProperties").and_then(Value::as_object);
    if patterns.is_some_and(|map| !map.is_empty()) {
        let field = format!("{at}.patternProperties");
        out.push(forbidden(field, "patternProperties is not supported"));
    }
    if flag(map, "uniqueItems") {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        out.push(forbidden(format!("{at}.uniqueItems"), why));
    }
    match role {
        Role::Junctor | Role::IntOrString => junctor(map, at, role, out),
        _ => outer(map, at, role, out),
    }
    if !kind.is_empty() && !TYPES.contains(&kind) {
        out.push(not_supported(format!("{at}.type"), kind, &TYPES));
    }
    let properties = map.get("properties").and_then(Value::as_object);
    let additional = map.get("additionalProperties").filter(|a| a.is_object());
    if additional.is_some() && properties.is_some_and(|p| !p.is_empty()) {
        let why = "additionalProperties and properties are mutual exclusive";
        out.push(forbidden(format!("{at}.additionalProperties"), why));
    }
    merging(map, at, out);
    let rules = map
        .get("x-kubernetes-validations")
        .and_then(Value::as_array);
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        let path = text(&rule["fieldPath"]);
        let plain = path.starts_with('.') && !path.contains('[');
        let found =
            path.split('.')
                .skip(1)
                .fold(schema, |node, name| match &node["properties"][name] {
                    Value::Null => &node["additionalProperties"],
                    found => found,
                });
        if plain && !found.is_object() {
            let field = format!("{at}.x-kubernetes-validations[{i}].fieldPath");
            out.push(invalid(field, path.into(), "must be a valid path"));
        }
    }
    let inside = matches!(role, Role::Junctor | Role::IntOrString);
    let (field, item) = if inside {
        (Role::Junctor, Role::Junctor)
    } else {
        (Role::Field, Role::Item)
    };
    for (name, child) in properties.into_iter().flatten() {
        node(
            child,
            &format!("{at}.properties[{name}]"),
            field,
            depth + 1,
            out,
        );
    }
    if let Some(child) = additional {
        node(
            child,
            &format!("{at}.additionalProperties"),
            field,
            depth + 1,
            out,
        );
    }
    match map.get("items") {
        Some(child @ Value::Object(_)) => {
            node(child, &format!("{at}.items"), item, depth + 1, out);
        }
        _ if kind == "array" && !inside => {
            out.push(required(format!("{at}.items"), "must be specified"));
        }
        _ => {}
    }
    let junctor = if flag(map, "x-kubernetes-int-or-string") {
        Role::IntOrString
    } else {
        Role::Junctor
    };
    for key in ["allOf", "anyOf", "oneOf"] {
        let list = map.get(key).and_then(Value::as_array).into_iter().flatten();
        for (i, child) in list.enumerate() {
            node(child, &format!("{at}.{key}[{i}]"), junctor, depth + 1, out);
        }
    }
    if let Some(child) = map.get("not") {
        node(child, &format!("{at}.not"), junctor, depth + 1, out);
    }
}

/// What a schema that is no part of a junctor must say.
fn outer(map: &Map<String, Value>, at: &str, role: Role, out: &mut Vec<Cause>) {
    let kind = word(map, "type");
    let open = flag(map, "x-kubernetes-preserve-unknown-fields");
    let free = flag(map, "x-kubernetes-int-or-string") || open || map.contains_key("$ref");
    let field = format!("{at}.type");
    match role {
        Role::Root if kind.is_empty() => {
            out.push(required(field, "must not be empty at the root"));
        }
        Role::Root if kind != "object" => {
            out.push(invalid(field, kind.into(), "must be object at the root"));
        }
        Role::Field if kind.is_empty() && !free => {
            out.push(required(
                field,
                "must not be empty for specified object fields",
            ));
        }
        Role::Item if kind.is_empty() && !free => {
            out.push(required(
                field,
                "must not be empty for specified array items",
            ));
        }
        _ => {}
    }
    if role == Role::Root || flag(map, "x-kubernetes-embedded-resource") {
        resource(map, at, out);
    }
    if flag(map, "x-kubernetes-embedded-resource") {
        if kind != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            out.push(invalid(format!("{at}.type"), kind.into(), why));
        }
        let none = map.get("properties").and_then(Value::as_object);
        if none.is_none_or(Map::is_empty) && !open {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            out.push(required(format!("{at}.properties"), why));
        }
    }
    if let Some(default) = map.get("default").filter(|d| !d.is_null()) {
        check_default(map, default, at, out);
    }
}

/// What the schema of an object may say of the fields that every object has.
fn resource(map: &Map<String, Value>, at: &str, out: &mut Vec<Cause>) {
    let Some(properties) = map.get("properties").and_then(Value::as_object) else {
        return;
    };
    for name in ["apiVersion", "kind"] {
        let kind = properties.get(name).map_or("", |p| text(&p["type"]));
        if !matches!(kind, "" | "string") {
            let field = format!("{at}.properties[{name}].type");
            out.push(invalid(field, kind.into(), "must be string"));
        }
    }
    let Some(metadata) = properties.get("metadata").and_then(Value::as_object) else {
        return;
    };
    let kind = word(metadata, "type");
    if !matches!(kind, "" | "object") {
        let field = format!("{at}.properties[metadata].type");
        out.push(invalid(field, kind.into(), "must be object"));
    }
    let said = metadata
        .keys()
        .any(|key| !matches!(key.as_str(), "type" | "description" | "properties"));
    let others = metadata
        .get("properties")
        .and_then(Value::as_object)
        .is_some_and(|p| {
            p.keys()
                .any(|key| !matches!(key.as_str(), "name" | "generateName"))
        });
    if said || others {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        out.push(forbidden(format!("{at}.properties[metadata]"), why));
    }
}

/// What a schema inside a junctor may not say.
fn junctor(map: &Map<String, Value>, at: &str, role: Role, out: &mut Vec<Cause>) {
    for key in ["type", "description", "title"] {
        let shown = word(map, key);
        let pair = role == Role::IntOrString && matches!(shown, "integer" | "string");
        if !shown.is_empty() && !pair {
            out.push(forbidden(
                format!("{at}.{key}"),
                "must be empty to be structural",
            ));
        }
    }
    for key in ["default", "additionalProperties"] {
        if map.get(key).is_some_and(|value| !value.is_null()) {
            let why = "must be undefined to be structural";
            out.push(forbidden(format!("{at}.{key}"), why));
        }
    }
    for key in [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if flag(map, key) {
            let why = "must be false to be structural";
            out.push(forbidden(format!("{at}.{key}"), why));
        }
    }
}

/// How lists and maps are merged.
fn merging(map: &Map<String, Value>, at: &str, out: &mut Vec<Cause>) {
    let kind = word(map, "type");
    match word(map, "x-kubernetes-map-type") {
        "" => {}
        "atomic" | "granular" => {
            if kind != "object" {
                let why = "must be object if x-kubernetes-map-type is specified";
                out.push(invalid(format!("{at}.type"), kind.into(), why));
            }
        }
        other => {
            let field = format!("{at}.x-kubernetes-map-type");
            out.push(not_supported(field, other, &["atomic", "granular"]));
        }
    }
    let list = word(map, "x-kubernetes-list-type");
    if list.is_empty() {
        return;
    }
    if !matches!(list, "atomic" | "set" | "map") {
        let field = format!("{at}.x-kubernetes-list-type");
        out.push(not_supported(field, list, &["atomic", "set", "map"]));
        return;
    }
    if kind != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        out.push(invalid(format!("{at}.type"), kind.into(), why));
    }
    if list == "map" {
        keys(map, at, out);
    }
}

/// The keys of a list of type map.
fn keys(map: &Map<String, Value>, at: &str, out: &mut Vec<Cause>) {
    let shown = map
        .get("x-kubernetes-list-map-keys")
        .cloned()
        .unwrap_or_default();
    let keys = crate::object::strings(&shown);
    let field = format!("{at}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        out.push(required(&field, why));
    }
    let items = map.get("items").cloned().unwrap_or_default();
    let kind = text(&items["type"]);
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        out.push(invalid(format!("{at}.items.type"), kind.into(), why));
        return;
    }
    let known = |key: &String| items["properties"].get(key).is_some();
    if !keys.iter().all(known) {
        let why = "entries must all be names of item properties";
        out.push(invalid(field, shown, why));
        return;
    }
    let needed = crate::object::strings(&items["required"]);
    for key in keys {
        let property = &items["properties"][&key];
        let field = format!("{at}.items.properties[{key}]");
        if property["default"].is_null() && !needed.contains(&key) {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            out.push(required(format!("{field}.default"), why));
        }
        if property["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            out.push(forbidden(format!("{field}.nullable"), why));
        }
    }
}

/// A default must be a value of its own schema.
fn check_default(map: &Map<String, Value>, default: &Value, at: &str, out: &mut Vec<Cause>) {
    let mut own = map.clone();
    own.remove("default");
    let around = json!({"type": "object", "properties": {"d": own}});
    let Ok(schema) = Schema::from_openapi(&around) else {
        return;
    };
    let mut value = json!({ "d": default });
    if !prune::prune(&schema, &mut value).is_empty() {
        let why = "must not have unknown fields";
        out.push(invalid(format!("{at}.default"), default.clone(), why));
        return;
    }
    for error in validate::values(&schema, &value, None) {
        let rest = error.field.strip_prefix('d').unwrap_or_default();
        let named = format!("{} in body", error.field);
        let shown = format!("{} in body", rest.trim_start_matches('.'));
        let message = error.message.replacen(&named, &shown, 1);
        out.push(Cause::new(
            error.reason.as_str(),
            format!("{at}.default{rest}"),
            message,
        ));
    }
}
