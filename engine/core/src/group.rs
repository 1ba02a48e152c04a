//! Pools whose nodes their provider makes, replaces and scales by itself: what is ordered of it.
//!
//! Such a pool has no sets and no Machines. Bounds of its rollouts are the provider's, in its `providerConfig`.

use std::{collections::BTreeMap, fmt};

use fleetwright_api::{
    Cluster, MachineDeployment, ProviderConfig,
    fleet::{DriftAction, DriftRule, FleetSpec},
    machine::MachineTaint,
    meta,
    version::Version,
};
use jiff::Timestamp;

use crate::{
    catalogue::Catalogue,
    pool_version::{VersionReason, effective_version},
    waves::{Opening, opening},
};

#[cfg(test)]
mod tests;

/// What a group of nodes is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupOrder {
    /// Version of its nodes.
    pub version: Version,
    /// The effective `providerConfig`.
    pub config: ProviderConfig,
    /// Wanted nodes; `None` where an autoscaler decides.
    pub replicas: Option<i32>,
    /// Fewest and most nodes, where an autoscaler decides.
    pub bounds: Option<(i32, i32)>,
    /// Labels of the template.
    pub labels: BTreeMap<String, String>,
    /// Taints that nodes register with.
    pub taints: Vec<MachineTaint>,
}

/// Why a group is not, or not yet, what its pool says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupWait {
    /// The pool or its Cluster is paused.
    Paused,
    /// The pool or its Cluster is on its way out.
    Deleting,
    /// There is no such Cluster.
    NoCluster(String),
    /// The provider does not run the cluster's control plane.
    NotManaged {
        /// The Cluster.
        cluster: String,
        /// The pool's kind of `providerConfig`.
        kind: String,
    },
    /// The control plane is another account's.
    OtherAccount {
        /// The pool's.
        pool: String,
        /// The control plane's.
        control_plane: String,
    },
    /// The pool has sets of machines, and cannot become this kind.
    HasSets(String),
    /// The pool is a group, and cannot become this kind.
    IsGroup(String),
    /// Its version.
    Version(VersionReason),
}

impl fmt::Display for GroupWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused"),
            Self::Deleting => f.write_str("the pool is on its way out"),
            Self::NoCluster(name) => write!(f, "there is no Cluster {name}"),
            Self::NotManaged { cluster, kind } => write!(
                f,
                "{kind} is a group of nodes of a control plane that the provider runs, and {cluster} has none: use a kind of providerConfig for machines"
            ),
            Self::OtherAccount {
                pool,
                control_plane,
            } => write!(
                f,
                "the control plane is in account {control_plane}, and a group of its nodes cannot be in {pool}: set providerConfig.account to {control_plane}"
            ),
            Self::HasSets(kind) => write!(
                f,
                "the pool has machines of ours, which cannot become {kind}: make another pool, and delete this one"
            ),
            Self::IsGroup(kind) => write!(
                f,
                "the provider runs the pool's nodes, which cannot become {kind}: make another pool, and delete this one"
            ),
            Self::Version(reason) => reason.fmt(f),
        }
    }
}

/// What is done about a group.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct GroupDecision {
    /// What the provider is asked for; `None` where it is left alone.
    pub order: Option<GroupOrder>,
    /// What it waits for.
    pub waits: Option<GroupWait>,
}

impl GroupDecision {
    /// Nothing is ordered.
    pub fn waits(why: GroupWait) -> Self {
        Self {
            order: None,
            waits: Some(why),
        }
    }
}

/// Whether a cluster-autoscaler decides how many nodes there are.
pub fn is_autoscaled(pool: &MachineDeployment) -> bool {
    let annotations = pool.metadata.annotations.as_ref();
    let bounds = [
        meta::ANNOTATION_AUTOSCALER_MIN,
        meta::ANNOTATION_AUTOSCALER_MAX,
    ];
    annotations.is_some_and(|a| bounds.iter().all(|bound| a.contains_key(*bound)))
}

/// Fewest and most nodes that the autoscaler of the pool may want, where both are numbers.
fn bounds(pool: &MachineDeployment) -> Option<(i32, i32)> {
    let annotations = pool.metadata.annotations.as_ref()?;
    let number = |key: &str| annotations.get(key)?.trim().parse::<i32>().ok();
    let (min, max) = (
        number(meta::ANNOTATION_AUTOSCALER_MIN)?,
        number(meta::ANNOTATION_AUTOSCALER_MAX)?,
    );
    (0 <= min && min <= max).then_some((min, max))
}

