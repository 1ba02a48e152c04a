//! Whether a core object is of the types that its definition gives it; faults are worded as Go's parser words them.

use fleetwright_schema::Node;
use fleetwright_schema::structural::{Additional, Type};
use serde_json::Value;

use crate::core_schemas::{REF, definitions};
use crate::quantity;

/// The first field of a value that is not of its type, such as
/// `json: cannot unmarshal number into Go struct field ConfigMap.data of type string`.
pub(crate) fn mismatch(name: &str, value: &Value) -> Option<String> {
    let place = Place {
        parent: "",
        field: "",
        above: None,
    };
    place.check(definitions().get(name)?, short(name), value)
}

/// Writes quantities as they are kept.
pub(crate) fn quantities(name: &str, value: &mut Value) {
    if let Some(definition) = definitions().get(name) {
        to_texts(definition, short(name), value);
    }
}

fn to_texts(schema: &Value, named: &str, value: &mut Value) {
    if let Some(name) = referred(schema) {
        if let Some(definition) = definitions().get(name) {
            to_texts(definition, short(name), value);
        }
        return;
    }
    match value {
        Value::Number(number) if named == "Quantity" => {
            let text = number.to_string();
            *value = quantity::canonical(&text).unwrap_or(text).into();
        }
        Value::String(text) if named == "Quantity" => {
            if let Some(canonical) = quantity::canonical(text) {
                *text = canonical;
            }
        }
        Value::Object(map) => {
            for (field, value) in map {
                let property = schema["properties"].get(field);
                if let Some(schema) = property.or_else(|| schema.get("additionalProperties")) {
                    to_texts(schema, "", value);
                }
            }
        }
        Value::Array(list) => {
            for item in list {
                to_texts(&schema["items"], "", item);
            }
        }
        _ => {}
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn referred(schema: &Value) -> Option<&str> {
    let target = schema
        .get("$ref")
        .or_else(|| schema.get("allOf")?[0].get("$ref"))?;
    target.as_str()?.strip_prefix(REF)
}

/// Where a check has come to: the innermost named type around, and the fields on the way.
struct Place<'a> {
    parent: &'a str,
    /// Empty at the top, and for what is below a map.
    field: &'a str,
    above: Option<&'a Place<'a>>,
}

impl Place<'_> {
    /// The names of the fields from the top to here.
    fn path(&self) -> String {
        let above = self.above.map(Place::path).unwrap_or_default();
        let dot = if above.is_empty() || self.field.is_empty() {
            ""
        } else {
            "."
        };
        format!("{above}{dot}{}", self.field)
    }

    /// `named` is the name of the type that the schema stands for, empty when it has none.
    fn check(&self, schema: &Value, named: &str, value: &Value) -> Option<String> {
        if let Some(name) = referred(schema) {
            return self.check(definitions().get(name)?, short(name), value);
        }
        // Some types read themselves from numbers and texts.
        match (named, value) {
            ("Quantity", Value::String(text)) if quantity::canonical(text).is_none() => {
                return Some(quantity::FAULT.to_owned());
            }
            ("Time" | "MicroTime", Value::String(text)) => return time(text, named == "MicroTime"),
            _ => {}
        }
        if matches!(named, "Quantity" | "IntOrString" | "JSON") {
            return None;
        }
        let got = match (schema["type"].as_str()?, value) {
            (_, Value::Null)
            | ("string", Value::String(_))
            | ("boolean", Value::Bool(_))
            | ("number", Value::Number(_)) => return None,
            ("integer", Value::Number(number)) if number.is_i64() => return None,
            ("integer", Value::Number(number)) => format!("number {number}"),
            ("array", Value::Array(list)) => {
                let mut items = list.iter();
                return items.find_map(|item| self.check(&schema["items"], "", item));
            }
            ("object", Value::Object(map)) => {
                let parent = if named.is_empty() { self.parent } else { named };
                let properties = &schema["properties"];
                return map.iter().find_map(|(name, value)| {
                    let (property, field) = match properties.get(name) {
                        Some(property) => (property, name.as_str()),
                        None => (schema.get("additionalProperties")?, ""),
                    };
                    let above = Some(self);
                    Place {
                        parent,
                        field,
                        above,
                    }
                    .check(property, "", value)
                });
            }
            (_, Value::Bool(_)) => "bool".to_owned(),
            (_, Value::Number(_)) => "number".to_owned(),
            (_, Value::String(_)) => "string".to_owned(),
            (_, Value::Array(_)) => "array".to_owned(),
            (_, Value::Object(_)) => "object".to_owned(),
        };
        let path = self.path();
        let place = if path.is_empty() {
            "value".to_owned()
        } else {
            format!("struct field {}.{path}", self.parent)
        };
        let wanted = go_name(schema, named);
        Some(format!(
            "json: cannot unmarshal {got} into Go {place} of type {wanted}"
        ))
    }
}

