//! From an OpenAPI v3 schema to nodes, refusing what is not structural.

use super::{Additional, Checks, Junctors, ListType, Node, PatchStrategy, SchemaError, Type};
use crate::rules::Rule;
use regex::Regex;
use serde_json::{Map, Number, Value};

/// The deepest nesting of a schema; deeper ones are refused, so that no recursion over one can run out of stack.
const MAX_DEPTH: usize = 64;

/// Where in a schema a node stands.
pub(super) struct Place {
    depth: usize,
    /// Inside `allOf`, `anyOf`, `oneOf` or `not`: only checks are allowed there.
    junctor: bool,
    /// Stored values are found here, so that rules may name them.
    correlated: bool,
}

impl Place {
    pub(super) fn root() -> Self {
        Self {
            depth: 0,
            junctor: false,
            correlated: true,
        }
    }

    fn below(&self, correlated: bool) -> Self {
        Self {
            depth: self.depth + 1,
            junctor: self.junctor,
            correlated: self.correlated && correlated,
        }
    }

    fn inside_junctor(&self) -> Self {
        Self {
            depth: self.depth + 1,
            junctor: true,
            correlated: self.correlated,
        }
    }
}

struct Reader<'a> {
    map: &'a Map<String, Value>,
    path: &'a mut String,
    errors: &'a mut Vec<SchemaError>,
}

impl Reader<'_> {
    fn fault(&mut self, key: &str, message: impl Into<String>) {
        let path = if key.is_empty() {
            self.path.clone()
        } else {
            format!("{}.{key}", self.path)
        };
        self.errors.push(SchemaError {
            path,
            message: message.into(),
        });
    }

    fn flag(&mut self, key: &str) -> bool {
        match self.map.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(b)) => *b,
            Some(_) => {
                self.fault(key, "must be a boolean");
                false
            }
        }
    }

    fn count(&mut self, key: &str) -> Option<u64> {
        let value = self.map.get(key).filter(|v| !v.is_null())?;
        let count = value.as_u64();
        if count.is_none() {
            self.fault(key, "must be a non-negative integer");
        }
        count
    }

    fn number(&mut self, key: &str) -> Option<Number> {
        match self.map.get(key)? {
            Value::Null => None,
            Value::Number(n) => Some(n.clone()),
            _ => {
                self.fault(key, "must be a number");
                None
            }
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.map.get(key)? {
            Value::Null => None,
            Value::String(s) => Some(s.clone()),
            _ => {
                self.fault(key, "must be a string");
                None
            }
        }
    }

    fn texts(&mut self, key: &str) -> Vec<String> {
        match self.map.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_string) => items
                .iter()
                .filter_map(|i| i.as_str().map(str::to_owned))
                .collect(),
            Some(_) => {
                self.fault(key, "must be a list of strings");
                Vec::new()
            }
        }
    }

    /// Compiles the schema at `value`, with `suffix` added to the path.
    fn sub(&mut self, suffix: &str, value: &Value, place: &Place) -> Node {
        let len = self.path.len();
        self.path.push_str(suffix);
        let compiled = node(value, self.path, place, self.errors);
        self.path.truncate(len);
        compiled
    }
}

pub(super) fn node(
    schema: &Value,
    path: &mut String,
    place: &Place,
    errors: &mut Vec<SchemaError>,
) -> Node {
    let Value::Object(map) = schema else {
        errors.push(SchemaError {
            path: path.clone(),
            message: "must be an object".into(),
        });
        return Node::default();
    };
    if place.depth > MAX_DEPTH {
        errors.push(SchemaError {
            path: path.clone(),
            message: format!("is nested deeper than {MAX_DEPTH} levels"),
        });
        return Node::default();
    }
    let mut r = Reader { map, path, errors };
    let mut out = Node {
        kind: kind(&mut r, place),
        ..Node::default()
    };
    out.nullable = r.flag("nullable");
    out.preserve_unknown = r.flag("x-kubernetes-preserve-unknown-fields");
    out.embedded_resource = r.flag("x-kubernetes-embedded-resource");
    out.description = r.text("description");
    out.required = r.texts("required");
    out.checks = checks(&mut r);
    children(&mut r, place, &mut out);
    if out.embedded_resource {
        out.properties.extend(super::metadata::object_fields());
    }
    merging(&mut r, &mut out);
    out.junctors = junctors(&mut r, place);
    let nested = out.junctors.iter().flat_map(|j| &j.all_of);
    out.has_rules |= nested.fold(false, |any, node| any | node.has_rules);
    rules(&mut r, place, &mut out);
    out.default = map
        .get("default")
        .filter(|d| !d.is_null() || out.nullable)
        .cloned();
    if place.junctor {
        for key in [
            "default",
            "nullable",
            "additionalProperties",
            "x-kubernetes-preserve-unknown-fields",
        ] {
            if map.contains_key(key) {
                r.fault(key, "must be undefined to be structural");
            }
        }
    }
    for (key, value) in map {
        if key == "$ref" {
            r.fault(key, "is not supported");
        } else if key.starts_with("x-") && !key.starts_with("x-kubernetes-") {
            out.extensions.insert(key.clone(), value.clone());
        }
    }
    out
}

