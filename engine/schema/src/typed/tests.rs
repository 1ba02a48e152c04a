use super::*;
use crate::structural::Schema;
use serde_json::json;

fn schema() -> Schema {
    Schema::from_openapi(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "limits": {"type": "object", "additionalProperties": {"type": "string"}},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "args": {"type": "array", "items": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "protocol"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"},
                "protocol": {"type": "string", "default": "TCP"}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}))
    .unwrap()
}

#[test]
fn fields_of_a_value() {
    let set = field_set(
        schema().root(),
        &json!({"spec": {"replicas": 1, "limits": {"cpu": "1"}, "tags": ["a"], "args": ["x", "y"],
            "ports": [{"name": "p", "port": 1}], "open": {"a": {"b": 1}}}}),
    );
    assert_eq!(
        serde_json::to_value(&set).unwrap(),
        json!({"f:spec": {"f:replicas": {}, "f:limits": {"f:cpu": {}}, "f:tags": {"v:\"a\"": {}}, "f:args": {},
            "f:ports": {"k:{\"name\":\"p\",\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
            "f:open": {"f:a": {".": {}, "f:b": {}}}}})
    );
}

#[test]
fn a_comparison_names_leaves_and_new_containers() {
    let old = json!({"spec": {"replicas": 1, "ports": [{"name": "a", "port": 1}], "tags": ["x"]}});
    let new = json!({"spec": {"replicas": 2, "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    let found = compare(schema().root(), &old, &new);
    assert_eq!(found.modified.paths(), [".spec.replicas"]);
    assert_eq!(
        found.added.paths(),
        [
            ".spec.ports[name=\"b\",protocol=\"TCP\"]",
            ".spec.ports[name=\"b\",protocol=\"TCP\"].name",
            ".spec.ports[name=\"b\",protocol=\"TCP\"].port"
        ]
    );
    assert_eq!(found.removed.paths(), [".spec.tags", ".spec.tags[=\"x\"]"]);
    assert!(compare(schema().root(), &new, &new).is_same());
}

#[test]
fn lists_keep_the_order_of_the_configuration_and_the_place_of_the_rest() {
    let names = |list: &[&str]| json!({"spec": {"tags": list}});
    for (live, config, want) in [
        (&["a"][..], &["b"][..], &["a", "b"][..]),
        (&["a", "b", "c"], &["b", "d"], &["a", "b", "c", "d"]),
        (&["a", "b"], &["d", "b"], &["a", "d", "b"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&[], &["x", "y"], &["x", "y"]),
        (&["x", "y"], &[], &["x", "y"]),
    ] {
        let merged = merge(schema().root(), &names(live), &names(config));
        assert_eq!(merged, names(want), "{live:?} + {config:?}");
    }
}

#[test]
fn faults_name_every_path() {
    let found = faults(
        schema().root(),
        &json!({"spec": {"replicas": "two", "unknown": 1, "tags": ["x", "x"], "ports": [{"port": 1}, {"name": 5}]}}),
    );
    assert_eq!(
        found,
        [
            ".spec.ports[name=5,protocol=\"TCP\"].name: expected string, got number",
            ".spec.replicas: expected numeric (int or float), got string",
            ".spec.tags: duplicate entries for key [=\"x\"]",
            ".spec.unknown: field not declared in schema",
        ]
    );
}
