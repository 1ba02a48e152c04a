//! I1, I2 and I6: what is done at the provider and in workload clusters.

use std::collections::BTreeMap;

use fleetwright_api::{meta, names::cluster_key};
use fleetwright_provider_sim::Entry;
use fleetwright_providers::InstanceState;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Checker, Known, model::Meta, stored};
use crate::{fleet::DRAIN_SECONDS, weather::Kind};

/// Name of the installation under test.
pub(crate) const INSTALLATION: &str = "sim";
/// The node that was there before us in each cluster.
pub(crate) const FOREIGN_NODE: &str = "by-hand";

/// An object of which only the name counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    metadata: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Meta,
    spec: PodSpec,
}

impl Pod {
    /// Whether a drain has to do with it: neither a DaemonSet's nor a static pod's mirror, nor one that a rule leaves.
    fn goes(&self, left: &[String]) -> bool {
        let meta = &self.metadata;
        let app = meta.labels.get("app");
        let daemon = meta.owner_references.iter().any(|o| o.kind == "DaemonSet");
        let mirror = meta.annotations.contains_key("kubernetes.io/config.mirror");
        !daemon && !mirror && !app.is_some_and(|app| left.contains(app))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
}

/// A MachineDrainRule, as the fleet writes them: for the machines of a cluster and the pods of an app.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    spec: RuleSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuleSpec {
    drain: RuleDrain,
    machines: Vec<Selected>,
    pods: Vec<Selected>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuleDrain {
    behavior: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Selected {
    selector: Selector,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

impl Checker {
    pub(super) fn cloud_call(&mut self, entry: &Entry) {
        let changes = matches!(entry.verb.as_str(), "create" | "update" | "delete");
        if !changes {
            return;
        }
        self.calls += 1;
        let instance = entry.instance.clone().unwrap_or_default();
        let mine = !self.foreign.contains(&instance);
        if !mine {
            if entry.verb != "create" {
                self.broke(
                    "I2",
                    format!("{} of instance {instance}, which is another's", entry.verb),
                );
            }
            return;
        }
        if entry.outcome != "ok" {
            if entry.outcome == "QuotaExceeded" {
                self.around.weather.count(Kind::Quota, 1);
            }
            return;
        }
        let machine = entry.machine.clone().unwrap_or_default();
        match entry.verb.as_str() {
            "create" => {
                self.one_instance(&machine);
                self.skew(&machine);
            }
            // What is gone already is deleted once more.
            "delete" if !machine.is_empty() && !self.duplicates.contains(&instance) => {
                self.instance_doomed(&machine, entry);
            }
            _ => {}
        }
    }

    /// I1: a machine has one instance that lives.
    fn one_instance(&mut self, machine: &str) {
        let live: Vec<String> = self
            .cloud
            .iter()
            .flat_map(|c| c.instances())
            .filter(|i| i.state != InstanceState::Deleting && !self.duplicates.contains(&i.id))
            .filter(|i| {
                i.owner
                    .as_ref()
                    .is_some_and(|o| o.machine == machine && o.installation == INSTALLATION)
            })
            .map(|i| i.id)
            .collect();
        if live.len() > 1 {
            self.broke(
                "I1",
                format!("machine {machine} has {} instances: {live:?}", live.len()),
            );
        }
    }

    /// An instance is about to go: its Machine goes, and its pods went or the time-out is over (I6).
    fn instance_doomed(&mut self, machine: &str, entry: &Entry) {
        let Some(known) = self.machines.get(machine).cloned() else {
            self.broke(
                "I7",
                format!(
                    "an instance of machine {machine} is deleted, and there is no such Machine"
                ),
            );
            return;
        };
        if known.object.spec.instance_key != entry.instance_key {
            self.broke(
                "I2",
                format!("an instance with another key is deleted for machine {machine}"),
            );
            return;
        }
        if !known.object.metadata.deleting() {
            self.broke(
                "I7",
                format!("the instance of machine {machine} is deleted, and the Machine stays"),
            );
            return;
        }
        let cluster = known.object.spec.cluster_name.clone();
        let going = self
            .clusters
            .get(&cluster)
            .is_none_or(|c| c.metadata.deleting());
        let excluded = known
            .object
            .metadata
            .annotations
            .contains_key(meta::ANNOTATION_EXCLUDE_NODE_DRAINING);
        if !going {
            self.member_has_left(machine, &cluster);
        }
        if going || excluded {
            return;
        }
        let Some(node) = known
            .object
            .status
            .node_ref
            .as_ref()
            .map(|n| n.name.clone())
        else {
            return;
        };
        let stays = |(name, m): (&String, &Known)| name != machine && !m.object.metadata.deleting();
        if !self.control_plane(&cluster).any(stays) {
            // Its control plane goes with it: nobody is left to evict anything.
            return;
        }
        let left = self.left_on(&cluster, &node, machine);
        if left.is_empty() {
            return;
        }
        let started = known.object.status.deletion.node_drain_start_time.as_ref();
        let started = started.and_then(|t| t.parse::<Timestamp>().ok());
        let timeout = known
            .object
            .spec
            .deletion
            .node_drain_timeout_seconds
            .unwrap_or(DRAIN_SECONDS);
        let waited = started.map(|s| self.now().duration_since(s).as_secs());
        if waited.is_some_and(|w| w >= timeout) {
            self.around.weather.count(Kind::DrainTimeout, 1);
            return;
        }
        self.broke(
            "I6",
            format!("the instance of machine {machine} is deleted after {waited:?} s of {timeout}, and pods {left:?} are still on its node"),
        );
    }

    /// Pods on a node that a drain has to evict. Of those that end, and are not waited for where the kubelet is silent, only while
    /// nothing breaks.
    fn left_on(&self, cluster: &str, node: &str, machine: &str) -> Vec<String> {
        let key = cluster_key(INSTALLATION, "default", cluster);
        let Some(store) = self.cloud.as_ref().and_then(|c| c.objects(&key)) else {
            return Vec::new();
        };
        let nodes: Vec<Named> = stored(&store, "/core/nodes/");
        if !nodes.iter().any(|n| n.metadata.name == node) {
            return Vec::new();
        }
        let rules: Vec<Rule> = stored(&self.store, "/fleetwright.dev/machinedrainrules/");
        let of = |all: &[Selected], label: &str| -> Vec<String> {
            let labels = all.iter().map(|one| &one.selector.match_labels);
            labels.filter_map(|l| l.get(label)).cloned().collect()
        };
        let left: Vec<String> = rules
            .iter()
            .map(|rule| &rule.spec)
            .filter(|rule| rule.drain.behavior == "Skip")
            .filter(|rule| of(&rule.machines, meta::LABEL_CLUSTER_NAME) == [cluster])
            .flat_map(|rule| of(&rule.pods, "app"))
            .collect();
        let waits = self.calm && !self.broken_members.contains_key(machine);
        stored::<Pod>(&store, "/core/pods/")
            .into_iter()
            .filter(|p| p.spec.node_name == node && p.goes(&left))
            .filter(|p| waits || !p.metadata.deleting())
            .map(|p| p.metadata.name)
            .collect()
    }

    /// A request of the engine to a workload cluster's API was answered.
    pub(crate) fn overheard(&mut self, key: &str, method: &Method, path: &str, code: u16) {
        if *method == Method::GET {
            return;
        }
        self.asked(format!("{method} {path} of {key}"));
        self.look();
        self.line(format!("workload {method} {path} {code}"));
        if path.ends_with("/eviction") {
            if code == 429 {
                self.around.weather.count(Kind::Budget, 1);
            }
            return;
        }
        if *method == Method::DELETE && path.contains("/pods/") {
            self.broke("I6", format!("a pod is deleted past its budget: {path}"));
        }
        if path.ends_with(FOREIGN_NODE) {
            self.broke(
                "I2",
                format!("a node that is none of ours is changed: {method} {path}"),
            );
        }
        if let Some((_, node)) = path.rsplit_once("/nodes/")
            && *method == Method::DELETE
            && let Some(known) = self.machines.get(node)
            && !known.object.metadata.deleting()
        {
            self.broke(
                "I2",
                format!("the node of machine {node} is deleted, and the Machine stays"),
            );
        }
    }
}
