//! Who may act, where several engines share one Kubernetes: the holder of one Lease, until its deadline.
//!
//! A leader that was stopped and wakes must not act on what it decided before. So its right to act is not a flag that
//! somebody resets but a deadline on a clock, which every call of a provider and every request to the API looks at
//! immediately before it goes on ([`fence`]).

mod decide;
mod elect;
pub(crate) mod fence;

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

pub(crate) use decide::{Lost, Times};
pub(crate) use elect::{Elector, identity};

/// What the Lease is held for: 10 s, of which its holder uses 6, renewing every 2.
pub(crate) const TIMES: Times = Times {
    duration: Duration::from_secs(10),
    renew_deadline: Duration::from_secs(6),
    retry: Duration::from_secs(2),
};
/// Name of the Lease.
pub(crate) const LEASE: &str = "fleetwright";

/// A clock that never goes back, and goes on while the machine sleeps.
pub(crate) type Now = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The system's.
pub(crate) fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The right to act. Clones share one deadline.
#[derive(Clone)]
pub(crate) struct Leadership {
    /// Nanoseconds of `now`.
    until: Arc<AtomicU64>,
    now: Now,
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this engine leads no longer")]
pub(crate) struct NotLeading {
    /// Whether the call may have had its effect: it was cut off, and not only refused.
    pub(crate) begun: bool,
}

impl Leadership {
    /// A right that lasts until `until` on the clock `now`.
    pub(crate) fn new(now: Now, until: Duration) -> Self {
        let this = Self {
            until: Arc::default(),
            now,
        };
        this.extend(until);
        this
    }

    /// Moves the deadline; never back.
    pub(crate) fn extend(&self, until: Duration) {
        let nanos = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.until.fetch_max(nanos, Ordering::SeqCst);
    }

    fn holds(&self) -> bool {
        (self.now)().as_nanos() < u128::from(self.until.load(Ordering::SeqCst))
    }

    /// Runs `call` as long as the right lasts: the clock is looked at immediately before each of its steps, so that a
    /// process that wakes after its deadline sends nothing that it had prepared before.
    ///
    /// # Errors
    /// [`NotLeading`]: the deadline passed; the call was dropped where it was.
    pub(crate) async fn guard<T>(&self, call: impl Future<Output = T>) -> Result<T, NotLeading> {
        let mut call = pin!(call);
        let mut begun = false;
        poll_fn(|context| {
            if !self.holds() {
                return Poll::Ready(Err(NotLeading { begun }));
            }
            begun = true;
            call.as_mut().poll(context).map(Ok)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    /// A clock that shows what it is told.
    pub(super) fn settable() -> (Arc<AtomicU64>, Now) {
        let millis = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&millis);
        let now: Now = Arc::new(move || Duration::from_millis(read.load(Ordering::SeqCst)));
        (millis, now)
    }

    #[tokio::test]
    async fn nothing_begins_after_the_deadline_and_what_is_under_way_ends_at_its_next_step() {
        let (millis, now) = settable();
        let leadership = Leadership::new(now, Duration::from_millis(10));
        assert_eq!(leadership.guard(ready(1)).await, Ok(1));

        let steps = AtomicU64::new(0);
        let sleeps_inside = async {
            steps.fetch_add(1, Ordering::SeqCst);
            millis.store(10, Ordering::SeqCst);
            tokio::task::yield_now().await;
            steps.fetch_add(1, Ordering::SeqCst);
        };
        let cut = leadership.guard(sleeps_inside).await;
        assert_eq!(cut, Err(NotLeading { begun: true }));
        assert_eq!(steps.load(Ordering::SeqCst), 1);

        let refused = leadership.guard(async { steps.fetch_add(1, Ordering::SeqCst) });
        assert_eq!(refused.await, Err(NotLeading { begun: false }));
        assert_eq!(steps.load(Ordering::SeqCst), 1);

        leadership.extend(Duration::from_millis(20));
        leadership.extend(Duration::from_millis(5));
        assert_eq!(leadership.guard(ready(2)).await, Ok(2), "never back");
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = since_boot();
        assert!(before > Duration::ZERO && since_boot() >= before);
    }
}
