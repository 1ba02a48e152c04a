//! When a pool may be outside the bounds of its rollout: four cases, and no others.

use std::{collections::BTreeSet, fmt};

use super::{Bounds, ScaleReason, arithmetic::Row};

/// A case in which a pool may be outside its bounds by what it was told to do or by what was decided for it. A decision names
/// every case that it meets; without one, and machines that failed by themselves aside, no decision takes the available machines
/// below `replicas - maxUnavailable` or all machines above `replicas + maxSurge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exception {
    /// `replicas` was raised: until the new machines are available there are fewer than the new bound asks for, and what an earlier
    /// decision took away still goes.
    ScaledUp,
    /// `replicas` was lowered: until the machines that are too many have gone there are more than the new bound allows, and what an
    /// earlier decision asked for is still made.
    ScaledDown,
    /// The new set (or the only one of a paused pool) has more machines than the pool wants: it shrinks at once, whichever of all
    /// machines are available.
    NewSetAbove,
    /// Nothing moved any more because a machine of an old set is not available: one goes all the same.
    Unblocked,
}

impl Exception {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::ScaledUp,
        Self::ScaledDown,
        Self::NewSetAbove,
        Self::Unblocked,
    ];

    /// Whether fewer machines may be available than the bound asks for.
    pub fn lowers_available(self) -> bool {
        match self {
            Self::ScaledUp | Self::NewSetAbove | Self::Unblocked => true,
            Self::ScaledDown => false,
        }
    }

    /// Whether there may be more machines than the bound allows.
    pub fn raises_total(self) -> bool {
        match self {
            Self::ScaledDown => true,
            Self::ScaledUp | Self::NewSetAbove | Self::Unblocked => false,
        }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScaledUp => "scaled up, and the new machines are not available yet",
            Self::ScaledDown => "scaled down, and the machines that are too many have not gone yet",
            Self::NewSetAbove => "the new set has more machines than the pool wants",
            Self::Unblocked => "a machine of an old set held the rollout up",
        })
    }
}

/// The cases that a pass over these sets meets.
pub(super) fn met(bounds: &Bounds, new: &Row, old: &[Row]) -> BTreeSet<Exception> {
    let mut met = BTreeSet::new();
    let there: Vec<&Row> = old
        .iter()
        .chain([new])
        .filter(|r| r.spec.max(r.status) > 0)
        .collect();
    let was = |than: fn(&i32, &i32) -> bool| {
        there
            .iter()
            .filter_map(|r| r.desired_annotation)
            .any(|d| than(&d, &bounds.replicas))
    };
    if was(i32::lt) || (there.is_empty() && bounds.replicas > 0) {
        met.insert(Exception::ScaledUp);
    }
    if was(i32::gt) {
        met.insert(Exception::ScaledDown);
    }
    if there
        .iter()
        .any(|r| matches!(r.intent, Some((_, ScaleReason::Unblock))))
    {
        met.insert(Exception::Unblocked);
    }
    let shrinks =
        |r: &&Row| matches!(r.intent, Some((to, ScaleReason::AlignToPool { .. })) if to < r.spec);
    if there.iter().any(shrinks) {
        met.insert(Exception::NewSetAbove);
    }
    met
}
