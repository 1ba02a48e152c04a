//! All rules of a schema on one value.

use super::Rule;
use super::convert::{below, old_to_cel, to_cel};
use super::cost::{PER_CALL, PER_OBJECT, estimate};
use super::evaluate::{Scope, optional};
use crate::error::FieldError;
use crate::structural::{Node, Type};
use crate::validate::Old;
use kube_cel::cel::Value as Cel;
use serde_json::{Map, Value};
use std::cell::OnceCell;

/// The longest text that a `messageExpression` may give, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Everything that the rules refuse, from the root downwards.
pub(crate) fn check(schema: &Node, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut run = Run {
        path: String::new(),
        budget: PER_OBJECT,
        stopped: false,
        errors: Vec::new(),
    };
    let at = At {
        rules: schema,
        types: schema,
    };
    run.node(at, value, Old(old), None, true);
    run.errors
}

struct Run {
    path: String,
    budget: u64,
    /// Nothing more may be evaluated.
    stopped: bool,
    errors: Vec<FieldError>,
}

/// A value and the stored one that it stands for.
struct Pair<'a> {
    new: &'a Value,
    old: &'a Value,
    same: OnceCell<bool>,
}

impl Pair<'_> {
    fn is_unchanged(&self) -> bool {
        *self.same.get_or_init(|| self.new == self.old)
    }
}

/// A node with rules, and the node that says of which types the values are; they differ inside `allOf`.
#[derive(Clone, Copy)]
struct At<'n> {
    rules: &'n Node,
    types: &'n Node,
}

impl Run {
    /// `parent` is the nearest value around this one that has a stored counterpart.
    fn node(
        &mut self,
        at: At<'_>,
        value: &Value,
        old: Old<'_>,
        parent: Option<&Pair<'_>>,
        resource: bool,
    ) {
        if self.stopped || !at.rules.has_rules || value.is_null() {
            return;
        }
        let old = Old(old.0.filter(|o| !o.is_null()));
        let own = old.0.map(|old| Pair {
            new: value,
            old,
            same: OnceCell::new(),
        });
        let nearest = own.as_ref().or(parent);
        if !at.rules.rules.is_empty() {
            self.rules(at, value, old.0, nearest, resource);
        }
        for rules in at.rules.junctors.iter().flat_map(|j| &j.all_of) {
            let types = at.types;
            self.node(At { rules, types }, value, old, parent, resource);
        }
        match value {
            Value::Object(map) => self.fields(at, map, old, nearest),
            Value::Array(items) => self.items(at, items, old, nearest),
            _ => {}
        }
    }

    fn fields(
        &mut self,
        at: At<'_>,
        map: &Map<String, Value>,
        old: Old<'_>,
        nearest: Option<&Pair<'_>>,
    ) {
        let len = self.path.len();
        for (name, child) in map {
            let (Some((rules, _)), Some((types, in_map))) =
                (below(at.rules, name), below(at.types, name))
            else {
                continue;
            };
            match (in_map, len) {
                (true, _) => self.path.push_str(&format!("[{name}]")),
                (false, 0) => self.path.push_str(name),
                (false, _) => self.path.push_str(&format!(".{name}")),
            }
            let old = old.key(at.types, name);
            let embedded = types.embedded_resource;
            self.node(At { rules, types }, child, old, nearest, embedded);
            self.path.truncate(len);
        }
    }

    fn items(&mut self, at: At<'_>, items: &[Value], old: Old<'_>, nearest: Option<&Pair<'_>>) {
        let (Some(rules), Some(types)) = (&at.rules.items, &at.types.items) else {
            return;
        };
        if !rules.has_rules {
            return;
        }
        let len = self.path.len();
        let old = old.items(at.types, items);
        for (i, (item, old)) in items.iter().zip(old).enumerate() {
            self.path.push_str(&format!("[{i}]"));
            let embedded = types.embedded_resource;
            self.node(At { rules, types }, item, old, nearest, embedded);
            self.path.truncate(len);
        }
    }

