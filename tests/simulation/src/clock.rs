//! The time of a run: tokio's, which stands still while anything is to be done, from a fixed day on.

use fleetwright_api::time::Clock;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Second at which all runs begin: 2030-01-01T00:00:00Z.
const EPOCH: i64 = 1_893_456_000;

/// A clock that follows tokio's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimClock {
    start: Instant,
}

impl SimClock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The time at which it began.
    pub(crate) fn epoch() -> Timestamp {
        Timestamp::from_second(EPOCH).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The time so many seconds after that.
    pub(crate) fn at(seconds: u64) -> Timestamp {
        let after = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0));
        Self::epoch().checked_add(after).unwrap_or(Timestamp::MAX)
    }

    /// The same as tokio has it.
    pub(crate) fn instant(&self, seconds: u64) -> Instant {
        self.start + std::time::Duration::from_secs(seconds)
    }

    /// Seconds since it began.
    pub(crate) fn seconds(&self) -> u64 {
        self.start.elapsed().as_secs()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.start.elapsed()).unwrap_or_default();
        Self::epoch().checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}
