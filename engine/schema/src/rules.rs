//! Validation rules in CEL (`x-kubernetes-validations`).
//!
//! A rule is parsed when its schema is compiled and evaluated for every value of its node. Types are not inferred
//! beforehand: a rule that compares what cannot be compared fails when it is evaluated, not when it is compiled.
//!
//! A rule that names `oldSelf` runs only where a stored value exists for the value at hand; stored values are found
//! through objects, maps, and lists that are maps by key, not through sets and atomic lists.

use crate::error::{FieldError, FieldErrorReason};
use crate::structural::Node;
use kube_cel::cel::parser::{Expression, Parser};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

mod analysis;
mod convert;
mod cost;
mod evaluate;
mod fields;
mod run;

pub(crate) use run::check;

/// The longest expression, in bytes.
const MAX_SOURCE: usize = 16 * 1024;

/// The stack of the parser, in bytes.
const PARSER_STACK: usize = 64 << 20;

/// One rule of a schema, compiled once.
#[derive(Debug)]
pub struct Rule {
    /// The expression.
    pub source: String,
    /// What to say when it is false; empty for the text of the rule.
    message: String,
    message_expression: Option<Compiled>,
    reason: FieldErrorReason,
    /// Which field below the node an error is about, such as `.spec.name`.
    field_path: Option<String>,
    /// The rule also runs where there is no stored value; `oldSelf` is then an optional.
    optional_old_self: bool,
    expression: Compiled,
}

/// An expression ready to be evaluated.
#[derive(Debug)]
struct Compiled {
    tree: Expression,
    /// How deep the tree is.
    depth: usize,
    /// Names `oldSelf`.
    uses_old_self: bool,
    /// The fields that it looks at; `None` for all.
    selected: Option<BTreeSet<String>>,
}

/// Why a rule cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The entry has no `rule`.
    #[error("rule: Required value: must be a CEL expression")]
    Missing,
    /// A field of the entry has the wrong type.
    #[error("{field}: Invalid value: must be a {wanted}")]
    Type {
        /// The field, such as `message`.
        field: &'static str,
        /// The type it must have.
        wanted: &'static str,
    },
    /// The reason is none of those known.
    #[error(
        "reason: Unsupported value: \"{0}\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
    )]
    Reason(String),
    /// The message has more than one line.
    #[error("message: Invalid value: must not contain line breaks")]
    Message,
    /// A rule about change at a place where the stored value cannot be found.
    #[error(
        "rule: Invalid value: oldSelf cannot be used on the uncorrelatable portion of the schema: make the list around it a map, or move the rule up"
    )]
    Uncorrelated,
    /// An expression that is too long.
    #[error("{field}: Too long: may not be more than {max} bytes")]
    TooLong {
        /// `rule` or `messageExpression`.
        field: &'static str,
        /// The limit in bytes.
        max: usize,
    },
    /// An expression that is no CEL, or names something that is not there.
    #[error("{field}: Invalid value: compilation failed: {reason}")]
    Compilation {
        /// `rule` or `messageExpression`.
        field: &'static str,
        /// Where and why.
        reason: String,
    },
}

