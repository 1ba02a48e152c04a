//! What a Machine hands to its node: labels and annotations of certain domains, taints, and who it is.
//!
//! Domains as in Cluster API: of labels `node-role.kubernetes.io` exactly, `node-restriction.kubernetes.io` and our
//! `node.fleetwright.dev` with their sub-domains; of annotations the last of them. Annotations on the node remember what we put, so that it
//! can be taken away again and what others put stays.

use std::collections::BTreeMap;

use fleetwright_api::{
    Machine,
    machine::{MachineTaint, TaintPropagation},
    meta,
};
use k8s_openapi::api::core::v1::Taint;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::nodes::NodeView;

const OURS: &str = "node.fleetwright.dev";

/// Whether a key's domain is `base` or one below it.
fn within(key: &str, base: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| {
        domain == base
            || domain
                .strip_suffix(base)
                .is_some_and(|rest| rest.ends_with('.'))
    })
}

fn is_synced(key: &str) -> bool {
    key.starts_with("node-role.kubernetes.io/")
        || within(key, "node-restriction.kubernetes.io")
        || within(key, OURS)
}

/// The labels that a node of `machine` carries.
pub(crate) fn labels(machine: &Machine) -> BTreeMap<String, String> {
    machine
        .labels()
        .iter()
        .filter(|(k, _)| is_synced(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The annotations of its machine that a node carries.
fn annotations(machine: &Machine) -> BTreeMap<&str, &str> {
    machine
        .annotations()
        .iter()
        .filter(|(k, _)| within(k, OURS))
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect()
}

fn taint_id(key: &str, effect: &str) -> String {
    format!("{key}:{effect}")
}

fn to_taint(taint: &MachineTaint) -> Taint {
    Taint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: taint.effect.as_str().to_owned(),
        ..Taint::default()
    }
}

fn split(list: Option<&String>) -> Vec<&str> {
    list.map(|l| l.split(',').filter(|p| !p.is_empty()).collect())
        .unwrap_or_default()
}

/// The merge patch that brings the node in step with its machine; `None` when it is.
pub(crate) fn patch(machine: &Machine, cluster: &str, node: &NodeView) -> Option<Value> {
    let want = labels(machine);
    let mut label_patch = Map::new();
    for key in split(node.annotations.get(meta::NODE_ANNOTATION_LABELS)) {
        if !want.contains_key(key) && node.labels.contains_key(key) {
            label_patch.insert(key.to_owned(), Value::Null);
        }
    }
    for (key, value) in want.iter().filter(|(k, v)| node.labels.get(*k) != Some(v)) {
        label_patch.insert(key.clone(), json!(value));
    }

    let tracked = node.annotations.get(meta::NODE_ANNOTATION_TAINTS);
    let before = split(tracked);
    let first = tracked.is_none();
    let ours: Vec<_> = machine
        .spec
        .content
        .taints
        .iter()
        .filter(|t| first || t.propagation != Some(TaintPropagation::OnInitialization))
        .map(to_taint)
        .collect();
    let mut taints: Vec<Taint> = node
        .taints
        .iter()
        .filter(|t| {
            let id = taint_id(&t.key, &t.effect);
            !before.contains(&id.as_str())
                && !ours.iter().any(|o| taint_id(&o.key, &o.effect) == id)
        })
        .cloned()
        .collect();
    taints.extend(ours.iter().cloned());
    let by_id = |list: &[Taint]| -> BTreeMap<String, Option<String>> {
        list.iter()
            .map(|t| (taint_id(&t.key, &t.effect), t.value.clone()))
            .collect()
    };

    let always = machine
        .spec
        .content
        .taints
        .iter()
        .filter(|t| t.propagation != Some(TaintPropagation::OnInitialization));
    let identity = [
        (meta::NODE_ANNOTATION_CLUSTER, cluster.to_owned()),
        (meta::NODE_ANNOTATION_MACHINE, machine.name_any()),
        (
            meta::NODE_ANNOTATION_LABELS,
            want.keys().cloned().collect::<Vec<_>>().join(","),
        ),
        (
            meta::NODE_ANNOTATION_TAINTS,
            always
                .map(|t| taint_id(&t.key, t.effect.as_str()))
                .collect::<Vec<_>>()
                .join(","),
        ),
    ];
    let mut annotation_patch: Map<_, _> = identity
        .into_iter()
        .filter(|(k, v)| node.annotations.get(*k) != Some(v))
        .map(|(k, v)| (k.to_owned(), json!(v)))
        .collect();
    let handed = annotations(machine);
    let tracked = node.annotations.get(meta::NODE_ANNOTATION_ANNOTATIONS);
    for key in split(tracked) {
        if !handed.contains_key(key) && node.annotations.contains_key(key) {
            annotation_patch.insert(key.to_owned(), Value::Null);
        }
    }
    for (key, value) in &handed {
        if node.annotations.get(*key).map(String::as_str) != Some(value) {
            annotation_patch.insert((*key).to_owned(), json!(value));
        }
    }
    let keys = handed.keys().copied().collect::<Vec<_>>().join(",");
    if tracked.map_or("", String::as_str) != keys {
        let keys = (!keys.is_empty()).then_some(keys);
        annotation_patch.insert(meta::NODE_ANNOTATION_ANNOTATIONS.to_owned(), json!(keys));
    }

    let mut patch = json!({});
    if !label_patch.is_empty() {
        patch["metadata"]["labels"] = Value::Object(label_patch);
    }
    if !annotation_patch.is_empty() {
        patch["metadata"]["annotations"] = Value::Object(annotation_patch);
    }
    if by_id(&taints) != by_id(&node.taints) {
        patch["spec"]["taints"] = json!(taints);
    }
    (patch != json!({})).then_some(patch)
}

#[cfg(test)]
mod tests {
    use fleetwright_api::machine::{MachineSpec, NodeInfo, TaintEffect};
    use fleetwright_core::status::NodeHealth;

    use super::*;

    fn node() -> NodeView {
        NodeView {
            conditions: Vec::new(),
            name: "n".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taints: Vec::new(),
            unschedulable: false,
            health: NodeHealth::Healthy,
            info: NodeInfo::default(),
        }
    }

    fn machine(labels: &[(&str, &str)], taints: &[&str]) -> Machine {
        let mut m = Machine::new("m", MachineSpec::default());
        m.labels_mut().extend(
            labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        );
        m.spec.content.taints = taints
            .iter()
            .map(|k| MachineTaint {
                key: (*k).into(),
                value: None,
                effect: TaintEffect::NoSchedule,
                propagation: None,
            })
            .collect();
        m
    }

    /// Applies a patch of ours to the view, as the API would.
    fn apply(node: &mut NodeView, patch: &Value) {
        for (field, map) in [
            ("labels", &mut node.labels),
            ("annotations", &mut node.annotations),
        ] {
            for (k, v) in patch["metadata"][field].as_object().into_iter().flatten() {
                match v.as_str() {
                    Some(text) => map.insert(k.clone(), text.into()),
                    None => map.remove(k),
                };
            }
        }
        if let Some(taints) = patch["spec"].get("taints") {
            node.taints = serde_json::from_value(taints.clone()).unwrap();
        }
    }

    #[test]
    fn only_certain_domains_reach_the_node() {
        for (key, want) in [
            ("node-role.kubernetes.io/web", true),
            ("sub.node-role.kubernetes.io/web", false),
            ("a.node-restriction.kubernetes.io/x", true),
            ("xnode-restriction.kubernetes.io/x", false),
            ("node.fleetwright.dev/site", true),
            ("fleetwright.dev/set-name", false),
            ("plain", false),
        ] {
            assert_eq!(is_synced(key), want, "{key}");
        }
    }

    #[test]
    fn what_is_no_longer_asked_for_goes_and_what_others_put_stays() {
        let mut n = node();
        n.taints.push(Taint {
            key: "theirs".into(),
            effect: "NoExecute".into(),
            ..Taint::default()
        });
        n.labels
            .insert("node-role.kubernetes.io/theirs".into(), String::new());
        n.annotations
            .insert("node.fleetwright.dev/theirs".into(), "x".into());
        let mut first = machine(&[("node-role.kubernetes.io/web", "")], &["ours"]);
        first.annotations_mut().extend([
            ("node.fleetwright.dev/rack".to_owned(), "7".to_owned()),
            ("note".to_owned(), "y".to_owned()),
        ]);
        let change = patch(&first, "c", &n).unwrap();
        apply(&mut n, &change);
        assert_eq!(patch(&first, "c", &n), None, "a fixed point");
        assert_eq!((n.labels.len(), n.taints.len()), (2, 2));
        let annotation = |n: &NodeView, key: &str| n.annotations.get(key).cloned();
        assert_eq!(
            annotation(&n, "node.fleetwright.dev/rack").as_deref(),
            Some("7")
        );
        assert_eq!(annotation(&n, "note"), None);
        let second = machine(&[], &[]);
        let change = patch(&second, "c", &n).unwrap();
        apply(&mut n, &change);
        assert_eq!(patch(&second, "c", &n), None);
        assert_eq!(
            n.taints.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(),
            ["theirs"]
        );
        assert_eq!(
            n.labels.keys().collect::<Vec<_>>(),
            ["node-role.kubernetes.io/theirs"]
        );
        assert_eq!(annotation(&n, "node.fleetwright.dev/rack"), None);
        assert_eq!(
            annotation(&n, "node.fleetwright.dev/theirs").as_deref(),
            Some("x")
        );
        assert_eq!(annotation(&n, meta::NODE_ANNOTATION_ANNOTATIONS), None);
    }
}
