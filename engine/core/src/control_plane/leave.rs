//! Members that leave etcd: before the instance of a machine on its way out goes, and those of no machine. One at a time.

use fleetwright_api::{
    Machine,
    condition::{self, kind, reason},
    meta::PREFIX_PRE_TERMINATE_HOOK,
};

use super::{ControlPlaneView, ETCD_HOOK, alive, has_served, is_leaving, name};
use crate::{
    health::is_failing,
    quorum::{Etcd, Member, may_remove},
};

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
pub(super) fn waits(machine: &Machine) -> bool {
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

/// The machines whose deletion waits for their member to leave, in the order in which their deletion began.
fn waiting<'a>(view: &ControlPlaneView<'a>) -> Vec<&'a Machine> {
    let mut waiting: Vec<_> = view.machines.iter().filter(|m| waits(m)).collect();
    waiting.sort_by_key(|m| {
        let since = m.metadata.deletion_timestamp.as_ref().map(|t| t.0);
        (since, name(m))
    });
    waiting
}

/// The machine on its way out that waits, first of those that must, because etcd cannot let its member go or cannot be asked.
pub(super) fn held_back<'a>(
    view: &ControlPlaneView<'a>,
    members: Option<&[Member]>,
) -> Option<&'a Machine> {
    let waiting = waiting(view);
    let goes = |m: &&Machine| members.is_some_and(|members| may_leave(members, &name(m)));
    let held = view.machines.len() > 1 && !waiting.iter().any(goes);
    held.then(|| waiting.first().copied()).flatten()
}

/// Whether the machine has no member, or one that may go.
fn may_leave(members: &[Member], machine: &str) -> bool {
    !members.iter().any(|m| m.name == machine) || may_remove(members, machine)
}

/// The member that goes now, if quorum allows one to go.
pub(super) fn next(view: &ControlPlaneView<'_>) -> Option<Leave> {
    let waiting = waiting(view);
    // Where the whole cluster goes, or its last machine that nothing answers from any more, nobody is left to count votes.
    let lost = |m: &Machine| is_failing(m) && !matches!(view.etcd, Etcd::Members(_));
    let ends = view.cluster.metadata.deletion_timestamp.is_some()
        || (view.machines.len() == 1 && view.machines.iter().all(lost));
    if let Some(machine) = waiting.first().filter(|_| ends).map(|m| name(m)) {
        let member = false;
        return Some(Leave::Machine { machine, member });
    }
    let Etcd::Members(members) = view.etcd else {
        return None;
    };
    if waiting.is_empty() {
        return orphan(view, members).map(Leave::Orphan);
    }
    let mut waiting = waiting.into_iter().map(name);
    let machine = waiting.find(|m| may_leave(members, m))?;
    let member = members.iter().any(|m| m.name == machine);
    Some(Leave::Machine { machine, member })
}

/// A member that no machine has, once it can be told which have one: a machine for which an instance was ordered may be a node, and a
/// member, before anybody knows the instance.
fn orphan(view: &ControlPlaneView<'_>, members: &[Member]) -> Option<String> {
    let known = |m: &Machine| {
        has_served(m)
            || (m.spec.provider_id.is_none() && m.spec.instance_key.is_none())
            || members.iter().any(|member| member.name == name(m))
    };
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
