//! At the end: machines, instances and nodes have what reaches them in place, and nothing is left of machines that are gone.

use std::collections::BTreeMap;

use fleetwright_api::{meta, names::cluster_key};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Checker,
    cloud::{FOREIGN_NODE, INSTALLATION},
    declared::said,
    model::Machine,
    stored,
};

/// Default of `revisionHistoryLimit`.
const HISTORY: u64 = 10;
/// Fields of a template's spec that reach machines that run.
const IN_PLACE: [&str; 4] = ["deletion", "minReadySeconds", "readinessGates", "taints"];
/// The domain of labels, annotations and taints that machines hand to their nodes.
const HANDED: &str = "node.fleetwright.dev";

/// Those of the labels or annotations that are not the engine's own.
fn written(map: &Value) -> BTreeMap<&str, &Value> {
    let own = |key: &str| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let engine = domain == "fleetwright.dev" || domain.ends_with(".fleetwright.dev");
        engine && domain != HANDED
    };
    let all = map.as_object().into_iter().flatten();
    let all = all.map(|(key, value)| (key.as_str(), value));
    all.filter(|(key, _)| !own(key)).collect()
}

/// Those of the labels or annotations that a node has from its machine.
fn handed(map: &Value) -> BTreeMap<&str, &Value> {
    let mut all = written(map);
    all.retain(|key, _| key.split_once('/').is_some_and(|(of, _)| of == HANDED));
    all
}

/// Taints, but for those that Kubernetes puts.
fn taints(list: &Value) -> Vec<String> {
    let all = list.as_array().into_iter().flatten();
    let theirs = all.filter(|t| {
        !t["key"]
            .as_str()
            .is_some_and(|k| k.contains("kubernetes.io/"))
    });
    let mut all: Vec<_> = theirs
        .map(|t| format!("{} {} {}", t["key"], t["value"], t["effect"]))
        .collect();
    all.sort();
    all
}

impl Checker {
    /// A machine is gone. Its node may stay where its cluster did not let it be deleted in time.
    pub(super) fn node_given_up(&mut self, machine: &Machine) {
        let begun = machine.status.deletion.node_deletion_start_time.as_ref();
        let begun = begun.and_then(|t| t.parse::<Timestamp>().ok());
        let allowed = machine.spec.deletion.node_deletion_timeout_seconds;
        if let (Some(begun), Some(allowed)) = (begun, allowed)
            && self.now().duration_since(begun).as_secs() >= allowed
        {
            self.nodes_given_up.insert(machine.metadata.name.clone());
        }
    }

    /// What of machines, instances and nodes is not as it is to be.
    pub(super) fn running_unconverged(&self, all: &mut Vec<String>) {
        let [machines, pools, clusters] =
            ["machines", "machinedeployments", "clusters"].map(|kind| self.live(kind));
        let tags = self.tags();
        for (name, machine) in &machines {
            let pool = machine["metadata"]["labels"][meta::LABEL_DEPLOYMENT_NAME].as_str();
            let cluster = machine["spec"]["clusterName"].as_str().unwrap_or_default();
            let owner = match pool {
                Some(pool) => pools.get(pool),
                None => clusters.get(cluster),
            };
            let Some(owner) = owner else {
                all.push(format!("machine {name} belongs to nobody"));
                continue;
            };
            let wanted = match pool {
                Some(_) => &owner["spec"],
                None => &owner["spec"]["controlPlane"]["machines"],
            };
            in_place(name, machine, &wanted["template"], all);
            let wanted_tags = said(&wanted["template"]["spec"]["providerConfig"]["tags"]);
            if tags.get(name) != Some(&wanted_tags) {
                let has = tags.get(name);
                all.push(format!(
                    "the instance of machine {name} has tags {has:?} and not {wanted_tags}"
                ));
            }
            let made = machine["metadata"]["creationTimestamp"].as_str();
            let restarted = &owner["metadata"]["annotations"][meta::ANNOTATION_RESTARTED_AT];
            for after in [&wanted["rollout"]["after"], restarted] {
                let after = after.as_str().and_then(|t| t.parse::<Timestamp>().ok());
                let made = made.and_then(|t| t.parse::<Timestamp>().ok());
                if after.is_some_and(|after| made < Some(after) && after <= self.now()) {
                    all.push(format!("machine {name} is older than {after:?}"));
                }
            }
        }
        for (name, pool) in &pools {
            let limit = pool["spec"]["revisionHistoryLimit"].as_u64();
            let limit = limit.unwrap_or(HISTORY);
            let of = self.sets.values();
            let of = of.filter(|s| s.metadata.owner() == Some(name));
            let newest = of.clone().map(|s| s.revision()).max();
            let old = of.filter(|s| s.spec.replicas == 0 && Some(s.revision()) < newest);
            let old = old.count() as u64;
            if old > limit {
                all.push(format!("pool {name} has {old} old sets and keeps {limit}"));
            }
        }
        for cluster in clusters.keys() {
            self.nodes_unconverged(cluster, &machines, all);
        }
    }

