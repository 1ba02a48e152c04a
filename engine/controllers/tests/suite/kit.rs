//! A real API server, the simulated cloud and the controllers in this process, and what a test sees of them: every change of every
//! object, in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Fleet, Machine, MachineDeployment, MachineHealthCheck, MachineSet, ProviderAccount,
    condition, crds, meta, names, provider_account::ProviderAccountSpec, random::SeededRandom,
    time::SystemClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_controllers::{Context, Controllers, Escrow, Metrics};
use fleetwright_core::{cluster::is_control_plane, status};
use fleetwright_provider_external::External;
use fleetwright_provider_sim::{Cloud, CloudOptions, Fault};
use fleetwright_providers::{Account, ClusterConnections, ClusterRef, Provider, Registry};
use fleetwright_store::Store;
use fleetwright_workload::Connections;
use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    estate::Estate,
    trail::{self, Decisions},
    ward::Ward,
};
pub(crate) use crate::{
    lines::{condition_line, of_cluster, of_machine, of_pool},
    settings::{config, merge, workload},
};

/// How long a test waits for what must come: far more than it takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// All objects of our kinds, by name.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) clusters: BTreeMap<String, Cluster>,
    pub(crate) pools: BTreeMap<String, MachineDeployment>,
    pub(crate) sets: BTreeMap<String, MachineSet>,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) checks: BTreeMap<String, MachineHealthCheck>,
    pub(crate) fleets: BTreeMap<String, Fleet>,
}

impl World {
    pub(crate) fn workers(&self, pool: &str) -> Vec<&Machine> {
        let of = |m: &&Machine| {
            m.labels()
                .get(meta::LABEL_DEPLOYMENT_NAME)
                .is_some_and(|p| p == pool)
        };
        self.machines.values().filter(of).collect()
    }

    pub(crate) fn control_plane(&self, cluster: &str) -> Vec<&Machine> {
        let of = |m: &&Machine| is_control_plane(m) && m.spec.cluster_name == cluster;
        self.machines.values().filter(of).collect()
    }

    /// Whether a cluster is what it says, and nothing of before is left.
    pub(crate) fn settled(&self, name: &str) -> bool {
        let pools: Vec<MachineDeployment> = self
            .pools
            .values()
            .filter(|p| p.spec.cluster_name == name)
            .cloned()
            .collect();
        let wanted: i32 = pools.iter().filter_map(|p| p.spec.replicas).sum();
        let Some(cluster) = self.clusters.get(name) else {
            return false;
        };
        let control_plane = cluster
            .spec
            .control_plane
            .machines
            .as_ref()
            .and_then(|m| m.replicas);
        let machines = || {
            self.machines
                .values()
                .filter(|m| m.spec.cluster_name == name)
        };
        // Kinds are seen by watches of their own: the machines as they are seen must say so too.
        status::has_converged(cluster, &pools)
            && i32::try_from(machines().count()).ok() == control_plane.map(|c| c + wanted)
            && machines().all(is_available)
            && self
                .sets
                .values()
                .filter(|s| s.spec.cluster_name == name)
                .all(is_counted)
    }
}

/// Whether a set says of its machines what it wants them to be: sets rest between two looks, and tell last.
fn is_counted(set: &MachineSet) -> bool {
    let wanted = set.spec.replicas.unwrap_or(1);
    set.status.as_ref().is_some_and(|s| {
        [s.replicas, s.ready_replicas, s.available_replicas] == [wanted; 3]
            && condition::is_true(&s.conditions, condition::kind::MACHINES_READY)
            && condition::is_true(&s.conditions, condition::kind::MACHINES_UP_TO_DATE)
    })
}

pub(crate) fn is_available(machine: &Machine) -> bool {
    let status = machine.status.as_ref();
    status.is_some_and(|s| condition::is_true(&s.conditions, condition::kind::AVAILABLE))
}

/// A kind that tests change.
pub(crate) trait Kind:
    kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + std::fmt::Debug
{
    fn of(world: &World) -> &BTreeMap<String, Self>;
}

impl Kind for Cluster {
    fn of(world: &World) -> &BTreeMap<String, Self> {
        &world.clusters
    }
}

impl Kind for MachineDeployment {
    fn of(world: &World) -> &BTreeMap<String, Self> {
        &world.pools
    }
}

impl Kind for MachineSet {
    fn of(world: &World) -> &BTreeMap<String, Self> {
        &world.sets
    }
}

impl Kind for MachineHealthCheck {
    fn of(world: &World) -> &BTreeMap<String, Self> {
        &world.checks
    }
}

