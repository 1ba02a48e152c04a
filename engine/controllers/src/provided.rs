//! What providers showed last of the control planes and groups of nodes that they run, and when each is asked again.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::names::short_hash;
use fleetwright_core::managed::{Known, Phase, Shown, Trouble};
use fleetwright_providers::{
    ProviderError,
    managed::{ManagedControlPlaneState, ManagedPhase, PoolState},
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::queue::Key;

/// Something that a provider runs, as it shows it.
pub(crate) trait Provided: Clone + PartialEq {
    fn phase(&self) -> &ManagedPhase;
    fn version(&self) -> Option<&str>;

    fn shown(&self) -> Shown {
        Shown {
            phase: match self.phase() {
                ManagedPhase::Creating => Phase::Creating,
                ManagedPhase::Active => Phase::Active,
                ManagedPhase::Updating(to) => {
                    Phase::Updating(to.as_ref().and_then(|to| to.parse().ok()))
                }
                ManagedPhase::Deleting => Phase::Deleting,
                ManagedPhase::Failed(why) => Phase::Failed(why.clone()),
            },
            version: self.version().and_then(|version| version.parse().ok()),
        }
    }
}

impl Provided for ManagedControlPlaneState {
    fn phase(&self) -> &ManagedPhase {
        &self.phase
    }
    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

impl Provided for PoolState {
    fn phase(&self) -> &ManagedPhase {
        &self.phase
    }
    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

/// An error of a provider, as core and conditions have it.
pub(crate) fn trouble(error: &ProviderError) -> Trouble {
    Trouble {
        reason: error.word(),
        message: format!("the provider call failed: {error}"),
        lasting: error.is_terminal(),
        retry_after: error.retry_after(),
    }
}

/// What tells one order from another.
pub(crate) fn digest<T: Serialize>(order: &T) -> String {
    let text = serde_json::to_string(order).unwrap_or_default();
    short_hash(["order", &text], 16)
}

struct Look<S> {
    /// The order that was asked with last, and the one that was answered last.
    asked: String,
    answered: Option<String>,
    /// The wish that it was seen to be as.
    settled: Option<String>,
    state: Option<S>,
    trouble: Option<Trouble>,
    /// Looks one after the other that came to the same.
    alike: u32,
    due: Instant,
}

/// What is known of each, by its Cluster or pool.
pub(crate) struct Looks<S>(Mutex<BTreeMap<Key, Look<S>>>);

impl<S> Default for Looks<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Provided> Looks<S> {
    /// What is known, while `order` is the present one.
    pub(crate) fn known(&self, key: &Key, order: Option<&str>) -> Known {
        let looks = self.0.lock();
        let look = looks.get(key);
        let answered = look.and_then(|look| look.answered.as_deref());
        Known {
            shown: look.and_then(|look| look.state.as_ref()).map(S::shown),
            trouble: look.and_then(|look| look.trouble.clone()),
            pending: order.is_some_and(|order| answered != Some(order)),
        }
    }

    /// What the provider showed last.
    pub(crate) fn state(&self, key: &Key) -> Option<S> {
        self.0.lock().get(key)?.state.clone()
    }

    /// Whether the provider is to be asked with this order now: it is another one than the last time, or that was long ago.
    pub(crate) fn is_due(&self, key: &Key, order: &str) -> bool {
        let looks = self.0.lock();
        looks
            .get(key)
            .is_none_or(|look| look.asked != order || Instant::now() >= look.due)
    }

    /// Takes an answer in.
    pub(crate) fn took(&self, key: &Key, order: &str, answer: Result<S, Trouble>) {
        let mut looks = self.0.lock();
        let before = looks.remove(key);
        let was = before
            .as_ref()
            .map(|b| (b.state.clone(), b.trouble.clone()));
        let again = before
            .as_ref()
            .filter(|b| b.asked == order)
            .map(|b| b.alike);
        let (state, answered, settled) = match before {
            Some(before) => (before.state, before.answered, before.settled),
            None => (None, None, None),
        };
        let mut look = Look {
            asked: order.to_owned(),
            answered,
            settled,
            state,
            trouble: None,
            alike: 0,
            due: Instant::now(),
        };
        match answer {
            Ok(state) => {
                look.state = Some(state);
                look.answered = Some(order.to_owned());
            }
            Err(trouble) => look.trouble = Some(trouble),
        }
        let same = was == Some((look.state.clone(), look.trouble.clone()));
        look.alike = again.filter(|_| same).map_or(0, |alike| alike + 1);
        let known = Known {
            shown: look.state.as_ref().map(S::shown),
            trouble: look.trouble.clone(),
            pending: false,
        };
        look.due = Instant::now() + known.pause(look.alike);
        looks.insert(key.clone(), look);
    }

    /// What is shown is as this wish says.
    pub(crate) fn settle(&self, key: &Key, wish: &str) {
        if let Some(look) = self.0.lock().get_mut(key) {
            look.settled = Some(wish.to_owned());
        }
    }

    /// Whether it was seen to be as this wish says: what is otherwise now somebody else has changed.
    pub(crate) fn was_settled(&self, key: &Key, wish: &str) -> bool {
        let looks = self.0.lock();
        let settled = looks.get(key).and_then(|look| look.settled.as_deref());
        settled == Some(wish)
    }

    /// After how long the provider is asked again; `None` where it never was.
    pub(crate) fn next(&self, key: &Key) -> Option<Duration> {
        let due = self.0.lock().get(key)?.due;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Forgets what is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}
