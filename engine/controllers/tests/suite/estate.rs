//! A provider that runs control planes and groups of nodes, in memory: what it does takes several looks, and goes wrong when told to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use fleetwright_api::{
    Cluster, MachineDeployment, ProviderAccount, names, random::Random, secret::SecretText,
    time::Clock, version::Version,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_core::status;
use fleetwright_providers::{
    Account, ClusterConnections, ClusterRef, ConfigSchema, ConnectionError, CreateInstance,
    Instance, ListScope, Provider, ProviderError, UpdateInstance,
    managed::{
        Access, ManagedControlPlaneOrder, ManagedControlPlaneState, ManagedControlPlanes,
        ManagedOwner, ManagedPhase, PoolOrder, PoolProvider, PoolState,
    },
};
use fleetwright_store::Store;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{kit::Kit, ward::Ward};

/// Kinds of its settings.
pub(crate) const API_VERSION: &str = "estate.test/v1";
/// Tells nodes of its groups from others.
pub(crate) const LABEL: &str = "estate.test/group";
/// Seconds for which a token holds.
pub(crate) const TOKEN_SECONDS: i64 = 900;
/// Looks at something that moves before it has moved.
const LOOKS: u32 = 2;

/// Something that it runs.
#[derive(Clone)]
struct Thing {
    owner: ManagedOwner,
    version: String,
    to: Option<String>,
    config: Value,
    replicas: i32,
    /// Looks until it is done, and what it does.
    left: u32,
    phase: ManagedPhase,
}

#[derive(Default)]
struct Inner {
    /// Control planes by the cluster's key, and groups by that and the pool.
    things: BTreeMap<(String, String), Thing>,
    apis: BTreeMap<String, Client>,
    /// What had an effect, in order.
    journal: Vec<String>,
    /// All calls, in order.
    calls: Vec<String>,
    /// The clusters that they were for.
    of: Vec<String>,
    /// Errors of the next calls of a verb; with `true` the call has its effect all the same.
    faults: VecDeque<(&'static str, ProviderError, bool)>,
    locked: bool,
    tokens: u32,
}

/// The provider.
#[derive(Clone)]
pub(crate) struct Estate {
    inner: Arc<Mutex<Inner>>,
    ward: Ward,
    random: Arc<dyn Random>,
}

fn terminal(message: String) -> ProviderError {
    ProviderError::Terminal { message }
}

impl Estate {
    pub(crate) fn new(ward: Ward, random: Arc<dyn Random>) -> Self {
        Self {
            inner: Arc::default(),
            ward,
            random,
        }
    }

    /// What had an effect so far.
    pub(crate) fn journal(&self) -> Vec<String> {
        self.inner.lock().journal.clone()
    }

    /// How often it was called.
    pub(crate) fn calls(&self, verb: &str) -> usize {
        let inner = self.inner.lock();
        inner.calls.iter().filter(|call| *call == verb).count()
    }

    /// How many calls were made for a cluster.
    pub(crate) fn calls_for(&self, cluster_key: &str) -> usize {
        let inner = self.inner.lock();
        inner.of.iter().filter(|key| *key == cluster_key).count()
    }

    /// Every call so far.
    pub(crate) fn all_calls(&self) -> usize {
        self.inner.lock().calls.len()
    }

    /// The next call of a verb fails; `done`: it has its effect all the same.
    pub(crate) fn fail(&self, verb: &'static str, error: ProviderError, done: bool) {
        self.inner.lock().faults.push_back((verb, error, done));
    }

    /// Whether it refuses all credentials from now on.
    pub(crate) fn lock_out(&self, locked: bool) {
        self.inner.lock().locked = locked;
    }

    /// Somebody else has a control plane of this cluster.
    pub(crate) fn belongs_to_others(&self, cluster_key: &str) {
        let mut inner = self.inner.lock();
        if let Some(thing) = inner
            .things
            .get_mut(&(cluster_key.to_owned(), String::new()))
        {
            thing.owner.installation = "another".into();
        }
    }

    /// Somebody else changes how many nodes a group wants.
    pub(crate) fn scale(&self, cluster_key: &str, pool: &str, replicas: i32) {
        let mut inner = self.inner.lock();
        let key = (cluster_key.to_owned(), pool.to_owned());
        inner.things.get_mut(&key).unwrap().replicas = replicas;
    }

