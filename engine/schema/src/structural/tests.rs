use super::*;
use serde_json::json;

#[test]
fn refuses_what_is_not_structural_with_every_place() {
    let errors = Schema::from_openapi(&json!({"type": "object", "properties": {
        "a": {}, "b": {"type": "array"}, "c": {"type": "what"}, "d": {"type": "string", "pattern": "("},
        "e": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    }}))
    .unwrap_err();
    let paths: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
    assert!(
        paths.contains(&"openAPIV3Schema.properties[a].type"),
        "{paths:?}"
    );
    assert!(
        paths.contains(&"openAPIV3Schema.properties[b].items"),
        "{paths:?}"
    );
    assert!(
        paths.contains(&"openAPIV3Schema.properties[c].type"),
        "{paths:?}"
    );
    assert!(
        paths.contains(&"openAPIV3Schema.properties[d].pattern"),
        "{paths:?}"
    );
    assert!(
        paths.contains(&"openAPIV3Schema.properties[e].x-kubernetes-list-map-keys"),
        "{paths:?}"
    );
}

#[test]
fn refuses_a_schema_too_deep() {
    let mut schema = json!({"type": "string"});
    for _ in 0..80 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    assert!(Schema::from_openapi(&schema).is_err());
}
