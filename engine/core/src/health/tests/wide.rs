//! Storms over several clusters.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::wide::{LEAST, SHARE, WINDOW_SECONDS},
    *,
};

type Name = (String, String);

fn named(name: &str) -> Name {
    ("prod".into(), name.into())
}

fn sight(cluster: &str, traits: &[&str], broke: Option<i64>) -> Sight {
    Sight {
        cluster: named(cluster),
        traits: traits.iter().map(|t| (*t).to_owned()).collect(),
        broke: broke.map(at),
    }
}

/// In each of so many clusters so many machines, and so many of them that broke at 0; all have `traits` in common.
fn fleet(clusters: usize, each: usize, broken: usize, traits: &[&str]) -> Tally {
    let mut tally = Tally::default();
    for c in 0..clusters {
        for m in 0..each {
            let broke = (m < broken).then_some(0);
            let now = sight(&format!("c{c}"), traits, broke);
            let _ = tally.put(&named(&format!("c{c}-{m}")), Some(now), at(0));
        }
    }
    tally
}

#[test]
fn a_storm_takes_a_number_a_share_and_two_clusters() {
    for (what, clusters, each, broken, storm) in [
        ("two of two in three clusters", 3, 2, 2, true),
        ("four", 2, 2, 2, false),
        ("five of twenty", 5, 4, 1, true),
        ("five of twenty-five", 5, 5, 1, false),
        ("a whole cluster alone", 1, 10, 10, false),
        ("a quarter of eight hundred", 200, 4, 1, true),
        ("a fifth of a thousand", 200, 5, 1, false),
        ("none", 200, 5, 0, false),
    ] {
        let tally = fleet(clusters, each, broken, &["image X"]);
        let found = tally.storm(&named("c0-0"), at(0));
        assert_eq!(found.is_some(), storm, "{what}");
        if let Some(found) = found {
            let (machines, all) = (clusters * broken, clusters * each);
            assert_eq!((found.machines, found.of), (machines, all), "{what}");
        }
    }
}

#[test]
fn a_storm_says_what_most_have_in_common_and_passes() {
    let mut tally = fleet(3, 2, 2, &["image X", "failure domain a of account prod"]);
    for m in 0..4 {
        let well = sight("c0", &["image X"], None);
        let _ = tally.put(&named(&format!("well-{m}")), Some(well), at(0));
    }
    let storm = tally.storm(&named("c1-0"), at(1)).unwrap();
    assert_eq!(
        storm.to_string(),
        "6 of all 6 machines of failure domain a of account prod broke within 10 m, in several clusters: replacing them would not help"
    );
    assert_eq!(storm.until, at(WINDOW_SECONDS));
    assert!(
        tally
            .storm(&named("c1-0"), at(WINDOW_SECONDS - 1))
            .is_some()
    );
    assert_eq!(tally.storm(&named("c1-0"), at(WINDOW_SECONDS)), None);
    // One of another image and another place is in no storm.
    let other = sight("c1", &["image Y"], Some(0));
    let _ = tally.put(&named("other"), Some(other), at(1));
    assert_eq!(tally.storm(&named("other"), at(1)), None);
}

#[test]
fn what_breaks_later_than_the_window_is_no_storm_with_what_broke_before() {
    let mut tally = fleet(2, 2, 2, &["image X"]);
    let later = sight("c2", &["image X"], Some(WINDOW_SECONDS));
    let held = tally.put(&named("later"), Some(later), at(WINDOW_SECONDS));
    assert!(held.is_empty());
    let mut tally = fleet(2, 2, 2, &["image X"]);
    let later = sight("c2", &["image X"], Some(WINDOW_SECONDS - 1));
    let held = tally.put(&named("later"), Some(later), at(WINDOW_SECONDS - 1));
    assert_eq!(held.len(), 5, "all that are held now look again");
    let storm = tally.storm(&named("later"), at(WINDOW_SECONDS - 1));
    assert_eq!(storm.unwrap().until, at(WINDOW_SECONDS));
}

/// Those that were replaced count until the window is past; those that recover never broke.
#[test]
fn broken_machines_that_are_gone_are_remembered_and_those_that_recover_are_not() {
    let mut tally = fleet(4, 1, 1, &["image X"]);
    for c in 0..4 {
        let _ = tally.put(&named(&format!("c{c}-0")), None, at(10));
    }
    let fifth = || Some(sight("c4", &["image X"], Some(20)));
    assert_eq!(tally.put(&named("fifth"), fifth(), at(20)).len(), 5);
    let storm = tally.storm(&named("fifth"), at(20)).unwrap();
    assert_eq!((storm.machines, storm.of), (5, 5));
    let well = Some(sight("c4", &["image X"], None));
    let no_longer = tally.put(&named("fifth"), well, at(30));
    assert_eq!(no_longer.len(), 4, "those that are still broken look again");
    assert_eq!(tally.storm(&named("fifth"), at(30)), None);
    // Nothing is kept of what is gone.
    assert!(
        tally
            .put(&named("fifth"), None, at(WINDOW_SECONDS + 1))
            .is_empty()
    );
    let empty = format!("{:?}", Tally::default());
    assert_eq!(format!("{tally:?}"), empty);
}

