//! The arithmetic of rollouts, on plain numbers: the controllers, the planner's model and the tables of tests run it.

use std::fmt;

use super::Bounds;

/// A set, as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// `spec.replicas`.
    pub spec: i32,
    /// `status.replicas`: machines that there are.
    pub status: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// The pool's replicas plus surge when the set was last scaled; `None` for a set of before.
    pub max_annotation: Option<i32>,
    /// The pool's replicas when the set was last scaled.
    pub desired_annotation: Option<i32>,
    /// What this pass makes of `spec`, and why.
    pub intent: Option<(i32, ScaleReason)>,
}

impl Row {
    /// `spec.replicas` after this pass.
    pub fn target(&self) -> i32 {
        self.intent.as_ref().map_or(self.spec, |(to, _)| *to)
    }

    fn aim(&mut self, to: i32, reason: ScaleReason) {
        if to == self.spec {
            self.intent = None;
        } else if to != self.target() {
            self.intent = Some((to, reason));
        }
    }
}

/// Why a set gets another number of machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScaleReason {
    /// There is room below replicas plus surge.
    Room {
        /// Machines now.
        total: i32,
        /// Wanted.
        replicas: i32,
        /// Surge.
        surge: i32,
    },
    /// The new set has more than the pool wants.
    AlignToPool {
        /// Wanted.
        replicas: i32,
    },
    /// More are available than must be.
    AboveMinimum {
        /// Available.
        available: i32,
        /// Must be available.
        minimum: i32,
    },
    /// Machines that are not there or not available go first.
    Unavailable,
    /// Nothing moved, because a machine of an old set is not available: one goes.
    Unblock,
    /// Paused or scaled in mid-rollout: every set gets its share.
    Proportional,
    /// The set follows machines that somebody deleted.
    AlignToMachines,
    /// The new set is complete; what is left of old ones goes.
    Saturated,
}

impl fmt::Display for ScaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room {
                total,
                replicas,
                surge,
            } => {
                write!(
                    f,
                    "{total} current machines < {replicas} wanted + {surge} maxSurge"
                )
            }
            Self::AlignToPool { replicas } => write!(f, "the pool wants {replicas}"),
            Self::AboveMinimum { available, minimum } => {
                write!(f, "{available} available > {minimum} that must be")
            }
            Self::Unavailable => f.write_str("machines that are missing or not available go first"),
            Self::Unblock => {
                f.write_str("one goes to unblock a rollout that a machine of this old set holds up")
            }
            Self::Proportional => f.write_str("its share of the pool's new size"),
            Self::AlignToMachines => f.write_str("follows the machines that were deleted"),
            Self::Saturated => f.write_str("the new set is complete"),
        }
    }
}

/// One pass of a rolling update over the new set and the old ones (oldest first).
pub fn rolling_update(bounds: &Bounds, new: &mut Row, old: &mut [Row]) {
    scale_new(bounds, new, old);
    scale_down_old(bounds, new, old);
    break_deadlock(new, old);
}

/// The new set's size: it takes what room there is, and never more than the pool wants.
pub fn scale_new(bounds: &Bounds, new: &mut Row, old: &[Row]) {
    if new.spec > bounds.replicas {
        new.aim(
            bounds.replicas,
            ScaleReason::AlignToPool {
                replicas: bounds.replicas,
            },
        );
        return;
    }
    let total: i32 = old
        .iter()
        .chain([&*new])
        .map(|r| r.spec.max(r.status))
        .sum();
    let to = fill(bounds.replicas, bounds.max_total(), total, new.spec);
    if to != new.spec {
        let reason = ScaleReason::Room {
            total,
            replicas: bounds.replicas,
            surge: bounds.surge,
        };
        new.aim(to, reason);
    }
}

/// The size of a new set of `new` machines when there are `total` and may be `max_total`.
pub fn fill(replicas: i32, max_total: i32, total: i32, new: i32) -> i32 {
    let room = (max_total - total).max(0);
    new + room.min((replicas - new).max(0))
}

