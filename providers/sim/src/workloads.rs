//! Workloads: pods that a simulated cluster keeps on its nodes, as replica sets do, and their budgets. What is to be
//! done is decided here, from values alone; [`crate::pods`] does it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Node, Pod},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use serde::Deserialize;

#[cfg(test)]
mod tests;

/// Label of the pods and budgets that the cloud keeps: the name of their workload.
pub(crate) const WORKLOAD: &str = "sim.fleetwright.dev/workload";
/// Annotation of a pod: from when on it is ready. Kubernetes' own times have whole seconds only.
pub(crate) const READY_AT: &str = "sim.fleetwright.dev/ready-at";

/// What keeps the pods of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Kind {
    /// As many pods as wanted, wherever there is room.
    #[default]
    Deployment,
    /// One pod on each node, of a DaemonSet.
    DaemonSet,
    /// One pod on each node, of the kubelet: the API shows mirrors.
    StaticPod,
}

/// Pods that a cluster keeps.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workload {
    pub(crate) name: String,
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
    pub(crate) replicas: usize,
    #[serde(default)]
    pub(crate) min_available: Option<i32>,
    #[serde(default = "start")]
    pub(crate) start_seconds: f64,
    #[serde(default = "termination")]
    pub(crate) termination_seconds: f64,
    #[serde(default)]
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) empty_dir: bool,
    /// Seconds that a pod runs until it has done its work.
    #[serde(default)]
    pub(crate) complete_seconds: Option<f64>,
    /// Seconds after the end of a pod until its volume is detached; no volume without it.
    #[serde(default)]
    pub(crate) volume_detach_seconds: Option<f64>,
}

fn default_namespace() -> String {
    "default".into()
}

const fn start() -> f64 {
    0.5
}

const fn termination() -> f64 {
    1.0
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// The workload's budget is made, or made right.
    Budget(&'a Workload),
    /// A budget that nobody declares any more goes.
    DropBudget { namespace: String, name: String },
    /// A pod of the workload is made on a node.
    Make {
        workload: &'a Workload,
        node: String,
    },
    /// A pod has started.
    Ready { namespace: String, name: String },
    /// A pod has done its work.
    Complete { namespace: String, name: String },
    /// What a budget allows has changed.
    BudgetStatus {
        workload: &'a Workload,
        status: BudgetStatus,
    },
    /// A DaemonSet that nobody declares any more goes.
    DropDaemonSet { namespace: String, name: String },
    /// A pod is asked to end, or, `at_once`, is gone.
    End {
        namespace: String,
        name: String,
        at_once: bool,
    },
}

/// What a budget's status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetStatus {
    pub(crate) expected: i32,
    pub(crate) healthy: i32,
    pub(crate) desired: i32,
}

impl BudgetStatus {
    /// Evictions that it allows.
    pub(crate) fn allowed(self) -> i32 {
        (self.healthy - self.desired).max(0)
    }

    fn is_told(self, budget: &PodDisruptionBudget) -> bool {
        budget.status.as_ref().is_some_and(|s| {
            (s.expected_pods, s.current_healthy, s.desired_healthy)
                == (Some(self.expected), Some(self.healthy), Some(self.desired))
                && s.disruptions_allowed == Some(self.allowed())
        })
    }
}

/// What a cluster holds.
pub(crate) struct Seen<'a> {
    pub(crate) nodes: &'a [Node],
    /// Those that carry [`WORKLOAD`].
    pub(crate) pods: &'a [Pod],
    /// Those that carry [`WORKLOAD`].
    pub(crate) budgets: &'a [PodDisruptionBudget],
    /// Those that carry [`WORKLOAD`].
    pub(crate) daemon_sets: &'a [DaemonSet],
}

