//! Errors about one field, in the words of the Kubernetes API.

use serde_json::Value;
use std::fmt;

/// Why a field is refused; the names are those of `Status.details.causes[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldErrorReason {
    /// A field that must be there is absent.
    FieldValueRequired,
    /// A value breaks a rule.
    FieldValueInvalid,
    /// A value is none of those allowed.
    FieldValueNotSupported,
    /// A value has the wrong type.
    FieldValueTypeInvalid,
    /// A text is too long.
    FieldValueTooLong,
    /// A list or map has too many items.
    FieldValueTooMany,
    /// A list that must not repeat an item repeats one.
    FieldValueDuplicate,
    /// A field may not be set, or not be changed.
    FieldValueForbidden,
}

impl FieldErrorReason {
    /// The name as it stands in a `Status` cause, such as `FieldValueInvalid`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FieldValueRequired => "FieldValueRequired",
            Self::FieldValueInvalid => "FieldValueInvalid",
            Self::FieldValueNotSupported => "FieldValueNotSupported",
            Self::FieldValueTypeInvalid => "FieldValueTypeInvalid",
            Self::FieldValueTooLong => "FieldValueTooLong",
            Self::FieldValueTooMany => "FieldValueTooMany",
            Self::FieldValueDuplicate => "FieldValueDuplicate",
            Self::FieldValueForbidden => "FieldValueForbidden",
        }
    }
}

/// One refused field: becomes one entry of `Status.details.causes`, and, displayed, one part of `Status.message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Why.
    pub reason: FieldErrorReason,
    /// Where, such as `spec.ports[0].name`; `<nil>` for an error about the whole object.
    pub field: String,
    /// What, such as `Invalid value: 3: must be even`; without the field's name.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

impl FieldError {
    /// `Required value`, with a detail when it is not empty.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::with(
            FieldErrorReason::FieldValueRequired,
            field,
            "Required value",
            detail,
        )
    }

    /// `Invalid value: VALUE: DETAIL`.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let head = format!("Invalid value: {}", shown(value));
        Self::with(FieldErrorReason::FieldValueInvalid, field, &head, detail)
    }

    /// `Invalid value: VALUE: DETAIL`, for a value of the wrong type.
    #[must_use]
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let head = format!("Invalid value: {}", shown(value));
        Self::with(
            FieldErrorReason::FieldValueTypeInvalid,
            field,
            &head,
            detail,
        )
    }

    /// `Unsupported value: VALUE: supported values: A, B`.
    #[must_use]
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Self {
        let all: Vec<String> = supported
            .iter()
            .map(|v| match v {
                Value::String(_) => shown(v),
                other => format!("\"{other}\""),
            })
            .collect();
        Self {
            reason: FieldErrorReason::FieldValueNotSupported,
            field: field.into(),
            message: format!(
                "Unsupported value: {}: supported values: {}",
                shown(value),
                all.join(", ")
            ),
        }
    }

    /// `Too long: may not be more than MAX bytes`.
    #[must_use]
    pub fn too_long(field: impl Into<String>, max: u64) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::with(
            FieldErrorReason::FieldValueTooLong,
            field,
            "Too long",
            &detail,
        )
    }

    /// `Too many: ACTUAL: must have at most MAX items`.
    #[must_use]
    pub fn too_many(field: impl Into<String>, actual: usize, max: u64) -> Self {
        let (head, detail) = (
            format!("Too many: {actual}"),
            format!("must have at most {max} items"),
        );
        Self::with(FieldErrorReason::FieldValueTooMany, field, &head, &detail)
    }

    /// `Duplicate value: VALUE`.
    #[must_use]
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        let head = format!("Duplicate value: {}", shown(value));
        Self::with(FieldErrorReason::FieldValueDuplicate, field, &head, "")
    }

    /// `Invalid value: VALUE: DETAIL` or `Duplicate value: …`; without the value where it is none to be shown.
    pub(crate) fn refused(
        reason: FieldErrorReason,
        field: impl Into<String>,
        value: Option<&Value>,
        detail: &str,
    ) -> Self {
        let head = match reason {
            FieldErrorReason::FieldValueDuplicate => "Duplicate value",
            _ => "Invalid value",
        };
        let head = value.map_or_else(|| head.to_owned(), |v| format!("{head}: {}", shown(v)));
        Self::with(reason, field, &head, detail)
    }

    /// `Forbidden: DETAIL`.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::with(
            FieldErrorReason::FieldValueForbidden,
            field,
            "Forbidden",
            detail,
        )
    }

    fn with(reason: FieldErrorReason, field: impl Into<String>, head: &str, detail: &str) -> Self {
        let message = if detail.is_empty() {
            head.to_owned()
        } else {
            format!("{head}: {detail}")
        };
        Self {
            reason,
            field: field.into(),
            message,
        }
    }
}

/// A value as the API server prints it in a message: JSON, with floats as Go writes them.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(n) if n.is_f64() => n.as_f64().map_or_else(|| n.to_string(), go_float),
        other => other.to_string(),
    }
}

/// A float as Go's `%v` writes it: `1.5`, `100000`, `1e+06`, `1e-05`.
pub(crate) fn go_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return value.to_string();
    };
    match exponent.parse::<i32>() {
        Ok(e) if !(-4..6).contains(&e) => {
            let sign = if e < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", e.abs())
        }
        _ => value.to_string(),
    }
}
