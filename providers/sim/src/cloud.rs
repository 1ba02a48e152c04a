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
    #[error("instance {key} in the simulated cloud's store cannot be read")]
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
    due: BTreeSet<(Timestamp, Due)>,
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
        let journal_file = options.dir.join("journal.jsonl");
        let journal = Journal::open(&journal_file).map_err(|e| at(&journal_file, e))?;
        let store = Store::open(options.dir.join("cloud.db"))?;
        let mut state = State {
            next: 1,
            ..State::default()
        };
        for entry in store.range("i/", None, 0).0 {
            let instance: SimInstance =
                serde_json::from_slice(&entry.value).map_err(|source| CloudError::Stored {
                    key: entry.key.to_string(),
                    source,
                })?;
            state.next = state.next.max(instance.number + 1);
            state.by_key.insert(
                instance.order.owner.instance_key.clone(),
                instance.id.clone(),
            );
            state
                .due
                .insert((instance.due, Due::Instance(instance.id.clone())));
            state.instances.insert(instance.id.clone(), instance);
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

    /// Asks for a fault.
    pub fn add_fault(&self, fault: Fault) {
        self.0.faults.lock().add(fault);
    }

    /// All faults, with how often each has fired.
    pub fn faults(&self) -> Vec<Fault> {
        self.0.faults.lock().all().to_vec()
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

    /// Stores an instance, or its end.
    pub(crate) async fn store(
        &self,
        id: &str,
        instance: Option<&SimInstance>,
    ) -> Result<(), ProviderError> {
        let broken = |message: String| ProviderError::Unavailable { message };
        let key = format!("i/{id}");
        let op = match instance {
            Some(instance) => {
                let bytes = serde_json::to_vec(instance).map_err(|e| broken(e.to_string()))?;
                Op::Put {
                    key,
                    value: Bytes::plain(bytes),
                    expect: None,
                }
            }
            None => Op::Delete {
                key,
                expect: None,
                last: None,
            },
        };
        self.0
            .store
            .commit(vec![op])
            .await
            .map_err(|e| broken(e.to_string()))?;
        Ok(())
    }

    pub(crate) fn schedule(&self, at: Timestamp, due: Due) {
        self.0.state.lock().due.insert((at, due));
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
        loop {
            let now = self.now();
            let (ready, next) = {
                let mut state = self.0.state.lock();
                let mut ready = Vec::new();
                while state.due.first().is_some_and(|(at, _)| *at <= now) {
                    if let Some((_, due)) = state.due.pop_first() {
                        ready.push(due);
                    }
                }
                (ready, state.due.first().map(|(at, _)| *at))
            };
            for due in ready {
                if token.is_cancelled() {
                    return;
                }
                self.happen(due).await;
            }
            let wait = next.map_or(SignedDuration::from_secs(3600), |at| {
                at.duration_since(self.now())
            });
            let wait = std::time::Duration::try_from(wait).unwrap_or_default();
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn happen(&self, due: Due) {
        match due {
            Due::Pods(key) => {
                if let Err(error) = self.0.clusters.keep_pods(&key, self.now()).await {
                    tracing::warn!(cluster = %key, %error, "cannot keep the simulated pods");
                }
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
        let stored = match instance.state {
            InstanceState::Pending => {
                instance.state = InstanceState::Running;
                // The node registers before the list shows the instance as running, as a boot script would.
                if let Err(error) = self.0.clusters.register(self, &instance).await {
                    tracing::warn!(instance = %id, %error, "the simulated node cannot register");
                    let again = self.now().checked_add(PODS).unwrap_or(Timestamp::MAX);
                    if let Some(kept) = self.0.state.lock().instances.get_mut(id) {
                        kept.due = again;
                    }
                    self.schedule(again, Due::Instance(id.to_owned()));
                    return;
                }
                let mut state = self.0.state.lock();
                match state.instances.get_mut(id) {
                    // Deleted while it registered: that wins.
                    Some(kept) if kept.state == InstanceState::Pending => *kept = instance.clone(),
                    _ => return,
                }
                Some(&instance)
            }
            InstanceState::Deleting => {
                self.0.clusters.leave(&instance).await;
                let mut state = self.0.state.lock();
                state.instances.remove(id);
                state.by_key.remove(&instance.order.owner.instance_key);
                None
            }
            _ => return,
        };
        if let Err(error) = self.store(id, stored).await {
            tracing::error!(instance = %id, %error, "the simulated cloud cannot store");
        }
    }
}
