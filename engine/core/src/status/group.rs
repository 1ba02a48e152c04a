//! Status of a pool whose nodes its provider runs.

use fleetwright_api::{
    MachineDeployment,
    condition::{Status, kind, reason},
    machine_deployment::{MachineDeploymentStatus, PoolPhase},
    meta,
};
use jiff::Timestamp;

use super::{Conditions, managed, pool::selector};
use crate::{
    group::{GroupDecision, GroupWait},
    managed::{Known, Phase},
};

/// The nodes of a group, counted in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupNodes {
    /// Nodes there are.
    pub nodes: i32,
    /// Ready ones.
    pub ready: i32,
    /// Those that have been ready for `minReadySeconds`.
    pub available: i32,
    /// Those whose kubelet is of the minor version that the group is to have.
    pub at_version: i32,
}

/// The status of a pool that its provider runs: from what that shows, from the nodes (`None` where the cluster cannot be seen: then
/// what was counted last stays) and from what was decided. While the provider changes a group without changing its version, no node
/// tells whether it is changed already: none counts as up to date.
pub fn group(
    pool: &MachineDeployment,
    known: &Known,
    nodes: Option<&GroupNodes>,
    decision: &GroupDecision,
    now: Timestamp,
) -> MachineDeploymentStatus {
    let old = pool.status.clone().unwrap_or_default();
    let want = pool.spec.replicas.unwrap_or(1).max(0);
    let version = known.serves().map(ToString::to_string);
    let version = version.or_else(|| old.version.clone());
    let counts = nodes.copied().unwrap_or(GroupNodes {
        nodes: old.replicas,
        ready: old.ready_replicas,
        available: old.available_replicas,
        at_version: old.up_to_date_replicas,
    });
    let ordered = decision.order.as_ref().map(|o| o.version.to_string());
    let rolls = ordered.is_some() && version.is_some() && ordered != version;
    let up_to_date = match known.phase() {
        Some(Phase::Active) if !rolls => counts.nodes,
        Some(Phase::Updating(_)) if !rolls => 0,
        _ => counts.at_version,
    };
    let deleting = pool.metadata.deletion_timestamp.is_some();
    let mut list = old.conditions;
    let mut out = Conditions {
        list: &mut list,
        generation: pool.metadata.generation,
        now,
    };
    managed::infrastructure(&mut out, Some(known));
    available(&mut out, counts.available, want, known, decision);
    let waits = decision.waits.as_ref();
    let mut rolling = Vec::new();
    match known.phase() {
        Some(Phase::Updating(Some(to))) => {
            rolling.push(format!("the provider rolls its nodes to {to}"));
        }
        Some(Phase::Updating(None)) => rolling.push("the provider changes its nodes".to_owned()),
        _ if rolls => {
            let to = ordered.unwrap_or_default();
            rolling.push(format!("the provider is to roll its nodes to {to}"));
        }
        _ => rolling.extend(known.unanswered().map(ToOwned::to_owned)),
    }
    let behind = matches!(waits, Some(GroupWait::Version(_))) && counts.nodes > 0;
    let on = behind || !rolling.is_empty();
    rolling.extend(waits.map(ToString::to_string));
    out.flag(kind::ROLLING_OUT, on, rolling.join("; "));
    scaling(
        &mut out,
        counts.nodes,
        if deleting { 0 } else { want },
        known,
    );
    out.flag(kind::REMEDIATING, false, "");
    for (kind, have, good, words) in [
        (kind::MACHINES_READY, counts.ready, reason::READY, "ready"),
        (
            kind::MACHINES_UP_TO_DATE,
            up_to_date,
            reason::UP_TO_DATE,
            "up to date",
        ),
    ] {
        let all = counts.nodes;
        if all == 0 {
            out.set(kind, Status::True, reason::NO_REPLICAS, "");
        } else if have >= all {
            out.set(kind, Status::True, good, "");
        } else {
            let text = format!("{have} of {all} nodes are {words}");
            out.set(kind, Status::False, &format!("Not{good}"), text);
        }
    }
    let text = match &known.trouble {
        Some(trouble) => format!(
            "waiting for the provider to delete its nodes: {}",
            trouble.message
        ),
        None => "waiting for the provider to delete its nodes".to_owned(),
    };
    out.flag(kind::DELETING, deleting, text);
    out.flag(kind::PAUSED, waits == Some(&GroupWait::Paused), "");
    let phase = if counts.nodes > want {
        PoolPhase::ScalingDown
    } else if [counts.nodes, counts.available, up_to_date]
        .iter()
        .any(|n| *n < want)
    {
        PoolPhase::ScalingUp
    } else {
        PoolPhase::Running
    };
    MachineDeploymentStatus {
        observed_generation: pool.metadata.generation,
        selector: Some(selector(
            pool.spec.selector.as_ref(),
            meta::LABEL_DEPLOYMENT_NAME,
            pool.metadata.name.as_deref(),
        )),
        replicas: counts.nodes,
        ready_replicas: counts.ready,
        available_replicas: counts.available,
        up_to_date_replicas: up_to_date,
        phase: Some(phase),
        version,
        conditions: list,
    }
}

/// Available: all wanted nodes are; while the provider changes the group by bounds of its own, some are.
fn available(
    out: &mut Conditions<'_>,
    available: i32,
    want: i32,
    known: &Known,
    decision: &GroupDecision,
) {
    let least = match known.phase() {
        Some(Phase::Updating(_)) => want.min(1),
        _ => want,
    };
    if available >= least {
        return out.set(kind::AVAILABLE, Status::True, reason::AVAILABLE, "");
    }
    let mut text = format!("{available} available nodes, at least {least} required");
    let trouble = known
        .trouble
        .as_ref()
        .map(|trouble| trouble.message.clone());
    let why = decision.waits.as_ref().map(ToString::to_string);
    for why in why.into_iter().chain(trouble) {
        text.push_str("; ");
        text.push_str(&why);
    }
    out.set(kind::AVAILABLE, Status::False, reason::NOT_AVAILABLE, text);
}

/// ScalingUp with what the provider refuses, and ScalingDown.
fn scaling(out: &mut Conditions<'_>, have: i32, want: i32, known: &Known) {
    let words = |way: &str| format!("scaling {way} from {have} to {want} nodes");
    match managed::refusal(Some(known)).filter(|_| want > 0) {
        Some((reason, text)) => out.set(kind::SCALING_UP, Status::True, reason, text),
        None => out.flag(kind::SCALING_UP, have < want, words("up")),
    }
    out.flag(kind::SCALING_DOWN, have > want, words("down"));
}
