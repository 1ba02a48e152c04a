//! When broken machines may be replaced.

use fleetwright_api::machine_health_check::TriggerIf;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{super::gate::by_number, *};

fn less(limit: &str) -> TriggerIf {
    TriggerIf {
        unhealthy_less_than_or_equal_to: Some(
            limit
                .parse()
                .map_or_else(|_| IntOrString::String(limit.into()), IntOrString::Int),
        ),
        unhealthy_in_range: None,
    }
}

#[test]
fn test_is_allowed_remediation() {
    for (limit, expected, healthy, want) in [
        (None, 3, 0, true),
        (Some("abcdef"), 3, 3, false),
        (Some("1"), 3, 1, false),
        (Some("2"), 3, 1, true),
        (Some("3"), 3, 1, true),
        (Some("50%"), 5, 2, false),
        (Some("60%"), 5, 2, true),
        (Some("70%"), 5, 2, true),
    ] {
        let trigger = limit.map(less);
        let (_, block) = by_number(trigger.as_ref(), expected, expected - healthy);
        assert_eq!(block.is_none(), want, "{limit:?}; {expected}, {healthy}");
    }
}

#[test]
fn test_get_max_unhealthy() {
    for (limit, expected, max) in [
        (None, 7, 7),
        (Some("40%"), 5, 2),
        (Some("60%"), 7, 4),
        (Some("3"), 2, 3),
    ] {
        let trigger = limit.map(less);
        assert_eq!(by_number(trigger.as_ref(), expected, 0).0, max, "{limit:?}");
    }
}

#[test]
fn test_get_unhealthy_range() {
    let range = |text: &str| TriggerIf {
        // The range wins.
        unhealthy_in_range: Some(text.into()),
        ..less("0")
    };
    for (text, unhealthy, want) in [
        ("[1-3]", 0, false),
        ("[1-3]", 1, true),
        ("[1-3]", 3, true),
        ("[1-3]", 4, false),
        ("[3-1]", 2, false),
        ("1-3", 2, false),
    ] {
        let (_, block) = by_number(Some(&range(text)), 10, unhealthy);
        assert_eq!(block.is_none(), want, "{text} {unhealthy}");
    }
}

/// `n` machines, of which the first ones broke so many seconds ago.
fn fleet(n: usize, ago: &[i64]) -> Vec<Machine> {
    (0..n)
        .map(|i| {
            let mut m = machine(100_000, Some("n"));
            m.metadata.name = Some(format!("m-{i}"));
            if let Some(ago) = ago.get(i) {
                let kind = kind::HEALTH_CHECK_SUCCEEDED;
                set(&mut m, kind, Status::False, "UnhealthyNode", *ago);
            }
            m
        })
        .collect()
}

fn peers<'a>(machines: &'a [Machine], traits: &dyn Fn(usize) -> Vec<String>) -> Vec<Peer<'a>> {
    machines
        .iter()
        .enumerate()
        .map(|(i, machine)| Peer {
            machine,
            owner: "set".into(),
            current: true,
            traits: traits(i),
            storm: None,
        })
        .collect()
}

fn same(_: usize) -> Vec<String> {
    vec!["revision 3fa2c1".into(), "image X".into()]
}

fn always(_: &str) -> bool {
    true
}

#[test]
fn machines_that_still_start_are_not_counted_as_broken() {
    let machines = fleet(10, &[5, 5]);
    let gate = gate(Some(&check()), &peers(&machines, &same), always, at(0));
    let counts = (gate.expected, gate.healthy(), gate.remediations_allowed);
    assert_eq!(counts, (10, 8, 8));
    assert_eq!(gate.block, None);
    assert_eq!(gate.unhealthy, ["m-0", "m-1"]);
}

