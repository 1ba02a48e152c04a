//! The etcd of simulated clusters: who is a member, who votes, who answers.
//!
//! A control-plane node joins when it registers, learns for a moment and votes from then on. Its member is healthy while its
//! instance runs and its node is ready; annotation [`ANNOTATION`] on the Node breaks the member alone. A member stays when its
//! instance goes: somebody has to remove it. Unlike a real etcd, one that has lost its quorum lets a member go where those that
//! stay are a quorum, as people do who restore it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use fleetwright_providers::{
    ClusterRef, ConnectionError, EtcdMember, EtcdMembers, InstanceState, ProviderError,
};
use fleetwright_store::{Op, Store, Value as Bytes};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{
    cloud::{Cloud, CloudError, cannot_store},
    instance::SimInstance,
};

/// Annotation on a Node, whatever its value: its etcd member is broken.
pub const ANNOTATION: &str = "sim.fleetwright.dev/broken-etcd";
/// Time from joining to voting.
const LEARNING: SignedDuration = SignedDuration::from_millis(500);
/// Where the store has the members of a cluster.
const PLACE: &str = "e/";
/// Where a cluster's objects have its nodes.
const NODES: &str = "/core/nodes/";

/// A member.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SimMember {
    /// The instance that it runs on.
    instance: String,
    joined: Timestamp,
    votes: Timestamp,
}

type Members = BTreeMap<String, SimMember>;

/// The members of all clusters, by the cluster's key.
pub(crate) struct Etcd {
    store: Store,
    members: Mutex<BTreeMap<String, Members>>,
    /// Held while members change.
    changing: tokio::sync::Mutex<()>,
}

impl Etcd {
    /// The members in the cloud's store.
    pub(crate) fn new(store: Store) -> Result<Self, CloudError> {
        let mut members = BTreeMap::new();
        for entry in store.range(PLACE, None, 0).0 {
            let read = serde_json::from_slice(&entry.value.bytes());
            let read = read.map_err(|source| CloudError::Stored {
                key: entry.key.to_string(),
                source,
            })?;
            members.insert(entry.key.trim_start_matches(PLACE).to_owned(), read);
        }
        Ok(Self {
            store,
            members: Mutex::new(members),
            changing: tokio::sync::Mutex::default(),
        })
    }

    fn of(&self, key: &str) -> Members {
        self.members.lock().get(key).cloned().unwrap_or_default()
    }

    /// What removes the members of a cluster from the store.
    pub(crate) fn removal(key: &str) -> Op {
        Op::Delete {
            key: format!("{PLACE}{key}"),
            expect: None,
            last: None,
        }
    }

    pub(crate) fn forget(&self, key: &str) {
        self.members.lock().remove(key);
    }

    async fn change(&self, key: &str, members: Members) -> Result<(), ProviderError> {
        let value = serde_json::to_vec(&members).map_err(|e| cannot_store(&e))?;
        let op = Op::Put {
            key: format!("{PLACE}{key}"),
            value: Bytes::plain(value),
            expect: None,
        };
        let done = self.store.commit(vec![op]).await;
        done.map_err(|e| cannot_store(&e))?;
        self.members.lock().insert(key.to_owned(), members);
        Ok(())
    }

    /// A control-plane node joins; the first one votes at once.
    pub(crate) async fn join(
        &self,
        instance: &SimInstance,
        now: Timestamp,
    ) -> Result<(), ProviderError> {
        let _one = self.changing.lock().await;
        let owner = &instance.order.owner;
        let mut members = self.of(&owner.cluster_key);
        if members
            .get(&owner.machine)
            .is_some_and(|m| m.instance == instance.id)
        {
            return Ok(());
        }
        let learnt = now.checked_add(LEARNING).unwrap_or(Timestamp::MAX);
        let member = SimMember {
            instance: instance.id.clone(),
            joined: now,
            votes: if members.is_empty() { now } else { learnt },
        };
        members.insert(owner.machine.clone(), member);
        self.change(&owner.cluster_key, members).await
    }
}

impl Cloud {
    /// The members of a cluster's etcd as they are now, by name; none where it has no control plane.
    pub fn etcd_members(&self, key: &str) -> Vec<EtcdMember> {
        let objects = self.objects(key);
        let nodes = objects.map(|all| all.range(NODES, None, 0).0);
        let well: BTreeSet<String> = nodes
            .iter()
            .flatten()
            .filter_map(|entry| serde_json::from_slice::<NodeView>(&entry.value.bytes()).ok())
            .filter(|n| n.is_ready() && !n.metadata.annotations.contains_key(ANNOTATION))
            .map(|n| n.metadata.name)
            .collect();
        let now = self.now();
        let half = LEARNING / 2;
        let state = self.0.state.lock();
        let runs = |id: &str| {
            let instance = state.instances.get(id);
            instance
                .is_some_and(|i| matches!(i.state, InstanceState::Pending | InstanceState::Running))
        };
        let members = self.0.clusters.etcd.of(key).into_iter();
        members
            .map(|(name, member)| EtcdMember {
                healthy: well.contains(&name) && runs(&member.instance),
                learner: now < member.votes,
                starting: now < member.votes && now.duration_since(member.joined) < half,
                name,
            })
            .collect()
    }
}

/// What is read of a node: of all that happens here, etcd's members are asked for most often.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeView {
    metadata: NodeMeta,
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeMeta {
    name: String,
    annotations: BTreeMap<String, IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<NodeCondition>,
}

#[derive(Deserialize)]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl NodeView {
    fn is_ready(&self) -> bool {
        let ready = |c: &NodeCondition| c.kind == "Ready" && c.status == "True";
        self.status.conditions.iter().any(ready)
    }
}

#[async_trait]
impl EtcdMembers for Cloud {
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        if self.0.clusters.get(&cluster.key).is_none() {
            return Err(ConnectionError::NotYet);
        }
        Ok(self.etcd_members(&cluster.key))
    }

    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError> {
        let etcd = &self.0.clusters.etcd;
        let _one = etcd.changing.lock().await;
        let mut members = etcd.of(&cluster.key);
        if members.remove(name).is_none() {
            return Ok(());
        }
        let stay = self.etcd_members(&cluster.key).into_iter();
        let voting: Vec<EtcdMember> = stay.filter(|m| m.name != name && !m.learner).collect();
        let healthy = voting.iter().filter(|m| m.healthy).count();
        if voting.is_empty() || healthy <= voting.len() / 2 {
            return Err(ConnectionError::Broken(format!(
                "etcd would have no quorum without {name}: {healthy} of {} voting members are healthy",
                voting.len()
            )));
        }
        let done = etcd.change(&cluster.key, members).await;
        done.map_err(|e| ConnectionError::Broken(e.to_string()))
    }
}
