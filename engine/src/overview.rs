//! What people see of the fleet at a glance: a line for each Fleet and each cluster, from live objects alone.

use std::{collections::BTreeMap, fmt::Write as _};

use fleetwright_api::{
    Cluster, Fleet, MachineDeployment,
    condition::{self, kind},
};
use kube::ResourceExt;

/// Namespace and name.
pub(crate) type Name = (String, String);

/// What is shown of Fleets, clusters and pools, and nothing else of them: as news of one comes in, that one alone is put into words.
#[derive(Default)]
pub(crate) struct Overview {
    fleets: BTreeMap<Name, String>,
    clusters: BTreeMap<Name, Line>,
    /// Each pool's words, by its cluster and its name.
    pools: BTreeMap<(Name, String), String>,
}

/// One cluster at a glance.
struct Line {
    available: bool,
    /// Running version, then the wanted one where it differs.
    version: String,
    /// `ready/wanted` control-plane machines.
    control_plane: String,
    /// What it waits for, in the controllers' words.
    message: String,
}

/// What is shown of objects of one kind.
pub(crate) trait Shown {
    /// It is as it says now.
    fn put(&self, overview: &mut Overview);
    /// It is gone.
    fn remove(&self, overview: &mut Overview);
    /// All of its kind are told anew.
    fn clear(overview: &mut Overview);
}

impl Shown for Fleet {
    fn put(&self, overview: &mut Overview) {
        overview.fleets.insert(name(self), of_fleet(self));
    }

    fn remove(&self, overview: &mut Overview) {
        overview.fleets.remove(&name(self));
    }

    fn clear(overview: &mut Overview) {
        overview.fleets.clear();
    }
}

impl Shown for Cluster {
    fn put(&self, overview: &mut Overview) {
        overview.clusters.insert(name(self), Line::of(self));
    }

    fn remove(&self, overview: &mut Overview) {
        overview.clusters.remove(&name(self));
    }

    fn clear(overview: &mut Overview) {
        overview.clusters.clear();
    }
}

impl Shown for MachineDeployment {
    fn put(&self, overview: &mut Overview) {
        let status = self.status.clone().unwrap_or_default();
        let wanted = self.spec.replicas.unwrap_or(1);
        let mut text = format!("{} {}/{wanted}", self.name_any(), status.ready_replicas);
        if status.up_to_date_replicas < status.replicas {
            let left = status.replicas - status.up_to_date_replicas;
            let _ = write!(text, " ({left} to replace)");
        }
        overview.pools.insert(of_cluster(self), text);
    }

    fn remove(&self, overview: &mut Overview) {
        overview.pools.remove(&of_cluster(self));
    }

    fn clear(overview: &mut Overview) {
        overview.pools.clear();
    }
}

/// Namespace and name of an object.
pub(crate) fn name(object: &impl ResourceExt) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn of_cluster(pool: &MachineDeployment) -> (Name, String) {
    let (namespace, name) = name(pool);
    ((namespace, pool.spec.cluster_name.clone()), name)
}

fn of_fleet(fleet: &Fleet) -> String {
    let conditions = fleet.status.as_ref().map(|status| &status.conditions);
    let ready = conditions.and_then(|all| condition::get(all, kind::READY));
    let text = ready.map_or("looking at the source", |c| {
        c.message.lines().next().unwrap_or_default()
    });
    let mark = match ready {
        Some(ready) if ready.status == "False" => '✗',
        _ => ' ',
    };
    format!("{mark} fleet {}: {text}", fleet.name_any())
}

impl Overview {
    /// A line for each Fleet, sorted by namespace and name.
    pub(crate) fn fleets(&self) -> impl Iterator<Item = (&Name, &str)> {
        let all = self.fleets.iter();
        all.map(|(name, line)| (name, line.as_str()))
    }

    /// A line for each cluster, sorted by namespace and name.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&Name, String)> {
        self.clusters
            .iter()
            .map(|(name, line)| (name, line.render(name, self.pools_of(name))))
    }

    fn pools_of<'a>(&'a self, cluster: &'a Name) -> impl Iterator<Item = &'a str> {
        let from = (cluster.clone(), String::new());
        self.pools
            .range(from..)
            .take_while(move |((of, _), _)| of == cluster)
            .map(|(_, words)| words.as_str())
    }

    /// Leaves out what clusters wait for.
    pub(crate) fn without_messages(mut self) -> Self {
        let lines = self.clusters.values_mut();
        lines.for_each(|line| line.message.clear());
        self
    }
}

