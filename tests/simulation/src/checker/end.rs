//! What holds when nothing goes wrong any more and nothing is left to do.

use std::collections::BTreeMap;

use fleetwright_provider_sim::Cloud;
use serde_json::Value;

use super::{
    Checker,
    cloud::INSTALLATION,
    model::{is_true, version},
};

impl Checker {
    /// What is not yet as it is to be; empty when all has converged.
    pub(crate) fn unconverged(&self) -> Vec<String> {
        let mut all = Vec::new();
        let Some(head) = self.around.repository.head() else {
            return vec!["there is no commit".to_owned()];
        };
        let documents: BTreeMap<(&str, &str), &Value> = head
            .files
            .values()
            .filter_map(|d| Some(((d["kind"].as_str()?, d["metadata"]["name"].as_str()?), d)))
            .collect();
        let mut held = false;
        for ((kind, name), document) in &documents {
            match *kind {
                "Cluster" => held |= self.cluster_unconverged(name, document, &mut all),
                "MachineDeployment" => self.pool_unconverged(name, document, &mut all),
                _ => {}
            }
        }
        // One that is watched ends with a write of its own.
        for (name, fleet) in self.live("fleets") {
            let waves = fleet["status"]["waves"].as_array();
            for wave in waves.into_iter().flatten() {
                all.push(format!(
                    "wave {} of Fleet {name} is {}",
                    wave["name"], wave["state"]
                ));
            }
        }
        for name in self.clusters.keys() {
            if !documents.contains_key(&("Cluster", name.as_str())) {
                all.push(format!("cluster {name} is still there"));
            }
        }
        for (name, pool) in &self.pools {
            let ours = pool
                .metadata
                .labels
                .contains_key(fleetwright_api::meta::LABEL_FLEET);
            if ours && !documents.contains_key(&("MachineDeployment", name.as_str())) {
                all.push(format!("pool {name} is still there"));
            }
        }
        for (name, machine) in &self.machines {
            if machine.object.metadata.deleting() {
                all.push(format!("machine {name} is still being deleted"));
            } else if !machine.available() {
                let ready = super::model::condition(&machine.object.status.conditions, "Ready");
                all.push(format!(
                    "machine {name} is not available: {:?}",
                    ready.map(|r| &r.message)
                ));
            }
        }
        if let Some(cloud) = &self.cloud {
            self.instances_unconverged(cloud, &mut all);
        }
        self.statuses_unconverged(&head.sha, held, &mut all);
        // What of the rest is asked for once the most telling is as it is to be.
        if all.is_empty() {
            self.declared_unconverged(documents.values().copied(), &mut all);
            self.running_unconverged(&mut all);
        }
        all
    }

    /// Gives whether the cluster's version is held back.
    fn cluster_unconverged(&self, name: &str, document: &Value, all: &mut Vec<String>) -> bool {
        let Some(cluster) = self.clusters.get(name) else {
            all.push(format!("cluster {name} is not there"));
            return false;
        };
        let wanted = document["spec"]["version"].as_str().unwrap_or_default();
        let replicas = document["spec"]["controlPlane"]["machines"]["replicas"].as_u64();
        let machines: Vec<_> = self.control_plane(name).collect();
        if Some(machines.len() as u64) != replicas {
            all.push(format!(
                "the control plane of {name} has {} machines of {replicas:?}",
                machines.len()
            ));
        }
        if cluster.spec.version != wanted {
            all.push(format!(
                "cluster {name} says version {} and not {wanted}",
                cluster.spec.version
            ));
        }
        let held = is_true(&cluster.status.conditions, "VersionHeld");
        for (machine, known) in &machines {
            let runs = known.object.spec.version.as_deref().unwrap_or_default();
            let above = version(runs).0 > version(wanted).0;
            if runs != wanted && !(held && above) {
                all.push(format!(
                    "control-plane machine {machine} is at {runs} and not {wanted}"
                ));
            }
            let template = &cluster.spec.control_plane.machines.template.spec;
            if !known
                .object
                .spec
                .provider_config
                .fits(&template.provider_config)
            {
                all.push(format!(
                    "control-plane machine {machine} is not what the cluster says"
                ));
            }
        }
        held
    }

