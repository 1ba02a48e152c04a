//! Label and field selectors.

mod labels;

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::registry::Kind;

#[derive(Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Above(i64),
    Below(i64),
}

#[derive(Debug)]
enum Place {
    Label(String),
    Field(Vec<String>),
}

/// What an object must fulfil, all of it.
#[derive(Debug, Default)]
pub(crate) struct Selector(Vec<(Place, Test)>);

impl Selector {
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> ApiResult<Self> {
        let requirements = labels::parse(labels).map_err(ApiError::bad_request)?;
        let mut all: Vec<(Place, Test)> = requirements
            .into_iter()
            .map(|(key, test)| (Place::Label(key), test))
            .collect();
        for (path, value, equal) in terms(fields).map_err(ApiError::bad_request)? {
            let known = path == "metadata.name"
                || (path == "metadata.namespace" && kind.namespaced)
                || kind.selectable.contains(&path);
            if !known {
                return Err(ApiError::bad_request(kind.unknown_field(&path)));
            }
            let values = vec![value];
            let test = if equal {
                Test::In(values)
            } else {
                Test::NotIn(values)
            };
            let path = path.split('.').map(str::to_owned).collect();
            all.push((Place::Field(path), test));
        }
        Ok(Self(all))
    }

    /// The selector of a `LabelSelector` value, as budgets have it. An empty one selects everything.
    pub(crate) fn of_labels(selector: &Value) -> Self {
        let mut all = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            all.push((Place::Label(key.clone()), Test::In(values)));
        }
        for entry in selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let values = crate::object::strings(&entry["values"]);
            let test = match entry["operator"].as_str() {
                Some("In") => Test::In(values),
                Some("NotIn") => Test::NotIn(values),
                Some("Exists") => Test::Exists,
                _ => Test::Missing,
            };
            let key = entry["key"].as_str().unwrap_or_default();
            all.push((Place::Label(key.to_owned()), test));
        }
        Self(all)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(place, test)| {
            let found = match place {
                Place::Label(key) => object["metadata"]["labels"][key]
                    .as_str()
                    .map(str::to_owned),
                Place::Field(path) => {
                    let value = path
                        .iter()
                        .fold(object, |value, part| &value[part.as_str()]);
                    Some(match value {
                        Value::String(text) => text.clone(),
                        Value::Null if path.last().is_some_and(|p| p == "unschedulable") => {
                            "false".to_owned()
                        }
                        Value::Null => String::new(),
                        // An event is selected by the component that is its source.
                        Value::Object(map) => map
                            .get("component")
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .to_owned(),
                        other => other.to_string(),
                    })
                }
            };
            let number = || found.as_ref().and_then(|v| v.parse::<i64>().ok());
            match test {
                Test::In(values) => found.as_ref().is_some_and(|v| values.contains(v)),
                Test::NotIn(values) => !found.as_ref().is_some_and(|v| values.contains(v)),
                Test::Exists => found.is_some(),
                Test::Missing => found.is_none(),
                Test::Above(than) => number().is_some_and(|n| n > *than),
                Test::Below(than) => number().is_some_and(|n| n < *than),
            }
        })
    }
}

impl Kind {
    /// What is said of a field that objects cannot be selected by.
    fn unknown_field(&self, path: &str) -> String {
        let plain = self.custom
            || matches!(
                self.plural.as_str(),
                "pods" | "nodes" | "events" | "secrets" | "namespaces"
            );
        if plain {
            return format!("field label not supported: {path}");
        }
        format!(
            "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )
    }
}

/// The terms of a field selector: field, value, and whether they must be equal.
fn terms(selector: &str) -> Result<Vec<(String, String, bool)>, String> {
    let mut parts = split(selector);
    parts.sort_unstable();
    let mut out = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let operator = part
            .char_indices()
            .find_map(|(at, _)| {
                let operator = ["!=", "==", "="]
                    .into_iter()
                    .find(|op| part.get(at..).is_some_and(|rest| rest.starts_with(op)))?;
                Some((at, operator))
            })
            .ok_or_else(|| format!("invalid selector: '{selector}'; can't understand '{part}'"))?;
        let (at, operator) = operator;
        let path = part.get(..at).unwrap_or_default().to_owned();
        let value = unescape(part.get(at + operator.len()..).unwrap_or_default())?;
        out.push((path, value, operator != "!="));
    }
    Ok(out)
}

/// Splits at commas that no backslash stands before.
fn split(selector: &str) -> Vec<&str> {
    let mut escaped = false;
    selector
        .split(|c| {
            let ends = c == ',' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })
        .collect()
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let rest = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{rest}"
                    ));
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}
