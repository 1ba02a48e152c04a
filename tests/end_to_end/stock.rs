//! The cluster of `FLEETWRIGHT_TEST_KUBECONFIG`: with it set the tests run their engines there, one test after the other.
//!
//! It needs to be an API server and nothing more: what garbage collection would do, the tests do themselves.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Weak},
};

use fleetwright_api::{
    API_VERSION, Cluster, CommitStatus, Fleet, Machine, MachineDeployment, MachineSet,
    ProviderAccount, crds,
};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    config::Kubeconfig,
    core::{ClusterResourceScope, NamespaceResourceScope},
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};

use crate::kit::{PATIENCE, Process, client};

const VARIABLE: &str = "FLEETWRIGHT_TEST_KUBECONFIG";
/// Namespace of the engines' Lease.
pub(crate) const NAMESPACE: &str = "fleetwright-system";

/// The data folder whose state the cluster holds.
static STATE: LazyLock<Arc<Mutex<Option<PathBuf>>>> = LazyLock::new(Arc::default);
static HELD: parking_lot::Mutex<Weak<Stock>> = parking_lot::Mutex::new(Weak::new());

/// The cluster, held by one test.
pub(crate) struct Stock {
    kubeconfig: String,
    data: PathBuf,
    /// The simulated cloud of engines that bring none.
    cloud: OnceCell<(Process, String)>,
    _guard: OwnedMutexGuard<Option<PathBuf>>,
}

