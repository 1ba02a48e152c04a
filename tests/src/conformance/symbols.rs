//! Symbols for what differs from run to run.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value, json};

#[expect(clippy::expect_used, reason = "the patterns are constants")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a sound pattern")
}

static TIME: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"));
static UID: LazyLock<Regex> =
    LazyLock::new(|| pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d+[smhdy]"));
static HASH: LazyLock<Regex> = LazyLock::new(|| pattern(r"\?hash=[0-9A-F]{128}$"));
static RECORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"record \(\d+\)"));

/// Gives each distinct volatile value of a scenario a stable name.
#[derive(Debug, Default)]
pub struct Symbols {
    seen: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

impl Symbols {
    fn name(&mut self, kind: &'static str, value: &str) -> String {
        let known = self.seen.entry(kind).or_default();
        let next = known.len() + 1;
        let number = known.entry(value.to_owned()).or_insert(next);
        format!("<{kind}-{number}>")
    }

    /// The value with symbols in place of what is volatile, and with lists sorted whose order is free.
    pub fn walk(&mut self, value: &Value) -> Value {
        self.value(value, "", None)
    }

    fn value(&mut self, value: &Value, key: &str, parent: Option<&Map<String, Value>>) -> Value {
        match value {
            Value::Object(map) => self.object(map),
            Value::Array(list) => list.iter().map(|v| self.value(v, key, parent)).collect(),
            Value::String(text) => Value::String(self.text(text, key, parent)),
            other => other.clone(),
        }
    }

    fn object(&mut self, map: &Map<String, Value>) -> Value {
        let mut out = Map::new();
        let mut keys: Vec<_> = map.keys().collect();
        keys.sort();
        for key in keys {
            let last = key.rsplit('.').next().unwrap_or(key);
            out.insert(key.clone(), self.value(&map[key], last, Some(map)));
        }
        if let (Some(Value::String(prefix)), Some(Value::String(name))) =
            (map.get("generateName"), map.get("name"))
            && let Some(rest) = name.strip_prefix(prefix.as_str())
        {
            out.insert(
                "name".into(),
                json!(format!("{prefix}<{} generated>", rest.chars().count())),
            );
        }
        if let Some(Value::Array(resources)) = out.get_mut("resources") {
            resources.sort_by_key(|r| r["name"].as_str().unwrap_or_default().to_owned());
            for resource in resources.iter_mut().filter_map(Value::as_object_mut) {
                resource.remove("storageVersionHash");
                resource.remove("categories");
            }
        }
        sort_by_fields(&mut out, "causes", &["field", "reason", "message"]);
        sort_by_fields(
            &mut out,
            "managedFields",
            &["manager", "operation", "apiVersion", "subresource"],
        );
        Value::Object(out)
    }

    fn text(&mut self, text: &str, key: &str, parent: Option<&Map<String, Value>>) -> String {
        match key {
            "resourceVersion" if text.is_empty() || text == "0" => text.to_owned(),
            "resourceVersion" => {
                let of_list = parent.is_some_and(|p| {
                    !p.contains_key("name")
                        || p.get("annotations")
                            .and_then(|a| a.get("k8s.io/initial-events-end"))
                            .is_some()
                });
                if of_list {
                    "<rv-list>".into()
                } else {
                    self.name("rv", text)
                }
            }
            "continue" if text.is_empty() => String::new(),
            "continue" => "<continue>".into(),
            _ if TIME.is_match(text) => "<time>".into(),
            _ => {
                let mut text = UID
                    .replace_all(text, |c: &regex::Captures<'_>| self.name("uid", &c[0]))
                    .into_owned();
                if key == "message" {
                    text = RECORD.replace_all(&text, "record (<rv>)").into_owned();
                }
                if key == "cells" && AGE.is_match(&text) {
                    return "<age>".into();
                }
                text
            }
        }
    }
}

/// The value without hashes of OpenAPI documents: they are of the whole document, and each server describes other kinds.
pub fn without_hashes(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (k.clone(), without_hashes(v)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(without_hashes).collect(),
        Value::String(text) => HASH.replace(text, "?hash=<hash>").into(),
        other => other.clone(),
    }
}

fn sort_by_fields(map: &mut Map<String, Value>, list: &str, fields: &[&str]) {
    if let Some(Value::Array(entries)) = map.get_mut(list) {
        entries.sort_by_cached_key(|e| {
            fields
                .iter()
                .map(|f| e[*f].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_get_equal_symbols() {
        let mut symbols = Symbols::default();
        let value = json!({
            "metadata": {"name": "a-x1y2z", "generateName": "a-", "resourceVersion": "7", "uid": "11111111-2222-3333-4444-555555555555"},
            "again": {"name": "b", "resourceVersion": "7", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "list": {"resourceVersion": "9", "continue": "abc"},
        });
        let got = symbols.walk(&value);
        assert_eq!(
            got["metadata"]["resourceVersion"],
            got["again"]["resourceVersion"]
        );
        assert_eq!(got["metadata"]["name"], "a-<5 generated>");
        assert_eq!(got["metadata"]["uid"], "<uid-1>");
        assert_eq!(got["again"]["creationTimestamp"], "<time>");
        assert_eq!(
            got["list"],
            json!({"resourceVersion": "<rv-list>", "continue": "<continue>"})
        );
    }
}