/// What is to be done so that the cluster holds what is wanted, and when to look again although nothing changed.
pub(crate) fn decide<'a>(
    wanted: &'a [Workload],
    seen: &Seen<'_>,
    now: Timestamp,
) -> (Vec<Step<'a>>, Option<Timestamp>) {
    let mut steps = budgets(wanted, seen.budgets);
    let mut again = None;
    let mut at = |time: Timestamp| again = Some(again.map_or(time, |a: Timestamp| a.min(time)));
    let free: Vec<String> = seen
        .nodes
        .iter()
        .filter(|n| takes_pods(n))
        .map(ResourceExt::name_any)
        .collect();
    let mut alive: BTreeMap<(String, String), Vec<&Pod>> = BTreeMap::new();
    for pod in seen.pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let slot = (
            namespace.clone(),
            pod.labels().get(WORKLOAD).cloned().unwrap_or_default(),
        );
        let workload = wanted
            .iter()
            .find(|w| (&w.namespace, &w.name) == (&slot.0, &slot.1));
        let stranded = !seen
            .nodes
            .iter()
            .any(|n| Some(n.name_any().as_str()) == node_of(pod));
        let end = |at_once: bool| Step::End {
            namespace: namespace.clone(),
            name: name.clone(),
            at_once,
        };
        if stranded {
            steps.push(end(true));
        } else if let Some(until) = &pod.metadata.deletion_timestamp {
            if until.0 <= now || workload.is_some_and(|w| w.termination_seconds <= 0.0) {
                steps.push(end(true));
            } else {
                at(until.0);
            }
        } else if workload.is_none() {
            steps.push(end(false));
        } else {
            match (ready_at(pod), completes_at(pod, workload)) {
                _ if has_completed(pod) => {}
                (Some(time), _) if !is_ready(pod) && time > now => at(time),
                (Some(_), _) if !is_ready(pod) => steps.push(Step::Ready { namespace, name }),
                (_, Some(time)) if time > now => at(time),
                (_, Some(_)) => steps.push(Step::Complete { namespace, name }),
                _ => {}
            }
            alive.entry(slot).or_default().push(pod);
        }
    }
    for workload in wanted {
        let slot = (workload.namespace.clone(), workload.name.clone());
        let pods = alive.remove(&slot).unwrap_or_default();
        steps.extend(tell_budget(workload, &pods, seen.budgets));
        steps.extend(match workload.kind {
            Kind::Deployment => scale(workload, pods, &free),
            Kind::DaemonSet | Kind::StaticPod => one_each(workload, &pods, seen.nodes),
        });
    }
    let declared = |d: &DaemonSet| {
        wanted.iter().any(|w| {
            w.kind == Kind::DaemonSet
                && (d.namespace().as_ref(), d.name_any()) == (Some(&w.namespace), w.name.clone())
        })
    };
    let gone = seen.daemon_sets.iter().filter(|d| !declared(d));
    steps.extend(gone.map(|d| Step::DropDaemonSet {
        namespace: d.namespace().unwrap_or_default(),
        name: d.name_any(),
    }));
    (steps, again)
}

/// A pod on each node that is ready, whatever else the node says.
fn one_each<'a>(workload: &'a Workload, pods: &[&Pod], nodes: &[Node]) -> Vec<Step<'a>> {
    let bare = |n: &&Node| {
        n.metadata.deletion_timestamp.is_none()
            && is_node_ready(n)
            && !pods.iter().any(|p| node_of(p) == Some(&n.name_any()))
    };
    let make = |n: &Node| Step::Make {
        workload,
        node: n.name_any(),
    };
    let wanted = nodes.iter().filter(|_| workload.replicas > 0);
    wanted.filter(bare).map(make).collect()
}

