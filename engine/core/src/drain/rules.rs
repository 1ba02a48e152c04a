//! MachineDrainRules: which of them hold for a machine, and for which pods.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, Machine, MachineDrainRule,
    machine_drain_rule::{DrainRule, DrainRulePods},
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::LabelSelector};

use crate::selector;

type Labels = BTreeMap<String, String>;

/// What a MachineDrainRule says of pods.
#[derive(Clone, Debug, PartialEq)]
pub struct PodRule {
    /// What is done with the pods.
    pub drain: DrainRule,
    /// Which pods: all when empty, else those that one entry matches.
    pub pods: Vec<DrainRulePods>,
}

fn fits(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    let none = Labels::new();
    selector.is_none_or(|s| selector::matches(s, labels.unwrap_or(&none)))
}

/// The rules that hold for a machine, by name: those of its namespace, where one entry of `machines` matches the Machine's and its
/// Cluster's labels, or where there is no entry.
pub fn rules_of<'a>(
    machine: &Machine,
    cluster: &Cluster,
    rules: impl IntoIterator<Item = &'a MachineDrainRule>,
) -> Vec<PodRule> {
    let mut held: Vec<&MachineDrainRule> = rules
        .into_iter()
        .filter(|r| r.metadata.namespace == machine.metadata.namespace)
        .filter(|r| {
            let entries = &r.spec.machines;
            entries.is_empty()
                || entries.iter().any(|m| {
                    fits(m.selector.as_ref(), machine.metadata.labels.as_ref())
                        && fits(
                            m.cluster_selector.as_ref(),
                            cluster.metadata.labels.as_ref(),
                        )
                })
        })
        .collect();
    held.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    held.into_iter()
        .map(|r| PodRule {
            drain: r.spec.drain.clone(),
            pods: r.spec.pods.clone(),
        })
        .collect()
}

impl PodRule {
    /// Whether a rule asks for the labels of namespaces.
    pub fn needs_namespaces(&self) -> bool {
        self.pods.iter().any(|p| p.namespace_selector.is_some())
    }

    /// Whether the rule is about this pod.
    ///
    /// # Errors
    /// When it asks for labels of the pod's namespace, and that is not among `namespaces`.
    pub(super) fn matches(
        &self,
        pod: &Pod,
        namespaces: &BTreeMap<String, Labels>,
    ) -> Result<bool, String> {
        if self.pods.is_empty() {
            return Ok(true);
        }
        for entry in &self.pods {
            if !fits(entry.selector.as_ref(), pod.metadata.labels.as_ref()) {
                continue;
            }
            if entry.namespace_selector.is_none() {
                return Ok(true);
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let labels = namespaces
                .get(namespace)
                .ok_or_else(|| format!("there is no namespace {namespace}"))?;
            if fits(entry.namespace_selector.as_ref(), Some(labels)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
