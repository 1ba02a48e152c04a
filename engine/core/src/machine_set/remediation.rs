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

use crate::{
    health::{is_asked_for, is_broken},
    rollout::bounds::scaled,
};

/// What the replacement of a set's broken machines depends on.
#[derive(Clone, Copy, Debug)]
pub struct RemediationView<'a> {
    /// The set.
    pub set: &'a MachineSet,
    /// All its machines, those on their way out included.
    pub machines: &'a [Machine],
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
    /// Machines that are deleted only once another is available.
    pub replace_first: &'a BTreeSet<String>,
}

/// Whether a pool may have a machine more than it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surge {
    /// Never: its maxSurge is 0.
    Never,
    /// Not now: a rollout uses the room.
    Taken,
    /// One more may be made.
    Room,
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
    /// Machines that the set has beyond those it wants, for one that goes once another is available.
    pub surge: usize,
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
    if meta::is_paused(view.set) || view.set.metadata.deletion_timestamp.is_some() {
        return out;
    }
    let alive: Vec<&Machine> = view
        .machines
        .iter()
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
    if !view.current {
        for machine in broken {
            out.say(
                name(machine),
                reason::CANNOT_BE_REMEDIATED,
                "its set is not the pool's current one: it goes with the rollout",
            );
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
    let want = usize::try_from(view.set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    // Too many for another reason: the scale-down takes the broken ones first.
    let scaling_down = alive.len() > want + 1 || (alive.len() > want && !any_first(view, &broken));
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
        } else if left == 0 {
            let text = format!(
                "{} broken machines of the pool are being replaced, and maxInFlight lets {limit} be",
                view.in_flight + out.delete.len()
            );
            out.say(this, reason::REMEDIATION_DEFERRED, text);
        } else if view.replace_first.contains(this) && view.surge != Surge::Never {
            if let Some(first) = first {
                let text = format!("machine {first} is replaced before this one");
                out.say(this, reason::REMEDIATION_DEFERRED, text);
                continue;
            }
            first = Some(this);
            if alive.len() > want {
                out.surge = 1;
                match alive.iter().find(|m| !is_broken(m) && !is_available(m)) {
                    Some(starts) => {
                        let text = format!("it goes once machine {} is available", name(starts));
                        out.say(this, reason::REMEDIATION_DEFERRED, text);
                    }
                    None => {
                        left -= 1;
                        out.surge = 0;
                        go(&mut out, this);
                    }
                }
            } else if view.surge == Surge::Room {
                out.surge = 1;
                let text = "another machine is made first";
                out.say(this, reason::REMEDIATION_DEFERRED, text);
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

fn any_first(view: &RemediationView<'_>, broken: &[&Machine]) -> bool {
    broken.iter().any(|m| view.replace_first.contains(name(m)))
}

fn name(machine: &Machine) -> &str {
    machine.metadata.name.as_deref().unwrap_or_default()
}

fn is_available(machine: &Machine) -> bool {
    let status = machine.status.as_ref();
    status.is_some_and(|s| condition::is_true(&s.conditions, kind::AVAILABLE))
}
