//! Members that leave etcd: before the instance of a machine on its way out goes, and those of no machine. One at a time.

use fleetwright_api::{
    Machine,
    condition::{self, kind, reason},
    meta::PREFIX_PRE_TERMINATE_HOOK,
};

use super::{ControlPlaneView, ETCD_HOOK, alive, has_served, is_leaving, name};
use crate::quorum::{Etcd, Member, may_remove};

/// A member of etcd that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// That of a machine on its way out; then the machine's [`ETCD_HOOK`] is taken away.
    Machine {
        /// The machine.
        machine: String,
        /// Whether it has a member to be removed.
        member: bool,
    },
    /// One that no machine has.
    Orphan(String),
}

/// Whether the machine's deletion has come to our hook, and nothing else holds it back.
fn waits(machine: &Machine) -> bool {
    let mut hooks = machine.metadata.annotations.iter().flatten();
    let ours = hooks.clone().any(|(key, _)| key == ETCD_HOOK);
    let others =
        hooks.any(|(key, _)| key.starts_with(PREFIX_PRE_TERMINATE_HOOK) && key != ETCD_HOOK);
    let deleting = machine
        .status
        .as_ref()
        .and_then(|s| condition::get(&s.conditions, kind::DELETING));
    is_leaving(machine)
        && ours
        && !others
        && deleting.is_some_and(|c| c.reason == reason::WAITING_FOR_PRE_TERMINATE_HOOK)
}

/// The machine whose deletion waits for its member to leave: the one whose deletion began first.
pub(super) fn waiting<'a>(view: &ControlPlaneView<'a>) -> Option<&'a Machine> {
    let waiting = view.machines.iter().filter(|m| waits(m));
    waiting.min_by_key(|m| {
        let since = m.metadata.deletion_timestamp.as_ref().map(|t| t.0);
        (since, name(m))
    })
}

/// The member that goes now, if quorum allows one to go.
pub(super) fn next(view: &ControlPlaneView<'_>) -> Option<Leave> {
    let machine = waiting(view).map(name);
    // Where the whole cluster goes, or its last machine, nobody is left to count votes.
    let ends = view.cluster.metadata.deletion_timestamp.is_some() || view.machines.len() == 1;
    let members = match (view.etcd, machine) {
        (_, Some(machine)) if ends => {
            let member = false;
            return Some(Leave::Machine { machine, member });
        }
        (Etcd::Members(members), Some(machine)) => {
            let member = members.iter().any(|m| m.name == machine);
            let may = !member || may_remove(members, &machine);
            return may.then_some(Leave::Machine { machine, member });
        }
        (Etcd::Members(members), None) => members,
        _ => return None,
    };
    orphan(view, members).map(Leave::Orphan)
}

/// A member that no machine has, once it can be told which have one: a node that has only just joined need not be known yet.
fn orphan(view: &ControlPlaneView<'_>, members: &[Member]) -> Option<String> {
    let known = |m: &Machine| has_served(m) || m.spec.provider_id.is_none();
    if view.machines.is_empty() || !alive(view.machines).all(known) {
        return None;
    }
    let has_machine = |m: &Member| view.machines.iter().any(|machine| name(machine) == m.name);
    members
        .iter()
        .filter(|m| !has_machine(m))
        .find(|m| may_remove(members, &m.name))
        .map(|m| m.name.clone())
}
