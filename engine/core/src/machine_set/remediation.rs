//! Which broken machines of a set are replaced now, and what is said of the others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use fleetwright_api::{
    Machine, MachineSet, condition,
    condition::{kind, reason},
    meta,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::PreflightFailure;
use crate::{
    health::{is_asked_for, is_broken},
    rollout::{Bounds, bounds::scaled},
};

/// What the replacement of a set's broken machines depends on.
#[derive(Clone, Copy, Debug)]
pub struct RemediationView<'a> {
    /// The set.
    pub set: &'a MachineSet,
    /// All its machines, those on their way out included.
    pub machines: &'a [&'a Machine],
    /// Whether it is the set of its pool's current revision (or has no pool).
    pub current: bool,
    /// Replicas of its pool.
    pub replicas: i32,
    /// `remediation.maxInFlight` of its pool.
    pub max_in_flight: Option<&'a IntOrString>,
    /// Machines of the pool that are on their way out because they are broken.
    pub in_flight: usize,
    /// Whether the pool may ever have a machine more than it wants, and whether it may now.
    pub surge: Surge,
    /// Machines that are not replaced for now, with the reason in words.
    pub held: &'a BTreeMap<String, String>,
    /// The checks that the set makes no machine before they pass ([`super::preflight`]): a broken machine goes only where another may
    /// come.
    pub preflight: &'a [PreflightFailure],
    /// Machines that are deleted only once another is available.
    pub replace_first: &'a BTreeSet<String>,
}

/// Whether a pool may have a machine more than it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surge {
    /// Never: its maxSurge is 0.
    Never,
    /// Not before a rollout gives room: it may wait for this very set's machines.
    Taken,
    /// Not now: machines on their way out still use the room.
    Full,
    /// One more may be made.
    Room,
}

impl Surge {
    /// Of a pool with these bounds; of each of its sets how many machines it has, those on their way out included, and how many it
    /// wants. Rollouts use the same room.
    pub fn of(bounds: &Bounds, sets: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let sizes = sets.into_iter().map(|(has, wants)| has.max(wants));
        let sizes: Vec<usize> = sizes.filter(|size| *size > 0).collect();
        match usize::try_from(bounds.max_total()) {
            _ if bounds.surge == 0 => Self::Never,
            Ok(most) if sizes.iter().sum::<usize>() < most => Self::Room,
            _ if sizes.len() > 1 => Self::Taken,
            _ => Self::Full,
        }
    }
}

/// What is said of a broken machine: condition `OwnerRemediated`, which is False.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The machine.
    pub machine: String,
    /// Reason of the condition.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
}

/// What is done about a set's broken machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Remediation {
    /// Machines to be deleted; the set makes others.
    pub delete: Vec<String>,
    /// Machines beyond those it wants that the set is to have for now: another that is made before one goes, or the one itself that
    /// goes, so that no other is chosen in its place.
    pub extra: usize,
    /// What is said of each broken machine.
    pub say: Vec<Said>,
}

impl Remediation {
    fn say(&mut self, machine: &str, reason: &'static str, message: impl Into<String>) {
        self.say.push(Said {
            machine: machine.to_owned(),
            reason,
            message: message.into(),
        });
    }
}

