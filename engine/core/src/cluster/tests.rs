//! The order in which a cluster goes.

use fleetwright_api::{meta, time::k8s_time};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn cluster() -> Cluster {
    read(json!({"metadata": {"name": "c"}, "spec": {"version": "v1.33.0", "controlPlane": {}}}))
}

fn owner(kind: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": true}])
}

fn machine(name: &str, owners: Value, control_plane: bool, deleting: bool) -> Machine {
    let mut m: Machine = read(json!({
        "metadata": {"name": name, "ownerReferences": owners, "labels": {}},
        "spec": {"clusterName": "c", "providerConfig": {}},
    }));
    if control_plane {
        let label = (meta::LABEL_CONTROL_PLANE.to_owned(), String::new());
        m.metadata.labels.get_or_insert_default().extend([label]);
    }
    m.metadata.deletion_timestamp = deleting.then(|| k8s_time(Timestamp::UNIX_EPOCH));
    m
}

fn pool(name: &str) -> MachineDeployment {
    read(
        json!({"metadata": {"name": name, "uid": "u"}, "spec": {"clusterName": "c", "template": {"spec": {"providerConfig": {}}}}}),
    )
}

fn set(name: &str, owners: Value) -> MachineSet {
    read(json!({
        "metadata": {"name": name, "uid": "u", "ownerReferences": owners},
        "spec": {"clusterName": "c", "template": {"spec": {"providerConfig": {}}}},
    }))
}

#[test]
fn workers_first_then_the_control_plane_then_the_rest() {
    let none = || json!([]);
    let control_plane = [
        machine("cp-0", owner("Cluster"), true, false),
        machine("cp-1", owner("Cluster"), true, true),
    ];
    let mut all = control_plane.to_vec();
    all.push(machine("w-0", owner("MachineSet"), false, false));
    all.push(machine("alone", none(), false, false));
    all.push(machine("gone-soon", none(), false, true));
    // Of workers only roots are deleted; the rest follows them.
    let step = deletion_step(
        &cluster(),
        &[pool("web")],
        &[
            set("web-1", owner("MachineDeployment")),
            set("alone", none()),
        ],
        &all,
    );
    assert_eq!(
        step,
        ClusterDeletionStep::Workers {
            delete_pools: vec!["web".into()],
            delete_sets: vec!["alone".into()],
            delete_machines: vec!["alone".into()],
            remaining: 6,
        }
    );
    // What their owners left behind goes too.
    let sets = [set("web-1", owner("MachineDeployment"))];
    let left = [machine("w-0", owner("MachineSet"), false, false)];
    for (pools, sets, expected) in [
        (&[pool("web")][..], &sets[..], (vec![], vec![])),
        (&[], &sets, (vec!["web-1".to_owned()], vec![])),
        (&[], &[], (vec![], vec!["w-0".to_owned()])),
    ] {
        let step = deletion_step(&cluster(), pools, sets, &left);
        let ClusterDeletionStep::Workers {
            delete_sets,
            delete_machines,
            ..
        } = step
        else {
            panic!("{step:?}")
        };
        assert_eq!((delete_sets, delete_machines), expected);
    }
    // A machine that is still going holds the control plane's back, without any pool left.
    let last = [machine("w-0", owner("MachineSet"), false, true)];
    let mut all = control_plane.to_vec();
    all.extend(last);
    assert!(matches!(
        deletion_step(&cluster(), &[], &[], &all),
        ClusterDeletionStep::Workers { remaining: 1, delete_machines, .. } if delete_machines.is_empty()
    ));
    assert_eq!(
        deletion_step(&cluster(), &[], &[], &control_plane),
        ClusterDeletionStep::ControlPlane {
            delete_machines: vec!["cp-0".into()],
            remaining: 2,
        }
    );
    assert_eq!(
        deletion_step(&cluster(), &[], &[], &all[..0]),
        ClusterDeletionStep::Finish
    );
    let mut paused = cluster();
    paused.metadata.annotations =
        Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    assert_eq!(
        deletion_step(&paused, &[], &[], &control_plane),
        ClusterDeletionStep::Paused
    );
}