    /// Tags of the instances of our machines.
    fn tags(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        let Some(cloud) = &self.cloud else { return all };
        for instance in cloud.instances() {
            let owner = instance.owner.filter(|o| o.installation == INSTALLATION);
            if let Some(owner) = owner
                && !self.duplicates.contains(&instance.id)
            {
                let tags = cloud.tags(&instance.id).unwrap_or_default();
                all.insert(owner.machine, said(&tags));
            }
        }
        all
    }

    /// The nodes and the members of etcd of a cluster are those of its machines.
    fn nodes_unconverged(
        &self,
        cluster: &str,
        machines: &BTreeMap<String, Value>,
        all: &mut Vec<String>,
    ) {
        let key = cluster_key(INSTALLATION, "default", cluster);
        let Some(cloud) = &self.cloud else { return };
        let store = cloud.objects(&key);
        let nodes = store
            .iter()
            .flat_map(|s| stored::<Value>(s, "/core/nodes/"));
        for node in nodes {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            if name == FOREIGN_NODE || self.nodes_given_up.contains(name) {
                continue;
            }
            let Some(machine) = machines.get(name) else {
                all.push(format!(
                    "node {name} of cluster {cluster} is left, and there is no such machine"
                ));
                continue;
            };
            for what in ["labels", "annotations"] {
                let of = |object: &Value| {
                    let handed = handed(&object["metadata"][what]);
                    format!("{handed:?}")
                };
                if of(&node) != of(machine) {
                    let (has, wants) = (of(&node), of(machine));
                    all.push(format!("node {name} has {what} {has} and not {wants}"));
                }
            }
            let has = taints(&node["spec"]["taints"]);
            let wants = taints(&machine["spec"]["taints"]);
            if has != wants {
                all.push(format!("node {name} has taints {has:?} and not {wants:?}"));
            }
        }
        for member in cloud.etcd_members(&key) {
            if !machines.contains_key(&member.name) {
                all.push(format!(
                    "etcd of cluster {cluster} has member {}, and there is no such machine",
                    member.name
                ));
            }
        }
    }
}

/// What a machine has not as its template says, of what reaches it in place.
fn in_place(name: &str, machine: &Value, template: &Value, all: &mut Vec<String>) {
    for what in ["labels", "annotations"] {
        let has = written(&machine["metadata"][what]);
        let wants = written(&template["metadata"][what]);
        if has != wants {
            all.push(format!(
                "machine {name} has {what} {has:?} and not {wants:?}"
            ));
        }
    }
    for field in IN_PLACE {
        let (has, wants) = (
            said(&machine["spec"][field]),
            said(&template["spec"][field]),
        );
        if has != wants {
            all.push(format!("machine {name} has {field} {has} and not {wants}"));
        }
    }
}
