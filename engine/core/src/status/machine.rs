//! Status of a Machine.

use fleetwright_api::{
    Machine,
    condition::{self, Status, kind, reason},
    machine::{
        InstanceView, MachineAddress, MachinePhase, MachineStatus, NodeInfo, NodeRef, Polarity,
    },
    meta,
};
use jiff::Timestamp;

use super::{Conditions, in_sync};
use crate::{
    drift,
    health::{Judgement, Verdict},
    machine::{Instance, MachineStep},
};

/// What was seen of a node's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeHealth {
    /// Ready, and under no pressure.
    Healthy,
    /// Not; with the reason in words.
    NotHealthy(String),
    /// Ready, but under pressure; which, in words.
    Pressed(String),
    /// Its kubelet has not reported yet or no longer does.
    Unknown(String),
}

/// What was seen of a machine's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeObservation {
    /// The workload cluster could not be asked: what was known stays.
    NotAsked,
    /// It could not be asked since then, for so long that what was known no longer counts.
    ConnectionDown(Timestamp),
    /// It is not there.
    Missing,
    /// Several nodes have the machine's providerID: which of them is its own is not for us to guess.
    Several(Vec<String>),
    /// It is, and does not count yet: the observation's detail says why.
    Held,
    /// It is.
    Present {
        /// Its name.
        name: String,
        /// Its health.
        health: NodeHealth,
        /// What it says of itself.
        info: NodeInfo,
    },
}

/// Seconds for which a node's last known state counts after its cluster has stopped answering, as in Cluster API.
pub const CONNECTION_GRACE_SECONDS: i64 = 300;

impl NodeObservation {
    /// Of a cluster that cannot be asked, since `lost` where somebody could before.
    pub fn not_asked(lost: Option<Timestamp>, now: Timestamp) -> Self {
        let over = |t: &Timestamp| now.duration_since(*t).as_secs() >= CONNECTION_GRACE_SECONDS;
        lost.filter(over)
            .map_or(Self::NotAsked, Self::ConnectionDown)
    }
}

/// Whether the machine is what its owner wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpToDate {
    /// It is.
    Yes,
    /// It is not: what differs.
    No(String),
    /// Not known now: what was known stays.
    Unknown,
}

/// What was seen of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineObservation {
    /// The instance.
    pub instance: Instance,
    /// What the provider shows of it; `None` keeps what it last showed.
    pub instance_view: Option<InstanceView>,
    /// Its addresses; `None` keeps those known.
    pub addresses: Option<Vec<MachineAddress>>,
    /// The failure domain that it is in; `None` keeps the one known.
    pub failure_domain: Option<String>,
    /// The node.
    pub node: NodeObservation,
    /// Whether it is what its owner wants.
    pub up_to_date: UpToDate,
    /// What differs though nobody declared it.
    pub drift: drift::Reading,
    /// What its health checks say of it.
    pub health: Judgement,
    /// What is done next.
    pub step: MachineStep,
    /// The word of the provider's error, where it refuses to make the instance.
    pub refused: Option<&'static str>,
    /// More words on that, such as [`crate::drain::DrainProgress`]; the step's own when `None`.
    pub detail: Option<String>,
}

/// The status of `machine` from what was seen. It is written only when it differs from the old one.
pub fn machine(machine: &Machine, seen: &MachineObservation, now: Timestamp) -> MachineStatus {
    let mut status = machine.status.clone().unwrap_or_default();
    let deleting = machine.metadata.deletion_timestamp.is_some();
    status.observed_generation = machine.metadata.generation;
    if let Some(view) = &seen.instance_view {
        status.instance = Some(in_sync::kept(status.instance.as_ref(), view));
    }
    if let Some(addresses) = &seen.addresses {
        status.addresses.clone_from(addresses);
    }
    if let Some(domain) = &seen.failure_domain {
        status.failure_domain = Some(domain.clone());
    }
    if let NodeObservation::Present { name, info, .. } = &seen.node {
        status.node_ref = Some(NodeRef { name: name.clone() });
        status.node_info = Some(info.clone());
    }
    let detail = seen.detail.clone().unwrap_or_else(|| seen.step.to_string());
    let known_node = status.node_ref.is_some();
    let mut list = std::mem::take(&mut status.conditions);
    let mut out = Conditions {
        list: &mut list,
        generation: machine.metadata.generation,
        now,
    };

    match &seen.step {
        MachineStep::Delete(step) => {
            out.set(kind::DELETING, Status::True, step.reason(), detail.clone());
        }
        _ => out.set(
            kind::DELETING,
            deleting.into(),
            if deleting {
                reason::DELETING
            } else {
                reason::NOT_DELETING
            },
            "",
        ),
    }
    let paused = seen.step == MachineStep::Paused || meta::is_paused(machine);
    out.flag(kind::PAUSED, paused, "");
    match &seen.instance {
        Instance::Running { .. } => {
            out.set(kind::INFRASTRUCTURE_READY, Status::True, reason::READY, "");
        }
        Instance::Unknown if is_known(&out, kind::INFRASTRUCTURE_READY) => {}
        Instance::Unknown => out.set(
            kind::INFRASTRUCTURE_READY,
            Status::Unknown,
            reason::READY_UNKNOWN,
            detail.clone(),
        ),
        Instance::Missing => out.set(
            kind::INFRASTRUCTURE_READY,
            Status::False,
            match seen.refused {
                _ if machine.spec.provider_id.is_some() => reason::DELETED,
                Some(word) => word,
                None => reason::DOES_NOT_EXIST,
            },
            detail.clone(),
        ),
        Instance::Failed => out.set(
            kind::INFRASTRUCTURE_READY,
            Status::False,
            reason::INSTANCE_FAILED,
            detail.clone(),
        ),
        Instance::Pending | Instance::Stopping => {
            out.set(
                kind::INFRASTRUCTURE_READY,
                Status::False,
                reason::NOT_READY,
                detail.clone(),
            );
        }
    }
    node(&mut out, &seen.node, known_node, &detail);
    match &seen.up_to_date {
        UpToDate::Yes => out.set(kind::UP_TO_DATE, Status::True, reason::UP_TO_DATE, ""),
        UpToDate::No(why) => out.set(
            kind::UP_TO_DATE,
            Status::False,
            reason::NOT_UP_TO_DATE,
            why.clone(),
        ),
        UpToDate::Unknown => {}
    }
    health(&mut out, &seen.health.verdict);
    in_sync::of_machine(&mut out, &seen.drift);
    status.drift.clone_from(&seen.drift.found);
    ready(&mut out, machine, deleting);
    available(&mut out, machine);
    status.conditions = list;
    status
        .bad_conditions
        .clone_from(&seen.health.bad_conditions);
    status.phase = Some(phase(machine, seen, known_node));
    status
}