impl Stock {
    /// The cluster with the state that belongs to the data folder `data`, as long as that is held; `None` where none is given.
    pub(crate) async fn of(data: &Path) -> Option<Arc<Self>> {
        let kubeconfig = std::env::var(VARIABLE).ok().filter(|v| !v.is_empty())?;
        let held = HELD.lock().upgrade().filter(|held| held.data == data);
        if held.is_some() {
            return held;
        }
        let mut guard = Arc::clone(&STATE).lock_owned().await;
        if guard.as_deref() != Some(data) {
            refuse_strangers(Path::new(&kubeconfig));
            let client = client(Path::new(&kubeconfig)).await;
            prepare(&client).await;
            clean(&client).await;
            *guard = Some(data.to_owned());
        }
        let stock = Arc::new(Self {
            kubeconfig,
            data: data.to_owned(),
            cloud: OnceCell::new(),
            _guard: guard,
        });
        *HELD.lock() = Arc::downgrade(&stock);
        Some(stock)
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// URL of a simulated cloud with its state in `folder`.
    pub(crate) async fn cloud(&self, folder: &Path) -> &str {
        let start = async || {
            let args = ["simcloud", "--data", folder.to_str().unwrap()];
            let process = Process::start(&args, "journal").await;
            let url = process.told("simcloud");
            (process, url)
        };
        &self.cloud.get_or_init(start).await.1
    }
}

/// A Kubernetes for engines that a test starts itself: the cluster, else an embedded API server in a process of its own.
pub(crate) struct Kubernetes {
    pub(crate) kubeconfig: String,
    /// As administrator.
    pub(crate) client: Client,
    pub(crate) stock: Option<Arc<Stock>>,
    _process: Option<Process>,
}

impl Kubernetes {
    /// One with our kinds and the namespace of the Lease, for a test with the folder `dir`.
    pub(crate) async fn start(dir: &Path) -> Self {
        let stock = Stock::of(dir).await;
        if let Some(stock) = stock {
            return Self {
                kubeconfig: stock.kubeconfig().to_owned(),
                client: client(Path::new(stock.kubeconfig())).await,
                stock: Some(stock),
                _process: None,
            };
        }
        let users = dir.join("users");
        std::fs::write(&users, "t0ken,admin,admin,\"system:masters\"\n").unwrap();
        let args = ["apiserver", "--data", "memory", "--token-auth-file"];
        let args = [&args[..], &[users.to_str().unwrap()]].concat();
        let process = Process::start(&args, "kubeconfig").await;
        let kubeconfig = process.told("kubeconfig");
        let client = client(Path::new(&kubeconfig)).await;
        prepare(&client).await;
        Self {
            kubeconfig,
            client,
            stock: None,
            _process: Some(process),
        }
    }
}

/// Tests delete what they find: never on a cluster that others may use.
fn refuse_strangers(kubeconfig: &Path) {
    let all = Kubeconfig::read_from(kubeconfig).unwrap();
    let context = all.current_context.unwrap();
    let context = all.contexts.iter().find(|c| c.name == context).unwrap();
    let name = &context.context.as_ref().unwrap().cluster;
    let cluster = all.clusters.iter().find(|c| c.name == *name).unwrap();
    let server = cluster.cluster.as_ref().unwrap().server.clone().unwrap();
    assert!(
        is_loopback(&server),
        "{VARIABLE} leads to {server}: tests delete all fleets there, so its host must be a loopback address, such as 127.0.0.1"
    );
}

fn is_loopback(server: &str) -> bool {
    let uri: http::Uri = server.parse().unwrap();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[test]
fn tests_keep_away_from_clusters_of_others() {
    for (server, expected) in [
        ("https://127.0.0.1:6443", true),
        ("https://localhost", true),
        ("https://[::1]:6443", true),
        ("https://10.0.0.1:6443", false),
        ("https://127.0.0.1.example.org", false),
        ("https://kubernetes.default.svc", false),
    ] {
        assert_eq!(is_loopback(server), expected, "{server}");
    }
}

/// Our kinds and the namespace of the Lease, as an administrator makes them.
async fn prepare(client: &Client) {
    let params = PatchParams::apply("fleetwright-tests").force();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in crds::all() {
        let name = crd.name_any();
        definitions
            .patch(&name, &params, &Patch::Apply(&crd))
            .await
            .unwrap();
        let established =
            await_condition(definitions.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(PATIENCE, established)
            .await
            .unwrap()
            .unwrap();
    }
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone())
        .patch(NAMESPACE, &params, &Patch::Apply(&namespace))
        .await
        .unwrap();
}

/// Takes away all that engines and tests leave.
async fn clean(client: &Client) {
    namespaced::<Fleet>(client, all).await;
    namespaced::<CommitStatus>(client, all).await;
    namespaced::<MachineDeployment>(client, all).await;
    namespaced::<MachineSet>(client, all).await;
    namespaced::<Machine>(client, all).await;
    namespaced::<Cluster>(client, all).await;
    clusterwide::<ProviderAccount>(client).await;
    namespaced::<Secret>(client, |s: &Secret| {
        let ours = |o: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
            o.api_version == API_VERSION
        };
        s.owner_references().iter().any(ours) || s.name_any() == "fleetwright-source"
    })
    .await;
    namespaced::<Lease>(client, |l: &Lease| {
        l.namespace().as_deref() == Some(NAMESPACE)
    })
    .await;
}

fn all<K>(_: &K) -> bool {
    true
}

async fn namespaced<K>(client: &Client, ours: fn(&K) -> bool)
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let everywhere = Api::<K>::all(client.clone());
    let list = everywhere.list(&ListParams::default()).await.unwrap();
    for object in list.items.iter().filter(|o| ours(o)) {
        let namespace = object.namespace().unwrap();
        remove(&Api::<K>::namespaced(client.clone(), &namespace), object).await;
    }
}

async fn clusterwide<K>(client: &Client)
where
    K: kube::Resource<Scope = ClusterResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    for object in api.list(&ListParams::default()).await.unwrap() {
        remove(&api, &object).await;
    }
}

/// Deletes an object that nobody looks after any more.
async fn remove<K>(api: &Api<K>, object: &K)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let name = object.name_any();
    let gone = |result: Result<(), kube::Error>| match result {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => other.unwrap(),
    };
    gone(
        api.delete(&name, &DeleteParams::background())
            .await
            .map(drop),
    );
    let free = Patch::Merge(json!({"metadata": {"finalizers": Value::Null}}));
    gone(
        api.patch(&name, &PatchParams::default(), &free)
            .await
            .map(drop),
    );
}
