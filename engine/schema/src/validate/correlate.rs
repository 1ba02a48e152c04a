//! Which part of the stored value a part of the new one stands for.

use crate::structural::{ListType, Node};
use serde_json::{Map, Value};

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

    /// The counterpart of an item of a list with this schema: that with the same keys. Items of other lists have none.
    pub(crate) fn item(self, schema: &Node, item: &Value) -> Self {
        let (ListType::Map(keys), Some(Value::Array(old)), Value::Object(item)) =
            (&schema.list_type, self.0, item)
        else {
            return Self(None);
        };
        let defaults = schema.items.as_deref();
        Self(
            old.iter()
                .find(|o| o.as_object().is_some_and(|o| same(keys, o, item, defaults))),
        )
    }
}

fn same(
    keys: &[String],
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    schema: Option<&Node>,
) -> bool {
    keys.iter().all(|key| {
        let default = schema
            .and_then(|s| s.properties.get(key))
            .and_then(|p| p.default.as_ref());
        a.get(key).or(default) == b.get(key).or(default)
    })
}
