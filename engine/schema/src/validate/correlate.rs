//! Which part of the stored value a part of the new one stands for.

use crate::structural::{ListType, Node};
use serde_json::Value;
use std::collections::BTreeMap;

/// The stored counterpart of one value, when it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Old<'a>(pub(crate) Option<&'a Value>);

impl<'a> Old<'a> {
    /// The counterpart of a key of a map with this schema; the keys of an atomic map have none.
    pub(crate) fn key(self, schema: &Node, name: &str) -> Self {
        if schema.atomic_map {
            return Self(None);
        }
        Self(self.0.and_then(|o| o.get(name)))
    }

    /// The counterparts of the items of a list with this schema: those with the same keys. Items of other lists have none.
    pub(crate) fn items(self, schema: &Node, items: &[Value]) -> Vec<Self> {
        let (ListType::Map(keys), Some(Value::Array(old))) = (&schema.list_type, self.0) else {
            return vec![Self(None); items.len()];
        };
        let node = schema.items.as_deref();
        let key = |item: &Value| item.is_object().then(|| key(keys, item, node));
        let mut by_key = BTreeMap::new();
        for item in old {
            if let Some(key) = key(item) {
                by_key.entry(key).or_insert(item);
            }
        }
        items
            .iter()
            .map(|item| Self(key(item).and_then(|k| by_key.get(&k).copied())))
            .collect()
    }
}

/// A text that is the same for items with the same keys.
fn key(keys: &[String], item: &Value, schema: Option<&Node>) -> String {
    let mut out = String::new();
    for key in keys {
        let default = || schema?.properties.get(key)?.default.as_ref();
        canonical(
            item.get(key).or_else(default).unwrap_or(&Value::Null),
            &mut out,
        );
        out.push(',');
    }
    out
}

/// The same text for equal values, whatever the order of their keys.
pub(crate) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, child) in entries {
                out.push_str(&format!("{name:?}:"));
                canonical(child, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}
