//! Validation rules in CEL (`x-kubernetes-validations`).

use crate::error::FieldError;
use crate::structural::Node;
use serde_json::Value;

/// One rule of a schema, compiled once.
#[derive(Debug)]
pub struct Rule {
    /// The expression.
    pub source: String,
}

/// Why a rule cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The entry has no `rule`.
    #[error("rule: Required value: must be a CEL expression")]
    Missing,
}

impl Rule {
    /// Compiles one entry of `x-kubernetes-validations`.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub fn compile(entry: &Value) -> Result<Self, RuleError> {
        let source = entry
            .get("rule")
            .and_then(Value::as_str)
            .ok_or(RuleError::Missing)?;
        Ok(Self {
            source: source.to_owned(),
        })
    }
}

pub(crate) fn check(_schema: &Node, _value: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
