//! What the members of an etcd say, put together.

use fleetwright_providers::EtcdMember;
use serde::{Deserialize, Deserializer, de::Error as _};

/// 64-bit numbers are texts in protobuf's JSON, and 0 is left out.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    #[serde(deserialize_with = "number")]
    member_id: u64,
}

/// Answer of `/v3/maintenance/status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    header: Header,
    /// Id of the member that leads; 0 where none does.
    #[serde(deserialize_with = "number")]
    pub(crate) leader: u64,
    errors: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: u64,
    name: String,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner")]
    learner: bool,
}

impl Member {
    /// Its name; one that has not started has none yet, and is called by its address.
    fn called(&self) -> &str {
        match (self.name.as_str(), self.peer_urls.first()) {
            ("", Some(url)) => url,
            (name, _) => name,
        }
    }
}

/// Answer of `/v3/cluster/member/list`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Members {
    members: Vec<Member>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alarm {
    #[serde(rename = "memberID", deserialize_with = "number")]
    member: u64,
}

/// Answer of `/v3/maintenance/alarm`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alarms {
    alarms: Vec<Alarm>,
}

/// What one member said.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Its id.
    pub(crate) id: u64,
    leader: u64,
    well: bool,
    /// All members and who raises an alarm.
    of_all: Option<(Members, Alarms)>,
}

/// Whether a member's error is the alarm of some member: each lists all of them, and they are told of whom they are of.
fn is_alarm(error: &str) -> bool {
    let mut words = error.split_whitespace();
    words.any(|word| word.starts_with("alarm:"))
}

impl Answer {
    pub(crate) fn new(status: Status, of_all: Option<(Members, Alarms)>) -> Self {
        Self {
            id: status.header.member_id,
            leader: status.leader,
            well: status.errors.iter().all(|error| is_alarm(error)),
            of_all,
        }
    }
}

/// What all of them say together.
#[derive(Debug)]
pub(crate) struct View {
    /// Who leads.
    pub(crate) leader: u64,
    members: Vec<Member>,
    /// Those that answered and raise no alarm.
    healthy: Vec<u64>,
}

impl View {
    /// Puts answers together. The list of members is the leader's; where it does not answer itself, that of one who follows it.
    ///
    /// # Errors
    /// None of them knows a leader: then none knows the members either.
    pub(crate) fn of(answers: &[&Answer]) -> Result<Self, String> {
        let know = || {
            let all = answers.iter();
            all.filter_map(|a| Some((a.id, a.leader, a.of_all.as_ref()?)))
        };
        let leads = know().find(|(id, leader, _)| *leader != 0 && id == leader);
        let follows = || know().find(|(_, leader, _)| *leader != 0);
        let Some((_, leader, (members, alarms))) = leads.or_else(follows) else {
            return Err("no member of etcd knows a leader: it has no quorum".into());
        };
        let alarmed = |id| alarms.alarms.iter().any(|alarm| alarm.member == id);
        let healthy = |a: &&&Answer| a.well && a.leader != 0 && !alarmed(a.id);
        Ok(Self {
            leader,
            members: members.members.clone(),
            healthy: answers.iter().filter(healthy).map(|a| a.id).collect(),
        })
    }

    /// All members, by name.
    pub(crate) fn members(&self) -> Vec<EtcdMember> {
        let mut all: Vec<EtcdMember> = self
            .members
            .iter()
            .map(|m| EtcdMember {
                name: m.called().to_owned(),
                healthy: self.healthy.contains(&m.id),
                learner: m.learner,
                starting: m.name.is_empty(),
            })
            .collect();
        all.sort();
        all
    }

    /// The id of the member of this name.
    pub(crate) fn id_of(&self, name: &str) -> Option<u64> {
        let found = self.members.iter().find(|m| m.called() == name);
        found.map(|m| m.id)
    }

    /// A healthy member that votes and does not lead.
    pub(crate) fn next_leader(&self) -> Option<u64> {
        let can = |m: &&Member| m.id != self.leader && self.is_full(m.id);
        self.members.iter().find(can).map(|m| m.id)
    }

