//! What a control plane on machines of ours does next: one machine at a time, one minor version at a time.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, Machine, MachineDeployment,
    condition::{self, kind},
    meta,
    version::Version,
};
use jiff::Timestamp;

use crate::{
    catalogue::Catalogue,
    compare::{Difference, compare},
    content::Content,
    machine_set::{MachineUpdate, NewMachine, is_unhealthy, update},
    managed::Known,
    quorum::Etcd,
    upgrade::Blocker,
};

mod choice;
mod component;
mod leave;
mod member;
mod reason;
mod remediation;
mod snapshot;
#[cfg(test)]
mod tests;
mod trigger;
mod version;

pub(crate) use self::choice::new_machine;
pub use self::{
    component::{Component, ComponentHealth, ComponentState, components},
    leave::Leave,
    member::machine_of,
    reason::{ControlPlaneWait, CreateReason, DeleteReason},
    remediation::{Remediation, RemediationWait},
    snapshot::Snapshots,
    trigger::Trigger,
    version::{VersionStep, route, running_version, version_step},
};

/// Pre-terminate hook of control-plane machines: their etcd member goes before their instance does.
pub const ETCD_HOOK: &str = "pre-terminate.delete.hook.machine.fleetwright.dev/etcd";

/// Everything that a decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct ControlPlaneView<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// All its control-plane machines, those on their way out included.
    pub machines: &'a [Machine],
    /// What the provider shows of a control plane that it runs; `None` where it runs none.
    pub managed: Option<&'a Known>,
    /// What is known of etcd.
    pub etcd: Etcd<'a>,
    /// How the parts of the control plane are on its machines; those that are not known are not there.
    pub components: &'a [ComponentState],
    /// What is known of its snapshots.
    pub snapshots: Snapshots<'a>,
    /// The lowest version of a worker (machine or kubelet); `None` without workers.
    pub lowest_worker: Option<&'a Version>,
    /// Why nobody can tell the versions of all workers yet; `None` where all are known.
    pub unknown_workers: Option<&'a str>,
    /// The cluster's pools.
    pub pools: &'a [MachineDeployment],
    /// Versions that the Fleet allows, in its order; all when empty.
    pub versions: &'a [Version],
    /// What of the provider's stands in the way of the upgrade.
    pub blocker: Option<&'a Blocker>,
    /// Broken machines that may not be replaced for now, with why: what health checks and budgets hold back.
    pub held: &'a BTreeMap<String, String>,
    /// Failure domains that machines are spread over where the template names none.
    pub domains: &'a [String],
    /// The providers' schemas.
    pub catalogue: &'a Catalogue,
}

/// What is done with one machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ControlPlaneAction {
    /// One is made. The counter on the Cluster is raised above its ordinal first.
    Create {
        /// The machine.
        machine: Box<NewMachine>,
        /// Why.
        reason: CreateReason,
    },
    /// One is deleted.
    Delete {
        /// Its name.
        machine: String,
        /// Why.
        reason: DeleteReason,
    },
    /// Nothing for now.
    Wait(ControlPlaneWait),
    /// Everything is as wanted.
    #[default]
    Settled,
}

/// What a control plane does next.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct ControlPlaneDecision {
    /// The version that it goes to; `None` when none can be told.
    pub version: Option<VersionStep>,
    /// The version that runs, where a snapshot of its etcd is to be taken now.
    pub snapshot: Option<Version>,
    /// What is done with one machine.
    pub action: ControlPlaneAction,
    /// What is done with one member of etcd.
    pub leave: Option<Leave>,
    /// What becomes of the machine that is broken.
    pub remediation: Option<Remediation>,
    /// What annotation [`meta::ANNOTATION_REMEDIATION_IN_PROGRESS`] of the Cluster is to say before `action` is done;
    /// `Some(None)` takes it away.
    pub remember: Option<Option<String>>,
    /// Machines whose fields change while they run.
    pub updates: Vec<MachineUpdate>,
    /// Machines that are to be replaced, with why.
    pub outdated: BTreeMap<String, Vec<Trigger>>,
    /// When time alone makes a difference next.
    pub look_again: Option<Timestamp>,
}

impl ControlPlaneDecision {
    /// Whether it must not be acted upon without what etcd says now.
    pub fn needs_etcd(&self) -> bool {
        match &self.action {
            ControlPlaneAction::Create { reason, .. } => *reason != CreateReason::First,
            ControlPlaneAction::Delete { .. } => true,
            _ => self.leave.is_some(),
        }
    }
}

/// Whether the machine's API server has served: its node has been seen.
pub fn has_served(machine: &Machine) -> bool {
    machine
        .status
        .as_ref()
        .is_some_and(|s| s.node_ref.is_some())
}

/// The version that a machine is made of; `None` when it has none that can be read.
pub fn machine_version(machine: &Machine) -> Option<Version> {
    machine.spec.content.version.as_deref()?.parse().ok()
}

