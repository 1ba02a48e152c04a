//! When a machine is broken, and whether its owner may replace it.
//!
//! [`judge`] looks at one machine, [`gate`] at all machines of a check, [`Tally`] at those of all clusters. A broken machine is always marked; the gate holds back the
//! replacement alone. Nothing is concluded from what could not be seen: a cluster or a provider that does not answer breaks nothing.

mod flapping;
mod gate;
mod storm;
#[cfg(test)]
mod tests;
mod wide;

use std::fmt;

use fleetwright_api::{
    Machine, MachineHealthCheck, condition,
    condition::{kind, reason},
    machine::BadCondition,
    machine_health_check::{DEFAULT_NODE_STARTUP_TIMEOUT_SECONDS, UnhealthyCondition},
    meta,
};
use jiff::Timestamp;

pub use self::{
    gate::{Block, Gate, Peer, gate},
    storm::Storm,
    wide::{Sight, Tally, WideStorm},
};
use crate::{cluster::is_control_plane, machine::Instance};

/// A condition of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCondition {
    /// Its type.
    pub kind: String,
    /// Its status.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its last transition.
    pub since: Timestamp,
}

/// What is seen of a machine's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSight<'a> {
    /// The workload cluster could not be asked.
    Unknown,
    /// It is not there.
    Missing,
    /// It is, with these conditions.
    There(&'a [NodeCondition]),
}

/// What a machine's health depends on.
#[derive(Clone, Copy, Debug)]
pub struct HealthFacts<'a> {
    /// The instance. `Missing` must be certain here.
    pub instance: &'a Instance,
    /// The node.
    pub node: NodeSight<'a>,
    /// When the cluster's first API server served; `None` before that.
    pub initialized_at: Option<Timestamp>,
    /// Since when the cluster is seen again after it could not be reached: no time-out counts what was before.
    pub seen_since: Option<Timestamp>,
    /// Why its Fleet wants another machine in its place though it works, in words.
    pub drifted: Option<&'a str>,
    /// Whether all that may have drifted was seen.
    pub seen_whole: bool,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// No check looks at it, or it is to be left alone.
    NotChecked,
    /// Nobody can say now: what was said before stays.
    Unknown,
    /// Nothing is wrong with it.
    Healthy,
    /// Its node has not appeared, and has time still.
    Starting {
        /// Seconds after which to look again; `None` when something else must happen first.
        next_check: Option<i64>,
    },
    /// Something is wrong, but not for long enough.
    Suspect {
        /// Seconds after which to look again.
        next_check: i64,
    },
    /// It is broken.
    Broken {
        /// Reason of condition `HealthCheckSucceeded`.
        reason: &'static str,
        /// The same in words; it does not change while the reason lasts.
        message: String,
    },
}

impl Verdict {
    /// Seconds after which to look again though nothing happens.
    pub fn next_check(&self) -> Option<i64> {
        match self {
            Self::Starting { next_check } => *next_check,
            Self::Suspect { next_check } => Some(*next_check),
            _ => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::NotChecked => 0,
            Self::Healthy => 1,
            Self::Unknown => 2,
            Self::Starting { .. } => 3,
            Self::Suspect { .. } => 4,
            Self::Broken { .. } => 5,
        }
    }

    /// The worse of two; of two that wait, with the earlier look.
    fn and(self, other: Self) -> Self {
        let next = self
            .next_check()
            .into_iter()
            .chain(other.next_check())
            .min();
        let mut worse = if other.rank() > self.rank() {
            other
        } else {
            self
        };
        match &mut worse {
            Self::Starting { next_check } => *next_check = next,
            Self::Suspect { next_check } => *next_check = next.unwrap_or(*next_check),
            _ => {}
        }
        worse
    }
}

/// How a machine is, and what is to be remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Judgement {
    /// How it is.
    pub verdict: Verdict,
    /// How long conditions of its node have been bad, for its status.
    pub bad_conditions: Vec<BadCondition>,
}

/// Seconds, in the largest unit that divides them.
pub(crate) struct Seconds(pub(crate) i64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s != 0 && s % 3600 == 0 => write!(f, "{} h", s / 3600),
            s if s != 0 && s % 60 == 0 => write!(f, "{} m", s / 60),
            s => write!(f, "{s} s"),
        }
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs().max(0)
}

/// Whether a machine is marked as broken.
pub fn is_broken(machine: &Machine) -> bool {
    broken(machine).is_some()
}

/// The condition that marks a machine as broken.
pub fn broken(machine: &Machine) -> Option<&condition::Condition> {
    let list = &machine.status.as_ref()?.conditions;
    condition::get(list, kind::HEALTH_CHECK_SUCCEEDED).filter(|c| c.status == "False")
}

/// Whether a machine is marked because it does not work: one that drifted serves as well as it ever did.
pub fn is_failing(machine: &Machine) -> bool {
    broken(machine).is_some_and(|c| c.reason != reason::DRIFTED)
}

fn is_drifted(machine: &Machine) -> bool {
    broken(machine).is_some_and(|c| c.reason == reason::DRIFTED)
}

