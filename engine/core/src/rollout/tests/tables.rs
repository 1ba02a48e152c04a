use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::rollout::{
    Bounds, ScaleReason,
    arithmetic::{Row, break_deadlock, fill, on_delete, proportional, scale_down_old, scale_new},
    bounds::{resolve, scaled},
};

fn text(t: &str) -> IntOrString {
    if let Ok(n) = t.parse() {
        IntOrString::Int(n)
    } else {
        IntOrString::String(t.to_owned())
    }
}

fn b(replicas: i32, surge: i32, unavailable: i32) -> Bounds {
    Bounds {
        replicas,
        surge,
        unavailable,
    }
}

fn row((spec, status, available): (i32, i32, i32)) -> Row {
    Row {
        spec,
        status,
        available,
        ..Row::default()
    }
}

fn meaning(mut row: Row, to: i32) -> Row {
    row.intent = Some((to, ScaleReason::Proportional));
    row
}

/// Cluster API's TestResolveFenceposts.
#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    for (surge, unavailable, desired, want) in [
        ("0%", "0%", 0, (0, 1)),
        ("39%", "39%", 10, (4, 3)),
        ("3", "2", 10, (3, 2)),
        ("0", "0", 10, (0, 1)),
        ("1%", "1%", 10, (1, 0)),
    ] {
        assert_eq!(
            resolve(&text(surge), &text(unavailable), desired),
            Ok(want),
            "{surge} {unavailable}"
        );
    }
    let quoted = IntOrString::String("5".to_owned());
    for (surge, unavailable) in [
        (text("oops"), text("1")),
        (text("55%"), text("urg")),
        (quoted.clone(), text("1")),
        (text("1"), quoted),
        (text("%"), text("1")),
        (text("-5%"), text("1")),
    ] {
        assert!(
            resolve(&surge, &unavailable, 1).is_err(),
            "{surge:?} {unavailable:?}"
        );
    }
    let error = scaled(&text("oops"), 3, true, "f").unwrap_err();
    assert_eq!(
        error.to_string(),
        "f is \"oops\": write a number, or a percentage such as \"25%\""
    );
}

/// Cluster API's TestMaxUnavailable.
#[test]
fn unavailable_is_capped_at_replicas() {
    for (replicas, unavailable, want) in [
        (10, "5", 5),
        (10, "10", 10),
        (5, "10", 5),
        (0, "10", 0),
        (10, "50%", 5),
        (10, "100%", 10),
        (5, "100%", 5),
    ] {
        let pool = super::decide::pool(replicas, text("0"), text(unavailable));
        assert_eq!(
            super::super::bounds(&pool).unwrap().unavailable,
            want,
            "{replicas} {unavailable}"
        );
    }
}

/// Cluster API's TestNewMSNewReplicas.
#[test]
fn a_new_sets_size_fills_the_room() {
    // (replicas, surge, total of the others, new) -> new
    for (replicas, surge, old, new, want) in [(1, 2, 5, 4, 4), (6, 3, 5, 2, 4)] {
        assert_eq!(fill(replicas, replicas + surge, old + new, new), want);
    }
    // OnDelete: no surge.
    for (replicas, old, new, want) in [(1, 3, 5, 5), (6, 1, 2, 5)] {
        assert_eq!(fill(replicas, replicas, old + new, new), want);
    }
}

/// Cluster API's TestReconcileNewMachineSet; its row on disabled creation is
/// [`super::decide::a_current_set_makes_machines_again_though_it_was_stopped`].
#[test]
fn the_new_set_grows_and_shrinks_as_the_table_says() {
    for (name, bounds, old, new, want) in [
        (
            "takes all of its replicas at once",
            b(2, 2, 0),
            vec![],
            (0, 0, 0),
            2,
        ),
        (
            "follows a pool scaled to nothing",
            b(0, 0, 0),
            vec![],
            (2, 2, 2),
            0,
        ),
        (
            "stops at replicas + surge",
            b(3, 2, 0),
            vec![(3, 3, 3)],
            (1, 1, 1),
            2,
        ),
        (
            "waits for an old machine that is still going",
            b(1, 0, 1),
            vec![(0, 1, 0)],
            (0, 0, 0),
            0,
        ),
    ] {
        let old: Vec<Row> = old.into_iter().map(row).collect();
        let mut new = row(new);
        scale_new(&bounds, &mut new, &old);
        assert_eq!(new.target(), want, "{name}");
    }
}

