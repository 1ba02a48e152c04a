//! Removal of fields that a schema does not know.

use crate::structural::{Additional, Node, Schema};
use serde_json::Value;

/// Drops what the schema does not declare and returns the paths dropped, sorted, such as `spec.foo` or `spec.ports[0].x`.
///
/// `apiVersion`, `kind` and `metadata` at the root are never dropped. What `x-kubernetes-preserve-unknown-fields`
/// keeps is kept, but declared fields inside it are pruned too. Each path fits the message
/// `unknown field "PATH"` of field validation.
pub fn prune(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    known(
        Some(schema.root()),
        value,
        true,
        &mut String::new(),
        &mut dropped,
    );
    dropped.sort();
    dropped
}

fn known(
    schema: Option<&Node>,
    value: &mut Value,
    resource: bool,
    path: &mut String,
    dropped: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => {
            let resource = resource || schema.is_some_and(|s| s.embedded_resource);
            map.retain(|name, child| {
                if resource && matches!(name.as_str(), "apiVersion" | "kind") {
                    return true;
                }
                let len = path.len();
                if len > 0 {
                    path.push('.');
                }
                path.push_str(name);
                if resource && name == "metadata" {
                    let declared = schema.and_then(|s| s.properties.get(name));
                    if let Some(fields) = declared.filter(|m| !m.properties.is_empty()) {
                        known(Some(fields), child, false, path, dropped);
                    }
                    path.truncate(len);
                    return true;
                }
                let keep = match schema {
                    None => false,
                    Some(s) => match (s.properties.get(name), &s.additional) {
                        (Some(property), _) => {
                            known(Some(property), child, false, path, dropped);
                            true
                        }
                        (None, Some(Additional::Node(n))) => {
                            known(Some(n), child, false, path, dropped);
                            true
                        }
                        (None, Some(Additional::Any)) => true,
                        (None, None) => s.preserve_unknown,
                    },
                };
                if !keep {
                    dropped.push(path.clone());
                }
                path.truncate(len);
                keep
            });
        }
        Value::Array(items) => {
            let child = schema.and_then(|s| s.items.as_deref());
            if child.is_none() && schema.is_some_and(|s| s.preserve_unknown) {
                return;
            }
            for (i, item) in items.iter_mut().enumerate() {
                let len = path.len();
                path.push_str(&format!("[{i}]"));
                known(child, item, false, path, dropped);
                path.truncate(len);
            }
        }
        _ => {}
    }
}
