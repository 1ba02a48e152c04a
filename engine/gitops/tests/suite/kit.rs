//! A Fleet that is looked at step by step: no loop runs, so nothing need be waited for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use fleetwright_api::{
    Fleet, condition, crds,
    decision::Trail,
    fleet::{Allow, DriftAction, DriftPolicy, DriftRule, FleetSource, FleetSpec, PrunePolicy},
    random::SeededRandom,
    time::ManualClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_core::catalogue::Catalogue;
use fleetwright_gitops::{
    follow::{Context, FollowError, Follower},
    settle::Seen,
};
use fleetwright_store::Store;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

const OURS: &str = "fleetwright.dev/v1alpha1";

/// An API with our kinds, and what followers need of it.
pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dir: tempfile::TempDir,
    /// Requests whose method and path hold this text fail as if the API were away.
    pub(crate) away: Arc<Mutex<Option<&'static str>>>,
    /// What was written down.
    pub(crate) decisions: Arc<Mutex<Vec<Value>>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_000_000).unwrap()));
        let random = Arc::new(SeededRandom::new(1));
        let options = Options::new(clock.clone(), random.clone());
        let server = ApiServer::new(Store::memory(), options).unwrap();
        let ours: Result<Vec<Value>, _> = crds::all().iter().map(serde_json::to_value).collect();
        server.install_crds(&ours.unwrap()).await.unwrap();
        let away = Arc::new(Mutex::new(None));
        let client = faulty(server.client("default"), Arc::clone(&away));
        let mut catalogue = Catalogue::default();
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        catalogue.insert("sim.fleetwright.dev/v1alpha1", "SimMachineConfig", open);
        let dir = tempfile::tempdir().unwrap();
        let decisions = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&decisions);
        let context = Context {
            client,
            catalogue: Arc::new(catalogue),
            cache: dir.path().join("cache").into(),
            tokens: None,
            repositories: None,
            installation: "test".into(),
            clock: clock.clone(),
            random,
            trail: Trail::new(move |decision| {
                let decision = serde_json::to_value(decision).unwrap();
                written.lock().push(decision);
            }),
            metrics: fleetwright_gitops::Metrics::register(
                &mut prometheus_client::registry::Registry::default(),
            ),
        };
        Self {
            context,
            clock,
            dir,
            away,
            decisions,
        }
    }

    /// A Fleet that follows folder `name` of this world's directory.
    pub(crate) async fn directory(&self, name: &str) -> Following {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let source = FleetSource {
            directory: Some(folder.to_str().unwrap().into()),
            ..FleetSource::default()
        };
        let spec = FleetSpec {
            source,
            ..FleetSpec::default()
        };
        self.fleet(name, spec, folder).await
    }

    pub(crate) async fn fleet(&self, name: &str, spec: FleetSpec, folder: PathBuf) -> Following {
        let fleets = Api::<Fleet>::namespaced(self.client(), "default");
        let fleet = Fleet::new(name, spec);
        let fleet = fleets.create(&PostParams::default(), &fleet).await.unwrap();
        Following {
            follower: Follower::new(self.context.clone(), fleet),
            fleets,
            folder,
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.context.client.clone()
    }

    pub(crate) fn api(&self, kind: &str) -> Api<DynamicObject> {
        let version = match kind {
            "ConfigMap" | "Namespace" => "v1",
            _ => OURS,
        };
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let plural = match kind {
            "CommitStatus" => "commitstatuses".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
        match kind {
            "Namespace" => Api::all_with(self.client(), &resource),
            _ => Api::namespaced_with(self.client(), "default", &resource),
        }
    }

    pub(crate) async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let found = self.api(kind).get_opt(name).await.unwrap();
        found.map(|o| serde_json::to_value(o).unwrap())
    }

    /// A field of an object that must be there.
    pub(crate) async fn field(&self, kind: &str, name: &str, pointer: &str) -> Value {
        let object = self.get(kind, name).await.unwrap();
        object.pointer(pointer).cloned().unwrap_or_default()
    }

    /// Names of the objects of a kind in namespace default.
    pub(crate) async fn names(&self, kind: &str) -> Vec<String> {
        let list = self.api(kind).list(&ListParams::default()).await.unwrap();
        list.iter().map(ResourceExt::name_any).collect()
    }

    /// Resource versions of everything that Git may hold.
    pub(crate) async fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for kind in ["Namespace", "ConfigMap", "Cluster", "MachineDeployment"] {
            for object in self.api(kind).list(&ListParams::default()).await.unwrap() {
                let name = format!("{kind} {}", object.name_any());
                versions.insert(name, object.resource_version().unwrap());
            }
        }
        versions
    }

    /// What somebody does with `kubectl edit`.
    pub(crate) async fn edit(&self, kind: &str, name: &str, change: Value) {
        let params = PatchParams {
            field_manager: Some("kubectl-edit".into()),
            ..PatchParams::default()
        };
        let api = self.api(kind);
        api.patch(name, &params, &Patch::Merge(&change))
            .await
            .unwrap();
    }

    /// What a controller writes.
    pub(crate) async fn status(&self, kind: &str, name: &str, status: Value) {
        let api = self.api(kind);
        let change = json!({"status": status});
        let params = PatchParams::default();
        api.patch_status(name, &params, &Patch::Merge(&change))
            .await
            .unwrap();
    }

    /// A cluster is where its spec says, as controllers would report it.
    pub(crate) async fn converge(&self, name: &str) {
        let generation = self.field("Cluster", name, "/metadata/generation").await;
        let version = self.field("Cluster", name, "/spec/version").await;
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"observedGeneration": generation, "version": version,
            "conditions": [condition("Available", "True"), condition("RollingOut", "False")]});
        self.status("Cluster", name, status).await;
    }

    /// Who holds `field` (such as `f:replicas`, below `f:spec`) of an object.
    pub(crate) async fn holders(&self, kind: &str, name: &str, field: &str) -> Vec<String> {
        let entries = self.field(kind, name, "/metadata/managedFields").await;
        let holds = |e: &&Value| e["fieldsV1"]["f:spec"].get(field).is_some();
        let entries = entries.as_array().unwrap().iter().filter(holds);
        entries
            .map(|e| e["manager"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Clusters, pools and accounts, as watches would show them.
    pub(crate) async fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        let params = ListParams::default();
        for cluster in Api::all(self.client()).list(&params).await.unwrap() {
            let cluster: fleetwright_api::Cluster = cluster;
            let name = (cluster.namespace().unwrap(), cluster.name_any());
            seen.clusters.insert(name, cluster);
        }
        for pool in Api::all(self.client()).list(&params).await.unwrap() {
            let pool: fleetwright_api::MachineDeployment = pool;
            let name = (pool.namespace().unwrap(), pool.name_any());
            seen.pools.insert(name, pool);
        }
        for account in Api::all(self.client()).list(&params).await.unwrap() {
            let account: fleetwright_api::ProviderAccount = account;
            let name = (String::new(), account.name_any());
            seen.accounts.insert(name, account);
        }
        seen
    }
}

fn faulty(inner: Client, away: Arc<Mutex<Option<&'static str>>>) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, away) = (inner.clone(), *away.lock());
        async move {
            let what = format!("{} {}", request.method(), request.uri());
            match away {
                // The request is carried out, and the answer is lost.
                Some(text) if text.strip_prefix("lost ").is_some_and(|t| what.contains(t)) => {
                    inner.send(request).await.map_err(tower::BoxError::from)?;
                    Err(std::io::Error::other("the connection broke").into())
                }
                Some(text) if what.contains(text) => {
                    Err(std::io::Error::other("the connection broke").into())
                }
                _ => inner.send(request).await.map_err(tower::BoxError::from),
            }
        }
    });
    Client::new(service, "default")
}

