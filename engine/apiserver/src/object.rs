//! Objects as JSON values: keys, encoding, metadata.

use std::fmt;

use bytes::Bytes;
use fleetwright_schema::managed::Kept;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
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
    encode_with(object, None)
}

/// As [`encode`], of an object and its managed fields apart.
pub(crate) fn encode_with(object: &Value, kept: Option<&RawValue>) -> fleetwright_store::Value {
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
    if let Some(kept) = kept {
        out.extend_from_slice(b",\"managedFields\":");
        out.extend_from_slice(kept.get().as_bytes());
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

/// An object that is stored, with its managed fields apart: most writes change little of them.
pub(crate) struct Live {
    pub(crate) object: Value,
    pub(crate) kept: Kept,
    pub(crate) revision: u64,
    /// All of it, as it is stored.
    pub(crate) encoded: Bytes,
}

/// Puts an object and its managed fields together.
pub(crate) fn whole(mut object: Value, kept: Option<&RawValue>) -> Value {
    if let Some(fields) = kept.and_then(|kept| serde_json::from_str::<Value>(kept.get()).ok()) {
        meta(&mut object).set("managedFields", fields);
    }
    object
}

/// Reads an object without its managed fields, which are read as text.
struct Apart<'a> {
    in_metadata: bool,
    kept: &'a mut Kept,
}

impl<'de> DeserializeSeed<'de> for Apart<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Apart<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = match name.as_str() {
                "managedFields" if self.in_metadata => {
                    *self.kept = Some(map.next_value()?);
                    continue;
                }
                "metadata" if !self.in_metadata => map.next_value_seed(Apart {
                    in_metadata: true,
                    kept: self.kept,
                })?,
                _ => map.next_value()?,
            };
            out.insert(name, value);
        }
        Ok(out.into())
    }
}

/// Of an encoded object what stands beside its content: its metadata alone.
///
/// # Errors
/// When it is no object.
pub(crate) fn head(encoded: &[u8]) -> serde_json::Result<Value> {
    #[derive(serde::Deserialize)]
    struct Head {
        metadata: Value,
    }
    let Head { metadata } = serde_json::from_slice(encoded)?;
    Ok(Map::from_iter([("metadata".to_owned(), metadata)]).into())
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
            // The store's own copy of the key, where it has it still.
            let stored = self.0.store.get(key).map(|entry| entry.key);
            let key = stored.unwrap_or_else(|| key.into());
            index.keys.insert(uid.to_owned(), key);
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

    /// Reads an object and its managed fields.
    pub(crate) fn read_apart(&self, key: &str) -> Option<Live> {
        let entry = self.0.store.get(key)?;
        let mut kept = None;
        let apart = Apart {
            in_metadata: false,
            kept: &mut kept,
        };
        let encoded = entry.value.bytes();
        let mut reader = serde_json::Deserializer::from_slice(&encoded);
        let object = apart.deserialize(&mut reader).ok()?;
        Some(Live {
            object,
            kept,
            revision: entry.modified,
            encoded,
        })
    }

    /// Reads an object and its revision.
    pub(crate) fn read(&self, key: &str) -> Option<(Value, u64)> {
        let entry = self.0.store.get(key)?;
        let object = serde_json::from_slice(&entry.value.bytes()).ok()?;
        Some((object, entry.modified))
    }
}
