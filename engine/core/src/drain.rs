//! Which pods of a node are evicted, in which order, which are waited for, and which stay.

mod message;
mod rules;
#[cfg(test)]
mod tests;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fleetwright_api::{machine_drain_rule::DrainBehavior, meta::POD_LABEL_DRAIN};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};

pub use self::{
    message::{DrainProgress, Eviction, pause_seconds},
    rules::{PodRule, rules_of},
    volumes::{AttachedVolumes, attached},
};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod (or what else has a namespace), by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PodKey {
    /// Of this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Of a pod.
    pub fn of(pod: &Pod) -> Self {
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
    /// A MachineDrainRule says so.
    Rule,
    /// It is to end by itself, and has.
    Completed,
    /// It was deleted long ago on a node that no longer answers.
    Unreachable,
}

impl SkipReason {
    /// Whether the pod goes on running, and so its volumes stay attached.
    pub fn stays(self) -> bool {
        matches!(
            self,
            Self::DaemonSet | Self::Mirror | Self::Label | Self::Rule
        )
    }
}

/// A remark on a pod that is evicted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
            Self::NoController => "no controller makes it again",
            Self::DaemonSetGone => "its DaemonSet is gone",
            Self::EmptyDir => "what is in emptyDir volumes is lost",
        })
    }
}

/// What is done with the pods of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DrainPlan {
    /// To be evicted now: those of the lowest order.
    pub evict: Vec<PodKey>,
    /// Evicted already, still ending.
    pub terminating: Vec<PodKey>,
    /// Not evicted: they end by themselves.
    pub waiting: Vec<PodKey>,
    /// Those of a higher order: their turn comes when all of the above are gone.
    pub later: Vec<PodKey>,
    /// Left alone.
    pub skipped: Vec<(PodKey, SkipReason)>,
    /// What cannot be decided, with the reason: the drain does not end before it can.
    pub undecided: BTreeMap<PodKey, String>,
    /// Remarks on pods that are evicted.
    pub warnings: Vec<(PodKey, Warning)>,
}

impl DrainPlan {
    /// Whether nothing is left to go.
    pub fn is_done(&self) -> bool {
        self.remaining() == 0
    }

    /// Pods that are still to go.
    pub fn remaining(&self) -> usize {
        #[cfg(feature = "seeded-bugs")]
        if fleetwright_api::bugs::on("i6-drain-ends-early") {
            return self.evict.len() + self.undecided.len();
        }
        self.evict.len()
            + self.terminating.len()
            + self.waiting.len()
            + self.later.len()
            + self.undecided.len()
    }
}

/// What is known besides the pods.
#[derive(Clone, Debug, Default)]
pub struct DrainFacts {
    /// DaemonSets that exist, by namespace and name.
    pub daemon_sets: BTreeSet<PodKey>,
    /// Whether the node's kubelet has stopped reporting: pods that were deleted more than a second ago are not waited for.
    pub unreachable: bool,
    /// The rules that hold for the machine, from [`rules_of`].
    pub rules: Vec<PodRule>,
    /// Labels of the namespaces that there are; looked at only where a rule asks for them.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

/// Sorts the pods of a node, in the order of their names.
pub fn classify(pods: &[Pod], facts: &DrainFacts, now: Timestamp) -> DrainPlan {
    let mut plan = DrainPlan::default();
    let mut sorted: Vec<(PodKey, &Pod)> = pods.iter().map(|p| (PodKey::of(p), p)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut going = Vec::new();
    for (key, pod) in sorted {
        match verdict(pod, facts, now) {
            Ok(Verdict::Skip(reason)) => plan.skipped.push((key, reason)),
            Ok(Verdict::WaitCompleted) => going.push((0, key, None)),
            Ok(Verdict::Drain(order, warnings)) => going.push((order, key, Some((pod, warnings)))),
            Err(why) => {
                plan.undecided.insert(key, why);
            }
        }
    }
    let lowest = going.iter().map(|(order, ..)| *order).min();
    for (order, key, evicted) in going {
        match evicted {
            _ if Some(order) != lowest => plan.later.push(key),
            None => plan.waiting.push(key),
            Some((pod, _)) if pod.metadata.deletion_timestamp.is_some() => {
                plan.terminating.push(key);
            }
            Some((_, warnings)) => {
                plan.warnings
                    .extend(warnings.into_iter().map(|w| (key.clone(), w)));
                plan.evict.push(key);
            }
        }
    }
    plan
}

enum Verdict {
    Drain(i32, Vec<Warning>),
    WaitCompleted,
    Skip(SkipReason),
}

/// Whether a pod has run to its end.
fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The filters of a drain, in Cluster API's order.
fn verdict(pod: &Pod, facts: &DrainFacts, now: Timestamp) -> Result<Verdict, String> {
    let meta = &pod.metadata;
    if facts.unreachable
        && meta
            .deletion_timestamp
            .as_ref()
            .is_some_and(|t| now.duration_since(t.0).as_secs() > 1)
    {
        return Ok(Verdict::Skip(SkipReason::Unreachable));
    }
    let finished = is_finished(pod);
    let mut warnings = Vec::new();
    let controller = controller(pod);
    if let Some(owner) = controller.filter(|o| o.kind == "DaemonSet")
        && !finished
    {
        let namespace = meta.namespace.clone().unwrap_or_default();
        let set = PodKey::new(namespace, owner.name.clone());
        if facts.daemon_sets.contains(&set) {
            return Ok(Verdict::Skip(SkipReason::DaemonSet));
        }
        warnings.push(Warning::DaemonSetGone);
    }
    let annotations = meta.annotations.as_ref();
    if annotations.is_some_and(|a| a.contains_key(MIRROR)) {
        return Ok(Verdict::Skip(SkipReason::Mirror));
    }
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
    if !finished && volumes.into_iter().flatten().any(|v| v.empty_dir.is_some()) {
        warnings.push(Warning::EmptyDir);
    }
    if !finished && controller.is_none() {
        warnings.push(Warning::NoController);
    }
    // A pod that has ended by itself need not be waited for, though its object stays.
    let wait_completed = || match finished {
        true => Verdict::Skip(SkipReason::Completed),
        false => Verdict::WaitCompleted,
    };
    let label = meta.labels.as_ref().and_then(|l| l.get(POD_LABEL_DRAIN));
    match label.map(|l| l.to_ascii_lowercase()).as_deref() {
        Some("skip") => return Ok(Verdict::Skip(SkipReason::Label)),
        Some("wait-completed") => return Ok(wait_completed()),
        _ => {}
    }
    for rule in &facts.rules {
        if rule.matches(pod, &facts.namespaces)? {
            return Ok(match rule.drain.behavior {
                DrainBehavior::Drain => Verdict::Drain(rule.drain.order.unwrap_or(0), warnings),
                DrainBehavior::Skip => Verdict::Skip(SkipReason::Rule),
                DrainBehavior::WaitCompleted => wait_completed(),
            });
        }
    }
    Ok(Verdict::Drain(0, warnings))
}

fn controller(pod: &Pod) -> Option<&OwnerReference> {
    pod.metadata
        .owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true))
}