/// What a workload's budget allows, where its status does not say so yet.
fn tell_budget<'a>(
    workload: &'a Workload,
    pods: &[&Pod],
    budgets: &[PodDisruptionBudget],
) -> Option<Step<'a>> {
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let status = BudgetStatus {
        expected: number(workload.replicas),
        healthy: number(pods.iter().filter(|p| is_ready(p)).count()),
        desired: workload.min_available?,
    };
    let own = |b: &&PodDisruptionBudget| {
        (b.namespace().as_ref(), b.name_any()) == (Some(&workload.namespace), workload.name.clone())
    };
    let budget = budgets.iter().find(own)?;
    (!status.is_told(budget)).then_some(Step::BudgetStatus { workload, status })
}

/// Pods of a workload that are too many or too few.
fn scale<'a>(workload: &'a Workload, mut pods: Vec<&Pod>, free: &[String]) -> Vec<Step<'a>> {
    // First to go: on a node that takes no pods, not ready yet, last by name.
    pods.sort_by_key(|p| {
        let stays = node_of(p).is_some_and(|n| free.iter().any(|f| f == n));
        (!stays, !is_ready(p), p.name_any())
    });
    let surplus = pods.split_off(pods.len().min(workload.replicas));
    let mut steps: Vec<_> = surplus
        .into_iter()
        .map(|p| Step::End {
            namespace: p.namespace().unwrap_or_default(),
            name: p.name_any(),
            at_once: false,
        })
        .collect();
    let mut load: BTreeMap<&str, usize> = free.iter().map(|n| (n.as_str(), 0)).collect();
    for pod in &pods {
        if let Some(count) = node_of(pod).and_then(|n| load.get_mut(n)) {
            *count += 1;
        }
    }
    for _ in pods.len()..workload.replicas {
        let Some((node, count)) = load.iter_mut().min_by_key(|(_, count)| **count) else {
            break; // no node takes pods: the next one that does wakes us
        };
        *count += 1;
        let node = (*node).to_owned();
        steps.push(Step::Make { workload, node });
    }
    steps
}

fn budgets<'a>(wanted: &'a [Workload], there: &[PodDisruptionBudget]) -> Vec<Step<'a>> {
    let slot = |b: &PodDisruptionBudget| (b.namespace().unwrap_or_default(), b.name_any());
    let right = |w: &Workload, min: i32| {
        there.iter().any(|b| {
            let spec = b.spec.as_ref().and_then(|s| s.min_available.as_ref());
            slot(b) == (w.namespace.clone(), w.name.clone()) && spec == Some(&IntOrString::Int(min))
        })
    };
    let declared = |b: &PodDisruptionBudget| {
        wanted
            .iter()
            .any(|w| w.min_available.is_some() && slot(b) == (w.namespace.clone(), w.name.clone()))
    };
    let make = wanted
        .iter()
        .filter(|w| w.min_available.is_some_and(|min| !right(w, min)))
        .map(Step::Budget);
    let gone = there.iter().filter(|b| !declared(b)).map(|b| {
        let (namespace, name) = slot(b);
        Step::DropBudget { namespace, name }
    });
    make.chain(gone).collect()
}

pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn ready_at(pod: &Pod) -> Option<Timestamp> {
    let text = pod.annotations().get(READY_AT)?;
    Some(text.parse().unwrap_or(Timestamp::MIN))
}

/// When a pod of a workload whose pods end by themselves has done its work.
fn completes_at(pod: &Pod, workload: Option<&Workload>) -> Option<Timestamp> {
    let seconds = workload?.complete_seconds?;
    ready_at(pod)?
        .checked_add(SignedDuration::from_secs_f64(seconds))
        .ok()
}

pub(crate) fn has_completed(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase == Some("Succeeded")
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref());
    let ready =
        |c: &k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready" && c.status == "True";
    conditions.unwrap_or_default().iter().any(ready)
}

/// Whether the scheduler would put a pod without tolerations there.
fn takes_pods(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    node.metadata.deletion_timestamp.is_none()
        && spec.and_then(|s| s.unschedulable) != Some(true)
        && taints.iter().all(|t| t.effect == "PreferNoSchedule")
        && is_node_ready(node)
}

fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}