impl Line {
    fn of(cluster: &Cluster) -> Self {
        let none = Default::default();
        let status = cluster.status.as_ref().unwrap_or(&none);
        let wanted = &cluster.spec.version;
        let version = match &status.version {
            Some(running) if running == wanted => running.clone(),
            Some(running) => format!("{running}→{wanted}"),
            None => format!("→{wanted}"),
        };
        let (ready, desired) = status
            .control_plane
            .as_ref()
            .map_or((0, 0), |c| (c.ready_replicas, c.desired_replicas));
        let available = condition::is_true(&status.conditions, kind::AVAILABLE);
        let message = [kind::UPGRADE_BLOCKED, kind::VERSION_HELD, kind::DELETING]
            .into_iter()
            .filter(|k| condition::is_true(&status.conditions, k))
            .chain((!available).then_some(kind::AVAILABLE))
            .filter_map(|k| condition::get(&status.conditions, k))
            .map(|c| c.message.lines().next().unwrap_or_default().to_owned())
            .find(|m| !m.is_empty())
            .unwrap_or_default();
        Self {
            available,
            version,
            control_plane: format!("{ready}/{desired}"),
            message,
        }
    }

    fn render<'a>(
        &self,
        (namespace, name): &Name,
        mut pools: impl Iterator<Item = &'a str>,
    ) -> String {
        let mark = if self.available { '●' } else { '○' };
        let mut text = format!(
            "{mark} {:<24} {:<18} cp {}",
            format!("{namespace}/{name}"),
            self.version,
            self.control_plane
        );
        if let Some(first) = pools.next() {
            let _ = write!(text, "  {first}");
            pools.for_each(|pool| {
                let _ = write!(text, ", {pool}");
            });
        }
        if !self.message.is_empty() {
            let _ = write!(text, "  {}", self.message);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use fleetwright_api::{
        cluster::{ClusterSpec, ClusterStatus, MachineCounts},
        condition::{Status, reason},
        machine_deployment::{MachineDeploymentSpec, MachineDeploymentStatus},
    };
    use jiff::Timestamp;

    use super::*;

    fn cluster(name: &str, running: Option<&str>, available: bool) -> Cluster {
        let mut c = Cluster::new(
            name,
            ClusterSpec {
                version: "v1.34.1".into(),
                ..Default::default()
            },
        );
        c.metadata.namespace = Some("prod".into());
        let mut status = ClusterStatus {
            version: running.map(Into::into),
            control_plane: Some(MachineCounts {
                desired_replicas: 3,
                ready_replicas: 2,
                ..Default::default()
            }),
            ..Default::default()
        };
        condition::set(
            &mut status.conditions,
            kind::AVAILABLE,
            Status::from(available),
            reason::NOT_AVAILABLE,
            "waits for eu-cp-1\nand more",
            None,
            Timestamp::UNIX_EPOCH,
        );
        c.status = Some(status);
        c
    }

    #[test]
    fn shows_versions_pools_and_what_it_waits_for() {
        let mut pool = MachineDeployment::new(
            "web",
            MachineDeploymentSpec {
                cluster_name: "eu".into(),
                replicas: Some(4),
                ..Default::default()
            },
        );
        pool.metadata.namespace = Some("prod".into());
        pool.status = Some(MachineDeploymentStatus {
            replicas: 5,
            ready_replicas: 4,
            up_to_date_replicas: 2,
            ..Default::default()
        });
        let mut overview = Overview::default();
        cluster("us", Some("v1.34.1"), true).put(&mut overview);
        cluster("eu", Some("v1.33.2"), false).put(&mut overview);
        pool.put(&mut overview);
        let eu = "○ prod/eu                  v1.33.2→v1.34.1    cp 2/3";
        let us = "● prod/us                  v1.34.1            cp 2/3";
        let lines = |overview: &Overview| -> Vec<String> {
            overview.lines().map(|(_, line)| line).collect()
        };
        let with = |pools: &str, waits: &str| [format!("{eu}{pools}{waits}"), us.to_owned()];
        let (web, waits) = ("  web 4/4 (3 to replace)", "  waits for eu-cp-1");
        assert_eq!(lines(&overview), with(web, waits));
        pool.metadata.name = Some("api".into());
        pool.put(&mut overview);
        let both = "  api 4/4 (3 to replace), web 4/4 (3 to replace)";
        assert_eq!(lines(&overview), with(both, waits));
        pool.remove(&mut overview);
        let overview = overview.without_messages();
        assert_eq!(lines(&overview), with(web, ""));
    }
}
