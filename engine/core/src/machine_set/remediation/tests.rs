//! What is done about broken machines, row by row.

use fleetwright_api::{condition::Status, time::k8s_time};
use jiff::Timestamp;
use serde_json::json;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(10_000_000 + seconds).unwrap()
}

/// Machines `0`, `1`, … by what they are, older first: ok, starts, broken, serves (marked as broken, and available), asked (broken),
/// paused (broken), going (broken and on its way out).
fn machines(what: &str) -> Vec<Machine> {
    let one = |(i, what): (usize, &str)| {
        let mut m: Machine = serde_json::from_value(json!({
            "metadata": {"name": i.to_string()}, "spec": {"clusterName": "c", "providerConfig": {}},
            "status": {},
        }))
        .unwrap();
        m.metadata.creation_timestamp = Some(k8s_time(at(i64::try_from(i).unwrap())));
        let annotation = match what {
            "asked" => Some(meta::ANNOTATION_REMEDIATE_MACHINE),
            "paused" => Some(meta::ANNOTATION_PAUSED),
            _ => None,
        };
        m.metadata.annotations = annotation.map(|a| [(a.to_owned(), String::new())].into());
        m.metadata.deletion_timestamp = (what == "going").then(|| k8s_time(at(0)));
        let list = &mut m.status.as_mut().unwrap().conditions;
        let mut set = |kind, is: bool| {
            condition::set(list, kind, Status::from(is), "X", "", None, at(0));
        };
        set(kind::AVAILABLE, ["ok", "serves"].contains(&what));
        if !["ok", "starts"].contains(&what) {
            set(kind::HEALTH_CHECK_SUCCEEDED, false);
        }
        m
    };
    what.split(' ').enumerate().map(one).collect()
}

#[derive(Clone, Copy)]
struct Row {
    replicas: i32,
    current: bool,
    max: Option<&'static str>,
    surge: Surge,
    held: &'static [&'static str],
    first: &'static [&'static str],
    /// Whether a preflight check fails.
    provisioning: bool,
}

const ROW: Row = Row {
    replicas: 3,
    current: true,
    max: None,
    surge: Surge::Room,
    held: &[],
    first: &[],
    provisioning: false,
};

/// Names of machines that go, machines beyond the wanted ones, and reasons in the order in which they are said.
fn decided(row: &Row, what: &str) -> String {
    let out = remediation(row, what);
    let say: Vec<String> = out
        .say
        .iter()
        .map(|s| format!("{} {}", s.machine, s.reason))
        .collect();
    format!(
        "{} +{}: {}",
        out.delete.join(","),
        out.extra,
        say.join(", ")
    )
}

fn remediation(row: &Row, what: &str) -> Remediation {
    let all = machines(what);
    let set: MachineSet = serde_json::from_value(json!({
        "metadata": {"name": "s"},
        "spec": {"clusterName": "c", "replicas": row.replicas, "template": {"spec": {"providerConfig": {}}}},
    }))
    .unwrap();
    let max = row.max.map(|text| {
        text.parse()
            .map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int)
    });
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let held = row
        .held
        .iter()
        .map(|m| (ToString::to_string(m), "held".to_owned()))
        .collect();
    let failures = [PreflightFailure::Provisioning {
        cluster: "c".into(),
    }];
    remediate(&RemediationView {
        set: &set,
        machines: &all.iter().collect::<Vec<_>>(),
        current: row.current,
        replicas: row.replicas,
        max_in_flight: max.as_ref(),
        in_flight: all
            .iter()
            .filter(|m| m.metadata.deletion_timestamp.is_some())
            .count(),
        surge: row.surge,
        held: &held,
        preflight: &failures[..usize::from(row.provisioning)],
        replace_first: &names(row.first),
    })
}

/// A replacement begins, and then something else decides about the set: the broken machine is the one too many.
#[test]
fn a_machine_too_many_is_the_broken_one_and_no_other() {
    let first = &["2"];
    let old = Row {
        current: false,
        first,
        ..ROW
    };
    let gone = "2 +1: 2 MachineDeleting";
    assert_eq!(decided(&old, "ok ok broken starts"), gone);
    assert_eq!(decided(&old, "ok ok broken"), " +0: 2 CannotBeRemediated");
    let serves = " +0: 2 CannotBeRemediated";
    assert_eq!(decided(&old, "ok ok serves ok"), serves);
    let held = Row {
        held: &["2"],
        ..old
    };
    assert_eq!(decided(&held, "ok ok broken ok"), gone);
    // Without maxSurge no other comes first: the scale-down takes it.
    let never = Row {
        surge: Surge::Never,
        first,
        ..ROW
    };
    let excess = " +0: 2 RemediationDeferred";
    assert_eq!(decided(&never, "ok ok broken ok"), excess);
}

