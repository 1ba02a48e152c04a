//! Which broken machines of a set are replaced now, and what is said of the others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use fleetwright_api::{
    Machine, MachineSet, condition,
    condition::{kind, reason},
    meta,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::PreflightFailure;
use crate::{
    health::{is_asked_for, is_broken},
    rollout::{Bounds, bounds::scaled},
};

/// What the replacement of a set's broken machines depends on.
#[derive(Clone, Copy, Debug)]
pub struct RemediationView<'a> {
    /// The set.
    pub set: &'a MachineSet,
    /// All its machines, those on their way out included.
    pub machines: &'a [&'a Machine],
    /// Whether it is the set of its pool's current revision (or has no pool).
    pub current: bool,
    /// Replicas of its pool.
    pub replicas: i32,
    /// `remediation.maxInFlight` of its pool.
    pub max_in_flight: Option<&'a IntOrString>,
    /// Machines of the pool that are on their way out because they are broken.
    pub in_flight: usize,
    /// Whether the pool may ever have a machine more than it wants, and whether it may now.
    pub surge: Surge,
    /// Machines that are not replaced for now, with the reason in words.
    pub held: &'a BTreeMap<String, String>,
    /// The checks that the set makes no machine before they pass ([`super::preflight`]): a broken machine goes only where another may
    /// come.
    pub preflight: &'a [PreflightFailure],
    /// Machines that are deleted only once another is available.
    pub replace_first: &'a BTreeSet<String>,
}

/// Whether a pool may have a machine more than it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surge {
    /// Never: its maxSurge is 0.
    Never,
    /// Not before a rollout gives room: it may wait for this very set's machines.
    Taken,
    /// Not now: machines on their way out still use the room.
    Full,
    /// One more may be made.
    Room,
}

impl Surge {
    /// Of a pool with these bounds; of each of its sets how many machines it has, those on their way out included, and how many it
    /// wants. Rollouts use the same room.
    pub fn of(bounds: &Bounds, sets: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let sizes = sets.into_iter().map(|(has, wants)| has.max(wants));
        let sizes: Vec<usize> = sizes.filter(|size| *size > 0).collect();
        match usize::try_from(bounds.max_total()) {
            _ if bounds.surge == 0 => Self::Never,
            Ok(most) if sizes.iter().sum::<usize>() < most => Self::Room,
            _ if sizes.len() > 1 => Self::Taken,
            _ => Self::Full,
        }
    }
}

/// What is said of a broken machine: condition `OwnerRemediated`, which is False.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The machine.
    pub machine: String,
    /// Reason of the condition.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
}

/// What is done about a set's broken machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Remediation {
    /// Machines to be deleted; the set makes others.
    pub delete: Vec<String>,
    /// Machines that the set has beyond those it wants, for one that goes once another is available.
    pub surge: usize,
    /// What is said of each broken machine.
    pub say: Vec<Said>,
}

impl Remediation {
    fn say(&mut self, machine: &str, reason: &'static str, message: impl Into<String>) {
        self.say.push(Said {
            machine: machine.to_owned(),
            reason,
            message: message.into(),
        });
    }
}

