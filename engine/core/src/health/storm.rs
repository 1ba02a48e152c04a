//! Failures that have something in common: replacing machines would not help.

use std::{collections::BTreeMap, fmt};

use fleetwright_api::machine_health_check::{
    Breakdown, DEFAULT_STORM_MACHINES, DEFAULT_STORM_WINDOW_SECONDS, StormBreaker,
};
use jiff::{SignedDuration, Timestamp};

use super::Seconds;

/// Machines that broke together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storm {
    /// How many.
    pub machines: usize,
    /// Within how many seconds.
    pub window_seconds: i64,
    /// What all of them have in common, such as `image ubuntu-24.04`; never empty.
    pub shared: Vec<String>,
    /// When too few of them are left in the window, if no other machine breaks.
    pub until: Timestamp,
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} machines broke within {}, all of {}: replacing them would not help",
            self.machines,
            Seconds(self.window_seconds),
            self.shared.join(", ")
        )
    }
}

/// Limits of a breaker in machines and seconds; `None` when it is switched off.
pub(super) fn limits(breaker: Option<&StormBreaker>) -> Option<(usize, i64)> {
    let machines = breaker
        .and_then(|b| b.machines)
        .unwrap_or(DEFAULT_STORM_MACHINES);
    let window = breaker
        .and_then(|b| b.window_seconds)
        .unwrap_or(DEFAULT_STORM_WINDOW_SECONDS);
    let machines = usize::try_from(machines).ok().filter(|n| *n > 0)?;
    Some((machines, i64::from(window)))
}

/// When a breakdown is past the window.
pub(super) fn past(broke: &Breakdown, window: i64) -> Timestamp {
    broke
        .time
        .0
        .checked_add(SignedDuration::from_secs(window))
        .unwrap_or(Timestamp::MAX)
}

/// The largest group of at least `machines` breakdowns within the last `window` seconds that have something in common.
pub(super) fn find(
    broke: &[Breakdown],
    (machines, window): (usize, i64),
    now: Timestamp,
) -> Option<Storm> {
    let recent: Vec<&Breakdown> = broke.iter().filter(|b| past(b, window) > now).collect();
    let mut groups: BTreeMap<&str, Vec<&Breakdown>> = BTreeMap::new();
    for broke in &recent {
        for common in &broke.traits {
            groups.entry(common).or_default().push(broke);
        }
    }
    let group = groups
        .into_values()
        .filter(|g| g.len() >= machines)
        .reduce(|best, g| if g.len() > best.len() { g } else { best })?;
    let first = group.first()?;
    let shared = first
        .traits
        .iter()
        .filter(|t| group.iter().all(|b| b.traits.contains(t)))
        .cloned()
        .collect();
    let mut ends: Vec<Timestamp> = group.iter().map(|b| past(b, window)).collect();
    ends.sort_unstable_by(|a, b| b.cmp(a));
    Some(Storm {
        machines: group.len(),
        window_seconds: window,
        shared,
        until: ends.get(machines - 1).copied()?,
    })
}
