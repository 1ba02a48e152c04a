//! The clock that everything outside the pure core takes its time from.

use jiff::Timestamp;

/// A source of the current time. The system's in production, a settable one in simulation and tests.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's time"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until it is set: for tests and simulation.
#[derive(Debug)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    /// A clock that shows `now`, to the millisecond.
    pub fn new(now: Timestamp) -> Self {
        Self(std::sync::atomic::AtomicI64::new(now.as_millisecond()))
    }

    /// Moves the clock forward by `millis` milliseconds.
    pub fn advance_millis(&self, millis: i64) {
        self.0
            .fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let millis = self.0.load(std::sync::atomic::Ordering::SeqCst);
        Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// `now` as Kubernetes writes times in metadata and conditions: RFC 3339 in UTC, whole seconds.
pub fn rfc3339_seconds(now: Timestamp) -> String {
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    whole.to_string()
}

/// `now` as a Kubernetes `Time`, cut to whole seconds.
pub fn k8s_time(now: Timestamp) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(whole)
}
