//! What etcd says of its members, and how the other parts of the control plane are: asked seldom, when the control-plane machines
//! changed, before a machine comes or goes, and now and then while all is well.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{
    Machine,
    condition::{self, kind},
};
use fleetwright_core::{
    control_plane::{ComponentState, components, has_served, machine_of},
    quorum::Member,
};
use fleetwright_providers::{ClusterRef, ConnectionError, EtcdMember};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::{bootstrap::makes_nodes, reconcile::Shared};

/// Time between two questions while a member only learns.
const LEARNING: Duration = Duration::from_millis(500);
/// Time between two questions while a member is not well or etcd does not answer.
const SICK: Duration = Duration::from_secs(5);
/// Time between two questions while all is well.
const WELL: Duration = Duration::from_secs(300);

/// Where the pods of a control plane are, and by which label, as kubeadm makes them.
const NAMESPACE: &str = "kube-system";
const PODS: &str = "tier=control-plane";
/// More pods than this are no control plane.
const MOST_PODS: u32 = 128;
/// Longest time for the list of them.
const LISTED: Duration = Duration::from_secs(10);

/// What was said, or why nothing was.
#[derive(Clone)]
pub(crate) struct Answer {
    /// etcd's members.
    pub(crate) members: Result<Vec<Member>, String>,
    /// How the parts of the control plane are; `None` where none of its nodes is of our making.
    pub(crate) components: Option<Result<Vec<ComponentState>, String>>,
}

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
    let sick = match &answer.components {
        Some(Ok(states)) => states.iter().any(ComponentState::is_sick),
        Some(Err(_)) => true,
        None => false,
    };
    match &answer.members {
        Ok(members) if members.iter().any(|m| m.learner) => LEARNING,
        Ok(members) if !sick && members.iter().all(|m| m.healthy) => WELL,
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

/// Asks a cluster's etcd, and for the pods of its control plane, now.
pub(crate) async fn ask(
    shared: &Shared,
    cluster: &ClusterRef,
    control_plane: &[Machine],
) -> Answer {
    let (members, components) = tokio::join!(
        shared.context.etcd.members(cluster),
        look(shared, cluster, control_plane)
    );
    let answer = Answer {
        members: match members {
            Ok(members) => Ok(members
                .into_iter()
                .map(|m| to_member(m, control_plane))
                .collect()),
            Err(error @ (ConnectionError::NotYet | ConnectionError::Broken(_))) => {
                Err(error.to_string())
            }
        },
        components,
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

/// How the parts of the control plane are on its machines, where kubelets of our making show them.
async fn look(
    shared: &Shared,
    cluster: &ClusterRef,
    control_plane: &[Machine],
) -> Option<Result<Vec<ComponentState>, String>> {
    if !makes_nodes(shared, &cluster.namespace, &cluster.name) {
        return None;
    }
    let cannot = |why: &str| format!("the pods of the control plane cannot be listed: {why}");
    let client = match shared.context.connections.client(cluster).await {
        Ok(client) => client,
        Err(error) => return Some(Err(cannot(&error.to_string()))),
    };
    let pods = Api::<Pod>::namespaced(client, NAMESPACE);
    let params = ListParams::default().labels(PODS).limit(MOST_PODS);
    Some(match timeout(LISTED, pods.list(&params)).await {
        // What only lies further on is not to be missed.
        Ok(Ok(pods)) if pods.metadata.continue_.iter().any(|c| !c.is_empty()) => {
            Err(cannot("there are too many"))
        }
        Ok(Ok(pods)) => Ok(components(&pods.items, control_plane)),
        Ok(Err(error)) => Err(cannot(&error.to_string())),
        Err(_) => Err(cannot("no answer")),
    })
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