fn kind(r: &mut Reader<'_>, place: &Place) -> Type {
    let int_or_string = r.flag("x-kubernetes-int-or-string");
    let declared = match r.text("type").as_deref() {
        None | Some("") => None,
        Some("object") => Some(Type::Object),
        Some("array") => Some(Type::Array),
        Some("string") => Some(Type::String),
        Some("integer") => Some(Type::Integer),
        Some("number") => Some(Type::Number),
        Some("boolean") => Some(Type::Boolean),
        Some(_) => {
            r.fault("type", "Unsupported value: supported values: array, boolean, integer, number, object, string");
            None
        }
    };
    match declared {
        _ if int_or_string => Type::IntOrString,
        Some(kind) => {
            if place.depth == 0 && kind != Type::Object {
                r.fault("type", "must be object at the root");
            }
            kind
        }
        None => {
            if place.depth == 0 {
                r.fault("type", "must not be empty at the root");
            } else if !place.junctor && !r.flag("x-kubernetes-preserve-unknown-fields") {
                r.fault("type", "must not be empty for specified object fields");
            }
            Type::Any
        }
    }
}

fn checks(r: &mut Reader<'_>) -> Checks {
    let pattern = r
        .text("pattern")
        .and_then(|source| match Regex::new(&source) {
            Ok(regex) => Some((source, regex)),
            Err(error) => {
                r.fault(
                    "pattern",
                    format!("must be a valid regular expression: {error}"),
                );
                None
            }
        });
    let allowed = match r.map.get("enum") {
        None | Some(Value::Null) => None,
        Some(Value::Array(values)) => Some(values.clone()),
        Some(_) => {
            r.fault("enum", "must be a list");
            None
        }
    };
    Checks {
        allowed,
        pattern,
        format: r.text("format").filter(|f| !f.is_empty()),
        minimum: r.number("minimum"),
        exclusive_minimum: r.flag("exclusiveMinimum"),
        maximum: r.number("maximum"),
        exclusive_maximum: r.flag("exclusiveMaximum"),
        multiple_of: r.number("multipleOf"),
        min_length: r.count("minLength"),
        max_length: r.count("maxLength"),
        min_items: r.count("minItems"),
        max_items: r.count("maxItems"),
        min_properties: r.count("minProperties"),
        max_properties: r.count("maxProperties"),
        unique_items: r.flag("uniqueItems"),
    }
}

fn children(r: &mut Reader<'_>, place: &Place, out: &mut Node) {
    let kind_of = |key: &str, wanted: &str| r.map.get(key).is_some_and(|k| k == wanted);
    let below = place.below(!kind_of("x-kubernetes-map-type", "atomic"));
    let item = place.below(kind_of("x-kubernetes-list-type", "map"));
    match r.map.get("properties") {
        None | Some(Value::Null) => {}
        Some(Value::Object(properties)) => {
            for (name, schema) in properties {
                let child = r.sub(&format!(".properties[{name}]"), schema, &below);
                out.has_rules |= child.has_rules;
                out.properties.insert(name.clone(), child);
            }
        }
        Some(_) => r.fault("properties", "must be an object"),
    }
    match r.map.get("additionalProperties") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::Bool(true)) => out.additional = Some(Additional::Any),
        Some(schema) => {
            if !out.properties.is_empty() {
                r.fault(
                    "additionalProperties",
                    "must not be used together with properties",
                );
            }
            let child = r.sub(".additionalProperties", schema, &below);
            out.has_rules |= child.has_rules;
            out.additional = Some(Additional::Node(Box::new(child)));
        }
    }
    match r.map.get("items") {
        None | Some(Value::Null) => {
            if out.kind == Type::Array && !place.junctor {
                r.fault("items", "Required value: must be specified for an array");
            }
        }
        Some(schema) => {
            let child = r.sub(".items", schema, &item);
            out.has_rules |= child.has_rules;
            out.items = Some(Box::new(child));
        }
    }
}

