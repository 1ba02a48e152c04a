//! Cluster API's tables of which machine goes first (TestMachineRandomDelete, -NewestDelete, -OldestDelete).

mod ownership;
mod preflight;

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

/// A machine by what it is: ok, del, bad or unknown by its node, ill or unsure by its health check, marked, nonode, ageless; named
/// by its place, older first.
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
    let check = match what {
        "ill" => Some(Status::False),
        "unsure" => Some(Status::Unknown),
        _ => None,
    };
    if let Some(check) = check {
        let kind = kind::HEALTH_CHECK_SUCCEEDED;
        condition::set(&mut status.conditions, kind, check, "X", "", None, at(0));
    }
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

fn all(input: &str) -> Vec<Machine> {
    let one = |(index, what)| machine(index, what);
    input.split_whitespace().enumerate().map(one).collect()
}

fn chosen(input: &str, count: usize, order: DeletionOrder) -> Vec<usize> {
    let all = all(input);
    choose(&all, count, order, "pool", at(0))
        .into_iter()
        .map(|(m, _)| usize::try_from(ordinal(m).unwrap()).unwrap())
        .collect()
}

/// TestMachineRandomDelete, but for its rows on in-place updates. What a row says is what kind of machine goes, not which of equals.
#[test]
fn at_random_machines_go_by_what_they_are() {
    for (input, count, want) in [
        ("ok ok", 0, vec![]),
        ("ok ok", 5, vec!["ok", "ok"]),
        ("ok bad ok", 2, vec!["bad", "ok"]),
        ("ok del bad del", 2, vec!["del", "del"]),
        ("ok del ok bad", 2, vec!["del", "bad"]),
        ("bad marked bad ok", 1, vec!["marked"]),
        ("ok nonode ok", 1, vec!["nonode"]),
        ("ok bad ok", 1, vec!["bad"]),
        ("ok unknown bad", 1, vec!["bad"]),
        ("ok ill ok", 1, vec!["ill"]),
        ("ok unsure ill", 1, vec!["ill"]),
    ] {
        let words: Vec<&str> = input.split(' ').collect();
        let got: Vec<&str> = chosen(input, count, DeletionOrder::Random)
            .into_iter()
            .map(|at| words[at])
            .collect();
        assert_eq!(got, want, "{input} {count}");
    }
    // Unknown is not known to be bad: such a machine goes no sooner than others.
    for what in ["unknown", "unsure"] {
        let last = chosen(&format!("ok {what} ok ok"), 4, DeletionOrder::Random);
        let same = chosen("ok ok ok ok", 4, DeletionOrder::Random);
        assert_eq!(last, same, "{what}");
    }
}

/// TestMachineNewestDelete and TestMachineOldestDelete (machines are older first), and TestMachineDeleteMultipleSamePriority.
#[test]
fn machines_go_in_the_order_of_the_table() {
    use DeletionOrder::{Newest, Oldest, Random};
    let ten = ["marked"; 10].join(" ");
    for (order, input, count, want) in [
        (Newest, "ok ok del", 1, vec![2]),
        (Newest, "del ok ok", 2, vec![0, 2]),
        (Newest, "del ok ok", 3, vec![0, 2, 1]),
        (Newest, "marked ok ok", 1, vec![0]),
        (Newest, "nonode ok ok", 1, vec![0]),
        (Newest, "bad ok ok", 1, vec![0]),
        (Newest, "ill ok ok", 1, vec![0]),
        (Oldest, "ok ok ok ok", 1, vec![0]),
        (Oldest, "ok ok ok ok", 2, vec![0, 1]),
        (Oldest, "ok ok ok ok", 3, vec![0, 1, 2]),
        (Oldest, "ok ok ok ok", 4, vec![0, 1, 2, 3]),
        (Oldest, "ageless ok ok", 3, vec![1, 2, 0]),
        (Oldest, "ok ok marked", 1, vec![2]),
        (Oldest, "ok ok nonode", 1, vec![2]),
        (Oldest, "ok ok bad", 1, vec![2]),
        (Oldest, "ok bad del", 1, vec![2]),
        (Oldest, "bad del bad", 1, vec![1]),
        (Random, "marked marked marked marked", 2, vec![0, 1]),
        (Random, &ten, 4, vec![0, 1, 2, 3]),
        (Newest, &ten, 1, vec![0]),
        (Oldest, &ten, 3, vec![0, 1, 2]),
    ] {
        let got = chosen(input, count, order);
        assert_eq!(got, want, "{order:?} {input} {count}");
    }
}

