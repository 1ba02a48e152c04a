//! Label and field selectors.

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
        let mut all = Vec::new();
        for part in split(labels) {
            let bad = || ApiError::bad_request(format!("unable to parse requirement: {part}"));
            let (key, test) = label(part).ok_or_else(bad)?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            if key.is_empty() || !key.chars().all(plain) {
                return Err(bad());
            }
            all.push((Place::Label(key.to_owned()), test));
        }
        for part in fields.split(',').filter(|p| !p.trim().is_empty()) {
            let (path, wanted, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or(part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{fields}'; can't understand '{part}'"
                )));
            };
            let path = path.trim();
            let known = path == "metadata.name"
                || (path == "metadata.namespace")
                || kind.selectable.iter().any(|s| s == path);
            if !known {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {path}"
                )));
            }
            let values = vec![wanted.trim().to_owned()];
            let test = if equal {
                Test::In(values)
            } else {
                Test::NotIn(values)
            };
            all.push((
                Place::Field(path.split('.').map(str::to_owned).collect()),
                test,
            ));
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

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
    .collect()
}

fn label(part: &str) -> Option<(&str, Test)> {
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((head, tail)) = part.split_once('(') {
        let values = tail
            .strip_suffix(')')?
            .split(',')
            .map(|v| v.trim().to_owned())
            .collect();
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Some((key, Test::In(values))),
            [key, "notin"] => Some((key, Test::NotIn(values))),
            _ => None,
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some((key.trim(), Test::NotIn(one(value))));
    }
    if let Some((key, value)) = part.split_once("==").or(part.split_once('=')) {
        return Some((key.trim(), Test::In(one(value))));
    }
    if let Some((key, value)) = part.split_once('>') {
        return Some((key.trim(), Test::Above(value.trim().parse().ok()?)));
    }
    if let Some((key, value)) = part.split_once('<') {
        return Some((key.trim(), Test::Below(value.trim().parse().ok()?)));
    }
    match part.strip_prefix('!') {
        Some(key) => Some((key.trim(), Test::Missing)),
        None => Some((part, Test::Exists)),
    }
}