    /// How many nodes a group wants.
    pub(crate) fn replicas(&self, cluster_key: &str, pool: &str) -> i32 {
        let inner = self.inner.lock();
        let key = (cluster_key.to_owned(), pool.to_owned());
        inner.things.get(&key).map_or(0, |thing| thing.replicas)
    }

    /// The API of a cluster whose control plane it runs.
    pub(crate) fn api(&self, cluster_key: &str) -> Option<Client> {
        self.inner.lock().apis.get(cluster_key).cloned()
    }

    /// Notes a call, and fails it where it is to; gives the error that a call has that is made all the same.
    fn call(
        &self,
        verb: &'static str,
        owner: &ManagedOwner,
    ) -> Result<Option<ProviderError>, ProviderError> {
        let mut inner = self.inner.lock();
        inner.of.push(owner.cluster_key.clone());
        inner.calls.push(verb.to_owned());
        if inner.locked {
            let message = "the key is unknown".into();
            return Err(ProviderError::Credentials { message });
        }
        let at = inner.faults.iter().position(|(of, ..)| *of == verb);
        match at.and_then(|at| inner.faults.remove(at)) {
            Some((_, error, true)) => Ok(Some(error)),
            Some((_, error, false)) => Err(error),
            None => Ok(None),
        }
    }

    fn note(&self, line: String) {
        self.inner.lock().journal.push(line);
    }

    async fn make_api(&self, cluster_key: &str) {
        if self.api(cluster_key).is_some() {
            return;
        }
        let clock: Arc<dyn Clock> = Arc::new(self.ward.clone());
        let options = Options::new(clock, self.random.clone());
        let server = ApiServer::new(Store::memory(), options).unwrap();
        let client = server.client("default");
        self.inner
            .lock()
            .apis
            .insert(cluster_key.to_owned(), client);
    }

    /// One look at something: what moves comes nearer to its end.
    fn look(&self, key: &(String, String)) -> Option<(Thing, bool)> {
        let mut inner = self.inner.lock();
        let thing = inner.things.get_mut(key)?;
        let mut ended = false;
        if thing.phase != ManagedPhase::Active {
            thing.left = thing.left.saturating_sub(1);
            if thing.left == 0 {
                ended = true;
                thing.phase = ManagedPhase::Active;
                if let Some(to) = thing.to.take() {
                    thing.version = to;
                }
            }
        }
        Some((thing.clone(), ended))
    }

    /// Takes what is to go one look nearer to its end; true once it is gone.
    fn leave(&self, owner: &ManagedOwner, words: &str) -> Result<bool, ProviderError> {
        let key = (owner.cluster_key.clone(), owner.pool.clone());
        let mut inner = self.inner.lock();
        let Some(thing) = inner.things.get_mut(&key) else {
            return Ok(true);
        };
        if thing.owner.installation != owner.installation {
            return Err(terminal(format!(
                "{words} is not of installation {}",
                owner.installation
            )));
        }
        if thing.phase != ManagedPhase::Deleting {
            (thing.phase, thing.left) = (ManagedPhase::Deleting, LOOKS);
            inner.journal.push(format!("delete {words}"));
            return Ok(false);
        }
        thing.left -= 1;
        if thing.left > 0 {
            return Ok(false);
        }
        inner.things.remove(&key);
        inner.journal.push(format!("{words} is gone"));
        Ok(true)
    }

    /// Takes what differs of a group's order.
    fn change_group(&self, key: &(String, String), order: &PoolOrder) -> Thing {
        let mut inner = self.inner.lock();
        let name = &order.owner.pool;
        let changed = inner.things.get_mut(key).unwrap();
        let mut line = None;
        if changed.version != order.version {
            changed.to = Some(order.version.clone());
            changed.phase = ManagedPhase::Updating(changed.to.clone());
            changed.left = LOOKS;
            line = Some(format!("update {name} to {}", order.version));
        } else if let Some(wanted) = order.replicas.filter(|wanted| *wanted != changed.replicas) {
            changed.replicas = wanted;
            line = Some(format!("scale {name} to {wanted}"));
        }
        let now = changed.clone();
        inner.journal.extend(line);
        now
    }

