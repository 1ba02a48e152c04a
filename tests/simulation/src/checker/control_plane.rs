//! I4 and I5: version skew and etcd's quorum; and that control-plane machines go for a reason (I12).

use std::collections::BTreeSet;

use fleetwright_api::{meta, names::cluster_key};
use fleetwright_providers::InstanceState;
use jiff::SignedDuration;

use super::{
    Checker, INSTALLATION, Known,
    model::{Cluster, Machine, is_true, version},
};
use crate::fleet::VERSIONS;

/// How long ago a member may have broken that a decision did not know of.
const DECIDED: SignedDuration = SignedDuration::from_secs(60);
/// Minor versions that a kubelet may lag behind the API server.
const KUBELET_LAG: i64 = 3;

impl Checker {
    pub(super) fn cluster(&mut self, name: &str, object: Cluster, gone: bool) -> String {
        if gone {
            self.clusters.remove(name);
            self.converged_at.remove(name);
            self.born.remove(name);
            self.root_gone("Cluster", name, &object.metadata);
            return String::new();
        }
        self.root("Cluster", name, &object.metadata);
        let was = self.clusters.get(name).map(|c| c.metadata.clone());
        self.reached("Cluster", was.as_ref(), &object.metadata);
        let text = format!(
            "gen={} wants={} runs={}",
            object.metadata.generation,
            object.spec.version,
            object.status.version.as_deref().unwrap_or("-")
        );
        let revision = object.metadata.annotations.get(meta::ANNOTATION_REVISION);
        if let Some(revision) = revision {
            let born = self.born.entry(name.to_owned());
            born.or_insert_with(|| revision.clone());
            let said = self.converged_at.get(name).map(|(of, _)| of);
            if said != Some(revision) && self.cluster_fits(name, &object) {
                let now = (revision.clone(), self.now());
                self.converged_at.insert(name.to_owned(), now);
            }
        }
        self.clusters.insert(name.to_owned(), object);
        text
    }

    /// The version that a control plane has no way back from, as an index.
    pub(crate) fn stays_at(&self, name: &str) -> Option<usize> {
        let cluster = self.clusters.get(name)?;
        if !is_true(&cluster.status.conditions, "VersionHeld") {
            return None;
        }
        let at = |(_, known): (&String, &Known)| {
            let runs = known.object.spec.version.as_deref()?;
            VERSIONS.iter().position(|v| *v == runs)
        };
        self.control_plane(name).filter_map(at).max()
    }

    /// What a control plane's machines are made of, and all that may change it.
    pub(super) fn control_plane_cause(&self, machine: &Machine) -> String {
        let cluster = self.clusters.get(&machine.spec.cluster_name);
        cluster.map_or_else(String::new, |c| {
            let machines = &c.spec.control_plane.machines;
            let (template, after) = (&machines.template, &machines.rollout.after);
            let versions = (&c.spec.version, &c.status.version);
            format!("{template:?} {after:?} {versions:?}")
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
        let joined = doomed.object.status.node_ref.is_some();
        let leaves = |n: &str| {
            self.machines
                .get(n)
                .is_none_or(|m| m.object.metadata.deleting())
        };
        let healthy = self.healthy_members(&cluster);
        let others: Vec<String> = self.voters(&cluster).filter(|n| n != name).collect();
        // A machine that goes already carries no quorum beside one that serves. Where a broken one goes it still does: its own member
        // leaves later, when etcd can do without it.
        let broken = !healthy.iter().any(|n| n == name);
        let counts = |n: &&String| *n != name && (broken || !leaves(n));
        let serve = healthy.iter().filter(counts).count();
        if joined && (others.is_empty() || serve < others.len() / 2 + 1) {
            self.broke(
                "I5",
                format!("control-plane machine {name} is deleted, and of the other members {others:?} only {serve} serve"),
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

    /// The members of a cluster's etcd whose instances run and that are healthy, or were when what is done now was decided.
    fn healthy_members(&self, cluster: &str) -> Vec<String> {
        let key = cluster_key(INSTALLATION, "default", cluster);
        let now = self.now();
        let decided = |name: &str| {
            let broke = self.broken_members.get(name);
            broke.is_some_and(|at| now.duration_since(*at) < DECIDED)
        };
        let instances = self.cloud.iter().flat_map(|c| c.instances());
        let running: BTreeSet<String> = instances
            .filter(|i| i.state == InstanceState::Running)
            .filter_map(|i| i.owner)
            .filter(|owner| owner.cluster_key == key)
            .map(|owner| owner.machine)
            .collect();
        let members = self.cloud.iter().flat_map(|c| c.etcd_members(&key));
        members
            .filter(|m| !m.learner && running.contains(&m.name))
            .filter(|m| m.healthy || decided(&m.name))
            .map(|m| m.name)
            .collect()
    }

    /// The members of a cluster's etcd that count for its quorum: those that learn do not.
    fn voters(&self, cluster: &str) -> impl Iterator<Item = String> {
        let key = cluster_key(INSTALLATION, "default", cluster);
        let members = self.cloud.iter().flat_map(move |c| c.etcd_members(&key));
        members.filter(|m| !m.learner).map(|m| m.name)
    }

    /// An instance goes of a machine that stays for no other reason: its member has left etcd, unless nobody else is in it. One that
    /// joined a moment ago, after etcd was asked, only learns: etcd keeps its quorum without it.
    pub(super) fn member_has_left(&mut self, machine: &str, cluster: &str) {
        let members: Vec<_> = self.voters(cluster).collect();
        if members.len() > 1 && members.iter().any(|m| m == machine) {
            self.broke(
                "I5",
                format!("the instance of machine {machine} is deleted, and it is still one of etcd's members {members:?}"),
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
            .filter_map(|i| i.owner)
            .filter(|owner| owner.installation == INSTALLATION)
            .map(|owner| owner.machine)
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
