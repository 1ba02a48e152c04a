//! Policies, row by row.

use fleetwright_api::{fleet::DriftRule, time::k8s_time, waves::Window};
use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Made at second 10.
fn machine() -> Machine {
    let mut machine = Machine::default();
    machine.metadata.creation_timestamp = Some(k8s_time(at(10)));
    machine
}

fn found(kind: DriftKind, what: &str, since: i64) -> MachineDrift {
    MachineDrift {
        kind,
        what: what.into(),
        wanted: Some("w".into()),
        found: Some("f".into()),
        since: k8s_time(at(since)),
    }
}

fn reading(found: &[MachineDrift]) -> Reading {
    Reading {
        found: found.to_vec(),
        whole: true,
    }
}

fn rule(kinds: &[&str], paths: &[&str], managers: &[&str], policy: DriftAction) -> DriftRule {
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
    DriftRule {
        kinds: texts(kinds),
        paths: texts(paths),
        managers: texts(managers),
        policy,
    }
}

fn fleet(policy: Option<DriftAction>, rules: Vec<DriftRule>) -> FleetSpec {
    FleetSpec {
        drift: Some(DriftPolicy { policy, rules }),
        ..FleetSpec::default()
    }
}

#[test]
fn the_first_rule_that_fits_counts() {
    use DriftAction::{Correct, Ignore, Report};
    use DriftKind::{InstanceChanged, InstanceMissing, Kubelet, Label, Taint};
    let network = || found(InstanceChanged, "network", 50);
    let tag = |key: &str| found(InstanceChanged, &format!("tags.{key}"), 50);
    let label = || found(Label, "node.fleetwright.dev/x", 50);
    // (rules, policy of all, what differs, what is done)
    let rows = [
        (vec![], None, network(), Report),
        (vec![], Some(Correct), network(), Correct),
        (
            vec![rule(&[], &[], &[], Ignore)],
            Some(Correct),
            network(),
            Ignore,
        ),
        (
            vec![rule(&["Machine"], &[], &[], Correct)],
            None,
            network(),
            Correct,
        ),
        (
            vec![rule(&["Cluster"], &[], &[], Correct)],
            None,
            network(),
            Report,
        ),
        // Who changed it nobody knows.
        (
            vec![rule(&[], &[], &["kubectl"], Ignore)],
            None,
            network(),
            Report,
        ),
        (
            vec![rule(&[], &["instance"], &[], Correct)],
            None,
            network(),
            Correct,
        ),
        (
            vec![rule(&[], &[".instance.network"], &[], Correct)],
            None,
            network(),
            Correct,
        ),
        (
            vec![rule(&[], &["instance.net"], &[], Correct)],
            None,
            network(),
            Report,
        ),
        (
            vec![rule(&[], &["spec.replicas"], &[], Correct)],
            None,
            network(),
            Report,
        ),
        (
            vec![rule(&[], &["instance.tags"], &[], Ignore)],
            None,
            tag("team"),
            Ignore,
        ),
        (
            vec![rule(&[], &["instance.tags"], &[], Ignore)],
            None,
            found(InstanceChanged, "tags", 50),
            Ignore,
        ),
        (
            vec![rule(&[], &["instance.tags.app.io/x"], &[], Ignore)],
            None,
            tag("app.io/x"),
            Ignore,
        ),
        // A dot in a key is no step.
        (
            vec![rule(&[], &["instance.tags.app"], &[], Ignore)],
            None,
            tag("app.io/x"),
            Report,
        ),
        (
            vec![
                rule(&["Machine"], &["instance.tags.team"], &[], Ignore),
                rule(&["Machine"], &["instance.tags"], &[], Correct),
            ],
            None,
            tag("team"),
            Ignore,
        ),
        (
            vec![rule(&[], &["node.kubelet"], &[], Correct)],
            None,
            found(Kubelet, "kubelet", 50),
            Correct,
        ),
        (
            vec![rule(&[], &["node.labels"], &[], Ignore)],
            None,
            label(),
            Ignore,
        ),
        (
            vec![rule(
                &[],
                &["node.labels.node.fleetwright.dev/x"],
                &[],
                Ignore,
            )],
            None,
            label(),
            Ignore,
        ),
        (
            vec![rule(&[], &["node.taints"], &[], Ignore)],
            None,
            label(),
            Report,
        ),
        (
            vec![rule(&[], &["node.taints"], &[], Ignore)],
            None,
            found(Taint, "k:NoSchedule", 50),
            Ignore,
        ),
        (
            vec![rule(&[], &["instance.missing"], &[], Ignore)],
            None,
            found(InstanceMissing, "instance", 50),
            Ignore,
        ),
    ];
    for (rules, all, drift, want) in rows {
        let policy = DriftPolicy { policy: all, rules };
        assert_eq!(action(&policy, &drift), want, "{policy:?} {drift:?}");
    }
}

