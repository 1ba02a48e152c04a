//! Pure Kubernetes API semantics: structural schemas, defaulting, pruning, validation, CEL, server-side apply and patches.
//!
//! Nothing here does input or output, reads a clock or knows a store: every value is a [`serde_json::Value`], every
//! function is a pure one. The API server builds on this crate, and the plan uses it to foretell what the server will do.

pub mod default;
pub mod error;
pub mod fields;
pub mod managed;
pub mod patch;
pub mod prune;
pub mod rules;
pub mod structural;
pub mod typed;
pub mod validate;

pub use error::{FieldError, FieldErrorReason};
pub use fields::FieldSet;
pub use structural::{Node, Schema, SchemaError};
