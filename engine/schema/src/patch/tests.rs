use super::*;
use crate::structural::Schema;
use serde_json::json;

fn schema() -> Schema {
    Schema::from_openapi(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "args": {"type": "array", "items": {"type": "string"}},
        "containers": {"type": "array", "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "image": {"type": "string"}}}}}}}}))
    .unwrap()
}

#[test]
fn strategic_patches_merge_lists_by_key() {
    let live = json!({"metadata": {"finalizers": ["a"]}, "spec": {"args": ["x"], "n": 1, "containers": [{"name": "a", "image": "1", "tty": true}, {"name": "b"}]}});
    for (patch, want) in [
        (
            json!({"spec": {"containers": [{"name": "a", "image": "2"}]}}),
            json!({"args": ["x"], "n": 1, "containers": [{"name": "a", "image": "2", "tty": true}, {"name": "b"}]}),
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}], "args": ["y"]}}),
            json!({"args": ["y"], "n": 1, "containers": [{"name": "b"}]}),
        ),
        (
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
            json!({"args": ["x"], "n": 1, "containers": [{"name": "c"}]}),
        ),
        (
            json!({"spec": {"$patch": "replace", "n": 2}}),
            json!({"n": 2}),
        ),
        (
            json!({"spec": {"n": null, "containers": [{"name": "c"}], "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}}),
            json!({"args": ["x"], "containers": [{"name": "c"}, {"name": "a", "image": "1", "tty": true}, {"name": "b"}]}),
        ),
        (
            json!({"spec": {"$retainKeys": ["n"], "n": 3}}),
            json!({"n": 3}),
        ),
    ] {
        let got = strategic(schema().root(), &live, &patch).unwrap();
        assert_eq!(got["spec"], want, "{patch}");
    }
    let got = strategic(
        schema().root(),
        &live,
        &json!({"metadata": {"finalizers": ["b"]}}),
    )
    .unwrap();
    assert_eq!(got["metadata"]["finalizers"], json!(["b", "a"]));
    let got = strategic(
        schema().root(),
        &live,
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
    )
    .unwrap();
    assert_eq!(got["metadata"]["finalizers"], json!([]));
}

#[test]
fn bad_patches_say_why() {
    let live = json!({"spec": {}});
    assert!(
        strategic(
            schema().root(),
            &live,
            &json!({"spec": {"containers": [{"image": "1"}]}})
        )
        .is_err()
    );
    assert!(strategic(schema().root(), &live, &json!({"spec": {"$patch": "what"}})).is_err());
    let mut target = live.clone();
    assert!(matches!(
        json(&mut target, &json!({"op": "add"})),
        Err(PatchError::Malformed(_))
    ));
    assert!(matches!(
        json(
            &mut target,
            &json!([{"op": "test", "path": "/spec", "value": 1}])
        ),
        Err(PatchError::Unfit(_))
    ));
    assert_eq!(target, live);
}
