//! Objects that are applied already are passed over: that makes plans cheap, and must not make other ones.

use proptest::prelude::*;

use super::*;
use fleetwright_schema::managed::{self, Writer, apply_whole};

const MANAGER: &str = "fleetwright/default.default";

/// A pool as Git says it, of small numbers: what is left out, and which values the rest has.
fn document(of: [u8; 5]) -> Value {
    let [replicas, size, labels, taints, delay] = of;
    let mut pool = pool();
    match replicas {
        0 => drop(pool["spec"].as_object_mut().unwrap().remove("replicas")),
        n => pool["spec"]["replicas"] = json!(n),
    }
    let template = &mut pool["spec"]["template"];
    template["spec"]["providerConfig"]["size"] = json!(size);
    if labels > 0 {
        template["metadata"] = json!({"labels": {"team": labels.to_string(), "x": "y"}});
        pool["metadata"]["labels"] = json!({"team": labels.to_string()});
    }
    let taint =
        |n: u8| json!({"key": format!("t{n}"), "effect": "NoSchedule", "propagation": "Always"});
    match taints {
        0 => {}
        1 => pool["spec"]["template"]["spec"]["taints"] = json!([taint(1)]),
        2 => pool["spec"]["template"]["spec"]["taints"] = json!([taint(1), taint(2)]),
        _ => pool["spec"]["template"]["spec"]["taints"] = json!([taint(2), taint(1)]),
    }
    if delay > 0 {
        pool["spec"]["template"]["spec"]["minReadySeconds"] = json!(delay);
    }
    pool
}

/// What somebody else made of a live object.
fn edited(live: Value, edit: u8, value: u8) -> Value {
    let by_hand = |config: Value| {
        let mut config = config;
        for field in ["apiVersion", "kind"] {
            config[field] = live[field].clone();
        }
        config["metadata"]["name"] = live["metadata"]["name"].clone();
        config["metadata"]["namespace"] = live["metadata"]["namespace"].clone();
        let writer = Writer {
            manager: "somebody",
            api_version: "fleetwright.dev/v1alpha1",
            subresource: "",
            now: "2026-03-01T10:00:00Z",
        };
        apply_whole(
            schema_of("MachineDeployment"),
            &live,
            &config,
            &writer,
            true,
        )
        .unwrap()
    };
    match edit {
        0 => by_hand(json!({"spec": {"replicas": value}})),
        1 => by_hand(
            json!({"spec": {"template": {"metadata": {"labels": {"team": value.to_string()}}}}}),
        ),
        2 => by_hand(json!({"metadata": {"annotations": {"note": value.to_string()}}})),
        // Nobody's field, and one that nobody says was changed.
        3 => {
            let mut live = live;
            live["status"] = json!({"replicas": value});
            live
        }
        4 => {
            let mut live = live;
            live["spec"]["template"]["spec"]["minReadySeconds"] = json!(value);
            live
        }
        _ => {
            let mut live = live;
            live["metadata"]["annotations"] = json!({ANNOTATION_REVISION: "abc"});
            live
        }
    }
}

/// The same object, whose manager's fields stand in two entries: it means the same, and is not passed over.
fn split(object: &Value) -> Value {
    let mut object = object.clone();
    let entries = object["metadata"]["managedFields"].as_array_mut().unwrap();
    let own = entries.iter_mut().find(|e| e["manager"] == MANAGER);
    let own = own.unwrap();
    let mut other = own.clone();
    other["fieldsV1"].as_object_mut().unwrap().remove("f:spec");
    own["fieldsV1"]
        .as_object_mut()
        .unwrap()
        .remove("f:metadata");
    entries.push(other);
    object
}

fn is_passed_over(document: &Value, live: &Value) -> bool {
    let hash = fleet_hash("default", "default");
    let fleet = foresee::Fleet {
        manager: MANAGER,
        hash: &hash,
        taking: conflict::Taking {
            drift: &DriftPolicy::default(),
            previous: None,
        },
    };
    fleet.is_applied(&Key::of(document), document, live)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_passed_over_is_in_no_plan_and_nothing_else_is_missing(
        pools in prop::collection::vec(
            (any::<[u8; 5]>(), prop::collection::vec((0..6u8, 0..4u8), 0..3), prop::option::of(0..5usize), any::<u8>()),
            1..4,
        ),
        action in prop::sample::select(vec![DriftAction::Report, DriftAction::Correct, DriftAction::Ignore]),
    ) {
        let mut desired = Vec::new();
        let mut objects = Vec::new();
        for (at, (of, edits, change, to)) in pools.into_iter().enumerate() {
            let of = of.map(|n| n % 4);
            let named = |of| {
                let mut document = document(of);
                document["metadata"]["name"] = json!(format!("p{at}"));
                document
            };
            let before = named(of);
            let mut live = applied(&before, None, MANAGER);
            prop_assert!(is_passed_over(&before, &live), "{live}");
            for (edit, value) in edits {
                live = edited(live, edit, value);
            }
            let mut now = of;
            if let Some(field) = change {
                now[field] = to % 4;
            }
            desired.push(Desired {
                document: named(now),
                source: "a.yaml:1".into(),
                origins: Origins::default(),
            });
            prop_assert!(!is_passed_over(&named(now), &split(&live)));
            objects.push(live);
        }
        let policy = Policy {
            drift: DriftPolicy { policy: Some(action), rules: Vec::new() },
            ..policy()
        };
        let planned = |objects: Vec<Value>| {
            let live = Live { objects, ..Live::default() };
            plan(&desired, None, &live, &policy, &Catalogue::default())
        };
        let whole = planned(objects.iter().map(split).collect());
        let packed = objects.iter().cloned().map(|mut object| {
            managed::pack(&mut object);
            object
        });
        prop_assert_eq!(&planned(packed.collect()), &whole);
        prop_assert_eq!(planned(objects), whole);
    }
}