#[test]
fn what_is_corrected_is_written_back_or_replaced_and_the_rest_is_told() {
    use DriftKind::{InstanceChanged, InstanceMissing, Kubelet, Label, Taint};
    let correct_all = fleet(Some(DriftAction::Correct), vec![]);
    // (what differs, since when; whether it is written back, whether the machine is replaced)
    let rows = [
        (InstanceChanged, "tags.team", 50, true, false),
        (InstanceChanged, "tags", 50, true, false),
        (InstanceChanged, "securityGroups", 50, true, false),
        (InstanceChanged, "securityGroups", 10, true, false),
        (InstanceChanged, "network", 50, false, true),
        (InstanceChanged, "instanceType", 50, false, true),
        (InstanceChanged, "image", 50, false, true),
        (InstanceChanged, "state", 50, false, true),
        (Kubelet, "kubelet", 50, false, true),
        // Another machine would be the same.
        (InstanceChanged, "network", 10, false, false),
        (Kubelet, "kubelet", 10, false, false),
        // Broken whatever the policy says; kept in step.
        (InstanceMissing, "instance", 50, false, false),
        (Label, "x", 50, false, false),
        (Taint, "x:NoSchedule", 50, false, false),
    ];
    for (kind, what, since, back, replace) in rows {
        let drift = found(kind, what, since);
        let mut read = reading(std::slice::from_ref(&drift));
        let out = correct(&machine(), &mut read, Some(&correct_all), at(100));
        let row = format!("{kind:?} {what} {since}");
        assert_eq!(!out.write_back.is_empty(), back, "{row}");
        assert_eq!(out.replace.is_some(), replace, "{row}");
        assert_eq!((read.found.len(), out.next), (1, None), "{row}");
        for report in [None, Some(&FleetSpec::default())] {
            let mut read = reading(std::slice::from_ref(&drift));
            let out = correct(&machine(), &mut read, report, at(100));
            assert_eq!((out, read.found.len()), (Correction::default(), 1), "{row}");
        }
        let ignore = fleet(Some(DriftAction::Ignore), vec![]);
        let mut read = reading(&[drift]);
        let out = correct(&machine(), &mut read, Some(&ignore), at(100));
        assert_eq!((out, read.found.len()), (Correction::default(), 0), "{row}");
    }
}

#[test]
fn one_machine_says_all_of_it_in_a_sentence() {
    let correct_all = fleet(Some(DriftAction::Correct), vec![]);
    let kinds = ["instanceType", "image", "network", "state"];
    let mut read = reading(&kinds.map(|what| found(DriftKind::InstanceChanged, what, 50)));
    let out = correct(&machine(), &mut read, Some(&correct_all), at(100));
    assert_eq!(
        out.replace.unwrap(),
        "it drifted: the instance's instanceType is f, it was w; the instance's image is f, it was w; \
         the instance's network is f, wanted is w; and 1 more"
    );
}

#[test]
fn nothing_begins_outside_of_windows_or_while_the_fleet_is_suspended() {
    let window = |start: &str| -> Vec<Window> {
        let window = json!({"start": start, "durationSeconds": 3600});
        vec![serde_json::from_value(window).unwrap()]
    };
    let noon: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
    let one: Timestamp = "2026-11-30T13:00:00Z".parse().unwrap();
    // (windows, suspended, whether something is done, when it is looked at again)
    let rows = [
        (vec![], None, true, None),
        (window("11:30"), None, true, None),
        (window("13:00"), None, false, Some(one)),
        (window("25:00"), None, false, None),
        (vec![], Some(true), false, None),
        (window("13:00"), Some(true), false, None),
        (vec![], Some(false), true, None),
    ];
    for (windows, suspend, done, next) in rows {
        let spec = FleetSpec {
            windows,
            suspend,
            ..fleet(Some(DriftAction::Correct), vec![])
        };
        for what in ["tags.team", "network"] {
            let mut read = reading(&[found(DriftKind::InstanceChanged, what, 50)]);
            let out = correct(&machine(), &mut read, Some(&spec), noon);
            let begins = !out.write_back.is_empty() || out.replace.is_some();
            assert_eq!((begins, out.next), (done, next), "{what} {spec:?}");
            assert_eq!(read.found.len(), 1, "it is told meanwhile");
        }
    }
    // What is only told waits for no window.
    let spec = FleetSpec {
        windows: window("13:00"),
        ..FleetSpec::default()
    };
    let mut read = reading(&[found(DriftKind::InstanceChanged, "network", 50)]);
    let out = correct(&machine(), &mut read, Some(&spec), noon);
    assert_eq!(out, Correction::default());
}