/// Why a machine that drifted is not replaced, whatever else lets it go: nobody can tell whether it still differs.
pub fn unseen(machine: &Machine) -> Option<&'static str> {
    let conditions = machine.status.as_ref().map(|s| s.conditions.as_slice());
    let differs = condition::is_false(conditions.unwrap_or_default(), kind::IN_SYNC);
    (is_drifted(machine) && !differs).then_some(
        "its provider or its cluster cannot be read: nothing is replaced that cannot be seen",
    )
}

/// Whether somebody asked for the machine's replacement.
pub fn is_asked_for(machine: &Machine) -> bool {
    has(machine, meta::ANNOTATION_REMEDIATE_MACHINE)
}

fn has(machine: &Machine, annotation: &str) -> bool {
    let all = machine.metadata.annotations.as_ref();
    all.is_some_and(|a| a.contains_key(annotation))
}

/// How `machine` is by all `checks` that select it. A vanished or failed instance breaks it without any check, and so does drift that
/// its Fleet wants to be corrected.
pub fn judge(
    machine: &Machine,
    facts: &HealthFacts<'_>,
    checks: &[&MachineHealthCheck],
    now: Timestamp,
) -> Judgement {
    let status = machine.status.as_ref();
    let old = status.map_or(&[][..], |s| &s.bad_conditions);
    let keep = |verdict| Judgement {
        verdict,
        bad_conditions: old.to_vec(),
    };
    if machine.metadata.deletion_timestamp.is_some() || meta::is_paused(machine) {
        return keep(Verdict::Unknown);
    }
    if has(machine, meta::ANNOTATION_SKIP_REMEDIATION) {
        return Judgement {
            verdict: Verdict::NotChecked,
            bad_conditions: Vec::new(),
        };
    }
    let bad_conditions = match facts.node {
        _ if checks.is_empty() => Vec::new(),
        NodeSight::There(conditions) => {
            let judged = status.is_some_and(|s| {
                condition::get(&s.conditions, kind::HEALTH_CHECK_SUCCEEDED).is_some()
            });
            flapping::follow(old, conditions, &watched(checks), judged, now)
        }
        _ => old.to_vec(),
    };
    let look = Look {
        machine,
        facts,
        bad: &bad_conditions,
        now,
    };
    let verdict = look.without_check().unwrap_or_else(|| {
        checks
            .iter()
            .map(|check| look.by(check))
            .fold(Verdict::NotChecked, Verdict::and)
    });
    // What does not work is broken for that reason alone.
    let verdict = match (verdict, facts.drifted) {
        (broken @ Verdict::Broken { .. }, _) => broken,
        (_, Some(why)) => broken_because(reason::DRIFTED, why),
        (other, None) if !is_drifted(machine) => other,
        // It stays marked while nobody can tell, and no longer, whatever a check cannot tell.
        _ if !facts.seen_whole => Verdict::Unknown,
        (Verdict::Unknown, None) => Verdict::NotChecked,
        (other, None) => other,
    };
    Judgement {
        verdict,
        bad_conditions,
    }
}

/// The node conditions that checks look at.
fn watched<'a>(checks: &[&'a MachineHealthCheck]) -> Vec<&'a UnhealthyCondition> {
    checks
        .iter()
        .filter(|check| !meta::is_paused(**check))
        .filter_map(|check| check.spec.checks.as_ref())
        .flat_map(|checks| &checks.unhealthy_node_conditions)
        .collect()
}

struct Look<'a> {
    machine: &'a Machine,
    facts: &'a HealthFacts<'a>,
    bad: &'a [BadCondition],
    now: Timestamp,
}

fn of_instance(marked: &condition::Condition) -> bool {
    [reason::INSTANCE_LOST, reason::INSTANCE_FAILED].contains(&marked.reason.as_str())
}

fn broken_because(reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict::Broken {
        reason,
        message: message.into(),
    }
}

