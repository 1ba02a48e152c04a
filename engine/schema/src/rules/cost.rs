//! What an expression can cost at most, told from the values it will see, before it is evaluated.
//!
//! The library evaluates to the end whatever an expression costs, so one that could take too long must not be started.
//! A unit is about one value copied or one operation done.

use super::convert::escaped;
use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue};
use kube_cel::cel::parser::Expression;
use serde_json::Value;

/// The most that one evaluation may cost.
pub(super) const PER_CALL: u64 = 1_000_000;

/// The most that all rules of one object may cost.
pub(super) const PER_OBJECT: u64 = 10_000_000;

/// An upper bound of the cost; more than [`PER_CALL`] when that is passed, without measuring by how much.
pub(super) fn estimate(expression: &Expression, own: &Value, old: Option<&Value>) -> u64 {
    let mut measure = Measure {
        spent: 0,
        times: 1,
        variables: Vec::new(),
    };
    let own = measure.values(vec![own]);
    measure.variables.push(("self", own));
    if let Some(old) = old {
        let old = measure.values(vec![old]);
        measure.variables.push(("oldSelf", old));
    }
    measure.expression(expression);
    measure.spent
}

/// What a part of an expression can be: one of some values known, else anything up to a size.
#[derive(Clone, Debug, Default)]
struct Part<'v> {
    known: Vec<&'v Value>,
    /// The most items, keys or characters.
    length: u64,
    /// The most values inside, long texts counting more.
    weight: u64,
}

impl Part<'_> {
    fn scalar() -> Self {
        Self::sized(1, 1)
    }

    fn sized(length: u64, weight: u64) -> Self {
        Self {
            known: Vec::new(),
            length,
            weight,
        }
    }
}

struct Measure<'e, 'v> {
    spent: u64,
    /// How often the part at hand is evaluated.
    times: u64,
    variables: Vec<(&'e str, Part<'v>)>,
}

impl<'e, 'v> Measure<'e, 'v> {
    fn spend(&mut self, units: u64) {
        self.spent = self
            .spent
            .saturating_add(units.max(1).saturating_mul(self.times));
    }

    fn over(&self) -> bool {
        self.spent > PER_CALL
    }

