//! Mistakes that are made on purpose, so that the simulation shows that it finds them: only with feature `seeded-bugs`, which no
//! release has, and only the one that was chosen.

use std::sync::OnceLock;

/// All of them; the name begins with the invariant that it breaks.
pub const ALL: &[&str] = &[
    "i1-new-key-on-retry",
    "i2-owner-by-name",
    "i3-one-more-unavailable",
    "i3-surge-forgets-what-goes",
    "i4-minor-skipped",
    "i5-quorum-of-all",
    "i6-drain-given-up-early",
    "i6-drain-ends-early",
    "i7-mistakes-left-out",
    "i8-old-news-is-news",
    "i9-youngest-goes-first",
    "i9-waves-at-once",
    "i12-defaults-roll",
    "end-instance-left",
    "end-status-told-anew",
    "end-forge-not-asked-again",
    "end-labels-stay",
    "end-node-left",
    "end-no-remediation",
    "still-node-patch",
];

static CHOSEN: OnceLock<String> = OnceLock::new();

/// Chooses one for the whole process; gives whether there is one of this name and none was chosen before.
pub fn choose(name: &str) -> bool {
    ALL.contains(&name) && CHOSEN.set(name.to_owned()).is_ok()
}

/// Whether this one is made.
pub fn on(name: &str) -> bool {
    debug_assert!(ALL.contains(&name), "{name}");
    CHOSEN.get().is_some_and(|chosen| chosen == name)
}
