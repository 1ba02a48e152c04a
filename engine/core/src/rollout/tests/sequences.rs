//! Whole rollouts: the golden sequences, and bounds that hold in any order of the controllers.

use proptest::prelude::*;

use crate::rollout::{
    Bounds, ScaleReason,
    arithmetic::{Row, rolling_update},
};

/// A pool and its sets, oldest first; the last one is new.
#[derive(Clone, Debug)]
struct Model {
    bounds: Bounds,
    sets: Vec<Row>,
    /// Whether the deadlock breaker or a new set above replicas was seen: named exceptions.
    excepted: bool,
}

impl Model {
    fn new(bounds: (i32, i32, i32), sizes: &[i32]) -> Self {
        let (replicas, surge, unavailable) = bounds;
        let unavailable = if surge == 0 && unavailable == 0 {
            1
        } else {
            unavailable.min(replicas)
        };
        Self {
            bounds: Bounds {
                replicas,
                surge,
                unavailable,
            },
            sets: sizes
                .iter()
                .enumerate()
                .map(|(at, n)| Row {
                    name: at.to_string(),
                    spec: *n,
                    status: *n,
                    available: *n,
                    ..Row::default()
                })
                .collect(),
            excepted: false,
        }
    }

    /// One reconcile of the pool; whether it changed anything.
    fn pool(&mut self) -> bool {
        let mut old = self.sets.clone();
        let mut new = old.pop().unwrap();
        rolling_update(&self.bounds, &mut new, &mut old);
        let mut changed = false;
        for (set, row) in self.sets.iter_mut().zip(old.iter().chain([&new])) {
            changed |= row.target() != set.spec;
            self.excepted |= row.intent.as_ref().is_some_and(|(_, r)| {
                matches!(r, ScaleReason::Unblock | ScaleReason::AlignToPool { .. })
            });
            set.spec = row.target();
        }
        changed
    }

    /// One reconcile of a set: machines appear and are available at once, or go.
    fn set(&mut self, at: usize) -> bool {
        let set = &mut self.sets[at];
        let changed = set.status != set.spec || set.available != set.spec;
        set.status = set.spec;
        set.available = set.spec;
        changed
    }

    fn line(&self) -> String {
        self.sets
            .iter()
            .map(|s| format!("{}({}/{})", s.spec, s.status, s.available))
            .collect::<Vec<_>>()
            .join(";")
    }

    fn done(&self) -> bool {
        let (new, old) = self.sets.split_last().unwrap();
        new.available == self.bounds.replicas
            && new.status == self.bounds.replicas
            && old.iter().all(|s| s.spec == 0 && s.status == 0)
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|s| s.status).sum()
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(|s| s.available).sum()
    }
}

/// `spec` alone of a set that has what it should.
fn short(line: &str) -> String {
    line.split(';')
        .map(|part| {
            let (spec, rest) = part.split_once('(').unwrap();
            if rest == format!("{spec}/{spec})") {
                spec.to_owned()
            } else {
                part.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(";")
}

/// Cluster API's Test_RollingUpdateSequences.
#[test]
fn rollouts_go_step_by_step_as_the_table_says() {
    type Case<'a> = (&'a str, (i32, i32, i32), &'a [i32], &'a str);
    let cases: &[Case<'_>] = &[
        (
            "3 replicas, surge 1, unavailable 0",
            (3, 1, 0),
            &[3, 0],
            "3;1(0/0) 2(3/3);1 2;2(1/1) 1(2/2);2 1;3(2/2) 0(1/1);3 0;3",
        ),
        (
            "3 replicas, surge 0, unavailable 1",
            (3, 0, 1),
            &[3, 0],
            "2(3/3);0 2;1(0/0) 1(2/2);1 1;2(1/1) 0(1/1);2 0;3(2/2) 0;3",
        ),
        (
            "6 replicas, surge 3, unavailable 1",
            (6, 3, 1),
            &[6, 0],
            "5(6/6);3(0/0) 2(5/5);4(3/3) 1(2/2);6(4/4) 0(1/1);6 0;6",
        ),
        (
            "6 replicas, surge 1, unavailable 3",
            (6, 1, 3),
            &[6, 0],
            "3(6/6);1(0/0) 2(3/3);4(1/1) 0(2/2);5(4/4) 0;6(5/5) 0;6",
        ),
        (
            "6 replicas, surge 10",
            (6, 10, 0),
            &[6, 0],
            "6;6(0/0) 0(6/6);6 0;6",
        ),
        (
            "6 replicas, unavailable 10",
            (6, 0, 10),
            &[6, 0],
            "0(6/6);0 0;6(0/0) 0;6",
        ),
        (
            "scaled from 6 to 12 half-way: fewer are available for a while",
            (12, 3, 1),
            &[3, 3],
            "3;12(3/3) 0(3/3);12 0;12",
        ),
        (
            "scaled from 12 to 6 half-way: there are more for a while",
            (6, 3, 1),
            &[9, 3],
            "2(9/9);3 2;6(3/3) 0(2/2);6 0;6",
        ),
        (
            "the content changes again half-way",
            (6, 3, 1),
            &[3, 3, 0],
            "2(3/3);3;3(0/0) 0(2/2);2(3/3);4(3/3) 0;1(2/2);6(4/4) 0;0(1/1);6 0;0;6",
        ),
    ];
    for (name, bounds, sizes, want) in cases {
        let mut model = Model::new(*bounds, sizes);
        let mut lines = Vec::new();
        for _ in 0..50 {
            model.pool();
            lines.push(short(&model.line()));
            if model.done() {
                break;
            }
            for at in 0..model.sets.len() {
                model.set(at);
            }
        }
        assert_eq!(lines.join(" "), *want, "{name}");
        assert!(!model.pool(), "a finished rollout stays as it is");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever order the controllers run in and however slowly machines appear and go: the total stays below
    /// replicas + surge, available above replicas - unavailable, and the rollout ends.
    #[test]
    fn bounds_hold_in_any_order(
        replicas in 0..12i32,
        surge in 0..5i32,
        unavailable in 0..5i32,
        split in 0..12i32,
        moves in proptest::collection::vec((0..4u8, 0..3usize), 0..400),
    ) {
        let first = split.min(replicas);
        let mut model = Model::new((replicas, surge, unavailable), &[first, replicas - first, 0]);
        let step = |model: &mut Model, (what, at): (u8, usize)| {
            let set = &mut model.sets[at];
            match what {
                0 => { model.pool(); }
                // A machine is made.
                1 if set.status < set.spec => set.status += 1,
                // One becomes available.
                2 if set.available < set.status.min(set.spec) => set.available += 1,
                // The set deletes one: at worst an available one.
                3 if set.status > set.spec => {
                    set.status -= 1;
                    if set.available > 0 { set.available -= 1; }
                }
                _ => {}
            }
        };
        let check = |model: &Model| {
            let (max, min) = (model.bounds.max_total(), model.bounds.min_available());
            prop_assert!(model.total() <= max, "{} > {max}: {}", model.total(), model.line());
            prop_assert!(model.available() >= min, "{} < {min}: {}", model.available(), model.line());
            Ok(())
        };
        for m in moves {
            step(&mut model, m);
            // The breaker is one of the named exceptions.
            if model.excepted { break; }
            check(&model)?;
        }
        for _ in 0..200 {
            model.pool();
            for at in 0..3 { model.set(at); }
        }
        prop_assert!(model.done(), "did not end: {}", model.line());
        prop_assert!(!model.pool());
    }
}
