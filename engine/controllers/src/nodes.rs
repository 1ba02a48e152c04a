//! The nodes of workload clusters: one watch per cluster, kept as small projections.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fleetwright_api::{
    Cluster, Machine,
    condition::{self, kind},
    machine::NodeInfo,
};
use fleetwright_core::{
    external::Served,
    health::NodeCondition,
    status::{CONNECTION_GRACE_SECONDS, NodeHealth},
};
use fleetwright_providers::ClusterRef;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{Api, Client, ResourceExt, runtime::watcher};
use litemap::LiteMap;
use parking_lot::Mutex;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use crate::{
    node_sync, pause,
    queue::Key,
    reconcile::{Shared, node_name},
};

/// Time between two looks whether a cluster whose nodes are watched can still be reached: a watch alone does not tell.
const LOOK: Duration = Duration::from_secs(30);
/// What of a reason is told, in characters: others' servers have a part in its words.
const LONGEST_WHY: usize = 500;
/// A cluster that could not be reached for less was not away: watches break all the time. Cluster API's grace period of the same
/// meaning is as long.
const AWAY: SignedDuration = SignedDuration::from_secs(50);

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) provider_id: String,
    /// What a write that must not undo another's is tied to.
    pub(crate) resource_version: Option<String>,
    /// Those that matter to its machine.
    pub(crate) labels: LiteMap<String, String>,
    pub(crate) annotations: LiteMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) health: NodeHealth,
    /// All of them, without heartbeats.
    pub(crate) conditions: Vec<NodeCondition>,
    pub(crate) info: NodeInfo,
}

impl NodeView {
    /// Whether two views differ in their resource version at most.
    fn same(&self, other: &Self) -> bool {
        let other = Self {
            resource_version: self.resource_version.clone(),
            ..other.clone()
        };
        *self == other
    }
}

#[derive(Default)]
struct ClusterNodes {
    /// By name.
    nodes: BTreeMap<String, Arc<NodeView>>,
    /// Names by providerID.
    by_id: BTreeMap<String, Vec<String>>,
    synced: bool,
    /// Whether the API has answered or refused once: before that nothing is said of it.
    asked: bool,
    /// Since when the API does not answer; `None` while it does.
    lost: Option<Timestamp>,
    /// Why it does not.
    why: Option<String>,
    /// What somebody else's control plane said of its version.
    served: Served,
    /// Since when it answers again after it could not be reached for long.
    seen_since: Option<Timestamp>,
    /// By which way it is followed, and what does that.
    task: Option<(ClusterRef, AbortHandle)>,
}

impl ClusterNodes {
    /// Takes a node in; gives what was known of it.
    fn put(&mut self, node: Arc<NodeView>) -> Option<Arc<NodeView>> {
        let before = self.remove(&node.name);
        let names = self.by_id.entry(node.provider_id.clone()).or_default();
        names.push(node.name.clone());
        names.sort();
        self.nodes.insert(node.name.clone(), node);
        before
    }

    fn remove(&mut self, name: &str) -> Option<Arc<NodeView>> {
        let before = self.nodes.remove(name)?;
        if let Some(names) = self.by_id.get_mut(&before.provider_id) {
            names.retain(|other| other != name);
            if names.is_empty() {
                self.by_id.remove(&before.provider_id);
            }
        }
        Some(before)
    }
}

/// The nodes of all clusters, by the Cluster's namespace and name.
#[derive(Default)]
pub(crate) struct Nodes {
    clusters: Mutex<BTreeMap<(String, String), ClusterNodes>>,
}

/// What is known of the node with a providerID.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SeenNode {
    Unknown,
    Missing,
    There(Arc<NodeView>),
    /// Several say that they are it: their names.
    Several(Vec<String>),
}

impl Nodes {
    /// The node with this providerID; without one, the node of this name: a machine may have been given a node before
    /// its provider's id was stored.
    pub(crate) fn see(
        &self,
        namespace: &str,
        cluster: &str,
        provider_id: Option<&str>,
        name: Option<&str>,
    ) -> SeenNode {
        let clusters = self.clusters.lock();
        let Some(known) = clusters
            .get(&(namespace.to_owned(), cluster.to_owned()))
            .filter(|c| c.synced)
        else {
            return SeenNode::Unknown;
        };
        let name = match (provider_id, name) {
            (Some(id), _) => match known.by_id.get(id) {
                Some(names) if names.len() > 1 => {
                    return SeenNode::Several(names.clone());
                }
                names => names.and_then(|names| names.first().map(String::as_str)),
            },
            (None, None) => return SeenNode::Unknown,
            (None, name) => name,
        };
        let found = name.and_then(|name| known.nodes.get(name));
        found.cloned().map_or(SeenNode::Missing, SeenNode::There)
    }

