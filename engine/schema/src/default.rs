//! Defaults of a schema, put into a value as the API server does.

use crate::structural::{Additional, Node, Schema};
use serde_json::Value;

/// Fills in the schema's defaults, at every depth that the value has.
///
/// A `null` where the schema is not nullable counts as absent: it takes the default, or goes when there is none.
/// Defaults of a parent are filled in before those of its children, so a defaulted object gets its own fields' defaults.
pub fn apply(schema: &Schema, value: &mut Value) {
    node(schema.root(), value);
}

/// The same for one node of a schema.
pub(crate) fn node(schema: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, child) in &schema.properties {
                let Some(default) = &child.default else {
                    continue;
                };
                let absent = match map.get(name) {
                    None => true,
                    Some(found) => found.is_null() && !child.nullable,
                };
                if absent {
                    map.insert(name.clone(), default.clone());
                }
            }
            let additional = match &schema.additional {
                Some(Additional::Node(child)) => Some(child.as_ref()),
                _ => None,
            };
            map.retain(|name, found| {
                let Some(child) = schema.properties.get(name).or(additional) else {
                    return true;
                };
                if found.is_null() && !child.nullable {
                    let Some(default) = &child.default else {
                        return false;
                    };
                    *found = default.clone();
                }
                node(child, found);
                true
            });
        }
        Value::Array(items) => {
            let Some(child) = &schema.items else { return };
            for item in items {
                if item.is_null()
                    && !child.nullable
                    && let Some(default) = &child.default
                {
                    *item = default.clone();
                }
                node(child, item);
            }
        }
        _ => {}
    }
}
