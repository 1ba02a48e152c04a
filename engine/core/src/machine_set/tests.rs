//! Cluster API's tables of which machine goes first (TestMachineRandomDelete, -NewestDelete, -OldestDelete).

use std::collections::BTreeMap;

use fleetwright_api::{
    condition::{self, Status, kind},
    machine::{MachineStatus, NodeRef},
    machine_set::{MachineSetSpec, SetDeletion},
    time::k8s_time,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(10_000_000 + seconds).unwrap()
}

/// A machine by what it is: ok, del, bad, unknown, marked, nonode; named by its place, older first.
fn machine(index: usize, what: &str) -> Machine {
    let mut status = MachineStatus {
        node_ref: Some(NodeRef { name: "n".into() }),
        ..MachineStatus::default()
    };
    let health = match what {
        "bad" => Status::False,
        "unknown" => Status::Unknown,
        _ => Status::True,
    };
    condition::set(
        &mut status.conditions,
        kind::NODE_HEALTHY,
        health,
        "X",
        "",
        None,
        at(0),
    );
    if what == "nonode" {
        status.node_ref = None;
    }
    Machine {
        metadata: ObjectMeta {
            name: Some(format!("s-{index}")),
            creation_timestamp: (what != "ageless")
                .then(|| k8s_time(at(-1000 + i64::try_from(index).unwrap()))),
            deletion_timestamp: (what == "del").then(|| k8s_time(at(0))),
            annotations: (what == "marked").then(|| {
                BTreeMap::from([(meta::ANNOTATION_DELETE_MACHINE.to_owned(), String::new())])
            }),
            ..ObjectMeta::default()
        },
        status: Some(status),
        ..Machine::default()
    }
}

#[test]
fn machines_go_in_the_order_of_the_table() {
    use DeletionOrder::{Newest, Oldest, Random};
    for (order, input, count, want) in [
        (Random, "ok ok", 0, vec![]),
        (Random, "ok ok", 5, vec![0, 1]),
        (Random, "ok bad ok", 2, vec![1, 0]),
        (Random, "ok del bad del", 2, vec![1, 3]),
        (Random, "ok del ok bad", 2, vec![1, 3]),
        (Random, "bad marked bad ok", 1, vec![1]),
        (Random, "ok nonode ok", 1, vec![1]),
        (Random, "ok unknown bad", 1, vec![2]),
        (Random, "ok unknown ok", 1, vec![0]),
        (Random, "marked marked marked marked", 2, vec![0, 1]),
        (Newest, "ok ok del", 1, vec![2]),
        (Newest, "del ok ok", 3, vec![0, 2, 1]),
        (Newest, "marked ok ok", 1, vec![0]),
        (Newest, "nonode ok ok", 1, vec![0]),
        (Newest, "bad ok ok", 1, vec![0]),
        (Oldest, "ok ok ok", 2, vec![0, 1]),
        (Oldest, "ageless ok ok", 3, vec![1, 2, 0]),
        (Oldest, "ok ok marked", 1, vec![2]),
        (Oldest, "ok ok nonode", 1, vec![2]),
        (Oldest, "ok bad del", 1, vec![2]),
    ] {
        let all: Vec<Machine> = input
            .split(' ')
            .enumerate()
            .map(|(i, w)| machine(i, w))
            .collect();
        let got: Vec<String> = choose(&all, count, order, at(0))
            .into_iter()
            .map(|(m, _)| m.metadata.name.clone().unwrap())
            .collect();
        let want: Vec<String> = want.into_iter().map(|i: usize| format!("s-{i}")).collect();
        assert_eq!(got, want, "{order:?} {input} {count}");
    }
}

fn set(replicas: i32) -> MachineSet {
    MachineSet {
        metadata: ObjectMeta {
            name: Some("s".into()),
            ..ObjectMeta::default()
        },
        spec: MachineSetSpec {
            cluster_name: "c".into(),
            replicas: Some(replicas),
            deletion: Some(SetDeletion {
                order: Some(DeletionOrder::Oldest),
            }),
            ..MachineSetSpec::default()
        },
        status: None,
    }
}

