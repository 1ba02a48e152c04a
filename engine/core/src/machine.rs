//! The life of a machine: what is done next on its way up and on its way out.

use std::fmt;

use fleetwright_api::{
    Machine, condition,
    machine::{
        DEFAULT_NODE_DELETION_TIMEOUT_SECONDS, DEFAULT_NODE_DRAIN_TIMEOUT_SECONDS,
        DEFAULT_NODE_VOLUME_DETACH_TIMEOUT_SECONDS, MachineDeletionStatus,
    },
    meta,
    time::k8s_time,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

mod stays;
#[cfg(test)]
mod tests;

pub use self::stays::{cluster_goes, control_plane_stays};

/// What is known of a machine's instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instance {
    /// The provider could not be asked: nothing is concluded from that.
    Unknown,
    /// The provider says that there is none.
    Missing,
    /// It is being made.
    Pending,
    /// It runs.
    Running {
        /// The provider's id, as its node will carry it.
        provider_id: String,
    },
    /// It is being deleted.
    Stopping,
    /// The provider gives it up: it will never run, or not for long.
    Failed,
}

/// What is known of a machine's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// The workload cluster could not be asked: nothing is concluded from that.
    Unknown,
    /// There is no node with the machine's providerID (or, once known, of its name).
    Missing,
    /// There is.
    Present {
        /// Its name.
        name: String,
        /// Whether its kubelet has stopped reporting.
        unreachable: bool,
    },
}

/// What is known of an instance that the lists of its account do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It was never asked for, or the provider has said that it goes or is gone.
    Sure,
    /// Lists alone say so.
    Listed {
        /// Since when: the begin of the first list that could have shown it and did not, or the last create that may have had its effect.
        since: Timestamp,
        /// When the latest list was begun.
        latest: Timestamp,
    },
}

/// What it takes to believe that a machine has no instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing more.
    Given,
    /// The provider is asked for the instance with this id.
    AskFor(String),
    /// A list that is begun not before then.
    ListAt(Timestamp),
}

/// What it takes to believe that `machine`, which the lists show no instance of, has none: lists may be behind by `lag`, and an instance
/// that is given up by mistake runs for ever.
pub fn proof(machine: &Machine, absent: Absent, lag: SignedDuration) -> Proof {
    let lost = crate::health::broken(machine)
        .is_some_and(|c| c.reason == condition::reason::INSTANCE_LOST);
    let Absent::Listed { since, latest } = absent else {
        return Proof::Given;
    };
    if machine.spec.instance_key.is_none() || lost {
        return Proof::Given;
    }
    let status = machine.status.as_ref();
    let shown = status.and_then(|s| s.instance.as_ref());
    if let Some(shown) = shown.filter(|i| !i.id.is_empty()) {
        return Proof::AskFor(shown.id.clone());
    }
    let at = since.checked_add(lag).unwrap_or(Timestamp::MAX);
    if latest >= at {
        Proof::Given
    } else {
        Proof::ListAt(at)
    }
}

/// What a machine's next step depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFacts {
    /// The instance.
    pub instance: Instance,
    /// The node.
    pub node: NodeState,
    /// Whether its cluster is ready for it: workers wait for the control plane's first machine.
    pub may_start: bool,
    /// Whether its Cluster is on its way out ([`cluster_goes`]).
    pub cluster_deleting: bool,
    /// Whether its Cluster is paused: then so is all that belongs to it.
    pub cluster_paused: bool,
    /// Whether the control plane goes on without this machine ([`control_plane_stays`]).
    pub control_plane_stays: bool,
    /// Whether its provider may still keep what it booted from.
    pub bootstrap_kept: bool,
    /// Whether every pod that is to go has gone (from [`crate::drain::DrainPlan::is_done`]); `None` while not looked.
    pub drained: Option<bool>,
    /// Volumes that are still attached; `None` while not looked.
    pub volumes_attached: Option<Vec<String>>,
}

