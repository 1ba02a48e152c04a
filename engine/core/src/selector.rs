//! Label selectors, as Kubernetes reads them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Whether `labels` fulfil all that the selector asks for. An empty selector matches everything; a requirement with an
/// operator that Kubernetes does not know matches nothing.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    selector.match_labels.iter().flatten().all(equal)
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|r| fulfils(r, labels))
}

fn fulfils(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let found = labels.get(&requirement.key);
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|v| values.contains(v)),
        "NotIn" => found.is_none_or(|v| !values.contains(v)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_operator() {
        let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        for (selector, with, without) in [
            (json!({}), true, true),
            (json!({"matchLabels": {"a": "1"}}), true, false),
            (json!({"matchLabels": {"a": "2"}}), false, false),
            (json!({"matchLabels": {"a": "1", "b": "1"}}), false, false),
            (expression("In", json!(["1", "2"])), true, false),
            (expression("NotIn", json!(["1", "2"])), false, true),
            (expression("Exists", Value::Null), true, false),
            (expression("DoesNotExist", Value::Null), false, true),
            (expression("Like", json!(["1"])), false, false),
        ] {
            let read: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
            assert_eq!(matches(&read, &labels), with, "{selector}");
            assert_eq!(matches(&read, &BTreeMap::new()), without, "{selector}");
        }
    }
}
