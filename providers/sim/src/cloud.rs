//! The cloud itself: what exists, what is due, what went wrong on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use fleetwright_api::{random::Random, time::Clock};
use fleetwright_providers::{InstanceState, ProviderError};
use fleetwright_store::{Op, Store, Value as Bytes};
use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    clusters::Clusters,
    faults::{Fault, FaultEffect, Faults},
    instance::SimInstance,
    journal::{Entry, Journal},
};

/// Time that an instance takes to go.
const DELETE: SignedDuration = SignedDuration::from_millis(500);
/// Time between two looks at the pods of a cluster that has some.
const PODS: SignedDuration = SignedDuration::from_millis(500);
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
    /// Most instances of an account; no limit where an account is not named.
    pub quotas: BTreeMap<String, usize>,
}

/// What becomes due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// An instance is booted or gone.
    Instance(String),
    /// The pods of a cluster are looked at.
    Pods(String),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) instances: BTreeMap<String, SimInstance>,
    /// Instance key to id.
    pub(crate) by_key: BTreeMap<String, String>,
    pub(crate) next: u64,
    /// Instances of each account.
    pub(crate) used: BTreeMap<String, usize>,
    due: BTreeSet<(Timestamp, Due)>,
    /// When the pods of a cluster are looked at next: at most one entry of `due` for each.
    pods: BTreeMap<String, Timestamp>,
    /// Clusters whose pods are being looked at.
    keeping: BTreeSet<String>,
}

impl State {
    pub(crate) fn insert(&mut self, instance: SimInstance) {
        *self.used.entry(instance.account.clone()).or_default() += 1;
        let key = instance.order.owner.instance_key.clone();
        self.by_key.insert(key, instance.id.clone());
        self.instances.insert(instance.id.clone(), instance);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        if let Some(instance) = self.instances.remove(id) {
            self.by_key.remove(&instance.order.owner.instance_key);
            if let Some(used) = self.used.get_mut(&instance.account) {
                *used = used.saturating_sub(1);
            }
        }
    }

    fn plan(&mut self, at: Timestamp, due: Due) {
        if let Due::Pods(key) = &due {
            match self.pods.get(key).copied() {
                Some(before) if before <= at => return,
                Some(before) => {
                    self.due.remove(&(before, due.clone()));
                }
                None => {}
            }
            self.pods.insert(key.clone(), at);
        }
        self.due.insert((at, due));
    }

    /// What is due, one thing; of a cluster's pods only while nobody looks at them.
    fn take(&mut self, now: Timestamp) -> Option<Due> {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let (_, due) = self.due.pop_first()?;
            let Due::Pods(key) = &due else {
                return Some(due);
            };
            self.pods.remove(key);
            if self.keeping.insert(key.clone()) {
                return Some(due);
            }
        }
        None
    }
}

pub(crate) struct Inner {
    pub(crate) options: CloudOptions,
    pub(crate) state: Mutex<State>,
    pub(crate) clusters: Clusters,
    faults: Mutex<Faults>,
    journal: Mutex<Journal>,
    store: Store,
    wake: Notify,
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
        let store = Store::open(options.dir.join("cloud.db"))?;
        let journal_file = options.dir.join("journal.jsonl");
        let journal = Journal::open(&journal_file).map_err(|e| at(&journal_file, e))?;
        let mut state = State {
            next: 1,
            ..State::default()
        };
        if let Some(entry) = store.get(NEXT) {
            state.next =
                serde_json::from_slice(&entry.value).map_err(|source| CloudError::Stored {
                    key: NEXT.to_owned(),
                    source,
                })?;
        }
        for entry in store.range("i/", None, 0).0 {
            let instance: SimInstance =
                serde_json::from_slice(&entry.value).map_err(|source| CloudError::Stored {
                    key: entry.key.to_string(),
                    source,
                })?;
            state.next = state.next.max(instance.number + 1);
            state.plan(instance.due, Due::Instance(instance.id.clone()));
            state.insert(instance);
        }
        let clusters = Clusters::new(&options);
        Ok(Self(Arc::new(Inner {
            options,
            state: Mutex::new(state),
            clusters,
            faults: Mutex::default(),
            journal: Mutex::new(journal),
            store,
            wake: Notify::new(),
        })))
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

