//! How a drain stands, in words, and when it looks again.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;

use super::{DrainPlan, PodKey, Warning};

/// What came of asking for one eviction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eviction {
    /// A budget forbids it for now (429).
    Budget {
        /// The budget's name and the disruptions that it allows, where its object could be read.
        budget: Option<(String, i32)>,
        /// The API server's words on it.
        cause: String,
    },
    /// Its namespace goes: what makes the pod again cannot (403 with cause NamespaceTerminating).
    NamespaceTerminating,
    /// Anything else; the API server's words.
    Failed(String),
    /// There was no time for it in this pass.
    NotAsked,
    /// It was accepted.
    Accepted,
    /// The pod was gone (404).
    Gone,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget {
                budget: Some((name, allowed)),
                cause,
            } => {
                write!(
                    f,
                    "protected by budget {name}, {allowed} disruptions allowed"
                )?;
                if cause.is_empty() {
                    return Ok(());
                }
                write!(f, " ({cause})")
            }
            Self::Budget { cause, .. } => write!(f, "protected by a budget ({cause})"),
            Self::NamespaceTerminating => {
                f.write_str("in a namespace that is being deleted, and goes with it")
            }
            Self::Failed(text) => write!(f, "not evicted: {text}"),
            Self::NotAsked => f.write_str("next to be evicted"),
            Self::Accepted => f.write_str("ending"),
            Self::Gone => f.write_str("gone"),
        }
    }
}

/// How a drain stands, in words for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainProgress {
    /// When it began.
    pub started: Timestamp,
    /// When it is given up.
    pub until: Timestamp,
    /// Whether the node's kubelet has stopped reporting.
    pub unreachable: bool,
    /// The plan that was acted on.
    pub plan: DrainPlan,
    /// What came of the evictions.
    pub evictions: BTreeMap<PodKey, Eviction>,
}

/// Shortest pause between two passes of a drain, in seconds.
const SHORTEST_PAUSE: i64 = 2;
/// Longest pause between two passes of a drain, in seconds: Cluster API's.
const LONGEST_PAUSE: i64 = 20;

/// Seconds until a drain looks again: half of the time that it has taken so far, from 2 to 20.
pub fn pause_seconds(started: Timestamp, now: Timestamp) -> u64 {
    let taken = now.duration_since(started).as_secs();
    let pause = (taken / 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    u64::try_from(pause).unwrap_or_default()
}

/// Pods named in one line, at most.
const PODS_A_LINE: usize = 3;
/// Different reasons named, at most.
const REASONS: usize = 5;

fn pods(keys: &[&PodKey]) -> String {
    let named: Vec<String> = keys
        .iter()
        .take(PODS_A_LINE)
        .map(ToString::to_string)
        .collect();
    let word = if keys.len() == 1 { "pod" } else { "pods" };
    let mut text = format!("{word} {}", named.join(", "));
    if keys.len() > PODS_A_LINE {
        text.push_str(&format!(", ... ({} more)", keys.len() - PODS_A_LINE));
    }
    text
}

fn are(keys: &[&PodKey]) -> &'static str {
    if keys.len() == 1 { "is" } else { "are" }
}

impl fmt::Display for DrainProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut reasons: BTreeMap<String, Vec<&PodKey>> = BTreeMap::new();
        let mut ending: Vec<&PodKey> = self.plan.terminating.iter().collect();
        let mut protected = false;
        for (key, eviction) in &self.evictions {
            match eviction {
                Eviction::Gone => {}
                Eviction::Accepted => ending.push(key),
                other => {
                    protected |= matches!(other, Eviction::Budget { .. });
                    reasons.entry(other.to_string()).or_default().push(key);
                }
            }
        }
        for (key, why) in &self.plan.undecided {
            let text = format!("undecided: {why}");
            reasons.entry(text).or_default().push(key);
        }
        for (reason, keys) in reasons.iter().take(REASONS) {
            parts.push(format!("{} {} {reason}", pods(keys), are(keys)));
        }
        if reasons.len() > REASONS {
            parts.push(format!("... ({} more reasons)", reasons.len() - REASONS));
        }
        if !ending.is_empty() {
            ending.sort();
            parts.push(format!("{} {} ending", pods(&ending), are(&ending)));
        }
        let mut warnings: BTreeMap<Warning, Vec<&PodKey>> = BTreeMap::new();
        for (key, warning) in &self.plan.warnings {
            warnings.entry(*warning).or_default().push(key);
        }
        for (warning, keys) in warnings {
            parts.push(format!("{}: {warning}", pods(&keys)));
        }
        let waiting: Vec<&PodKey> = self.plan.waiting.iter().collect();
        if !waiting.is_empty() {
            let text = format!(
                "{} {} to complete without eviction",
                pods(&waiting),
                are(&waiting)
            );
            parts.push(text);
        }
        let later: Vec<&PodKey> = self.plan.later.iter().collect();
        if !later.is_empty() {
            parts.push(format!("{} {} next after these", pods(&later), are(&later)));
        }
        if self.unreachable && protected {
            parts.push(format!(
                "the node's kubelet does not report: what its pods' budgets forbid is forced at {} with the instance",
                self.until
            ));
        }
        write!(
            f,
            "draining since {} (until {} at most)",
            self.started, self.until
        )?;
        if !parts.is_empty() {
            write!(f, ": {}", parts.join("; "))?;
        }
        Ok(())
    }
}