impl Kind for Fleet {
    fn of(world: &World) -> &BTreeMap<String, Self> {
        &world.fleets
    }
}

impl Kind for Machine {
    fn of(world: &World) -> &BTreeMap<String, Self> {
        &world.machines
    }
}

enum Change {
    Cluster(Event<Cluster>),
    Pool(Event<MachineDeployment>),
    Set(Event<MachineSet>),
    Machine(Event<Machine>),
    Check(Event<MachineHealthCheck>),
    Fleet(Box<Event<Fleet>>),
}

fn fold<K: ResourceExt>(map: &mut BTreeMap<String, K>, event: Event<K>) {
    match event {
        Event::Init => map.clear(),
        Event::InitApply(object) | Event::Apply(object) => {
            map.insert(object.name_any(), object);
        }
        Event::InitDone => {}
        Event::Delete(object) => {
            map.remove(&object.name_any());
        }
    }
}

fn follow<K>(client: &Client, wrap: fn(Event<K>) -> Change) -> BoxStream<'static, Change>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api = Api::<K>::all(client.clone());
    watcher::watcher(api, watcher::Config::default())
        .filter_map(move |event| async move { event.ok().map(wrap) })
        .boxed()
}

/// The account that all kits have, as the cloud knows it.
pub(crate) fn account() -> Account {
    Account {
        name: "sim-eu".into(),
        provider: "sim".into(),
        region: "eu".into(),
        ..Account::default()
    }
}

/// An API server that knows our kinds and holds nothing.
async fn new_api() -> Client {
    let options = Options::new(Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
    let server = ApiServer::new(Store::memory(), options).unwrap();
    let ours: Vec<Value> = crds::all()
        .iter()
        .map(|c| serde_json::to_value(c).unwrap())
        .collect();
    server.install_crds(&ours).await.unwrap();
    server.client("default")
}

fn follow_all(client: &Client) -> SelectAll<BoxStream<'static, Change>> {
    let mut changes = SelectAll::new();
    changes.push(follow(client, Change::Cluster));
    changes.push(follow(client, Change::Pool));
    changes.push(follow(client, Change::Set));
    changes.push(follow(client, Change::Machine));
    changes.push(follow(client, Change::Check));
    changes.push(follow(client, |event| Change::Fleet(Box::new(event))));
    changes
}

fn providers(ward: &Ward, estate: &Estate, client: &Client) -> Registry {
    Registry::new([
        Arc::new(ward.clone()) as Arc<dyn Provider>,
        Arc::new(estate.clone()),
        Arc::new(External::new("test", client.clone())),
    ])
}

/// What must hold at every moment; an error says what does not.
type Invariant = Box<dyn FnMut(&World) -> Result<(), String> + Send>;

pub(crate) struct Kit {
    pub(crate) client: Client,
    pub(crate) cloud: Cloud,
    /// What makes machines ill.
    pub(crate) ward: Ward,
    /// What runs control planes and groups of nodes by itself.
    pub(crate) estate: Estate,
    pub(crate) world: World,
    changes: SelectAll<BoxStream<'static, Change>>,
    invariants: Vec<Invariant>,
    context: Context,
    pub(crate) decisions: Decisions,
    dir: tempfile::TempDir,
    tasks: JoinSet<()>,
    controllers: JoinSet<()>,
    token: CancellationToken,
    controllers_token: CancellationToken,
}

impl Kit {
    pub(crate) async fn start() -> Self {
        Self::with_quotas(BTreeMap::new()).await
    }

    /// With these quotas of account `sim-eu`.
    pub(crate) async fn with_quotas(quotas: BTreeMap<String, i64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let random = Arc::new(SeededRandom::new(1));
        let client = new_api().await;
        let cloud = Cloud::open(CloudOptions {
            dir: dir.path().to_owned(),
            clock: clock.clone(),
            random: random.clone(),
        })
        .unwrap();
        let real = Connections::new(client.clone(), random.clone());
        let ward = Ward::new(cloud.clone(), real);
        let estate = Estate::new(ward.clone(), random.clone());
        let (trail, decisions) = trail::recorder();
        let context = Context {
            client: client.clone(),
            providers: providers(&ward, &estate, &client),
            connections: Arc::new(estate.clone()),
            etcd: Arc::new(ward.clone()),
            escrow: None,
            clock: Arc::new(ward.clone()),
            random,
            installation: "test".into(),
            metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
            trail,
        };
        let mut kit = Self {
            changes: follow_all(&client),
            client,
            cloud,
            ward,
            estate,
            world: World::default(),
            invariants: Vec::new(),
            context,
            decisions,
            dir,
            tasks: JoinSet::new(),
            controllers: JoinSet::new(),
            token: CancellationToken::new(),
            controllers_token: CancellationToken::new(),
        };
        let (cloud, token) = (kit.cloud.clone(), kit.token.clone());
        kit.tasks.spawn(async move { cloud.run(token).await });
        kit.account("sim-eu", "eu", quotas).await;
        kit.start_controllers();
        kit
    }