impl Look<'_> {
    /// What breaks a machine whether or not a check looks at it.
    fn without_check(&self) -> Option<Verdict> {
        let was_there = self.machine.spec.provider_id.is_some();
        match self.facts.instance {
            _ if is_asked_for(self.machine) => Some(broken_because(
                reason::HAS_REMEDIATE_ANNOTATION,
                format!(
                    "somebody asked for its replacement (annotation {})",
                    meta::ANNOTATION_REMEDIATE_MACHINE
                ),
            )),
            Instance::Missing if was_there => Some(broken_because(
                reason::INSTANCE_LOST,
                "the instance is gone and was not deleted by us",
            )),
            // What was certain once stays while the provider cannot be asked.
            Instance::Unknown if broken(self.machine).is_some_and(of_instance) => {
                Some(Verdict::Unknown)
            }
            Instance::Failed => Some(broken_because(
                reason::INSTANCE_FAILED,
                "the provider gives the instance up",
            )),
            _ => None,
        }
    }

    fn by(&self, check: &MachineHealthCheck) -> Verdict {
        if meta::is_paused(check) {
            return Verdict::Unknown;
        }
        let initialized = self.facts.initialized_at.is_some();
        if !initialized && !is_control_plane(self.machine) {
            return Verdict::Starting { next_check: None };
        }
        let checks = check.spec.checks.clone().unwrap_or_default();
        let mut verdict = Verdict::NotChecked;
        for wanted in &checks.unhealthy_machine_conditions {
            verdict = verdict.and(self.machine_condition(wanted));
        }
        let node = self
            .machine
            .status
            .as_ref()
            .and_then(|s| s.node_ref.as_ref());
        verdict.and(match (self.facts.node, node) {
            (NodeSight::There(conditions), _) => checks
                .unhealthy_node_conditions
                .iter()
                .map(|wanted| self.node_condition(wanted, conditions))
                .fold(Verdict::Healthy, Verdict::and),
            (NodeSight::Missing, Some(node)) => broken_because(
                reason::NODE_DELETED,
                format!("node {} has been deleted", node.name),
            ),
            // Before the first API server has served there is no cluster that could be asked, and no node.
            (NodeSight::Missing, None) => self.startup(checks.node_startup_timeout_seconds),
            (NodeSight::Unknown, None) if !initialized => {
                self.startup(checks.node_startup_timeout_seconds)
            }
            (NodeSight::Unknown, _) => Verdict::Unknown,
        })
    }

    fn machine_condition(&self, wanted: &UnhealthyCondition) -> Verdict {
        let status = self.machine.status.as_ref();
        let found = status
            .and_then(|s| condition::get(&s.conditions, &wanted.kind))
            .filter(|c| c.status == wanted.status);
        let Some(found) = found else {
            return Verdict::Healthy;
        };
        let elapsed = seconds_between(found.last_transition_time.0, self.now);
        let timeout = i64::from(wanted.timeout_seconds);
        if elapsed <= timeout {
            return Verdict::Suspect {
                next_check: timeout - elapsed + 1,
            };
        }
        broken_because(
            reason::UNHEALTHY_MACHINE,
            format!(
                "condition {} of the Machine has been {} ({}) for more than {}",
                wanted.kind,
                wanted.status,
                found.reason,
                Seconds(timeout)
            ),
        )
    }

    fn node_condition(&self, wanted: &UnhealthyCondition, all: &[NodeCondition]) -> Verdict {
        let found = all
            .iter()
            .find(|c| c.kind == wanted.kind && c.status == wanted.status);
        let Some(found) = found else {
            return Verdict::Healthy;
        };
        let seen = |since: Timestamp| self.facts.seen_since.map_or(since, |seen| since.max(seen));
        let lasts = seconds_between(seen(found.since), self.now);
        let added_up = self
            .bad
            .iter()
            .find(|b| b.kind == wanted.kind && b.bad)
            .map_or(0, |b| {
                b.seconds + seconds_between(seen(b.since.0), self.now)
            });
        let timeout = i64::from(wanted.timeout_seconds);
        let longest = lasts.max(added_up);
        if longest <= timeout {
            return Verdict::Suspect {
                next_check: timeout - longest + 1,
            };
        }
        let text = if lasts > timeout {
            format!(
                "condition {} of the node has been {} ({}) for more than {}",
                wanted.kind,
                wanted.status,
                found.reason,
                Seconds(timeout)
            )
        } else {
            format!(
                "condition {} of the node comes and goes: it has been bad for more than {} in all",
                wanted.kind,
                Seconds(timeout)
            )
        };
        broken_because(reason::UNHEALTHY_NODE, text)
    }

    /// The node has not appeared. The time-out counts from the latest of what must come first; an instance that was never made
    /// (a quota is full, an account is missing) is not late: another machine would not get one either.
    fn startup(&self, timeout: Option<i32>) -> Verdict {
        let timeout = i64::from(timeout.unwrap_or(DEFAULT_NODE_STARTUP_TIMEOUT_SECONDS));
        let made = match self.facts.instance {
            Instance::Unknown | Instance::Missing => self.machine.spec.provider_id.is_some(),
            _ => true,
        };
        if timeout == 0 || !made {
            return Verdict::Starting { next_check: None };
        }
        let created = self.machine.metadata.creation_timestamp.as_ref();
        let runs = self.machine.status.as_ref().and_then(|s| {
            condition::get(&s.conditions, kind::INFRASTRUCTURE_READY)
                .filter(|c| c.status == "True")
                .map(|c| c.last_transition_time.0)
        });
        let since = [
            created.map(|t| t.0),
            runs,
            self.facts.initialized_at,
            self.facts.seen_since,
        ];
        let since = since.into_iter().flatten().max().unwrap_or(self.now);
        let elapsed = seconds_between(since, self.now);
        if elapsed <= timeout {
            return Verdict::Starting {
                next_check: Some(timeout - elapsed + 1),
            };
        }
        broken_because(
            reason::NODE_STARTUP_TIMEOUT,
            format!("no node appeared within {}", Seconds(timeout)),
        )
    }
}
