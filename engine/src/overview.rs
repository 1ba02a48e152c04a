//! What people see of the fleet at a glance: one line per cluster, from live objects alone.

use std::fmt::Write as _;

use fleetwright_api::{
    Cluster, MachineDeployment,
    condition::{self, kind},
};
use kube::ResourceExt;

/// One cluster at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// `namespace/name`.
    pub(crate) cluster: String,
    /// Whether the cluster is Available.
    pub(crate) available: bool,
    /// Running version, then the wanted one where it differs.
    pub(crate) version: String,
    /// `ready/wanted` control-plane machines.
    pub(crate) control_plane: String,
    /// `name ready/wanted` of each pool.
    pub(crate) pools: Vec<String>,
    /// What it waits for, in the controllers' words.
    pub(crate) message: String,
}

/// A line for each cluster, sorted by namespace and name.
pub(crate) fn lines(clusters: &[Cluster], pools: &[MachineDeployment]) -> Vec<Line> {
    let mut lines: Vec<Line> = clusters.iter().map(|c| line(c, pools)).collect();
    lines.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    lines
}

fn line(cluster: &Cluster, pools: &[MachineDeployment]) -> Line {
    let namespace = cluster.namespace().unwrap_or_default();
    let name = cluster.name_any();
    let status = cluster.status.clone().unwrap_or_default();
    let version = match &status.version {
        Some(running) if *running == cluster.spec.version => running.clone(),
        Some(running) => format!("{running}→{}", cluster.spec.version),
        None => format!("→{}", cluster.spec.version),
    };
    let counts = status.control_plane.unwrap_or_default();
    let mut own: Vec<_> = pools
        .iter()
        .filter(|p| p.spec.cluster_name == name && p.namespace().unwrap_or_default() == namespace)
        .map(|p| {
            let s = p.status.clone().unwrap_or_default();
            let wanted = p.spec.replicas.unwrap_or(1);
            let mut text = format!("{} {}/{wanted}", p.name_any(), s.ready_replicas);
            if s.up_to_date_replicas < s.replicas {
                let _ = write!(text, " ({} to replace)", s.replicas - s.up_to_date_replicas);
            }
            text
        })
        .collect();
    own.sort();
    let available = condition::is_true(&status.conditions, kind::AVAILABLE);
    let message = [kind::UPGRADE_BLOCKED, kind::VERSION_HELD, kind::DELETING]
        .into_iter()
        .filter(|k| condition::is_true(&status.conditions, k))
        .chain((!available).then_some(kind::AVAILABLE))
        .filter_map(|k| condition::get(&status.conditions, k))
        .map(|c| c.message.lines().next().unwrap_or_default().to_owned())
        .find(|m| !m.is_empty())
        .unwrap_or_default();
    Line {
        cluster: format!("{namespace}/{name}"),
        available,
        version,
        control_plane: format!("{}/{}", counts.ready_replicas, counts.desired_replicas),
        pools: own,
        message,
    }
}

impl Line {
    /// The line in at most `width` characters.
    pub(crate) fn render(&self, width: usize) -> String {
        let mark = if self.available { '●' } else { '○' };
        let mut text = format!(
            "{mark} {:<24} {:<18} cp {}",
            self.cluster, self.version, self.control_plane
        );
        if !self.pools.is_empty() {
            let _ = write!(text, "  {}", self.pools.join(", "));
        }
        if !self.message.is_empty() {
            let _ = write!(text, "  {}", self.message);
        }
        if text.chars().count() > width {
            text = text
                .chars()
                .take(width.saturating_sub(1))
                .chain(['…'])
                .collect();
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
        let got = lines(
            &[
                cluster("us", Some("v1.34.1"), true),
                cluster("eu", Some("v1.33.2"), false),
            ],
            &[pool],
        );
        assert_eq!(
            got[0].render(200),
            "○ prod/eu                  v1.33.2→v1.34.1    cp 2/3  web 4/4 (3 to replace)  waits for eu-cp-1"
        );
        assert_eq!(
            got[1].render(200),
            "● prod/us                  v1.34.1            cp 2/3"
        );
        assert_eq!(got[0].render(20).chars().count(), 20);
    }
}
