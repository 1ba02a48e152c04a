//! Condition InSync of machines and clusters, and what of an instance is kept to compare with.

use fleetwright_api::{
    condition::{self, Status, kind, reason},
    machine::InstanceView,
};

use super::{ClusterFacts, Conditions, few};
use crate::drift::{Reading, is_same};

/// What is kept of an instance: type and image as they were, until we ourselves give it other settings.
pub(super) fn kept(made: Option<&InstanceView>, seen: &InstanceView) -> InstanceView {
    let mut kept = seen.clone();
    if let Some(made) = made.filter(|made| is_same(made, seen)) {
        for (to, was) in [
            (&mut kept.instance_type, &made.instance_type),
            (&mut kept.image, &made.image),
        ] {
            if !was.is_empty() {
                to.clone_from(was);
            }
        }
    }
    kept
}

/// InSync is there while something differs, and while it is not known whether it still does.
pub(super) fn of_machine(out: &mut Conditions<'_>, reading: &Reading) {
    let told = condition::get(out.list, kind::IN_SYNC).is_some();
    if !reading.found.is_empty() {
        let lines: Vec<String> = reading.found.iter().map(ToString::to_string).collect();
        let text = few(&lines);
        out.set(kind::IN_SYNC, Status::False, reason::DRIFTED, text);
    } else if told && !reading.whole {
        let text =
            "it differed when it was last seen, and its provider or its cluster cannot be read";
        out.set(kind::IN_SYNC, Status::Unknown, reason::UNREADABLE, text);
    } else {
        out.list.retain(|c| c.type_ != kind::IN_SYNC);
    }
}

/// InSync: no machine differs, no instance is nobody's or there twice, and somebody else's control plane runs what is declared.
pub(super) fn of_cluster(
    out: &mut Conditions<'_>,
    facts: &ClusterFacts,
    (orphaned, duplicated): &(Vec<String>, Vec<String>),
    version: Option<(&str, &str)>,
) {
    let Some(counts) = &facts.in_sync else {
        return;
    };
    let mut what = Vec::new();
    if let Some(first) = &counts.first {
        let (drifted, all) = (counts.drifted, counts.machines);
        what.push(format!(
            "{drifted} of {all} machines drifted, first: {first}"
        ));
    }
    for (list, words) in [
        (orphaned, "with the cluster's key and without a Machine"),
        (duplicated, "that share the key of a Machine"),
    ] {
        if let Some(first) = list.first() {
            what.push(format!("instances {words}: {}, first: {first}", list.len()));
        }
    }
    if let Some((declared, runs)) = version {
        what.push(format!(
            "the control plane runs {runs}, declared is {declared}"
        ));
    }
    let known = facts.unmanaged_instances.is_some() || is_known(out, kind::IN_SYNC);
    let unknown = match (counts.unknown, known) {
        (0, true) => None,
        (0, false) => Some("not all accounts were listed yet".to_owned()),
        (n, _) => Some(format!(
            "{n} of {} machines differed when they were last seen, and cannot be read",
            counts.machines
        )),
    };
    if !what.is_empty() {
        what.extend(unknown);
        out.set(
            kind::IN_SYNC,
            Status::False,
            reason::DRIFTED,
            what.join("; "),
        );
    } else if let Some(text) = unknown {
        out.set(kind::IN_SYNC, Status::Unknown, reason::UNREADABLE, text);
    } else {
        out.set(kind::IN_SYNC, Status::True, reason::IN_SYNC, "");
    }
}

/// Whether a condition was told before.
fn is_known(out: &Conditions<'_>, kind: &str) -> bool {
    condition::get(out.list, kind).is_some_and(|c| c.status != "Unknown")
}