    /// The tags of an instance beyond those of its owner; `None` where there is no such instance.
    pub fn tags(&self, id: &str) -> Option<serde_json::Value> {
        let state = self.0.state.lock();
        Some(state.instances.get(id)?.order.config["tags"].clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.options.clock.now()
    }

    /// The fault that hits this call, if any.
    pub(crate) fn fault(&self, verb: &str, account: &str, machine: &str) -> Option<FaultEffect> {
        self.0.faults.lock().fire(verb, account, machine)
    }

    /// Writes a call down.
    pub(crate) fn write_down(&self, entry: Entry) -> Result<(), ProviderError> {
        self.0
            .journal
            .lock()
            .append(entry)
            .map(|_| ())
            .map_err(|e| ProviderError::Unavailable {
                message: format!("the journal cannot be written: {e}"),
            })
    }

    /// Makes durable what the state says of an instance, or that there is none. Of two that do so at once the
    /// one that ends later has stored what was said last.
    pub(crate) async fn persist(&self, id: &str) -> Result<(), ProviderError> {
        let broken = |message: String| ProviderError::Unavailable {
            message: format!("the simulated cloud cannot store: {message}"),
        };
        let key = format!("i/{id}");
        loop {
            let (instance, next) = {
                let state = self.0.state.lock();
                (state.instances.get(id).cloned(), state.next)
            };
            let put = |key: &str, value: Vec<u8>| Op::Put {
                key: key.to_owned(),
                value: Bytes::plain(value),
                expect: None,
            };
            let ops = match &instance {
                Some(instance) => {
                    let bytes = serde_json::to_vec(instance).map_err(|e| broken(e.to_string()))?;
                    vec![put(&key, bytes)]
                }
                None => {
                    let delete = Op::Delete {
                        key: key.clone(),
                        expect: None,
                        last: None,
                    };
                    vec![put(NEXT, next.to_string().into_bytes()), delete]
                }
            };
            self.0
                .store
                .commit(ops)
                .await
                .map_err(|e| broken(e.to_string()))?;
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
        self.now().checked_add(DELETE).unwrap_or(Timestamp::MAX)
    }

    /// Lets time pass: boots what is due, ends what is due, keeps pods. One loop for the whole cloud; runs
    /// until `token` is cancelled.
    pub async fn run(&self, token: CancellationToken) {
        for key in self.0.clusters.reload(self).await {
            self.schedule(self.now(), Due::Pods(key));
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
                state.due.first().map(|(at, _)| *at)
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
            Due::Pods(key) => {
                if let Err(error) = self.0.clusters.keep_pods(&key, self.now()).await {
                    tracing::warn!(cluster = %key, %error, "cannot keep the simulated pods");
                }
                self.0.state.lock().keeping.remove(&key);
                if self.0.clusters.has_pods(&key) {
                    self.schedule(
                        self.now().checked_add(PODS).unwrap_or(Timestamp::MAX),
                        Due::Pods(key),
                    );
                }
            }
            Due::Instance(id) => self.advance(&id).await,
        }
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
                if let Err(error) = self.0.clusters.register(self, &instance).await {
                    tracing::warn!(instance = %id, %error, "the simulated node cannot register");
                    let again = self.now().checked_add(PODS).unwrap_or(Timestamp::MAX);
                    let mut state = self.0.state.lock();
                    match state.instances.get_mut(id) {
                        Some(kept) if kept.state == InstanceState::Pending => kept.due = again,
                        _ => return,
                    }
                    drop(state);
                    self.schedule(again, Due::Instance(id.to_owned()));
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
                self.0.clusters.leave(&instance).await;
                self.0.state.lock().remove(id);
            }
            _ => return,
        }
        if let Err(error) = self.persist(id).await {
            tracing::error!(instance = %id, %error, "the simulated cloud cannot store");
        }
    }
}