    /// The nodes with this label; `None` where the cluster cannot be seen.
    pub(crate) fn labelled(
        &self,
        namespace: &str,
        cluster: &str,
        label: &str,
        value: &str,
    ) -> Option<Vec<Arc<NodeView>>> {
        let key = (namespace.to_owned(), cluster.to_owned());
        let clusters = self.clusters.lock();
        let known = clusters.get(&key).filter(|c| c.synced)?;
        let has = |node: &&Arc<NodeView>| node.labels.get(label).is_some_and(|v| v == value);
        Some(known.nodes.values().filter(has).cloned().collect())
    }

    /// Since when the cluster's API does not answer; `None` while it does or nobody has asked.
    pub(crate) fn lost(&self, namespace: &str, cluster: &str) -> Option<Timestamp> {
        let key = (namespace.to_owned(), cluster.to_owned());
        self.clusters.lock().get(&key)?.lost
    }

    /// Why the cluster's API does not answer; `None` while it does or nobody has asked.
    pub(crate) fn trouble(&self, namespace: &str, cluster: &str) -> Option<String> {
        let key = (namespace.to_owned(), cluster.to_owned());
        self.clusters.lock().get(&key)?.why.clone()
    }

    /// Whether the cluster's API answers; `None` while nobody has asked.
    pub(crate) fn reachable(&self, namespace: &str, cluster: &str) -> Option<bool> {
        self.clusters
            .lock()
            .get(&(namespace.to_owned(), cluster.to_owned()))
            .filter(|c| c.asked)
            .map(|c| c.synced)
    }

    /// The oldest and the newest version that somebody else's control plane serves; `None` while that is not known.
    pub(crate) fn served(&self, namespace: &str, cluster: &str) -> Option<(String, String)> {
        let key = (namespace.to_owned(), cluster.to_owned());
        let clusters = self.clusters.lock();
        let served = &clusters.get(&key)?.served;
        Some((served.oldest()?.to_string(), served.newest()?.to_string()))
    }

    /// How many nodes are of none of these machines; `None` while the cluster is not seen.
    pub(crate) fn unmanaged(
        &self,
        namespace: &str,
        cluster: &str,
        machines: &[Arc<Machine>],
    ) -> Option<i32> {
        let ids = machines
            .iter()
            .filter_map(|m| m.spec.provider_id.as_deref());
        let ids: BTreeSet<&str> = ids.collect();
        let names: BTreeSet<&str> = machines.iter().filter_map(|m| node_name(m)).collect();
        let key = (namespace.to_owned(), cluster.to_owned());
        let clusters = self.clusters.lock();
        let known = clusters.get(&key).filter(|c| c.synced)?;
        let is_ours =
            |n: &NodeView| ids.contains(n.provider_id.as_str()) || names.contains(n.name.as_str());
        let others = known.nodes.values().filter(|n| !is_ours(n)).count();
        i32::try_from(others).ok()
    }

    /// Since when the cluster is seen again after it could not be reached for long: what happened before was not seen.
    pub(crate) fn seen_since(&self, namespace: &str, cluster: &str) -> Option<Timestamp> {
        let key = (namespace.to_owned(), cluster.to_owned());
        self.clusters.lock().get(&key)?.seen_since
    }

    /// Starts the watch of a cluster's nodes where none runs by this way.
    pub(crate) fn follow(
        &self,
        shared: &Arc<Shared>,
        cluster: ClusterRef,
        tasks: &mut JoinSet<()>,
    ) {
        let mut clusters = self.clusters.lock();
        let entry = clusters
            .entry((cluster.namespace.clone(), cluster.name.clone()))
            .or_default();
        if let Some((way, task)) = &entry.task {
            if *way == cluster && !task.is_finished() {
                return;
            }
            // Whose nodes it saw is not known any more.
            task.abort();
            entry.synced = false;
        }
        let task = tasks.spawn(watch(Arc::clone(shared), cluster.clone()));
        entry.task = Some((cluster, task));
    }