    /// Whether a member is healthy and votes.
    pub(crate) fn is_full(&self, id: u64) -> bool {
        let is = |m: &Member| m.id == id && !m.learner;
        self.healthy.contains(&id) && self.members.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An answer of member `id` of three (and what `extra` says), in etcd's own words.
    fn answer(id: u64, leader: u64, errors: &[&str], alarms: &[u64]) -> Answer {
        let status = json!({
            "header": {"cluster_id": "9", "member_id": id.to_string(), "revision": "12", "raft_term": "3"},
            "version": "3.5.21", "dbSize": "20480", "leader": leader.to_string(), "errors": errors,
        });
        let members = json!({"header": {}, "members": [
            {"ID": "1", "name": "a", "peerURLs": ["https://10.0.0.1:2380"], "clientURLs": ["https://10.0.0.1:2379"]},
            {"ID": "18446744073709551615", "name": "b", "peerURLs": ["https://10.0.0.2:2380"]},
            {"ID": "3", "name": "c", "peerURLs": ["https://10.0.0.3:2380"], "isLearner": true},
            {"ID": "4", "peerURLs": ["https://10.0.0.4:2380"]},
        ]});
        let alarms: Vec<_> = alarms
            .iter()
            .map(|id| json!({"memberID": id.to_string(), "alarm": "NOSPACE"}))
            .collect();
        let members = serde_json::from_value(members).unwrap();
        let alarms = serde_json::from_value(json!({ "alarms": alarms })).unwrap();
        let status = serde_json::from_value(status).unwrap();
        Answer::new(status, Some((members, alarms)))
    }

    const B: u64 = u64::MAX;

    fn healthy(answers: &[Answer]) -> Vec<String> {
        let view = View::of(&answers.iter().collect::<Vec<_>>()).unwrap();
        let members = view.members().into_iter();
        members.filter(|m| m.healthy).map(|m| m.name).collect()
    }

    #[test]
    fn members_are_healthy_that_answer_without_alarm() {
        let well = || {
            vec![
                answer(1, 1, &[], &[]),
                answer(B, 1, &[], &[]),
                answer(3, 1, &[], &[]),
            ]
        };
        assert_eq!(healthy(&well()), ["a", "b", "c"]);
        assert_eq!(
            healthy(&well()[1..]),
            ["b", "c"],
            "the leader does not answer itself"
        );
        let mut sick = well();
        sick[1] = answer(B, 1, &["etcdserver: mvcc: database space exceeded"], &[]);
        assert_eq!(healthy(&sick), ["a", "c"]);
        sick[0] = answer(1, 1, &[], &[3]);
        assert_eq!(healthy(&sick), ["a"]);
        // Each tells of the alarm of one, which is not theirs.
        let errors = ["memberID:3 alarm:NOSPACE "];
        let told = [1, B, 3].map(|id| answer(id, 1, &errors, &[3]));
        assert_eq!(healthy(&told), ["a", "b"]);
        // It has lost the others.
        sick[1] = answer(B, 0, &[], &[]);
        assert_eq!(healthy(&sick), ["a"]);
    }

    #[test]
    fn learners_and_what_has_not_started_are_told() {
        let view = View::of(&[&answer(1, 1, &[], &[])]).unwrap();
        let told: Vec<_> = view
            .members()
            .into_iter()
            .map(|m| (m.name, m.learner, m.starting))
            .collect();
        let url = "https://10.0.0.4:2380".to_owned();
        let want = [
            ("a".to_owned(), false, false),
            ("b".to_owned(), false, false),
            ("c".to_owned(), true, false),
            (url.clone(), false, true),
        ];
        assert_eq!(told, want);
        assert_eq!(view.id_of("b"), Some(B));
        assert_eq!(view.id_of(&url), Some(4));
        assert_eq!(view.id_of("d"), None);
    }

    #[test]
    fn who_leads_next_votes_and_is_well() {
        let all = [
            answer(1, 1, &[], &[]),
            answer(B, 1, &[], &[]),
            answer(3, 1, &[], &[]),
        ];
        let next = |answers: &[&Answer]| View::of(answers).unwrap().next_leader();
        assert_eq!(next(&[&all[0], &all[1], &all[2]]), Some(B));
        assert_eq!(next(&[&all[0], &all[2]]), None, "a learner leads nobody");
    }

    #[test]
    fn without_a_leader_nobody_knows() {
        let lost = answer(1, 0, &["etcdserver: no leader"], &[]);
        assert!(View::of(&[&lost]).is_err());
        assert!(View::of(&[]).is_err());
    }
}
