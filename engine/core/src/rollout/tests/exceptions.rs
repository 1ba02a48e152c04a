//! The list of cases in which a pool may be outside its bounds, each with a pool that is.

use std::collections::BTreeSet;

use crate::rollout::{
    Bounds, Exception,
    arithmetic::{Row, rolling_update},
    exceptions::met,
};

fn row((spec, status, available): (i32, i32, i32), desired: i32) -> Row {
    Row {
        spec,
        status,
        available,
        desired_annotation: Some(desired),
        ..Row::default()
    }
}

#[test]
fn there_are_four_and_each_is_named_where_the_bounds_are_left() {
    let b = |replicas, surge, unavailable| Bounds {
        replicas,
        surge,
        unavailable,
    };
    // bounds, replicas before, new, old -> the one that is named
    let cases = [
        (b(12, 3, 1), 6, (3, 3, 3), (3, 3, 3), Exception::ScaledUp),
        (b(6, 3, 1), 12, (3, 3, 3), (9, 9, 9), Exception::ScaledDown),
        (b(3, 1, 0), 3, (5, 5, 2), (0, 0, 0), Exception::NewSetAbove),
        (b(6, 1, 0), 6, (5, 5, 5), (2, 2, 1), Exception::Unblocked),
    ];
    for (bounds, before, new, old, want) in &cases {
        let (mut new, mut old) = (row(*new, *before), [row(*old, *before)]);
        let (available, total) = (new.available + old[0].available, new.status + old[0].status);
        rolling_update(bounds, &mut new, &mut old);
        assert_eq!(met(bounds, &new, &old), BTreeSet::from([*want]));
        // At worst a set deletes available machines.
        let goes = |r: &Row| (r.status - r.target()).max(0);
        let below = available - goes(&new) - goes(&old[0]) < bounds.min_available();
        let above = total > bounds.max_total();
        assert!(
            (below && want.lowers_available()) || (above && want.raises_total()),
            "{want:?} is named for nothing"
        );
    }
    let seen: BTreeSet<Exception> = cases.iter().map(|c| c.4).collect();
    assert_eq!(seen, BTreeSet::from(Exception::ALL));
}

#[test]
fn nothing_is_named_at_rest_or_in_a_plain_rollout() {
    let bounds = Bounds {
        replicas: 3,
        surge: 1,
        unavailable: 0,
    };
    for (new, old) in [
        ((3, 3, 3), (0, 0, 0)),
        ((0, 0, 0), (3, 3, 3)),
        ((1, 1, 0), (3, 3, 3)),
        ((2, 2, 2), (2, 2, 2)),
    ] {
        let (mut new, mut old) = (row(new, 3), [row(old, 3)]);
        rolling_update(&bounds, &mut new, &mut old);
        assert_eq!(met(&bounds, &new, &old), BTreeSet::new());
    }
}