/// Old sets shrink as far as availability allows: what is missing or unavailable first, then the rest, the oldest
/// set first. Machines that go are taken to be available ones, since the set chooses them, not we.
pub fn scale_down_old(bounds: &Bounds, new: &Row, old: &mut [Row]) {
    let minimum = bounds.min_available();
    let sum = |f: &dyn Fn(&Row) -> i32| old.iter().chain([new]).map(f).sum::<i32>();
    let total = sum(&|r| r.spec);
    let pending = sum(&|r| (r.status - r.spec.min(r.target())).max(0));
    let available = sum(&|r| r.available);
    let new_unavailable = (new.spec - new.available).max(0);
    let mut budget = (total - pending - minimum - new_unavailable).max(0);
    // Available machines that each set may lose by what was decided before, and by this pass so far.
    let doomed = |r: &Row, to: i32| r.available.min((r.status - to).max(0));
    let available = available - doomed(new, new.target());
    let mut lost: Vec<i32> = old.iter().map(|r| doomed(r, r.target())).collect();
    for pass in [Pass::Unavailable, Pass::Available] {
        for at in 0..old.len() {
            if budget <= 0 {
                return;
            }
            let row = &mut old[at];
            let have = row.target();
            let candidate = match pass {
                Pass::Unavailable => (have - row.available).max(0),
                Pass::Available => have,
            };
            let mut to = have - candidate.min(budget);
            let left: i32 = available - lost.iter().sum::<i32>() + lost[at];
            if row.available > 0 {
                let spare = (left - minimum).max(0);
                if row.status - to > spare {
                    to = (row.status - spare).min(have);
                }
            }
            if to >= have {
                continue;
            }
            budget -= have - to;
            lost[at] = doomed(row, to);
            let reason = match pass {
                Pass::Unavailable => ScaleReason::Unavailable,
                Pass::Available => ScaleReason::AboveMinimum {
                    available: left,
                    minimum,
                },
            };
            row.aim(to, reason);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Unavailable,
    Available,
}

/// When nothing moves any more because a machine of an old set is not available, one goes all the same.
pub fn break_deadlock(new: &Row, old: &mut [Row]) {
    let moving = old
        .iter()
        .chain([new])
        .any(|r| r.intent.is_some() || r.spec != r.status);
    if moving || new.available != new.spec {
        return;
    }
    if let Some(row) = old.iter_mut().find(|r| r.spec > 0 && r.available < r.spec) {
        row.aim(row.spec - 1, ScaleReason::Unblock);
    }
}

/// OnDelete: the new set fills what is missing; old sets follow the machines that somebody deletes.
pub fn on_delete(bounds: &Bounds, new: &mut Row, old: &mut [Row]) {
    // Old sets first: what was deleted from them is not made again there.
    for row in old.iter_mut() {
        if row.spec > row.status {
            row.aim(row.status, ScaleReason::AlignToMachines);
        }
    }
    let old_total: i32 = old.iter().map(|r| r.spec.max(r.status)).sum();
    if new.spec > bounds.replicas {
        new.aim(
            bounds.replicas,
            ScaleReason::AlignToPool {
                replicas: bounds.replicas,
            },
        );
    } else {
        let total = old_total + new.spec;
        let to = fill(bounds.replicas, bounds.replicas, total, new.spec);
        if to != new.spec {
            let reason = ScaleReason::Room {
                total,
                replicas: bounds.replicas,
                surge: 0,
            };
            new.aim(to, reason);
        }
    }
    let mut excess = old.iter().map(Row::target).sum::<i32>() + new.target() - bounds.replicas;
    for row in old.iter_mut() {
        if excess <= 0 {
            break;
        }
        let have = row.target();
        let down = have.min(excess);
        if down > 0 {
            row.aim(
                have - down,
                ScaleReason::AlignToPool {
                    replicas: bounds.replicas,
                },
            );
            excess -= down;
        }
    }
}

/// A paused pool keeps its sets and gives each its share of a new size. It grows only as machines on their way out leave room.
pub fn proportional(bounds: &Bounds, new: &mut Row, old: &mut [Row]) {
    let allowed = if bounds.replicas > 0 {
        bounds.max_total()
    } else {
        0
    };
    let rows = || old.iter().chain([&*new]);
    let total: i32 = rows().map(|r| r.spec).sum();
    let room = (allowed - rows().map(|r| r.spec.max(r.status)).sum::<i32>()).max(0);
    let active: Vec<usize> = (0..old.len()).filter(|i| old[*i].spec > 0).collect();
    if active.is_empty() || (active.len() == 1 && new.spec == 0) {
        let row = match active.first() {
            Some(at) => &mut old[*at],
            None => new,
        };
        let replicas = bounds.replicas;
        let to = replicas.min(row.spec.saturating_add(room));
        row.aim(to, ScaleReason::AlignToPool { replicas });
        return;
    }
    let saturated = new.spec == bounds.replicas
        && new.desired_annotation == Some(bounds.replicas)
        && new.available == bounds.replicas;
    if saturated {
        for row in old.iter_mut().filter(|r| r.spec > 0) {
            row.aim(0, ScaleReason::Saturated);
        }
        return;
    }
    let to_add = (allowed - total).min(room);
    if to_add == 0 {
        return;
    }
    // Biggest first; ties: growing, the newest first; shrinking, the oldest first. `old` is oldest first.
    let count = old.len();
    let mut rows: Vec<&mut Row> = old.iter_mut().chain([new]).collect();
    let mut order: Vec<usize> = (0..=count).filter(|i| rows[*i].spec > 0).collect();
    order.sort_by_key(|i| {
        let age = i64::try_from(*i).unwrap_or(i64::MAX);
        (-rows[*i].spec, if to_add > 0 { -age } else { age })
    });
    let mut added = 0;
    for at in &order {
        let row = &mut *rows[*at];
        let base = row.max_annotation.filter(|m| *m > 0).unwrap_or(total);
        let share = round_div(i64::from(row.spec) * i64::from(allowed), i64::from(base)) - row.spec;
        let left = to_add - added;
        let share = if to_add > 0 {
            share.clamp(0, left)
        } else {
            share.clamp(left, 0)
        };
        if share != 0 {
            added += share;
            row.aim((row.spec + share).max(0), ScaleReason::Proportional);
        }
    }
    if let Some(at) = order.first() {
        let row = &mut *rows[*at];
        let left = to_add - added;
        if left != 0 {
            row.aim((row.target() + left).max(0), ScaleReason::Proportional);
        }
    }
}

/// `a / b` rounded to the nearest, halves up; `b` is positive.
fn round_div(a: i64, b: i64) -> i32 {
    let b = b.max(1);
    i32::try_from((2 * a + b).div_euclid(2 * b)).unwrap_or(i32::MAX)
}