    /// The API forgets everything; the cloud and its clusters go on. The controllers are stopped.
    pub(crate) async fn lose_state(&mut self) {
        self.stop_controllers().await;
        self.client = new_api().await;
        self.give(self.client.clone());
        self.changes = follow_all(&self.client);
        self.world = World::default();
        self.account("sim-eu", "eu", BTreeMap::new()).await;
    }

    /// An account of the simulated cloud in this region.
    pub(crate) async fn account(&self, name: &str, region: &str, quotas: BTreeMap<String, i64>) {
        let spec = ProviderAccountSpec {
            provider: "sim".into(),
            region: Some(region.into()),
            quotas,
            ..Default::default()
        };
        Api::<ProviderAccount>::all(self.client.clone())
            .create(&PostParams::default(), &ProviderAccount::new(name, spec))
            .await
            .unwrap();
    }

    pub(crate) fn start_controllers(&mut self) {
        self.controllers_token = CancellationToken::new();
        self.controllers
            .spawn(Controllers::new(self.context.clone()).run(self.controllers_token.clone()));
    }

    /// Keys are kept there from the next start of the controllers on.
    pub(crate) fn escrow(&mut self, escrow: Escrow) {
        self.context.escrow = Some(escrow);
    }

    /// Starts the controllers anew over another client of the API.
    pub(crate) async fn restart_over(&mut self, client: Client) {
        self.stop_controllers().await;
        self.give(client);
        self.start_controllers();
    }

    fn give(&mut self, client: Client) {
        self.context.providers = providers(&self.ward, &self.estate, &client);
        self.context.client = client;
    }

