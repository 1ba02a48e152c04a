//! What becomes of a model's machines.

use std::collections::BTreeMap;

use fleetwright_api::{
    Machine,
    condition::{self, Status, kind, reason},
    machine::{MachinePhase, NodeRef},
    time::k8s_time,
};
use jiff::Timestamp;

use super::{Moves, because, sentence};
use crate::machine_set::{MachineUpdate, NewMachine};

pub(super) fn is_available(machine: &Machine) -> bool {
    let status = machine.status.as_ref();
    status.is_some_and(|s| {
        s.node_ref.is_some()
            && condition::is_true(&s.conditions, kind::AVAILABLE)
            && condition::is_true(&s.conditions, kind::READY)
    })
}

pub(super) fn serve(machine: &mut Machine, now: Timestamp) {
    let name = machine.metadata.name.clone().unwrap_or_default();
    let status = machine.status.get_or_insert_default();
    status.phase = Some(MachinePhase::Running);
    status.node_ref.get_or_insert(NodeRef { name });
    for (kind, reason) in [
        (kind::READY, reason::READY),
        (kind::AVAILABLE, reason::AVAILABLE),
        (kind::NODE_HEALTHY, reason::NODE_HEALTHY),
    ] {
        condition::set(
            &mut status.conditions,
            kind,
            Status::True,
            reason,
            "",
            None,
            now,
        );
    }
}

pub(super) fn made(new: NewMachine, namespace: &Option<String>, now: Timestamp) -> Machine {
    let mut machine = Machine::new(&new.name, new.spec);
    machine.metadata.namespace.clone_from(namespace);
    machine.metadata.labels = Some(new.labels);
    machine.metadata.annotations = Some(new.annotations);
    machine.metadata.creation_timestamp = Some(k8s_time(now));
    machine
}

pub(super) fn leave(machines: &mut [Machine], name: &str, now: Timestamp, moves: &mut Moves) {
    let found = machines
        .iter_mut()
        .find(|m| m.metadata.name.as_deref() == Some(name));
    if let Some(machine) = found {
        machine.metadata.deletion_timestamp = Some(k8s_time(now));
        moves.delete.push(name.to_owned());
    }
}

/// Changes running machines in place; whether any.
pub(super) fn update(
    machines: &mut [Machine],
    updates: Vec<MachineUpdate>,
    moves: &mut Moves,
) -> bool {
    let any = !updates.is_empty();
    let mut by_name: BTreeMap<String, MachineUpdate> =
        updates.into_iter().map(|u| (u.name.clone(), u)).collect();
    for machine in machines {
        let name = machine.metadata.name.clone().unwrap_or_default();
        let Some(update) = by_name.remove(&name) else {
            continue;
        };
        let change = |map: &mut BTreeMap<String, String>,
                      patch: BTreeMap<String, Option<String>>| {
            for (key, value) in patch {
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        };
        change(
            machine.metadata.labels.get_or_insert_default(),
            update.labels,
        );
        change(
            machine.metadata.annotations.get_or_insert_default(),
            update.annotations,
        );
        machine.spec.content = update.content;
        if moves.because.is_empty() {
            because(moves, sentence(&update.changes));
        }
        moves.in_place.push(name);
    }
    any
}
