//! What etcd says of its members, asked seldom: when the control-plane machines changed, before a machine comes or goes, and now
//! and then while all is well.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{
    Machine,
    condition::{self, kind},
};
use fleetwright_core::{
    control_plane::{has_served, machine_of},
    quorum::Member,
};
use fleetwright_providers::{ClusterRef, ConnectionError, EtcdMember};
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::reconcile::Shared;

/// Time between two questions while a member only learns.
const LEARNING: Duration = Duration::from_millis(500);
/// Time between two questions while a member is not well or etcd does not answer.
const SICK: Duration = Duration::from_secs(5);
/// Time between two questions while all is well.
const WELL: Duration = Duration::from_secs(300);

/// An answer of etcd, or why there is none.
pub(crate) type Answer = Result<Vec<Member>, String>;

/// What the answer depends on: machines with whether they have served, are ready and are on their way out.
type Machines = Vec<(String, bool, bool, bool)>;

struct Seen {
    machines: Machines,
    answer: Answer,
    at: Instant,
}

/// What the etcd of each cluster said last, by the Cluster's namespace and name.
#[derive(Default)]
pub(crate) struct Etcds {
    clusters: Mutex<BTreeMap<(String, String), Seen>>,
}

/// How long an answer holds while nothing changes.
pub(crate) fn holds(answer: &Answer) -> Duration {
    match answer {
        Ok(members) if members.iter().any(|m| m.learner) => LEARNING,
        Ok(members) if members.iter().all(|m| m.healthy) => WELL,
        Ok(_) | Err(_) => SICK,
    }
}

fn machines(control_plane: &[Machine]) -> Machines {
    let is_ready = |m: &Machine| {
        let status = m.status.as_ref();
        status.is_some_and(|s| condition::is_true(&s.conditions, kind::READY))
    };
    let view = |m: &Machine| {
        let leaving = m.metadata.deletion_timestamp.is_some();
        (m.name_any(), has_served(m), is_ready(m), leaving)
    };
    control_plane.iter().map(view).collect()
}

impl Etcds {
    /// The last answer, if it still holds.
    pub(crate) fn known(&self, cluster: &ClusterRef, control_plane: &[Machine]) -> Option<Answer> {
        let clusters = self.clusters.lock();
        let seen = clusters.get(&(cluster.namespace.clone(), cluster.name.clone()))?;
        let young = seen.at.elapsed() < holds(&seen.answer);
        (young && seen.machines == machines(control_plane)).then(|| seen.answer.clone())
    }

    /// Forgets a cluster that is gone, or whose members were changed.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.clusters.lock().remove(&key);
    }
}

/// Asks a cluster's etcd now.
pub(crate) async fn ask(
    shared: &Shared,
    cluster: &ClusterRef,
    control_plane: &[Machine],
) -> Answer {
    let answer = match shared.context.etcd.members(cluster).await {
        Ok(members) => Ok(members
            .into_iter()
            .map(|m| to_member(m, control_plane))
            .collect()),
        Err(error @ (ConnectionError::NotYet | ConnectionError::Broken(_))) => {
            Err(error.to_string())
        }
    };
    let seen = Seen {
        machines: machines(control_plane),
        answer: answer.clone(),
        at: Instant::now(),
    };
    let key = (cluster.namespace.clone(), cluster.name.clone());
    shared.etcds.clusters.lock().insert(key, seen);
    answer
}

/// The member by its machine's name.
fn to_member(member: EtcdMember, control_plane: &[Machine]) -> Member {
    let machine = machine_of(&member.name, control_plane);
    Member {
        learner: member.learner || member.starting,
        healthy: member.healthy,
        name: machine.map_or(member.name, ResourceExt::name_any),
    }
}

/// The name in etcd of a machine's member, if it has one now.
pub(crate) async fn member_of(
    shared: &Shared,
    cluster: &ClusterRef,
    control_plane: &[Machine],
    machine: &str,
) -> Result<Option<String>, ConnectionError> {
    let members = shared.context.etcd.members(cluster).await?;
    let is =
        |name: &String| machine_of(name, control_plane).is_some_and(|m| m.name_any() == machine);
    Ok(members.into_iter().map(|m| m.name).find(is))
}
