//! Whether broken machines may be replaced: by their number, and by what they have in common.

use std::{collections::BTreeMap, fmt};

use fleetwright_api::{
    Machine, MachineHealthCheck,
    condition::reason,
    machine_health_check::{Breakdown, TriggerIf},
    meta,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    broken, has, is_broken,
    storm::{self, Storm},
    wide::WideStorm,
};
use crate::rollout::bounds::scaled;

/// Longest list in a status.
const MOST: usize = 100;

/// A machine of a check.
#[derive(Clone, Debug)]
pub struct Peer<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// Its MachineSet, or its Cluster when it is of the control plane.
    pub owner: String,
    /// Whether another machine in its place would be made of the same: one of a set of before is not a sign of anything.
    pub current: bool,
    /// What it may have in common with others, the most telling first.
    pub traits: Vec<String>,
    /// The storm over several clusters that it is in, where it is broken.
    pub storm: Option<WideStorm>,
}

/// Why broken machines are not replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// The check is paused.
    Paused,
    /// More are broken than `unhealthyLessThanOrEqualTo`.
    TooMany {
        /// Broken machines.
        unhealthy: usize,
        /// The limit in machines.
        limit: i32,
        /// The limit as it is written.
        written: String,
    },
    /// Their number is not in `unhealthyInRange`.
    OutOfRange {
        /// Broken machines.
        unhealthy: usize,
        /// The range as it is written.
        range: String,
    },
    /// The limit cannot be read.
    Unreadable(String),
    /// They have too much in common.
    Storm(Storm),
    /// They have too much in common with those of other clusters.
    Wide(WideStorm),
}

impl Block {
    /// Reason of condition `RemediationAllowed`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Paused => reason::PAUSED,
            Self::Storm(_) | Self::Wide(_) => reason::REMEDIATION_STORM,
            _ => reason::TOO_MANY_UNHEALTHY,
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("the health check is paused"),
            Self::TooMany {
                unhealthy,
                limit,
                written,
            } => write!(
                f,
                "{unhealthy} machines are broken, and unhealthyLessThanOrEqualTo is {written} ({limit})"
            ),
            Self::OutOfRange { unhealthy, range } => write!(
                f,
                "{unhealthy} machines are broken, and unhealthyInRange is {range}"
            ),
            Self::Unreadable(text) => write!(
                f,
                "triggerIf says {text:?}: write a number, a percentage such as \"40%\", or a range such as [1-3]"
            ),
            Self::Storm(storm) => storm.fmt(f),
            Self::Wide(storm) => storm.fmt(f),
        }
    }
}

/// All machines of a check in numbers, and whether the broken ones may be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Gate {
    /// Machines that are looked at.
    pub expected: usize,
    /// Names of those that are broken.
    pub unhealthy: Vec<String>,
    /// How many more may break before remediation stops.
    pub remediations_allowed: i32,
    /// What stops it now.
    pub block: Option<Block>,
    /// Broken machines that a storm over several clusters holds beside that.
    pub wide: BTreeMap<String, Block>,
    /// Machines that broke within the window of the storm breaker.
    pub recent: Vec<Breakdown>,
    /// When to look again though nothing happens: a breakdown is past the window, or a storm over.
    pub next: Option<Timestamp>,
}

impl Gate {
    /// Machines that are not broken; those that still start are among them.
    pub fn healthy(&self) -> usize {
        self.expected - self.unhealthy.len()
    }

    /// Why `machine` is not replaced. A storm does not hold one whose replacement somebody asked for.
    pub fn holds(&self, machine: &Machine) -> Option<&Block> {
        let asked = super::is_asked_for(machine);
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        let storms = self.wide.get(name);
        self.block
            .as_ref()
            .or(storms)
            .filter(|block| !(asked && matches!(block, Block::Storm(_) | Block::Wide(_))))
    }

    /// Why all broken machines or some of them are not replaced.
    pub fn stops(&self) -> Option<&Block> {
        self.block.as_ref().or_else(|| self.wide.values().next())
    }
}

