//! Differences between a raw document and a live object, field by field.

use serde_json::{Map, Value};

use super::FieldDiff;

/// Declared fields whose live value differs. Fields that only the live object has (defaults, others' fields) do not count.
pub(super) fn declared(want: &Value, have: &Value) -> Vec<FieldDiff> {
    let mut out = Vec::new();
    walk(want, Some(have), &mut Vec::new(), &mut out);
    out
}

fn walk(want: &Value, have: Option<&Value>, path: &mut Vec<String>, out: &mut Vec<FieldDiff>) {
    match (want, have) {
        (Value::Null, _) => {}
        (Value::Object(fields), Some(Value::Object(_)) | None)
            if !fields.is_empty() && !is_atomic(path) =>
        {
            for (name, value) in fields {
                path.push(name.clone());
                walk(value, have.and_then(|h| h.get(name)), path, out);
                path.pop();
            }
        }
        (want, have) if have.is_some_and(|have| covers(want, have)) => {}
        (want, have) => out.push(FieldDiff {
            path: path.clone(),
            from: have.cloned(),
            to: Some(want.clone()),
        }),
    }
}

fn is_atomic(path: &[String]) -> bool {
    path.last().is_some_and(|last| last == "selector")
}

/// Whether `have` says all that `want` says.
fn covers(want: &Value, have: &Value) -> bool {
    match (want, have) {
        (Value::Object(want), Value::Object(have)) => want.iter().all(|(name, value)| {
            value.is_null() || have.get(name).is_some_and(|have| covers(value, have))
        }),
        (Value::Array(want), Value::Array(have)) => {
            want.len() == have.len() && want.iter().zip(have).all(|(w, h)| covers(w, h))
        }
        (want, have) => want == have,
    }
}

/// Fields that `manager` owns but the document no longer declares.
pub(super) fn removed(want: &Value, have: &Value, manager: &str) -> Vec<FieldDiff> {
    let entries = have
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let mut out = Vec::new();
    for entry in entries.into_iter().flatten() {
        let ours = entry.get("manager").and_then(Value::as_str) == Some(manager)
            && entry.get("operation").and_then(Value::as_str) == Some("Apply");
        if ours && let Some(owned) = entry.get("fieldsV1").and_then(Value::as_object) {
            gone(owned, Some(want), have, &mut Vec::new(), &mut out);
        }
    }
    out
}

fn gone(
    owned: &Map<String, Value>,
    want: Option<&Value>,
    have: &Value,
    path: &mut Vec<String>,
    out: &mut Vec<FieldDiff>,
) {
    for (field, below) in owned {
        let Some(name) = field.strip_prefix("f:") else {
            continue;
        };
        path.push(name.to_owned());
        let ours = path.len() == 3
            && path[0] == "metadata"
            && name.starts_with("fleetwright.dev/")
            && [
                fleetwright_api::meta::LABEL_FLEET,
                fleetwright_api::meta::ANNOTATION_REVISION,
            ]
            .contains(&name);
        if let Some(live) = have.get(name).filter(|_| !ours) {
            let next = want.and_then(|w| w.get(name)).filter(|w| !w.is_null());
            match below.as_object() {
                Some(below) if below.keys().any(|k| k.starts_with("f:")) => {
                    gone(below, next, live, path, out);
                }
                _ if next.is_none() => out.push(FieldDiff {
                    path: path.clone(),
                    from: Some(live.clone()),
                    to: None,
                }),
                _ => {}
            }
        }
        path.pop();
    }
}

/// Sets or removes the value at `path`.
pub(super) fn set(object: &mut Value, path: &[String], to: Option<Value>) {
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
        match to {
            Some(value) => map.insert(last.clone(), value),
            None => map.remove(last),
        };
    }
}
