//! Workloads: pods that a simulated cluster keeps on its nodes, as replica sets do, and their budgets. What is to be
//! done is decided here, from values alone; [`crate::pods`] does it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use serde::Deserialize;

/// Label of the pods and budgets that the cloud keeps: the name of their workload.
pub(crate) const WORKLOAD: &str = "sim.fleetwright.dev/workload";
/// Annotation of a pod: from when on it is ready. Kubernetes' own times have whole seconds only.
pub(crate) const READY_AT: &str = "sim.fleetwright.dev/ready-at";

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
    /// A pod is asked to end, or, `at_once`, is gone.
    End {
        namespace: String,
        name: String,
        at_once: bool,
    },
}

/// What a cluster holds.
pub(crate) struct Seen<'a> {
    pub(crate) nodes: &'a [Node],
    /// Those that carry [`WORKLOAD`].
    pub(crate) pods: &'a [Pod],
    /// Those that carry [`WORKLOAD`].
    pub(crate) budgets: &'a [PodDisruptionBudget],
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
            match ready_at(pod).filter(|_| !is_ready(pod)) {
                Some(time) if time > now => at(time),
                Some(_) => steps.push(Step::Ready { namespace, name }),
                None => {}
            }
            alive.entry(slot).or_default().push(pod);
        }
    }
    for workload in wanted {
        let slot = (workload.namespace.clone(), workload.name.clone());
        let pods = alive.remove(&slot).unwrap_or_default();
        steps.extend(scale(workload, pods, &free));
    }
    (steps, again)
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

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn ready_at(pod: &Pod) -> Option<Timestamp> {
    let text = pod.annotations().get(READY_AT)?;
    Some(text.parse().unwrap_or(Timestamp::MIN))
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref());
    let ready =
        |c: &k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready" && c.status == "True";
    conditions.unwrap_or_default().iter().any(ready)
}