/// Volumes named in one sentence, at most.
const NAMED: usize = 5;

/// What is done next for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum MachineStep {
    /// Somebody paused it.
    Paused,
    /// Our finalizer is put on it.
    AddFinalizer,
    /// Its instance key is drawn and stored, before anything is asked of the provider.
    SetInstanceKey,
    /// It waits for its cluster's control plane.
    WaitControlPlane,
    /// The provider could not be asked.
    WaitProvider,
    /// The provider is asked for the instance, with the instance key as client token.
    CreateInstance,
    /// The instance is being made.
    WaitInstance,
    /// The provider's id is stored.
    SetProviderId(String),
    /// The instance was there and is gone: it is never made again under this machine.
    InstanceLost,
    /// The provider gives the instance up: its owner replaces the machine.
    InstanceFailed,
    /// The instance runs; its node has not appeared (or could not be asked for).
    WaitNode,
    /// The node is there and is kept in step.
    Running {
        /// The node.
        node: String,
    },
    /// It is on its way out.
    Delete(DeletionStep),
}

/// What is done next for a machine on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionStep {
    /// Hooks hold back the drain.
    WaitPreDrainHook {
        /// Their names.
        hooks: Vec<String>,
    },
    /// The node is cordoned and pods are evicted.
    Drain {
        /// The node.
        node: String,
        /// Whether its kubelet has stopped reporting.
        unreachable: bool,
        /// When it began.
        started: Timestamp,
        /// When it is given up.
        until: Timestamp,
    },
    /// Volumes are still attached.
    WaitVolumes {
        /// The node.
        node: String,
        /// The volumes; empty while not looked.
        volumes: Vec<String>,
        /// When the wait began.
        started: Timestamp,
        /// When it is given up.
        until: Timestamp,
    },
    /// Hooks hold back the instance's deletion.
    WaitPreTerminateHook {
        /// Their names.
        hooks: Vec<String>,
    },
    /// The provider is asked to delete the instance.
    DeleteInstance,
    /// The instance is being deleted.
    WaitInstanceGone,
    /// The provider could not be asked: the machine stays.
    WaitProvider,
    /// What it booted from, which holds secrets, is removed.
    DeleteBootstrap,
    /// The Node object is deleted.
    DeleteNode {
        /// The node.
        node: String,
        /// When it is given up.
        until: Timestamp,
    },
    /// All is gone: our finalizer goes.
    RemoveFinalizer,
}

impl DeletionStep {
    /// Reason of condition `Deleting`.
    pub fn reason(&self) -> &'static str {
        use condition::reason as r;
        match self {
            Self::WaitPreDrainHook { .. } => r::WAITING_FOR_PRE_DRAIN_HOOK,
            Self::Drain { .. } => r::DRAINING_NODE,
            Self::WaitVolumes { .. } => r::WAITING_FOR_VOLUME_DETACH,
            Self::WaitPreTerminateHook { .. } => r::WAITING_FOR_PRE_TERMINATE_HOOK,
            Self::DeleteInstance | Self::WaitInstanceGone | Self::WaitProvider => {
                r::WAITING_FOR_INFRASTRUCTURE_DELETION
            }
            Self::DeleteBootstrap => r::WAITING_FOR_BOOTSTRAP_DELETION,
            Self::DeleteNode { .. } => r::DELETING_NODE,
            Self::RemoveFinalizer => r::DELETION_COMPLETED,
        }
    }

    /// When this step is given up, where it has a time-out.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Drain { until, .. }
            | Self::WaitVolumes { until, .. }
            | Self::DeleteNode { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// Remembers when this step began, so that its time-out runs; `true` when that was not known yet.
    pub fn record_start(&self, status: &mut MachineDeletionStatus, now: Timestamp) -> bool {
        let slot = match self {
            Self::WaitPreDrainHook { .. } => &mut status.wait_for_pre_drain_hook_start_time,
            Self::Drain { .. } => &mut status.node_drain_start_time,
            Self::WaitVolumes { .. } => &mut status.wait_for_node_volume_detach_start_time,
            // From here on nothing is drained any more, however long the provider takes.
            Self::WaitPreTerminateHook { .. }
            | Self::DeleteInstance
            | Self::WaitInstanceGone
            | Self::WaitProvider => &mut status.wait_for_pre_terminate_hook_start_time,
            Self::DeleteNode { .. } => &mut status.node_deletion_start_time,
            _ => return false,
        };
        if slot.is_some() {
            return false;
        }
        *slot = Some(k8s_time(now));
        true
    }
}