    /// The nodes of a group become what it says.
    async fn nodes(&self, group: &Thing) {
        let key = &group.owner.cluster_key;
        let Some(client) = self.api(key) else { return };
        let value = group.owner.pool.clone();
        let of = format!("{LABEL}={value}");
        let nodes = Api::<Node>::all(client);
        let listed = nodes
            .list(&ListParams::default().labels(&of))
            .await
            .unwrap();
        let wanted = usize::try_from(group.replicas).unwrap();
        for node in listed.items.iter().skip(wanted) {
            let name = node.metadata.name.as_deref().unwrap();
            nodes.delete(name, &DeleteParams::default()).await.unwrap();
        }
        for n in 0..wanted {
            let name = format!("{value}-{n}");
            if n >= listed.items.len() {
                join(&nodes, &name, json!({LABEL: value}), None).await;
            }
            be_ready(&nodes, &name, &group.version).await;
        }
    }
}

/// A node registers.
async fn join(nodes: &Api<Node>, name: &str, labels: Value, provider_id: Option<&str>) {
    let node = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels}, "spec": {"providerID": provider_id},
    }))
    .unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
}

/// A node is ready, with this kubelet.
async fn be_ready(nodes: &Api<Node>, name: &str, version: &str) {
    let status = json!({"status": {
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "2026-01-01T00:00:00Z", "reason": "KubeletReady", "message": ""}],
        "nodeInfo": {
            "kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
        },
    }});
    let params = PatchParams::default();
    nodes
        .patch_status(name, &params, &Patch::Merge(status))
        .await
        .unwrap();
}

#[async_trait]
impl ManagedControlPlanes for Estate {
    async fn ensure(
        &self,
        _: &Account,
        order: &ManagedControlPlaneOrder,
    ) -> Result<ManagedControlPlaneState, ProviderError> {
        let lost = self.call("ensure", &order.owner)?;
        let owner = &order.owner;
        let key = (owner.cluster_key.clone(), String::new());
        let name = owner.cluster.clone();
        let looked = self.look(&key);
        match looked {
            None => {
                self.note(format!("create {name} {}", order.version));
                let thing = Thing {
                    owner: owner.clone(),
                    version: order.version.clone(),
                    to: None,
                    config: order.config.clone(),
                    replicas: 0,
                    left: LOOKS,
                    phase: ManagedPhase::Creating,
                };
                self.inner.lock().things.insert(key.clone(), thing);
            }
            Some((thing, _)) if thing.owner.installation != owner.installation => {
                return Err(terminal(format!("{name} is somebody else's")));
            }
            Some((thing, true)) => self.note(format!("{name} runs {}", thing.version)),
            Some((thing, false)) if thing.phase == ManagedPhase::Active => {
                let read = |text: &str| text.parse::<Version>().unwrap();
                let (to, from) = (read(&order.version), read(&thing.version));
                let mut inner = self.inner.lock();
                let changed = inner.things.get_mut(&key).unwrap();
                if to > from {
                    assert!(
                        to.minor() <= from.minor() + 1,
                        "a minor was skipped: {from} -> {to}"
                    );
                    changed.to = Some(order.version.clone());
                    changed.phase = ManagedPhase::Updating(changed.to.clone());
                    changed.left = LOOKS;
                    inner
                        .journal
                        .push(format!("update {name} to {}", order.version));
                } else if thing.config != order.config {
                    if thing.config["network"] != order.config["network"] {
                        return Err(terminal("network cannot change".into()));
                    }
                    changed.config = order.config.clone();
                    (changed.phase, changed.left) = (ManagedPhase::Updating(None), LOOKS);
                    inner.journal.push(format!("change {name}"));
                }
            }
            Some(_) => {}
        }
        let thing = self.inner.lock().things.get(&key).cloned().unwrap();
        if thing.phase != ManagedPhase::Creating {
            self.make_api(&owner.cluster_key).await;
        }
        lost.map_or_else(|| Ok(plane(thing)), Err)
    }