fn merging(r: &mut Reader<'_>, out: &mut Node) {
    let keys = r.texts("x-kubernetes-list-map-keys");
    out.list_type = match r.text("x-kubernetes-list-type").as_deref() {
        None | Some("atomic") => ListType::Atomic,
        Some("set") => ListType::Set,
        Some("map") => {
            if keys.is_empty() {
                r.fault(
                    "x-kubernetes-list-map-keys",
                    "Required value: must name the keys of a list of type map",
                );
            }
            for key in &keys {
                let known = out
                    .items
                    .as_ref()
                    .is_some_and(|i| i.properties.contains_key(key) || i.preserve_unknown);
                if !known {
                    r.fault(
                        "x-kubernetes-list-map-keys",
                        format!("Invalid value: \"{key}\": is no property of the items"),
                    );
                }
            }
            ListType::Map(keys)
        }
        Some(other) => {
            r.fault(
                "x-kubernetes-list-type",
                format!(
                    "Unsupported value: \"{other}\": supported values: \"atomic\", \"map\", \"set\""
                ),
            );
            ListType::Atomic
        }
    };
    if out.list_type != ListType::Atomic && out.kind != Type::Array {
        r.fault(
            "type",
            "must be array if x-kubernetes-list-type is specified",
        );
    }
    out.atomic_map = match r.text("x-kubernetes-map-type").as_deref() {
        None | Some("granular") => false,
        Some("atomic") => true,
        Some(other) => {
            r.fault(
                "x-kubernetes-map-type",
                format!(
                    "Unsupported value: \"{other}\": supported values: \"atomic\", \"granular\""
                ),
            );
            false
        }
    };
    let strategy = r.text("x-kubernetes-patch-strategy").unwrap_or_default();
    out.patch = PatchStrategy {
        merge: strategy.split(',').any(|s| s == "merge"),
        retain_keys: strategy.split(',').any(|s| s == "retainKeys"),
        merge_key: r.text("x-kubernetes-patch-merge-key"),
    };
}

fn junctors(r: &mut Reader<'_>, place: &Place) -> Option<Box<Junctors>> {
    let inside = place.inside_junctor();
    let mut all = Junctors::default();
    for key in ["allOf", "anyOf", "oneOf"] {
        let Some(value) = r.map.get(key).filter(|v| !v.is_null()) else {
            continue;
        };
        let Value::Array(schemas) = value else {
            r.fault(key, "must be a list of schemas");
            continue;
        };
        let nodes: Vec<Node> = schemas
            .iter()
            .enumerate()
            .map(|(i, s)| r.sub(&format!(".{key}[{i}]"), s, &inside))
            .collect();
        match key {
            "allOf" => all.all_of = nodes,
            "anyOf" => all.any_of = nodes,
            _ => all.one_of = nodes,
        }
    }
    if let Some(schema) = r.map.get("not").filter(|v| !v.is_null()) {
        all.not = Some(Box::new(r.sub(".not", schema, &inside)));
    }
    let some = !all.all_of.is_empty()
        || !all.any_of.is_empty()
        || !all.one_of.is_empty()
        || all.not.is_some();
    some.then(|| Box::new(all))
}

fn rules(r: &mut Reader<'_>, place: &Place, out: &mut Node) {
    let Some(value) = r
        .map
        .get("x-kubernetes-validations")
        .filter(|v| !v.is_null())
    else {
        return;
    };
    let Value::Array(list) = value else {
        r.fault("x-kubernetes-validations", "must be a list");
        return;
    };
    for (i, source) in list.iter().enumerate() {
        let compiled = Rule::compile(source).and_then(|rule| {
            rule.fits(out, place.correlated)?;
            Ok(rule)
        });
        match compiled {
            Ok(rule) => out.rules.push(rule),
            Err(error) => {
                let mut text = error.to_string();
                let mut next = std::error::Error::source(&error);
                while let Some(cause) = next {
                    text = format!("{text}: {cause}");
                    next = cause.source();
                }
                r.fault(&format!("x-kubernetes-validations[{i}]"), text);
            }
        }
    }
    out.has_rules |= !out.rules.is_empty();
}