/// What is done about the broken machines: those that somebody asked for first, then the newest, as many as may be in flight.
pub fn remediate(view: &RemediationView<'_>) -> Remediation {
    let mut out = Remediation::default();
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("end-no-remediation") {
        return out;
    }
    if meta::is_paused(view.set) || view.set.metadata.deletion_timestamp.is_some() {
        return out;
    }
    let alive: Vec<&Machine> = view
        .machines
        .iter()
        .copied()
        .filter(|m| m.metadata.deletion_timestamp.is_none())
        .collect();
    let mut broken: Vec<&Machine> = alive
        .iter()
        .copied()
        .filter(|m| is_broken(m) && !meta::is_paused(*m))
        .collect();
    broken.sort_by_key(|m| {
        let created = m.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (!is_asked_for(m), Reverse(created), Reverse(name(m)))
    });
    let want = usize::try_from(view.set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !view.current {
        // Of what it has too many the machine goes that another came for before the rollout began, not one that somebody marked.
        let outgoing = broken
            .iter()
            .find(|m| alive.len() > want && !is_available(m))
            .map(|m| name(m));
        for machine in broken {
            let this = name(machine);
            if outgoing != Some(this) {
                out.say(
                    this,
                    reason::CANNOT_BE_REMEDIATED,
                    "its set is not the pool's current one: it goes with the rollout",
                );
                continue;
            }
            // What holds a replacement back does not hold this: nothing comes in its place.
            out.extra = alive.len() - want;
            go(&mut out, this);
        }
        return out;
    }
    let limit = view
        .max_in_flight
        .map(|max| scaled(max, view.replicas, true, "spec.remediation.maxInFlight"));
    let limit = match limit {
        None => usize::MAX,
        Some(Ok(limit)) => usize::try_from(limit).unwrap_or(0),
        Some(Err(_)) => 0,
    };
    let mut left = limit.saturating_sub(view.in_flight);
    let is_first = |m: &str| view.replace_first.contains(m) && view.surge != Surge::Never;
    // Too many for another reason: the scale-down takes the broken ones first.
    let any_first = broken.iter().any(|m| is_first(name(m)));
    let scaling_down = alive.len() > want + 1 || (alive.len() > want && !any_first);
    let mut first: Option<&str> = None;
    for machine in broken {
        let this = name(machine);
        if let Some(why) = view.held.get(this) {
            out.say(this, reason::REMEDIATION_DEFERRED, why);
        } else if scaling_down {
            out.say(
                this,
                reason::REMEDIATION_DEFERRED,
                "the set has more machines than it wants: broken ones go first",
            );
        } else if !view.preflight.is_empty() && (!is_first(this) || alive.len() <= want) {
            let checks: Vec<String> = view.preflight.iter().map(ToString::to_string).collect();
            let text = format!("no machine could take its place: {}", checks.join("; "));
            out.say(this, reason::REMEDIATION_DEFERRED, text);
        } else if left == 0 {
            let text = format!(
                "{} broken machines of the pool are being replaced, and maxInFlight lets {limit} be",
                view.in_flight + out.delete.len()
            );
            out.say(this, reason::REMEDIATION_DEFERRED, text);
        } else if is_first(this) {
            if let Some(first) = first {
                let text = format!("machine {first} is replaced before this one");
                out.say(this, reason::REMEDIATION_DEFERRED, text);
                continue;
            }
            first = Some(this);
            if alive.len() > want {
                out.extra = 1;
                match alive.iter().find(|m| !is_broken(m) && !is_available(m)) {
                    Some(starts) => {
                        let text = format!("it goes once machine {} is available", name(starts));
                        out.say(this, reason::REMEDIATION_DEFERRED, text);
                    }
                    None => {
                        // It is the one that goes: the set must not choose another because it has one more than it wants.
                        left -= 1;
                        go(&mut out, this);
                    }
                }
            } else if view.surge == Surge::Room {
                out.extra = 1;
                let text = "another machine is made first";
                out.say(this, reason::REMEDIATION_DEFERRED, text);
            } else if view.surge == Surge::Taken && !is_available(machine) {
                // The rollout takes no old machine away before the new ones are available: who waits for room waits for ever.
                left -= 1;
                go(&mut out, this);
            } else {
                let text = "another machine is made first, once the pool may have one more";
                out.say(this, reason::REMEDIATION_DEFERRED, text);
            }
        } else {
            left -= 1;
            go(&mut out, this);
        }
    }
    out
}

fn go(out: &mut Remediation, machine: &str) {
    out.delete.push(machine.to_owned());
    let text = "the machine is deleted because it is broken";
    out.say(machine, reason::MACHINE_DELETING, text);
}

fn name(machine: &Machine) -> &str {
    machine.metadata.name.as_deref().unwrap_or_default()
}

fn is_available(machine: &Machine) -> bool {
    let status = machine.status.as_ref();
    status.is_some_and(|s| condition::is_true(&s.conditions, kind::AVAILABLE))
}

#[cfg(test)]
mod tests;