    /// Ends the watch of a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, cluster: &str) {
        let gone = self
            .clusters
            .lock()
            .remove(&(namespace.to_owned(), cluster.to_owned()));
        if let Some((_, task)) = gone.and_then(|c| c.task) {
            task.abort();
        }
    }

    fn with<T>(&self, cluster: &ClusterRef, change: impl FnOnce(&mut ClusterNodes) -> T) -> T {
        let mut clusters = self.clusters.lock();
        change(
            clusters
                .entry((cluster.namespace.clone(), cluster.name.clone()))
                .or_default(),
        )
    }
}

async fn watch(shared: Arc<Shared>, cluster: ClusterRef) {
    let mut paused = None;
    let mut told = None;
    loop {
        let mut listed = None;
        let why = watch_once(&shared, &cluster, &mut listed).await;
        let lasted = listed.map_or(Duration::ZERO, |at: Instant| at.elapsed());
        let why: String = why.chars().take(LONGEST_WHY).collect();
        tracing::debug!(cluster = %cluster.name, %why, "the nodes are not seen");
        // Its Cluster says so: when it broke, when it was found so from the start, and when the reason becomes another.
        let now = shared.now();
        let (news, lost) = shared.nodes.with(&cluster, |c| {
            c.asked = true;
            c.synced = false;
            let lost = *c.lost.get_or_insert(now);
            let before = c.why.replace(why.clone());
            (before.as_ref() != Some(&why), lost)
        });
        // What machines say of their nodes holds for a while, and then they say that nobody knows.
        if now.duration_since(lost).as_secs() >= CONNECTION_GRACE_SECONDS && told != Some(lost) {
            told = Some(lost);
            shared.wake_machines_of(&cluster.namespace, &cluster.name);
        }
        if news {
            shared.queue.add(Key::Cluster(
                cluster.namespace.clone(),
                cluster.name.clone(),
            ));
        }
        let pause = pause::after(paused, lasted);
        paused = Some(pause);
        tokio::time::sleep(pause).await;
    }
}

/// Follows the nodes until that breaks; gives why. `listed` is when all of them were known first.
async fn watch_once(
    shared: &Arc<Shared>,
    cluster: &ClusterRef,
    listed: &mut Option<Instant>,
) -> String {
    let client = match shared.context.connections.client(cluster).await {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    hear(shared, cluster, &client).await;
    let mut events = watcher::watcher(Api::<Node>::all(client), watcher::Config::default()).boxed();
    let mut looks = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Ok(event)) => {
                    if matches!(event, watcher::Event::InitDone) {
                        listed.get_or_insert_with(Instant::now);
                    }
                    observe(shared, cluster, event);
                }
                Some(Err(error)) => return format!("the watch of its nodes broke: {error}"),
                None => return "the watch of its nodes ended".to_owned(),
            },
            _ = looks.tick() => {
                // Where the kubeconfig has changed, this ends the client that was made of it, and the watch with it.
                match shared.context.connections.client(cluster).await {
                    Ok(client) => hear(shared, cluster, &client).await,
                    Err(error) => return error.to_string(),
                }
            }
        }
    }
}

/// Asks somebody else's control plane which version it runs; ours is known by its machines. Where it does not say, what it said before
/// counts: whether it answers at all is looked at by others.
async fn hear(shared: &Shared, cluster: &ClusterRef, client: &Client) {
    let (namespace, name) = (&cluster.namespace, &cluster.name);
    let Some(known) = shared.external(namespace, name) else {
        return;
    };
    let asked = tokio::time::timeout(LOOK, client.apiserver_version()).await;
    let Ok(Ok(said)) = asked else { return };
    let known = known.status.as_ref().and_then(|s| s.version.as_deref());
    let now = shared.now();
    let hear = |c: &mut ClusterNodes| c.served.hear(&said.git_version, known, now);
    if shared.nodes.with(cluster, hear) {
        let key = Key::Cluster(namespace.clone(), name.clone());
        shared.queue.add(key);
    }
}

/// Whether the cluster could not be reached for long, as its status says until it is looked at again.
fn was_away(shared: &Shared, cluster: &ClusterRef) -> bool {
    let known = shared
        .caches
        .get::<Cluster>(&cluster.namespace, &cluster.name);
    let probe = known.and_then(|c| {
        let status = c.status.as_ref()?;
        condition::get(&status.conditions, kind::REMOTE_CONNECTION_PROBE).cloned()
    });
    probe.is_some_and(|p| {
        let elapsed = shared.now().duration_since(p.last_transition_time.0);
        p.status == "False" && elapsed >= AWAY
    })
}