#[test]
fn what_works_has_not_broken() {
    for (reason, broke) in [
        ("UnhealthyNode", true),
        (reason::INSTANCE_LOST, true),
        (reason::HAS_REMEDIATE_ANNOTATION, false),
        (reason::DRIFTED, false),
    ] {
        let mut m = machine(100, Some("n"));
        set(
            &mut m,
            kind::HEALTH_CHECK_SUCCEEDED,
            Status::False,
            reason,
            5,
        );
        let sight = Sight::of(&m, Some("3fa2c1d8e5b7a9f0c1d2e3f4a5b6c7d8e9f0a1b2"));
        assert_eq!(sight.broke, broke.then_some(at(-5)), "{reason}");
        assert_eq!(sight.traits, ["commit 3fa2c1d"]);
    }
}

/// Checks hold what other clusters' machines say, unless their breaker is off; one whose replacement somebody asked for goes.
#[test]
fn a_check_holds_its_machines_for_a_storm_over_other_clusters() {
    let tally = fleet(3, 2, 2, &["image X"]);
    let mut m = machine(100, Some("n"));
    set(
        &mut m,
        kind::HEALTH_CHECK_SUCCEEDED,
        Status::False,
        "UnhealthyNode",
        0,
    );
    let peer = Peer {
        machine: &m,
        owner: "set".into(),
        current: true,
        traits: vec!["image X".into()],
        storm: tally.storm(&named("c0-0"), at(0)),
    };
    let peers = [peer];
    let held = gate(Some(&check()), &peers, |_| true, at(0));
    assert_eq!(held.block, None);
    let block = held.holds(&m).unwrap();
    assert_eq!(block.reason(), "RemediationStorm");
    assert_eq!(held.stops(), Some(block));
    assert_eq!(held.next, Some(at(WINDOW_SECONDS)));
    let mut asked = m.clone();
    let key = meta::ANNOTATION_REMEDIATE_MACHINE.to_owned();
    asked.metadata.annotations = Some([(key, String::new())].into());
    assert_eq!(held.holds(&asked), None);
    let mut off = check();
    off.spec.remediation = Some(read(json!({"storm": {"machines": 0}})));
    let calm = gate(Some(&off), &peers, |_| true, at(0));
    assert_eq!((calm.holds(&m), calm.stops()), (None, None));
}

/// What a machine is: its cluster, what it has in common, and when it broke.
type Truth = BTreeMap<Name, (Sight, bool)>;

/// The rule in its own words, over all machines.
fn storm(truth: &Truth, shared: &str, now: i64) -> bool {
    let counts = |(sight, gone): &&(Sight, bool)| {
        let recent = sight.broke.is_some_and(|b| b > at(now - WINDOW_SECONDS));
        sight.traits.iter().any(|t| t == shared) && (!gone || recent)
    };
    let carriers: Vec<&(Sight, bool)> = truth.values().filter(counts).collect();
    let recent = |s: &&&(Sight, bool)| s.0.broke.is_some_and(|b| b > at(now - WINDOW_SECONDS));
    let broke: Vec<_> = carriers.iter().filter(recent).collect();
    let clusters: std::collections::BTreeSet<_> = broke.iter().map(|s| &s.0.cluster).collect();
    broke.len() >= LEAST && broke.len() * 100 >= SHARE * carriers.len() && clusters.len() > 1
}

proptest! {
    /// However machines come, break, recover and go: what is counted as they change is what one finds who looks at all of them, every
    /// storm passes by itself, and whoever is held or let go by a change is woken.
    #[test]
    fn what_is_counted_is_what_is_there(
        events in prop::collection::vec((0..30usize, 0..3usize, 0..3usize, 0..6u8, 0..90i64), 1..150),
    ) {
        let (mut tally, mut truth, mut now) = (Tally::default(), Truth::new(), 0);
        for (m, cluster, zone, what, pause) in events {
            now += pause;
            let id = named(&format!("m{m}"));
            let before: BTreeMap<Name, bool> = truth.iter().filter(|(_, (s, gone))| s.broke.is_some() && !gone).map(|(n, (s, _))| {
                (n.clone(), s.traits.iter().any(|t| storm(&truth, t, now)))
            }).collect();
            let zone = format!("zone {zone}");
            let known = truth.get(&id).filter(|(_, gone)| !gone).map(|(s, _)| s.clone());
            let next = match (what, known) {
                (0, _) => None,
                (1..4, known) => {
                    let mut s = known.unwrap_or_else(|| sight(&format!("c{cluster}"), &["image X", &zone], None));
                    s.broke = s.broke.or(Some(at(now)));
                    Some(s)
                }
                (_, Some(mut s)) => { s.broke = None; Some(s) }
                (_, None) => Some(sight(&format!("c{cluster}"), &["image X", &zone], None)),
            };
            let woken = tally.put(&id, next.clone(), at(now));
            match next {
                Some(s) => { truth.insert(id.clone(), (s, false)); }
                None => if let Some((_, gone)) = truth.get_mut(&id) { *gone = true },
            }
            for (name, (s, gone)) in truth.iter().filter(|(_, (_, gone))| !gone) {
                let held = s.traits.iter().any(|t| storm(&truth, t, now));
                let found = tally.storm(name, at(now));
                prop_assert_eq!(found.is_some(), held, "{:?} at {} {}", name, now, gone);
                if let Some(found) = found {
                    prop_assert!(found.until > at(now) && found.until <= at(now + WINDOW_SECONDS));
                }
                if s.broke.is_some() && *name != id && before.get(name).is_some_and(|b| *b != held) {
                    prop_assert!(woken.contains(name), "{:?} is not woken", name);
                }
            }
        }
        for name in truth.keys() {
            prop_assert_eq!(tally.storm(name, at(now + WINDOW_SECONDS)), None);
        }
    }
}
