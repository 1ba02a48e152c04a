//! Which machines a set takes in and lets go.

use fleetwright_api::{Machine, MachineSet, meta, time::k8s_time};
use serde_json::{Value, json};

use super::at;
use crate::machine_set::{Ownership, SetWait, ownership, scale};

const POOL: &str = meta::LABEL_DEPLOYMENT_NAME;
const HASH: &str = meta::LABEL_TEMPLATE_HASH;

fn set(selector: Value) -> MachineSet {
    serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "n", "uid": "u"},
        "spec": {"clusterName": "c", "selector": selector, "template": {"spec": {"providerConfig": {}}}},
    }))
    .unwrap()
}

fn machine(labels: Value) -> Machine {
    serde_json::from_value(json!({
        "metadata": {"name": "m", "namespace": "n", "labels": labels},
        "spec": {"clusterName": "c", "providerConfig": {}},
    }))
    .unwrap()
}

#[test]
fn orphans_that_match_are_adopted() {
    let labels = json!({"matchLabels": {POOL: "p", HASH: "h"}});
    let ours = || machine(json!({POOL: "p", HASH: "h", "team": "a"}));
    let other = |change: &dyn Fn(&mut Machine)| {
        let mut machine = ours();
        change(&mut machine);
        machine
    };
    for (name, machine, adopted) in [
        ("it matches", ours(), true),
        (
            "of another set",
            machine(json!({POOL: "p", HASH: "x"})),
            false,
        ),
        ("a label is missing", machine(json!({POOL: "p"})), false),
        ("no labels", machine(json!(null)), false),
        (
            "of another cluster",
            other(&|m| m.spec.cluster_name = "x".into()),
            false,
        ),
        (
            "of another namespace",
            other(&|m| m.metadata.namespace = Some("x".into())),
            false,
        ),
        (
            "on its way out",
            other(&|m| m.metadata.deletion_timestamp = Some(k8s_time(at(0)))),
            false,
        ),
        (
            "somebody controls it",
            other(&|m| {
                let owner = json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x", "controller": true}]);
                m.metadata.owner_references = serde_json::from_value(owner).unwrap();
            }),
            false,
        ),
        (
            "somebody owns it without control",
            other(&|m| {
                let owner = json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]);
                m.metadata.owner_references = serde_json::from_value(owner).unwrap();
            }),
            true,
        ),
        (
            "of the control plane",
            machine(json!({POOL: "p", HASH: "h", meta::LABEL_CONTROL_PLANE: ""})),
            false,
        ),
    ] {
        let change = ownership(&set(labels.clone()), &[], &[machine]);
        let want = if adopted {
            vec!["m".to_owned()]
        } else {
            vec![]
        };
        assert_eq!(change.adopt, want, "{name}");
    }
}

#[test]
fn machines_that_left_the_selector_are_let_go() {
    let by = |selector: Value, labels: Value| {
        ownership(&set(selector), &[machine(labels)], &[])
            .release
            .len()
    };
    let labels = json!({"matchLabels": {"a": "b"}});
    assert_eq!(by(labels.clone(), json!({"a": "b"})), 0);
    assert_eq!(by(labels.clone(), json!({"a": "c"})), 1);
    for (operator, values, present, absent) in [
        ("In", json!(["b"]), 0, 1),
        ("NotIn", json!(["b"]), 1, 0),
        ("Exists", json!(null), 0, 1),
        ("DoesNotExist", json!(null), 1, 0),
        ("Resembles", json!(null), 1, 1),
    ] {
        let selector =
            json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        let got = (
            by(selector.clone(), json!({"a": "b"})),
            by(selector, json!({})),
        );
        assert_eq!(got, (present, absent), "{operator}");
    }
    // Without a selector, or with one that would take every machine, it is the set's name.
    for selector in [json!(null), json!({}), json!({"matchLabels": {}})] {
        assert_eq!(by(selector.clone(), json!({meta::LABEL_SET_NAME: "s"})), 0);
        assert_eq!(by(selector, json!({})), 1);
    }
    // On its way out it stays with whom it is.
    let mut leaving = machine(json!({}));
    leaving.metadata.deletion_timestamp = Some(k8s_time(at(0)));
    assert_eq!(
        ownership(&set(labels.clone()), &[leaving], &[]),
        Ownership::default()
    );
    let mut paused = set(labels);
    paused.metadata.annotations =
        Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    let orphan = machine(json!({"a": "b"}));
    assert_eq!(
        ownership(&paused, &[machine(json!({}))], &[orphan]),
        Ownership::default()
    );
}

#[test]
fn a_set_makes_nothing_that_it_would_let_go() {
    let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
    // (selector, labels of the template, whether machines are made)
    for (selector, labels, makes) in [
        (json!(null), json!({}), true),
        (json!({"matchLabels": {"a": "b"}}), json!({"a": "b"}), true),
        (json!({"matchLabels": {"a": "b"}}), json!({}), false),
        (expression("In", json!(["b"])), json!({"a": "b"}), true),
        (expression("In", json!(["b"])), json!({"a": "c"}), false),
        (
            expression("DoesNotExist", json!(null)),
            json!({"a": "c"}),
            false,
        ),
        (
            json!({"matchLabels": {meta::LABEL_CLUSTER_NAME: "c", meta::LABEL_SET_NAME: "s"}}),
            json!({}),
            true,
        ),
        (
            json!({"matchLabels": {meta::LABEL_CLUSTER_NAME: "other"}}),
            json!({}),
            false,
        ),
        // Of a pool that the set has not.
        (json!({"matchLabels": {POOL: "p"}}), json!({}), false),
    ] {
        let mut set = set(selector.clone());
        set.spec.replicas = Some(2);
        set.spec.template.metadata = serde_json::from_value(json!({"labels": labels})).unwrap();
        let decision = scale(&set, &[] as &[Machine], 0, at(0));
        let (made, waits) = match makes {
            true => (2, None),
            false => (0, Some(SetWait::Selector)),
        };
        assert_eq!(
            (decision.create.len(), decision.waiting),
            (made, waits),
            "{selector}"
        );
        for new in &decision.create {
            let machine = machine(json!(new.labels));
            assert_eq!(ownership(&set, &[machine], &[]), Ownership::default());
        }
    }
}