    fn rules(
        &mut self,
        at: At<'_>,
        value: &Value,
        old: Option<&Value>,
        nearest: Option<&Pair<'_>>,
        resource: bool,
    ) {
        let rules = &at.rules.rules;
        let mut scope = Scope::new();
        let needed = |field: &str| rules.iter().any(|rule| rule.looks_at(field));
        scope.set("self", to_cel(at.types, value, resource, &needed));
        let old_cel = match old {
            Some(old) if rules.iter().any(Rule::names_old_self) => {
                Some(old_to_cel(at.types, old, value, resource, &needed))
            }
            _ => None,
        };
        for rule in rules {
            if rule.expression.uses_old_self && old.is_none() && !rule.optional_old_self {
                continue;
            }
            if rule.optional_old_self {
                scope.set("oldSelf", optional(old_cel.clone()));
            } else if let Some(old) = &old_cel {
                scope.set("oldSelf", old.clone());
            }
            self.rule(at.types, rule, &scope, (value, old), nearest);
            if self.stopped {
                return;
            }
        }
    }

    fn rule(
        &mut self,
        schema: &Node,
        rule: &Rule,
        scope: &Scope,
        (value, old): (&Value, Option<&Value>),
        nearest: Option<&Pair<'_>>,
    ) {
        let kind = shown_type(schema.kind);
        let here = if self.path.is_empty() {
            "<nil>".to_owned()
        } else {
            self.path.clone()
        };
        let cost = estimate(&rule.expression.tree, value, old);
        if cost > PER_CALL {
            let detail = format!(
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                rule.shown()
            );
            self.errors.push(FieldError::invalid(here, &kind, &detail));
            self.stopped = true;
            return;
        }
        if !self.spend(cost) {
            self.errors
                .push(FieldError::invalid(here, &kind, OUT_OF_BUDGET));
            return;
        }
        let detail = match scope.evaluate(&rule.expression) {
            Ok(Cel::Bool(true)) => return,
            Ok(_) => None,
            Err(error) if error == "no such overload" => Some(format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                rule.shown()
            )),
            Err(error) => Some(format!("{error} evaluating rule: {}", rule.shown())),
        };
        if let Some(detail) = detail {
            self.errors.push(FieldError::invalid(here, &kind, &detail));
            return;
        }
        // What is wrong but did not change is let through; a rule about the change itself always counts.
        if !rule.expression.uses_old_self && nearest.is_some_and(Pair::is_unchanged) {
            return;
        }
        let message = self.message(rule, scope, (value, old));
        let field = rule.field(schema, &self.path);
        self.errors
            .push(rule.failed(field, shown_value(schema.kind, value), &message));
    }

    /// What to say of a rule that is false: its `messageExpression`, where that gives one good line, else its message.
    fn message(
        &mut self,
        rule: &Rule,
        scope: &Scope,
        (value, old): (&Value, Option<&Value>),
    ) -> String {
        let Some(expression) = &rule.message_expression else {
            return rule.message();
        };
        let lacks_old = old.is_none() && expression.uses_old_self;
        let cost = estimate(&expression.tree, value, old);
        if cost > PER_CALL || lacks_old && !rule.optional_old_self || !self.spend(cost) {
            return rule.message();
        }
        match scope.evaluate(expression) {
            Ok(Cel::String(text)) => {
                let text = text.trim();
                if text.is_empty() || text.len() > MAX_MESSAGE || text.contains('\n') {
                    rule.message()
                } else {
                    text.to_owned()
                }
            }
            _ => rule.message(),
        }
    }

    fn spend(&mut self, cost: u64) -> bool {
        match self.budget.checked_sub(cost) {
            Some(left) => {
                self.budget = left;
                true
            }
            None => {
                self.stopped = true;
                false
            }
        }
    }
}

/// What a refusal shows of a value: none of an object or a list, which can be long.
fn shown_value(kind: Type, value: &Value) -> Option<&Value> {
    (!matches!(kind, Type::Object | Type::Array)).then_some(value)
}

/// Faults of evaluation show the type of a value in its place.
fn shown_type(kind: Type) -> Value {
    match kind {
        Type::Any | Type::IntOrString => Value::from(""),
        other => Value::from(other.name()),
    }
}