    async fn get(
        &self,
        _: &Account,
        owner: &ManagedOwner,
    ) -> Result<Option<ManagedControlPlaneState>, ProviderError> {
        self.call("get", owner)?;
        let key = (owner.cluster_key.clone(), String::new());
        let thing = self.inner.lock().things.get(&key).cloned();
        let ours = thing.filter(|t| t.owner.installation == owner.installation);
        Ok(ours.map(plane))
    }

    async fn remove(&self, _: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError> {
        self.call("remove", owner)?;
        let inner = self.inner.lock();
        let mut groups = inner.things.values();
        let of = |t: &&Thing| t.owner.cluster_key == owner.cluster_key && !t.owner.pool.is_empty();
        let used = groups.find(of).map(|t| t.owner.pool.clone());
        drop(inner);
        match used {
            Some(pool) => Err(terminal(format!("group {pool} uses it"))),
            None => self.leave(owner, &owner.cluster),
        }
    }

    async fn access(&self, _: &Account, owner: &ManagedOwner) -> Result<Access, ProviderError> {
        self.call("access", owner)?;
        let mut inner = self.inner.lock();
        inner.tokens += 1;
        Ok(Access {
            token: SecretText::new(format!("token-{}", inner.tokens)),
            expires: self.ward.now() + SignedDuration::from_secs(TOKEN_SECONDS),
        })
    }
}

fn plane(thing: Thing) -> ManagedControlPlaneState {
    let serves = !matches!(thing.phase, ManagedPhase::Creating);
    ManagedControlPlaneState {
        id: thing.owner.cluster,
        version: Some(thing.version),
        endpoint: serves.then(|| "https://plane.test:6443".to_owned()),
        certificate_authority: serves.then(|| "PEM".to_owned()),
        phase: thing.phase,
    }
}

fn state(thing: &Thing) -> PoolState {
    PoolState {
        id: thing.owner.pool.clone(),
        owner: thing.owner.clone(),
        phase: thing.phase.clone(),
        version: Some(thing.version.clone()),
        replicas: thing.replicas,
        node_label: thing.owner.pool.clone(),
    }
}

#[async_trait]
impl PoolProvider for Estate {
    fn node_label(&self) -> &str {
        LABEL
    }

    async fn ensure(&self, _: &Account, order: &PoolOrder) -> Result<PoolState, ProviderError> {
        let lost = self.call("ensurePool", &order.owner)?;
        let key = (order.owner.cluster_key.clone(), order.owner.pool.clone());
        let name = order.owner.pool.clone();
        match self.look(&key) {
            None => {
                self.note(format!("create {name} {}", order.version));
                let thing = Thing {
                    owner: order.owner.clone(),
                    version: order.version.clone(),
                    to: None,
                    config: order.config.clone(),
                    replicas: order.replicas.unwrap_or(1),
                    left: LOOKS,
                    phase: ManagedPhase::Creating,
                };
                self.inner.lock().things.insert(key.clone(), thing);
            }
            Some((thing, true)) => {
                self.note(format!("{name} runs {}", thing.version));
                self.nodes(&thing).await;
            }
            Some((thing, false)) if thing.phase == ManagedPhase::Active => {
                let now = self.change_group(&key, order);
                self.nodes(&now).await;
            }
            Some(_) => {}
        }
        let thing = self.inner.lock().things.get(&key).cloned().unwrap();
        lost.map_or_else(|| Ok(state(&thing)), Err)
    }

    async fn list(
        &self,
        _: &Account,
        cluster: &ManagedOwner,
    ) -> Result<Vec<PoolState>, ProviderError> {
        self.call("list", cluster)?;
        let inner = self.inner.lock();
        let of =
            |t: &&Thing| t.owner.cluster_key == cluster.cluster_key && !t.owner.pool.is_empty();
        Ok(inner.things.values().filter(of).map(state).collect())
    }

    async fn remove(&self, _: &Account, owner: &ManagedOwner) -> Result<bool, ProviderError> {
        self.call("removePool", owner)?;
        self.leave(owner, &owner.pool)
    }
}

#[async_trait]
impl Provider for Estate {
    fn name(&self) -> &str {
        "estate"
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        let schema = |kind: &str, purpose: &str| ConfigSchema {
            api_version: API_VERSION.into(),
            kind: kind.into(),
            schema: json!({
                "type": "object", "x-fleetwright-for": purpose,
                "properties": {
                    "size": {"type": "integer", "x-fleetwright-change": "in-place"},
                    "network": {"type": "string", "x-fleetwright-change": "replace"},
                },
            }),
        };
        vec![
            schema("EstateControlPlane", "ControlPlane"),
            schema("EstateGroup", "Pool"),
        ]
    }

