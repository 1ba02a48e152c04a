//! What a control plane on machines of ours does next: one machine at a time, one minor version at a time.

use std::{collections::BTreeMap, fmt};

use fleetwright_api::{
    Cluster, Machine, condition, machine::MachineSpec, meta, names, version::Version,
};
use jiff::Timestamp;

use crate::{
    catalogue::Catalogue,
    compare::{FieldChange, compare},
    content::Content,
    machine_set::{MachineUpdate, NewMachine, is_marked, is_unhealthy, ordinal, update},
    quorum::{Member, may_add, may_remove},
};

#[cfg(test)]
mod tests;
mod version;

pub use self::version::{VersionStep, running_version, version_step};

/// Everything that a decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct ControlPlaneView<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// All its control-plane machines, those on their way out included.
    pub machines: &'a [Machine],
    /// What etcd says of its members; `None` takes each machine with a node for a member, healthy like it.
    pub members: Option<&'a [Member]>,
    /// The lowest version of a worker (machine or kubelet); `None` without workers.
    pub lowest_worker: Option<&'a Version>,
    /// Versions that may be used as steps of an upgrade over several minors; without one of a minor, its `.0` is.
    pub steps: &'a [Version],
    /// The providers' schemas.
    pub catalogue: &'a Catalogue,
}

/// Why a machine is made.
#[derive(Clone, Debug, PartialEq)]
pub enum CreateReason {
    /// The first one: it makes the cluster.
    First,
    /// There are fewer than wanted.
    ScaleUp {
        /// There are.
        have: usize,
        /// Wanted.
        want: usize,
    },
    /// It takes the place of one whose content differs.
    Replace {
        /// The machine that will go.
        machine: String,
        /// What differs; empty when somebody marked it.
        changes: Vec<FieldChange>,
    },
}

impl fmt::Display for CreateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("the first machine of the control plane"),
            Self::ScaleUp { have, want } => write!(f, "{have} of {want} machines"),
            Self::Replace { machine, changes } => {
                write!(f, "replaces {machine}")?;
                changes.iter().try_for_each(|c| write!(f, "; {c}"))
            }
        }
    }
}

/// Why a machine is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteReason {
    /// Its content differs from what is wanted.
    Outdated,
    /// Somebody marked it.
    Marked,
    /// There are more than wanted.
    ScaleDown,
    /// It never served and its content is no longer wanted.
    NeverServed,
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outdated => "not up to date",
            Self::Marked => "marked for deletion",
            Self::ScaleDown => "more machines than wanted",
            Self::NeverServed => "never served, and its content is no longer wanted",
        })
    }
}

/// What a control plane waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPlaneWait {
    /// The cluster is paused.
    Paused,
    /// The cluster is on its way out.
    Deleting,
    /// The control plane is not on machines of ours.
    NotOurs,
    /// A machine is on its way out.
    MachineDeleting(String),
    /// A machine has no healthy node yet, or no more.
    MachineNotReady(String),
    /// etcd could lose its quorum.
    Quorum {
        /// The machine that would go; `None` when one would be added.
        machine: Option<String>,
    },
    /// The wanted version cannot be read.
    Unreadable(String),
    /// A disruption budget lets no machine go; with its sentence.
    Budget(String),
}

impl fmt::Display for ControlPlaneWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused"),
            Self::Deleting => f.write_str("the cluster is on its way out"),
            Self::NotOurs => f.write_str("the control plane is somebody else's"),
            Self::MachineDeleting(m) => write!(f, "machine {m} is on its way out"),
            Self::MachineNotReady(m) => write!(f, "machine {m} is not ready"),
            Self::Quorum { machine: Some(m) } => {
                write!(f, "without machine {m} etcd would have no quorum")
            }
            Self::Quorum { machine: None } => {
                f.write_str("etcd is not healthy enough for another member")
            }
            Self::Budget(held) => f.write_str(held),
            Self::Unreadable(text) => {
                write!(
                    f,
                    "{text:?} is no Kubernetes version: write it like v1.33.2"
                )
            }
        }
    }
}

/// What is done with one machine.
#[derive(Clone, Debug, PartialEq)]
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
    Settled,
}

/// What a control plane does next.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ControlPlaneDecision {
    /// The version that it goes to; `None` when none can be told.
    pub version: Option<VersionStep>,
    /// What is done with one machine.
    pub action: ControlPlaneAction,
    /// Machines whose fields change while they run.
    pub updates: Vec<MachineUpdate>,
    /// Machines whose content is not the wanted one, with what differs.
    pub outdated: BTreeMap<String, Vec<FieldChange>>,
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

