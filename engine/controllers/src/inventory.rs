//! What the providers' lists show: one list per account, never one call per machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fleetwright_core::machine::Absent;
use fleetwright_providers::{Instance, InstanceState, Ownership, ProviderError};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Shortest and longest time between lists of an account in which something moves.
const MOVING: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5);
/// How much of that each instance brings: lists show all of them, and would otherwise cost the more each second the more there are.
const PER_INSTANCE: Duration = Duration::from_millis(2);
/// Time between lists of an account in which nothing moves.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// An instance of an account and when (in calls of ours) it was last written.
struct Known {
    /// `None` once the provider told us that it is gone.
    instance: Option<Arc<Instance>>,
    written: u64,
}

/// How long it is kept what is known of keys that no list shows: far longer than lists can be behind. After that the machine is asked
/// for by its id, or lists of so long have shown that there is none.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// What this process knows of a key whose instance no list shows, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hidden {
    /// Nothing was asked of the provider under it but what had no effect.
    Unused(Timestamp),
    /// A create may have had its effect, or a list showed the instance no more.
    Since(Timestamp),
    /// The provider deletes it, or has said that there is none with its id.
    Gone(Timestamp),
}

impl Hidden {
    fn at(self) -> Timestamp {
        let (Self::Unused(at) | Self::Since(at) | Self::Gone(at)) = self;
        at
    }
}

/// A list that is being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    tick: u64,
    at: Timestamp,
}

#[derive(Default)]
struct AccountState {
    /// By instance key.
    known: BTreeMap<String, Known>,
    /// By instance key, until a list shows the instance or the Machine is gone.
    hidden: BTreeMap<String, Hidden>,
    /// When the first and the latest complete list of this process were begun.
    lists: Option<(Timestamp, Timestamp)>,
    /// Instance keys by the cluster's key.
    of_cluster: BTreeMap<String, BTreeSet<String>>,
    /// Ids of the instances that share an instance key, as the latest list shows them, by that key.
    duplicates: BTreeMap<String, BTreeSet<String>>,
    moving: bool,
    /// Why the last list failed; `None` after a good one.
    trouble: Option<ProviderError>,
}

impl AccountState {
    fn put(&mut self, key: String, known: Known) {
        if let Some(owner) = known.instance.as_ref().and_then(|i| i.owner.as_ref()) {
            let cluster = owner.cluster_key.clone();
            let keys = self.of_cluster.entry(cluster).or_default();
            keys.insert(key.clone());
        }
        self.known.insert(key, known);
    }

    fn remove(&mut self, key: &str) {
        let known = self.known.remove(key).and_then(|k| k.instance);
        if let Some(owner) = known.as_ref().and_then(|i| i.owner.as_ref())
            && let Some(keys) = self.of_cluster.get_mut(&owner.cluster_key)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.of_cluster.remove(&owner.cluster_key);
            }
        }
    }
}

/// What is known of a machine's instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    /// No complete list of the account yet.
    Unknown,
    /// The provider has none with this key.
    Missing,
    /// It is this one.
    There(Arc<Instance>),
}

/// The inventories of all accounts.
#[derive(Default)]
pub(crate) struct Inventory {
    accounts: Mutex<BTreeMap<String, AccountState>>,
    clock: std::sync::atomic::AtomicU64,
    pub(crate) wake: Notify,
}

