//! When a pull request is planned again.

use fleetwright_api::fleet::Held;
use fleetwright_gitops::source::Ends;
use jiff::{SignedDuration, Timestamp};

/// After so long what is live may have moved.
const REFRESH: SignedDuration = SignedDuration::from_mins(10);

/// What a plan was made from, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) ends: Ends,
    /// Of the Fleet: its policy is part of the plan.
    pub(super) generation: Option<i64>,
    /// What it follows in place of its branch.
    pub(super) held: Option<Held>,
    pub(super) when: Timestamp,
}

/// Whether a pull request that was planned at `before` is planned again at `now`.
pub(super) fn is_due(before: Option<&At>, now: &At) -> bool {
    before.is_none_or(|before| {
        let policy = before.generation == now.generation && before.held == now.held;
        let same = before.ends == now.ends && policy;
        !same || now.when.duration_since(before.when) >= REFRESH
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_when_anything_of_it_moved() {
        let ends = |base: &str, head: &str| Ends {
            base: base.into(),
            head: head.into(),
        };
        let first = At {
            ends: ends("1", "2"),
            generation: Some(1),
            held: None,
            when: Timestamp::UNIX_EPOCH,
        };
        let later = |seconds| Timestamp::from_second(seconds).unwrap();
        for (now, want) in [
            (
                At {
                    when: later(599),
                    ..first.clone()
                },
                false,
            ),
            (
                At {
                    when: later(600),
                    ..first.clone()
                },
                true,
            ),
            (
                At {
                    ends: ends("3", "2"),
                    ..first.clone()
                },
                true,
            ),
            (
                At {
                    ends: ends("1", "3"),
                    ..first.clone()
                },
                true,
            ),
            (
                At {
                    held: Some(Held::default()),
                    ..first.clone()
                },
                true,
            ),
            (
                At {
                    generation: Some(2),
                    ..first.clone()
                },
                true,
            ),
        ] {
            assert_eq!(is_due(Some(&first), &now), want, "{now:?}");
        }
        assert!(is_due(None, &first));
    }
}
