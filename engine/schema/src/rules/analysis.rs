//! What an expression refers to, before it is ever evaluated.

use super::evaluate;
use kube_cel::cel::common::ast::{EntryExpr, Expr, operators};
use kube_cel::cel::parser::Expression;
use std::collections::BTreeSet;

/// The deepest nesting of loops in one expression.
const MAX_LOOPS: usize = 8;

/// The deepest tree of an expression, so that evaluating it fits the stack.
const MAX_DEPTH: usize = 100;

/// The deepest nesting of brackets, so that parsing fits the parser's stack.
const MAX_BRACKETS: usize = 90;

/// The most operators, dots and brackets in one expression; no tree of it can be deeper.
const MAX_OPERATORS: usize = 1000;

/// Refuses an expression that could need more stack than the parser has, before it is parsed.
pub(super) fn small(source: &str) -> Result<(), String> {
    let (mut operators, mut open, mut deepest) = (source.matches(" in ").count(), 0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
        operators += usize::from(b"+-*/%<>=!&|?.([{".contains(&byte));
    }
    if operators > MAX_OPERATORS {
        return Err(format!(
            "the expression has {operators} operators; at most {MAX_OPERATORS} are allowed, so split the rule"
        ));
    }
    if deepest > MAX_BRACKETS {
        return Err(format!(
            "brackets are nested deeper than {MAX_BRACKETS}, so split the rule"
        ));
    }
    Ok(())
}

/// Turns `a.?b` into `a[?'b']`, which is the same but gives nothing, not an error, for a field that is absent.
pub(super) fn prepare(expression: &mut Expression) {
    match &mut expression.expr {
        Expr::Call(call) => {
            if call.func_name == operators::OPT_SELECT {
                operators::OPT_INDEX.clone_into(&mut call.func_name);
            }
            call.target.iter_mut().for_each(|t| prepare(t));
            call.args.iter_mut().for_each(prepare);
        }
        Expr::Select(select) => prepare(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(prepare),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    prepare(&mut entry.key);
                    prepare(&mut entry.value);
                }
            }
        }
        Expr::Comprehension(all) => {
            for part in [
                &mut all.iter_range,
                &mut all.accu_init,
                &mut all.loop_cond,
                &mut all.loop_step,
                &mut all.result,
            ] {
                prepare(part);
            }
        }
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
    }
}

/// The fields of `self` and `oldSelf` that an expression looks at; `None` when it uses either as a whole.
pub(super) fn selected(expression: &Expression) -> Option<BTreeSet<String>> {
    let (mut whole, mut selected) = (false, BTreeSet::new());
    let mut walk = Walk {
        scope: Vec::new(),
        loops: 0,
        depth: 0,
        deepest: 0,
        free: &mut |name| whole |= is_value(name),
        selected: Some(&mut selected),
        faults: Vec::new(),
    };
    walk.expression(expression);
    (!whole).then_some(selected)
}

/// Whether a name is the value that a rule is about, or the stored one.
fn is_value(name: &str) -> bool {
    matches!(name, "self" | "oldSelf")
}

/// Whether an expression names a variable that no loop of its own declares.
pub(super) fn names(expression: &Expression, variable: &str) -> bool {
    let mut found = false;
    let mut walk = Walk {
        scope: Vec::new(),
        loops: 0,
        depth: 0,
        deepest: 0,
        free: &mut |name| found |= name == variable,
        selected: None,
        faults: Vec::new(),
    };
    walk.expression(expression);
    found
}

/// Refuses names of variables and functions that do not exist, and what is nested too deep. Gives the depth of the tree.
pub(super) fn check(expression: &Expression) -> Result<usize, String> {
    let mut unknown = Vec::new();
    let mut walk = Walk {
        scope: Vec::new(),
        loops: 0,
        depth: 0,
        deepest: 0,
        free: &mut |name| {
            if !is_value(name) && !evaluate::is_variable(name) {
                unknown.push(undeclared(name));
            }
        },
        selected: None,
        faults: Vec::new(),
    };
    walk.expression(expression);
    let (mut faults, deepest) = (walk.faults, walk.deepest);
    faults.extend(unknown);
    faults.dedup();
    if faults.is_empty() {
        Ok(deepest)
    } else {
        Err(faults.join("; "))
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

struct Walk<'e, 'f> {
    scope: Vec<&'e str>,
    loops: usize,
    depth: usize,
    deepest: usize,
    free: &'f mut dyn FnMut(&str),
    /// Takes the fields selected from the values, which then do not count as named.
    selected: Option<&'f mut BTreeSet<String>>,
    faults: Vec<String>,
}

impl<'e> Walk<'e, '_> {
    fn expression(&mut self, expression: &'e Expression) {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        if self.depth > MAX_DEPTH {
            self.faults.push(format!(
                "the expression is nested deeper than {MAX_DEPTH}, so split the rule"
            ));
        } else {
            self.parts(expression);
        }
        self.depth -= 1;
    }

    fn parts(&mut self, expression: &'e Expression) {
        match &expression.expr {
            Expr::Unspecified => self
                .faults
                .push("the expression is not complete".to_owned()),
            Expr::Literal(_) => {}
            Expr::Ident(name) => {
                if !name.starts_with('@') && !self.scope.contains(&name.as_str()) {
                    (self.free)(name);
                }
            }
            Expr::Select(select) => match (&select.operand.expr, &mut self.selected) {
                (Expr::Ident(name), Some(selected))
                    if is_value(name) && !self.scope.contains(&name.as_str()) =>
                {
                    selected.insert(select.field.clone());
                }
                _ => self.expression(&select.operand),
            },
            Expr::Call(call) => {
                let mut known = None;
                if let Some(target) = &call.target {
                    if let Expr::Ident(space) = &target.expr
                        && !self.scope.contains(&space.as_str())
                    {
                        let qualified = format!("{space}.{}", call.func_name);
                        known = evaluate::is_function(&qualified).then_some(());
                    }
                    if known.is_none() {
                        self.expression(target);
                    }
                }
                if known.is_none() && !evaluate::is_function(&call.func_name) {
                    self.faults.push(undeclared(&call.func_name));
                }
                for argument in &call.args {
                    self.expression(argument);
                }
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.expression(element);
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.expression(&entry.key);
                            self.expression(&entry.value);
                        }
                        EntryExpr::StructField(field) => self.expression(&field.value),
                    }
                }
            }
            Expr::Struct(message) => self
                .faults
                .push(undeclared(message.type_name.trim_start_matches('.'))),
            Expr::Comprehension(all) => {
                self.expression(&all.iter_range);
                self.expression(&all.accu_init);
                let (len, loops) = (self.scope.len(), self.loops);
                self.loops += 1;
                if self.loops > MAX_LOOPS {
                    self.faults
                        .push(format!("loops are nested deeper than {MAX_LOOPS}"));
                    return;
                }
                self.scope.push(&all.iter_var);
                self.scope.extend(all.iter_var2.as_deref());
                self.scope.push(&all.accu_var);
                self.expression(&all.loop_cond);
                self.expression(&all.loop_step);
                self.expression(&all.result);
                self.scope.truncate(len);
                self.loops = loops;
            }
        }
    }
}
