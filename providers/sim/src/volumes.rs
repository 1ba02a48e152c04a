//! Volumes of simulated pods: claimed when a pod is made, attached to its node when it runs, detached some time after it has ended.
//! What is to be done is decided here, from values alone; [`crate::pods`] does it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    storage::v1::VolumeAttachment,
};
use kube::ResourceExt;

use crate::workloads::{WORKLOAD, Workload, has_completed, is_ready, node_of};

/// Name of the driver.
pub(crate) const DRIVER: &str = "csi.sim.fleetwright.dev";
/// Annotation of an attachment: from when on it is detached.
pub(crate) const DETACH_AT: &str = "sim.fleetwright.dev/detach-at";

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// A pod that runs gets its volume.
    Attach {
        workload: String,
        namespace: String,
        pod: String,
        node: String,
    },
    /// The pod of this attachment has ended: it is detached at this time.
    Mark { attachment: String, at: Timestamp },
    /// It is detached, and the volume goes.
    Detach { attachment: String, node: String },
}

/// Name of the volume and its attachment for a pod.
pub(crate) fn volume_of(namespace: &str, pod: &str) -> String {
    format!("{namespace}-{pod}")
}

/// What a node calls a volume that is attached to it.
pub(crate) fn unique_name(volume: &str) -> String {
    format!("kubernetes.io/csi/{DRIVER}^{volume}")
}

/// What is to be done about volumes, and when to look again although nothing changed.
pub(crate) fn decide(
    wanted: &[Workload],
    pods: &[Pod],
    nodes: &[Node],
    attachments: &[VolumeAttachment],
    now: Timestamp,
) -> (Vec<Step>, Option<Timestamp>) {
    let (mut steps, mut again) = (Vec::new(), None);
    let running: Vec<(String, &Pod, &Workload)> = pods
        .iter()
        .filter(|p| !has_completed(p))
        .filter_map(|p| {
            let namespace = p.namespace()?;
            let of = p.labels().get(WORKLOAD)?;
            let workload = wanted.iter().find(|w| {
                (&w.namespace, &w.name) == (&namespace, of) && w.volume_detach_seconds.is_some()
            })?;
            Some((volume_of(&namespace, &p.name_any()), p, workload))
        })
        .collect();
    for (volume, pod, workload) in &running {
        let there = attachments.iter().any(|a| a.name_any() == *volume);
        if !there
            && is_ready(pod)
            && pod.metadata.deletion_timestamp.is_none()
            && let Some(node) = node_of(pod)
        {
            steps.push(Step::Attach {
                workload: workload.name.clone(),
                namespace: workload.namespace.clone(),
                pod: pod.name_any(),
                node: node.to_owned(),
            });
        }
    }
    for attachment in attachments {
        let (name, node) = (attachment.name_any(), attachment.spec.node_name.clone());
        let node_gone = !nodes.iter().any(|n| n.name_any() == node);
        if !node_gone && running.iter().any(|(volume, ..)| *volume == name) {
            continue;
        }
        let marked = attachment.annotations().get(DETACH_AT);
        match marked.map(|t| t.parse().unwrap_or(Timestamp::MIN)) {
            _ if node_gone => steps.push(Step::Detach {
                attachment: name,
                node,
            }),
            Some(at) if at <= now => steps.push(Step::Detach {
                attachment: name,
                node,
            }),
            Some(at) => again = Some(again.map_or(at, |a: Timestamp| a.min(at))),
            None => {
                let of = attachment.labels().get(WORKLOAD);
                let workload = wanted.iter().find(|w| Some(&w.name) == of);
                let seconds = workload.and_then(|w| w.volume_detach_seconds);
                let pause = SignedDuration::from_secs_f64(seconds.unwrap_or(0.0));
                steps.push(Step::Mark {
                    attachment: name,
                    at: now.checked_add(pause).unwrap_or(now),
                });
            }
        }
    }
    (steps, again)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_volume_follows_its_pod_with_a_delay() {
        let wanted: Vec<Workload> = serde_json::from_value(json!([
            {"name": "db", "namespace": "s", "replicas": 1, "volumeDetachSeconds": 30},
            {"name": "web", "namespace": "s", "replicas": 1},
        ]))
        .unwrap();
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        let pod = |of: &str, phase: &str, ready: bool| -> Vec<Pod> {
            let ready = if ready { "True" } else { "False" };
            vec![
                serde_json::from_value(json!({
                    "metadata": {"name": "p", "namespace": "s", "labels": {WORKLOAD: of}},
                    "spec": {"nodeName": "a", "containers": []},
                    "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
                }))
                .unwrap(),
            ]
        };
        let attachment = |at: Value| -> Vec<VolumeAttachment> {
            vec![
                serde_json::from_value(json!({
                    "metadata": {"name": "s-p", "labels": {WORKLOAD: "db"}, "annotations": {DETACH_AT: at}},
                    "spec": {"attacher": DRIVER, "nodeName": "a", "source": {"persistentVolumeName": "s-p"}},
                }))
                .unwrap(),
            ]
        };
        let unmarked = || {
            let mut list = attachment(json!(""));
            list[0].metadata.annotations = None;
            list
        };
        let at = |s| Timestamp::from_second(s).unwrap();
        let attach = || Step::Attach {
            workload: "db".into(),
            namespace: "s".into(),
            pod: "p".into(),
            node: "a".into(),
        };
        let mark = || Step::Mark {
            attachment: "s-p".into(),
            at: at(30),
        };
        let detach = || Step::Detach {
            attachment: "s-p".into(),
            node: "a".into(),
        };
        let marked = || attachment(json!("1970-01-01T00:00:30Z"));
        let here = || vec![node.clone()];
        for (what, pods, nodes, attachments, second, want, again) in [
            (
                "it starts",
                pod("db", "Pending", false),
                here(),
                vec![],
                0,
                vec![],
                None,
            ),
            (
                "it runs",
                pod("db", "Running", true),
                here(),
                vec![],
                0,
                vec![attach()],
                None,
            ),
            (
                "it has none",
                pod("web", "Running", true),
                here(),
                vec![],
                0,
                vec![],
                None,
            ),
            (
                "it has it",
                pod("db", "Running", true),
                here(),
                unmarked(),
                0,
                vec![],
                None,
            ),
            (
                "it has ended",
                pod("db", "Succeeded", false),
                here(),
                unmarked(),
                0,
                vec![mark()],
                None,
            ),
            (
                "it is gone",
                vec![],
                here(),
                unmarked(),
                0,
                vec![mark()],
                None,
            ),
            (
                "a while later",
                vec![],
                here(),
                marked(),
                29,
                vec![],
                Some(at(30)),
            ),
            ("then", vec![], here(), marked(), 30, vec![detach()], None),
            (
                "the node is gone",
                vec![],
                vec![],
                unmarked(),
                0,
                vec![detach()],
                None,
            ),
        ] {
            let got = decide(&wanted, &pods, &nodes, &attachments, at(second));
            assert_eq!(got, (want, again), "{what}");
        }
    }
}
