//! The work queue: each key at most once in it, at most one reconcile of a key at a time, in order of arrival.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// Longest pause after a failure.
const LONGEST: Duration = Duration::from_secs(60);
/// Shortest pause after a failure.
const SHORTEST: Duration = Duration::from_millis(50);

/// What is reconciled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A Cluster, by namespace and name.
    Cluster(String, String),
    /// A MachineDeployment.
    Pool(String, String),
    /// A MachineSet.
    Set(String, String),
    /// A Machine.
    Machine(String, String),
    /// A MachineHealthCheck.
    Check(String, String),
}

impl Key {
    /// Name of its controller in logs and metrics.
    pub(crate) fn controller(&self) -> &'static str {
        match self {
            Self::Cluster(..) => "cluster",
            Self::Pool(..) => "machinedeployment",
            Self::Set(..) => "machineset",
            Self::Machine(..) => "machine",
            Self::Check(..) => "machinehealthcheck",
        }
    }

    pub(crate) fn namespaced(&self) -> (&str, &str) {
        match self {
            Self::Cluster(ns, n)
            | Self::Pool(ns, n)
            | Self::Set(ns, n)
            | Self::Machine(ns, n)
            | Self::Check(ns, n) => (ns, n),
        }
    }
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Key>,
    /// What is in `ready`.
    queued: BTreeSet<Key>,
    running: BTreeSet<Key>,
    /// Woken while they ran.
    again: BTreeSet<Key>,
    /// When a key is due, and the same by time.
    due: BTreeMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
    /// Done, and counted as running until then; with the pause that was asked for.
    resting: BTreeMap<(Instant, Key), Option<Duration>>,
    failures: BTreeMap<Key, u32>,
}

impl Inner {
    fn add(&mut self, key: Key) {
        if let Some(at) = self.due.remove(&key) {
            self.by_time.remove(&(at, key.clone()));
        }
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// A key no longer runs: it runs again at once when it was woken meanwhile, else after `retry`.
    fn end(&mut self, key: Key, retry: Option<Duration>, now: Instant) {
        self.running.remove(&key);
        if self.again.remove(&key) {
            self.add(key);
        } else if let Some(pause) = retry {
            self.add_at(key, now + pause);
        }
    }

    /// Puts in what is due; gives when the next thing is.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.resting.first_entry().filter(|e| e.key().0 <= now) {
            let ((_, key), retry) = entry.remove_entry();
            self.end(key, retry, now);
        }
        while let Some((_, key)) = self.by_time.first().cloned().filter(|(at, _)| *at <= now) {
            self.add(key);
        }
        let rest = self.resting.keys().next().map(|(at, _)| *at);
        let due = self.by_time.first().map(|(at, _)| *at);
        rest.into_iter().chain(due).min()
    }

    fn add_at(&mut self, key: Key, at: Instant) {
        if self.queued.contains(&key) || self.due.get(&key).is_some_and(|have| *have <= at) {
            return;
        }
        if let Some(old) = self.due.insert(key.clone(), at) {
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((at, key));
    }
}

/// The work queue.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Queue {
    /// Puts a key in, to be reconciled as soon as there is room.
    pub(crate) fn add(&self, key: Key) {
        self.inner.lock().add(key);
        self.wake.notify_one();
    }

    /// The next key that is due; waits for one. It counts as running until [`Queue::done`].
    pub(crate) async fn next(&self) -> Key {
        loop {
            let next_due = {
                let mut inner = self.inner.lock();
                let next_due = inner.advance(Instant::now());
                if let Some(key) = inner.ready.pop_front() {
                    inner.queued.remove(&key);
                    inner.running.insert(key.clone());
                    return key;
                }
                next_due
            };
            match next_due {
                None => self.wake.notified().await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// A reconcile ended well; it wants to run again after `retry` at the latest. What wakes it within `rest` is looked at
    /// together, after that.
    pub(crate) fn done(&self, key: &Key, rest: Duration, retry: Option<Duration>) {
        let mut inner = self.inner.lock();
        inner.failures.remove(key);
        let now = Instant::now();
        if rest.is_zero() {
            inner.end(key.clone(), retry, now);
        } else {
            inner.resting.insert((now + rest, key.clone()), retry);
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// A reconcile failed: it runs again after a pause that doubles with each failure, or after `after`.
    pub(crate) fn failed(&self, key: &Key, after: Option<Duration>) {
        let mut inner = self.inner.lock();
        let failures = inner.failures.entry(key.clone()).or_default();
        let pause = after
            .unwrap_or_else(|| (SHORTEST * 2u32.saturating_pow((*failures).min(16))).min(LONGEST));
        *failures = failures.saturating_add(1);
        // Events do not shorten the pause of what fails: only its end does.
        inner.again.remove(key);
        inner.end(key.clone(), Some(pause), Instant::now());
        drop(inner);
        self.wake.notify_one();
    }

    /// Keys that wait.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().ready.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Machine("ns".into(), name.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_in_it_once_and_runs_once_at_a_time() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("b"));
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.add(key("a")); // woken while it runs
        assert_eq!(queue.next().await, key("b"));
        queue.done(&key("a"), Duration::ZERO, None);
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"), Duration::ZERO, None);
        queue.done(&key("b"), Duration::ZERO, None);
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_pause_longer_each_time_and_success_forgets_them() {
        let queue = Queue::default();
        queue.add(key("a"));
        let mut pauses = Vec::new();
        for _ in 0..3 {
            let before = Instant::now();
            let got = queue.next().await;
            pauses.push((Instant::now() - before).as_millis());
            queue.failed(&got, None);
        }
        assert_eq!(pauses[0], 0);
        assert!(
            pauses[1] >= 50 && pauses[2] >= 2 * pauses[1] - 2,
            "{pauses:?}"
        );
        let got = queue.next().await;
        queue.done(&got, Duration::ZERO, Some(Duration::from_secs(5)));
        let before = Instant::now();
        queue.next().await;
        assert!((Instant::now() - before).as_secs() >= 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_comes_before_a_later_date() {
        let queue = Queue::default();
        queue.add(key("a"));
        let got = queue.next().await;
        queue.done(&got, Duration::ZERO, Some(Duration::from_secs(60)));
        queue.add(key("a"));
        let before = Instant::now();
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(Instant::now(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn what_wakes_a_resting_key_is_looked_at_together_after_its_rest() {
        let queue = Queue::default();
        queue.add(key("a"));
        let got = queue.next().await;
        queue.done(&got, Duration::from_millis(200), None);
        let before = Instant::now();
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("b"));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!((Instant::now() - before).as_millis(), 200);
        queue.done(&key("a"), Duration::ZERO, None);
        assert_eq!(queue.len(), 0);
    }
}
