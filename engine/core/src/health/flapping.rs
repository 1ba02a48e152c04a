//! Conditions that come and go. The seconds for which a condition is bad add up; while it is good they go down again, a quarter as
//! fast. A node that is bad for more than a fifth of the time so breaks its machine in the end, however short each time is, and
//! a short outage now and then is forgotten.

use fleetwright_api::{
    machine::BadCondition, machine_health_check::UnhealthyCondition, time::k8s_time,
};
use jiff::Timestamp;

use super::{NodeCondition, seconds_between};

/// Good seconds that make up for a bad one.
const FORGIVEN: i64 = 4;

/// Bad seconds that have added up at `at`.
fn added_up(known: &BadCondition, at: Timestamp) -> i64 {
    let elapsed = seconds_between(known.since.0, at);
    if known.bad {
        known.seconds + elapsed
    } else {
        (known.seconds - elapsed / FORGIVEN).max(0)
    }
}

/// What is to be remembered, given what was. It changes only when a condition goes from good to bad or back, so that it costs no
/// write of its own. A machine that was never judged before (`judged`) has its node's first moments forgiven.
pub(super) fn follow(
    old: &[BadCondition],
    conditions: &[NodeCondition],
    watched: &[&UnhealthyCondition],
    judged: bool,
    now: Timestamp,
) -> Vec<BadCondition> {
    let mut kinds: Vec<&str> = watched.iter().map(|w| w.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut out = Vec::new();
    for kind in kinds {
        let of_kind = || watched.iter().filter(|w| w.kind == kind);
        let found = conditions.iter().find(|c| c.kind == kind);
        let bad = found.is_some_and(|c| of_kind().any(|w| w.status == c.status));
        let since = found.map_or(now, |c| c.since.min(now));
        match old.iter().find(|b| b.kind == kind) {
            None if bad && judged => out.push(BadCondition {
                kind: kind.to_owned(),
                bad,
                since: k8s_time(since),
                seconds: 0,
            }),
            None => {}
            Some(known) if known.bad == bad => out.push(known.clone()),
            Some(known) => {
                let since = since.max(known.since.0);
                // What lasted longer than any time-out has been seen to: it is not held against the machine for days.
                let longest = of_kind().map(|w| i64::from(w.timeout_seconds)).max();
                out.push(BadCondition {
                    kind: kind.to_owned(),
                    bad,
                    since: k8s_time(since),
                    seconds: added_up(known, since).min(longest.unwrap_or(0)),
                });
            }
        }
    }
    out
}
