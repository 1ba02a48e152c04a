//! Validation of a value against a schema, in the words and the order of the Kubernetes API server.
//!
//! The whole of it is [`validate`]. The API server, which has checks of its own between the steps (metadata, the paths
//! of the scale subresource), calls the steps one by one: [`values`] or [`status_values`], then [`structure`], then
//! [`rules`].
//!
//! On an update, what breaks a check but did not change is let through, as the API server does, so that an object made
//! under an older schema can still be changed elsewhere.

use crate::error::{FieldError, FieldErrorReason};
use crate::structural::Schema;
use serde_json::Value;

mod correlate;
mod format;
mod structure;
mod value;

pub(crate) use correlate::{Old, canonical};

const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// Everything that is wrong with a value, in order: its values, its lists and embedded resources, its rules.
///
/// `old` is the stored value of an update. Defaults must be filled in and unknown fields be pruned before.
#[must_use]
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = values(schema, value, old);
    errors.extend(structure(schema, value, old));
    rules(schema, value, old, &mut errors);
    errors
}

/// Checks types, required fields, enumerations, bounds, patterns, formats and combined schemas.
#[must_use]
pub fn values(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    value::check(schema.root(), value, old, "")
}

/// The same for an update of the status alone: only `status` is looked at, and messages name fields relative to it.
#[must_use]
pub fn status_values(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match (schema.root().child("status"), value.get("status")) {
        (Some(node), Some(status)) => {
            value::check(node, status, old.and_then(|o| o.get("status")), "status")
        }
        _ => Vec::new(),
    }
}

/// Checks that embedded resources say what they are, and that sets and maps in lists repeat nothing; the latter only as
/// long as the stored value has no such fault.
#[must_use]
pub fn structure(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    structure::check(schema.root(), value, old)
}

/// Adds what the rules in CEL refuse to `errors`, or, when those found before leave no sense in that, one error that says so.
pub fn rules(schema: &Schema, value: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if !schema.root().has_rules {
        return;
    }
    if errors.iter().any(|e| blocks_rules(e.reason)) {
        errors.push(FieldError::invalid("<nil>", &Value::Null, NOT_CHECKED));
        return;
    }
    errors.extend(crate::rules::check(schema.root(), value, old));
}

/// Errors after which a value may not have the shape that rules rely on.
fn blocks_rules(reason: FieldErrorReason) -> bool {
    matches!(
        reason,
        FieldErrorReason::FieldValueNotSupported
            | FieldErrorReason::FieldValueRequired
            | FieldErrorReason::FieldValueTooLong
            | FieldErrorReason::FieldValueTooMany
            | FieldErrorReason::FieldValueTypeInvalid
    )
}

#[cfg(test)]
mod tests;
