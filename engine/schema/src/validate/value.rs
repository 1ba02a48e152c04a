//! Types, required fields, enumerations, bounds, patterns, formats and combined schemas.

use super::Old;
use super::structure::repeated;
use crate::error::{FieldError, go_float};
use crate::structural::{Additional, Node, Type};
use serde_json::{Number, Value, json};
use std::cmp::Ordering::{Equal, Greater, Less};

/// Checks a value; `prefix` is where it stands in its object, which fields carry and the texts of messages do not.
pub(super) fn check(
    schema: &Node,
    value: &Value,
    old: Option<&Value>,
    prefix: &str,
) -> Vec<FieldError> {
    let mut walk = Walk {
        prefix,
        path: String::new(),
        errors: Vec::new(),
    };
    walk.node(schema, value, Old(old));
    walk.errors
}

struct Walk<'a> {
    prefix: &'a str,
    path: String,
    errors: Vec<FieldError>,
}

impl Walk<'_> {
    /// Checks one value. What is wrong in it is let through when it did not change.
    fn node(&mut self, schema: &Node, value: &Value, old: Old<'_>) {
        let before = self.errors.len();
        self.kind(schema, value);
        if value.is_null() {
            self.allowed(schema, value);
        } else {
            self.junctors(schema, value);
            match value {
                Value::String(text) => self.text(schema, text, value),
                Value::Number(number) => self.number(schema, number, value),
                Value::Array(items) => self.items(schema, items, old),
                _ => {}
            }
            self.allowed(schema, value);
            if let Value::Object(map) = value {
                self.fields(schema, map, old);
            }
        }
        if self.errors.len() > before && old.0 == Some(value) {
            self.errors.truncate(before);
        }
    }

    /// Where the value at hand stands in its object; `<nil>` for the object itself.
    fn field(&self) -> String {
        match (self.prefix, self.path.as_str()) {
            ("", "") => "<nil>".to_owned(),
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) if path.starts_with('[') => format!("{prefix}{path}"),
            (prefix, path) => format!("{prefix}.{path}"),
        }
    }

    fn invalid(&mut self, value: &Value, what: &str) {
        let detail = format!("{} in body {what}", self.path);
        self.errors
            .push(FieldError::invalid(self.field(), value, &detail));
    }

    /// A value that is not of a type or format; `found` is the type it has, or the text that lacks the format.
    fn type_invalid(&mut self, wanted: &str, found: &str) {
        let found = json!(found);
        let detail = format!("{} in body must be of type {wanted}: {found}", self.path);
        self.errors
            .push(FieldError::type_invalid(self.field(), &found, &detail));
    }

    /// Errors of combined schemas stand at the object as a whole.
    fn junctor(&mut self, what: &str) {
        let field = if self.prefix.is_empty() {
            "<nil>"
        } else {
            self.prefix
        };
        let detail = format!("{} {what}", json!(self.path));
        self.errors
            .push(FieldError::invalid(field, &json!(""), &detail));
    }

    fn kind(&mut self, schema: &Node, value: &Value) {
        let kind = schema.kind;
        if kind == Type::Any {
            return;
        }
        let (found, format) = found(value);
        if value.is_null() {
            if !schema.nullable {
                self.type_invalid(kind.name(), found);
            }
            return;
        }
        let fits = match (kind, value) {
            (Type::Any, _)
            | (Type::Object, Value::Object(_))
            | (Type::Array, Value::Array(_))
            | (Type::String | Type::IntOrString, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Boolean, Value::Bool(_)) => true,
            (Type::Integer | Type::IntOrString, Value::Number(number)) => whole(number),
            _ => false,
        };
        if fits {
            return;
        }
        // With a format, all but texts and lists are measured by it instead of by the type.
        match (&schema.checks.format, value) {
            (Some(wanted), Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                self.type_invalid(wanted, format);
            }
            _ => self.type_invalid(kind.name(), found),
        }
        if kind == Type::Integer && value.is_number() {
            self.out_of_range("integer", schema.checks.format.as_deref());
        }
    }

    /// A number that its type or format cannot hold; told of the object as a whole.
    fn out_of_range(&mut self, kind: &str, format: Option<&str>) {
        let field = if self.prefix.is_empty() {
            "<nil>"
        } else {
            self.prefix
        };
        let format = match format {
            Some(format) => format!(" with format {format}"),
            None => " (default format)".to_owned(),
        };
        let detail = format!(
            "Checked value must be of type {kind}{format} in {}",
            self.path
        );
        self.errors
            .push(FieldError::invalid(field, &json!(""), &detail));
    }

    fn text(&mut self, schema: &Node, text: &str, value: &Value) {
        let checks = &schema.checks;
        let length = text.chars().count() as u64;
        if let Some(max) = checks.max_length
            && length > max
        {
            let field = self.field();
            self.errors.push(FieldError::too_long(field, max));
        } else if let Some(min) = checks.min_length
            && length < min
        {
            self.invalid(value, &format!("should be at least {min} chars long"));
        } else if let Some((source, pattern)) = &checks.pattern
            && !pattern.is_match(text)
        {
            self.invalid(value, &format!("should match '{source}'"));
        }
        if let Some(format) = &checks.format
            && !super::format::fits(format, text)
        {
            self.type_invalid(format, text);
        }
    }

    fn number(&mut self, schema: &Node, number: &Number, value: &Value) {
        let checks = &schema.checks;
        if let Some(format @ ("int32" | "int64")) = checks.format.as_deref()
            && whole(number)
            && !in_range(format, number)
        {
            self.out_of_range("integer", Some(format));
        }
        let large = number
            .as_f64()
            .is_some_and(|f| f.abs() > f64::from(f32::MAX));
        if schema.kind == Type::Number && checks.format.as_deref() == Some("float") && large {
            self.out_of_range("number", Some("float"));
        }
        if let Some(factor) = &checks.multiple_of
            && !multiple(number, factor)
        {
            let factor = bound(number, factor);
            self.invalid(value, &format!("should be a multiple of {factor}"));
        }
        if let Some(min) = &checks.minimum {
            let words = match (checks.exclusive_minimum, compare(number, min)) {
                (false, Less) => "should be greater than or equal to",
                (true, Less | Equal) => "should be greater than",
                _ => "",
            };
            if !words.is_empty() {
                self.invalid(value, &format!("{words} {}", bound(number, min)));
            }
        }
        if let Some(max) = &checks.maximum {
            let words = match (checks.exclusive_maximum, compare(number, max)) {
                (false, Greater) => "should be less than or equal to",
                (true, Greater | Equal) => "should be less than",
                _ => "",
            };
            if !words.is_empty() {
                self.invalid(value, &format!("{words} {}", bound(number, max)));
            }
        }
    }

    fn items(&mut self, schema: &Node, items: &[Value], old: Old<'_>) {
        if let Some(node) = &schema.items {
            let len = self.path.len();
            let old = old.items(schema, items);
            for (i, (item, old)) in items.iter().zip(old).enumerate() {
                self.path.push_str(&format!("[{i}]"));
                self.node(node, item, old);
                self.path.truncate(len);
            }
        }
        let checks = &schema.checks;
        let count = items.len() as u64;
        if let Some(min) = checks.min_items
            && count < min
        {
            self.invalid(&json!(count), &format!("should have at least {min} items"));
        }
        if let Some(max) = checks.max_items
            && count > max
        {
            let field = self.field();
            self.errors
                .push(FieldError::too_many(field, items.len(), max));
        }
        if checks.unique_items && !repeated(items.iter()).is_empty() {
            self.invalid(&json!(""), "shouldn't contain duplicates");
        }
    }

    fn fields(&mut self, schema: &Node, map: &serde_json::Map<String, Value>, old: Old<'_>) {
        let checks = &schema.checks;
        let count = map.len() as u64;
        if let Some(min) = checks.min_properties
            && count < min
        {
            self.invalid(
                &json!(count),
                &format!("should have at least {min} properties"),
            );
            return;
        }
        if let Some(max) = checks.max_properties
            && count > max
        {
            let field = self.field();
            self.errors
                .push(FieldError::too_many(field, map.len(), max));
            return;
        }
        for (name, child) in map {
            if let (None, Some(Additional::Node(node))) =
                (schema.properties.get(name), &schema.additional)
            {
                self.below(name, |walk| walk.node(node, child, old.key(schema, name)));
            }
        }
        for (name, node) in &schema.properties {
            if let Some(child) = map.get(name) {
                self.below(name, |walk| walk.node(node, child, old.key(schema, name)));
            }
        }
        for name in schema.required.iter().filter(|r| !map.contains_key(*r)) {
            self.below(name, |walk| {
                let field = walk.field();
                walk.errors.push(FieldError::required(field, ""));
            });
        }
    }

    fn below(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        check(self);
        self.path.truncate(len);
    }

    fn allowed(&mut self, schema: &Node, value: &Value) {
        if let Some(allowed) = &schema.checks.allowed
            && !allowed.is_empty()
            && !allowed.iter().any(|a| equal(a, value))
        {
            let field = self.field();
            self.errors
                .push(FieldError::not_supported(field, value, allowed));
        }
    }

    fn junctors(&mut self, schema: &Node, value: &Value) {
        let Some(junctors) = &schema.junctors else {
            return;
        };
        if !junctors.any_of.is_empty() {
            let (valid, best) = self.try_each(&junctors.any_of, value, true);
            if valid == 0 {
                self.junctor("must validate at least one schema (anyOf)");
                self.errors.extend(best);
            }
        }
        if !junctors.one_of.is_empty() {
            let (valid, best) = self.try_each(&junctors.one_of, value, false);
            if valid == 0 {
                self.junctor("must validate one and only one schema (oneOf). Found none valid");
                self.errors.extend(best);
            } else if valid > 1 {
                self.junctor(&format!(
                    "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                ));
            }
        }
        if !junctors.all_of.is_empty() {
            let mut valid = 0;
            for node in &junctors.all_of {
                let before = self.errors.len();
                self.node(node, value, Old(None));
                valid += usize::from(self.errors.len() == before);
            }
            if valid == 0 {
                self.junctor("must validate all the schemas (allOf). None validated");
            } else if valid < junctors.all_of.len() {
                self.junctor("must validate all the schemas (allOf)");
            }
        }
        if let Some(node) = &junctors.not
            && self.attempt(node, value).is_empty()
        {
            self.junctor("must not validate the schema (not)");
        }
    }

    /// How many of the schemas a value fits, and what is wrong with it by the one that it fits best (fewest errors,
    /// the first of equals).
    fn try_each(
        &mut self,
        nodes: &[Node],
        value: &Value,
        enough_with_one: bool,
    ) -> (usize, Vec<FieldError>) {
        let mut valid = 0;
        let mut best: Option<Vec<FieldError>> = None;
        for node in nodes {
            let errors = self.attempt(node, value);
            if errors.is_empty() {
                valid += 1;
                if enough_with_one {
                    break;
                }
            } else if best.as_ref().is_none_or(|b| errors.len() < b.len()) {
                best = Some(errors);
            }
        }
        (valid, best.unwrap_or_default())
    }

    fn attempt(&mut self, node: &Node, value: &Value) -> Vec<FieldError> {
        let before = self.errors.len();
        self.node(node, value, Old(None));
        self.errors.split_off(before)
    }
}

/// The names of a value's type and of its format.
fn found(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(n) if n.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

/// Whether a number has no fraction.
fn whole(number: &Number) -> bool {
    number.is_i64()
        || number.is_u64()
        || number
            .as_f64()
            .is_some_and(|f| f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0)
}

fn in_range(format: &str, number: &Number) -> bool {
    match (number.as_i64(), number.as_f64()) {
        (Some(i), _) => format == "int64" || i32::try_from(i).is_ok(),
        (None, Some(f)) if number.is_f64() => {
            format == "int64" || (f >= f64::from(i32::MIN) && f <= f64::from(i32::MAX))
        }
        _ => false,
    }
}

fn compare(a: &Number, b: &Number) -> std::cmp::Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            a.partial_cmp(&b).unwrap_or(Equal)
        }
    }
}

fn multiple(number: &Number, factor: &Number) -> bool {
    match (number.as_i64(), factor.as_i64()) {
        (_, Some(0)) => true,
        (Some(n), Some(f)) => n.checked_rem(f).unwrap_or(0) == 0,
        _ => {
            let (n, f) = (
                number.as_f64().unwrap_or(0.0),
                factor.as_f64().unwrap_or(1.0),
            );
            let times = if f < 1.0 { 1.0 / f * n } else { n / f };
            (times - times.round()).abs() < 1e-9 * times.abs().max(1.0)
        }
    }
}

/// A bound as it stands in a message: a whole number next to a whole value, else as Go prints a float.
fn bound(value: &Number, bound: &Number) -> String {
    match (value.is_f64(), bound.as_i64()) {
        (false, Some(i)) => i.to_string(),
        _ => go_float(bound.as_f64().unwrap_or(0.0)),
    }
}

/// Equality as of an enumeration: 1 and 1.0 are the same.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Equal,
        _ => a == b,
    }
}