impl fmt::Display for DeletionStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitPreDrainHook { hooks } => {
                write!(f, "waiting for pre-drain hooks: {}", hooks.join(", "))
            }
            Self::Drain {
                node,
                started,
                until,
                ..
            } => {
                write!(
                    f,
                    "draining node {node} since {started} (until {until} at most)"
                )
            }
            Self::WaitVolumes {
                node,
                volumes,
                started,
                until,
            } => {
                write!(
                    f,
                    "waiting for volumes to be detached from node {node} since {started} (until {until} at most)"
                )?;
                if volumes.is_empty() {
                    return Ok(());
                }
                let named = volumes.len().min(NAMED);
                write!(f, ": {}", volumes[..named].join(", "))?;
                match volumes.len() - named {
                    0 => Ok(()),
                    more => write!(f, ", ... ({more} more)"),
                }
            }
            Self::WaitPreTerminateHook { hooks } => {
                write!(f, "waiting for pre-terminate hooks: {}", hooks.join(", "))
            }
            Self::DeleteInstance => f.write_str("deleting the instance"),
            Self::WaitInstanceGone => f.write_str("waiting for the instance to be gone"),
            Self::WaitProvider => {
                f.write_str("waiting for the provider to say whether the instance is gone")
            }
            Self::DeleteBootstrap => f.write_str("removing what the machine booted from"),
            Self::DeleteNode { node, until } => {
                write!(f, "deleting node {node} (until {until} at most)")
            }
            Self::RemoveFinalizer => f.write_str("all is gone"),
        }
    }
}

impl fmt::Display for MachineStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused"),
            Self::AddFinalizer => f.write_str("taking the machine over"),
            Self::SetInstanceKey => f.write_str("drawing the instance key"),
            Self::WaitControlPlane => f.write_str("waiting for the control plane's first machine"),
            Self::WaitProvider => f.write_str("waiting for the provider to answer"),
            Self::CreateInstance => f.write_str("asking the provider for the instance"),
            Self::WaitInstance => f.write_str("waiting for the instance to run"),
            Self::SetProviderId(id) => write!(f, "the instance is {id}"),
            Self::InstanceLost => f.write_str("the instance is gone and was not deleted by us"),
            Self::InstanceFailed => f.write_str("the provider gives the instance up"),
            Self::WaitNode => f.write_str("waiting for the node"),
            Self::Running { node } => write!(f, "running as node {node}"),
            Self::Delete(step) => step.fmt(f),
        }
    }
}

/// What is done next for `machine`.
pub fn next_step(machine: &Machine, facts: &MachineFacts, now: Timestamp) -> MachineStep {
    // A pause holds back a deletion too.
    if meta::is_paused(machine) || facts.cluster_paused {
        return MachineStep::Paused;
    }
    if machine.metadata.deletion_timestamp.is_some() {
        return MachineStep::Delete(deletion_step(machine, facts, now));
    }
    let finalizers = machine.metadata.finalizers.as_deref().unwrap_or_default();
    if !finalizers.iter().any(|f| f == meta::FINALIZER_MACHINE) {
        return MachineStep::AddFinalizer;
    }
    if machine.spec.instance_key.is_none() {
        return MachineStep::SetInstanceKey;
    }
    match (&facts.instance, &machine.spec.provider_id) {
        (Instance::Unknown, None) => MachineStep::WaitProvider,
        (Instance::Missing, None) if !facts.may_start => MachineStep::WaitControlPlane,
        (Instance::Missing, None) => MachineStep::CreateInstance,
        (Instance::Pending, None) => MachineStep::WaitInstance,
        (Instance::Running { provider_id }, known) if known.as_ref() != Some(provider_id) => {
            MachineStep::SetProviderId(provider_id.clone())
        }
        (Instance::Missing | Instance::Stopping, _) => MachineStep::InstanceLost,
        (Instance::Failed, _) => MachineStep::InstanceFailed,
        _ => match &facts.node {
            NodeState::Present { name, .. } => MachineStep::Running { node: name.clone() },
            NodeState::Missing | NodeState::Unknown => MachineStep::WaitNode,
        },
    }
}