#[test]
fn a_storm_stops_replacements_names_what_is_shared_and_passes() {
    let machines = fleet(10, &[0, 60, 120, 180, 240, 300]);
    let all = peers(&machines, &same);
    let now = gate(None, &all, always, at(0));
    let block = now.block.clone().unwrap();
    assert_eq!(block.reason(), "RemediationStorm");
    assert_eq!(
        block.to_string(),
        "6 machines broke within 10 m, all of revision 3fa2c1, image X: replacing them would not help"
    );
    // The fifth newest is past the window after 360 s.
    let Block::Storm(storm) = block else { panic!() };
    assert_eq!(storm.until, at(360));
    assert_eq!(now.next, Some(at(300)));
    assert!(gate(None, &all, always, at(359)).block.is_some());
    assert_eq!(gate(None, &all, always, at(360)).block, None);
    // One whose replacement somebody asked for is not held.
    let mut asked = machines[0].clone();
    assert!(now.holds(&asked).is_some());
    let key = meta::ANNOTATION_REMEDIATE_MACHINE.to_owned();
    asked.metadata.annotations = Some([(key, String::new())].into());
    assert_eq!(now.holds(&asked), None);
}

#[test]
fn only_what_is_shared_makes_a_storm() {
    let machines = fleet(10, &[0; 6]);
    let zone = |a: bool| format!("failure domain {}", if a { "a" } else { "b" });
    let four = |i: usize| vec![zone(i < 4)];
    let two = gate(None, &peers(&machines, &four), always, at(0));
    assert_eq!(two.block, None, "four and two");
    let five = |i: usize| vec![format!("image {i}"), zone(i < 5)];
    let five = gate(None, &peers(&machines, &five), always, at(0));
    assert_eq!(
        five.block.unwrap().to_string(),
        "5 machines broke within 10 m, all of failure domain a: replacing them would not help"
    );
    let mut off = check();
    off.spec.remediation = Some(read(json!({"storm": {"machines": 0}})));
    let calm = gate(Some(&off), &peers(&machines, &same), always, at(0));
    assert_eq!(calm.block, None);
    let mut sharp = check();
    sharp.spec.remediation = Some(read(json!({"storm": {"machines": 2, "windowSeconds": 90}})));
    let few = fleet(5, &[0, 80]);
    let storm = gate(Some(&sharp), &peers(&few, &same), always, at(0));
    let text = storm.block.unwrap().to_string();
    assert!(text.starts_with("2 machines broke within 90 s, "), "{text}");
}

/// Machines that were replaced meanwhile are remembered, so that a storm that comes slowly is one too; a changed content ends it.
#[test]
fn a_storm_remembers_machines_that_are_gone_until_the_content_changes() {
    let mut c = check();
    let broke = |i: i64| {
        json!({
            "machine": format!("gone-{i}"), "owner": "set", "time": at(-i).to_string(), "traits": same(0),
        })
    };
    let recent: Vec<Value> = (0..4).map(broke).collect();
    c.status = Some(read(json!({"recent": recent})));
    let machines = fleet(5, &[0]);
    let all = peers(&machines, &same);
    let storm = gate(Some(&c), &all, always, at(0));
    assert_eq!(storm.recent.len(), 5);
    assert!(matches!(storm.block, Some(Block::Storm(_))));
    let changed = gate(Some(&c), &all, |_| false, at(0));
    assert_eq!((changed.recent.len(), changed.block), (0, None));
    let of_before = |p| Peer {
        current: false,
        ..p
    };
    let old: Vec<Peer<'_>> = all.iter().cloned().map(of_before).collect();
    assert_eq!(gate(Some(&c), &old, always, at(0)).recent.len(), 4);
    // What somebody asked for is no failure.
    let mut asked = fleet(5, &[]);
    let (kind, reason) = (
        kind::HEALTH_CHECK_SUCCEEDED,
        reason::HAS_REMEDIATE_ANNOTATION,
    );
    set(&mut asked[0], kind, Status::False, reason, 0);
    let calm = gate(Some(&c), &peers(&asked, &same), always, at(0));
    assert_eq!(calm.block, None);
}

#[test]
fn a_paused_check_and_machines_to_be_left_alone() {
    let mut c = check();
    let mut machines = fleet(5, &[0]);
    let alone = [(meta::ANNOTATION_SKIP_REMEDIATION.to_owned(), String::new())];
    machines[3].metadata.annotations = Some(alone.into());
    machines[4].metadata.deletion_timestamp = Some(k8s_time(at(0)));
    let all = peers(&machines, &same);
    assert_eq!(gate(Some(&c), &all, always, at(0)).expected, 3);
    c.metadata.annotations = Some([(meta::ANNOTATION_PAUSED.to_owned(), String::new())].into());
    let paused = gate(Some(&c), &all, always, at(0));
    assert_eq!(paused.block, Some(Block::Paused));
}
