//! A control plane that somebody else runs: which versions it serves, and what its Cluster says of that.

use std::collections::BTreeMap;

use fleetwright_api::{Cluster, version::Version};
use jiff::{SignedDuration, Timestamp};

use crate::drift::is_other;

/// How long a version counts that an API server of the control plane said. Several may stand behind one address, and while they are
/// upgraded one by one each call meets another.
const COUNTS: SignedDuration = SignedDuration::from_mins(10);

/// The versions that the API servers of a control plane said of themselves, and when each was said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served(BTreeMap<Version, Timestamp>);

impl Served {
    /// Takes in what an API server says at `/version`, where it says it so that it can be read. `known` is what the Cluster's status
    /// says: after a start it counts as if it had been said now, so that an upgrade under way is not taken for done.
    /// Whether what is known is another than before.
    pub fn hear(&mut self, said: &str, known: Option<&str>, now: Timestamp) -> bool {
        let before = (self.oldest().cloned(), self.newest().cloned());
        let Some(said) = plain(said) else {
            return false;
        };
        if self.0.is_empty()
            && let Some(known) = known.and_then(plain)
        {
            self.0.insert(known, now);
        }
        self.0.insert(said, now);
        self.0.retain(|_, at| now.duration_since(*at) < COUNTS);
        before != (self.oldest().cloned(), self.newest().cloned())
    }

    /// The oldest one: no kubelet may be newer.
    pub fn oldest(&self) -> Option<&Version> {
        self.0.keys().next()
    }

    /// The newest one: no kubelet may be more than three minors older.
    pub fn newest(&self) -> Option<&Version> {
        self.0.keys().next_back()
    }
}

/// The version without what its distribution adds, such as `-gke.1200` or `+k3s1`.
fn plain(text: &str) -> Option<Version> {
    text.split(['-', '+']).next()?.parse().ok()
}

/// How the control plane of somebody else's differs from what its Cluster declares, as (declared, runs). Nothing is ever done about
/// it: pools go to the declared version once the control plane runs it.
pub fn differs<'a>(cluster: &'a Cluster, runs: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    cluster.spec.control_plane.external.as_ref()?;
    let declared = cluster.spec.version.as_str();
    let runs = runs.filter(|runs| is_other(declared, runs))?;
    Some((declared, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_oldest_and_the_newest_of_ten_minutes_count() {
        let (v33, v34) = ("v1.33.2", "v1.34.0");
        // When what is said, and what is known after it.
        type Row<'a> = (&'a str, &'a [(i64, &'a str)], &'a str, &'a str);
        let rows: &[Row<'_>] = &[
            ("the first", &[(0, v33)], v33, v33),
            ("an upgrade begins", &[(0, v33), (10, v34)], v33, v34),
            (
                "each call meets another",
                &[(0, v34), (10, v33), (20, v34)],
                v33,
                v34,
            ),
            (
                "the last old one was met not long ago",
                &[(0, v33), (10, v34), (599, v34)],
                v33,
                v34,
            ),
            ("it is over", &[(0, v33), (10, v34), (600, v34)], v34, v34),
            ("it goes back", &[(0, v34), (10, v33), (610, v33)], v33, v33),
            (
                "words of its maker",
                &[(0, "v1.33.2-eks-12ab"), (1, "v1.33.2+k3s1")],
                v33,
                v33,
            ),
            (
                "no version",
                &[(0, v33), (700, "unknown"), (701, "")],
                v33,
                v33,
            ),
        ];
        for (name, said, oldest, newest) in rows {
            let mut served = Served::default();
            for (when, version) in *said {
                served.hear(version, None, at(*when));
            }
            let text = |v: Option<&Version>| v.unwrap().to_string();
            assert_eq!(text(served.oldest()), *oldest, "{name}");
            assert_eq!(text(served.newest()), *newest, "{name}");
        }
    }

    #[test]
    fn what_changes_is_news_and_a_start_takes_no_upgrade_for_done() {
        let mut served = Served::default();
        assert!(served.hear("v1.34.0", Some("v1.33.2"), at(0)));
        assert_eq!(served.oldest().unwrap().to_string(), "v1.33.2");
        assert!(!served.hear("v1.34.0", Some("v1.33.2"), at(30)));
        assert!(served.hear("v1.34.0", Some("v1.33.2"), at(600)));
        assert_eq!(served.oldest(), served.newest());
    }

    #[test]
    fn a_difference_is_told_of_somebody_elses_control_plane_alone() {
        let cluster = |control_plane: serde_json::Value| -> Cluster {
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "spec": {"version": "v1.33.0", "controlPlane": control_plane},
            }))
            .unwrap()
        };
        let theirs =
            cluster(serde_json::json!({"external": {"kubeconfigSecretRef": {"name": "s"}}}));
        assert_eq!(differs(&theirs, None), None);
        assert_eq!(differs(&theirs, Some("v1.33.0-gke.1")), None);
        let found = differs(&theirs, Some("v1.34.1"));
        assert_eq!(found, Some(("v1.33.0", "v1.34.1")));
        let managed = serde_json::json!({"managed": {"providerConfig": {}}});
        assert_eq!(differs(&cluster(managed), Some("v1.34.1")), None);
    }
}
