//! What goes with a Cluster or pool that is deleted, in the order in which it goes: the controllers' own, run ahead.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet,
    meta::{self, LABEL_CLUSTER_NAME, LABEL_DEPLOYMENT_NAME},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Key, Live, PlanEffect,
    effect::{nodes, typed},
};
use crate::cluster::{ClusterDeletionStep, deletion_step, is_control_plane};

/// Things that go together; what comes after waits until all of them are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// What goes.
    pub what: Removed,
    /// Names of the machines, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<String>,
    /// How many nodes that a provider runs go, by pool.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, i32>,
}

/// What of a Cluster or pool goes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Removed {
    /// Pools, their sets and their machines.
    Workers,
    /// The machines of the control plane, all at once.
    ControlPlane,
    /// What is kept for the Cluster beside its machines, and the Cluster itself.
    Cluster,
}

/// Machines and pools by what they belong to.
pub(super) struct Belongings<'a> {
    /// By namespace, label and its value.
    machines: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Machine>>,
    /// By namespace and Cluster.
    pools: BTreeMap<(&'a str, &'a str), Vec<&'a Value>>,
}

impl<'a> Belongings<'a> {
    pub(super) fn of(live: &'a Live) -> Self {
        let mut machines: BTreeMap<_, Vec<&Machine>> = BTreeMap::new();
        for machine in &live.machines {
            let metadata = &machine.metadata;
            let (Some(namespace), Some(labels)) = (&metadata.namespace, &metadata.labels) else {
                continue;
            };
            for label in [LABEL_CLUSTER_NAME, LABEL_DEPLOYMENT_NAME] {
                if let Some(value) = labels.get(label) {
                    let at = (namespace.as_str(), label, value.as_str());
                    machines.entry(at).or_default().push(machine);
                }
            }
        }
        let mut pools: BTreeMap<_, Vec<&Value>> = BTreeMap::new();
        for object in &live.objects {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str);
            let is_pool = text("/kind") == Some("MachineDeployment");
            let (namespace, cluster) = (text("/metadata/namespace"), text("/spec/clusterName"));
            if let (true, Some(namespace), Some(cluster)) = (is_pool, namespace, cluster) {
                pools.entry((namespace, cluster)).or_default().push(object);
            }
        }
        Self { machines, pools }
    }

    fn machines(&self, key: &Key, label: &str) -> Vec<&'a Machine> {
        let at = (key.namespace.as_str(), label, key.name.as_str());
        self.machines.get(&at).cloned().unwrap_or_default()
    }

    /// What the deletion of an object comes to.
    pub(super) fn removal(&self, key: &Key, object: &Value) -> PlanEffect {
        let steps = match key.kind.as_str() {
            "Cluster" => self.of_cluster(key, object),
            "MachineDeployment" => {
                let machines = names(self.machines(key, LABEL_DEPLOYMENT_NAME));
                let nodes = groups([object].into_iter());
                match machines.is_empty() && nodes.is_empty() {
                    true => Vec::new(),
                    false => vec![Removal {
                        nodes,
                        ..step(Removed::Workers, machines)
                    }],
                }
            }
            _ => Vec::new(),
        };
        match steps.is_empty() {
            true => PlanEffect::None,
            false => PlanEffect::Removal { steps },
        }
    }

    fn of_cluster(&self, key: &Key, object: &Value) -> Vec<Removal> {
        let mut machines = self.machines(key, LABEL_CLUSTER_NAME);
        let pools = self.pools.get(&(key.namespace.as_str(), key.name.as_str()));
        let gone_nodes = groups(pools.into_iter().flatten().copied());
        let pools = pools.into_iter().flatten();
        let mut pools: Vec<MachineDeployment> = pools.filter_map(|pool| typed(pool)).collect();
        let mut out = Vec::new();
        let Some(mut cluster) = typed::<Cluster>(object) else {
            // One that cannot be read hides no machine.
            return vec![step(Removed::Workers, names(machines))];
        };
        // A pause only puts all of it off.
        let annotations = cluster.metadata.annotations.as_mut();
        annotations.and_then(|a| a.remove(meta::ANNOTATION_PAUSED));
        let mut gone = false;
        loop {
            let none: [MachineSet; 0] = [];
            let next = deletion_step(&cluster, &pools, &none, &machines);
            match next.before_managed(&cluster, gone, None) {
                ClusterDeletionStep::Workers { .. } => {
                    let (stay, go) = machines.into_iter().partition(|m| is_control_plane(m));
                    machines = stay;
                    pools.clear();
                    out.push(Removal {
                        nodes: gone_nodes.clone(),
                        ..step(Removed::Workers, names(go))
                    });
                }
                ClusterDeletionStep::ControlPlane { .. } => {
                    out.push(step(Removed::ControlPlane, names(machines)));
                    machines = Vec::new();
                }
                ClusterDeletionStep::Managed { .. } => {
                    gone = true;
                    out.push(step(Removed::ControlPlane, Vec::new()));
                }
                ClusterDeletionStep::Finish | ClusterDeletionStep::Paused => {
                    out.push(step(Removed::Cluster, Vec::new()));
                    return out;
                }
            }
        }
    }
}

fn step(what: Removed, machines: Vec<String>) -> Removal {
    let nodes = BTreeMap::new();
    Removal {
        what,
        machines,
        nodes,
    }
}

/// How many nodes the pools among these have that a provider runs.
fn groups<'a>(pools: impl Iterator<Item = &'a Value>) -> BTreeMap<String, i32> {
    let is_group = |pool: &&Value| {
        let finalizers = pool
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array);
        finalizers.is_some_and(|all| all.iter().any(|f| f == meta::FINALIZER_POOL))
    };
    let counted = pools.filter(is_group).filter_map(|pool| {
        let name = pool.pointer("/metadata/name")?.as_str()?;
        Some((name.to_owned(), nodes(pool)?))
    });
    counted.filter(|(_, nodes)| *nodes > 0).collect()
}

fn names(machines: Vec<&Machine>) -> Vec<String> {
    let names = machines.iter().filter_map(|m| m.metadata.name.clone());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
