//! Arithmetic of etcd's quorum: which member may go, when one may be added.

/// A member of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: the machine's.
    pub name: String,
    /// Whether it answers and has no alarm.
    pub healthy: bool,
    /// Whether it does not vote yet (a learner, or one that is starting).
    pub learner: bool,
}

/// Members that must be healthy among `voting` ones.
pub const fn quorum(voting: usize) -> usize {
    voting / 2 + 1
}

/// Whether `doomed` (a member's name, or a machine without a member) may go without losing quorum. Never while
/// a member does not vote yet, and never the last one.
pub fn may_remove(members: &[Member], doomed: &str) -> bool {
    if members.iter().any(|m| m.learner) {
        return false;
    }
    let rest: Vec<_> = members.iter().filter(|m| m.name != doomed).collect();
    if rest.is_empty() {
        return false;
    }
    let healthy = rest.iter().filter(|m| m.healthy).count();
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("i5-quorum-of-all") {
        return true;
    }
    healthy >= quorum(rest.len())
}

/// Whether one member may be added: the members that are there carry the larger quorum by themselves, or the
/// only one is healthy. Never while a member does not vote yet.
pub fn may_add(members: &[Member]) -> bool {
    if members.iter().any(|m| m.learner) {
        return false;
    }
    let healthy = members.iter().filter(|m| m.healthy).count();
    (members.len() <= 1 && healthy == members.len()) || healthy >= quorum(members.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(healthy: usize, broken: usize) -> Vec<Member> {
        (0..healthy + broken)
            .map(|i| Member {
                name: format!("m{i}"),
                healthy: i < healthy,
                learner: false,
            })
            .collect()
    }

    // Cluster API's TestTargetEtcdClusterHealthy: (members, failures among those that stay) -> may remove one.
    #[test]
    fn removing_follows_the_table() {
        for (stay_healthy, failures, want) in [
            (0, 0, false),
            (1, 0, true),
            (0, 1, false),
            (2, 0, true),
            (1, 1, false),
            (4, 0, true),
            (3, 1, true),
            (2, 2, false),
            (4, 2, true),
            (3, 3, false),
        ] {
            let mut all = members(stay_healthy, failures);
            all.push(Member {
                name: "doomed".into(),
                healthy: true,
                learner: false,
            });
            assert_eq!(
                may_remove(&all, "doomed"),
                want,
                "{stay_healthy} {failures}"
            );
        }
        // Doomed machine without a member.
        assert!(may_remove(&members(2, 0), "missing"));
        let mut learner = members(3, 0);
        learner[1].learner = true;
        assert!(!may_remove(&learner, "m0"));
        assert!(!may_add(&learner));
    }

    #[test]
    fn adding_follows_the_table() {
        for (healthy, broken, want) in [
            (0, 0, true),
            (1, 0, true),
            (0, 1, false),
            (2, 0, true),
            (1, 1, false),
            (3, 0, true),
            (2, 1, false),
            (4, 0, true),
            (3, 1, true),
            (2, 2, false),
            (5, 0, true),
            (3, 2, false),
        ] {
            assert_eq!(
                may_add(&members(healthy, broken)),
                want,
                "{healthy} {broken}"
            );
        }
    }
}