/// Cluster API's Test_reconcileOldMachineSetsRollingUpdate.
#[test]
fn old_sets_shrink_as_the_table_says() {
    let ok = |r| row(r);
    type Case = (&'static str, Bounds, Row, Vec<Row>, Vec<i32>);
    let cases: Vec<Case> = vec![
        (
            "1: nothing is left of the old set",
            b(10, 1, 0),
            ok((10, 10, 10)),
            vec![ok((0, 0, 0))],
            vec![0],
        ),
        (
            "2: as many available as must be",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((2, 2, 2))],
            vec![2],
        ),
        (
            "3: fewer available than must be",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((2, 2, 1))],
            vec![2],
        ),
        (
            "4: an earlier scale-down has not happened yet",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((2, 3, 3))],
            vec![2],
        ),
        (
            "5: earlier scale-downs and a new set that is not there yet",
            b(6, 3, 1),
            ok((3, 0, 0)),
            vec![ok((2, 3, 3)), ok((3, 3, 3))],
            vec![2, 3],
        ),
        (
            "6: the new machine is not available, all old ones are broken",
            b(3, 1, 0),
            ok((1, 1, 0)),
            vec![ok((3, 3, 0))],
            vec![3],
        ),
        (
            "7: the new machine is not available, surge 0",
            b(3, 0, 1),
            ok((1, 1, 0)),
            vec![ok((2, 2, 0))],
            vec![2],
        ),
        (
            "8: the new set is about to shrink",
            b(3, 1, 0),
            meaning(ok((2, 2, 2)), 1),
            vec![ok((2, 2, 2))],
            vec![2],
        ),
        (
            "9: the old set shrinks already",
            b(3, 1, 0),
            ok((2, 2, 2)),
            vec![meaning(ok((2, 2, 2)), 1)],
            vec![1],
        ),
        (
            "10: the new machine is not available, all old ones are",
            b(3, 1, 0),
            ok((1, 1, 0)),
            vec![ok((3, 3, 3))],
            vec![3],
        ),
        (
            "11: one old machine is broken, but the set may delete another",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((3, 3, 2))],
            vec![3],
        ),
        (
            "12: one may go",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((3, 3, 3))],
            vec![2],
        ),
        (
            "13: sets without any available machine go first",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((2, 2, 2)), ok((1, 1, 0)), ok((2, 2, 0))],
            vec![2, 0, 0],
        ),
        (
            "14: then one of the oldest",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((3, 3, 3)), ok((1, 1, 0)), ok((2, 2, 0))],
            vec![2, 0, 0],
        ),
        (
            "15: replicas without a machine go too",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((4, 3, 3)), ok((2, 1, 0)), ok((5, 2, 0))],
            vec![2, 0, 0],
        ),
        (
            "16: a set with one broken machine of two is not trusted",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((1, 1, 1)), ok((1, 1, 0)), ok((2, 2, 1))],
            vec![1, 0, 2],
        ),
        (
            "17: replicas without a machine go, oldest set first",
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((2, 1, 1)), ok((3, 1, 0)), ok((3, 2, 1))],
            vec![1, 0, 2],
        ),
        (
            "18: a second one on top of an earlier scale-down",
            b(3, 1, 0),
            ok((2, 2, 2)),
            vec![ok((3, 4, 4))],
            vec![2],
        ),
        (
            "19: while the new set is about to shrink",
            b(3, 1, 0),
            meaning(ok((2, 2, 2)), 1),
            vec![ok((3, 3, 3))],
            vec![2],
        ),
        (
            "20: on top of what this pass decided",
            b(3, 1, 0),
            ok((2, 2, 2)),
            vec![meaning(ok((3, 3, 3)), 2)],
            vec![1],
        ),
    ];
    for (case, bounds, new, mut old, want) in cases {
        scale_down_old(&bounds, &new, &mut old);
        let got: Vec<i32> = old.iter().map(Row::target).collect();
        assert_eq!(got, want, "{case}");
    }
}