    /// One of these values; taking it costs a copy.
    fn values(&mut self, known: Vec<&'v Value>) -> Part<'v> {
        let mut part = Part::sized(0, 1);
        for value in &known {
            part.length = part.length.max(length(value));
            part.weight = part.weight.max(weight(value));
        }
        self.spend(part.weight);
        part.known = known;
        part
    }

    fn expression(&mut self, expression: &'e Expression) -> Part<'v> {
        if self.over() {
            return Part::scalar();
        }
        match &expression.expr {
            Expr::Unspecified => Part::scalar(),
            Expr::Literal(LiteralValue::String(s)) => {
                let length = s.inner().len() as u64;
                Part::sized(length, 1 + length / 16)
            }
            Expr::Literal(_) => Part::scalar(),
            Expr::Ident(name) => {
                self.spend(1);
                self.variables
                    .iter()
                    .rev()
                    .find(|(n, _)| n == name)
                    .map_or_else(Part::scalar, |(_, part)| part.clone())
            }
            Expr::Select(select) => {
                let operand = self.expression(&select.operand);
                if select.test {
                    self.spend(1);
                    return Part::scalar();
                }
                self.child(&operand, |value| {
                    field(value, &select.field).into_iter().collect()
                })
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.sum(list.elements.iter()),
            Expr::Map(map) => self.sum(map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            })),
            Expr::Struct(_) => Part::scalar(),
            Expr::Comprehension(all) => self.comprehension(all),
        }
    }

    /// What a part of a value can be.
    fn child(&mut self, of: &Part<'v>, pick: impl Fn(&'v Value) -> Vec<&'v Value>) -> Part<'v> {
        if of.known.is_empty() {
            self.spend(of.weight);
            return Part::sized(of.weight.saturating_mul(16), of.weight);
        }
        let known: Vec<&Value> = of.known.iter().flat_map(|v| pick(v)).collect();
        self.values(known)
    }

    /// A list or map made of parts.
    fn sum(&mut self, parts: impl Iterator<Item = &'e Expression>) -> Part<'v> {
        let (mut length, mut weight) = (0, 1_u64);
        for part in parts {
            length += 1;
            weight = weight.saturating_add(self.expression(part).weight);
        }
        self.spend(weight);
        Part::sized(length, weight)
    }

    fn call(&mut self, call: &'e CallExpr) -> Part<'v> {
        let name = call.func_name.as_str();
        let parts: Vec<Part<'v>> = call
            .target
            .iter()
            .map(AsRef::as_ref)
            .chain(&call.args)
            .map(|argument| self.expression(argument))
            .collect();
        if let ("_[_]" | "_[?_]" | "_?._", Some(of)) = (name, parts.first()) {
            return self.child(of, items);
        }
        let (mut length, mut weight) = (0_u64, 1_u64);
        for part in &parts {
            length = length.saturating_add(part.length);
            weight = weight.saturating_add(part.weight);
        }
        match name {
            // What these make can be as long as one argument times another.
            "replace" | "join" | "format" => {
                length = parts
                    .iter()
                    .map(|p| p.length.max(p.weight.saturating_mul(16)).max(1))
                    .fold(1, u64::saturating_mul);
                weight = weight.saturating_add(length / 16);
            }
            // Patterns are compiled every time.
            "matches" | "find" | "findAll" => self.spend(200),
            _ => {}
        }
        self.spend(weight);
        // Every pair of items is looked at.
        if matches!(name, "@in" | "indexOf" | "lastIndexOf" | "distinct")
            || name.starts_with("contains")
            || matches!(name, "intersects" | "equivalent")
        {
            self.spend(parts.iter().map(|p| p.weight).fold(1, u64::saturating_mul));
        }
        match parts.as_slice() {
            [_, yes, no] if name == "_?_:_" => {
                let mut known = yes.known.clone();
                known.extend(&no.known);
                if yes.known.is_empty() || no.known.is_empty() {
                    known.clear();
                }
                Part {
                    known,
                    length: yes.length.max(no.length),
                    weight: yes.weight.max(no.weight),
                }
            }
            _ if name.starts_with('_') && name != "_+_" || name.starts_with('@') => Part::scalar(),
            _ => Part::sized(length, weight),
        }
    }

    fn comprehension(&mut self, all: &'e ComprehensionExpr) -> Part<'v> {
        let range = self.expression(&all.iter_range);
        let start = self.expression(&all.accu_init);
        let item = match range.known.is_empty() {
            true => Part::sized(range.weight.saturating_mul(16), range.weight),
            false => {
                let known: Vec<&Value> = range.known.iter().flat_map(|v| items(v)).collect();
                let mut item = Part::sized(64, 1);
                for value in &known {
                    item.length = item.length.max(length(value));
                    item.weight = item.weight.max(weight(value));
                }
                item.known = known;
                item
            }
        };
        let rounds = range.length;
        let grows = matches!(all.accu_init.expr, Expr::List(_) | Expr::Map(_));
        let (depth, times) = (self.variables.len(), self.times);
        self.times = times.saturating_mul(rounds.max(1));
        self.spend(item.weight);
        self.variables.push((&all.iter_var, item));
        let mut result = start.clone();
        if grows {
            // By how much one round lets the result grow, not counted yet.
            let spent = self.spent;
            self.variables.push((&all.accu_var, start));
            let step = self.expression(&all.loop_step).weight;
            self.variables.pop();
            if !self.over() {
                self.spent = spent;
            }
            result = Part::sized(rounds, rounds.saturating_mul(step).saturating_add(1));
        }
        self.variables.push((&all.accu_var, result.clone()));
        self.expression(&all.loop_cond);
        self.expression(&all.loop_step);
        self.times = times;
        let last = self.expression(&all.result);
        self.variables.truncate(depth);
        if grows { result } else { last }
    }
}

/// What a key of a field holds; the name may be an escaped one.
fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    map.get(name).or_else(|| {
        if !name.contains("__") {
            return None;
        }
        map.iter()
            .find(|(key, _)| escaped(key) == name)
            .map(|(_, child)| child)
    })
}

fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn length(value: &Value) -> u64 {
    match value {
        Value::String(s) => s.len() as u64,
        Value::Array(items) => items.len() as u64,
        Value::Object(map) => map.len() as u64,
        _ => 1,
    }
}

fn weight(value: &Value) -> u64 {
    match value {
        Value::String(s) => 1 + s.len() as u64 / 16,
        Value::Array(items) => 1 + items.iter().map(weight).sum::<u64>(),
        Value::Object(map) => {
            1 + map
                .iter()
                .map(|(key, child)| 1 + key.len() as u64 / 16 + weight(child))
                .sum::<u64>()
        }
        _ => 1,
    }
}