impl Rule {
    /// Compiles one entry of `x-kubernetes-validations`.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub fn compile(entry: &Value) -> Result<Self, RuleError> {
        let empty = Map::new();
        let entry = entry.as_object().unwrap_or(&empty);
        let source = text(entry, "rule")?.unwrap_or_default();
        if source.trim().is_empty() {
            return Err(RuleError::Missing);
        }
        let expression = expression("rule", source)?;
        let message = text(entry, "message")?.unwrap_or_default().trim();
        if message.contains(['\n', '\r']) {
            return Err(RuleError::Message);
        }
        let message_expression = match text(entry, "messageExpression")? {
            None => None,
            Some(source) => Some(self::expression("messageExpression", source)?),
        };
        let reason = match text(entry, "reason")? {
            None | Some("" | "FieldValueInvalid") => FieldErrorReason::FieldValueInvalid,
            Some("FieldValueForbidden") => FieldErrorReason::FieldValueForbidden,
            Some("FieldValueRequired") => FieldErrorReason::FieldValueRequired,
            Some("FieldValueDuplicate") => FieldErrorReason::FieldValueDuplicate,
            Some(other) => return Err(RuleError::Reason(other.to_owned())),
        };
        let optional_old_self = match entry.get("optionalOldSelf") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(b)) => *b,
            Some(_) => {
                return Err(RuleError::Type {
                    field: "optionalOldSelf",
                    wanted: "boolean",
                });
            }
        };
        Ok(Self {
            source: source.to_owned(),
            message: message.to_owned(),
            message_expression,
            reason,
            field_path: text(entry, "fieldPath")?.map(str::to_owned),
            optional_old_self,
            expression,
        })
    }

    /// Refuses a rule that names fields which the node it stands at does not have, or a stored value where none can be
    /// found, as in an atomic list.
    ///
    /// # Errors
    /// The fields, or that.
    pub(crate) fn fits(&self, node: &Node, correlated: bool) -> Result<(), RuleError> {
        if self.expression.uses_old_self && !correlated {
            return Err(RuleError::Uncorrelated);
        }
        let message = self.message_expression.as_ref();
        for (field, expression) in [
            ("rule", Some(&self.expression)),
            ("messageExpression", message),
        ] {
            let Some(expression) = expression else {
                continue;
            };
            let undefined = fields::undefined(&expression.tree, node, self.optional_old_self);
            if !undefined.is_empty() {
                return Err(RuleError::Compilation {
                    field,
                    reason: undefined.join("; "),
                });
            }
        }
        Ok(())
    }

    /// Whether the rule or its message looks at this field of a value.
    fn looks_at(&self, field: &str) -> bool {
        let selects = |e: &Compiled| e.selected.as_ref().is_none_or(|s| s.contains(field));
        selects(&self.expression) || self.message_expression.as_ref().is_some_and(selects)
    }

    /// Whether the rule or its message needs the stored value.
    fn names_old_self(&self) -> bool {
        let message = self.message_expression.as_ref();
        self.expression.uses_old_self || message.is_some_and(|m| m.uses_old_self)
    }

    /// What stands for the rule in an error: its message, else its text.
    fn shown(&self) -> &str {
        if self.message.is_empty() {
            self.source.trim()
        } else {
            &self.message
        }
    }

    /// What to say when the rule is false.
    fn message(&self) -> String {
        if self.message.is_empty() {
            format!("failed rule: {}", self.shown())
        } else {
            self.message.clone()
        }
    }

    /// The error of a rule that is false.
    fn failed(&self, field: String, value: Option<&Value>, detail: &str) -> FieldError {
        match self.reason {
            FieldErrorReason::FieldValueForbidden => FieldError::forbidden(field, detail),
            FieldErrorReason::FieldValueRequired => FieldError::required(field, detail),
            FieldErrorReason::FieldValueDuplicate => {
                FieldError::refused(FieldErrorReason::FieldValueDuplicate, field, value, "")
            }
            _ => FieldError::refused(FieldErrorReason::FieldValueInvalid, field, value, detail),
        }
    }

    /// The field that an error is about, when the value of this node stands at `path`.
    fn field(&self, node: &Node, path: &str) -> String {
        let mut out = path.to_owned();
        let mut node = Some(node);
        for name in self.field_path.iter().flat_map(|p| segments(p)) {
            let declared = node.is_none_or(|n| n.additional.is_none());
            match (declared, out.is_empty()) {
                (true, true) => out = name.clone(),
                (true, false) => out = format!("{out}.{name}"),
                (false, _) => out = format!("{out}[{name}]"),
            }
            node = node.and_then(|n| n.child(&name));
        }
        if out.is_empty() {
            "<nil>".to_owned()
        } else {
            out
        }
    }
}

/// The names of a path such as `.a.b['c.d']`.
fn segments(path: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = quoted.split_once("']").unwrap_or((quoted, ""));
            out.push(name.replace("\\'", "'").replace("\\\\", "\\"));
            rest = after;
        } else {
            let named = rest.strip_prefix('.').unwrap_or(rest);
            let end = named.find(['.', '[']).unwrap_or(named.len());
            let (name, after) = named.split_at(end);
            if name.is_empty() && after.len() >= rest.len() {
                break;
            }
            out.push(name.to_owned());
            rest = after;
        }
    }
    out.retain(|name| !name.is_empty());
    out
}

fn text<'a>(
    entry: &'a Map<String, Value>,
    field: &'static str,
) -> Result<Option<&'a str>, RuleError> {
    match entry.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(RuleError::Type {
            field,
            wanted: "string",
        }),
    }
}

/// Parses an expression and refuses what could not be evaluated.
fn expression(field: &'static str, source: &str) -> Result<Compiled, RuleError> {
    if source.len() > MAX_SOURCE {
        return Err(RuleError::TooLong {
            field,
            max: MAX_SOURCE,
        });
    }
    parse(source).map_err(|reason| RuleError::Compilation { field, reason })
}

/// Parses on a large stack, because the parser needs far more of it than a caller may have.
fn parse(source: &str) -> Result<Compiled, String> {
    const FAILED: &str = "the expression cannot be parsed";
    analysis::small(source)?;
    let parsed = with_stack(PARSER_STACK, || {
        let parser = Parser::new().enable_optional_syntax(true);
        let mut tree = parser.parse(source).map_err(|errors| errors.to_string())?;
        analysis::prepare(&mut tree);
        let depth = analysis::check(&tree)?;
        Ok(Compiled {
            depth,
            uses_old_self: analysis::names(&tree, "oldSelf"),
            selected: analysis::selected(&tree),
            tree,
        })
    });
    parsed.unwrap_or_else(|| Err(FAILED.to_owned()))
}

/// Runs something on a thread with this much stack, in bytes; only what is used of it takes memory. Nothing if it panics.
fn with_stack<T: Send>(bytes: usize, run: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("cel".to_owned())
            .stack_size(bytes)
            .spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(run)).ok())
            .ok()?
            .join()
            .ok()?
    })
}

#[cfg(test)]
mod tests;
