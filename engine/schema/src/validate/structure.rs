//! Lists that are sets or maps, and embedded resources.

use super::correlate::canonical;
use crate::error::FieldError;
use crate::structural::{Additional, ListType, Node};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(super) fn check(schema: &Node, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = faults(schema, value, &embedded);
    let repeated = faults(schema, value, &list);
    if repeated.is_empty() || old.is_none_or(|old| faults(schema, old, &list).is_empty()) {
        errors.extend(repeated);
    }
    errors
}

fn faults(schema: &Node, value: &Value, check: &Check) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, value, &mut String::new(), &mut errors, check);
    errors
}

type Check = dyn Fn(&Node, &Value, &str, &mut Vec<FieldError>);

fn walk(
    schema: &Node,
    value: &Value,
    path: &mut String,
    errors: &mut Vec<FieldError>,
    check: &Check,
) {
    check(schema, value, path, errors);
    let len = path.len();
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                let node = match (schema.properties.get(name), &schema.additional) {
                    (Some(node), _) => {
                        if len > 0 {
                            path.push('.');
                        }
                        path.push_str(name);
                        node
                    }
                    (None, Some(Additional::Node(node))) => {
                        path.push('[');
                        path.push_str(name);
                        path.push(']');
                        node.as_ref()
                    }
                    _ => continue,
                };
                walk(node, child, path, errors, check);
                path.truncate(len);
            }
        }
        Value::Array(items) => {
            let Some(node) = &schema.items else { return };
            for (i, item) in items.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                walk(node, item, path, errors, check);
                path.truncate(len);
            }
        }
        _ => {}
    }
}

fn embedded(schema: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !schema.embedded_resource {
        return;
    }
    let Value::Object(map) = value else { return };
    for name in ["apiVersion", "kind"] {
        let field = format!("{path}.{name}");
        match map.get(name) {
            None => errors.push(FieldError::required(field, "")),
            Some(Value::String(s)) if s.is_empty() => {
                errors.push(FieldError::invalid(
                    field,
                    &Value::from(""),
                    "must not be empty",
                ));
            }
            Some(Value::String(_)) => {}
            Some(other) => {
                errors.push(FieldError::type_invalid(field, other, "must be a string"));
            }
        }
    }
    if let Some(other) = map.get("metadata").filter(|m| !m.is_object()) {
        errors.push(FieldError::type_invalid(
            format!("{path}.metadata"),
            other,
            "must be an object",
        ));
    }
}

fn list(schema: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Value::Array(items) = value else { return };
    match &schema.list_type {
        ListType::Atomic => {}
        ListType::Set => {
            for i in repeated(items.iter()) {
                errors.push(FieldError::duplicate(format!("{path}[{i}]"), &items[i]));
            }
        }
        ListType::Map(keys) => {
            if let Some((i, item)) = items
                .iter()
                .enumerate()
                .find(|(_, item)| !item.is_object() && !item.is_null())
            {
                errors.push(FieldError::invalid(
                    format!("{path}[{i}]"),
                    item,
                    "must be an object for an array of list-type map",
                ));
                return;
            }
            let text = |item: &Value| {
                let mut text = String::new();
                for name in keys {
                    if let Some(found) = item.get(name) {
                        canonical(found, &mut text);
                    }
                    text.push(',');
                }
                text
            };
            for i in repeated_texts(items.iter().map(text)) {
                let key = key_of(keys, &items[i]);
                errors.push(FieldError::duplicate(format!("{path}[{i}]"), &key));
            }
        }
    }
}

fn key_of(keys: &[String], item: &Value) -> Value {
    let mut key = Map::new();
    for name in keys {
        if let Some(found) = item.get(name) {
            key.insert(name.clone(), found.clone());
        }
    }
    Value::Object(key)
}

/// The index of the second appearance of everything that appears more than once.
pub(super) fn repeated<'a>(items: impl Iterator<Item = &'a Value>) -> Vec<usize> {
    repeated_texts(items.map(|item| {
        let mut text = String::new();
        canonical(item, &mut text);
        text
    }))
}

fn repeated_texts(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for (i, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times += 1;
        if *times == 2 {
            out.push(i);
        }
    }
    out
}