/// Drops what is null, and the lists and maps that are empty; a null in a map of texts is an empty text.
pub(crate) fn plain(node: &Node, value: &mut Value) {
    let Value::Object(map) = value else {
        for item in value.as_array_mut().into_iter().flatten() {
            if let Some(items) = &node.items {
                plain(items, item);
            }
        }
        return;
    };
    let texts = match &node.additional {
        Some(Additional::Node(of)) => of.kind == Type::String,
        _ => false,
    };
    map.retain(|name, value| {
        let Some(child) = node.child(name) else {
            return true;
        };
        if matches!(
            name.as_str(),
            "metadata" | "containers" | "versions" | "managedFields"
        ) {
            if name == "containers" {
                plain(child, value);
            }
            return true;
        }
        if texts && value.is_null() {
            *value = "".into();
        }
        plain(child, value);
        match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty() || child.additional.is_none(),
            _ => true,
        }
    });
}

/// Why a text is no time, as Go tells it.
fn time(text: &str, micro: bool) -> Option<String> {
    let zone = text
        .find(['Z', '+'])
        .or_else(|| text.rfind('-').filter(|at| *at > 10));
    let (moment, rest) = text.split_at(zone.unwrap_or(text.len()));
    let fraction = moment.get(19..).unwrap_or_default();
    let layout = if micro {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    let fault = |found: &str, wanted: &str| {
        Some(format!(
            "parsing time {text:?} as {layout:?}: cannot parse {found:?} as {wanted:?}"
        ))
    };
    if text.parse::<jiff::Timestamp>().is_err() {
        let year = text
            .get(..4)
            .is_some_and(|y| y.bytes().all(|b| b.is_ascii_digit()));
        return if year {
            fault(text.get(4..).unwrap_or_default(), "-")
        } else {
            fault(text, "2006")
        };
    }
    if micro && fraction.len() != 7 {
        return fault(&format!("{fraction}{rest}"), ".000000");
    }
    None
}

/// The Go type of a schema.
fn go_name(schema: &Value, named: &str) -> String {
    if !named.is_empty() {
        return format!("v1.{named}");
    }
    if let Some(name) = referred(schema) {
        return format!("v1.{}", short(name));
    }
    match schema["type"].as_str().unwrap_or_default() {
        "boolean" => "bool".to_owned(),
        "integer" => schema["format"].as_str().unwrap_or("int64").to_owned(),
        "number" => "float64".to_owned(),
        "array" => format!("[]{}", go_name(&schema["items"], "")),
        "object" => format!(
            "map[string]{}",
            go_name(&schema["additionalProperties"], "")
        ),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn wrong_types_are_named_with_type_and_path() {
        let map = "io.k8s.api.core.v1.ConfigMap";
        let pod = "io.k8s.api.core.v1.Pod";
        let told = [
            (
                map,
                json!({"data": {"a": 1}}),
                "number into Go struct field ConfigMap.data of type string",
            ),
            (
                map,
                json!({"data": []}),
                "array into Go struct field ConfigMap.data of type map[string]string",
            ),
            (
                map,
                json!({"metadata": {"labels": {"a": true}}}),
                "bool into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                pod,
                json!({"spec": {"containers": [{"image": 5}]}}),
                "number into Go struct field Container.spec.containers.image of type string",
            ),
            (
                pod,
                json!({"spec": {"containers": {}}}),
                "object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                pod,
                json!({"spec": {"priority": 1.5}}),
                "number 1.5 into Go struct field PodSpec.spec.priority of type int32",
            ),
            (
                pod,
                json!({"spec": 1}),
                "number into Go struct field Pod.spec of type v1.PodSpec",
            ),
        ];
        for (name, value, told) in told {
            let want = format!("json: cannot unmarshal {told}");
            assert_eq!(super::mismatch(name, &value), Some(want));
        }
        let good = json!({"spec": {"containers": [{"image": "a", "resources": {"limits": {"cpu": 1, "memory": "2Gi"}},
            "livenessProbe": {"httpGet": {"port": 80}}, "ports": null}]}, "status": {"startTime": null}});
        assert_eq!(super::mismatch(pod, &good), None);
        let mut kept = good;
        super::quantities(pod, &mut kept);
        let limits = &kept["spec"]["containers"][0]["resources"]["limits"];
        assert_eq!(limits, &json!({"cpu": "1", "memory": "2Gi"}));
    }
}
