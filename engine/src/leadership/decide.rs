//! What a candidate does next: a pure function of the Lease as it was read, its own name and the time.
//!
//! Times are readings of one clock of this machine that never goes back; the times written in the Lease are for people. So
//! clocks of different machines need not agree, only run at about the same speed.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// How long a Lease holds after it was last seen to change; whole seconds.
    pub(crate) duration: Duration,
    /// How long the holder may act after it sent the renewal that succeeded last. Shorter than `duration`, so that it has
    /// stopped before anybody else may begin.
    pub(crate) renew_deadline: Duration,
    /// Time between two writes of the Lease by one candidate.
    pub(crate) retry: Duration,
}

/// What a candidate knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The Lease as it was last seen; without a resourceVersion where it has been deleted since.
    pub(crate) lease: Option<Lease>,
    /// When it was first seen like that.
    pub(crate) since: Duration,
    /// When the last write of ours that succeeded was sent; `None` for one that does not lead.
    pub(crate) renewed: Option<Duration>,
    /// When a write was last sent.
    pub(crate) tried: Option<Duration>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write our name into the Lease.
    Acquire,
    /// Write the Lease again.
    Renew,
    /// Nothing for so long, unless the Lease changes.
    Wait(Duration),
    /// We lead no longer.
    Lost(Lost),
}

/// Why an engine leads no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// It could not renew in time.
    #[error("the Lease could not be renewed in time")]
    TooLate,
    /// Somebody else holds the Lease.
    #[error("{0} holds the Lease")]
    Taken(String),
}

/// What candidate `me` does at `now`.
pub(crate) fn decide(view: &View, me: &str, times: Times, now: Duration) -> Decision {
    let holder = view.lease.as_ref().and_then(holder);
    // A try that failed is not repeated at once.
    let again = view.tried.map_or(Duration::ZERO, |at| at + times.retry);
    if let Some(renewed) = view.renewed {
        let deadline = renewed + times.renew_deadline;
        return match holder {
            _ if now >= deadline => Decision::Lost(Lost::TooLate),
            Some(other) if other != me => Decision::Lost(Lost::Taken(other.to_owned())),
            _ if now >= again => Decision::Renew,
            _ => Decision::Wait(again.min(deadline) - now),
        };
    }
    let held_until = match (holder, &view.lease) {
        // Ours without our knowing: the answer to our write was lost.
        (Some(other), Some(lease)) if other != me => view.since + duration(lease, times),
        _ => Duration::ZERO,
    };
    match held_until.max(again) {
        free if now >= free => Decision::Acquire,
        free => Decision::Wait(free - now),
    }
}

/// Who holds the Lease; nobody where it was released.
pub(crate) fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// How long the Lease holds, as its holder said.
fn duration(lease: &Lease, times: Times) -> Duration {
    let said = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
    let said = said.and_then(|s| u64::try_from(s).ok());
    said.map_or(times.duration, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    const TIMES: Times = Times {
        duration: Duration::from_secs(10),
        renew_deadline: Duration::from_secs(6),
        retry: Duration::from_secs(2),
    };

    fn lease(holder: Option<&str>, seconds: Option<i32>) -> Option<Lease> {
        let spec = LeaseSpec {
            holder_identity: holder.map(Into::into),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        Some(Lease {
            spec: Some(spec),
            ..Lease::default()
        })
    }

    fn wait(seconds: u64) -> Decision {
        Decision::Wait(Duration::from_secs(seconds))
    }

    #[test]
    fn one_that_does_not_lead() {
        use Decision::Acquire;
        // (lease, first seen at, tried at, now, what it does)
        let rows = [
            (None, 0, None, 100, Acquire),
            (lease(None, None), 100, None, 100, Acquire),
            (lease(Some(""), Some(10)), 100, None, 100, Acquire),
            (lease(Some("b"), Some(10)), 100, None, 100, wait(10)),
            (lease(Some("b"), Some(10)), 100, None, 109, wait(1)),
            (lease(Some("b"), Some(10)), 100, None, 110, Acquire),
            // As long as its holder said, whatever we would say.
            (lease(Some("b"), Some(30)), 100, None, 129, wait(1)),
            (lease(Some("b"), Some(-1)), 100, None, 109, wait(1)),
            (lease(Some("b"), None), 100, None, 110, Acquire),
            // The answer to our own write was lost.
            (lease(Some("a"), Some(10)), 100, Some(100), 102, Acquire),
            // A try that failed is repeated after a while.
            (lease(Some("b"), Some(10)), 100, Some(111), 112, wait(1)),
            (lease(Some("b"), Some(10)), 100, Some(111), 113, Acquire),
            (lease(None, None), 100, Some(100), 101, wait(1)),
        ];
        for (lease, since, tried, now, expected) in rows {
            let view = View {
                lease,
                since: Duration::from_secs(since),
                renewed: None,
                tried: tried.map(Duration::from_secs),
            };
            let got = decide(&view, "a", TIMES, Duration::from_secs(now));
            assert_eq!(got, expected, "{view:?} at {now}");
        }
    }

    #[test]
    fn one_that_leads() {
        use Decision::{Lost as Over, Renew};
        let taken = || Over(Lost::Taken("b".into()));
        // (holder, renewed at, tried at, now, what it does)
        let rows = [
            (Some("a"), 100, 100, 100, wait(2)),
            (Some("a"), 100, 100, 102, Renew),
            (Some("a"), 100, 104, 105, wait(1)),
            (Some("a"), 100, 103, 105, Renew),
            // The deadline counts from the renewal that succeeded, however many failed since.
            (Some("a"), 100, 105, 105, wait(1)),
            (Some("a"), 100, 105, 106, Over(Lost::TooLate)),
            // It slept through everything.
            (Some("a"), 100, 100, 130, Over(Lost::TooLate)),
            (Some("b"), 100, 100, 101, taken()),
            (Some("b"), 100, 100, 130, Over(Lost::TooLate)),
            // Cleared by somebody: the next write tells who wins.
            (None, 100, 100, 102, Renew),
        ];
        for (holder, renewed, tried, now, expected) in rows {
            let view = View {
                lease: lease(holder, Some(10)),
                since: Duration::from_secs(renewed),
                renewed: Some(Duration::from_secs(renewed)),
                tried: Some(Duration::from_secs(tried)),
            };
            let got = decide(&view, "a", TIMES, Duration::from_secs(now));
            assert_eq!(got, expected, "{view:?} at {now}");
        }
    }

    /// However renewals and looks fall, the old leader has stopped before the new one may begin.
    #[test]
    fn two_never_act_at_the_same_time() {
        for sent in 0..20_u64 {
            for arrives in sent..sent + 6 {
                for seen in arrives..arrives + 3 {
                    let standby = View {
                        lease: lease(Some("b"), Some(10)),
                        since: Duration::from_secs(seen),
                        ..View::default()
                    };
                    let leader = View {
                        lease: lease(Some("b"), Some(10)),
                        renewed: Some(Duration::from_secs(sent)),
                        tried: Some(Duration::from_secs(sent)),
                        ..View::default()
                    };
                    for now in sent..sent + 30 {
                        let now = Duration::from_secs(now);
                        let takes = decide(&standby, "a", TIMES, now) == Decision::Acquire;
                        let acts = !matches!(decide(&leader, "b", TIMES, now), Decision::Lost(_));
                        assert!(!(takes && acts), "sent {sent}, seen {seen}, at {now:?}");
                    }
                }
            }
        }
    }
}
