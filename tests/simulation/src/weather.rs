//! What goes wrong, when, and how often it did.

use std::{collections::BTreeMap, sync::Arc};

use fleetwright_api::time::Clock;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;

macro_rules! faults {
    ($($name:ident $word:literal),* $(,)?) => {
        /// Kinds of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind { $(
            #[doc = $word]
            $name,
        )* }

        impl Kind {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in reports.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

faults! {
    Crash "engine crash",
    ApiError "API error",
    ApiConflict "API conflict",
    ApiTimeout "API time-out",
    ApiAnswerLost "API answer lost",
    WatchCut "watch cut",
    WatchGone "watch gap (410)",
    ProviderThrottled "provider throttled",
    ProviderRequestLost "provider request lost",
    ProviderAnswerLost "provider answer lost",
    NoCapacity "no capacity",
    Quota "quota exhausted",
    StaleList "stale list",
    NeverJoins "instance never joins",
    LostInstance "instance lost",
    Duplicate "instance duplicated",
    NodeFlap "node flap",
    EtcdBroken "etcd member broken",
    EtcdAway "etcd cannot be asked",
    Budget "budget blocks eviction",
    DrainTimeout "drain timed out",
    Unreachable "cluster unreachable",
    WorkloadError "workload API error",
    Release "release with other defaults",
    SourceFails "source unreadable",
    ForgeFails "forge refuses",
    ForgeAnswerLost "forge answer lost",
}

/// A time in which a kind of fault happens to some of the calls that it can happen to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// From when.
    pub(crate) from: Timestamp,
    /// Until when.
    pub(crate) to: Timestamp,
    /// To how many of a thousand calls.
    pub(crate) permille: u64,
}

/// The weather of a run.
pub(crate) struct Weather {
    clock: Arc<dyn Clock>,
    chance: Chance,
    windows: BTreeMap<Kind, Vec<Window>>,
    fired: Mutex<BTreeMap<Kind, u64>>,
    cut: Mutex<BTreeMap<String, CancellationToken>>,
}

impl Weather {
    /// Weather with these windows.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        chance: Chance,
        windows: BTreeMap<Kind, Vec<Window>>,
    ) -> Self {
        Self {
            clock,
            chance,
            windows,
            fired: Mutex::default(),
            cut: Mutex::default(),
        }
    }

    /// Whether this kind of fault happens to this call; it is counted when it does.
    pub(crate) fn hits(&self, kind: Kind) -> bool {
        let Some(windows) = self.windows.get(&kind) else {
            return false;
        };
        let now = self.clock.now();
        let Some(window) = windows.iter().find(|w| w.from <= now && now < w.to) else {
            return false;
        };
        let hit = self.chance.permille(window.permille);
        if hit {
            self.count(kind, 1);
        }
        hit
    }

    /// A fault has fired so many times.
    pub(crate) fn count(&self, kind: Kind, times: u64) {
        if times > 0 {
            *self.fired.lock().entry(kind).or_default() += times;
        }
    }

    /// What has fired, and how often.
    pub(crate) fn fired(&self) -> BTreeMap<Kind, u64> {
        self.fired.lock().clone()
    }

    /// A number of milliseconds from `from` up to and without `to`.
    pub(crate) fn millis(&self, from: u64, to: u64) -> std::time::Duration {
        std::time::Duration::from_millis(self.chance.within(from, to))
    }

    /// A drawn number of milliseconds below `most`, often a small one.
    pub(crate) fn yes(&self, permille: u64) -> bool {
        self.chance.permille(permille)
    }

    /// Cuts the way to a cluster, or mends it.
    pub(crate) fn cut(&self, key: &str, cut: bool) {
        let mut all = self.cut.lock();
        if cut {
            all.entry(key.to_owned()).or_default().cancel();
        } else {
            all.remove(key);
        }
    }

    /// Whether the way to a cluster is cut.
    pub(crate) fn is_cut(&self, key: &str) -> bool {
        let all = self.cut.lock();
        all.get(key).is_some_and(CancellationToken::is_cancelled)
    }

    /// What ends when the way to a cluster is cut.
    pub(crate) fn until_cut(&self, key: &str) -> CancellationToken {
        self.cut.lock().entry(key.to_owned()).or_default().clone()
    }
}
