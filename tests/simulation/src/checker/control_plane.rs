//! I4 and I5: version skew and etcd's quorum; and that control-plane machines go for a reason (I12).

use fleetwright_api::meta;
use fleetwright_providers::InstanceState;

use super::{
    Checker, Known,
    model::{Cluster, Machine, version},
};

/// Minor versions that a kubelet may lag behind the API server.
const KUBELET_LAG: i64 = 3;

impl Checker {
    pub(super) fn cluster(&mut self, name: &str, object: Cluster, gone: bool) -> String {
        if gone {
            self.clusters.remove(name);
            self.root_gone("Cluster", name, &object.metadata);
            return String::new();
        }
        self.root("Cluster", name, &object.metadata);
        let text = format!(
            "gen={} wants={} runs={}",
            object.metadata.generation,
            object.spec.version,
            object.status.version.as_deref().unwrap_or("-")
        );
        self.clusters.insert(name.to_owned(), object);
        text
    }

    /// What a control plane's machines are made of, and all that may change it.
    pub(super) fn control_plane_cause(&self, machine: &Machine) -> String {
        let cluster = self.clusters.get(&machine.spec.cluster_name);
        cluster.map_or_else(String::new, |c| {
            let template = &c.spec.control_plane.machines.template;
            format!("{template:?} {} {:?}", c.spec.version, c.status.version)
        })
    }

    /// The control-plane machines of a cluster.
    pub(super) fn control_plane(&self, cluster: &str) -> impl Iterator<Item = (&String, &Known)> {
        self.machines.iter().filter(move |(_, m)| {
            m.object.spec.cluster_name == cluster
                && m.object
                    .metadata
                    .labels
                    .contains_key(meta::LABEL_CONTROL_PLANE)
        })
    }

    pub(super) fn control_plane_made(&mut self, name: &str) {
        let cluster = self.machines[name].object.spec.cluster_name.clone();
        let Some(wanted) = self
            .clusters
            .get(&cluster)
            .map(|c| c.spec.control_plane.machines.replicas)
        else {
            return;
        };
        let total = self.control_plane(&cluster).count();
        if i64::try_from(total).unwrap_or(0) > wanted.max(3) + 1 {
            self.broke(
                "I5",
                format!("the control plane of {cluster} has {total} machines with {name}, and is to have {wanted}"),
            );
        }
    }

    pub(super) fn control_plane_doomed(&mut self, name: &str) {
        let doomed = self.machines[name].clone();
        let cluster = doomed.object.spec.cluster_name.clone();
        let Some(of) = self
            .clusters
            .get(&cluster)
            .filter(|c| !c.metadata.deleting())
            .cloned()
        else {
            return;
        };
        if self.by_people.contains(name) {
            return;
        }
        let running: Vec<String> = self
            .cloud
            .iter()
            .flat_map(|c| c.instances())
            .filter(|i| i.state == InstanceState::Running)
            .map(|i| i.provider_id)
            .collect();
        // A member is whoever has joined and whose machine is still there.
        let others: Vec<(String, Known)> = self
            .control_plane(&cluster)
            .filter(|(n, m)| *n != name && m.object.status.node_ref.is_some())
            .map(|(n, m)| (n.clone(), m.clone()))
            .collect();
        let serves = |m: &Known| {
            let id = m.object.spec.provider_id.as_ref();
            !m.object.metadata.deleting() && id.is_some_and(|id| running.contains(id))
        };
        let healthy = others.iter().filter(|(_, m)| serves(m)).count();
        let joined = doomed.object.status.node_ref.is_some();
        if joined && (others.is_empty() || healthy < others.len() / 2 + 1) {
            let names: Vec<_> = others.iter().map(|(n, _)| n.as_str()).collect();
            self.broke(
                "I5",
                format!("control-plane machine {name} is deleted, and of the other members {names:?} only {healthy} serve"),
            );
            return;
        }
        let staying = self
            .control_plane(&cluster)
            .filter(|(_, m)| !m.object.metadata.deleting())
            .count();
        let wanted = of.spec.control_plane.machines.replicas;
        let same = doomed.cause == self.control_plane_cause(&doomed.object);
        let too_many = i64::try_from(staying).unwrap_or(0) >= wanted;
        let failed = !doomed.was_available || !doomed.available_but_for_deletion();
        if same && !too_many && !failed {
            self.broke(
                "I12",
                format!("control-plane machine {name} is deleted, and nothing that it is made of has changed"),
            );
        }
    }

    /// An instance came to be: versions beside each other in its cluster.
    pub(super) fn skew(&mut self, machine: &str) {
        let Some(known) = self.machines.get(machine) else {
            return;
        };
        let cluster = known.object.spec.cluster_name.clone();
        let there: Vec<String> = self
            .cloud
            .iter()
            .flat_map(|c| c.instances())
            .filter(|i| i.state != InstanceState::Deleting)
            .filter_map(|i| i.owner.map(|o| o.machine))
            .collect();
        let minor = |m: &Known| version(m.object.spec.version.as_deref().unwrap_or("")).0;
        let (mut servers, mut kubelets) = (Vec::new(), Vec::new());
        for (name, known) in &self.machines {
            if known.object.spec.cluster_name != cluster || !there.contains(name) {
                continue;
            }
            if known
                .object
                .metadata
                .labels
                .contains_key(meta::LABEL_CONTROL_PLANE)
            {
                servers.push((minor(known), name.clone()));
            } else {
                kubelets.push((minor(known), name.clone()));
            }
        }
        let (Some(oldest), Some(newest)) = (servers.iter().min(), servers.iter().max()) else {
            return;
        };
        if newest.0 - oldest.0 > 1 {
            let what = format!(
                "API servers of {cluster} are two minor versions apart: {oldest:?} and {newest:?}"
            );
            return self.broke("I4", what);
        }
        let ahead = kubelets.iter().find(|k| k.0 > oldest.0);
        let behind = kubelets.iter().find(|k| k.0 < newest.0 - KUBELET_LAG);
        if let Some(kubelet) = ahead {
            let what = format!("kubelet {kubelet:?} is newer than API server {oldest:?}");
            self.broke("I4", what);
        } else if let Some(kubelet) = behind {
            let what = format!(
                "kubelet {kubelet:?} is more than {KUBELET_LAG} minor versions behind API server {newest:?}"
            );
            self.broke("I4", what);
        }
    }
}

impl Known {
    /// Whether it is available, the deletion that has just begun aside.
    fn available_but_for_deletion(&self) -> bool {
        super::model::is_true(&self.object.status.conditions, "Available")
    }
}
