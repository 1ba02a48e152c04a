//! What is wrong with a CustomResourceDefinition.

use fleetwright_schema::{Schema, SchemaError};
use serde_json::Value;

use crate::error::Cause;

/// All faults of a definition that says its names and kinds in full; `live` is what it replaces.
pub(crate) fn faults(crd: &Value, live: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &crd["spec"];
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let name = text(&crd["metadata"]["name"]);
    if name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(invalid("metadata.name", name.into(), why));
    }
    if group.is_empty() {
        causes.push(required("spec.group", ""));
    } else if !group.contains('.') {
        let why = "should be a domain with at least one dot";
        causes.push(invalid("spec.group", group.into(), why));
    }
    match text(&spec["scope"]) {
        "" => causes.push(required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => {
            let text = format!(
                "Unsupported value: {}: supported values: \"Cluster\", \"Namespaced\"",
                Value::from(other)
            );
            causes.push(Cause::new("FieldValueNotSupported", "spec.scope", text));
        }
    }
    versions(spec, &mut causes);
    names(&spec["names"], &mut causes);
    for (field, path) in [
        ("spec.scope", "/spec/scope"),
        ("spec.names.kind", "/spec/names/kind"),
    ] {
        if let (Some(had), now) = (live.and_then(|l| l.pointer(path)), crd.pointer(path))
            && Some(had) != now
        {
            let now = now.cloned().unwrap_or_default();
            causes.push(invalid(field, now, "field is immutable"));
        }
    }
    causes
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn invalid(field: impl Into<String>, value: Value, why: &str) -> Cause {
    Cause::new(
        "FieldValueInvalid",
        field,
        format!("Invalid value: {value}: {why}"),
    )
}

fn required(field: impl Into<String>, why: &str) -> Cause {
    let text = if why.is_empty() {
        "Required value".to_owned()
    } else {
        format!("Required value: {why}")
    };
    Cause::new("FieldValueRequired", field, text)
}

/// A DNS label that begins with a letter, as kinds and versions are called.
fn is_label(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-')
}

const LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn versions(spec: &Value, causes: &mut Vec<Cause>) {
    let list: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let mut seen = Vec::new();
    for (i, version) in list.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        let name = text(&version["name"]);
        if !is_label(name) {
            causes.push(invalid(format!("{at}.name"), name.into(), LABEL));
        }
        if seen.contains(&name) {
            let why = "must contain unique version names";
            causes.push(invalid("spec.versions", spec["versions"].clone(), why));
        }
        seen.push(name);
        match version["schema"].get("openAPIV3Schema") {
            None => {
                let field = format!("{at}.schema.openAPIV3Schema");
                causes.push(required(field, "schemas are required"));
            }
            Some(schema) => {
                if let Err(errors) = Schema::from_openapi(schema) {
                    causes.extend(errors.iter().map(|e| fault(&at, schema, e)));
                }
            }
        }
    }
    if list.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(invalid("spec.versions", spec["versions"].clone(), why));
        if !list.iter().any(|v| v["storage"] == true) {
            let why = "must have at least one stored version";
            causes.push(invalid("status.storedVersions", Value::Null, why));
        }
    }
}

fn names(names: &Value, causes: &mut Vec<Cause>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let (at, name) = (format!("spec.names.{field}"), text(&names[field]));
        if name.is_empty() {
            causes.push(required(at, ""));
        } else if !is_label(&name.to_lowercase()) {
            let why = if field.to_lowercase().contains("kind") {
                "may have mixed case, but should otherwise match: "
            } else {
                ""
            };
            causes.push(invalid(at, name.into(), &format!("{why}{LABEL}")));
        }
    }
    if !names["kind"].is_null() && names["kind"] == names["listKind"] {
        let why = "kind and listKind may not be the same";
        causes.push(invalid(
            "spec.names.listKind",
            names["listKind"].clone(),
            why,
        ));
    }
}

/// A fault of a schema, in the words of the API server.
fn fault(version: &str, schema: &Value, error: &SchemaError) -> Cause {
    let field = format!("{version}.schema.{}", error.path);
    let said = error.message.as_str();
    if said.starts_with("Required value") {
        return Cause::new("FieldValueRequired", field, said);
    }
    if said.starts_with("must not be empty") {
        return required(field, said);
    }
    if said.starts_with("Invalid value") {
        return Cause::new("FieldValueInvalid", field, said);
    }
    if said.contains("must not be used") || said.contains("to be structural") {
        return Cause::new("FieldValueForbidden", field, format!("Forbidden: {said}"));
    }
    invalid(field, found(schema, &error.path), said)
}

/// The value at a path such as `openAPIV3Schema.properties[spec].type`.
fn found(schema: &Value, path: &str) -> Value {
    let parts = path.split(['.', '[', ']']).filter(|part| !part.is_empty());
    let value = parts.skip(1).fold(schema, |value, part| match value {
        Value::Array(list) => part
            .parse::<usize>()
            .ok()
            .and_then(|i| list.get(i))
            .unwrap_or(&Value::Null),
        value => &value[part],
    });
    value.clone()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lamps(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut crd = json!({"metadata": {"name": "lamps.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "lamps", "singular": "lamp", "kind": "Lamp", "listKind": "LampList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        let live = crd.clone();
        change(&mut crd);
        let faults = faults(&crd, Some(&live)).into_iter();
        faults
            .map(|c| format!("{} {}: {}", c.reason, c.field, c.message))
            .collect()
    }

    #[test]
    fn each_fault_is_told_where_it_is() {
        assert_eq!(lamps(|_| {}), Vec::<String>::new());
        let schema = |schema: Value| {
            lamps(move |crd| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema)
        };
        let at = "spec.versions[0].schema.openAPIV3Schema";
        assert_eq!(
            schema(json!({})),
            [format!(
                "FieldValueRequired {at}.type: Required value: must not be empty at the root"
            )]
        );
        assert_eq!(
            schema(json!({"type": "string"})),
            [format!(
                "FieldValueInvalid {at}.type: Invalid value: \"string\": must be object at the root"
            )]
        );
        assert_eq!(
            schema(json!({"type": "object", "properties": {"a": {}}})),
            [format!(
                "FieldValueRequired {at}.properties[a].type: Required value: must not be empty for specified object fields"
            )]
        );
        assert_eq!(
            lamps(|crd| crd["spec"]["versions"][0]["storage"] = false.into()).len(),
            2
        );
        assert_eq!(
            lamps(|crd| crd["spec"]["scope"] = "Namespaced".into()),
            ["FieldValueInvalid spec.scope: Invalid value: \"Namespaced\": field is immutable"]
        );
        assert_eq!(
            lamps(|crd| crd["spec"]["group"] = "example".into()).len(),
            2
        );
        assert_eq!(
            lamps(|crd| crd["spec"]["names"]["listKind"] = "Lamp".into()),
            [
                "FieldValueInvalid spec.names.listKind: Invalid value: \"Lamp\": kind and listKind may not be the same"
            ]
        );
    }
}