/// What an earlier pass took from a set may be available machines, though their statuses do not say yet that they go.
#[test]
fn an_earlier_scale_down_counts_as_available_machines_lost() {
    // bounds, new, old (oldest first) -> old
    for (name, bounds, new, old, want) in [
        (
            "one is still to go of the first set",
            b(5, 2, 1),
            (0, 0, 0),
            vec![(4, 5, 3), (2, 2, 2)],
            vec![4, 2],
        ),
        (
            "it has gone",
            b(5, 2, 1),
            (0, 0, 0),
            vec![(4, 4, 3), (2, 2, 2)],
            vec![3, 2],
        ),
        (
            "the new set shrinks",
            b(3, 1, 0),
            (2, 3, 3),
            vec![(2, 2, 1)],
            vec![2],
        ),
    ] {
        let mut old: Vec<Row> = old.into_iter().map(row).collect();
        scale_down_old(&bounds, &row(new), &mut old);
        let got: Vec<i32> = old.iter().map(Row::target).collect();
        assert_eq!(got, want, "{name}");
    }
}

/// Cluster API's Test_reconcileDeadlockBreaker.
#[test]
fn the_deadlock_breaker_acts_in_one_case_only() {
    let ok = (5, 5, 5);
    let broken = (5, 5, 3);
    for (name, new, old, want) in [
        ("the one case", row(ok), row(broken), 4),
        ("no old machines", row(ok), row((0, 0, 0)), 0),
        ("all old ones are available", row(ok), row(ok), 5),
        ("the new set grows", row((6, 5, 5)), row(broken), 5),
        ("the old set shrinks", row(ok), row((4, 5, 3)), 4),
        (
            "the new set is to grow",
            meaning(row(ok), 6),
            row(broken),
            5,
        ),
        (
            "the old set is to shrink",
            row(ok),
            meaning(row(broken), 3),
            3,
        ),
        ("the new set is not available", row(broken), row(broken), 5),
    ] {
        let mut old = [old];
        break_deadlock(&new, &mut old);
        assert_eq!(old[0].target(), want, "{name}");
    }
}

/// Cluster API's TestReconcileOldMachineSetsOnDelete and the new set's size beside it.
#[test]
fn on_delete_follows_what_people_delete() {
    // name, replicas, new, old (oldest first) -> new, old
    for (name, replicas, new, old, want_new, want_old) in [
        (
            "nothing was deleted",
            3,
            row((0, 0, 0)),
            vec![(3, 3, 3)],
            0,
            vec![3],
        ),
        (
            "one was deleted: first the old set follows",
            3,
            row((0, 0, 0)),
            vec![(3, 2, 2)],
            0,
            vec![2],
        ),
        (
            "then the new one fills the gap",
            3,
            row((0, 0, 0)),
            vec![(2, 2, 2)],
            1,
            vec![2],
        ),
        (
            "some of two sets were deleted",
            2,
            row((0, 0, 0)),
            vec![(3, 2, 2), (1, 0, 0)],
            0,
            vec![2, 0],
        ),
        (
            "a scaled-down pool takes from the oldest set",
            3,
            row((2, 2, 2)),
            vec![(1, 1, 1), (2, 2, 2)],
            2,
            vec![0, 1],
        ),
        (
            "the same while the new set is to grow to 2",
            3,
            meaning(row((1, 1, 1)), 2),
            vec![(1, 1, 1), (2, 2, 2)],
            2,
            vec![0, 1],
        ),
        (
            "one follows, then the next is taken from",
            3,
            row((2, 2, 2)),
            vec![(1, 0, 0), (2, 2, 2)],
            2,
            vec![0, 1],
        ),
        (
            "all are new",
            3,
            row((3, 3, 3)),
            vec![(0, 0, 0)],
            3,
            vec![0],
        ),
        (
            "the new set is larger than the pool",
            2,
            row((3, 3, 3)),
            vec![(0, 0, 0)],
            2,
            vec![0],
        ),
    ] {
        let (mut new, mut old) = (new, old.into_iter().map(row).collect::<Vec<_>>());
        on_delete(&b(replicas, 0, 0), &mut new, &mut old);
        assert_eq!(new.target(), want_new, "{name}");
        assert_eq!(
            old.iter().map(Row::target).collect::<Vec<_>>(),
            want_old,
            "{name}"
        );
    }
}

