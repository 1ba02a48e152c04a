//! What a Machine hands to its node: labels and annotations of certain domains, taints, and who it is. A node registers with taint
//! `uninitialized`, which goes with the first of these writes; while its machine's pool has a newer set, it has taint `outdated-revision`.
//!
//! Domains as in Cluster API: of labels `node-role.kubernetes.io` exactly, `node-restriction.kubernetes.io` and our
//! `node.fleetwright.dev` with their sub-domains; of annotations the last of them. Annotations on the node remember what we put, so that it
//! can be taken away again and what others put stays.

use std::collections::BTreeMap;

use fleetwright_api::{
    Machine, MachineDeployment, MachineSet,
    drift::DriftKind,
    machine::{MachineTaint, TaintEffect, TaintPropagation},
    meta,
};
use fleetwright_core::drift::Unsynced;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt;
use litemap::LiteMap;
use serde_json::{Map, Value, json};

use crate::{cache::Caches, nodes::NodeView};

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

/// Whether a node's annotation matters to its machine: one that a Machine hands over, or one that remembers what was handed over.
fn is_read(key: &str) -> bool {
    within(key, OURS)
        || key == meta::ANNOTATION_CERTIFICATES_EXPIRY
        || [
            meta::NODE_ANNOTATION_CLUSTER,
            meta::NODE_ANNOTATION_MACHINE,
            meta::NODE_ANNOTATION_LABELS,
            meta::NODE_ANNOTATION_TAINTS,
            meta::NODE_ANNOTATION_ANNOTATIONS,
        ]
        .contains(&key)
}

/// What of a node's labels and annotations [`patch`] and who asks for certificates look at, and the labels of `groups`.
pub(crate) fn kept(
    node: &Node,
    groups: &[String],
) -> (LiteMap<String, String>, LiteMap<String, String>) {
    let handed_over = |list| split(node.annotations().get(list));
    let (labels, annotations) = (
        handed_over(meta::NODE_ANNOTATION_LABELS),
        handed_over(meta::NODE_ANNOTATION_ANNOTATIONS),
    );
    let of = |all: &BTreeMap<String, String>, keep: &dyn Fn(&str) -> bool| {
        let kept = all.iter().filter(|(key, _)| keep(key));
        kept.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    (
        of(node.labels(), &|key| {
            is_synced(key) || labels.contains(&key) || groups.iter().any(|label| label == key)
        }),
        of(node.annotations(), &|key| {
            is_read(key) || annotations.contains(&key)
        }),
    )
}

/// The labels that a node of `machine` carries.
pub(crate) fn labels(machine: &Machine) -> BTreeMap<String, String> {
    synced(machine.labels())
}

/// Those labels that nodes carry.
pub(crate) fn synced(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let synced = labels.iter().filter(|(k, _)| is_synced(k));
    synced.map(|(k, v)| (k.clone(), v.clone())).collect()
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

/// The taints that a node of `machine` registers with: all of the machine's, and the one that keeps pods away until its labels are
/// there.
pub(crate) fn registered(machine: &Machine) -> Vec<MachineTaint> {
    let mut taints = machine.spec.content.taints.clone();
    taints.push(MachineTaint {
        key: meta::TAINT_UNINITIALIZED.to_owned(),
        value: None,
        effect: TaintEffect::NoSchedule,
        propagation: Some(TaintPropagation::OnInitialization),
    });
    taints
}

/// Puts in or takes away the taint of a node whose machine is to be replaced: evicted pods then prefer other nodes.
fn mark_outdated(taints: &mut Vec<Taint>, outdated: bool) {
    taints.retain(|t| t.key != meta::TAINT_OUTDATED_REVISION);
    if outdated {
        taints.push(Taint {
            key: meta::TAINT_OUTDATED_REVISION.to_owned(),
            effect: TaintEffect::PreferNoSchedule.as_str().to_owned(),
            ..Taint::default()
        });
    }
}

/// Whether the machine's pool has a newer set than the machine's.
pub(crate) fn is_outdated(caches: &Caches, machine: &Machine) -> bool {
    let revisions = || -> Option<(u64, u64)> {
        let namespace = machine.namespace()?;
        let owner = meta::controller_of(machine).filter(|o| o.kind == "MachineSet")?;
        let set = caches.get::<MachineSet>(&namespace, &owner.name)?;
        let owner = meta::controller_of(set.as_ref())?;
        let pool = caches.get::<MachineDeployment>(&namespace, &owner.name)?;
        let number = |annotations: &BTreeMap<String, String>| -> Option<u64> {
            let text = annotations.get(meta::ANNOTATION_ROLLOUT_REVISION)?;
            text.parse().ok()
        };
        Some((number(set.annotations())?, number(pool.annotations())?))
    };
    revisions().is_some_and(|(set, pool)| set < pool)
}

/// The merge patch that brings the node in step with its machine; `None` when it is. `outdated` says whether the machine's pool has a
/// newer set. It holds for the node as it was seen only: a list of taints replaces what another may have put meanwhile.
pub(crate) fn patch(
    machine: &Machine,
    cluster: &str,
    node: &NodeView,
    outdated: bool,
) -> Option<Value> {
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
            t.key != meta::TAINT_UNINITIALIZED
                && !before.contains(&id.as_str())
                && !ours.iter().any(|o| taint_id(&o.key, &o.effect) == id)
        })
        .cloned()
        .collect();
    taints.extend(ours.iter().cloned());
    mark_outdated(&mut taints, outdated);
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
    #[cfg(feature = "seeded-bugs")]
    if patch == json!({}) && fleetwright_api::bugs::on("still-node-patch") {
        return Some(json!({"metadata": {"labels": {}}}));
    }
    if patch == json!({}) {
        return None;
    }
    if let Some(version) = &node.resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    Some(patch)
}

/// What the machine hands to its node and the node has not, or otherwise; nothing of a node that was not given anything yet.
pub(crate) fn unsynced(machine: &Machine, node: &NodeView) -> Vec<Unsynced> {
    let given = |list| split(node.annotations.get(list));
    let (given_labels, given_taints) = (
        given(meta::NODE_ANNOTATION_LABELS),
        given(meta::NODE_ANNOTATION_TAINTS),
    );
    let labels = labels(machine);
    let labels = labels
        .into_iter()
        .filter(|(key, _)| given_labels.contains(&key.as_str()));
    let labels = labels.map(|(key, wanted)| Unsynced {
        kind: DriftKind::Label,
        found: node.labels.get(&key).cloned(),
        wanted: Some(wanted),
        key,
    });
    let found = |t: &MachineTaint| {
        let same = |n: &&Taint| n.key == t.key && n.effect == t.effect.as_str();
        let there = node.taints.iter().find(same);
        there.map(|n| n.value.clone().unwrap_or_default())
    };
    let taints = machine.spec.content.taints.iter().map(|t| Unsynced {
        kind: DriftKind::Taint,
        found: found(t),
        wanted: Some(t.value.clone().unwrap_or_default()),
        key: taint_id(&t.key, t.effect.as_str()),
    });
    let taints = taints.filter(|t| given_taints.contains(&t.key.as_str()));
    labels
        .chain(taints)
        .filter(|one| one.wanted != one.found)
        .collect()
}

#[cfg(test)]
mod tests;