/// What the control plane does next: never more than one machine at a time, and never a step that etcd's quorum
/// does not allow.
pub fn decide(view: &ControlPlaneView<'_>, now: Timestamp) -> ControlPlaneDecision {
    let mut out = ControlPlaneDecision {
        version: None,
        action: ControlPlaneAction::Settled,
        updates: Vec::new(),
        outdated: BTreeMap::new(),
    };
    let cluster = view.cluster;
    let wait = |mut out: ControlPlaneDecision, wait| {
        out.action = ControlPlaneAction::Wait(wait);
        out
    };
    let Some(spec) = &cluster.spec.control_plane.machines else {
        return wait(out, ControlPlaneWait::NotOurs);
    };
    let Ok(wanted) = cluster.spec.version.parse::<Version>() else {
        return wait(
            out,
            ControlPlaneWait::Unreadable(cluster.spec.version.clone()),
        );
    };
    let step = version_step(view, wanted);
    let Some(content) = Content::of_control_plane(cluster, step.version(), view.catalogue) else {
        return wait(out, ControlPlaneWait::NotOurs);
    };
    out.version = Some(step);
    if cluster.metadata.deletion_timestamp.is_some() {
        return wait(out, ControlPlaneWait::Deleting);
    }
    for machine in alive(view.machines) {
        let changes = compare(&content, &Content::of_machine(machine), view.catalogue).replace;
        if !changes.is_empty() || before_restart(cluster, machine, now) {
            out.outdated.insert(name(machine), changes);
        }
    }
    if meta::is_paused(cluster) {
        return wait(out, ControlPlaneWait::Paused);
    }
    out.updates = alive(view.machines)
        .filter_map(|m| update(m, &content, view.catalogue))
        .collect();
    let want = usize::try_from(spec.replicas.unwrap_or(1).max(1)).unwrap_or(1);
    out.action = Choice {
        view,
        content: &content,
        want,
        outdated: &out.outdated,
    }
    .action();
    out
}

/// The time before which machines are replaced, as `rollout restart` puts it.
fn restarted_at(cluster: &Cluster) -> Option<Timestamp> {
    let annotations = cluster.metadata.annotations.as_ref()?;
    let text = annotations.get(meta::ANNOTATION_RESTARTED_AT)?;
    text.parse().ok()
}

/// When there will be something to decide though nothing happens: a restart that lies ahead.
pub fn next_restart(cluster: &Cluster, now: Timestamp) -> Option<Timestamp> {
    restarted_at(cluster).filter(|at| *at > now)
}

fn before_restart(cluster: &Cluster, machine: &Machine, now: Timestamp) -> bool {
    match (restarted_at(cluster), &machine.metadata.creation_timestamp) {
        (Some(at), Some(created)) => at <= now && created.0 < at,
        _ => false,
    }
}

fn name(machine: &Machine) -> String {
    machine.metadata.name.clone().unwrap_or_default()
}

fn alive(machines: &[Machine]) -> impl Iterator<Item = &Machine> {
    machines
        .iter()
        .filter(|m| m.metadata.deletion_timestamp.is_none())
}

struct Choice<'a> {
    view: &'a ControlPlaneView<'a>,
    content: &'a Content,
    want: usize,
    outdated: &'a BTreeMap<String, Vec<FieldChange>>,
}

