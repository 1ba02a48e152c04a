//! Objects as JSON values: keys, encoding, metadata.

use serde_json::{Map, Value};

use crate::ApiServer;

/// The key of an object; `namespace` is empty for kinds of cluster scope.
pub(crate) fn key(group: &str, plural: &str, namespace: &str, name: &str) -> String {
    format!("{}{namespace}/{name}", prefix(group, plural))
}

/// The prefix of all objects of a kind.
pub(crate) fn prefix(group: &str, plural: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("/{group}/{plural}/")
}

/// Encodes an object, leaving the place for its resource version to the store.
pub(crate) fn encode(object: &Value) -> fleetwright_store::Value {
    // Writing into memory does not fail.
    let put = |out: &mut Vec<u8>, field: &str, value: &Value| {
        serde_json::to_writer(&mut *out, field).ok();
        out.push(b':');
        serde_json::to_writer(out, value).ok();
    };
    let mut out = Vec::with_capacity(4096);
    out.push(b'{');
    for field in ["apiVersion", "kind"] {
        if let Some(value) = object.get(field) {
            put(&mut out, field, value);
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"metadata\":{\"resourceVersion\":\"");
    let stamp = out.len();
    out.push(b'"');
    for (field, value) in object["metadata"].as_object().into_iter().flatten() {
        if field != "resourceVersion" {
            out.push(b',');
            put(&mut out, field, value);
        }
    }
    out.push(b'}');
    for (field, value) in object.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
            out.push(b',');
            put(&mut out, field, value);
        }
    }
    out.push(b'}');
    fleetwright_store::Value {
        bytes: out,
        stamp: Some(stamp),
    }
}

/// The metadata of an object; `decode` made sure that it is one.
pub(crate) fn meta(object: &mut Value) -> Meta<'_> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    Meta(&mut object["metadata"])
}

/// Metadata to be changed.
pub(crate) struct Meta<'a>(&'a mut Value);

impl Meta<'_> {
    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.0[field] = value.into();
    }

    pub(crate) fn get(&self, field: &str) -> &Value {
        &self.0[field]
    }

    pub(crate) fn remove(&mut self, field: &str) -> Option<Value> {
        self.0.as_object_mut().and_then(|map| map.remove(field))
    }
}

pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    strings(&object["metadata"]["finalizers"])
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

pub(crate) fn set_finalizers(object: &mut Value, list: Vec<String>) {
    if list.is_empty() {
        meta(object).remove("finalizers");
    } else {
        meta(object).set("finalizers", list);
    }
}

pub(crate) fn deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// The uids of an object's owners.
pub(crate) fn owners(object: &Value) -> Vec<String> {
    object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["uid"].as_str())
        .map(str::to_owned)
        .collect()
}

impl ApiServer {
    /// Notes an object's uid and owners.
    pub(crate) fn index(&self, key: &str, object: &Value) {
        let mut index = self.0.index.lock();
        let uid = text(object, "uid");
        if !uid.is_empty() && !index.keys.contains_key(uid) {
            index.keys.insert(uid.to_owned(), key.to_owned());
        }
        if let Some(at) = crate::expiry::due(key, object) {
            index.expiring.insert((at, key.to_owned()));
        }
        for owner in owners(object) {
            index
                .dependents
                .entry(owner)
                .or_default()
                .insert(key.to_owned());
        }
    }

    /// Forgets an object.
    pub(crate) fn unindex(&self, key: &str, object: &Value) {
        let mut index = self.0.index.lock();
        index.keys.remove(text(object, "uid"));
        for owner in owners(object) {
            if let Some(set) = index.dependents.get_mut(&owner) {
                set.remove(key);
                if set.is_empty() {
                    index.dependents.remove(&owner);
                }
            }
        }
    }

    /// Reads an object and its revision.
    pub(crate) fn read(&self, key: &str) -> Option<(Value, u64)> {
        let entry = self.0.store.get(key)?;
        let object = serde_json::from_slice(&entry.value).ok()?;
        Some((object, entry.modified))
    }
}