/// What is done next for a machine on its way out. Hooks, cordon and drain, volumes, hooks, instance, what it booted from, node,
/// finalizer; when the cluster itself goes, or its control plane with this machine, or no node is known, only hooks before the end, the
/// instance, what it booted from and the finalizer. Drain and volumes are over for good once the end is waited for or the instance goes,
/// and what it booted from once its node is being deleted.
pub fn deletion_step(machine: &Machine, facts: &MachineFacts, now: Timestamp) -> DeletionStep {
    let begun = machine
        .status
        .as_ref()
        .and_then(|s| s.deletion.clone())
        .unwrap_or_default();
    let known = machine
        .status
        .as_ref()
        .and_then(|s| s.node_ref.as_ref())
        .map(|n| n.name.clone());
    // Nodes may not be seen though their cluster answers: then the drain goes on, and is over when it says so.
    let drained =
        facts.drained == Some(true) || begun.wait_for_node_volume_detach_start_time.is_some();
    let node = match &facts.node {
        NodeState::Present { name, unreachable } => Some((name.clone(), *unreachable)),
        NodeState::Unknown if drained => known.clone().map(|name| (name, false)),
        _ => None,
    };
    let node_work =
        !facts.cluster_deleting && facts.control_plane_stays && (known.is_some() || node.is_some());
    if node_work && let Some(hooks) = hooks(machine, meta::PREFIX_PRE_DRAIN_HOOK) {
        return DeletionStep::WaitPreDrainHook { hooks };
    }
    let ending = matches!(facts.instance, Instance::Missing | Instance::Stopping)
        || begun.wait_for_pre_terminate_hook_start_time.is_some();
    if node_work && !ending {
        if let Some((node, unreachable)) = node.clone() {
            if let Some(step) = drain_or_volumes(machine, facts, &begun, node, unreachable, now) {
                return step;
            }
        } else if facts.node == NodeState::Unknown
            && let Some(node) = known.clone()
        {
            // The cluster cannot be asked: the drain's time-out runs meanwhile.
            if let Some(step) = drain(machine, &begun, node, true, now) {
                return step;
            }
        }
    }
    if let Some(hooks) = hooks(machine, meta::PREFIX_PRE_TERMINATE_HOOK) {
        return DeletionStep::WaitPreTerminateHook { hooks };
    }
    match &facts.instance {
        Instance::Unknown => return DeletionStep::WaitProvider,
        #[cfg(feature = "seeded-bugs")]
        Instance::Pending if fleetwright_api::bugs::on("end-instance-left") => {}
        Instance::Pending | Instance::Running { .. } | Instance::Failed => {
            return DeletionStep::DeleteInstance;
        }
        Instance::Stopping => return DeletionStep::WaitInstanceGone,
        Instance::Missing => {}
    }
    if facts.bootstrap_kept && begun.node_deletion_start_time.is_none() {
        return DeletionStep::DeleteBootstrap;
    }
    #[cfg(feature = "seeded-bugs")]
    let node_work = node_work && !fleetwright_api::bugs::on("end-node-left");
    if node_work {
        let node = match &facts.node {
            NodeState::Present { name, .. } => Some(name.clone()),
            NodeState::Unknown => known,
            NodeState::Missing => None,
        };
        if let Some(node) = node {
            let seconds = machine
                .spec
                .content
                .deletion
                .as_ref()
                .and_then(|d| d.node_deletion_timeout_seconds)
                .unwrap_or(DEFAULT_NODE_DELETION_TIMEOUT_SECONDS);
            let until = deadline(begun.node_deletion_start_time.as_ref(), seconds, now);
            if now < until {
                return DeletionStep::DeleteNode { node, until };
            }
        }
    }
    DeletionStep::RemoveFinalizer
}

