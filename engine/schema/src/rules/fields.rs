//! Fields that an expression names and its schema does not have.

use super::convert::escaped;
use crate::structural::{Additional, Node, Type};
use kube_cel::cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use kube_cel::cel::parser::Expression;

/// The fields that no value of this node can have, named in an expression about it. What is not sure is let through.
pub(super) fn undefined(expression: &Expression, node: &Node, optional_old: bool) -> Vec<String> {
    let mut walk = Walk {
        scope: vec![
            ("self", Some(node)),
            ("oldSelf", (!optional_old).then_some(node)),
        ],
        undefined: Vec::new(),
    };
    walk.shape(expression);
    walk.undefined.dedup();
    walk.undefined
}

struct Walk<'e, 'n> {
    /// Variables and, where known, the schemas of what they hold.
    scope: Vec<(&'e str, Option<&'n Node>)>,
    undefined: Vec<String>,
}

impl<'e, 'n> Walk<'e, 'n> {
    /// The schema of what an expression gives, when it is one of a value at hand.
    fn shape(&mut self, expression: &'e Expression) -> Option<&'n Node> {
        match &expression.expr {
            Expr::Ident(name) => {
                let found = self.scope.iter().rev().find(|(n, _)| n == name);
                found.and_then(|(_, node)| *node)
            }
            Expr::Select(select) => {
                let of = self.shape(&select.operand)?;
                self.field(of, &select.field)
            }
            Expr::Call(call) => {
                let parts: Vec<Option<&Node>> = call
                    .target
                    .iter()
                    .map(AsRef::as_ref)
                    .chain(&call.args)
                    .map(|part| self.shape(part))
                    .collect();
                match (call.func_name.as_str(), call.args.as_slice()) {
                    (operators::INDEX, [_, _]) => item(parts[0]?),
                    (operators::OPT_INDEX, [_, key]) => {
                        if let Expr::Literal(LiteralValue::String(name)) = &key.expr {
                            self.field(parts[0]?, name.inner());
                        }
                        None
                    }
                    _ => None,
                }
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.shape(element);
                }
                None
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.shape(&entry.key);
                        self.shape(&entry.value);
                    }
                }
                None
            }
            Expr::Comprehension(all) => {
                let range = self.shape(&all.iter_range);
                self.shape(&all.accu_init);
                let each = range.filter(|r| r.kind == Type::Array).and_then(item);
                let len = self.scope.len();
                match &all.iter_var2 {
                    // The first of two variables is the index.
                    Some(second) => self.scope.extend([
                        (all.iter_var.as_str(), None),
                        (second.as_str(), range.and_then(item)),
                    ]),
                    None => self.scope.push((&all.iter_var, each)),
                }
                self.scope.push((&all.accu_var, None));
                self.shape(&all.loop_cond);
                self.shape(&all.loop_step);
                self.shape(&all.result);
                self.scope.truncate(len);
                None
            }
            Expr::Unspecified | Expr::Literal(_) | Expr::Struct(_) => None,
        }
    }

    fn field(&mut self, of: &'n Node, name: &str) -> Option<&'n Node> {
        // Every resource has these, declared or not, and sees less of them than is declared.
        if matches!(name, "apiVersion" | "kind" | "metadata") {
            return None;
        }
        let found = of.properties.get(name).or_else(|| {
            let mut all = of.properties.iter();
            all.find(|(key, _)| escaped(key) == name).map(|(_, n)| n)
        });
        if found.is_some() {
            return found;
        }
        match &of.additional {
            Some(Additional::Node(node)) => Some(node),
            Some(Additional::Any) => None,
            None => {
                if of.kind == Type::Object && !of.preserve_unknown && !of.properties.is_empty() {
                    self.undefined.push(format!("undefined field '{name}'"));
                }
                None
            }
        }
    }
}

/// The schema of what a list or map holds.
fn item(of: &Node) -> Option<&Node> {
    match (&of.items, &of.additional) {
        (Some(node), _) | (None, Some(Additional::Node(node))) => Some(node),
        _ => None,
    }
}
