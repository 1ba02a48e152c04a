//! I1, I2 and I6: what is done at the provider and in workload clusters.

use fleetwright_api::{meta, names::cluster_key};
use fleetwright_provider_sim::Entry;
use fleetwright_providers::InstanceState;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use super::{Checker, model::Meta};
use crate::{fleet::DRAIN_SECONDS, weather::Kind};

/// Name of the installation under test.
pub(crate) const INSTALLATION: &str = "sim";
/// The node that was there before us in each cluster.
pub(crate) const FOREIGN_NODE: &str = "by-hand";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Meta,
    spec: PodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Budget {
    metadata: Meta,
    status: BudgetStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetStatus {
    disruptions_allowed: i64,
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
        let protected = self.protected(&cluster, &node);
        if protected.is_empty() {
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
            format!("the instance of machine {machine} is deleted after {waited:?} s of {timeout}, and pods {protected:?} on its node are protected by budgets"),
        );
    }

    /// Pods on a node that a budget does not let go.
    fn protected(&self, cluster: &str, node: &str) -> Vec<String> {
        let key = cluster_key(INSTALLATION, "default", cluster);
        let Some(store) = self.cloud.as_ref().and_then(|c| c.objects(&key)) else {
            return Vec::new();
        };
        let budgets = store.range("/policy/poddisruptionbudgets/", None, 0).0;
        let strict: Vec<String> = budgets
            .iter()
            .filter_map(|e| serde_json::from_slice::<Budget>(&e.value.bytes()).ok())
            .filter(|b| b.status.disruptions_allowed <= 0)
            .map(|b| b.metadata.name)
            .collect();
        store
            .range("/core/pods/", None, 0)
            .0
            .iter()
            .filter_map(|e| serde_json::from_slice::<Pod>(&e.value.bytes()).ok())
            .filter(|p| p.spec.node_name == node && !p.metadata.deleting())
            .filter(|p| {
                p.metadata
                    .labels
                    .get("app")
                    .is_some_and(|app| strict.contains(app))
            })
            .map(|p| p.metadata.name)
            .collect()
    }

    /// A request of the engine to a workload cluster's API was answered.
    pub(crate) fn overheard(&mut self, method: &Method, path: &str, code: u16) {
        if *method == Method::GET {
            return;
        }
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
