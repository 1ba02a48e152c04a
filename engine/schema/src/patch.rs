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
    /// It does not fit the object: a test failed, or a path is not there.
    #[error("{0}")]
    Unfit(String),
}

/// The most operations of one JSON patch, as Kubernetes bounds them.
const MAX_OPERATIONS: usize = 10_000;

/// Changes `target` by a JSON patch, or leaves it as it is.
///
/// # Errors
/// [`PatchError`].
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(error.to_string()))?;
    if operations.0.len() > MAX_OPERATIONS {
        return Err(PatchError::Malformed(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.0.len()
        )));
    }
    json_patch::patch(target, &operations).map_err(|error| PatchError::Unfit(error.to_string()))
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
