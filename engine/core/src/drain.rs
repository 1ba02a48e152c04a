//! Which pods of a node are to be evicted, which are waited for, which stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};

#[cfg(test)]
mod tests;

/// Pod label: `skip` leaves the pod alone, `wait-completed` waits for it to end by itself.
pub const LABEL_DRAIN: &str = "fleetwright.dev/drain";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PodKey {
    fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a pod stays on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// A DaemonSet's: it would come back.
    DaemonSet,
    /// A static pod's mirror: it cannot be evicted.
    Mirror,
    /// Its label says so.
    Label,
    /// It is to end by itself, and has.
    Completed,
    /// It was deleted long ago on a node that no longer answers.
    Unreachable,
}

/// A remark on a pod that is evicted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Nothing will make it again.
    NoController,
    /// Its DaemonSet is gone.
    DaemonSetGone,
    /// It loses its emptyDir volumes.
    EmptyDir,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoController => "evicting a pod that has no controller",
            Self::DaemonSetGone => "evicting a pod whose DaemonSet is gone",
            Self::EmptyDir => "evicting a pod with emptyDir volumes",
        })
    }
}

/// What is done with the pods of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DrainPlan {
    /// To be evicted now.
    pub evict: Vec<PodKey>,
    /// Evicted already, still ending.
    pub terminating: Vec<PodKey>,
    /// Not evicted: they end by themselves.
    pub waiting: Vec<PodKey>,
    /// Left alone.
    pub skipped: Vec<(PodKey, SkipReason)>,
    /// Remarks on pods that are evicted.
    pub warnings: Vec<(PodKey, Warning)>,
}

impl DrainPlan {
    /// Whether nothing is left to go.
    pub fn is_done(&self) -> bool {
        self.evict.is_empty() && self.terminating.is_empty() && self.waiting.is_empty()
    }

    /// Pods that are still to go.
    pub fn remaining(&self) -> usize {
        self.evict.len() + self.terminating.len() + self.waiting.len()
    }
}

/// What is known besides the pods.
#[derive(Clone, Debug, Default)]
pub struct DrainFacts {
    /// DaemonSets that exist, by namespace and name.
    pub daemon_sets: BTreeSet<PodKey>,
    /// Whether the node's kubelet has stopped reporting: pods that were deleted more than a second ago are not waited for.
    pub unreachable: bool,
}

/// Sorts the pods of a node, in the order of their names.
pub fn classify(pods: &[Pod], facts: &DrainFacts, now: Timestamp) -> DrainPlan {
    let mut plan = DrainPlan::default();
    let mut sorted: Vec<(PodKey, &Pod)> = pods.iter().map(|p| (PodKey::of(p), p)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, pod) in sorted {
        match verdict(pod, facts, now) {
            Verdict::Skip(reason) => plan.skipped.push((key, reason)),
            Verdict::WaitCompleted => plan.waiting.push(key),
            Verdict::Drain(_) if pod.metadata.deletion_timestamp.is_some() => {
                plan.terminating.push(key);
            }
            Verdict::Drain(warnings) => {
                plan.warnings
                    .extend(warnings.into_iter().map(|w| (key.clone(), w)));
                plan.evict.push(key);
            }
        }
    }
    plan
}

enum Verdict {
    Drain(Vec<Warning>),
    WaitCompleted,
    Skip(SkipReason),
}

fn verdict(pod: &Pod, facts: &DrainFacts, now: Timestamp) -> Verdict {
    let meta = &pod.metadata;
    if facts.unreachable
        && meta
            .deletion_timestamp
            .as_ref()
            .is_some_and(|t| now.duration_since(t.0).as_secs() > 1)
    {
        return Verdict::Skip(SkipReason::Unreachable);
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let finished = matches!(phase, Some("Succeeded" | "Failed"));
    let mut warnings = Vec::new();
    let controller = controller(pod);
    if let Some(owner) = controller.filter(|o| o.kind == "DaemonSet")
        && !finished
    {
        let set = PodKey {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: owner.name.clone(),
        };
        if facts.daemon_sets.contains(&set) {
            return Verdict::Skip(SkipReason::DaemonSet);
        }
        warnings.push(Warning::DaemonSetGone);
    }
    if meta
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key(MIRROR))
    {
        return Verdict::Skip(SkipReason::Mirror);
    }
    let label = meta.labels.as_ref().and_then(|l| l.get(LABEL_DRAIN));
    match label.map(|l| l.to_ascii_lowercase()).as_deref() {
        Some("skip") => return Verdict::Skip(SkipReason::Label),
        Some("wait-completed") if finished => return Verdict::Skip(SkipReason::Completed),
        Some("wait-completed") => return Verdict::WaitCompleted,
        _ => {}
    }
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
    if !finished && volumes.into_iter().flatten().any(|v| v.empty_dir.is_some()) {
        warnings.push(Warning::EmptyDir);
    }
    if !finished && controller.is_none() {
        warnings.push(Warning::NoController);
    }
    Verdict::Drain(warnings)
}

fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.metadata
        .owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true))
}

/// What came of asking for one eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// It was accepted.
    Accepted,
    /// The pod was gone.
    Gone,
    /// A budget forbids it for now (429); the API server's words.
    Budget(String),
    /// Anything else; the API server's words.
    Failed(String),
}

/// How a drain stands, in words for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainProgress {
    /// When it began.
    pub started: Option<Timestamp>,
    /// The plan that was acted on.
    pub plan: DrainPlan,
    /// What came of the evictions.
    pub evictions: BTreeMap<PodKey, Eviction>,
}

impl DrainProgress {
    /// Pods that a budget protects.
    pub fn protected(&self) -> impl Iterator<Item = (&PodKey, &str)> {
        self.evictions.iter().filter_map(|(key, e)| match e {
            Eviction::Budget(text) => Some((key, text.as_str())),
            _ => None,
        })
    }
}

/// Pods named in one sentence, at most.
const NAMED: usize = 3;

impl fmt::Display for DrainProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let names = |keys: &[&PodKey]| {
            let mut text = keys
                .iter()
                .take(NAMED)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            if keys.len() > NAMED {
                text.push_str(&format!(" and {} more", keys.len() - NAMED));
            }
            text
        };
        for (key, text) in self.protected().take(NAMED) {
            parts.push(format!("pod {key} is protected by a budget ({text})"));
        }
        let failed = self.evictions.iter().filter_map(|(key, e)| match e {
            Eviction::Failed(text) => Some((key, text)),
            _ => None,
        });
        for (key, text) in failed.take(NAMED) {
            parts.push(format!("pod {key} could not be evicted ({text})"));
        }
        let accepted: Vec<&PodKey> = self
            .evictions
            .iter()
            .filter(|(_, e)| **e == Eviction::Accepted)
            .map(|(k, _)| k)
            .collect();
        let ending: Vec<&PodKey> = self.plan.terminating.iter().chain(accepted).collect();
        if !ending.is_empty() {
            parts.push(format!("still ending: {}", names(&ending)));
        }
        let waiting: Vec<&PodKey> = self.plan.waiting.iter().collect();
        if !waiting.is_empty() {
            parts.push(format!("waiting for completion of {}", names(&waiting)));
        }
        f.write_str("draining")?;
        if let Some(started) = self.started {
            write!(f, " since {started}")?;
        }
        if !parts.is_empty() {
            write!(f, ": {}", parts.join("; "))?;
        }
        Ok(())
    }
}
