use super::{Writer, apply_whole as apply};
use crate::structural::Schema;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

fn schema() -> Schema {
    Schema::from_openapi(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "replicas": {"type": "integer", "default": 1}, "paused": {"type": "boolean"},
        "limits": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}}}}}}))
    .unwrap()
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        api_version: "v1",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    }
}

/// An update of an object that carries its managed fields itself.
fn update(schema: &Schema, live: &Value, object: &mut Value, writer: &Writer<'_>) {
    let kept = to_raw_value(&live["metadata"]["managedFields"]).unwrap();
    let kept = super::update(schema, live, Some(&kept), object, writer);
    object["metadata"]["managedFields"] = serde_json::to_value(kept).unwrap();
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": spec})
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries
        .iter()
        .find(|e| e["manager"] == manager)
        .map_or(Value::Null, |e| e["fieldsV1"].clone())
}

#[test]
fn a_field_no_longer_declared_goes_and_the_metadata_stays() {
    let mut first = config(json!({"replicas": 2, "limits": {"cpu": "1"}}));
    first["metadata"]["labels"] = json!({"a": "1"});
    let live = apply(&schema(), &Value::Null, &first, &writer("one"), false).unwrap();
    assert_eq!(
        fields(&live, "one"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:limits": {"f:cpu": {}}, "f:replicas": {}}})
    );
    let live = apply(
        &schema(),
        &live,
        &config(json!({"replicas": 2})),
        &writer("one"),
        false,
    )
    .unwrap();
    assert_eq!(live["spec"], json!({"replicas": 2}));
    assert_eq!(live["metadata"]["name"], "a");
    assert!(live["metadata"].get("labels").is_none());
}

#[test]
fn applying_again_changes_nothing() {
    let wanted = config(json!({"replicas": 2, "ports": [{"name": "p", "port": 1}]}));
    let live = apply(&schema(), &Value::Null, &wanted, &writer("one"), false).unwrap();
    let later = Writer {
        now: "2026-02-02T00:00:00Z",
        ..writer("one")
    };
    assert_eq!(
        apply(&schema(), &live, &wanted, &later, false).unwrap(),
        live
    );
}

#[test]
fn two_managers_share_conflict_and_force() {
    let live = apply(
        &schema(),
        &Value::Null,
        &config(json!({"replicas": 2})),
        &writer("one"),
        false,
    )
    .unwrap();
    let shared = apply(
        &schema(),
        &live,
        &config(json!({"replicas": 2})),
        &writer("two"),
        false,
    )
    .unwrap();
    assert_eq!(fields(&shared, "two"), fields(&shared, "one"));
    let error = apply(
        &schema(),
        &live,
        &config(json!({"replicas": 3})),
        &writer("two"),
        false,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let forced = apply(
        &schema(),
        &live,
        &config(json!({"replicas": 3})),
        &writer("two"),
        true,
    )
    .unwrap();
    assert_eq!(
        (&forced["spec"]["replicas"], fields(&forced, "one")),
        (&json!(3), Value::Null)
    );
    // Shared fields stay when one of the two gives them up.
    let left = apply(
        &schema(),
        &shared,
        &config(json!({})),
        &writer("one"),
        false,
    )
    .unwrap();
    assert_eq!(left["spec"]["replicas"], 2);
}

#[test]
fn an_item_that_another_manager_has_stays() {
    let ports = |list: Value| config(json!({"ports": list}));
    let live = apply(
        &schema(),
        &Value::Null,
        &ports(json!([{"name": "a", "port": 1}])),
        &writer("one"),
        false,
    )
    .unwrap();
    let live = apply(
        &schema(),
        &live,
        &ports(json!([{"name": "b", "port": 2}])),
        &writer("two"),
        false,
    )
    .unwrap();
    let live = apply(&schema(), &live, &config(json!({})), &writer("one"), false).unwrap();
    assert_eq!(live["spec"]["ports"], json!([{"name": "b", "port": 2}]));
}

#[test]
fn an_update_takes_what_it_changes() {
    let live = apply(
        &schema(),
        &Value::Null,
        &config(json!({"replicas": 2, "paused": true})),
        &writer("one"),
        false,
    )
    .unwrap();
    let mut next = live.clone();
    next["spec"]["replicas"] = 3.into();
    update(&schema(), &live, &mut next, &writer("kubectl"));
    assert_eq!(
        fields(&next, "kubectl"),
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert_eq!(fields(&next, "one"), json!({"f:spec": {"f:paused": {}}}));
    let mut again = next.clone();
    update(
        &schema(),
        &next,
        &mut again,
        &Writer {
            now: "later",
            ..writer("kubectl")
        },
    );
    assert_eq!(again, next);
}

#[test]
fn what_was_there_before_the_first_apply_conflicts() {
    let live = config(json!({"replicas": 2}));
    let error = apply(
        &schema(),
        &live,
        &config(json!({"replicas": 3})),
        &writer("one"),
        false,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .spec.replicas"
    );
}