/// Each change of size says why, in the numbers that it was decided by.
#[test]
fn changes_of_size_say_why() {
    let mut new = row((1, 1, 1));
    scale_new(&b(3, 2, 0), &mut new, &[row((3, 3, 3))]);
    let why = |row: &Row| row.intent.as_ref().unwrap().1.to_string();
    assert_eq!(why(&new), "4 current machines < 3 wanted + 2 maxSurge");
    let mut new = row((3, 3, 3));
    scale_new(&b(1, 1, 0), &mut new, &[]);
    assert_eq!(why(&new), "the pool wants 1");
    let mut old = [row((3, 3, 3)), row((1, 1, 0))];
    scale_down_old(&b(3, 1, 0), &row((1, 1, 1)), &mut old);
    assert_eq!(why(&old[0]), "4 available > 3 that must be");
    assert_eq!(
        why(&old[1]),
        "machines that are missing or not available go first"
    );
    let mut old = [row((5, 5, 3))];
    break_deadlock(&row((5, 5, 5)), &mut old);
    assert_eq!(
        why(&old[0]),
        "one goes to unblock a rollout that a machine of this old set holds up"
    );
}

#[test]
fn a_paused_pool_scales_each_set_by_its_share() {
    let sized = |spec, max| Row {
        spec,
        status: spec,
        available: spec,
        max_annotation: Some(max),
        desired_annotation: Some(max),
        ..Row::default()
    };
    // (bounds, new, old) -> new, old
    for (bounds, new, old, want_new, want_old) in [
        // One active set takes all.
        (b(5, 0, 1), sized(3, 3), vec![sized(0, 3)], 5, vec![0]),
        (b(5, 0, 1), sized(0, 3), vec![sized(3, 3)], 0, vec![5]),
        // A doubled pool doubles both; a shrunk one halves both.
        (b(20, 0, 1), sized(4, 10), vec![sized(6, 10)], 8, vec![12]),
        (b(5, 0, 1), sized(4, 10), vec![sized(6, 10)], 2, vec![3]),
        // What rounding leaves goes to the largest.
        (b(11, 0, 1), sized(5, 10), vec![sized(5, 10)], 6, vec![5]),
        // To nothing.
        (b(0, 1, 0), sized(4, 10), vec![sized(6, 10)], 0, vec![0]),
        // Machines on their way out leave no room yet.
        (
            b(3, 0, 1),
            sized(0, 3),
            vec![Row {
                status: 2,
                ..sized(0, 3)
            }],
            1,
            vec![0],
        ),
        // A complete new set: what is left of old ones goes.
        (
            b(4, 0, 1),
            Row {
                desired_annotation: Some(4),
                ..sized(4, 4)
            },
            vec![sized(2, 4)],
            4,
            vec![0],
        ),
    ] {
        let (mut new, mut old) = (new, old);
        proportional(&bounds, &mut new, &mut old);
        assert_eq!(
            (
                new.target(),
                old.iter().map(Row::target).collect::<Vec<_>>()
            ),
            (want_new, want_old),
            "{bounds:?}"
        );
    }
}