/// The gate of `check` over all `peers` that it selects; without a check, of the defaults. What its status remembers of breakdowns
/// counts while `current` says that their owner still makes machines of the same.
pub fn gate(
    check: Option<&MachineHealthCheck>,
    peers: &[Peer<'_>],
    current: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Gate {
    let peers: Vec<&Peer<'_>> = peers
        .iter()
        .filter(|p| {
            let leaves = p.machine.metadata.deletion_timestamp.is_some();
            let apart =
                meta::is_paused(p.machine) || has(p.machine, meta::ANNOTATION_SKIP_REMEDIATION);
            // Broken ones count until they are gone.
            is_broken(p.machine) || !(leaves || apart)
        })
        .collect();
    let name = |m: &Machine| m.metadata.name.clone().unwrap_or_default();
    let mut unhealthy: Vec<String> = peers
        .iter()
        .filter(|p| is_broken(p.machine))
        .map(|p| name(p.machine))
        .collect();
    unhealthy.sort();
    let remediation = check.and_then(|c| c.spec.remediation.as_ref());
    let limits = storm::limits(remediation.and_then(|r| r.storm.as_ref()));
    let mut recent = Vec::new();
    if let Some((_, window)) = limits {
        let remembered = check.and_then(|c| c.status.as_ref());
        recent = remembered.map(|s| s.recent.clone()).unwrap_or_default();
        recent.retain(|b| !unhealthy.contains(&b.machine));
        recent.extend(peers.iter().filter_map(|p| breakdown(p)));
        let gone = |b: &Breakdown| {
            let there = peers.iter().find(|p| name(p.machine) == b.machine);
            // One that has recovered has not broken.
            there.is_some_and(|p| !is_broken(p.machine) || !p.current) || !current(&b.owner)
        };
        recent.retain(|b| storm::past(b, window) > now && !gone(b));
        recent.sort_by(|a, b| (&a.time, &a.machine).cmp(&(&b.time, &b.machine)));
        let excess = recent.len().saturating_sub(MOST);
        recent.drain(..excess);
    }
    let found = limits.and_then(|limits| storm::find(&recent, limits, now));
    let trigger = remediation.and_then(|r| r.trigger_if.as_ref());
    let (remediations_allowed, by_number) = by_number(trigger, peers.len(), unhealthy.len());
    let paused = check.is_some_and(meta::is_paused);
    let block = paused
        .then_some(Block::Paused)
        .or(by_number)
        .or_else(|| found.map(Block::Storm));
    // A check whose breaker is off asks for no other.
    let storms = peers
        .iter()
        .filter(|p| limits.is_some() && is_broken(p.machine));
    let wide: BTreeMap<String, Block> = storms
        .filter_map(|p| Some((name(p.machine), Block::Wide(p.storm.clone()?))))
        .collect();
    let passes = limits.and_then(|(_, window)| recent.iter().map(|b| storm::past(b, window)).min());
    let ends = wide.values().filter_map(|block| match block {
        Block::Wide(storm) => Some(storm.until),
        _ => None,
    });
    let next = ends.chain(passes).min();
    Gate {
        expected: peers.len(),
        unhealthy,
        remediations_allowed,
        block,
        wide,
        recent,
        next,
    }
}

fn breakdown(peer: &Peer<'_>) -> Option<Breakdown> {
    let marked = broken(peer.machine)?;
    // What somebody asked for is no failure.
    if marked.reason == reason::HAS_REMEDIATE_ANNOTATION {
        return None;
    }
    Some(Breakdown {
        machine: peer.machine.metadata.name.clone().unwrap_or_default(),
        owner: peer.owner.clone(),
        time: marked.last_transition_time.clone(),
        traits: peer.traits.clone(),
    })
}

/// How many more machines may break, and what stops remediation, by the number of broken machines alone.
pub(super) fn by_number(
    trigger: Option<&TriggerIf>,
    expected: usize,
    unhealthy: usize,
) -> (i32, Option<Block>) {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let left = |limit: i32| limit.saturating_sub(count(unhealthy)).max(0);
    if let Some(range) = trigger.and_then(|t| t.unhealthy_in_range.as_ref()) {
        let Some((low, high)) = parse_range(range) else {
            return (0, Some(Block::Unreadable(range.clone())));
        };
        let inside = (low..=high).contains(&count(unhealthy));
        let block = (!inside).then(|| Block::OutOfRange {
            unhealthy,
            range: range.clone(),
        });
        return (if inside { left(high) } else { 0 }, block);
    }
    let Some(limit) = trigger.and_then(|t| t.unhealthy_less_than_or_equal_to.as_ref()) else {
        return (left(count(expected)), None);
    };
    let written = match limit {
        IntOrString::Int(n) => n.to_string(),
        IntOrString::String(text) => text.clone(),
    };
    match scaled(limit, count(expected), false, "unhealthyLessThanOrEqualTo") {
        Err(error) => (0, Some(Block::Unreadable(error.text))),
        Ok(limit) if count(unhealthy) > limit => (
            0,
            Some(Block::TooMany {
                unhealthy,
                limit,
                written,
            }),
        ),
        Ok(limit) => (left(limit), None),
    }
}

/// `[a-b]`.
fn parse_range(text: &str) -> Option<(i32, i32)> {
    let (low, high) = text.strip_prefix('[')?.strip_suffix(']')?.split_once('-')?;
    Some((low.parse().ok()?, high.parse().ok()?))
}