    fn control_planes(&self) -> Option<&dyn ManagedControlPlanes> {
        Some(self)
    }

    fn pools(&self) -> Option<&dyn PoolProvider> {
        Some(self)
    }

    async fn create(&self, _: &Account, _: &CreateInstance) -> Result<Instance, ProviderError> {
        Err(terminal("no machines here".into()))
    }

    async fn get(&self, _: &Account, _: &str) -> Result<Option<Instance>, ProviderError> {
        Ok(None)
    }

    async fn list(&self, _: &Account, _: &ListScope) -> Result<Vec<Instance>, ProviderError> {
        Ok(Vec::new())
    }

    async fn update(
        &self,
        _: &Account,
        _: &str,
        _: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        Err(terminal("no machines here".into()))
    }

    async fn delete(&self, _: &Account, _: &str, _: &str) -> Result<(), ProviderError> {
        Ok(())
    }
}

#[async_trait]
impl ClusterConnections for Estate {
    async fn client(&self, cluster: &ClusterRef) -> Result<Client, ConnectionError> {
        match self.api(&cluster.key) {
            Some(client) => Ok(client),
            None => self.ward.client(cluster).await,
        }
    }

    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        self.ward.kubeconfig(cluster).await
    }

    async fn serving_certificates(
        &self,
        cluster: &ClusterRef,
    ) -> Result<BTreeMap<String, Timestamp>, ConnectionError> {
        self.ward.serving_certificates(cluster).await
    }
}

/// Settings of this kind.
pub(crate) fn config(kind: &str) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind, "account": "estate"})
}

impl Kit {
    /// A cluster whose control plane the estate runs, and its account.
    pub(crate) async fn managed_cluster(&self, name: &str, version: &str) -> String {
        let spec = json!({"metadata": {"name": "estate"}, "spec": {"provider": "estate"}});
        let account: ProviderAccount = serde_json::from_value(spec).unwrap();
        let accounts = Api::<ProviderAccount>::all(self.client.clone());
        // It may be there from another cluster.
        accounts.create(&PostParams::default(), &account).await.ok();
        let cluster = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"version": version, "controlPlane": {"managed": {"providerConfig": config("EstateControlPlane")}}},
        }))
        .unwrap();
        let api = self.api::<Cluster>();
        api.create(&PostParams::default(), &cluster).await.unwrap();
        names::cluster_key("test", "default", name)
    }

    /// A pool whose nodes the estate runs.
    pub(crate) async fn group(&self, name: &str, cluster: &str, replicas: i32) {
        let template = json!({"template": {"spec": {"providerConfig": config("EstateGroup")}}});
        let pool = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"clusterName": cluster, "replicas": replicas, "template": template["template"]},
        }))
        .unwrap();
        let api = self.api::<MachineDeployment>();
        api.create(&PostParams::default(), &pool).await.unwrap();
    }

    /// Waits until a cluster and its pools are what they say.
    pub(crate) async fn until_converged(&mut self, cluster: &str) {
        let what = format!("{cluster} has converged");
        self.until(&what, |w| {
            let of = |p: &&MachineDeployment| p.spec.cluster_name == cluster;
            let pools: Vec<MachineDeployment> = w.pools.values().filter(of).cloned().collect();
            status::has_converged(w.clusters.get(cluster)?, &pools).then_some(())
        })
        .await;
    }

    /// Has the controllers look at a cluster, and at all that belongs to it, and waits until they surely have: another cluster that is
    /// made afterwards is there.
    pub(crate) async fn pass(&mut self, cluster: &str) {
        let other = format!("after-{}", self.world.clusters.len());
        let note = json!({"metadata": {"annotations": {"note": other}}});
        self.patch::<Cluster>(cluster, note).await;
        self.managed_cluster(&other, "v1.33.0").await;
        self.until_converged(&other).await;
    }
}