#[test]
fn those_asked_for_go_first_then_the_newest_and_no_more_than_may() {
    for (row, what, want) in [
        (ROW, "ok ok ok", " +0: "),
        (
            ROW,
            "broken ok broken",
            "2,0 +0: 2 MachineDeleting, 0 MachineDeleting",
        ),
        (
            Row {
                max: Some("1"),
                ..ROW
            },
            "asked broken broken",
            "0 +0: 0 MachineDeleting, 2 RemediationDeferred, 1 RemediationDeferred",
        ),
        // A percentage rounds up, and those under way count.
        (
            Row {
                max: Some("34%"),
                ..ROW
            },
            "going broken broken",
            "2 +0: 2 MachineDeleting, 1 RemediationDeferred",
        ),
        (
            Row {
                max: Some("33%"),
                ..ROW
            },
            "going broken broken",
            " +0: 2 RemediationDeferred, 1 RemediationDeferred",
        ),
        (
            Row {
                max: Some("0"),
                ..ROW
            },
            "ok ok broken",
            " +0: 2 RemediationDeferred",
        ),
        (
            Row {
                max: Some("x"),
                ..ROW
            },
            "ok ok broken",
            " +0: 2 RemediationDeferred",
        ),
        (
            Row {
                held: &["2"],
                ..ROW
            },
            "broken ok broken",
            "0 +0: 2 RemediationDeferred, 0 MachineDeleting",
        ),
        (
            Row {
                current: false,
                ..ROW
            },
            "ok broken broken",
            " +0: 2 CannotBeRemediated, 1 CannotBeRemediated",
        ),
        (ROW, "ok ok paused", " +0: "),
        // Too many for another reason: the scale-down takes broken ones first.
        (
            Row { replicas: 2, ..ROW },
            "ok ok broken",
            " +0: 2 RemediationDeferred",
        ),
    ] {
        assert_eq!(decided(&row, what), want, "{what}");
    }
}

#[test]
fn replace_first_makes_one_more_and_one_at_a_time() {
    let first = Row {
        first: &["0", "1", "2"],
        ..ROW
    };
    for (row, what, want) in [
        (&first, "ok ok broken", " +1: 2 RemediationDeferred"),
        (
            &first,
            "ok broken broken",
            " +1: 2 RemediationDeferred, 1 RemediationDeferred",
        ),
        (&first, "ok ok broken starts", " +1: 2 RemediationDeferred"),
        (&first, "ok ok broken ok", "2 +1: 2 MachineDeleting"),
        // The other breaks too: it goes like any.
        (
            &Row {
                first: &["0", "1", "2", "3"],
                ..ROW
            },
            "ok ok broken broken",
            "3 +1: 3 MachineDeleting, 2 RemediationDeferred",
        ),
        (
            &Row {
                surge: Surge::Full,
                ..first
            },
            "ok ok broken",
            " +0: 2 RemediationDeferred",
        ),
        // A rollout has the room, and waits for the set: what does not serve goes first.
        (
            &Row {
                surge: Surge::Taken,
                ..first
            },
            "ok broken broken",
            "2 +0: 2 MachineDeleting, 1 RemediationDeferred",
        ),
        (
            &Row {
                surge: Surge::Taken,
                ..first
            },
            "ok ok serves",
            " +0: 2 RemediationDeferred",
        ),
        // A pool that may never have one more.
        (
            &Row {
                surge: Surge::Never,
                ..first
            },
            "ok ok broken",
            "2 +0: 2 MachineDeleting",
        ),
        (
            &Row {
                held: &["2"],
                ..first
            },
            "ok ok broken",
            " +0: 2 RemediationDeferred",
        ),
    ] {
        assert_eq!(decided(row, what), want, "{what}");
    }
}

#[test]
fn no_machine_goes_where_preflight_forbids_to_make_its_replacement() {
    let row = Row {
        provisioning: true,
        ..ROW
    };
    let first = Row {
        first: &["0", "1", "2"],
        ..row
    };
    for (row, what, want) in [
        (
            &row,
            "asked ok broken",
            " +0: 0 RemediationDeferred, 2 RemediationDeferred",
        ),
        (&first, "ok ok broken", " +0: 2 RemediationDeferred"),
        // Its replacement is there already.
        (&first, "ok ok broken starts", " +1: 2 RemediationDeferred"),
        (&first, "ok ok broken ok", "2 +1: 2 MachineDeleting"),
        (
            &first,
            "ok broken broken ok",
            "2 +1: 2 MachineDeleting, 1 RemediationDeferred",
        ),
        // A scale-down needs none.
        (
            &Row { replicas: 2, ..row },
            "ok ok broken",
            " +0: 2 RemediationDeferred",
        ),
    ] {
        assert_eq!(decided(row, what), want, "{what}");
    }
    let told = |row: &Row| remediation(row, "ok ok broken").say[0].message.clone();
    assert_eq!(
        told(&row),
        "no machine could take its place: the control plane of c is provisioning (\"ControlPlaneIsStable\" preflight check failed)"
    );
    assert_eq!(
        told(&Row { replicas: 2, ..row }),
        "the set has more machines than it wants: broken ones go first"
    );
}