/// Whether the scheduler would put a pod without tolerations there.
fn takes_pods(node: &Node) -> bool {
    let (spec, status) = (node.spec.as_ref(), node.status.as_ref());
    let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let conditions = status
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    node.metadata.deletion_timestamp.is_none()
        && spec.and_then(|s| s.unschedulable) != Some(true)
        && taints.iter().all(|t| t.effect == "PreferNoSchedule")
        && conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn workload(replicas: usize, min_available: Option<i32>) -> Workload {
        Workload {
            name: "shop".into(),
            namespace: "s".into(),
            replicas,
            min_available,
            start_seconds: 0.5,
            termination_seconds: 1.0,
        }
    }

    fn node(name: &str, ready: bool, spec: Value) -> Node {
        let ready = if ready { "True" } else { "Unknown" };
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status}))
            .unwrap()
    }

    fn pod(name: &str, node: &str, ready: bool) -> Value {
        let ready = if ready { "True" } else { "False" };
        json!({
            "metadata": {
                "name": name, "namespace": "s", "labels": {WORKLOAD: "shop"},
                "annotations": {READY_AT: "1970-01-01T00:00:10Z"},
            },
            "spec": {"nodeName": node, "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn decided(
        wanted: &[Workload],
        nodes: &[Node],
        pods: &[Value],
        second: i64,
    ) -> (String, Option<i64>) {
        let pods: Vec<Pod> = pods
            .iter()
            .map(|p| serde_json::from_value(p.clone()).unwrap())
            .collect();
        let seen = Seen {
            nodes,
            pods: &pods,
            budgets: &[],
        };
        let now = Timestamp::from_second(second).unwrap();
        let (steps, again) = decide(wanted, &seen, now);
        let text = |step: &Step<'_>| match step {
            Step::Budget(_) => "budget".to_owned(),
            Step::DropBudget { name, .. } => format!("drop {name}"),
            Step::Make { node, .. } => format!("make on {node}"),
            Step::Ready { name, .. } => format!("ready {name}"),
            Step::End {
                name,
                at_once: false,
                ..
            } => format!("end {name}"),
            Step::End {
                name,
                at_once: true,
                ..
            } => format!("gone {name}"),
        };
        let steps: Vec<_> = steps.iter().map(text).collect();
        (steps.join(", "), again.map(|a| a.as_second()))
    }

    /// Name, replicas, nodes, pods, second; steps, second of the next look.
    type Row<'a> = (
        &'a str,
        usize,
        &'a [Node],
        Vec<Value>,
        i64,
        &'a str,
        Option<i64>,
    );

    #[test]
    fn what_is_done_about_pods() {
        let (a, b) = (node("a", true, json!({})), node("b", true, json!({})));
        let nodes = [a.clone(), b.clone()];
        let with = |mut pod: Value, field: &str, value: Value| {
            pod["metadata"][field] = value;
            pod
        };
        let deleting = |pod: Value| with(pod, "deletionTimestamp", json!("1970-01-01T00:00:20Z"));
        let two = [pod("p1", "a", true), pod("p2", "b", true)];
        let rows: &[Row<'_>] = &[
            (
                "missing ones are spread",
                3,
                &nodes,
                vec![],
                0,
                "make on a, make on b, make on a",
                None,
            ),
            ("all there", 2, &nodes, two.to_vec(), 0, "", None),
            (
                "one more, where fewer are",
                2,
                &nodes,
                vec![pod("p1", "a", true)],
                0,
                "make on b",
                None,
            ),
            ("no node yet", 2, &[], vec![], 0, "", None),
            (
                "starts later",
                1,
                &nodes,
                vec![pod("p1", "a", false)],
                9,
                "",
                Some(10),
            ),
            (
                "has started",
                1,
                &nodes,
                vec![pod("p1", "a", false)],
                10,
                "ready p1",
                None,
            ),
            (
                "one ends: its place is taken",
                2,
                &nodes,
                vec![two[0].clone(), deleting(two[1].clone())],
                0,
                "make on b",
                Some(20),
            ),
            (
                "its time is over",
                1,
                &nodes,
                vec![two[0].clone(), deleting(two[1].clone())],
                20,
                "gone p2",
                None,
            ),
            ("too many", 1, &nodes, two.to_vec(), 0, "end p2", None),
            (
                "too many: the one not ready first",
                1,
                &nodes,
                vec![pod("p1", "a", false), two[1].clone()],
                0,
                "end p1",
                Some(10),
            ),
            (
                "none wanted",
                0,
                &nodes,
                two.to_vec(),
                0,
                "end p1, end p2",
                None,
            ),
            (
                "its node is gone",
                2,
                std::slice::from_ref(&a),
                two.to_vec(),
                0,
                "gone p2, make on a",
                None,
            ),
        ];
        for (what, replicas, nodes, pods, second, steps, again) in rows {
            let wanted = [workload(*replicas, None)];
            let got = decided(&wanted, nodes, pods, *second);
            assert_eq!(got, ((*steps).to_owned(), *again), "{what}");
        }
        let got = decided(&[], &nodes, &two, 0);
        assert_eq!(got.0, "end p1, end p2", "nobody declares it any more");
        let mut at_once = workload(1, None);
        at_once.termination_seconds = 0.0;
        let got = decided(
            &[at_once],
            &nodes,
            &[two[0].clone(), deleting(two[1].clone())],
            0,
        );
        assert_eq!(got.0, "gone p2", "it ends without delay");
    }

    #[test]
    fn which_nodes_take_pods() {
        let taint = |effect: &str| json!({"taints": [{"key": "k", "effect": effect}]});
        let rows = [
            (node("n", true, json!({})), true),
            (node("n", false, json!({})), false),
            (node("n", true, json!({"unschedulable": true})), false),
            (node("n", true, taint("NoSchedule")), false),
            (node("n", true, taint("NoExecute")), false),
            (node("n", true, taint("PreferNoSchedule")), true),
        ];
        for (node, expected) in rows {
            assert_eq!(takes_pods(&node), expected, "{node:?}");
        }
    }

    #[test]
    fn budgets_follow_what_is_declared() {
        let budget = |min: i32| -> PodDisruptionBudget {
            serde_json::from_value(json!({"metadata": {"name": "shop", "namespace": "s"}, "spec": {"minAvailable": min}})).unwrap()
        };
        let drop = || Step::DropBudget {
            namespace: "s".into(),
            name: "shop".into(),
        };
        let (two, none) = ([workload(0, Some(2))], [workload(0, None)]);
        let rows: [(&[Workload], Vec<PodDisruptionBudget>, Vec<Step<'_>>); 6] = [
            (&two, vec![], vec![Step::Budget(&two[0])]),
            (&two, vec![budget(2)], vec![]),
            (&two, vec![budget(1)], vec![Step::Budget(&two[0])]),
            (&none, vec![budget(2)], vec![drop()]),
            (&[], vec![budget(2)], vec![drop()]),
            (&none, vec![], vec![]),
        ];
        for (wanted, there, expected) in rows {
            assert_eq!(budgets(wanted, &there), expected, "{wanted:?} {there:?}");
        }
    }
}
