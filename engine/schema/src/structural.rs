//! Structural schemas, compiled once from the OpenAPI v3 schema of a `CustomResourceDefinition`.

use crate::rules::Rule;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

mod compile;
mod metadata;

/// A compiled structural schema. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Schema {
    root: Arc<Node>,
}

impl Schema {
    /// Compiles an OpenAPI v3 schema (the value of `openAPIV3Schema`).
    ///
    /// # Errors
    /// Everything in it that is not structural, or not valid, at once, each with its path.
    pub fn from_openapi(schema: &Value) -> Result<Self, Vec<SchemaError>> {
        let mut errors = Vec::new();
        let mut node = compile::node(
            schema,
            &mut "openAPIV3Schema".to_owned(),
            &compile::Place::root(),
            &mut errors,
        );
        node.properties.extend(metadata::object_fields());
        if errors.is_empty() {
            Ok(Self {
                root: Arc::new(node),
            })
        } else {
            Err(errors)
        }
    }

    /// A schema that knows nothing and keeps everything, for kinds without one.
    #[must_use]
    pub fn preserve_unknown() -> Self {
        let root = Node {
            kind: Type::Object,
            preserve_unknown: true,
            properties: metadata::object_fields().into(),
            ..Node::default()
        };
        Self {
            root: Arc::new(root),
        }
    }

    /// The outermost node.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The node at a path of property names, such as `["spec", "replicas"]`.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter()
            .try_fold(self.root(), |node, name| node.child(name))
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self::preserve_unknown()
    }
}

/// A fault of a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Where in the schema, such as `openAPIV3Schema.properties[spec].type`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// The type of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// No type is declared; any value fits.
    #[default]
    Any,
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
}

impl Type {
    /// The name that messages use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

/// What keys beside the declared properties hold.
#[derive(Debug)]
pub enum Additional {
    /// Anything.
    Any,
    /// Values of this schema.
    Node(Box<Node>),
}

/// How a list is merged by server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// By value, no value twice.
    Set,
    /// By the values of these keys, no combination twice.
    Map(Vec<String>),
}

/// How a list is merged by a strategic merge patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Merge instead of replace.
    pub merge: bool,
    /// Only the keys that the patch names stay (`retainKeys`).
    pub retain_keys: bool,
    /// The key by which the items of a list of objects are matched.
    pub merge_key: Option<String>,
}

/// Schemas combined by `allOf`, `anyOf`, `oneOf` and `not`; they only check values.
#[derive(Debug, Default)]
pub struct Junctors {
    /// Every one must fit.
    pub all_of: Vec<Node>,
    /// At least one must fit.
    pub any_of: Vec<Node>,
    /// Exactly one must fit.
    pub one_of: Vec<Node>,
    /// Must not fit.
    pub not: Option<Box<Node>>,
}

/// Checks of a value beside its type.
#[derive(Debug, Default)]
pub struct Checks {
    /// The values allowed.
    pub allowed: Option<Vec<Value>>,
    /// Its source and the compiled expression.
    pub pattern: Option<(String, Regex)>,
    /// The name of a format, such as `date-time`.
    pub format: Option<String>,
    /// The smallest number.
    pub minimum: Option<serde_json::Number>,
    /// The smallest number is itself not allowed.
    pub exclusive_minimum: bool,
    /// The greatest number.
    pub maximum: Option<serde_json::Number>,
    /// The greatest number is itself not allowed.
    pub exclusive_maximum: bool,
    /// The number must be a multiple of this.
    pub multiple_of: Option<serde_json::Number>,
    /// The least characters.
    pub min_length: Option<u64>,
    /// The most characters.
    pub max_length: Option<u64>,
    /// The least items.
    pub min_items: Option<u64>,
    /// The most items.
    pub max_items: Option<u64>,
    /// The least keys.
    pub min_properties: Option<u64>,
    /// The most keys.
    pub max_properties: Option<u64>,
    /// No item twice.
    pub unique_items: bool,
}

/// One node of a compiled schema.
#[derive(Debug, Default)]
pub struct Node {
    /// The type.
    pub kind: Type,
    /// The declared fields.
    pub properties: BTreeMap<String, Node>,
    /// What undeclared keys hold, when they are allowed.
    pub additional: Option<Additional>,
    /// The items of a list.
    pub items: Option<Box<Node>>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Whether `null` is a value of its own.
    pub nullable: bool,
    /// The value taken when there is none.
    pub default: Option<Value>,
    /// Undeclared fields are kept.
    pub preserve_unknown: bool,
    /// Holds a whole object with `apiVersion`, `kind` and `metadata`.
    pub embedded_resource: bool,
    /// How a list is merged.
    pub list_type: ListType,
    /// The map is merged as a whole.
    pub atomic_map: bool,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// Checks of the value.
    pub checks: Checks,
    /// Combined schemas.
    pub junctors: Option<Box<Junctors>>,
    /// Rules in CEL.
    pub rules: Vec<Rule>,
    /// Whether this node or one below has rules.
    pub has_rules: bool,
    /// The text for people.
    pub description: Option<String>,
    /// Extensions that this crate has no meaning for (`x-…`), for those that do.
    pub extensions: Map<String, Value>,
}

impl Node {
    /// The schema of a key: its property, or that of undeclared keys.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Node> {
        match (self.properties.get(name), &self.additional) {
            (Some(node), _) => Some(node),
            (None, Some(Additional::Node(node))) => Some(node),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