    pub(crate) async fn stop_controllers(&mut self) {
        self.controllers_token.cancel();
        while let Some(ended) = self.controllers.join_next().await {
            ended.unwrap();
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// A cluster of `replicas` control-plane machines.
    pub(crate) async fn cluster(&self, name: &str, version: &str, replicas: i32, more: Value) {
        let mut spec = json!({
            "version": version,
            "controlPlane": {"machines": {"replicas": replicas, "template": {"spec": {"providerConfig": config("sim.small")}}}},
        });
        merge(&mut spec, more);
        let cluster = serde_json::from_value(json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap();
        let api = self.api::<Cluster>();
        api.create(&PostParams::default(), &cluster).await.unwrap();
    }

    pub(crate) async fn pool(&self, name: &str, cluster: &str, replicas: i32, more: Value) {
        let mut spec = json!({
            "clusterName": cluster, "replicas": replicas,
            "template": {"spec": {"providerConfig": config("sim.small")}},
        });
        merge(&mut spec, more);
        let pool = serde_json::from_value(json!({
            "apiVersion": "fleetwright.dev/v1alpha1", "kind": "MachineDeployment", "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap();
        let api = self.api::<MachineDeployment>();
        api.create(&PostParams::default(), &pool).await.unwrap();
    }

    /// What a person does with `kubectl patch --type merge`; seen when this returns.
    pub(crate) async fn patch<K: Kind>(&mut self, name: &str, change: Value) {
        let (params, api) = (PatchParams::default(), self.api::<K>());
        let written = api
            .patch(name, &params, &Patch::Merge(change))
            .await
            .unwrap();
        let number = |k: &K| -> u64 { k.resource_version().unwrap().parse().unwrap() };
        self.until("a write is seen", |w| {
            (number(K::of(w).get(name)?) >= number(&written)).then_some(())
        })
        .await;
    }

    /// What holds at every change from now on.
    pub(crate) fn always(
        &mut self,
        invariant: impl FnMut(&World) -> Result<(), String> + Send + 'static,
    ) {
        self.invariants.push(Box::new(invariant));
    }

    /// Follows every change until `done` gives something.
    pub(crate) async fn until<T>(&mut self, what: &str, done: impl Fn(&World) -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            for invariant in &mut self.invariants {
                if let Err(broken) = invariant(&self.world) {
                    panic!("{broken}, while waiting for: {what}");
                }
            }
            if let Some(found) = done(&self.world) {
                return found;
            }
            match tokio::time::timeout_at(end, self.changes.next()).await {
                Ok(Some(change)) => self.take(change),
                Ok(None) => panic!("the watches ended"),
                Err(_) => self.give_up(what),
            }
        }
    }

    pub(crate) async fn until_settled(&mut self, cluster: &str) {
        let what = format!("{cluster} is settled");
        self.until(&what, |w| w.settled(cluster).then_some(()))
            .await;
    }

    fn take(&mut self, change: Change) {
        let world = &mut self.world;
        match change {
            Change::Cluster(event) => fold(&mut world.clusters, event),
            Change::Pool(event) => fold(&mut world.pools, event),
            Change::Set(event) => fold(&mut world.sets, event),
            Change::Machine(event) => fold(&mut world.machines, event),
            Change::Check(event) => fold(&mut world.checks, event),
            Change::Fleet(event) => fold(&mut world.fleets, *event),
        }
    }

    fn give_up(&self, what: &str) -> ! {
        let mut lines = Vec::new();
        for (name, m) in &self.world.machines {
            lines.push(format!(
                "{name}: {}",
                serde_json::to_string(&m.status).unwrap()
            ));
        }
        for (name, s) in &self.world.sets {
            lines.push(format!(
                "{name}: {}",
                serde_json::to_string(&s.status).unwrap()
            ));
        }
        for (name, p) in &self.world.pools {
            lines.push(format!(
                "{name}: {}",
                serde_json::to_string(&p.status).unwrap()
            ));
        }
        for (name, c) in &self.world.clusters {
            lines.push(format!(
                "{name}: {}",
                serde_json::to_string(&c.status).unwrap()
            ));
        }
        panic!("it does not come: {what}\n{}", lines.join("\n"));
    }

    /// The API of a workload cluster.
    pub(crate) async fn workload(&self, cluster: &str) -> Client {
        let reference = ClusterRef {
            namespace: "default".into(),
            name: cluster.into(),
            key: names::cluster_key("test", "default", cluster),
            ..ClusterRef::default()
        };
        self.cloud.client(&reference).await.unwrap()
    }

    pub(crate) async fn nodes(&self, cluster: &str) -> Vec<Node> {
        let api = Api::<Node>::all(self.workload(cluster).await);
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// Follows the nodes of a cluster until `done` says so of them.
    pub(crate) async fn until_nodes(
        &self,
        cluster: &str,
        what: &str,
        done: impl Fn(&[Node]) -> bool,
    ) {
        let api = Api::<Node>::all(self.workload(cluster).await);
        let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
        let mut nodes = BTreeMap::new();
        let follow = async {
            while let Some(event) = events.next().await {
                let whole = !matches!(event, Ok(Event::Init | Event::InitApply(_)));
                fold(&mut nodes, event.unwrap());
                let list: Vec<Node> = nodes.values().cloned().collect();
                if whole && done(&list) {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, follow).await.is_err() {
            panic!("it does not come: {what}: {nodes:#?}");
        }
    }

    /// Waits until a pod runs on this node.
    pub(crate) async fn until_pod_on(&self, cluster: &str, node: &str) {
        let pods = Api::<Pod>::all(self.workload(cluster).await);
        let on_node = format!("spec.nodeName={node}");
        let mut events =
            watcher::watcher(pods, watcher::Config::default().fields(&on_node)).boxed();
        let running = async {
            while let Some(event) = events.next().await {
                if let Event::Apply(pod) | Event::InitApply(pod) = event.unwrap()
                    && pod.status.and_then(|s| s.phase).as_deref() == Some("Running")
                {
                    return;
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, running).await;
        assert!(ended.is_ok(), "no pod runs on {node}");
    }

    pub(crate) fn fault(&self, fault: Value) -> u64 {
        let fault: Fault = serde_json::from_value(fault).unwrap();
        self.cloud.add_fault(fault).id
    }

    /// How often a fault has fired.
    pub(crate) fn fired(&self, id: u64) -> u64 {
        let all = self.cloud.faults();
        all.iter().find(|f| f.id == id).map_or(0, |f| f.fired)
    }

    /// The journal's lines, in order.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap();
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    /// Machines for which an instance was asked for and made, in order; each once for each instance.
    pub(crate) fn made(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for line in self.journal().iter().filter(|e| e["verb"] == "create") {
            let made = (line["machine"].clone(), line["instance"].clone());
            if line["instance"].is_string() && !seen.contains(&made) {
                seen.push(made);
            }
        }
        seen.into_iter()
            .map(|(machine, _)| machine.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    pub(crate) async fn stop(mut self) {
        // Every Machine has had at most one instance, whatever happened.
        let mut made = self.made();
        made.sort();
        let all = made.len();
        made.dedup();
        assert_eq!(made.len(), all, "a Machine had two instances: {made:?}");
        self.stop_controllers().await;
        self.token.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}
