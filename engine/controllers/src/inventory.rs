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
    moving: bool,
    /// Why the last list failed; `None` after a good one.
    trouble: Option<String>,
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
        for instance in list {
            if let Some(owner) = &instance.owner {
                fresh.insert(owner.instance_key.clone(), instance);
            }
        }
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
            if before != now.as_ref() || first {
                let owner = now.as_ref().or(before).and_then(|i| i.owner.clone());
                changed.extend(owner);
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
    pub(crate) fn failed(&self, account: &str, why: String) -> bool {
        let mut accounts = self.accounts.lock();
        let state = accounts.entry(account.to_owned()).or_default();
        let before = state.trouble.replace(why);
        before != state.trouble
    }

    /// Why the account could not be listed the last time.
    pub(crate) fn trouble(&self, account: &str) -> Option<String> {
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
}

fn is_moving(instance: &Instance) -> bool {
    matches!(
        instance.state,
        InstanceState::Pending | InstanceState::Deleting
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn instance(key: &str, state: InstanceState) -> Instance {
        Instance {
            id: format!("i-{key}"),
            provider_id: format!("sim:///{key}"),
            owner: Some(Ownership {
                instance_key: key.into(),
                cluster_key: "c".into(),
                ..Default::default()
            }),
            state,
            addresses: Vec::new(),
            failure_domain: None,
            instance_type: String::new(),
            image: String::new(),
            config_digest: String::new(),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn nothing_is_known_before_the_first_complete_list() {
        let inventory = Inventory::default();
        assert_eq!(inventory.see("a", "k"), Seen::Unknown);
        inventory.listed("a", inventory.begin(at(0)), vec![]);
        assert_eq!(inventory.see("a", "k"), Seen::Missing);
    }

    #[test]
    fn a_list_that_began_before_a_create_does_not_hide_it() {
        let inventory = Inventory::default();
        inventory.listed("a", inventory.begin(at(0)), vec![]);
        let begun = inventory.begin(at(0));
        inventory.wrote("a", "k", Some(instance("k", InstanceState::Pending)));
        inventory.listed("a", begun, vec![]);
        assert!(matches!(inventory.see("a", "k"), Seen::There(_)));
        assert!(inventory.moving("a"));
        let changed = inventory.listed("a", inventory.begin(at(0)), vec![]);
        let keys: Vec<_> = changed.iter().map(|o| o.instance_key.as_str()).collect();
        assert_eq!(keys, ["k"]);
        assert_eq!(inventory.see("a", "k"), Seen::Missing);
        assert!(!inventory.moving("a"));
    }

    #[test]
    fn the_pause_between_lists_grows_with_what_they_show() {
        let inventory = Inventory::default();
        assert_eq!(inventory.pause("a"), MOVING);
        for (instances, pause) in [(10, 1_000), (1_000, 2_000), (10_000, 5_000)] {
            let keys = (0..instances).map(|i| i.to_string());
            let list = keys.map(|key| instance(&key, InstanceState::Pending));
            inventory.listed("a", inventory.begin(at(0)), list.collect());
            assert_eq!(inventory.pause("a"), Duration::from_millis(pause));
        }
    }

    #[test]
    fn instances_without_a_machine_are_shown() {
        let inventory = Inventory::default();
        let list = vec![
            instance("k", InstanceState::Running),
            instance("x", InstanceState::Running),
        ];
        inventory.listed("a", inventory.begin(at(0)), list);
        let known = BTreeSet::from(["k".to_owned()]);
        assert_eq!(
            inventory.unmanaged("c", &known),
            Some(vec!["i-x".to_owned()])
        );
        inventory.listed("a", inventory.begin(at(0)), vec![]);
        assert_eq!(inventory.unmanaged("c", &known), Some(vec![]));
    }

    #[tokio::test]
    async fn what_no_list_shows_is_gone_for_sure_or_since_a_time() {
        let inventory = Inventory::default();
        let lost = || ProviderError::Ambiguous {
            message: String::new(),
        };
        let full = || ProviderError::Quota {
            message: String::new(),
        };
        let listed = |since, latest| {
            Some(Absent::Listed {
                since: at(since),
                latest: at(latest),
            })
        };
        let list = |second, list| inventory.listed("a", inventory.begin(at(second)), list);
        assert_eq!(inventory.absent("a", "k"), None, "no list yet");
        list(10, vec![]);
        list(20, vec![]);
        assert_eq!(inventory.absent("a", "k"), listed(10, 20));
        inventory.drew("a", "k", at(20));
        assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure));
        let ask = async |second, error| {
            let call = async { Err::<(), _>(error) };
            let answer = inventory.asked("a", "k", at(second), call).await;
            assert!(answer.is_err());
            inventory.absent("a", "k")
        };
        assert_eq!(ask(21, full()).await, Some(Absent::Sure));
        assert_eq!(ask(22, lost()).await, listed(22, 20));
        // That the next one is refused says nothing of the one before.
        assert_eq!(ask(23, full()).await, listed(22, 20));
        list(30, vec![]);
        assert_eq!(inventory.absent("a", "k"), listed(22, 30));
        for (state, want) in [
            (InstanceState::Running, listed(50, 60)),
            (InstanceState::Deleting, Some(Absent::Sure)),
        ] {
            list(40, vec![instance("k", state)]);
            list(50, vec![]);
            list(60, vec![]);
            assert_eq!(inventory.absent("a", "k"), want, "{state:?}");
        }
        list(70, vec![instance("k", InstanceState::Running)]);
        inventory.deleting("a", "k");
        list(80, vec![]);
        assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure), "by us");
        inventory.forget("a", "k");
        assert_eq!(inventory.absent("a", "k"), listed(10, 80));
        inventory.gone("a", "k", at(80));
        assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure));
        let day = 24 * 3600;
        list(80 + day - 1, vec![]);
        assert_eq!(inventory.absent("a", "k"), Some(Absent::Sure));
        list(80 + day, vec![]);
        assert_eq!(
            inventory.absent("a", "k"),
            listed(10, 80 + day),
            "forgotten"
        );
    }
}
