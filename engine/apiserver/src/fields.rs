//! Defaults of a schema, and who owns which field after a create or an update.

use serde_json::{Map, Value, json};

/// Fills in the defaults of `schema`.
pub(crate) fn defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let missing = match map.get(name) {
                    None => true,
                    Some(Value::Null) => property["nullable"] != true,
                    Some(_) => false,
                };
                if missing && let Some(default) = property.get("default") {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, child) in map.iter_mut() {
                defaults(below(schema, name), child);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| defaults(&schema["items"], v)),
        _ => {}
    }
}

fn below<'a>(schema: &'a Value, name: &str) -> &'a Value {
    match &schema["properties"][name] {
        Value::Null => &schema["additionalProperties"],
        property => property,
    }
}

/// Who writes.
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) now: &'a str,
}

/// Computes `metadata.managedFields` of `object`, which replaces `live`.
pub(crate) fn update(schema: &Value, live: &Value, object: &mut Value, writer: &Writer<'_>) {
    let known = live["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let changed = root(schema, object, live, true);
    let removed = root(schema, live, object, false);
    let mut own = json!({});
    let mut old_time = None;
    let mut list = Vec::new();
    for mut entry in known {
        let mine = entry["manager"] == writer.manager
            && entry["operation"] == "Update"
            && entry["apiVersion"] == writer.api_version
            && entry["subresource"].as_str().unwrap_or_default() == writer.subresource;
        let before = entry["fieldsV1"].clone();
        subtract(&mut entry["fieldsV1"], &removed);
        if mine {
            own = entry["fieldsV1"].take();
            let mut after = own.clone();
            union(&mut after, &changed);
            old_time = (before == after).then(|| entry["time"].clone());
            continue;
        }
        subtract(&mut entry["fieldsV1"], &changed);
        if entry["fieldsV1"] != json!({}) {
            list.push(entry);
        }
    }
    union(&mut own, &changed);
    if own != json!({}) {
        let mut entry = json!({"manager": writer.manager, "operation": "Update", "apiVersion": writer.api_version,
            "time": old_time.unwrap_or_else(|| writer.now.into()), "fieldsType": "FieldsV1", "fieldsV1": own});
        if !writer.subresource.is_empty() {
            entry["subresource"] = writer.subresource.into();
        }
        list.push(entry);
    }
    if list.is_empty() {
        crate::object::meta(object).remove("managedFields");
    } else {
        crate::object::meta(object).set("managedFields", list);
    }
}

/// The fields of `new` that `old` has not, or, with `values`, has otherwise.
fn root(schema: &Value, new: &Value, old: &Value, values: bool) -> Value {
    let mut out = Map::new();
    for (name, value) in new.as_object().into_iter().flatten() {
        if name == "metadata" {
            let mut fields = Map::new();
            for (field, value) in value.as_object().into_iter().flatten() {
                let schema = match field.as_str() {
                    "labels" | "annotations" | "generateName" => Value::Null,
                    "finalizers" => json!({"x-kubernetes-list-type": "set"}),
                    "ownerReferences" => {
                        json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
                        "items": {"x-kubernetes-map-type": "atomic"}})
                    }
                    _ => continue,
                };
                if let Some(tree) = walk(&schema, value, old["metadata"].get(field), values) {
                    fields.insert(format!("f:{field}"), tree);
                }
            }
            if !fields.is_empty() {
                out.insert("f:metadata".to_owned(), fields.into());
            }
        } else if !matches!(name.as_str(), "apiVersion" | "kind")
            && let Some(tree) = walk(below(schema, name), value, old.get(name), values)
        {
            out.insert(format!("f:{name}"), tree);
        }
    }
    out.into()
}

fn walk(schema: &Value, new: &Value, old: Option<&Value>, values: bool) -> Option<Value> {
    let mut out = Map::new();
    match new {
        Value::Object(map) if !map.is_empty() && schema["x-kubernetes-map-type"] != "atomic" => {
            if !old.is_some_and(Value::is_object) {
                out.insert(".".to_owned(), json!({}));
            }
            for (name, value) in map {
                let before = old.and_then(|o| o.get(name));
                if let Some(tree) = walk(below(schema, name), value, before, values) {
                    out.insert(format!("f:{name}"), tree);
                }
            }
        }
        Value::Array(list)
            if !list.is_empty()
                && matches!(
                    schema["x-kubernetes-list-type"].as_str(),
                    Some("map" | "set")
                ) =>
        {
            let names = crate::object::strings(&schema["x-kubernetes-list-map-keys"]);
            let key = |item: &Value| {
                if names.is_empty() {
                    return format!("v:{item}");
                }
                let keys: Map<String, Value> = names
                    .iter()
                    .map(|n| (n.clone(), item[n.as_str()].clone()))
                    .collect();
                format!("k:{}", Value::from(keys))
            };
            if !old.is_some_and(Value::is_array) {
                out.insert(".".to_owned(), json!({}));
            }
            for item in list {
                let at = key(item);
                let before = old
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .find(|o| key(o) == at);
                if let Some(tree) = walk(&schema["items"], item, before, values) {
                    out.insert(at, tree);
                }
            }
        }
        leaf => {
            let same = old.is_some_and(|o| !values || o == leaf);
            return (!same).then(|| json!({}));
        }
    }
    (!out.is_empty()).then(|| out.into())
}

fn union(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        if into[name.as_str()].is_null() {
            into[name.as_str()] = value.clone();
        } else {
            union(&mut into[name.as_str()], value);
        }
    }
}

fn subtract(from: &mut Value, less: &Value) {
    let Value::Object(map) = from else { return };
    for (name, value) in less.as_object().into_iter().flatten() {
        let Some(child) = map.get_mut(name) else {
            continue;
        };
        if *value != json!({}) {
            subtract(child, value);
        }
        if *value == json!({}) || *child == json!({}) {
            map.remove(name);
        }
    }
}
