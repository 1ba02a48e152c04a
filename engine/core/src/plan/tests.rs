use fleetwright_api::{
    fleet::DriftAction,
    meta::{
        ANNOTATION_ALLOW_DELETE, ANNOTATION_REVISION, LABEL_CLUSTER_NAME, LABEL_DEPLOYMENT_NAME,
        LABEL_FLEET,
    },
};
use serde_json::json;

use super::*;

mod applied;
mod digest;
mod fleets;

fn policy() -> Policy {
    Policy {
        namespace: "default".into(),
        fleet: "default".into(),
        max_machines: 2,
        ..Policy::default()
    }
}

fn cluster() -> Value {
    json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"version": "v1.33.2", "controlPlane": {"machines": {"replicas": 3, "template": {"spec": {"providerConfig": {"apiVersion": "s/v1", "kind": "M", "account": "x"}}}}}}})
}

fn pool() -> Value {
    json!({"apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterName": "a", "replicas": 3, "template": {"spec": {"providerConfig": {"apiVersion": "s/v1", "kind": "M", "account": "x", "size": 1}}}}})
}

/// The object as it is after the Fleet applied it.
fn owned(object: Value, consent: bool) -> Value {
    let mut object = object;
    if consent {
        object["metadata"]["annotations"] = json!({ANNOTATION_ALLOW_DELETE: "u-1"});
    }
    applied(&object, None, "fleetwright/default.default")
}

/// The object after an apply of `document` by `manager`.
fn applied(document: &Value, live: Option<&Value>, manager: &str) -> Value {
    let hash = fleet_hash("default", "default");
    let fleet = foresee::Fleet {
        manager,
        hash: &hash,
        taking: conflict::Taking {
            drift: &DriftPolicy::default(),
            previous: None,
        },
    };
    let done = fleet.foresee(&Key::of(document), document, live);
    let mut after = done.unwrap_or_else(|words| panic!("{words:?}")).after;
    after["metadata"]["uid"] = json!("u-1");
    after
}