fn observe(shared: &Shared, cluster: &ClusterRef, event: watcher::Event<Node>) {
    match event {
        watcher::Event::Init => shared.nodes.with(cluster, |c| {
            c.nodes.clear();
            c.by_id.clear();
        }),
        watcher::Event::InitApply(node) => {
            shared
                .nodes
                .with(cluster, |c| c.put(project(shared, &node)));
        }
        watcher::Event::InitDone => {
            let back = was_away(shared, cluster).then(|| shared.now());
            shared.nodes.with(cluster, |c| {
                (c.synced, c.asked, c.lost, c.why) = (true, true, None, None);
                c.seen_since = back.or(c.seen_since);
            });
            // Sets replace nothing while the cluster cannot be seen.
            shared.wake_sets_of(&cluster.namespace, &cluster.name);
            shared.queue.add(Key::Cluster(
                cluster.namespace.clone(),
                cluster.name.clone(),
            ));
            shared.wake_machines_of(&cluster.namespace, &cluster.name);
            shared.wake_groups_of(cluster);
        }
        watcher::Event::Apply(node) => {
            let view = project(shared, &node);
            let before = shared.nodes.with(cluster, |c| c.put(Arc::clone(&view)));
            if before.as_ref().is_none_or(|before| !before.same(&view)) {
                wake(shared, cluster, &view, before.is_none());
            }
            // It may have been one of two that another machine could not tell apart.
            if let Some(before) = before.filter(|b| b.provider_id != view.provider_id) {
                shared.wake_machine_of_node(cluster, &before.provider_id, &before.name);
            }
        }
        watcher::Event::Delete(node) => {
            let view = project(shared, &node);
            shared.nodes.with(cluster, |c| c.remove(&view.name));
            wake(shared, cluster, &view, true);
        }
    }
}

/// Wakes the machine or the group of a node. A node that comes or goes and is nobody's is news for its Cluster, where that is somebody else's.
fn wake(shared: &Shared, cluster: &ClusterRef, node: &NodeView, came_or_went: bool) {
    let found = shared.wake_machine_of_node(cluster, &node.provider_id, &node.name);
    shared.wake_group_of_node(cluster, node);
    let (namespace, name) = (&cluster.namespace, &cluster.name);
    if came_or_went && !found && shared.external(namespace, name).is_some() {
        let key = Key::Cluster(namespace.clone(), name.clone());
        shared.queue.add(key);
    }
}

fn project(shared: &Shared, node: &Node) -> Arc<NodeView> {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|c| c.type_ == kind);
    let pressed = ["MemoryPressure", "DiskPressure", "PIDPressure"]
        .into_iter()
        .find(|k| find(k).is_some_and(|c| c.status == "True"));
    let health = match (find("Ready").map(|c| c.status.as_str()), pressed) {
        (Some("True"), None) => NodeHealth::Healthy,
        (Some("True"), Some(kind)) => NodeHealth::Pressed(format!("the node reports {kind}")),
        (Some("False"), _) => NodeHealth::NotHealthy("the node is not ready".into()),
        _ => NodeHealth::Unknown("the kubelet does not report".into()),
    };
    let info = status.node_info.unwrap_or_default();
    let (labels, annotations) = node_sync::kept(node, &shared.group_labels);
    let view = NodeView {
        name: node.name_any(),
        provider_id: spec.provider_id.unwrap_or_default(),
        resource_version: node.resource_version(),
        labels,
        annotations,
        taints: spec.taints.unwrap_or_default(),
        unschedulable: spec.unschedulable.unwrap_or(false),
        health,
        conditions: conditions
            .iter()
            .map(|c| NodeCondition {
                kind: c.type_.clone(),
                status: c.status.clone(),
                reason: c.reason.clone().unwrap_or_default(),
                since: c
                    .last_transition_time
                    .as_ref()
                    .map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            })
            .collect(),
        info: NodeInfo {
            kubelet_version: Some(info.kubelet_version).filter(|v| !v.is_empty()),
            os_image: Some(info.os_image).filter(|v| !v.is_empty()),
        },
    };
    Arc::new(view)
}