/// What the control plane is on its way to, when that is not what runs: the newest version of a machine or of the step.
pub fn upgrading_to(
    machines: &[Machine],
    decision: &ControlPlaneDecision,
    running: Option<&str>,
) -> Option<String> {
    let step = decision.version.as_ref().map(|step| step.version().clone());
    let newest = machines
        .iter()
        .filter_map(machine_version)
        .chain(step)
        .max();
    newest
        .map(|version| version.to_string())
        .filter(|newest| running.is_some_and(|running| running != newest))
}

/// What of a machine differs from `want`. A failure domain that the template does not name is the one that was chosen for the
/// machine.
pub fn difference(want: &Content, machine: &Machine, catalogue: &Catalogue) -> Difference {
    let have = Content::of_machine(machine);
    if want.spec.failure_domain.is_some() || have.spec.failure_domain.is_none() {
        return compare(want, &have, catalogue);
    }
    let mut want = want.clone();
    want.spec
        .failure_domain
        .clone_from(&have.spec.failure_domain);
    compare(&want, &have, catalogue)
}

/// What the control plane does next: never more than one machine at a time, and never a step that etcd's quorum
/// does not allow. One that a provider runs is to be ordered at the version that this says, unless it waits.
pub fn decide(view: &ControlPlaneView<'_>, now: Timestamp) -> ControlPlaneDecision {
    let mut out = ControlPlaneDecision::default();
    let cluster = view.cluster;
    let wait = |mut out: ControlPlaneDecision, wait| {
        out.action = ControlPlaneAction::Wait(wait);
        out
    };
    let form = &cluster.spec.control_plane;
    if form.machines.is_none() && form.managed.is_none() {
        return wait(out, ControlPlaneWait::NotOurs);
    }
    let paused = meta::is_paused(cluster);
    if !paused {
        out.leave = leave::next(view);
    }
    let Ok(wanted) = cluster.spec.version.parse::<Version>() else {
        return wait(
            out,
            ControlPlaneWait::Unreadable(cluster.spec.version.clone()),
        );
    };
    let step = snapshot::before(view, version_step(view, wanted), now);
    let Some(spec) = &form.machines else {
        out.version = Some(step);
        return match (cluster.metadata.deletion_timestamp.is_some(), paused) {
            (true, _) => wait(out, ControlPlaneWait::Deleting),
            (false, true) => wait(out, ControlPlaneWait::Paused),
            (false, false) => out,
        };
    };
    let Some(content) = Content::of_control_plane(cluster, step.version(), view.catalogue) else {
        return wait(out, ControlPlaneWait::NotOurs);
    };
    out.version = Some(step);
    if cluster.metadata.deletion_timestamp.is_some() {
        return wait(out, ControlPlaneWait::Deleting);
    }
    let triggers = trigger::Triggers::of(cluster, spec, now);
    for machine in alive(view.machines) {
        let fields = difference(&content, machine, view.catalogue).replace;
        let mut why: Vec<Trigger> = fields.into_iter().map(Trigger::Field).collect();
        why.extend(triggers.of_machine(machine));
        if !why.is_empty() {
            out.outdated.insert(name(machine), why);
        }
    }
    out.look_again = triggers.next(view.machines);
    if paused {
        return wait(out, ControlPlaneWait::Paused);
    }
    out.snapshot = out.version.as_ref().and_then(snapshot::wanted);
    out.updates = alive(view.machines)
        .filter_map(|m| update(m, &content, view.catalogue))
        .collect();
    choice::Choice {
        view,
        content: &content,
        want: usize::try_from(spec.replicas.unwrap_or(1).max(1)).unwrap_or(1),
        limits: spec.remediation.clone().unwrap_or_default(),
        now,
    }
    .fill(&mut out);
    out
}

fn name(machine: &Machine) -> String {
    machine.metadata.name.clone().unwrap_or_default()
}

fn annotation<'m>(machine: &'m Machine, key: &str) -> Option<&'m String> {
    machine.metadata.annotations.as_ref()?.get(key)
}

fn is_leaving(machine: &Machine) -> bool {
    machine.metadata.deletion_timestamp.is_some()
}

fn alive(machines: &[Machine]) -> impl Iterator<Item = &Machine> {
    machines.iter().filter(|m| !is_leaving(m))
}

fn initialized(cluster: &Cluster) -> bool {
    cluster
        .status
        .as_ref()
        .and_then(|s| s.initialization.as_ref())
        .is_some_and(|i| i.control_plane_initialized)
}

/// Whether the machine has a node and its Ready condition is not False or missing.
fn ready(machine: &Machine) -> bool {
    !is_unhealthy(machine)
        && machine
            .status
            .as_ref()
            .is_some_and(|s| condition::is_true(&s.conditions, kind::READY))
}
