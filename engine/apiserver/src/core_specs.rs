//! What the specs of core kinds must hold, as far as controllers and simulated clusters lean on it.

use serde_json::Value;

use crate::error::Cause;
use crate::registry::Kind;
use crate::selector::Selector;

/// What is wrong with the spec of a core object.
pub(crate) fn faults(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &object["spec"];
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => pod(spec, "spec", &mut causes),
        ("apps", "daemonsets") => {
            let template = &spec["template"];
            if spec["selector"].is_null() {
                causes.push(required("spec.selector", ""));
            } else if !Selector::of_labels(&spec["selector"]).matches(template) {
                let labels = &template["metadata"]["labels"];
                causes.push(invalid(
                    "spec.template.metadata.labels",
                    labels,
                    "`selector` does not match template `labels`",
                ));
            }
            pod(&template["spec"], "spec.template.spec", &mut causes);
        }
        ("", "persistentvolumeclaims") => {
            if is_empty(&spec["accessModes"]) {
                let why = "at least 1 access mode is required";
                causes.push(required("spec.accessModes", why));
            }
            if spec["resources"]["requests"]["storage"].is_null() {
                causes.push(required("spec.resources[storage]", ""));
            }
        }
        ("", "services") => {
            let without = spec["type"] == "ExternalName" || spec["clusterIP"] == "None";
            if is_empty(&spec["ports"]) && !without {
                causes.push(required("spec.ports", ""));
            }
        }
        ("coordination.k8s.io", "leases") => {
            let seconds = &spec["leaseDurationSeconds"];
            if seconds.as_i64().is_some_and(|n| n <= 0) {
                let why = "must be greater than 0";
                causes.push(invalid("spec.leaseDurationSeconds", seconds, why));
            }
            let transitions = &spec["leaseTransitions"];
            if transitions.as_i64().is_some_and(|n| n < 0) {
                let why = "must be greater than or equal to 0";
                causes.push(invalid("spec.leaseTransitions", transitions, why));
            }
        }
        ("policy", "poddisruptionbudgets")
            if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() =>
        {
            let why = "minAvailable and maxUnavailable cannot be both set";
            causes.push(invalid("spec", spec, why));
        }
        _ => {}
    }
    causes
}

fn pod(spec: &Value, at: &str, causes: &mut Vec<Cause>) {
    if is_empty(&spec["containers"]) {
        causes.push(required(format!("{at}.containers"), ""));
    }
    for list in ["initContainers", "containers"] {
        let mut names = Vec::new();
        let containers = spec[list].as_array().into_iter().flatten();
        for (i, container) in containers.enumerate() {
            let at = format!("{at}.{list}[{i}]");
            for field in ["name", "image"] {
                if container[field].as_str().unwrap_or_default().is_empty() {
                    causes.push(required(format!("{at}.{field}"), ""));
                }
            }
            let name = &container["name"];
            if names.contains(&name) {
                let text = format!("Duplicate value: {name}");
                causes.push(Cause::new(
                    "FieldValueDuplicate",
                    format!("{at}.name"),
                    text,
                ));
            }
            names.push(name);
        }
    }
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}

fn required(field: impl Into<String>, why: &str) -> Cause {
    let colon = if why.is_empty() { "" } else { ": " };
    let text = format!("Required value{colon}{why}");
    Cause::new("FieldValueRequired", field, text)
}

fn invalid(field: &str, value: &Value, why: &str) -> Cause {
    let text = format!("Invalid value: {value}: {why}");
    Cause::new("FieldValueInvalid", field, text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_spec_is_held_to_its_rule() {
        let kinds = crate::core_kinds::all();
        let container = json!({"name": "c", "image": "i"});
        let table = [
            ("Pod", json!({"containers": [container]}), ""),
            ("Pod", json!({}), "spec.containers"),
            (
                "Pod",
                json!({"containers": [{"name": "c"}]}),
                "spec.containers[0].image",
            ),
            (
                "Pod",
                json!({"containers": [container, container]}),
                "spec.containers[1].name",
            ),
            (
                "DaemonSet",
                json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [container]}}}),
                "",
            ),
            (
                "DaemonSet",
                json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [container]}}}),
                "spec.template.metadata.labels",
            ),
            (
                "PersistentVolumeClaim",
                json!({"accessModes": ["ReadWriteOnce"]}),
                "spec.resources[storage]",
            ),
            ("Service", json!({}), "spec.ports"),
            ("Service", json!({"clusterIP": "None"}), ""),
            (
                "Lease",
                json!({"leaseDurationSeconds": 0}),
                "spec.leaseDurationSeconds",
            ),
            (
                "PodDisruptionBudget",
                json!({"minAvailable": 1, "maxUnavailable": 1}),
                "spec",
            ),
            ("ConfigMap", json!({}), ""),
        ];
        for (kind, spec, field) in table {
            let kind = kinds.iter().find(|k| k.kind == kind).unwrap();
            let found = faults(kind, &json!({"spec": spec}));
            let fields: Vec<&str> = found.iter().map(|c| c.field.as_str()).collect();
            let want: Vec<&str> = [field].into_iter().filter(|f| !f.is_empty()).collect();
            assert_eq!(fields, want, "{} {spec}", kind.kind);
        }
    }
}
