//! Whether a commit status is to be posted: a function of the object and the time.

use std::time::Duration;

use fleetwright_api::{CommitStatus, condition};
use jiff::{SignedDuration, Timestamp};

use crate::forge::PostError;

/// Condition of a CommitStatus: the forge has what is wanted.
pub const POSTED: &str = "Posted";

/// After so long without success nobody waits for the status any more.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(24);
/// A repository or commit that is unknown for so many tries will stay so.
const UNKNOWN_TRIES: i32 = 8;

/// What is spread by chance is a quarter of so much at most.
const MOST_SPREAD: Duration = Duration::from_secs(120);

/// What to do about a commit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The forge has what is wanted.
    Settled,
    /// Post it.
    Post,
    /// Asking again cannot help before the wish or the Fleet changes.
    GaveUp,
}

/// Decides what to do about a commit status.
pub fn decide(object: &CommitStatus, now: Timestamp) -> Decision {
    let Some(status) = &object.status else {
        return Decision::Post;
    };
    // Not the content alone: where the record of B got lost in A, B, A, the forge has B.
    let taken = status.posted_observation == Some(object.spec.observation);
    if taken && status.posted.as_ref() == Some(&object.spec.wanted) {
        return Decision::Settled;
    }
    let Some(failed) = condition::get(&status.conditions, POSTED).filter(|c| c.status == "False")
    else {
        return Decision::Post;
    };
    if failed.observed_generation != object.metadata.generation {
        return Decision::Post; // another wish than the one that failed
    }
    let hopeless = failed.reason == UNKNOWN && status.tries >= UNKNOWN_TRIES;
    if hopeless || now.duration_since(failed.last_transition_time.0) > GIVE_UP {
        return Decision::GaveUp;
    }
    Decision::Post
}

const UNKNOWN: &str = "UnknownToForge";

/// The condition's reason for a failure.
pub(super) const fn reason(error: &PostError) -> &'static str {
    match error {
        PostError::Configuration(_) => "Misconfigured",
        PostError::RateLimited { .. } | PostError::Held { .. } => "RateLimited",
        PostError::Refused { .. } => "Refused",
        PostError::Unknown { .. } => UNKNOWN,
        PostError::Passing(_) => "Unreachable",
    }
}

/// How long to wait after the `tries`-th failure: what the forge says, else 1 s doubled each time up to
/// 5 min, with up to a quarter more by `chance`, and at most half a minute, so that many statuses do not come back at once.
pub(super) fn back_off(error: &PostError, tries: i32, chance: u64) -> Duration {
    let base = match error {
        PostError::RateLimited { after } | PostError::Held { after } => *after,
        PostError::Configuration(_) | PostError::Refused { .. } => Duration::from_secs(300),
        PostError::Unknown { .. } | PostError::Passing(_) => {
            let doublings = u32::try_from(tries.saturating_sub(1).clamp(0, 9)).unwrap_or(0);
            Duration::from_secs(1 << doublings).min(Duration::from_secs(300))
        }
    };
    let spread = base.min(MOST_SPREAD);
    base + spread.mul_f64((chance % 1024) as f64 / 4096.0)
}

#[cfg(test)]
mod tests {
    use fleetwright_api::{
        commit_status::{CommitState, CommitStatusSpec, CommitStatusStatus, StatusContent},
        condition::Status,
    };

    use super::*;

    fn content(state: CommitState) -> StatusContent {
        StatusContent {
            state,
            ..Default::default()
        }
    }

    fn object(wanted: CommitState, posted: Option<CommitState>) -> CommitStatus {
        let mut o = CommitStatus::new(
            "x",
            CommitStatusSpec {
                wanted: content(wanted),
                ..Default::default()
            },
        );
        o.metadata.generation = Some(2);
        o.status = Some(CommitStatusStatus {
            posted: posted.map(content),
            posted_observation: posted.map(|_| 0),
            ..Default::default()
        });
        o
    }

    fn failing(reason: &str, tries: i32, generation: i64) -> CommitStatus {
        let mut o = object(CommitState::Success, Some(CommitState::Pending));
        let status = o.status.as_mut().unwrap();
        status.tries = tries;
        condition::set(
            &mut status.conditions,
            POSTED,
            Status::False,
            reason,
            "",
            Some(generation),
            Timestamp::UNIX_EPOCH,
        );
        o
    }

    #[test]
    fn table() {
        let hours = |h| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(h);
        use CommitState::{Pending, Success};
        let mut fresh = object(Pending, None);
        fresh.status = None;
        let mut lost = object(Pending, Some(Pending));
        lost.spec.observation = 2;
        for (what, object, now, want) in [
            ("never tried", fresh, 0, Decision::Post),
            ("nothing posted", object(Pending, None), 0, Decision::Post),
            (
                "posted",
                object(Success, Some(Success)),
                0,
                Decision::Settled,
            ),
            (
                "A, B, A again",
                object(Pending, Some(Success)),
                0,
                Decision::Post,
            ),
            ("A, B whose record got lost, A", lost, 0, Decision::Post),
            ("failing", failing("Unreachable", 99, 2), 23, Decision::Post),
            (
                "failing for a day",
                failing("Unreachable", 99, 2),
                25,
                Decision::GaveUp,
            ),
            (
                "an older wish failed",
                failing("Unreachable", 99, 1),
                25,
                Decision::Post,
            ),
            (
                "unknown, perhaps not pushed yet",
                failing(UNKNOWN, 3, 2),
                0,
                Decision::Post,
            ),
            (
                "unknown for good",
                failing(UNKNOWN, 8, 2),
                0,
                Decision::GaveUp,
            ),
        ] {
            assert_eq!(decide(&object, hours(now)), want, "{what}");
        }
    }

    #[test]
    fn back_off_doubles_and_obeys_the_forge() {
        let passing = PostError::Passing(String::new());
        assert_eq!(back_off(&passing, 1, 0), Duration::from_secs(1));
        assert_eq!(back_off(&passing, 4, 0), Duration::from_secs(8));
        assert_eq!(back_off(&passing, i32::MAX, 0), Duration::from_secs(300));
        let limited = PostError::RateLimited {
            after: Duration::from_secs(40),
        };
        assert_eq!(back_off(&limited, 1, 0), Duration::from_secs(40));
        assert!(back_off(&limited, 1, 1023) < Duration::from_secs(50));
        let held = PostError::Held {
            after: Duration::from_secs(3600),
        };
        assert!(back_off(&held, 9, 1023) < Duration::from_secs(3630));
    }
}