/// Whether a condition says something that stays while nobody answers.
fn is_known(out: &Conditions<'_>, kind: &str) -> bool {
    condition::get(out.list, kind).is_some_and(|c| c.status != "Unknown")
}

fn node(out: &mut Conditions<'_>, node: &NodeObservation, known: bool, detail: &str) {
    let both = |out: &mut Conditions<'_>, status, healthy: &str, ready: &str, text: &str| {
        out.set(kind::NODE_HEALTHY, status, healthy, text);
        out.set(kind::NODE_READY, status, ready, text);
    };
    match node {
        NodeObservation::Present { health, .. } => match health {
            NodeHealth::Healthy => both(
                out,
                Status::True,
                reason::NODE_HEALTHY,
                reason::NODE_READY,
                "",
            ),
            NodeHealth::NotHealthy(text) => {
                both(
                    out,
                    Status::False,
                    reason::NODE_NOT_HEALTHY,
                    reason::NODE_NOT_READY,
                    text,
                );
            }
            NodeHealth::Pressed(text) => {
                out.set(
                    kind::NODE_HEALTHY,
                    Status::False,
                    reason::NODE_NOT_HEALTHY,
                    text,
                );
                out.set(kind::NODE_READY, Status::True, reason::NODE_READY, "");
            }
            NodeHealth::Unknown(text) => both(
                out,
                Status::Unknown,
                reason::NODE_HEALTHY_UNKNOWN,
                reason::NODE_READY_UNKNOWN,
                text,
            ),
        },
        NodeObservation::Missing if known => {
            both(
                out,
                Status::False,
                reason::NODE_DELETED,
                reason::NODE_DELETED,
                "the node was there and is gone",
            );
        }
        NodeObservation::Missing => {
            both(
                out,
                Status::False,
                reason::NODE_DOES_NOT_EXIST,
                reason::NODE_DOES_NOT_EXIST,
                detail,
            );
        }
        NodeObservation::Several(names) => both(
            out,
            Status::Unknown,
            reason::INTERNAL_ERROR,
            reason::INTERNAL_ERROR,
            &format!(
                "nodes {} have the machine's providerID: delete those that are not its own",
                names.join(" and ")
            ),
        ),
        NodeObservation::Held => both(
            out,
            Status::False,
            reason::NODE_NOT_HEALTHY,
            reason::NODE_NOT_READY,
            detail,
        ),
        NodeObservation::NotAsked if is_known(out, kind::NODE_HEALTHY) => {}
        NodeObservation::NotAsked => both(
            out,
            Status::Unknown,
            reason::NODE_HEALTHY_UNKNOWN,
            reason::NODE_READY_UNKNOWN,
            detail,
        ),
        NodeObservation::ConnectionDown(since) => both(
            out,
            Status::Unknown,
            reason::CONNECTION_DOWN,
            reason::CONNECTION_DOWN,
            &format!("the cluster's API has not answered since {since}"),
        ),
    }
}

