use fleetwright_api::meta::ANNOTATION_ALLOW_DELETE;
use serde_json::json;

use super::*;

fn policy() -> Policy {
    Policy {
        namespace: "default".into(),
        fleet: "default".into(),
        max_machines: 2,
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

fn owned(mut object: Value, consent: bool) -> Value {
    object["metadata"]["labels"] = json!({LABEL_FLEET: fleet_hash("default", "default")});
    object["metadata"]["uid"] = json!("u-1");
    let mut annotations = json!({});
    if consent {
        object["metadata"]["annotations"] = json!({ANNOTATION_ALLOW_DELETE: "u-1"});
        annotations = json!({format!("f:{ANNOTATION_ALLOW_DELETE}"): {}});
    }
    object["metadata"]["managedFields"] = json!([{"manager": "fleetwright/default.default", "operation": "Apply",
        "fieldsV1": {"f:metadata": {"f:annotations": annotations}, "f:spec": {"f:replicas": {}, "f:clusterName": {}}}}]);
    object
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
        })
        .collect();
    let machines = (0..machines)
        .map(|i| machine(&format!("web-{i}")))
        .collect();
    plan(
        &desired,
        &Live { objects, machines },
        &policy(),
        &Catalogue::default(),
    )
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
fn a_changed_config_rolls_the_pool_and_names_its_machines() {
    let mut want = pool();
    want["spec"]["template"]["spec"]["providerConfig"]["size"] = json!(2);
    let out = run(
        &[want, cluster()],
        vec![owned(cluster(), false), owned(pool(), false)],
        2,
    );
    let PlanEffect::RollingReplacement { machines, reason } = &out.changes[0].effect else {
        panic!("{out}")
    };
    assert_eq!(machines, &["web-0", "web-1"]);
    assert!(reason.contains("size: 1 -> 2"), "{reason}");
}

#[test]
fn replicas_that_git_stops_declaring_are_handed_over() {
    let mut want = pool();
    want["spec"].as_object_mut().unwrap().remove("replicas");
    let out = run(
        &[want, cluster()],
        vec![owned(cluster(), false), owned(pool(), false)],
        2,
    );
    assert_eq!(out.changes[0].fields, []);
    assert_eq!(out.changes[0].handover[0].from, Some(json!(3)));
    assert_eq!(
        partial(&out.changes[0].key, &out.changes[0].handover)["spec"],
        json!({"replicas": 3})
    );
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
        (vec![foreign], 0, 0, 0),
        (vec![unlabelled], 0, 0, 0),
    ];
    for (at, (objects, machines, deletes, refused)) in rows.into_iter().enumerate() {
        let out = run(&[], objects, machines);
        assert_eq!(
            (out.deletes.len(), out.refused.len()),
            (deletes, refused),
            "row {at}: {out}"
        );
    }
}

#[test]
fn an_object_of_another_fleet_is_refused() {
    let mut other = owned(cluster(), false);
    other["metadata"]["labels"][LABEL_FLEET] = json!("other");
    let out = run(&[cluster()], vec![other], 0);
    assert!(out.refused[0].reason.contains("another Fleet") && out.changes.is_empty());
}
