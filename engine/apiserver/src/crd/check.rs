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
    if live.is_none() && name != format!("{plural}.{group}") {
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
        other => causes.push(not_supported(
            "spec.scope",
            other,
            &["Cluster", "Namespaced"],
        )),
    }
    versions(spec, &mut causes);
    names(&spec["names"], &mut causes);
    conversion(spec, &mut causes);
    stored(crd, live, &mut causes);
    for (field, path) in [
        ("spec.scope", "/spec/scope"),
        ("spec.names.kind", "/spec/names/kind"),
        ("spec.group", "/spec/group"),
        ("spec.names.plural", "/spec/names/plural"),
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

/// Versions in which objects may be kept must stay until somebody says that none is.
fn stored(crd: &Value, live: Option<&Value>, causes: &mut Vec<Cause>) {
    let kept = live.map(|live| crate::object::strings(&live["status"]["storedVersions"]));
    let list = crd["spec"]["versions"].as_array();
    for (i, version) in kept.into_iter().flatten().enumerate() {
        let mut versions = list.into_iter().flatten();
        if !versions.any(|v| v["name"] == version.as_str()) {
            let why = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            let field = format!("status.storedVersions[{i}]");
            causes.push(invalid(field, version.into(), &why));
        }
    }
}

fn conversion(spec: &Value, causes: &mut Vec<Cause>) {
    if spec["preserveUnknownFields"] == true {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        causes.push(invalid("spec.preserveUnknownFields", true.into(), why));
    }
    let conversion = &spec["conversion"];
    match text(&conversion["strategy"]) {
        "" | "None" => {}
        "Webhook" => {
            if conversion["webhook"]["clientConfig"].is_null() {
                let why = "required when strategy is set to Webhook";
                causes.push(required("spec.conversion.webhookClientConfig", why));
            }
            if conversion["webhook"]["conversionReviewVersions"].is_null() {
                causes.push(required("spec.conversion.conversionReviewVersions", ""));
            } else {
                let why = "conversion by webhooks is not served";
                causes.push(forbidden("spec.conversion.strategy", why));
            }
        }
        other => {
            let field = "spec.conversion.strategy";
            causes.push(not_supported(field, other, &["None", "Webhook"]));
        }
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn forbidden(field: impl Into<String>, why: &str) -> Cause {
    Cause::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
}

pub(super) fn not_supported(field: impl Into<String>, value: &str, all: &[&str]) -> Cause {
    let all: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
    let text = format!(
        "Unsupported value: {value:?}: supported values: {}",
        all.join(", ")
    );
    Cause::new("FieldValueNotSupported", field, text)
}

pub(super) fn invalid(field: impl Into<String>, value: Value, why: &str) -> Cause {
    Cause::new(
        "FieldValueInvalid",
        field,
        format!("Invalid value: {value}: {why}"),
    )
}

pub(super) fn required(field: impl Into<String>, why: &str) -> Cause {
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
            if i == 0 && !name.is_empty() {
                causes.push(invalid("spec.version", name.into(), LABEL));
            }
        }
        if seen.contains(&name) {
            let why = "must contain unique version names";
            causes.push(invalid("spec.versions", spec["versions"].clone(), why));
        }
        seen.push(name);
        match version["schema"].get("openAPIV3Schema") {
            None => causes.push(required(format!("{at}.schema.openAPIV3Schema"), "")),
            // What all versions say alike is told of once, as of the definition as a whole.
            Some(schema) if shared(&list, "schema") => {
                if i == 0 {
                    check_schema(schema, "spec.validation.openAPIV3Schema", causes);
                }
            }
            Some(schema) => check_schema(schema, &format!("{at}.schema.openAPIV3Schema"), causes),
        }
        let place = |field: &str| match (shared(&list, field), i) {
            (false, _) => Some(format!("{at}.{field}")),
            (true, 0) => Some(format!("spec.{field}")),
            (true, _) => None,
        };
        if let Some(at) = place("subresources") {
            scale(&version["subresources"]["scale"], &at, causes);
        }
        if let Some(at) = place("additionalPrinterColumns") {
            columns(&version["additionalPrinterColumns"], &at, causes);
        }
        if let Some(at) = place("selectableFields") {
            selectable(version, &at, causes);
        }
        deprecation(version, &at, causes);
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

/// Whether all versions say the same in a field.
fn shared(versions: &[&Value], field: &str) -> bool {
    let mut all = versions.iter().map(|v| &v[field]);
    let first = all.next();
    first.is_some_and(|first| !first.is_null() && all.all(|other| other == first))
}

fn check_schema(schema: &Value, at: &str, causes: &mut Vec<Cause>) {
    let found = super::schema::faults(schema, at);
    let plain = found.is_empty();
    causes.extend(found);
    // The rest is told only of what is structural.
    if let (Err(errors), true) = (Schema::from_openapi(schema), plain) {
        causes.extend(errors.iter().map(|error| fault(at, schema, error)));
    }
}

fn deprecation(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let Some(warning) = version["deprecationWarning"].as_str() else {
        return;
    };
    let why = if version["deprecated"] != true {
        "can only be set for deprecated versions"
    } else if warning.is_empty() {
        "must not be an empty string"
    } else if warning.len() > 256 {
        "must be <= 256 characters long"
    } else {
        return;
    };
    causes.push(invalid(
        format!("{at}.deprecationWarning"),
        warning.into(),
        why,
    ));
}

fn scale(scale: &Value, at: &str, causes: &mut Vec<Cause>) {
    if !scale.is_object() {
        return;
    }
    for (field, under, needed) in [
        ("specReplicasPath", &[".spec"][..], true),
        ("statusReplicasPath", &[".status"], true),
        ("labelSelectorPath", &[".spec", ".status"], false),
    ] {
        let (path, at) = (text(&scale[field]), format!("{at}.scale.{field}"));
        if path.is_empty() {
            if needed {
                causes.push(required(at, ""));
            }
        } else if !path.starts_with('.') {
            let why = "must be a simple json path starting with .";
            causes.push(invalid(at, path.into(), why));
        } else if !under
            .iter()
            .any(|root| path.starts_with(&format!("{root}.")))
        {
            let why = match under {
                [one] => format!("should be a json path under {one}"),
                _ => "should be a json path under either .spec or .status".to_owned(),
            };
            causes.push(invalid(at, path.into(), &why));
        }
    }
}

fn columns(list: &Value, at: &str, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    for (i, column) in list.as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}[{i}]");
        if text(&column["name"]).is_empty() {
            causes.push(required(format!("{at}.name"), ""));
        }
        let kind = text(&column["type"]);
        if !TYPES.contains(&kind) {
            let why = format!("must be one of {}", TYPES.join(","));
            causes.push(invalid(format!("{at}.type"), kind.into(), &why));
        }
        let format_ = text(&column["format"]);
        if !format_.is_empty() && !FORMATS.contains(&format_) {
            let why = format!("must be one of {}", FORMATS.join(","));
            causes.push(invalid(format!("{at}.format"), format_.into(), &why));
        }
        let path = text(&column["jsonPath"]);
        if path.is_empty() {
            causes.push(required(format!("{at}.JSONPath"), ""));
        } else if !path.starts_with('.') {
            let why = "must be a simple json path starting with .";
            causes.push(invalid(format!("{at}.JSONPath"), path.into(), why));
        }
    }
}

fn selectable(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let list = version["selectableFields"].as_array();
    for (i, entry) in list.into_iter().flatten().enumerate() {
        let (path, at) = (text(&entry["jsonPath"]), format!("{at}[{i}].jsonPath"));
        let Some(rest) = path.strip_prefix('.') else {
            let why = if path.is_empty() {
                causes.push(required(at, ""));
                continue;
            } else {
                format!("is an invalid path: expected [ or . but got: {path}")
            };
            causes.push(invalid(at, path.into(), &why));
            continue;
        };
        let schema = &version["schema"]["openAPIV3Schema"];
        let found = rest
            .split('.')
            .fold(schema, |node, name| &node["properties"][name]);
        if found.is_null() {
            let why = "is an invalid path: does not refer to a valid field";
            causes.push(invalid(at, path.into(), why));
        } else if !matches!(text(&found["type"]), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            causes.push(invalid(at, path.into(), why));
        }
    }
}

fn names(names: &Value, causes: &mut Vec<Cause>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let (at, name) = (format!("spec.names.{field}"), text(&names[field]));
        if name.is_empty() {
            causes.push(required(at, ""));
        } else if !is_label(&match field {
            "kind" | "listKind" => name.to_lowercase(),
            _ => name.to_owned(),
        }) {
            let why = if field.to_lowercase().contains("kind") {
                "may have mixed case, but should otherwise match: "
            } else {
                ""
            };
            causes.push(invalid(at, name.into(), &format!("{why}{LABEL}")));
        }
    }
    for field in ["shortNames", "categories"] {
        for (i, name) in crate::object::strings(&names[field])
            .into_iter()
            .enumerate()
        {
            if !is_label(&name) {
                let at = format!("spec.names.{field}[{i}]");
                causes.push(invalid(at, name.into(), LABEL));
            }
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

/// A fault of a schema that cannot be compiled.
fn fault(at: &str, schema: &Value, error: &SchemaError) -> Cause {
    let path = error
        .path
        .strip_prefix("openAPIV3Schema")
        .unwrap_or(&error.path);
    let mut field = format!("{at}{path}");
    let mut said = error.message.as_str();
    // Rules tell which of their parts is meant.
    if path.ends_with(']')
        && let Some((part, rest)) = said.split_once(": ")
        && part.chars().all(|c| c.is_ascii_alphabetic())
    {
        field = format!("{field}.{part}");
        said = rest;
    }
    for (prefix, reason) in [
        ("Required value", "FieldValueRequired"),
        ("Invalid value", "FieldValueInvalid"),
        ("Unsupported value", "FieldValueNotSupported"),
        ("Forbidden", "FieldValueForbidden"),
    ] {
        if said.starts_with(prefix) {
            return Cause::new(reason, field, said);
        }
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
        let at = "spec.validation.openAPIV3Schema";
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
