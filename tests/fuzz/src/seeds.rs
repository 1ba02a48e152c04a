//! The recorded requests as inputs to begin with.

use std::{fs, path::Path};

use serde_json::Value;

use crate::objects;

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/recorded");

/// Writes those that suit `target` into the folder that `FLEETWRIGHT_SEEDS` names; nothing without it.
///
/// # Panics
/// When the recordings cannot be read, or the folder cannot be written.
pub fn write(target: &str) {
    let Some(folder) = std::env::var_os("FLEETWRIGHT_SEEDS") else {
        return;
    };
    let folder = Path::new(&folder);
    for entry in fs::read_dir(RECORDINGS).expect("the recordings") {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a recording");
        let recorded: Value = serde_json::from_slice(&bytes).expect("recordings are JSON");
        let name = recorded["name"].as_str().unwrap_or_default();
        let steps = recorded["steps"].as_array().map_or(&[][..], Vec::as_slice);
        for (number, step) in steps.iter().enumerate() {
            let request = Request::of(&step["request"], name);
            let input = match target {
                "patches" => request.as_patch(),
                _ => Some(request.as_body()),
            };
            if let Some(input) = input {
                fs::write(folder.join(format!("{name}-{number}")), input)
                    .expect("the folder can be written");
            }
        }
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    content_type: String,
    body: String,
}

impl Request {
    fn of(recorded: &Value, scenario: &str) -> Self {
        let text = |v: &Value| match v {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let query = recorded["query"]
            .as_object()
            .map_or_else(Vec::new, |query| {
                query
                    .iter()
                    .map(|(k, v)| format!("{k}={}", text(v)))
                    .collect()
            });
        let namespace = format!("/namespaces/{scenario}/");
        Self {
            method: text(&recorded["method"]),
            path: text(&recorded["path"]).replace(&namespace, "/namespaces/default/"),
            query: query.join("&").replace(' ', "%20"),
            content_type: recorded["type"]
                .as_str()
                .unwrap_or("application/json")
                .to_owned(),
            body: text(&recorded["body"]).replace(scenario, "default"),
        }
    }

    fn as_body(&self) -> String {
        let Self {
            method,
            path,
            query,
            content_type,
            body,
        } = self;
        format!("{method} {path}?{query}\ncontent-type: {content_type}\n\n{body}")
    }

    fn as_patch(&self) -> Option<String> {
        let kinds = ["apply", "merge-patch", "json-patch", "strategic"];
        let kind = kinds
            .iter()
            .position(|k| self.content_type.starts_with(&format!("application/{k}")))?;
        let object = objects()
            .iter()
            .position(|(collection, _)| self.path.starts_with(collection))?;
        Some(format!("{object} {kind} {}\n{}", self.query, self.body))
    }
}
