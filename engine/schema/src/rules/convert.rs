//! From JSON to the values that rules see.

use crate::structural::{Additional, ListType, Node, Type};
use crate::validate::canonical;
use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::{Key, Map};
use serde_json::{Number, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Whether a rule looks at a field of the value that it is about, by the name that it has in rules.
type Needed<'a> = &'a dyn Fn(&str) -> bool;

/// The value at a node as a rule sees it; fields of it that are not `needed` are left out.
///
/// At the root of a resource, only `name` and `generateName` of the metadata are seen.
pub(super) fn to_cel(schema: &Node, value: &Value, resource: bool, needed: Needed<'_>) -> Cel {
    convert(Some(schema), value, None, resource, needed)
}

/// A stored value as a rule sees it. Where lists that are sets or maps hold the same items (or keys) as the new value,
/// they are given its order, because order makes no difference in them.
pub(super) fn old_to_cel(
    schema: &Node,
    value: &Value,
    new: &Value,
    resource: bool,
    needed: Needed<'_>,
) -> Cel {
    convert(Some(schema), value, Some(new), resource, needed)
}

fn convert(
    schema: Option<&Node>,
    value: &Value,
    like: Option<&Value>,
    resource: bool,
    needed: Needed<'_>,
) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => number(schema, n),
        Value::String(s) => text(schema, s),
        Value::Array(items) => list(schema, items, like),
        Value::Object(map) => {
            let is_map = schema.is_some_and(|s| s.additional.is_some() && s.properties.is_empty());
            let mut out = HashMap::with_capacity(map.len().min(8));
            for (name, child) in map {
                let node = schema.and_then(|s| s.child(name));
                let key = if is_map || node.is_none() && !resource {
                    name.clone()
                } else {
                    escaped(name)
                };
                if !needed(&key) {
                    continue;
                }
                let converted = if resource && name == "metadata" {
                    metadata(child)
                } else {
                    let like = like.and_then(|l| l.get(name));
                    let embedded = node.is_some_and(|n| n.embedded_resource);
                    convert(node, child, like, embedded, &|_| true)
                };
                out.insert(Key::String(Arc::new(key)), converted);
            }
            Cel::Map(Map { map: Arc::new(out) })
        }
    }
}

fn metadata(value: &Value) -> Cel {
    let mut out = HashMap::new();
    for name in ["name", "generateName"] {
        if let Some(Value::String(s)) = value.get(name) {
            out.insert(
                Key::String(Arc::new(name.to_owned())),
                Cel::String(Arc::new(s.clone())),
            );
        }
    }
    Cel::Map(Map { map: Arc::new(out) })
}

fn number(schema: Option<&Node>, number: &Number) -> Cel {
    let float = number.as_f64().unwrap_or(f64::NAN);
    match schema.map_or(Type::Any, |s| s.kind) {
        Type::Number => Cel::Float(float),
        // A whole float is an integer where one is declared.
        Type::Integer | Type::IntOrString if number.is_f64() => {
            #[allow(clippy::cast_possible_truncation)]
            let whole = float as i64;
            Cel::Int(whole)
        }
        _ => match (number.as_i64(), number.as_u64()) {
            (Some(i), _) => Cel::Int(i),
            (None, Some(u)) => Cel::UInt(u),
            (None, None) => Cel::Float(float),
        },
    }
}

fn text(schema: Option<&Node>, text: &str) -> Cel {
    let plain = || Cel::String(Arc::new(text.to_owned()));
    let Some(schema) = schema.filter(|s| s.kind == Type::String) else {
        return plain();
    };
    let argument = Cel::String(Arc::new(text.to_owned()));
    let typed = match schema.checks.format.as_deref() {
        Some("date-time") => super::evaluate::call("timestamp", argument),
        Some("duration") => super::evaluate::call("duration", argument),
        Some("byte") => super::evaluate::call("base64.decode", argument),
        _ => None,
    };
    typed.unwrap_or_else(plain)
}

fn list(schema: Option<&Node>, items: &[Value], like: Option<&Value>) -> Cel {
    let node = schema.and_then(|s| s.items.as_deref());
    let embedded = node.is_some_and(|n| n.embedded_resource);
    let one = |item: &Value, like: Option<&Value>| convert(node, item, like, embedded, &|_| true);
    let aligned = match (schema, like) {
        (Some(schema), Some(like)) => align(schema, items, like),
        _ => None,
    };
    let out: Vec<Cel> = match aligned {
        Some(pairs) => pairs
            .into_iter()
            .map(|(item, like)| one(item, Some(like)))
            .collect(),
        None => items.iter().map(|item| one(item, None)).collect(),
    };
    Cel::List(Arc::new(out))
}

/// The stored items with the new ones that they stand for, in the order of the new ones; nothing if they differ.
fn align<'a>(
    schema: &Node,
    items: &'a [Value],
    like: &'a Value,
) -> Option<Vec<(&'a Value, &'a Value)>> {
    let Value::Array(like) = like else {
        return None;
    };
    if schema.list_type == ListType::Atomic || items.len() != like.len() {
        return None;
    }
    let key = |item: &Value| {
        let mut text = String::new();
        match &schema.list_type {
            ListType::Map(keys) => {
                for name in keys {
                    canonical(item.get(name).unwrap_or(&Value::Null), &mut text);
                    text.push(',');
                }
            }
            _ => canonical(item, &mut text),
        }
        text
    };
    let stored: BTreeMap<String, &Value> = items.iter().map(|item| (key(item), item)).collect();
    like.iter()
        .map(|new| Some((*stored.get(&key(new))?, new)))
        .collect()
}

/// The name of a field as rules write it: words of the language and characters that no name may have are escaped.
pub(super) fn escaped(name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// The schema of what a key holds, and whether the key is one of a map rather than a field.
pub(super) fn below<'a>(schema: &'a Node, name: &str) -> Option<(&'a Node, bool)> {
    match (schema.properties.get(name), &schema.additional) {
        (Some(node), _) => Some((node, false)),
        (None, Some(Additional::Node(node))) => Some((node, true)),
        _ => None,
    }
}