/// What `spec.replicas` becomes where an autoscaler decides and the group wants `shown` nodes; `None` where it stays.
pub fn replicas_follow(pool: &MachineDeployment, shown: i32) -> Option<i32> {
    (is_autoscaled(pool) && pool.spec.replicas.unwrap_or(1) != shown).then_some(shown)
}

/// What is done where somebody else changed the number of a group's nodes, by the Fleet's policy for `spec.replicas` of pools. One that
/// is suspended or whose windows are closed corrects nothing, and neither does nobody.
pub fn drift_action(fleet: Option<&FleetSpec>, now: Timestamp) -> DriftAction {
    let Some(fleet) = fleet else {
        return DriftAction::Report;
    };
    if fleet.suspend == Some(true) || opening(&fleet.windows, now) != Opening::Open {
        return DriftAction::Report;
    }
    let Some(policy) = &fleet.drift else {
        return DriftAction::default();
    };
    // Nobody knows who changed it: a rule for certain managers fits none of it.
    let fits = |rule: &&DriftRule| {
        let kind = rule.kinds.is_empty() || rule.kinds.iter().any(|k| k == "MachineDeployment");
        let covers =
            |path: &String| ["spec", "spec.replicas"].contains(&path.trim_start_matches('.'));
        let path = rule.paths.is_empty() || rule.paths.iter().any(covers);
        kind && path && rule.managers.is_empty()
    };
    let rule = policy.rules.iter().find(fits);
    rule.map_or_else(|| policy.policy.unwrap_or_default(), |rule| rule.policy)
}

/// The lowest version of groups that are to have nodes: of what they run, while it is not all of what they are to run.
pub fn lowest_version(pools: &[MachineDeployment], catalogue: &Catalogue) -> Option<Version> {
    let is_group =
        |p: &&MachineDeployment| catalogue.is_group(&p.spec.template.spec.provider_config);
    let has_nodes = |p: &&MachineDeployment| {
        let there = p.status.as_ref().map_or(0, |s| s.replicas);
        p.spec.replicas != Some(0) || there > 0
    };
    let groups = pools.iter().filter(is_group).filter(has_nodes);
    let version = |p: &MachineDeployment| p.status.as_ref()?.version.as_deref()?.parse().ok();
    groups.filter_map(version).min()
}

/// What the provider is asked for. `has_sets`: whether the pool has sets, from when it was one of machines.
pub fn decide(
    pool: &MachineDeployment,
    cluster: Option<&Cluster>,
    has_sets: bool,
    catalogue: &Catalogue,
) -> GroupDecision {
    let spec = &pool.spec.template.spec;
    if pool.metadata.deletion_timestamp.is_some() {
        return GroupDecision::waits(GroupWait::Deleting);
    }
    let Some(cluster) = cluster else {
        return GroupDecision::waits(GroupWait::NoCluster(pool.spec.cluster_name.clone()));
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        return GroupDecision::waits(GroupWait::Deleting);
    }
    let kind = spec.provider_config.kind().to_owned();
    if !catalogue.is_group(&spec.provider_config) {
        return GroupDecision::waits(GroupWait::IsGroup(kind));
    }
    if has_sets {
        return GroupDecision::waits(GroupWait::HasSets(kind));
    }
    let Some(managed) = &cluster.spec.control_plane.managed else {
        let cluster = pool.spec.cluster_name.clone();
        return GroupDecision::waits(GroupWait::NotManaged { cluster, kind });
    };
    let (own, theirs) = (
        spec.provider_config.account(),
        managed.provider_config.account(),
    );
    if own != theirs {
        return GroupDecision::waits(GroupWait::OtherAccount {
            pool: own.to_owned(),
            control_plane: theirs.to_owned(),
        });
    }
    if meta::is_paused(pool) || meta::is_paused(cluster) {
        return GroupDecision::waits(GroupWait::Paused);
    }
    let version = effective_version(cluster, pool);
    let fine = matches!(
        version.reason,
        VersionReason::Own | VersionReason::FollowsCluster
    );
    let waits = (!fine).then(|| GroupWait::Version(version.reason.clone()));
    let order = version.version.map(|version| GroupOrder {
        version,
        config: catalogue.effective(&spec.provider_config),
        replicas: match is_autoscaled(pool) {
            true => None,
            false => Some(pool.spec.replicas.unwrap_or(1).max(0)),
        },
        bounds: bounds(pool),
        labels: pool.spec.template.metadata.labels.clone(),
        taints: spec.taints.clone(),
    });
    GroupDecision { order, waits }
}
