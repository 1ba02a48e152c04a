//! What is done about what differs of a machine, as its Fleet wants it: nothing, it is told, it is written back, or another machine
//! comes in its place.

use fleetwright_api::{
    Machine,
    drift::{DriftKind, MachineDrift},
    fleet::{DriftAction, DriftPolicy, FleetSpec},
};
use jiff::Timestamp;

use super::Reading;
use crate::waves::{Opening, opening};

/// Most things that a sentence names.
const NAMED: usize = 3;

/// What is done about what differs of a machine, beside telling it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Correction {
    /// What is put right by writing the machine's settings to its instance again, in words.
    pub write_back: Vec<String>,
    /// Why another machine is to come in its place, in words.
    pub replace: Option<String>,
    /// When a window opens that it waits for.
    pub next: Option<Timestamp>,
}

/// What the Fleet of `machine` wants done about `reading`; what it ignores is taken out. Without a Fleet all is told and nothing else.
///
/// What cannot be read is not in a reading: nothing is done about it. A Fleet that is suspended or whose windows are closed begins
/// nothing.
pub fn correct(
    machine: &Machine,
    reading: &mut Reading,
    fleet: Option<&FleetSpec>,
    now: Timestamp,
) -> Correction {
    let mut out = Correction::default();
    let Some(fleet) = fleet else {
        return out;
    };
    let none = DriftPolicy::default();
    let policy = fleet.drift.as_ref().unwrap_or(&none);
    reading
        .found
        .retain(|drift| action(policy, drift) != DriftAction::Ignore);
    let wanted = reading.found.iter();
    let wanted: Vec<&MachineDrift> = wanted
        .filter(|drift| action(policy, drift) == DriftAction::Correct)
        .collect();
    let mut replace = Vec::new();
    for drift in wanted {
        match drift.kind {
            // A machine without an instance is broken whatever the policy says, and labels and taints are kept in step.
            DriftKind::InstanceMissing | DriftKind::Label | DriftKind::Taint => {}
            _ if is_in_place(drift) => out.write_back.push(drift.to_string()),
            // Another one would be the same.
            _ if is_inborn(machine, drift) => {}
            _ => replace.push(drift.to_string()),
        }
    }
    if !replace.is_empty() {
        let more = replace.len().saturating_sub(NAMED);
        replace.truncate(NAMED);
        let mut text = format!("it drifted: {}", replace.join("; "));
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        out.replace = Some(text);
    }
    if out == Correction::default() {
        return out;
    }
    if fleet.suspend == Some(true) {
        return Correction::default();
    }
    let next = match opening(&fleet.windows, now) {
        Opening::Open => return out,
        Opening::At(at) => Some(at),
        Opening::Never(_) => None,
    };
    Correction {
        next,
        ..Correction::default()
    }
}

/// Whether an update of the instance puts it right.
pub(super) fn is_in_place(drift: &MachineDrift) -> bool {
    let tags = drift.what == "tags" || drift.what.starts_with("tags.");
    drift.kind == DriftKind::InstanceChanged && (tags || drift.what == "securityGroups")
}

/// Whether it has been so since the machine was made.
pub(super) fn is_inborn(machine: &Machine, drift: &MachineDrift) -> bool {
    let made = machine.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| drift.since.0 <= made.0)
}

/// What a policy says of something of a machine: the first rule that fits, else what holds for all.
fn action(policy: &DriftPolicy, drift: &MachineDrift) -> DriftAction {
    let steps = steps(drift);
    let covers = |path: &String| {
        let path = path.trim_start_matches('.');
        (1..=steps.len()).any(|n| steps.get(..n).is_some_and(|s| s.join(".") == path))
    };
    // Nobody knows who changed it: a rule for certain managers fits none of it.
    let rule = policy.rules.iter().find(|rule| {
        let kind = rule.kinds.is_empty() || rule.kinds.iter().any(|kind| kind == "Machine");
        kind && rule.managers.is_empty() && (rule.paths.is_empty() || rule.paths.iter().any(covers))
    });
    rule.map_or_else(|| policy.policy.unwrap_or_default(), |rule| rule.policy)
}

/// The path that rules name it by. A dot in a key is no step.
fn steps(drift: &MachineDrift) -> Vec<&str> {
    let what = drift.what.as_str();
    match drift.kind {
        DriftKind::InstanceMissing => vec!["instance", "missing"],
        DriftKind::Kubelet => vec!["node", "kubelet"],
        DriftKind::Label => vec!["node", "labels", what],
        DriftKind::Taint => vec!["node", "taints", what],
        _ => match what.split_once('.') {
            Some((head, key)) => vec!["instance", head, key],
            None => vec!["instance", what],
        },
    }
}

#[cfg(test)]
mod tests;
