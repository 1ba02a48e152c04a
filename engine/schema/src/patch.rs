//! Patches that are no apply: JSON patch (RFC 6902), JSON merge patch (RFC 7396), strategic merge patch.

use crate::structural::Node;
use serde_json::{Map, Value};

mod strategic;

pub use strategic::strategic;

/// Why a patch cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is not written as such a patch must be.
    #[error("{0}")]
    Malformed(String),
    /// It has too many operations.
    #[error("{0}")]
    TooMany(String),
    /// It does not fit the object: a test failed, or a path is not there.
    #[error("{0}")]
    Unfit(String),
}

/// The most operations of one JSON patch, as Kubernetes bounds them.
const MAX_OPERATIONS: usize = 10_000;

/// Changes `target` by a JSON patch, or leaves it as it is.
///
/// As in Kubernetes, `replace` sets a field of an object that is not there yet, a missing `value` is null, and null as a
/// whole is an empty patch.
///
/// # Errors
/// [`PatchError`].
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = match patch {
        Value::Null => return Ok(()),
        Value::Array(operations) => operations,
        other => {
            return Err(PatchError::Malformed(format!(
                "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
                go_type(other)
            )));
        }
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooMany(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut changed = target.clone();
    for operation in operations {
        step(&mut changed, operation)?;
    }
    *target = changed;
    Ok(())
}

/// Does one operation of a JSON patch.
fn step(target: &mut Value, operation: &Value) -> Result<(), PatchError> {
    if !operation.is_object() {
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
            go_type(operation)
        )));
    }
    for field in ["op", "path", "from"] {
        let got = &operation[field];
        if !(got.is_string() || got.is_null()) {
            return Err(PatchError::Malformed(format!(
                "error decoding patch: json: cannot unmarshal {} into Go struct field jsonPatchOp.{field} of type string",
                go_type(got)
            )));
        }
    }
    let mut operation = operation.clone();
    let path = operation["path"].as_str().unwrap_or_default().to_owned();
    let Some((parent, _)) = path.rsplit_once('/') else {
        return Err(PatchError::Unfit(format!("{path:?} is no path")));
    };
    if matches!(operation["op"].as_str(), Some("add" | "replace" | "test")) {
        let value = operation["value"].take();
        operation["value"] = value;
    }
    let in_object = target.pointer(parent).is_some_and(Value::is_object);
    match operation["op"].as_str() {
        Some("replace") if in_object => operation["op"] = "add".into(),
        Some("test")
            if in_object && operation["value"].is_null() && target.pointer(&path).is_none() =>
        {
            return Ok(());
        }
        _ => {}
    }
    let unfit = |text: String| PatchError::Unfit(text);
    let operation: json_patch::PatchOperation =
        serde_json::from_value(operation).map_err(|error| unfit(error.to_string()))?;
    json_patch::patch(target, &[operation]).map_err(|error| unfit(error.to_string()))
}

/// What Go's parser calls a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Changes `target` by a JSON merge patch.
pub fn merge(target: &mut Value, patch: &Value) {
    json_patch::merge(target, patch);
}

fn none() -> &'static Node {
    static NONE: std::sync::OnceLock<Node> = std::sync::OnceLock::new();
    NONE.get_or_init(Node::default)
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests;
