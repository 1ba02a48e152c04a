//! Which machines belong to a set: those of its selector that nobody controls are taken in, those that left it are let go.

use std::{borrow::Borrow, collections::BTreeMap};

use fleetwright_api::{Machine, MachineSet, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::cluster::is_control_plane;

/// Machines whose owner changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Ownership {
    /// Machines that the set becomes the controller of.
    pub adopt: Vec<String>,
    /// Machines that the set gives up. They go on as they are, and the set makes others in their place.
    pub release: Vec<String>,
}

/// What changes in who owns what: `machines` are the set's, `orphans` are machines of its cluster that nobody controls. Machines on
/// their way out stay with whom they are, and a set on its way out or paused takes none and gives none away.
pub fn ownership<M: Borrow<Machine>>(set: &MachineSet, machines: &[M], orphans: &[M]) -> Ownership {
    let mut out = Ownership::default();
    if set.metadata.deletion_timestamp.is_some() || meta::is_paused(set) {
        return out;
    }
    let matches = |machine: &Machine| match &machine.metadata.labels {
        Some(labels) => keeps(set, labels),
        None => keeps(set, &BTreeMap::new()),
    };
    let stays = |m: &&Machine| m.metadata.deletion_timestamp.is_none();
    let names = |list: Vec<&Machine>| {
        list.iter()
            .filter_map(|m| m.metadata.name.clone())
            .collect()
    };
    out.release = names(
        machines
            .iter()
            .map(Borrow::borrow)
            .filter(stays)
            .filter(|m| !matches(m))
            .collect(),
    );
    let adoptable = |m: &&Machine| {
        meta::controller_of(*m).is_none()
            && !is_control_plane(m)
            && m.metadata.namespace == set.metadata.namespace
            && m.spec.cluster_name == set.spec.cluster_name
            && matches(m)
    };
    out.adopt = names(
        orphans
            .iter()
            .map(Borrow::borrow)
            .filter(stays)
            .filter(adoptable)
            .collect(),
    );
    out
}

/// Whether a machine with these labels is the set's, and stays so.
pub(super) fn keeps(set: &MachineSet, labels: &BTreeMap<String, String>) -> bool {
    let written = set.spec.selector.as_ref().filter(|s| !is_empty(s));
    match written {
        Some(selector) => selects(selector, labels),
        None => labels.get(meta::LABEL_SET_NAME) == set.metadata.name.as_ref(),
    }
}

/// An empty selector would take every machine of the cluster.
fn is_empty(selector: &LabelSelector) -> bool {
    let labels = selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty);
    labels
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

fn includes(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// Kubernetes' label selectors; an operator that is not known selects nothing.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let expressions = selector.match_expressions.iter().flatten();
    selector
        .match_labels
        .as_ref()
        .is_none_or(|wanted| includes(labels, wanted))
        && expressions.into_iter().all(|e| {
            let (value, values) = (labels.get(&e.key), e.values.as_deref().unwrap_or_default());
            match e.operator.as_str() {
                "In" => value.is_some_and(|v| values.contains(v)),
                "NotIn" => value.is_none_or(|v| !values.contains(v)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