fn machine(name: &str) -> Machine {
    let mut machine = Machine::default();
    machine.metadata.name = Some(name.into());
    machine.metadata.namespace = Some("default".into());
    machine.metadata.labels = Some(
        [(LABEL_CLUSTER_NAME, "a"), (LABEL_DEPLOYMENT_NAME, "web")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
    );
    machine
}

fn run(desired: &[Value], objects: Vec<Value>, machines: usize) -> Plan {
    let desired: Vec<Desired> = desired
        .iter()
        .map(|d| Desired {
            document: d.clone(),
            source: "a.yaml:1".into(),
            origins: Origins::default(),
        })
        .collect();
    let live = Live {
        objects,
        sets: Vec::new(),
        machines: (0..machines)
            .map(|i| machine(&format!("web-{i}")))
            .collect(),
        ..Live::default()
    };
    plan(&desired, None, &live, &policy(), &Catalogue::default())
}

#[test]
fn creates_come_clusters_first_and_an_applied_plan_is_empty() {
    let out = run(&[pool(), cluster()], vec![], 0);
    assert_eq!(
        out.creates
            .iter()
            .map(|c| c.key.kind.as_str())
            .collect::<Vec<_>>(),
        ["Cluster", "MachineDeployment"]
    );
    assert!(
        run(
            &[pool(), cluster()],
            vec![owned(cluster(), false), owned(pool(), false)],
            3
        )
        .is_empty()
    );
}

#[test]
fn a_changed_config_rolls_the_pool() {
    let mut want = pool();
    want["spec"]["template"]["spec"]["providerConfig"]["size"] = json!(2);
    let live = vec![owned(cluster(), false), owned(pool(), false)];
    let out = run(&[want, cluster()], live, 2);
    let PlanEffect::RollingReplacement { reason } = &out.changes[0].effect else {
        panic!("{out:?}")
    };
    assert!(reason.contains("size: 1 -> 2"), "{reason}");
    let fields = &out.changes[0].fields;
    assert_eq!(fields.len(), 1);
    assert_eq!(
        fields[0].path.join("."),
        "spec.template.spec.providerConfig.size"
    );
}

#[test]
fn replicas_that_git_stops_declaring_are_handed_over_and_taken_back() {
    let mut want = pool();
    want["spec"].as_object_mut().unwrap().remove("replicas");
    let live = owned(pool(), false);
    let out = run(
        &[want.clone(), cluster()],
        vec![owned(cluster(), false), live.clone()],
        2,
    );
    assert_eq!(out.changes[0].fields, []);
    assert_eq!(out.changes[0].handover[0].value, json!(3));
    assert_eq!(
        partial(&out.changes[0].key, &out.changes[0].handover)["spec"],
        json!({"replicas": 3})
    );
    let handed = applied(&want, Some(&live), "fleetwright/default.default");
    assert_eq!(handed["spec"]["replicas"], json!(3));
    let with = |pool: Value| {
        run(
            &[pool, cluster()],
            vec![owned(cluster(), false), handed.clone()],
            2,
        )
    };
    assert!(with(want).is_empty());
    // Declared again with the same number: nothing differs, but the field has to change hands.
    let back = with(pool());
    assert_eq!((back.changes.len(), &back.changes[0].fields), (1, &vec![]));
    let mut five = pool();
    five["spec"]["replicas"] = json!(5);
    assert_eq!(
        with(five).changes[0].fields[0].held_by,
        Vec::<String>::new()
    );
}

#[test]
fn every_kind_that_git_may_hold_has_its_schema() {
    let object = |kind: &str, more: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}});
        object
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        object
    };
    for wrong in [
        object("ConfigMap", json!({"data": {"a": 1}})),
        object("Namespace", json!({"spec": {"finalizers": "x"}})),
    ] {
        assert_eq!(run(&[wrong], vec![], 0).refused.len(), 1);
    }
    let map = object("ConfigMap", json!({"data": {"a": "1"}, "immutable": true}));
    let live = applied(&map, None, "fleetwright/default.default");
    assert!(run(&[map], vec![live], 0).is_empty());
}

#[test]
fn a_field_that_git_stops_declaring_falls_back_to_its_default() {
    let mut before = pool();
    before["spec"]["revisionHistoryLimit"] = json!(3);
    let live = vec![owned(cluster(), false), owned(before, false)];
    let out = run(&[pool(), cluster()], live, 0);
    let diff = &out.changes[0].fields[0];
    assert_eq!((&diff.from, &diff.to), (&Some(json!(3)), &Some(json!(10))));
}

