//! The cloud itself: what exists, what is due, what went wrong on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use axum::body::Body;
use fleetwright_api::{random::Random, time::Clock};
use fleetwright_providers::{Account, ConfigError, InstanceState, ProviderError};
use fleetwright_store::{Op, Store, Value as Bytes};
use futures::{StreamExt, stream::FuturesUnordered};
use http::{Method, Request, Response};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{chain, not_serving},
    clusters::Clusters,
    config,
    faults::{Fault, FaultEffect, Faults},
    instance::SimInstance,
    journal::{Entry, Journal, Told},
    latency::{self, Latency},
    state::{Due, State},
};

/// Time that an instance takes to go.
const DELETE: SignedDuration = SignedDuration::from_millis(500);
/// Time from a change in a cluster to the look at its pods: changes come in bursts.
const PODS: SignedDuration = SignedDuration::from_millis(100);
/// Time until something that failed is tried again.
const AGAIN: SignedDuration = SignedDuration::from_millis(500);
/// Things that happen at once: they share the stores' commits.
const AT_ONCE: usize = 128;
/// Where the number of the next instance is stored, so that no id is ever given twice.
const NEXT: &str = "m/next";

/// Why the cloud cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// Its folder cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its store cannot be opened.
    #[error("cannot open the simulated cloud's store")]
    Store(#[from] fleetwright_store::Error),
    /// What is stored cannot be read.
    #[error("entry {key} in the simulated cloud's store cannot be read")]
    Stored {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What a cloud is made with.
#[derive(Clone)]
pub struct CloudOptions {
    /// Folder of the state and of `journal.jsonl`.
    pub dir: PathBuf,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of chance.
    pub random: Arc<dyn Random>,
}

/// A simulated cluster as the cloud shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Its key.
    pub key: String,
    /// The Cluster as `namespace/name`, where an instance tells it.
    pub cluster: String,
    /// Whether its API serves.
    pub serves: bool,
    /// Its instances, whatever their state.
    pub instances: usize,
}

pub(crate) struct Inner {
    pub(crate) options: CloudOptions,
    pub(crate) state: Mutex<State>,
    pub(crate) clusters: Clusters,
    faults: Mutex<Faults>,
    latencies: Mutex<Vec<Latency>>,
    versions: Mutex<Option<BTreeSet<String>>>,
    journal: Mutex<Journal>,
    store: Store,
    wake: Notify,
    /// Where it is served, once it is.
    url: OnceLock<String>,
}

/// A simulated cloud. Clones are the same cloud.
#[derive(Clone)]
pub struct Cloud(pub(crate) Arc<Inner>);

impl Cloud {
    /// Opens the cloud that lives in `options.dir`, or makes a new one there.
    ///
    /// # Errors
    /// See [`CloudError`].
    pub fn open(options: CloudOptions) -> Result<Self, CloudError> {
        let at = |path: &Path, source: io::Error| CloudError::Io {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(&options.dir).map_err(|e| at(&options.dir, e))?;
        // The store first: it is locked, so that a second cloud on this folder never touches the journal.
        // Nobody watches it: it need not remember what changed.
        let store = Store::open_bounded(options.dir.join("cloud.db"), 0)?;
        let journal_file = options.dir.join("journal.jsonl");
        let journal = Journal::open(&journal_file).map_err(|e| at(&journal_file, e))?;
        let mut state = State::new();
        if let Some(entry) = store.get(NEXT) {
            state.next = serde_json::from_slice(&entry.value.bytes()).map_err(|source| {
                CloudError::Stored {
                    key: NEXT.to_owned(),
                    source,
                }
            })?;
        }
        for entry in store.range("i/", None, 0).0 {
            let instance: SimInstance =
                serde_json::from_slice(&entry.value.bytes()).map_err(|source| {
                    CloudError::Stored {
                        key: entry.key.to_string(),
                        source,
                    }
                })?;
            state.next = state.next.max(instance.number + 1);
            state.plan(instance.due, Due::Instance(instance.id.clone()));
            state.insert(instance);
        }
        Self::over(options, store, state, journal)
    }

    /// A cloud without a folder: it is gone with its last clone. Each line of its journal is told to `told`, while the call is
    /// under way.
    ///
    /// # Errors
    /// None, as long as memory holds.
    pub fn in_memory(
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        told: Told,
    ) -> Result<Self, CloudError> {
        let options = CloudOptions {
            dir: PathBuf::new(),
            clock,
            random,
        };
        Self::over(options, Store::memory(), State::new(), Journal::told(told))
    }

    fn over(
        options: CloudOptions,
        store: Store,
        state: State,
        journal: Journal,
    ) -> Result<Self, CloudError> {
        let clusters = Clusters::new(&options, store.clone())?;
        Ok(Self(Arc::new(Inner {
            options,
            state: Mutex::new(state),
            clusters,
            faults: Mutex::default(),
            latencies: Mutex::default(),
            versions: Mutex::default(),
            journal: Mutex::new(journal),
            store,
            wake: Notify::new(),
            url: OnceLock::new(),
        })))
    }

    /// Says where this cloud is served, as `http://ADDRESS`: kubeconfigs of its clusters lead there. The first word holds.
    pub fn served_at(&self, url: String) {
        self.0.url.set(url).ok();
    }

    /// Where it is served; `None` while it is not.
    pub fn url(&self) -> Option<&str> {
        self.0.url.get().map(String::as_str)
    }

    /// Asks for a fault; gives it back with its id.
    pub fn add_fault(&self, fault: Fault) -> Fault {
        self.0.faults.lock().add(fault)
    }

    /// Forgets all faults, those that have fired too.
    pub fn clear_faults(&self) {
        self.0.faults.lock().clear();
    }

    /// All faults, with how often each has fired.
    pub fn faults(&self) -> Vec<Fault> {
        self.0.faults.lock().all().to_vec()
    }

    /// Makes calls take time: these latencies replace those set before.
    pub fn set_latencies(&self, latencies: Vec<Latency>) {
        *self.0.latencies.lock() = latencies;
    }

    /// The latencies that are set.
    pub fn latencies(&self) -> Vec<Latency> {
        self.0.latencies.lock().clone()
    }

    /// Says of which Kubernetes versions it has images; `None`: of all.
    pub fn set_versions(&self, versions: Option<BTreeSet<String>>) {
        *self.0.versions.lock() = versions;
    }

    /// The Kubernetes versions that it has images of; `None`: all.
    pub fn versions(&self) -> Option<BTreeSet<String>> {
        self.0.versions.lock().clone()
    }

    /// That there is no image of a version, and what to do about it.
    pub(crate) fn missing(&self, version: &str, config: &Value) -> Option<ConfigError> {
        let versions = self.0.versions.lock();
        let all = versions.as_ref()?;
        let image = config["image"].as_str().unwrap_or(config::DEFAULT_IMAGE);
        (!all.contains(version)).then(|| ConfigError {
            field: "image".into(),
            message: format!(
                "the simulated cloud has no image {image} of it: add it with PUT /versions"
            ),
        })
    }

    /// All clusters that there is something of, by key.
    pub fn clusters(&self) -> Vec<ClusterView> {
        let view = |key: String| ClusterView {
            serves: self.0.clusters.get(&key).is_some(),
            key,
            ..ClusterView::default()
        };
        let keys = self.0.clusters.keys();
        let mut all: BTreeMap<_, _> = keys.map(|k| (k.clone(), view(k))).collect();
        for instance in self.0.state.lock().instances.values() {
            let owner = &instance.order.owner;
            let key = owner.cluster_key.clone();
            let of = all.entry(key.clone()).or_insert_with(|| view(key));
            of.cluster.clone_from(&owner.cluster);
            of.instances += 1;
        }
        all.into_values().collect()
    }

    /// The tags of an instance beyond those of its owner; `None` where there is no such instance.
    pub fn tags(&self, id: &str) -> Option<serde_json::Value> {
        let state = self.0.state.lock();
        Some(state.instances.get(id)?.order.config["tags"].clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.options.clock.now()
    }

    /// The fault that hits this call, if any.
    pub(crate) fn fault(
        &self,
        verb: &str,
        account: &Account,
        machine: &str,
    ) -> Option<FaultEffect> {
        let mut faults = self.0.faults.lock();
        faults.fire(verb, &account.name, &account.region, machine)
    }

    /// How long this call takes.
    pub(crate) fn delay(&self, verb: &str, account: &Account) -> std::time::Duration {
        let latencies = self.0.latencies.lock();
        let random = self.0.options.random.as_ref();
        latency::delay(&latencies, verb, &account.name, &account.region, random)
    }

    /// Whether a cluster has an instance, whatever its state.
    pub(crate) fn has_instances(&self, cluster_key: &str) -> bool {
        self.0.state.lock().has_instances(cluster_key)
    }

    /// A request to the API of a simulated cluster.
    pub(crate) async fn ask_cluster<B>(&self, key: &str, request: Request<B>) -> Response<Body>
    where
        B: axum::body::HttpBody,
        B::Error: std::fmt::Display,
    {
        let Some(cluster) = self.0.clusters.get(key) else {
            return not_serving(key);
        };
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let answer = cluster.handle(request).await;
        if writes && self.0.clusters.has_workloads(key) {
            self.look_at_pods(key, PODS);
        }
        answer
    }

    /// A client of a cluster's API; it goes on with whichever cluster has the key.
    pub(crate) fn cluster_client(&self, key: &str) -> kube::Client {
        let (cloud, key) = (self.clone(), key.to_owned());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (cloud, key) = (cloud.clone(), key.clone());
            async move { Ok::<_, Infallible>(cloud.ask_cluster(&key, request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn look_at_pods(&self, key: &str, after: SignedDuration) {
        let at = self.now().checked_add(after).unwrap_or(Timestamp::MAX);
        self.schedule(at, Due::Pods(key.to_owned()));
    }

    /// Writes a call down.
    pub(crate) fn write_down(&self, entry: Entry) -> Result<(), ProviderError> {
        self.0
            .journal
            .lock()
            .append(entry)
            .map(|_| ())
            .map_err(|e| ProviderError::Unavailable {
                message: format!(
                    "the journal cannot be written ({e}): make room for it, or make its folder writable"
                ),
            })
    }

    /// Makes durable what the state says of an instance, or that there is none. Of two that do so at once the
    /// one that ends later has stored what was said last.
    pub(crate) async fn persist(&self, id: &str) -> Result<(), ProviderError> {
        loop {
            let (instance, next) = {
                let state = self.0.state.lock();
                (state.instances.get(id).cloned(), state.next)
            };
            let ops = match &instance {
                Some(instance) => {
                    let bytes = serde_json::to_vec(instance).map_err(|e| cannot_store(&e))?;
                    vec![put(place(id), bytes)]
                }
                None => removal(id, next),
            };
            self.0
                .store
                .commit(ops)
                .await
                .map_err(|e| cannot_store(&e))?;
            if self.0.state.lock().instances.get(id) == instance.as_ref() {
                return Ok(());
            }
        }
    }

    pub(crate) fn schedule(&self, at: Timestamp, due: Due) {
        self.0.state.lock().plan(at, due);
        self.0.wake.notify_one();
    }

    /// Looks again at what is due: to be called when a clock that does not run by itself was moved.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    pub(crate) fn deleted_at(&self) -> Timestamp {
        self.after(DELETE)
    }

    /// Lets time pass: boots what is due, ends what is due, keeps pods. One loop for the whole cloud; runs
    /// until `token` is cancelled.
    pub async fn run(&self, token: CancellationToken) {
        for key in self.0.clusters.reload().await {
            let due = if self.has_instances(&key) {
                Due::Pods(key)
            } else {
                Due::TearDown(key)
            };
            self.schedule(self.now(), due);
        }
        let mut running = FuturesUnordered::new();
        loop {
            let next = {
                let now = self.now();
                let mut state = self.0.state.lock();
                while running.len() < AT_ONCE
                    && let Some(due) = state.take(now)
                {
                    running.push(self.happen(due));
                }
                state.next_due()
            };
            let wait = next.map_or(SignedDuration::from_secs(3600), |at| {
                at.duration_since(self.now())
            });
            let wait = std::time::Duration::try_from(wait).unwrap_or_default();
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                Some(()) = running.next() => {}
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(wait), if running.len() < AT_ONCE => {}
            }
        }
    }

    async fn happen(&self, due: Due) {
        match due {
            Due::Instance(id) => self.advance(&id).await,
            Due::Stored(id) => self.store(&id).await,
            Due::Pods(key) => {
                let again = match self.0.clusters.keep_pods(self, &key).await {
                    Ok(again) => again,
                    Err(error) => {
                        let error = chain(&error);
                        tracing::warn!(cluster = %key, %error, "cannot keep the simulated pods");
                        Some(self.after(AGAIN))
                    }
                };
                let changed = self.0.state.lock().looked(&key);
                if changed {
                    self.look_at_pods(&key, PODS);
                }
                if let Some(at) = again {
                    self.schedule(at, Due::Pods(key));
                }
            }
            Due::TearDown(key) => {
                if let Err(error) = self.0.clusters.tear_down(self, &key).await {
                    tracing::error!(cluster = %key, %error, "a simulated cluster cannot be torn down");
                    self.schedule(self.after(AGAIN), Due::TearDown(key));
                }
            }
        }
    }

    pub(crate) fn ago(&self, time: SignedDuration) -> Timestamp {
        self.now().checked_sub(time).unwrap_or(Timestamp::MIN)
    }

    fn after(&self, pause: SignedDuration) -> Timestamp {
        self.now().checked_add(pause).unwrap_or(Timestamp::MAX)
    }

    /// An instance's time has come: it is booted, or gone.
    async fn advance(&self, id: &str) {
        let Some(mut instance) = self.0.state.lock().instances.get(id).cloned() else {
            return;
        };
        if instance.due > self.now() {
            return; // postponed meanwhile
        }
        match instance.state {
            InstanceState::Pending => {
                instance.state = InstanceState::Running;
                // The node registers before the list shows the instance as running, as a boot script would.
                if !instance.mute
                    && let Err(error) = self.0.clusters.register(self, &instance).await
                {
                    let error = chain(&error);
                    tracing::warn!(instance = %id, %error, "the simulated node cannot register");
                    self.postpone(id, InstanceState::Pending);
                    return;
                }
                let mut state = self.0.state.lock();
                match state.instances.get_mut(id) {
                    // Deleted while it registered: that wins. A change in place meanwhile stays.
                    Some(kept) if kept.state == InstanceState::Pending => {
                        kept.state = InstanceState::Running;
                    }
                    _ => return,
                }
            }
            InstanceState::Deleting => {
                if let Err(error) = self.0.clusters.leave(self, &instance).await {
                    let error = chain(&error);
                    tracing::warn!(instance = %id, %error, "the simulated node cannot end");
                    self.postpone(id, InstanceState::Deleting);
                    return;
                }
                self.remove(&instance).await;
                return;
            }
            _ => return,
        }
        self.store(id).await;
    }

    /// An instance is gone: from the file first, so that none that was seen to be gone comes back.
    pub(crate) async fn remove(&self, instance: &SimInstance) {
        let id = &instance.id;
        let next = self.0.state.lock().next;
        if let Err(error) = self.0.store.commit(removal(id, next)).await {
            let error = chain(&error);
            tracing::error!(instance = %id, %error, "the simulated instance cannot end");
            self.postpone(id, InstanceState::Deleting);
            return;
        }
        self.0.state.lock().remove(id, self.now());
        if self.0.store.get(&place(id)).is_some() {
            self.store(id).await; // a change in place came in between
        }
        let key = &instance.order.owner.cluster_key;
        if !self.has_instances(key) {
            self.schedule(self.now(), Due::TearDown(key.clone()));
        }
    }

    /// Tries an instance again later, if it is in this state still.
    fn postpone(&self, id: &str, state: InstanceState) {
        let at = self.after(AGAIN);
        match self.0.state.lock().instances.get_mut(id) {
            Some(kept) if kept.state == state => kept.due = at,
            _ => return,
        }
        self.schedule(at, Due::Instance(id.to_owned()));
    }

    /// Stores what became of an instance; tries again later where that fails.
    async fn store(&self, id: &str) {
        if let Err(error) = self.persist(id).await {
            tracing::error!(instance = %id, %error, "the simulated cloud tries again later");
            self.schedule(self.after(AGAIN), Due::Stored(id.to_owned()));
        }
    }
}

/// Where the store has an instance.
fn place(id: &str) -> String {
    format!("i/{id}")
}

fn put(key: String, value: Vec<u8>) -> Op {
    Op::Put {
        key,
        value: Bytes::plain(value),
        expect: None,
    }
}

/// What removes an instance from the store, and remembers that its number was given.
fn removal(id: &str, next: u64) -> Vec<Op> {
    let delete = Op::Delete {
        key: place(id),
        expect: None,
        last: None,
    };
    vec![put(NEXT.to_owned(), next.to_string().into_bytes()), delete]
}

/// The error of a call whose effect cannot be written down.
pub(crate) fn cannot_store(error: &dyn std::error::Error) -> ProviderError {
    ProviderError::Unavailable {
        message: format!("the simulated cloud cannot store: {}", chain(error)),
    }
}