/// What is done about the broken machines: those that somebody asked for first, then the newest, as many as may be in flight.
pub fn remediate(view: &RemediationView<'_>) -> Remediation {
    let mut out = Remediation::default();
    if meta::is_paused(view.set) || view.set.metadata.deletion_timestamp.is_some() {
        return out;
    }
    let alive: Vec<&Machine> = view
        .machines
        .iter()
        .copied()
        .filter(|m| m.metadata.deletion_timestamp.is_none())
        .collect();
    let mut broken: Vec<&Machine> = alive
        .iter()
        .copied()
        .filter(|m| is_broken(m) && !meta::is_paused(*m))
        .collect();
    broken.sort_by_key(|m| {
        let created = m.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (!is_asked_for(m), Reverse(created), Reverse(name(m)))
    });
    let want = usize::try_from(view.set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !view.current {
        // Of what it has too many the machine goes that another came for before the rollout began, not one that somebody marked.
        let outgoing = broken
            .iter()
            .find(|m| alive.len() > want && !is_available(m))
            .map(|m| name(m));
        for machine in broken {
            let this = name(machine);
            if outgoing != Some(this) {
                out.say(
                    this,
                    reason::CANNOT_BE_REMEDIATED,
                    "its set is not the pool's current one: it goes with the rollout",
                );
                continue;
            }
            // What holds a replacement back does not hold this: nothing comes in its place.
            out.surge = alive.len() - want;
            go(&mut out, this);
        }
        return out;
    }
    let limit = view
        .max_in_flight
        .map(|max| scaled(max, view.replicas, true, "spec.remediation.maxInFlight"));
    let limit = match limit {
        None => usize::MAX,
        Some(Ok(limit)) => usize::try_from(limit).unwrap_or(0),
        Some(Err(_)) => 0,
    };
    let mut left = limit.saturating_sub(view.in_flight);
    let is_first = |m: &str| view.replace_first.contains(m) && view.surge != Surge::Never;
    // Too many for another reason: the scale-down takes the broken ones first.
    let any_first = broken.iter().any(|m| is_first(name(m)));
    let scaling_down = alive.len() > want + 1 || (alive.len() > want && !any_first);
    let mut first: Option<&str> = None;
    for machine in broken {
        let this = name(machine);
        if let Some(why) = view.held.get(this) {
            out.say(this, reason::REMEDIATION_DEFERRED, why);
        } else if scaling_down {
            out.say(
                this,
                reason::REMEDIATION_DEFERRED,
                "the set has more machines than it wants: broken ones go first",
            );
        } else if !view.preflight.is_empty() && (!is_first(this) || alive.len() <= want) {
            let checks: Vec<String> = view.preflight.iter().map(ToString::to_string).collect();
            let text = format!("no machine could take its place: {}", checks.join("; "));
            out.say(this, reason::REMEDIATION_DEFERRED, text);
        } else if left == 0 {
            let text = format!(
                "{} broken machines of the pool are being replaced, and maxInFlight lets {limit} be",
                view.in_flight + out.delete.len()
            );
            out.say(this, reason::REMEDIATION_DEFERRED, text);
        } else if is_first(this) {
            if let Some(first) = first {
                let text = format!("machine {first} is replaced before this one");
                out.say(this, reason::REMEDIATION_DEFERRED, text);
                continue;
            }
            first = Some(this);
            if alive.len() > want {
                out.surge = 1;
                match alive.iter().find(|m| !is_broken(m) && !is_available(m)) {
                    Some(starts) => {
                        let text = format!("it goes once machine {} is available", name(starts));
                        out.say(this, reason::REMEDIATION_DEFERRED, text);
                    }
                    None => {
                        // It is the one that goes: the set must not choose another because it has one more than it wants.
                        left -= 1;
                        go(&mut out, this);
                    }
                }
            } else if view.surge == Surge::Room {
                out.surge = 1;
                let text = "another machine is made first";
                out.say(this, reason::REMEDIATION_DEFERRED, text);
            } else if view.surge == Surge::Taken && !is_available(machine) {
                // The rollout takes no old machine away before the new ones are available: who waits for room waits for ever.
                left -= 1;
                go(&mut out, this);
            } else {
                let text = "another machine is made first, once the pool may have one more";
                out.say(this, reason::REMEDIATION_DEFERRED, text);
            }
        } else {
            left -= 1;
            go(&mut out, this);
        }
    }
    out
}

fn go(out: &mut Remediation, machine: &str) {
    out.delete.push(machine.to_owned());
    let text = "the machine is deleted because it is broken";
    out.say(machine, reason::MACHINE_DELETING, text);
}

fn name(machine: &Machine) -> &str {
    machine.metadata.name.as_deref().unwrap_or_default()
}

fn is_available(machine: &Machine) -> bool {
    let status = machine.status.as_ref();
    status.is_some_and(|s| condition::is_true(&s.conditions, kind::AVAILABLE))
}

#[cfg(test)]
mod tests {
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
            out.surge,
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
}