impl Choice<'_> {
    fn action(&self) -> ControlPlaneAction {
        let machines = self.view.machines;
        if let Some(m) = machines
            .iter()
            .find(|m| m.metadata.deletion_timestamp.is_some())
        {
            return ControlPlaneAction::Wait(ControlPlaneWait::MachineDeleting(name(m)));
        }
        // What was never seen to serve and is no longer wanted goes at once, unless it may have joined unseen and carry etcd.
        if let Some(m) = machines
            .iter()
            .find(|m| !has_served(m) && self.outdated.contains_key(&name(m)))
        {
            let carries = if machines.iter().any(has_served) {
                !may_remove(&self.members(), &name(m))
            } else {
                self.initialized() && m.spec.provider_id.is_some()
            };
            return if carries {
                ControlPlaneAction::Wait(ControlPlaneWait::MachineNotReady(name(m)))
            } else {
                ControlPlaneAction::Delete {
                    machine: name(m),
                    reason: DeleteReason::NeverServed,
                }
            };
        }
        let sick: Vec<&Machine> = machines.iter().filter(|m| !ready(m)).collect();
        if let Some(first) = sick.first() {
            // A broken machine that is to go anyway may go, if it is the only one.
            let goes = sick.len() == 1
                && has_served(first)
                && machines.len() > 1
                && self.reason(first).is_some();
            return if goes {
                self.delete(first)
            } else {
                ControlPlaneAction::Wait(ControlPlaneWait::MachineNotReady(name(first)))
            };
        }
        let have = machines.len();
        if have < self.want {
            let reason = if have == 0 && !self.initialized() {
                CreateReason::First
            } else {
                CreateReason::ScaleUp {
                    have,
                    want: self.want,
                }
            };
            return self.create(reason);
        }
        let Some(next) = self.next_to_go(have > self.want) else {
            return ControlPlaneAction::Settled;
        };
        let surge = self
            .view
            .cluster
            .spec
            .upgrade
            .as_ref()
            .and_then(|u| u.max_surge)
            .unwrap_or(1);
        // Without a spare machine one goes first, but only where the others carry the quorum.
        if have > self.want || (surge == 0 && self.want >= 3) {
            return self.delete(next);
        }
        self.create(CreateReason::Replace {
            machine: name(next),
            changes: self.outdated.get(&name(next)).cloned().unwrap_or_default(),
        })
    }

    fn initialized(&self) -> bool {
        self.view
            .cluster
            .status
            .as_ref()
            .and_then(|s| s.initialization.as_ref())
            .is_some_and(|i| i.control_plane_initialized)
    }

    fn reason(&self, machine: &Machine) -> Option<DeleteReason> {
        if is_marked(machine) {
            Some(DeleteReason::Marked)
        } else if self.outdated.contains_key(&name(machine)) {
            Some(DeleteReason::Outdated)
        } else {
            None
        }
    }

    /// Outdated and marked, marked, outdated, then (when there are too many) any: of the failure domain that has
    /// most, the oldest.
    fn next_to_go(&self, any: bool) -> Option<&Machine> {
        let domain = |m: &Machine| {
            let status = m.status.as_ref().and_then(|s| s.failure_domain.clone());
            status.or_else(|| m.spec.content.failure_domain.clone())
        };
        let mut domains: BTreeMap<Option<String>, usize> = BTreeMap::new();
        for m in self.view.machines {
            *domains.entry(domain(m)).or_default() += 1;
        }
        self.view
            .machines
            .iter()
            .filter(|m| any || self.reason(m).is_some())
            .min_by_key(|m| {
                let rank = match (is_marked(m), self.outdated.contains_key(&name(m))) {
                    (true, true) => 0,
                    (true, false) => 1,
                    (false, true) => 2,
                    (false, false) => 3,
                };
                let crowd = domains.get(&domain(m)).copied().unwrap_or(0);
                let created = m.metadata.creation_timestamp.as_ref().map(|t| t.0);
                (rank, usize::MAX - crowd, created, ordinal(m), name(m))
            })
    }

    fn members(&self) -> Vec<Member> {
        match self.view.members {
            Some(members) => members.to_vec(),
            None => self
                .view
                .machines
                .iter()
                .filter(|m| has_served(m))
                .map(|m| Member {
                    name: name(m),
                    healthy: ready(m),
                    learner: false,
                })
                .collect(),
        }
    }

    fn delete(&self, machine: &Machine) -> ControlPlaneAction {
        let name = name(machine);
        if !may_remove(&self.members(), &name) {
            return ControlPlaneAction::Wait(ControlPlaneWait::Quorum {
                machine: Some(name),
            });
        }
        ControlPlaneAction::Delete {
            reason: self.reason(machine).unwrap_or(DeleteReason::ScaleDown),
            machine: name,
        }
    }

    fn create(&self, reason: CreateReason) -> ControlPlaneAction {
        if !may_add(&self.members()) {
            return ControlPlaneAction::Wait(ControlPlaneWait::Quorum { machine: None });
        }
        let cluster = self.view.cluster;
        let cluster_name = cluster.metadata.name.as_deref().unwrap_or_default();
        let counter = cluster
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(meta::ANNOTATION_NEXT_ORDINAL))
            .and_then(|n| n.parse::<u64>().ok());
        let used = self
            .view
            .machines
            .iter()
            .filter_map(ordinal)
            .map(|o| o + 1)
            .max();
        let ordinal = counter.max(used).unwrap_or(0);
        let mut labels = self.content.machine_labels();
        labels.insert(meta::LABEL_CLUSTER_NAME.to_owned(), cluster_name.to_owned());
        labels.insert(meta::LABEL_CONTROL_PLANE.to_owned(), String::new());
        ControlPlaneAction::Create {
            machine: Box::new(NewMachine {
                name: names::control_plane_machine(cluster_name, ordinal),
                ordinal,
                labels,
                annotations: self.content.machine_annotations(),
                spec: MachineSpec {
                    cluster_name: cluster_name.to_owned(),
                    content: self.content.spec.clone(),
                    provider_id: None,
                    instance_key: None,
                },
            }),
            reason,
        }
    }
}

/// Whether the machine has a node and its Ready condition is not False or missing.
fn ready(machine: &Machine) -> bool {
    !is_unhealthy(machine)
        && machine
            .status
            .as_ref()
            .is_some_and(|s| condition::is_true(&s.conditions, condition::kind::READY))
}