fn act(machines: &mut Vec<Machine>, decision: SetDecision) {
    machines.retain(|m| {
        !decision
            .delete
            .iter()
            .any(|d| Some(&d.name) == m.metadata.name.as_ref())
    });
    for new in decision.create {
        let mut made = machine(usize::try_from(new.ordinal).unwrap(), "ok");
        made.metadata.name = Some(new.name);
        made.metadata.labels = Some(new.labels);
        made.metadata.annotations = Some(new.annotations);
        made.spec = new.spec;
        machines.push(made);
    }
    for change in decision.update {
        let made = machines
            .iter_mut()
            .find(|m| m.metadata.name.as_ref() == Some(&change.name))
            .unwrap();
        made.spec.content = change.content;
        for (map, patch) in [
            (&mut made.metadata.labels, change.labels),
            (&mut made.metadata.annotations, change.annotations),
        ] {
            let map = map.get_or_insert_default();
            for (key, value) in patch {
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        }
    }
}

#[test]
fn ordinals_are_never_used_again_and_a_second_look_changes_nothing() {
    let catalogue = Catalogue::default();
    let mut machines = Vec::new();
    let first = decide(&set(3), &machines, 0, &catalogue, at(0));
    assert_eq!(first.next_ordinal, 3);
    act(&mut machines, first);
    assert!(decide(&set(3), &machines, 3, &catalogue, at(0)).is_settled());
    let down = decide(&set(1), &machines, 3, &catalogue, at(0));
    act(&mut machines, down);
    assert_eq!(machines[0].metadata.name.as_deref(), Some("s-2"));
    let up = decide(&set(2), &machines, 3, &catalogue, at(0));
    assert_eq!(up.create[0].name, "s-3");
    // A lost counter never goes below what is in use.
    assert_eq!(
        decide(&set(2), &machines, 0, &catalogue, at(0)).create[0].name,
        "s-3"
    );
    // Machines on their way out count until they are gone.
    machines[0].metadata.deletion_timestamp = Some(k8s_time(at(0)));
    assert!(
        decide(&set(1), &machines, 4, &catalogue, at(0))
            .create
            .is_empty()
    );
}

#[test]
fn labels_flow_down_and_foreign_ones_stay() {
    let catalogue = Catalogue::default();
    let mut set = set(1);
    set.spec
        .template
        .metadata
        .labels
        .insert("team".into(), "a".into());
    let mut machines = Vec::new();
    let first = decide(&set, &machines, 0, &catalogue, at(0));
    act(&mut machines, first);
    machines[0]
        .metadata
        .labels
        .get_or_insert_default()
        .insert("foreign".into(), "x".into());
    assert!(decide(&set, &machines, 1, &catalogue, at(0)).is_settled());
    set.spec.template.metadata.labels.clear();
    let d = decide(&set, &machines, 1, &catalogue, at(0));
    act(&mut machines, d);
    assert!(decide(&set, &machines, 1, &catalogue, at(0)).is_settled());
    let labels = machines[0].metadata.labels.as_ref().unwrap();
    assert!(labels.contains_key("foreign") && !labels.contains_key("team"));
}

#[test]
fn of_machines_that_are_well_the_one_that_is_not_available_yet_goes_first() {
    let mut all: Vec<Machine> = (0..3).map(|index| machine(index, "ok")).collect();
    for (machine, available) in all
        .iter_mut()
        .zip([Status::True, Status::True, Status::False])
    {
        let conditions = &mut machine.status.as_mut().unwrap().conditions;
        condition::set(conditions, kind::AVAILABLE, available, "X", "", None, at(0));
    }
    let first = choose(&all, 1, DeletionOrder::Oldest, at(0));
    assert_eq!(first[0].0.metadata.name.as_deref(), Some("s-2"));
}