/// The drain, while it is allowed: not excluded, not timed out, and not over. It is over once volumes are waited for.
fn drain(
    machine: &Machine,
    begun: &MachineDeletionStatus,
    node: String,
    unreachable: bool,
    now: Timestamp,
) -> Option<DeletionStep> {
    if begun.wait_for_node_volume_detach_start_time.is_some()
        || has(machine, meta::ANNOTATION_EXCLUDE_NODE_DRAINING)
    {
        return None;
    }
    let seconds = machine
        .spec
        .content
        .deletion
        .as_ref()
        .and_then(|d| d.node_drain_timeout_seconds)
        .unwrap_or(DEFAULT_NODE_DRAIN_TIMEOUT_SECONDS);
    let start = begun.node_drain_start_time.as_ref();
    #[cfg(feature = "seeded-bugs")]
    let seconds = match fleetwright_api::bugs::on("i6-drain-given-up-early") {
        true => seconds / 4,
        false => seconds,
    };
    let until = deadline(start, seconds, now);
    (now < until).then(|| DeletionStep::Drain {
        node,
        unreachable,
        started: begin(start, now),
        until,
    })
}

fn drain_or_volumes(
    machine: &Machine,
    facts: &MachineFacts,
    begun: &MachineDeletionStatus,
    node: String,
    unreachable: bool,
    now: Timestamp,
) -> Option<DeletionStep> {
    if facts.drained != Some(true)
        && let Some(step) = drain(machine, begun, node.clone(), unreachable, now)
    {
        return Some(step);
    }
    let volumes = facts.volumes_attached.clone();
    if unreachable
        || volumes.as_ref().is_some_and(Vec::is_empty)
        || has(machine, meta::ANNOTATION_EXCLUDE_WAIT_FOR_VOLUME_DETACH)
    {
        return None;
    }
    let seconds = machine
        .spec
        .content
        .deletion
        .as_ref()
        .and_then(|d| d.node_volume_detach_timeout_seconds)
        .unwrap_or(DEFAULT_NODE_VOLUME_DETACH_TIMEOUT_SECONDS);
    let start = begun.wait_for_node_volume_detach_start_time.as_ref();
    let until = deadline(start, seconds, now);
    (now < until).then(|| DeletionStep::WaitVolumes {
        node,
        volumes: volumes.unwrap_or_default(),
        started: begin(start, now),
        until,
    })
}

fn has(machine: &Machine, annotation: &str) -> bool {
    let annotations = machine.metadata.annotations.as_ref();
    annotations.is_some_and(|a| a.contains_key(annotation))
}

/// When a step began: now, in the whole seconds that are stored, when it has not.
fn begin(start: Option<&Time>, now: Timestamp) -> Timestamp {
    start.map_or_else(|| k8s_time(now).0, |t| t.0)
}

/// When a step that began then (or now) is given up. A time-out of 0 or less counts as one second.
fn deadline(start: Option<&Time>, seconds: i32, now: Timestamp) -> Timestamp {
    begin(start, now)
        .checked_add(SignedDuration::from_secs(i64::from(seconds.max(1))))
        .unwrap_or(Timestamp::MAX)
}

fn hooks(machine: &Machine, prefix: &str) -> Option<Vec<String>> {
    let found: Vec<String> = machine
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter_map(|(k, _)| k.strip_prefix(prefix).map(ToOwned::to_owned))
        .collect();
    (!found.is_empty()).then_some(found)
}
