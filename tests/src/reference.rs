//! The reference of our kinds, written from their definitions.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The page: every kind with its fields, their types, defaults and bounds.
///
/// # Panics
/// When a definition cannot be written as JSON.
#[must_use]
#[expect(clippy::expect_used, reason = "definitions are ours and always JSON")]
pub fn page() -> String {
    let mut page = String::from(
        "# Kinds\n\nGroup `fleetwright.dev`, version `v1alpha1`. Written from the definitions by `make docs`.\n",
    );
    for crd in fleetwright_api::crds::all() {
        let crd = serde_json::to_value(crd).expect("a definition is JSON");
        kind(&mut page, &crd["spec"]);
    }
    page
}

fn kind(page: &mut String, spec: &Value) {
    let names = &spec["names"];
    let schema = &spec["versions"][0]["schema"]["openAPIV3Schema"];
    let short: Vec<&str> = texts(&names["shortNames"]).collect();
    let _ = write!(
        page,
        "\n## {}\n\n{}\n\n{}, plural `{}`",
        text(&names["kind"]),
        cell(
            schema["properties"]["spec"]["description"]
                .as_str()
                .unwrap_or_default()
        ),
        text(&spec["scope"]),
        text(&names["plural"]),
    );
    if !short.is_empty() {
        let _ = write!(page, ", short `{}`", short.join("`, `"));
    }
    page.push_str(".\n");
    for part in ["spec", "status"] {
        let Some(node) = schema["properties"].get(part) else {
            continue;
        };
        page.push_str("\n| field | type | meaning |\n| --- | --- | --- |\n");
        fields(page, part, node);
    }
}

fn fields(page: &mut String, path: &str, node: &Value) {
    let required: Vec<&str> = texts(&node["required"]).collect();
    for (name, child) in node["properties"].as_object().unwrap_or(&Map::new()) {
        let path = format!("{path}.{name}");
        let mark = if required.contains(&name.as_str()) {
            " (required)"
        } else {
            ""
        };
        let _ = writeln!(
            page,
            "| `{path}`{mark} | {} | {} |",
            kind_of(child),
            meaning(child)
        );
        // Conditions are Kubernetes' own, the same everywhere.
        if name != "conditions" {
            below(page, &path, child);
        }
    }
}

fn below(page: &mut String, path: &str, node: &Value) {
    if node["properties"].is_object() {
        fields(page, path, node);
    } else if node["items"]["properties"].is_object() {
        fields(page, &format!("{path}[]"), &node["items"]);
    }
}

fn kind_of(node: &Value) -> String {
    if node["x-kubernetes-int-or-string"] == true {
        return "integer or text".to_owned();
    }
    match node["type"].as_str().unwrap_or_default() {
        "array" => format!("list of {}", kind_of(&node["items"])),
        "object" if node["additionalProperties"].is_object() => {
            format!("map of {}", kind_of(&node["additionalProperties"]))
        }
        "string" if node["format"] == "date-time" => "time".to_owned(),
        "" => "any".to_owned(),
        other => other.to_owned(),
    }
}

fn meaning(node: &Value) -> String {
    let mut out = cell(node["description"].as_str().unwrap_or_default());
    let mut add = |text: String| {
        let _ = write!(out, " {text}");
    };
    if let Some(default) = node.get("default") {
        add(format!("Default `{default}`."));
    }
    if let Some(values) = node["enum"].as_array() {
        let all: Vec<String> = values
            .iter()
            .filter_map(Value::as_str)
            .map(|v| format!("`{v}`"))
            .collect();
        add(format!("One of {}.", all.join(", ")));
    }
    for (field, word) in [("minimum", "At least"), ("maximum", "At most")] {
        if let Some(bound) = node.get(field).and_then(Value::as_f64) {
            add(format!("{word} {bound}."));
        }
    }
    for rule in node["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        add(format!(
            "Rule: {}.",
            cell(rule["message"].as_str().unwrap_or_default())
        ));
    }
    out.trim().to_owned()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text that fits into one cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
