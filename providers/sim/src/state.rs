//! What the cloud has in memory: its instances, and what becomes due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use crate::instance::SimInstance;

/// What becomes due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// An instance is booted or gone.
    Instance(String),
    /// What the store says of an instance is made right.
    Stored(String),
    /// The pods of a cluster are looked at.
    Pods(String),
    /// A cluster without instances is torn down.
    TearDown(String),
}

/// Instances that are remembered after they have gone.
const REMEMBERED: usize = 100;

/// All instances, and what becomes due when.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) instances: BTreeMap<String, SimInstance>,
    /// Instance key to id.
    pub(crate) by_key: BTreeMap<String, String>,
    pub(crate) next: u64,
    /// Those that went last, and when, as they were.
    pub(crate) gone: VecDeque<(Timestamp, SimInstance)>,
    /// Instances of each cluster, by its key.
    of_cluster: BTreeMap<String, usize>,
    due: BTreeSet<(Timestamp, Due)>,
    /// When the pods of a cluster are looked at next: at most one entry of `due` for each.
    pods: BTreeMap<String, Timestamp>,
    /// Clusters whose pods are being looked at, and whether they are to be looked at again.
    keeping: BTreeMap<String, bool>,
}

impl State {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            next: 1,
            ..Self::default()
        }
    }

    pub(crate) fn insert(&mut self, instance: SimInstance) {
        let cluster = instance.order.owner.cluster_key.clone();
        *self.of_cluster.entry(cluster).or_default() += 1;
        let key = instance.order.owner.instance_key.clone();
        self.by_key.insert(key, instance.id.clone());
        self.instances.insert(instance.id.clone(), instance);
    }

    /// Forgets an instance; what went before it in the last while is still to be seen in [`State::gone`].
    pub(crate) fn remove(&mut self, id: &str, now: Timestamp) {
        if let Some(instance) = self.instances.remove(id) {
            let key = &instance.order.owner.instance_key;
            if self.by_key.get(key).is_some_and(|of| of == id) {
                self.by_key.remove(key);
            }
            let cluster = instance.order.owner.cluster_key.clone();
            if self.gone.len() >= REMEMBERED {
                self.gone.pop_front();
            }
            self.gone.push_back((now, instance));
            if let Some(count) = self.of_cluster.get_mut(&cluster) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.of_cluster.remove(&cluster);
                }
            }
        }
    }

    /// Whether a cluster has an instance, whatever its state.
    pub(crate) fn has_instances(&self, cluster_key: &str) -> bool {
        self.of_cluster.contains_key(cluster_key)
    }

    /// Notes what becomes due; of a cluster's pods the earliest look alone.
    pub(crate) fn plan(&mut self, at: Timestamp, due: Due) {
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
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<Due> {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let (_, due) = self.due.pop_first()?;
            let Due::Pods(key) = &due else {
                return Some(due);
            };
            self.pods.remove(key);
            match self.keeping.get_mut(key) {
                Some(again) => *again = true,
                None => {
                    self.keeping.insert(key.clone(), false);
                    return Some(due);
                }
            }
        }
        None
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A cluster's pods have been looked at; gives whether another look fell due meanwhile.
    pub(crate) fn looked(&mut self, key: &str) -> bool {
        self.keeping.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn of_many_looks_at_pods_the_earliest_counts_and_none_is_lost() {
        let pods = || Due::Pods("k".into());
        let mut state = State::new();
        for second in [5, 3, 9] {
            state.plan(at(second), pods());
        }
        assert_eq!((state.take(at(2)), state.next_due()), (None, Some(at(3))));
        assert_eq!((state.take(at(9)), state.next_due()), (Some(pods()), None));
        // While somebody looks, the next one waits for the end of it.
        state.plan(at(9), pods());
        assert_eq!(state.take(at(9)), None);
        assert!(state.looked("k"));
        state.plan(at(10), pods());
        assert_eq!(state.take(at(10)), Some(pods()));
        assert!(!state.looked("k"));
    }
}
