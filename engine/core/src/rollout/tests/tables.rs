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
    for (bounds, old, new, want) in [
        (b(2, 2, 0), vec![], (0, 0, 0), 2),
        (b(0, 0, 0), vec![], (2, 2, 2), 0),
        (b(3, 2, 0), vec![(3, 3, 3)], (1, 1, 1), 2),
        (b(1, 0, 1), vec![(0, 1, 0)], (0, 0, 0), 0),
    ] {
        let old: Vec<Row> = old.into_iter().map(row).collect();
        let mut new = row(new);
        scale_new(&bounds, &mut new, &old);
        assert_eq!(new.target(), want, "{bounds:?}");
    }
}

#[test]
fn old_sets_shrink_as_the_table_says() {
    let ok = |r| row(r);
    type Case = (u32, Bounds, Row, Vec<Row>, Vec<i32>);
    let cases: Vec<Case> = vec![
        (
            1,
            b(10, 1, 0),
            ok((10, 10, 10)),
            vec![ok((0, 0, 0))],
            vec![0],
        ),
        (2, b(3, 1, 0), ok((1, 1, 1)), vec![ok((2, 2, 2))], vec![2]),
        (3, b(3, 1, 0), ok((1, 1, 1)), vec![ok((2, 2, 1))], vec![2]),
        (4, b(3, 1, 0), ok((1, 1, 1)), vec![ok((2, 3, 3))], vec![2]),
        (
            5,
            b(6, 3, 1),
            ok((3, 0, 0)),
            vec![ok((2, 3, 3)), ok((3, 3, 3))],
            vec![2, 3],
        ),
        (6, b(3, 1, 0), ok((1, 1, 0)), vec![ok((3, 3, 0))], vec![3]),
        (7, b(3, 0, 1), ok((1, 1, 0)), vec![ok((2, 2, 0))], vec![2]),
        (
            8,
            b(3, 1, 0),
            meaning(ok((2, 2, 2)), 1),
            vec![ok((2, 2, 2))],
            vec![2],
        ),
        (
            9,
            b(3, 1, 0),
            ok((2, 2, 2)),
            vec![meaning(ok((2, 2, 2)), 1)],
            vec![1],
        ),
        (10, b(3, 1, 0), ok((1, 1, 0)), vec![ok((3, 3, 3))], vec![3]),
        (11, b(3, 1, 0), ok((1, 1, 1)), vec![ok((3, 3, 2))], vec![3]),
        (12, b(3, 1, 0), ok((1, 1, 1)), vec![ok((3, 3, 3))], vec![2]),
        (
            13,
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((2, 2, 2)), ok((1, 1, 0)), ok((2, 2, 0))],
            vec![2, 0, 0],
        ),
        (
            14,
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((3, 3, 3)), ok((1, 1, 0)), ok((2, 2, 0))],
            vec![2, 0, 0],
        ),
        (
            15,
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((4, 3, 3)), ok((2, 1, 0)), ok((5, 2, 0))],
            vec![2, 0, 0],
        ),
        (
            16,
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((1, 1, 1)), ok((1, 1, 0)), ok((2, 2, 1))],
            vec![1, 0, 2],
        ),
        (
            17,
            b(3, 1, 0),
            ok((1, 1, 1)),
            vec![ok((2, 1, 1)), ok((3, 1, 0)), ok((3, 2, 1))],
            vec![1, 0, 2],
        ),
        (18, b(3, 1, 0), ok((2, 2, 2)), vec![ok((3, 4, 4))], vec![2]),
        (
            19,
            b(3, 1, 0),
            meaning(ok((2, 2, 2)), 1),
            vec![ok((3, 3, 3))],
            vec![2],
        ),
        (
            20,
            b(3, 1, 0),
            ok((2, 2, 2)),
            vec![meaning(ok((3, 3, 3)), 2)],
            vec![1],
        ),
    ];
    for (case, bounds, new, mut old, want) in cases {
        scale_down_old(&bounds, &new, &mut old);
        let got: Vec<i32> = old.iter().map(Row::target).collect();
        assert_eq!(got, want, "row {case}");
    }
}

#[test]
fn the_deadlock_breaker_acts_in_one_case_only() {
    let cases = [
        (row((5, 5, 5)), row((5, 5, 3)), 4),
        (row((5, 5, 5)), row((0, 0, 0)), 0),
        (row((5, 5, 5)), row((5, 5, 5)), 5),
        (row((6, 5, 5)), row((5, 5, 3)), 5),
        (row((5, 5, 5)), row((4, 5, 3)), 4),
        (meaning(row((5, 5, 5)), 6), row((5, 5, 3)), 5),
        (row((5, 5, 5)), meaning(row((5, 5, 3)), 3), 3),
        (row((5, 5, 3)), row((5, 5, 3)), 5),
    ];
    for (at, (new, old, want)) in cases.into_iter().enumerate() {
        let mut old = [old];
        break_deadlock(&new, &mut old);
        assert_eq!(old[0].target(), want, "case {at}");
    }
}

#[test]
fn on_delete_follows_what_people_delete() {
    // (replicas, new, old) -> new, old
    for (replicas, new, old, want_new, want_old) in [
        (3, (0, 0, 0), vec![(3, 3, 3)], 0, vec![3]),
        (3, (0, 0, 0), vec![(3, 2, 2)], 0, vec![2]),
        (3, (0, 0, 0), vec![(2, 2, 2)], 1, vec![2]),
        (2, (0, 0, 0), vec![(3, 2, 2), (1, 0, 0)], 0, vec![2, 0]),
        (3, (2, 2, 2), vec![(1, 1, 1), (2, 2, 2)], 2, vec![0, 1]),
        (3, (2, 2, 2), vec![(1, 0, 0), (2, 2, 2)], 2, vec![0, 1]),
        (3, (3, 3, 3), vec![(0, 0, 0)], 3, vec![0]),
    ] {
        let (mut new, mut old): (Row, Vec<Row>) = (row(new), old.into_iter().map(row).collect());
        on_delete(&b(replicas, 0, 0), &mut new, &mut old);
        assert_eq!(new.target(), want_new, "{new:?}");
        assert_eq!(
            old.iter().map(Row::target).collect::<Vec<_>>(),
            want_old,
            "{old:?}"
        );
    }
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
