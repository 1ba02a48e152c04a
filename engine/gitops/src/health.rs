//! Whether a Fleet's clusters are well and in sync, and when its commit says so: pure functions of what is seen.

use fleetwright_api::{
    Cluster, Fleet,
    commit_status::CommitState,
    condition::{self, kind},
    meta::LABEL_FLEET,
    names::fleet_hash,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::{progress::Told, settle::Seen, tell::some};

/// Least time between two words about one commit: what comes and goes is not told each time.
const APART: SignedDuration = SignedDuration::from_mins(1);
/// Reasons that a status names.
const NAMED: usize = 3;

/// What is to be said: a failure where something is known to be wrong, success where all is known to be well, nothing else.
pub(crate) fn judge(fleet: &Fleet, seen: &Seen) -> Option<Told> {
    let hash = fleet_hash(&fleet.namespace().unwrap_or_default(), &fleet.name_any());
    let ours = |cluster: &&Cluster| {
        let leaves = cluster.metadata.deletion_timestamp.is_some();
        cluster.labels().get(LABEL_FLEET) == Some(&hash) && !leaves
    };
    let clusters: Vec<&Cluster> = seen.clusters.values().filter(ours).collect();
    let own = fleet
        .status
        .as_ref()
        .map_or(&[][..], |s| s.conditions.as_slice());
    let (mut wrong, mut known) = (Vec::new(), true);
    let mut look =
        |whose: &str, conditions: &[condition::Condition], kind: &str| match condition::get(
            conditions, kind,
        ) {
            Some(c) if c.status == "True" => {}
            Some(c) if c.status == "False" => {
                let why = match c.message.as_str() {
                    "" => &c.reason,
                    message => message,
                };
                wrong.push(format!("{whose}: {why}"));
            }
            _ => known = false,
        };
    for cluster in &clusters {
        let conditions = cluster.status.as_ref();
        let conditions = conditions.map_or(&[][..], |s| s.conditions.as_slice());
        let whose = format!("cluster {}", cluster.name_any());
        look(&whose, conditions, kind::AVAILABLE);
        look(&whose, conditions, kind::IN_SYNC);
    }
    look("fields", own, kind::IN_SYNC);
    if condition::is_false(own, kind::ACCOUNTS_READY) {
        look("accounts", own, kind::ACCOUNTS_READY);
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(NAMED);
        wrong.truncate(NAMED);
        let mut words = some(&wrong, "; ");
        if more > 0 {
            words.push_str(&format!("; and {more} more"));
        }
        return Some((CommitState::Failure, words));
    }
    let words = match clusters.len() {
        1 => "1 cluster available and in sync".to_owned(),
        n => format!("{n} clusters available and in sync"),
    };
    known.then_some((CommitState::Success, words))
}

/// What was said last, of which commit and when.
#[derive(Debug, Default)]
pub(crate) struct Debounce {
    said: Option<(String, Told, Timestamp)>,
    due: Option<Timestamp>,
}

impl Debounce {
    /// Whether this is to be said of the commit now: it is news, and long enough ago that something was said of it.
    pub(crate) fn may_say(&mut self, sha: &str, told: &Told, now: Timestamp) -> bool {
        self.due = None;
        let Some((_, last, at)) = self.said.as_ref().filter(|(of, ..)| of == sha) else {
            return true;
        };
        if last == told {
            return false;
        }
        let next = at.saturating_add(APART).unwrap_or(now);
        if now < next {
            self.due = Some(next);
        }
        now >= next
    }

    /// It was said.
    pub(crate) fn said(&mut self, sha: &str, told: Told, now: Timestamp) {
        self.said = Some((sha.to_owned(), told, now));
    }

    /// When what is held back may be said.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(kind: &str, status: &str) -> serde_json::Value {
        json!({"type": kind, "status": status, "reason": "Why", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn only_what_is_known_is_told() {
        use CommitState::{Failure, Success};
        let well = Some((Success, "1 cluster available and in sync".to_owned()));
        let ill = |words: &str| Some((Failure, words.to_owned()));
        // (Available and InSync of the cluster, InSync of the Fleet, what is told)
        for (available, in_sync, own, want) in [
            ("True", "True", "True", well.clone()),
            ("False", "True", "True", ill("cluster a: Why")),
            ("True", "False", "Unknown", ill("cluster a: Why")),
            ("True", "True", "False", ill("fields: Why")),
            (
                "False",
                "False",
                "False",
                ill("cluster a: Why; cluster a: Why; fields: Why"),
            ),
            ("True", "Unknown", "True", None),
            ("Unknown", "True", "True", None),
            ("True", "True", "Unknown", None),
        ] {
            let mut fleet = Fleet::new("f", Default::default());
            fleet.metadata.namespace = Some("default".into());
            fleet.status =
                serde_json::from_value(json!({"conditions": [condition("InSync", own)]})).unwrap();
            let cluster = |name: &str, fleet: &str| -> Cluster {
                serde_json::from_value(json!({
                    "metadata": {"name": name, "namespace": "default", "labels": {LABEL_FLEET: fleet_hash("default", fleet)}},
                    "spec": {"version": "v1.33.2", "controlPlane": {}},
                    "status": {"conditions": [condition("Available", available), condition("InSync", in_sync)]},
                }))
                .unwrap()
            };
            let mut seen = Seen::default();
            for (name, of) in [("a", "f"), ("b", "another")] {
                seen.clusters
                    .insert(("default".into(), name.into()), cluster(name, of));
            }
            assert_eq!(judge(&fleet, &seen), want, "{available} {in_sync} {own}");
            if want == well {
                let status = fleet.status.as_mut().unwrap();
                let refused = serde_json::from_value(condition("AccountsReady", "False"));
                status.conditions.push(refused.unwrap());
                assert_eq!(judge(&fleet, &seen), ill("accounts: Why"));
            }
        }
    }

    #[test]
    fn of_one_commit_something_is_said_once_a_minute_at_most() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let well = || (CommitState::Success, "well".to_owned());
        let ill = || (CommitState::Failure, "ill".to_owned());
        let mut debounce = Debounce::default();
        // (commit, what, when, whether it is said, when else)
        for (sha, told, now, says, due) in [
            ("1", well(), 0, true, None),
            ("1", well(), 1, false, None),
            ("1", ill(), 2, false, Some(60)),
            ("1", well(), 3, false, None),
            ("1", ill(), 59, false, Some(60)),
            ("1", ill(), 60, true, None),
            ("1", well(), 119, false, Some(120)),
            ("2", well(), 119, true, None),
            ("2", ill(), 179, true, None),
        ] {
            assert_eq!(debounce.may_say(sha, &told, at(now)), says, "{sha} {now}");
            assert_eq!(debounce.due(), due.map(at), "{sha} {now}");
            if says {
                debounce.said(sha, told, at(now));
            }
        }
    }
}
