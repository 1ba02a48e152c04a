//! What a Cluster's status says of its control plane's upgrade, of broken machines, of etcd and of the control plane's other parts.

use fleetwright_api::{
    cluster::ClusterStatus,
    condition::{self, Status, kind, reason},
    version::Version,
};

use super::{ClusterFacts, Conditions, few};
use crate::{
    control_plane::ControlPlaneDecision,
    quorum::{has_quorum, quorum, votes},
};

/// `UpgradeBlocked`; not there where nothing was ever in the way.
pub(super) fn blocked(out: &mut Conditions<'_>, decision: &ControlPlaneDecision) {
    let kind = kind::UPGRADE_BLOCKED;
    match decision.version.as_ref().map(|step| (step, step.blocker())) {
        Some((step, Some(blocker))) => {
            out.set(kind, Status::True, blocker.reason(), step.to_string());
        }
        Some(_) if condition::get(out.list, kind).is_some() => out.flag(kind, false, ""),
        _ => {}
    }
}

/// What is said of an upgrade to another minor version for which no snapshot of etcd is kept.
pub(super) fn unsaved(status: &ClusterStatus, facts: &ClusterFacts) -> &'static str {
    let version = |text: &Option<String>| text.as_deref()?.parse::<Version>().ok();
    let minor = |v: Version| (v.major(), v.minor());
    let next = version(&status.upgrading_to).map(minor);
    match next.is_some_and(|next| Some(next) > version(&status.version).map(minor)) {
        true if facts.without_snapshots => {
            "; no snapshot of etcd is kept from before it: there is no escrow (--escrow)"
        }
        _ => "",
    }
}

/// `Remediating`; not there where no machine ever was broken.
pub(super) fn remediating(out: &mut Conditions<'_>, decision: &ControlPlaneDecision) {
    let kind = kind::REMEDIATING;
    match &decision.remediation {
        Some(r) => {
            let text = match &r.waits {
                Some(why) => format!("machine {} is broken: {why}", r.machine),
                None => format!("machine {} is broken and is being replaced", r.machine),
            };
            out.flag(kind, true, text);
        }
        None if condition::get(out.list, kind).is_some() => out.flag(kind, false, ""),
        None => {}
    }
}

/// Whether etcd has its quorum, and which members are not well.
pub(super) fn etcd(out: &mut Conditions<'_>, facts: &ClusterFacts) {
    let kind = kind::ETCD_CLUSTER_HEALTHY;
    let members = match &facts.etcd {
        Some(Ok(members)) if members.is_empty() => return,
        Some(Ok(members)) => members,
        Some(Err(why)) => {
            let text = format!("etcd cannot be asked: {why}");
            return out.set(kind, Status::Unknown, reason::INSPECTION_FAILED, text);
        }
        None => return,
    };
    let sick: Vec<String> = members
        .iter()
        .filter(|m| !m.healthy)
        .map(|m| format!("member {} is not healthy", m.name))
        .collect();
    let (healthy, voting) = votes(members);
    if has_quorum(members) {
        out.set(kind, Status::True, reason::HEALTHY, few(&sick));
    } else {
        let text = format!(
            "{healthy} of {voting} voting members are healthy, at least {} are needed: {}",
            quorum(voting),
            few(&sick)
        );
        out.set(kind, Status::False, reason::NOT_HEALTHY, text);
    }
}

/// Whether the parts of the control plane run on its machines, and which do not. Not there where no machine shows any.
pub(super) fn components(out: &mut Conditions<'_>, facts: &ClusterFacts) {
    let kind = kind::CONTROL_PLANE_COMPONENTS_HEALTHY;
    let states = match &facts.components {
        Some(Ok(states)) if states.is_empty() => return,
        Some(Ok(states)) => states,
        Some(Err(why)) => return out.set(kind, Status::Unknown, reason::INSPECTION_FAILED, why),
        None => return,
    };
    let sick = states.iter().filter(|state| state.is_sick());
    let sick: Vec<String> = sick.map(ToString::to_string).collect();
    match sick.is_empty() {
        true => out.set(kind, Status::True, reason::HEALTHY, ""),
        false => out.set(kind, Status::False, reason::NOT_HEALTHY, few(&sick)),
    }
}