#[test]
fn random_is_a_shuffle_of_its_own_for_each_pool_and_the_same_each_time() {
    let machines = all(&["ok"; 12].join(" "));
    let order = |machines: &[Machine], seed: &str| -> Vec<u64> {
        choose(machines, 12, DeletionOrder::Random, seed, at(0))
            .into_iter()
            .map(|(m, _)| ordinal(m).unwrap())
            .collect()
    };
    let orders: std::collections::BTreeSet<Vec<u64>> = (0..50)
        .map(|seed| order(&machines, &format!("uid-{seed}")))
        .collect();
    assert_eq!(orders.len(), 50, "every pool has another order");
    let mut first = std::collections::BTreeMap::<u64, usize>::new();
    for seed in 0..1_200 {
        *first
            .entry(order(&machines, &seed.to_string())[0])
            .or_default() += 1;
    }
    // 100 each are expected; the chance to be outside of this is below one in a million.
    assert!(
        first.len() == 12 && first.values().all(|n| (50..160).contains(n)),
        "{first:?}"
    );
    // Whichever others there are and in which order they are read: a machine keeps its place among those that stay.
    let mut fewer: Vec<Machine> = machines.clone();
    fewer.reverse();
    fewer.retain(|m| ordinal(m) != Some(3));
    let mut want = order(&machines, "a");
    want.retain(|n| *n != 3);
    let got: Vec<u64> = choose(&fewer, 12, DeletionOrder::Random, "a", at(5_000))
        .into_iter()
        .map(|(m, _)| ordinal(m).unwrap())
        .collect();
    assert_eq!(got, want);
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
    let first = decide(&set(3), &machines, 0, 0, &catalogue, at(0));
    assert_eq!(first.next_ordinal, 3);
    act(&mut machines, first);
    assert!(decide(&set(3), &machines, 3, 0, &catalogue, at(0)).is_settled());
    let down = decide(&set(1), &machines, 3, 0, &catalogue, at(0));
    act(&mut machines, down);
    assert_eq!(machines[0].metadata.name.as_deref(), Some("s-2"));
    let up = decide(&set(2), &machines, 3, 0, &catalogue, at(0));
    assert_eq!(up.create[0].name, "s-3");
    // A lost counter never goes below what is in use.
    assert_eq!(
        decide(&set(2), &machines, 0, 0, &catalogue, at(0)).create[0].name,
        "s-3"
    );
    // Machines on their way out count until they are gone.
    machines[0].metadata.deletion_timestamp = Some(k8s_time(at(0)));
    assert!(
        decide(&set(1), &machines, 4, 0, &catalogue, at(0))
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
    let first = decide(&set, &machines, 0, 0, &catalogue, at(0));
    act(&mut machines, first);
    machines[0]
        .metadata
        .labels
        .get_or_insert_default()
        .insert("foreign".into(), "x".into());
    assert!(decide(&set, &machines, 1, 0, &catalogue, at(0)).is_settled());
    set.spec.template.metadata.labels.clear();
    let d = decide(&set, &machines, 1, 0, &catalogue, at(0));
    act(&mut machines, d);
    assert!(decide(&set, &machines, 1, 0, &catalogue, at(0)).is_settled());
    let labels = machines[0].metadata.labels.as_ref().unwrap();
    assert!(labels.contains_key("foreign") && !labels.contains_key("team"));
}

/// Everything that flows down in place goes again when it is no longer asked for.
#[test]
fn what_is_no_longer_asked_for_is_taken_away() {
    use fleetwright_api::machine::{MachineDeletion, MachineTaint, ReadinessGate, TaintEffect};
    let catalogue = Catalogue::default();
    let mut set = set(1);
    let template = &mut set.spec.template;
    let bare = template.clone();
    template
        .metadata
        .annotations
        .insert("site".into(), "a".into());
    template
        .metadata
        .annotations
        .insert("rack".into(), "7".into());
    template.spec.min_ready_seconds = Some(30);
    template.spec.taints = vec![MachineTaint {
        key: "dedicated".into(),
        value: None,
        effect: TaintEffect::NoSchedule,
        propagation: None,
    }];
    template.spec.deletion = Some(MachineDeletion {
        node_drain_timeout_seconds: Some(60),
        ..MachineDeletion::default()
    });
    template.spec.readiness_gates = vec![ReadinessGate {
        condition_type: "Tested".into(),
        polarity: None,
    }];
    let mut machines = Vec::new();
    let first = decide(&set, &machines, 0, 0, &catalogue, at(0));
    act(&mut machines, first);
    let annotations = machines[0].metadata.annotations.get_or_insert_default();
    annotations.insert("foreign".into(), "x".into());
    assert!(decide(&set, &machines, 1, 0, &catalogue, at(0)).is_settled());
    // One of two annotations, then all.
    set.spec.template.metadata.annotations.remove("rack");
    let some = decide(&set, &machines, 1, 0, &catalogue, at(0));
    assert_eq!(some.update[0].annotations.get("rack"), Some(&None));
    act(&mut machines, some);
    set.spec.template = bare;
    let change = decide(&set, &machines, 1, 0, &catalogue, at(0));
    let paths: Vec<&str> = change.update[0]
        .changes
        .iter()
        .map(|c| c.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "metadata.annotations.site",
            "spec.deletion",
            "spec.minReadySeconds",
            "spec.readinessGates",
            "spec.taints"
        ]
    );
    act(&mut machines, change);
    assert!(decide(&set, &machines, 1, 0, &catalogue, at(0)).is_settled());
    assert_eq!(machines[0].spec.content, set.spec.template.spec);
    let left: Vec<&String> = machines[0]
        .metadata
        .annotations
        .as_ref()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(left, ["fleetwright.dev/written-provider-config", "foreign"]);
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
    let first = choose(&all, 1, DeletionOrder::Oldest, "seed", at(0));
    assert_eq!(first[0].0.metadata.name.as_deref(), Some("s-2"));
}