/// HealthCheckSucceeded, and OwnerRemediated while the owner of a broken machine has said nothing yet.
fn health(out: &mut Conditions<'_>, verdict: &Verdict) {
    let drifted = condition::get(out.list, kind::HEALTH_CHECK_SUCCEEDED)
        .is_some_and(|c| c.status == "False" && c.reason == reason::DRIFTED);
    match verdict {
        Verdict::Unknown => {}
        // That it drifted is known without a check, and that it does no longer.
        Verdict::Starting { .. } | Verdict::Suspect { .. } if !drifted => {}
        Verdict::NotChecked | Verdict::Starting { .. } | Verdict::Suspect { .. } => {
            out.list.retain(|c| {
                ![kind::HEALTH_CHECK_SUCCEEDED, kind::OWNER_REMEDIATED].contains(&c.type_.as_str())
            });
        }
        Verdict::Healthy => {
            out.list.retain(|c| c.type_ != kind::OWNER_REMEDIATED);
            out.set(
                kind::HEALTH_CHECK_SUCCEEDED,
                Status::True,
                reason::HEALTH_CHECK_SUCCEEDED,
                "",
            );
        }
        Verdict::Broken { reason, message } => {
            out.set(
                kind::HEALTH_CHECK_SUCCEEDED,
                Status::False,
                reason,
                message.clone(),
            );
            if condition::get(out.list, kind::OWNER_REMEDIATED).is_none() {
                out.set(
                    kind::OWNER_REMEDIATED,
                    Status::False,
                    reason::WAITING_FOR_REMEDIATION,
                    "the owner is to replace the machine",
                );
            }
        }
    }
}

/// Ready: not on its way out, instance and node fine, and every gate open.
fn ready(out: &mut Conditions<'_>, machine: &Machine, deleting: bool) {
    let (mut bad, mut unknown) = (Vec::new(), Vec::new());
    if deleting {
        let message = condition::get(out.list, kind::DELETING).map(|c| c.message.clone());
        bad.push(format!("Deleting: {}", message.unwrap_or_default()));
    }
    let own = [
        (kind::INFRASTRUCTURE_READY, Polarity::Positive),
        (kind::NODE_HEALTHY, Polarity::Positive),
    ];
    let gates = machine.spec.content.readiness_gates.iter().map(|g| {
        (
            g.condition_type.as_str(),
            g.polarity.unwrap_or(Polarity::Positive),
        )
    });
    // One that drifted serves as it did before.
    let health = condition::get(out.list, kind::HEALTH_CHECK_SUCCEEDED)
        .is_some_and(|c| c.reason != reason::DRIFTED)
        .then_some((kind::HEALTH_CHECK_SUCCEEDED, Polarity::Positive));
    for (name, polarity) in own.into_iter().chain(health).chain(gates) {
        let good = if polarity == Polarity::Positive {
            "True"
        } else {
            "False"
        };
        match condition::get(out.list, name) {
            Some(c) if c.status == good => {}
            Some(c) if c.status == "Unknown" => unknown.push(format!("{name}: {}", c.message)),
            Some(c) => bad.push(format!(
                "{name}: {}",
                if c.message.is_empty() {
                    &c.reason
                } else {
                    &c.message
                }
            )),
            None => unknown.push(format!("{name}: not reported")),
        }
    }
    if !bad.is_empty() {
        bad.append(&mut unknown);
        out.set(
            kind::READY,
            Status::False,
            reason::NOT_READY,
            bad.join("; "),
        );
    } else if !unknown.is_empty() {
        out.set(
            kind::READY,
            Status::Unknown,
            reason::READY_UNKNOWN,
            unknown.join("; "),
        );
    } else {
        out.set(kind::READY, Status::True, reason::READY, "");
    }
}

/// When a ready machine counts as available; `None` while it is not ready. Times are whole seconds.
pub fn available_at(machine: &Machine, conditions: &[condition::Condition]) -> Option<Timestamp> {
    let ready = condition::get(conditions, kind::READY).filter(|c| c.status == "True")?;
    let seconds = i64::from(machine.spec.content.min_ready_seconds.unwrap_or(0).max(0));
    ready
        .last_transition_time
        .0
        .checked_add(jiff::SignedDuration::from_secs(seconds))
        .ok()
}

fn available(out: &mut Conditions<'_>, machine: &Machine) {
    match available_at(machine, out.list) {
        None => out.set(kind::AVAILABLE, Status::False, reason::NOT_READY, ""),
        Some(at) if out.now < at => out.set(
            kind::AVAILABLE,
            Status::False,
            reason::WAITING_FOR_MIN_READY_SECONDS,
            format!("ready, and available from {at} on"),
        ),
        Some(_) => out.set(kind::AVAILABLE, Status::True, reason::AVAILABLE, ""),
    }
}

fn phase(machine: &Machine, seen: &MachineObservation, known_node: bool) -> MachinePhase {
    if machine.metadata.deletion_timestamp.is_some() {
        MachinePhase::Deleting
    } else if known_node {
        MachinePhase::Running
    } else if machine.spec.provider_id.is_some()
        || matches!(seen.instance, Instance::Running { .. })
    {
        MachinePhase::Provisioned
    } else if seen.instance == Instance::Pending {
        MachinePhase::Provisioning
    } else {
        match machine.status.as_ref().and_then(|s| s.phase) {
            Some(MachinePhase::Provisioning) => MachinePhase::Provisioning,
            _ => MachinePhase::Pending,
        }
    }
}