/// A Fleet and its follower.
pub(crate) struct Following {
    pub(crate) follower: Follower,
    pub(crate) fleets: Api<Fleet>,
    pub(crate) folder: PathBuf,
}

impl Following {
    pub(crate) fn write(&self, file: &str, text: &str) {
        write(&self.folder, file, text);
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.folder.join(file)).unwrap();
    }

    /// Looks once; gives reason and message of the condition Ready.
    pub(crate) async fn look(&mut self, world: &World) -> (String, String) {
        self.try_look(world).await.unwrap();
        self.ready()
    }

    pub(crate) async fn try_look(&mut self, world: &World) -> Result<bool, FollowError> {
        let name = self.follower.fleet.name_any();
        self.follower.fleet = self.fleets.get(&name).await.unwrap();
        // Lists for the test itself never fail.
        let away = world.away.lock().take();
        let seen = world.seen().await;
        *world.away.lock() = away;
        self.follower.look(&seen).await
    }

    /// Tells again how far it has come.
    pub(crate) async fn settle(&mut self, world: &World) -> (String, String) {
        self.follower.settle(&world.seen().await).await.unwrap();
        self.ready()
    }

    pub(crate) fn ready(&self) -> (String, String) {
        self.condition(condition::kind::READY)
    }

    pub(crate) fn condition(&self, kind: &str) -> (String, String) {
        let status = self.follower.fleet.status.as_ref().unwrap();
        let found = condition::get(&status.conditions, kind).unwrap();
        (found.reason.clone(), found.message.clone())
    }

    /// Changes the Fleet's spec, as its administrator would.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut FleetSpec)) {
        let mut fleet = self
            .fleets
            .get(&self.follower.fleet.name_any())
            .await
            .unwrap();
        change(&mut fleet.spec);
        let params = PostParams::default();
        let name = fleet.name_any();
        self.fleets.replace(&name, &params, &fleet).await.unwrap();
    }

    pub(crate) async fn drift(&self, action: DriftAction) {
        self.drift_rules(action, Vec::new()).await;
    }

    pub(crate) async fn drift_rules(&self, action: DriftAction, rules: Vec<DriftRule>) {
        let policy = Some(action);
        self.change(|spec| spec.drift = Some(DriftPolicy { policy, rules }))
            .await;
    }

    pub(crate) async fn allow(&self, allow: Allow) {
        self.change(|spec| spec.allow = Some(allow)).await;
    }

    pub(crate) async fn max_machines(&self, most: i32) {
        let max_machines = Some(most);
        self.change(|spec| spec.prune = Some(PrunePolicy { max_machines }))
            .await;
    }

    /// The process ends and another one begins.
    pub(crate) async fn restart(&mut self, world: &World) {
        let fleet = self
            .fleets
            .get(&self.follower.fleet.name_any())
            .await
            .unwrap();
        self.follower = Follower::new(world.context.clone(), fleet);
    }
}

pub(crate) fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const CONFIG: &str = "providerConfig: {apiVersion: sim.fleetwright.dev/v1alpha1, kind: SimMachineConfig, account: sim-eu}";

pub(crate) fn cluster(name: &str, version: &str) -> String {
    format!(
        "apiVersion: {OURS}
kind: Cluster
metadata: {{name: {name}}}
spec:
  version: {version}
  controlPlane: {{machines: {{template: {{spec: {{{CONFIG}}}}}}}}}
"
    )
}

/// A pool; `more` are lines of its spec.
pub(crate) fn pool(name: &str, more: &str) -> String {
    format!(
        "apiVersion: {OURS}
kind: MachineDeployment
metadata: {{name: {name}}}
spec:
  clusterName: a
  {more}
  template: {{spec: {{{CONFIG}}}}}
"
    )
}

pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: {value}}}\n")
}
