//! Conditions BootstrapManifestsApplied and AddonsUpToDate, and what does not count before the first.

use fleetwright_api::{
    Cluster, MachineDeployment,
    cluster::ClusterStatus,
    condition::{self, Status, kind, reason},
};

use super::{ClusterFacts, Conditions};
use crate::{
    addons::Addons,
    manifests::{self, Standing},
};

const KIND: &str = kind::BOOTSTRAP_MANIFESTS_APPLIED;

/// Sets the condition, which is there while manifests are wanted. Gives the hash of what was applied last, and whether the cluster has had
/// all of them once.
pub(super) fn applied(
    out: &mut Conditions<'_>,
    cluster: &Cluster,
    facts: &ClusterFacts,
    initialized: bool,
) -> (Option<String>, bool) {
    let before = cluster.status.as_ref();
    let hash = before.and_then(|s| s.bootstrap_manifests_hash.clone());
    let milestones = before.and_then(|s| s.initialization.as_ref());
    let once = milestones.is_some_and(|i| i.bootstrap_manifests_applied);
    if cluster.spec.bootstrap_manifests.is_empty() {
        out.list.retain(|c| c.type_ != KIND);
        return (None, once || initialized);
    }
    let looked = facts.manifests.clone();
    let tried = looked.is_some();
    match looked.or_else(|| manifests::known(cluster, initialized)) {
        Some(Standing::Applied(hash)) => {
            out.set(KIND, Status::True, reason::APPLIED, "");
            return (Some(hash), true);
        }
        Some(Standing::Waiting(why)) => out.set(KIND, Status::False, reason::APPLYING, why),
        Some(Standing::Refused(why)) => out.set(KIND, Status::False, reason::REFUSED, why),
        None if condition::get(out.list, KIND).is_some() => {}
        None => out.set(KIND, Status::False, reason::APPLYING, "not applied yet"),
    }
    // Some of what was tried may be there: what was whole before is applied anew, should it be wanted again.
    (hash.filter(|_| !tried), once)
}

/// Most characters of what is said of addons: some of it is what the cluster holds.
const MOST: usize = 2000;

/// Sets condition AddonsUpToDate, which is there once somebody looked.
pub(super) fn addons(out: &mut Conditions<'_>, addons: Option<&Addons>) {
    let kind = kind::ADDONS_UP_TO_DATE;
    let cut = |text: &String| text.chars().take(MOST).collect::<String>();
    match addons {
        Some(Addons::UpToDate) => out.set(kind, Status::True, reason::UP_TO_DATE, ""),
        Some(Addons::LeftAlone(what)) => {
            out.set(kind, Status::False, reason::LEFT_ALONE, cut(what));
        }
        Some(Addons::Behind(why)) => out.set(kind, Status::False, reason::ADDONS_BEHIND, cut(why)),
        None => {}
    }
}

/// What the cluster lacks of its manifests, in words.
pub(super) fn missing(cluster: &Cluster, status: &ClusterStatus) -> Option<String> {
    let wanted = !cluster.spec.bootstrap_manifests.is_empty();
    if !wanted || condition::is_true(&status.conditions, KIND) {
        return None;
    }
    let told = condition::get(&status.conditions, KIND);
    let why = told.map_or("not looked at yet", |c| c.message.as_str());
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    Some(format!(
        "cluster {name}: its bootstrap manifests are not applied: {why}"
    ))
}

/// Why a pool does not count yet: its cluster has never had its manifests.
pub(super) fn awaited(cluster: &Cluster, pool: &MachineDeployment) -> Option<String> {
    let status = cluster.status.as_ref();
    let milestones = status.and_then(|s| s.initialization.as_ref());
    let once = milestones.is_some_and(|i| i.bootstrap_manifests_applied);
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    (!once && !cluster.spec.bootstrap_manifests.is_empty()).then(|| {
        format!("pool {name} waits for the bootstrap manifests of its cluster to be applied")
    })
}

/// Which of the cluster's manifests it will not take as they are, and why, as far as its latest change was seen.
pub fn manifests_refused(cluster: &Cluster) -> Option<String> {
    let status = cluster.status.as_ref()?;
    let seen = status.observed_generation == cluster.metadata.generation;
    let told = condition::get(&status.conditions, KIND);
    told.filter(|c| seen && c.status == "False" && c.reason == reason::REFUSED)?;
    missing(cluster, status)
}