impl Inventory {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
    }

    /// To be called before a list is asked for.
    pub(crate) fn begin(&self, now: Timestamp) -> Begun {
        Begun {
            tick: self.tick(),
            at: now,
        }
    }

    /// Takes in a complete list that was begun at `begun`; gives the owners of the instances that changed. What we
    /// wrote ourselves since then stays.
    pub(crate) fn listed(
        &self,
        account: &str,
        begun: Begun,
        list: Vec<Instance>,
    ) -> Vec<Ownership> {
        let mut accounts = self.accounts.lock();
        let state = accounts.entry(account.to_owned()).or_default();
        let first = state.lists.is_none();
        state.lists = Some((state.lists.map_or(begun.at, |(first, _)| first), begun.at));
        state.trouble = None;
        let mut fresh: BTreeMap<String, Instance> = BTreeMap::new();
        let mut duplicates: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut alike = BTreeSet::new();
        for mut instance in list {
            // What thousands of machines have alike is kept once.
            match alike.get(&instance.settings) {
                Some(known) => instance.settings = Arc::clone(known),
                None => drop(alike.insert(Arc::clone(&instance.settings))),
            }
            let Some(owner) = &instance.owner else {
                continue;
            };
            let key = owner.instance_key.clone();
            let Some(other) = fresh.get(&key) else {
                fresh.insert(key, instance);
                continue;
            };
            let ids = duplicates.entry(key.clone()).or_default();
            ids.extend([other.id.clone(), instance.id.clone()]);
            // The one that was known stays the machine's.
            let known = state.known.get(&key).and_then(|k| k.instance.as_ref());
            if known.is_some_and(|known| known.id == instance.id) {
                fresh.insert(key, instance);
            }
        }
        let before = std::mem::replace(&mut state.duplicates, duplicates);
        let strays = before.keys().chain(state.duplicates.keys());
        let strays = strays.filter(|key| before.get(*key) != state.duplicates.get(*key));
        let strays: BTreeSet<String> = strays.cloned().collect();
        let keys: BTreeSet<_> = state.known.keys().chain(fresh.keys()).cloned().collect();
        let mut changed = Vec::new();
        for key in keys {
            if state
                .known
                .get(&key)
                .is_some_and(|k| k.written > begun.tick)
            {
                continue;
            }
            let now = fresh.remove(&key);
            let before = state.known.get(&key).and_then(|k| k.instance.as_deref());
            let owner = || now.as_ref().or(before).and_then(|i| i.owner.clone());
            if before != now.as_ref() || first {
                changed.extend(owner());
            }
            if strays.contains(&key) {
                // Of no Machine: its Cluster tells of it.
                changed.extend(owner().map(|owner| Ownership {
                    instance_key: String::new(),
                    ..owner
                }));
            }
            match now {
                Some(instance) => {
                    let known = Known {
                        instance: Some(Arc::new(instance)),
                        written: begun.tick,
                    };
                    state.hidden.remove(&key);
                    state.put(key, known);
                }
                None => {
                    if let Some(before) = before {
                        let how = match before.state {
                            InstanceState::Deleting => Hidden::Gone(begun.at),
                            _ => Hidden::Since(begun.at),
                        };
                        state.hidden.insert(key.clone(), how);
                    }
                    state.remove(&key);
                }
            }
        }
        let fresh = |hidden: &Hidden| begun.at.duration_since(hidden.at()) < KEPT;
        state.hidden.retain(|_, hidden| fresh(hidden));
        state.moving = state
            .known
            .values()
            .filter_map(|k| k.instance.as_deref())
            .any(is_moving);
        changed
    }

    /// The account could not be listed; `true` when that is news.
    pub(crate) fn failed(&self, account: &str, why: ProviderError) -> bool {
        let mut accounts = self.accounts.lock();
        let state = accounts.entry(account.to_owned()).or_default();
        let before = state.trouble.replace(why);
        before != state.trouble
    }

    /// Why the account could not be listed the last time.
    pub(crate) fn trouble(&self, account: &str) -> Option<ProviderError> {
        self.accounts.lock().get(account)?.trouble.clone()
    }

    /// Whether something in the account moves, so that the next list is due soon.
    pub(crate) fn moving(&self, account: &str) -> bool {
        self.accounts
            .lock()
            .get(account)
            .is_none_or(|a| a.moving || a.lists.is_none())
    }

    /// How long after a list of the account the next one is due while something moves there.
    pub(crate) fn pause(&self, account: &str) -> Duration {
        let accounts = self.accounts.lock();
        let instances = accounts.get(account).map_or(0, |a| a.known.len());
        let instances = u32::try_from(instances).unwrap_or(u32::MAX);
        PER_INSTANCE
            .saturating_mul(instances)
            .clamp(MOVING, LONGEST)
    }

    /// Whether a complete list of the account was read in this process.
    pub(crate) fn is_complete(&self, account: &str) -> bool {
        self.accounts
            .lock()
            .get(account)
            .is_some_and(|a| a.lists.is_some())
    }

    /// What is known of the instance with this key.
    pub(crate) fn see(&self, account: &str, instance_key: &str) -> Seen {
        let accounts = self.accounts.lock();
        let Some(state) = accounts.get(account).filter(|s| s.lists.is_some()) else {
            return Seen::Unknown;
        };
        match state
            .known
            .get(instance_key)
            .and_then(|k| k.instance.clone())
        {
            Some(instance) => Seen::There(instance),
            None => Seen::Missing,
        }
    }

    /// The instances that their tags name as a pool's, or for the empty name as the control plane's; `None` before the first complete
    /// list of the account.
    pub(crate) fn of_owner(
        &self,
        account: &str,
        cluster_key: &str,
        pool: &str,
    ) -> Option<Vec<Arc<Instance>>> {
        let accounts = self.accounts.lock();
        let state = accounts.get(account).filter(|s| s.lists.is_some())?;
        let keys = state.of_cluster.get(cluster_key);
        let known = keys.into_iter().flatten().filter_map(|key| {
            let instance = state.known.get(key)?.instance.as_ref()?;
            let owner = instance.owner.as_ref()?;
            (owner.pool == pool).then(|| Arc::clone(instance))
        });
        Some(known.collect())
    }

    /// Whether any list shows an instance of this cluster.
    pub(crate) fn has_any(&self, cluster_key: &str) -> bool {
        let accounts = self.accounts.lock();
        let mut states = accounts.values();
        states.any(|state| state.of_cluster.contains_key(cluster_key))
    }

    /// A call of ours showed this instance.
    pub(crate) fn wrote(&self, account: &str, instance_key: &str, instance: Option<Instance>) {
        let written = self.tick();
        let mut accounts = self.accounts.lock();
        let state = accounts.entry(account.to_owned()).or_default();
        state.moving |= instance.as_ref().is_some_and(is_moving);
        let instance = instance.map(Arc::new);
        state.put(instance_key.to_owned(), Known { instance, written });
        drop(accounts);
        self.wake.notify_one();
    }

    /// What is known of an instance that the lists do not show.
    pub(crate) fn absent(&self, account: &str, instance_key: &str) -> Option<Absent> {
        let accounts = self.accounts.lock();
        let state = accounts.get(account)?;
        let (first, latest) = state.lists?;
        Some(match state.hidden.get(instance_key) {
            Some(Hidden::Unused(_) | Hidden::Gone(_)) => Absent::Sure,
            Some(Hidden::Since(at)) => Absent::Listed {
                since: first.max(*at),
                latest,
            },
            // A process before this one may have asked for it.
            None => Absent::Listed {
                since: first,
                latest,
            },
        })
    }

    fn hide(&self, account: &str, instance_key: &str, how: Hidden) {
        let mut accounts = self.accounts.lock();
        let state = accounts.entry(account.to_owned()).or_default();
        state.hidden.insert(instance_key.to_owned(), how);
    }

    /// This process drew the key: nobody has asked for an instance with it.
    pub(crate) fn drew(&self, account: &str, instance_key: &str, now: Timestamp) {
        self.hide(account, instance_key, Hidden::Unused(now));
    }

    /// The provider said by its id that there is none.
    pub(crate) fn gone(&self, account: &str, instance_key: &str, now: Timestamp) {
        self.hide(account, instance_key, Hidden::Gone(now));
    }

    /// The Machine is gone.
    pub(crate) fn forget(&self, account: &str, instance_key: &str) {
        if let Some(state) = self.accounts.lock().get_mut(account) {
            state.hidden.remove(instance_key);
        }
    }

    /// Makes a create, and remembers whether it may have made an instance that no list shows yet, also where its answer is never seen.
    pub(crate) async fn asked<T>(
        &self,
        account: &str,
        instance_key: &str,
        now: Timestamp,
        create: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let before = {
            let mut accounts = self.accounts.lock();
            let state = accounts.entry(account.to_owned()).or_default();
            state
                .hidden
                .insert(instance_key.to_owned(), Hidden::Since(now))
        };
        let result = create.await;
        let without_effect = match &result {
            Ok(_) | Err(ProviderError::Ambiguous { .. } | ProviderError::Unavailable { .. }) => {
                false
            }
            Err(_) => true,
        };
        if without_effect {
            let mut accounts = self.accounts.lock();
            let state = accounts.entry(account.to_owned()).or_default();
            match before {
                Some(before) => state.hidden.insert(instance_key.to_owned(), before),
                None => state.hidden.remove(instance_key),
            };
        }
        result
    }

    /// Something looks as if an instance of the account were gone: it is listed soon.
    pub(crate) fn hurry(&self, account: &str) {
        let mut accounts = self.accounts.lock();
        accounts.entry(account.to_owned()).or_default().moving = true;
        drop(accounts);
        self.wake.notify_one();
    }

    /// A call of ours began to delete the instance with this key.
    pub(crate) fn deleting(&self, account: &str, instance_key: &str) {
        if let Seen::There(instance) = self.see(account, instance_key) {
            let going = Instance {
                state: InstanceState::Deleting,
                ..Instance::clone(&instance)
            };
            self.wrote(account, instance_key, Some(going));
        }
    }

    /// Ids of a cluster's instances whose keys are not among `known`, at most 100; `None` before the first
    /// complete list.
    pub(crate) fn unmanaged(
        &self,
        cluster_key: &str,
        known: &BTreeSet<String>,
    ) -> Option<Vec<String>> {
        let accounts = self.accounts.lock();
        if accounts.values().any(|a| a.lists.is_none()) {
            return None;
        }
        let mut ids: Vec<_> = accounts
            .values()
            .filter_map(|a| Some((a, a.of_cluster.get(cluster_key)?)))
            .flat_map(|(a, keys)| keys.iter().map(|key| (key, a.known.get(key))))
            .filter(|(key, _)| !known.contains(*key))
            .filter_map(|(_, k)| k?.instance.as_ref())
            .filter(|i| i.state != InstanceState::Deleting)
            .map(|i| i.id.clone())
            .collect();
        ids.sort();
        ids.truncate(100);
        Some(ids)
    }

    /// Ids of a cluster's instances that share the key of a Machine, at most 100; `None` before the first complete list.
    pub(crate) fn duplicated(&self, cluster_key: &str) -> Option<Vec<String>> {
        let accounts = self.accounts.lock();
        if accounts.values().any(|a| a.lists.is_none()) {
            return None;
        }
        let ours = |a: &AccountState, key: &String| {
            let keys = a.of_cluster.get(cluster_key);
            keys.is_some_and(|keys| keys.contains(key))
        };
        let ids = accounts.values().flat_map(|a| {
            let ours = a.duplicates.iter().filter(move |(key, _)| ours(a, key));
            ours.flat_map(|(_, ids)| ids)
        });
        Some(ids.take(100).cloned().collect())
    }
}

fn is_moving(instance: &Instance) -> bool {
    matches!(
        instance.state,
        InstanceState::Pending | InstanceState::Deleting
    )
}

#[cfg(test)]
mod tests;