#[test]
fn a_field_that_somebody_else_holds_stays_unless_the_commit_or_the_policy_takes_it() {
    let mut scaled = owned(pool(), false);
    scaled["spec"]["replicas"] = json!(7);
    let by_hand = json!({"manager": "kubectl", "operation": "Update", "apiVersion": "fleetwright.dev/v1alpha1",
        "time": "2026-03-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}});
    let managed = scaled["metadata"]["managedFields"].as_array_mut().unwrap();
    managed[0]["fieldsV1"]["f:spec"]
        .as_object_mut()
        .unwrap()
        .remove("f:replicas");
    managed.push(by_hand);
    let live = Live {
        objects: vec![owned(cluster(), false), scaled],
        ..Live::default()
    };
    let desired = [pool(), cluster()].map(|document| Desired {
        document,
        source: "a.yaml:1".into(),
        origins: Origins::default(),
    });
    let before = |replicas: i32| {
        let mut old = pool();
        old["spec"]["replicas"] = json!(replicas);
        BTreeMap::from([(Key::of(&old), old)])
    };
    let run = |previous: Option<&BTreeMap<Key, Value>>, drift| {
        let drift = DriftPolicy {
            policy: Some(drift),
            rules: Vec::new(),
        };
        let policy = Policy { drift, ..policy() };
        plan(&desired, previous, &live, &policy, &Catalogue::default())
    };
    use DriftAction::{Correct, Ignore, Report};
    // (declared before, policy, whether it is taken, whether it is reported)
    let rows = [
        (None, Report, false, true),
        (Some(before(3)), Report, false, true),
        (Some(before(4)), Report, true, false),
        (None, Correct, true, false),
        (Some(before(3)), Ignore, false, false),
        (Some(before(4)), Ignore, true, false),
    ];
    for (previous, drift, taken, reported) in rows {
        let out = run(previous.as_ref(), drift);
        let fields: Vec<_> = out.changes.iter().flat_map(|c| &c.fields).collect();
        assert_eq!(fields.len(), usize::from(taken), "{previous:?} {drift:?}");
        for diff in fields {
            assert_eq!((&diff.from, &diff.to), (&Some(json!(7)), &Some(json!(3))));
            assert_eq!(diff.held_by, ["kubectl"]);
        }
        for drift in &out.drift {
            let values = (&drift.wanted, &drift.found);
            assert_eq!(values, (&Some(json!(3)), &Some(json!(7))));
            let since = drift.since.map(|at| at.to_string());
            assert_eq!(since.as_deref(), Some("2026-03-01T10:00:00Z"));
        }
        let told: Vec<_> = out.drift.iter().map(ToString::to_string).collect();
        let line = "MachineDeployment default/web: .spec.replicas is held by kubectl";
        assert_eq!(
            told,
            if reported { vec![line] } else { vec![] },
            "{previous:?} {drift:?}"
        );
    }
}

#[test]
fn what_the_api_would_refuse_is_refused_with_its_place_and_nothing_is_deleted() {
    let mut moved = pool();
    moved["spec"]["clusterName"] = json!("b");
    let other = |name: &str| {
        let mut p = pool();
        p["metadata"]["name"] = json!(name);
        p
    };
    let live = vec![
        owned(cluster(), false),
        owned(pool(), false),
        owned(other("old"), false),
    ];
    let out = run(&[moved, cluster()], live, 0);
    assert_eq!(out.changes, []);
    assert_eq!(out.deletes, []);
    assert_eq!(
        out.refused[0].reason,
        "a.yaml:1: spec.clusterName: Invalid value: \"b\": clusterName is immutable: make another pool for another cluster"
    );
    let mut even = cluster();
    even["spec"]["controlPlane"]["machines"]["replicas"] = json!(2);
    let out = run(&[even], vec![], 0);
    assert!(out.refused[0].reason.contains("an even number"), "{out:?}");
}

#[test]
fn deletes_are_guarded() {
    // (live objects, machines, deletes, refusals)
    let foreign = {
        let mut c = owned(cluster(), true);
        c["metadata"]["labels"][LABEL_FLEET] = json!("other");
        c
    };
    let unlabelled = cluster();
    let by_hand = {
        let mut c = owned(cluster(), false);
        c["metadata"]["annotations"] = json!({ANNOTATION_ALLOW_DELETE: "u-1"});
        c
    };
    let rows = [
        (vec![owned(cluster(), false)], 0, 0, 1),
        (vec![owned(cluster(), true)], 9, 1, 0),
        (vec![by_hand], 0, 0, 1),
        (vec![owned(pool(), false)], 2, 1, 0),
        (vec![owned(pool(), false)], 3, 0, 1),
        (vec![owned(pool(), true)], 3, 1, 0),
        (vec![owned(cluster(), false), owned(pool(), false)], 0, 0, 1),
        (vec![owned(cluster(), true), owned(pool(), false)], 1, 2, 0),
        (vec![owned(cluster(), true), owned(pool(), false)], 9, 2, 0),
        (vec![foreign], 0, 0, 0),
        (vec![unlabelled], 0, 0, 0),
    ];
    for (at, (objects, machines, deletes, refused)) in rows.into_iter().enumerate() {
        let out = run(&[], objects, machines);
        assert_eq!(
            (out.deletes.len(), out.refused.len()),
            (deletes, refused),
            "row {at}: {out:?}"
        );
    }
}