    fn pool_unconverged(&self, name: &str, document: &Value, all: &mut Vec<String>) {
        let Some(pool) = self.pools.get(name) else {
            all.push(format!("pool {name} is not there"));
            return;
        };
        let template = &document["spec"]["template"]["spec"]["providerConfig"];
        let config = &pool.spec.template.spec.provider_config;
        for (field, has) in [
            ("instanceType", &config.instance_type),
            ("image", &config.image),
        ] {
            if template[field].as_str() != has.as_deref() {
                all.push(format!(
                    "pool {name} has {field} {has:?} and not {}",
                    template[field]
                ));
            }
        }
        // What somebody scaled stays so until a commit says something else than before.
        let declared = document["spec"]["replicas"].as_i64();
        let stays = self.scaled.get(name) == Some(&declared);
        if declared.is_some_and(|n| n != pool.spec.replicas) && !stays {
            all.push(format!(
                "pool {name} is to have {} replicas and not {declared:?}",
                pool.spec.replicas
            ));
        }
        let workers: Vec<_> = self.workers(name).collect();
        if i64::try_from(workers.len()).unwrap_or(0) != pool.spec.replicas {
            all.push(format!(
                "pool {name} has {} machines of {}",
                workers.len(),
                pool.spec.replicas
            ));
        }
        let cluster = self.clusters.get(&pool.spec.cluster_name);
        let held = cluster.is_some_and(|c| is_true(&c.status.conditions, "VersionHeld"));
        let own = pool.spec.template.spec.version.as_deref();
        let held = held && own.is_none();
        let wanted = own.or(cluster.map(|c| c.spec.version.as_str()));
        let wanted = wanted.unwrap_or_default();
        for (machine, known) in workers {
            let runs = known.object.spec.version.as_deref().unwrap_or_default();
            if runs != wanted && !held {
                all.push(format!("worker {machine} is at {runs} and not {wanted}"));
            }
            if !known.object.spec.provider_config.fits(config) {
                all.push(format!("worker {machine} is not what pool {name} says"));
            }
        }
    }

    /// Each machine has its instance, and no instance of ours is without a machine.
    fn instances_unconverged(&self, cloud: &Cloud, all: &mut Vec<String>) {
        let mut of: BTreeMap<String, usize> = BTreeMap::new();
        for instance in cloud.instances() {
            let Some(owner) = instance.owner else {
                continue;
            };
            if owner.installation == INSTALLATION && !self.duplicates.contains(&instance.id) {
                *of.entry(owner.machine).or_default() += 1;
            }
        }
        for name in self.machines.keys() {
            match of.remove(name) {
                Some(1) => {}
                many => all.push(format!(
                    "machine {name} has {} instances",
                    many.unwrap_or(0)
                )),
            }
        }
        for name in of.keys() {
            all.push(format!(
                "an instance of machine {name} is left, and the machine is gone"
            ));
        }
    }

    /// The forge has what is wanted, nothing is pending, and the newest commit's status is true.
    fn statuses_unconverged(&self, head: &str, held: bool, all: &mut Vec<String>) {
        let posts = self.around.posts.lock();
        for wish in self.wishes.values() {
            let (sha, wanted) = (&wish.spec.sha, &wish.spec.wanted);
            let context = &wish.spec.context;
            let mut last = posts.iter().rev();
            let last = last.find(|(_, (of, about), _)| of == sha && about == context);
            let told = last.map(|(_, _, c)| (c.state.as_str(), c.description.as_str()));
            if told != Some((wanted.state.as_str(), wanted.description.as_str())) {
                all.push(format!(
                    "the forge was told {told:?} of commit {sha} ({context}), and {wanted:?} is wanted"
                ));
            }
            if wanted.state == "pending" {
                all.push(format!(
                    "the status of commit {sha} ({context}) is pending still: {}",
                    wanted.description
                ));
            }
        }
        let whole = |w: &&super::model::Wish| w.spec.sha == head && w.spec.cluster().is_none();
        match self.wishes.values().find(whole) {
            None => all.push(format!("commit {head} has no status")),
            Some(wish) if (wish.spec.wanted.state == "success") == held => {
                all.push(format!(
                    "a version is held: {held}, and the newest commit's status is {:?}",
                    wish.spec.wanted
                ));
            }
            Some(_) => {}
        }
    }
}
