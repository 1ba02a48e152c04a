//! Differences between two objects, field by field.

use std::collections::BTreeSet;

use fleetwright_api::{
    meta::{ANNOTATION_REVISION, LABEL_FLEET},
    names::short_hash,
};
use serde_json::{Map, Value};

use super::FieldDiff;

/// The part of an object that a plan speaks of: no status, and of the metadata names, labels and annotations, without the
/// marks of the inventory. Of bytes it says how many and which: nobody reads them.
pub(super) fn shown(object: &Value) -> Value {
    let mut out = object.clone();
    if let Some(map) = out.as_object_mut() {
        map.remove("status");
    }
    if let Some(metadata) = out.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| {
            ["name", "namespace", "labels", "annotations"].contains(&name.as_str())
        });
        for (field, mark) in [
            ("labels", LABEL_FLEET),
            ("annotations", ANNOTATION_REVISION),
        ] {
            if let Some(Value::Object(map)) = metadata.get_mut(field) {
                map.remove(mark);
                if map.is_empty() {
                    metadata.remove(field);
                }
            }
        }
    }
    let is_bytes = object.get("kind").is_some_and(|kind| kind == "ConfigMap");
    let bytes = out.get_mut("binaryData").and_then(Value::as_object_mut);
    for value in bytes
        .filter(|_| is_bytes)
        .into_iter()
        .flat_map(Map::values_mut)
    {
        if let Some(encoded) = value.as_str() {
            let padding = encoded.bytes().rev().take_while(|b| *b == b'=').count();
            let size = (encoded.len() / 4 * 3).saturating_sub(padding);
            *value = format!("{size} bytes, {}", short_hash([encoded], 16)).into();
        }
    }
    out
}

/// Every field in which two objects differ; lists differ as a whole.
pub(super) fn differences(before: &Value, after: &Value) -> Vec<FieldDiff> {
    let mut out = Vec::new();
    walk(Some(before), Some(after), &mut Vec::new(), &mut out);
    out
}

fn walk(
    before: Option<&Value>,
    after: Option<&Value>,
    path: &mut Vec<String>,
    out: &mut Vec<FieldDiff>,
) {
    let none = Map::new();
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(_)) | None, Some(Value::Object(_)))
        | (Some(Value::Object(_)), None) => {
            let old = before.and_then(Value::as_object).unwrap_or(&none);
            let new = after.and_then(Value::as_object).unwrap_or(&none);
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                path.push(name.clone());
                walk(old.get(name), new.get(name), path, out);
                path.pop();
            }
        }
        (before, after) => out.push(FieldDiff {
            path: path.clone(),
            from: before.cloned(),
            to: after.cloned(),
            held_by: Vec::new(),
        }),
    }
}

/// Sets the value at `path`.
pub(super) fn set(object: &mut Value, path: &[String], to: Value) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut at = object;
    for part in parents {
        let Value::Object(map) = at else { return };
        at = map
            .entry(part.clone())
            .or_insert_with(|| Value::Object(Map::new()));
    }
    if let Value::Object(map) = at {
        map.insert(last.clone(), to);
    }
}
