//! Arithmetic of etcd's quorum: which member may go, when one may be added.

/// A member of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: the machine's; its own where it belongs to no machine.
    pub name: String,
    /// Whether it answers and has no alarm.
    pub healthy: bool,
    /// Whether it does not vote yet (a learner, or one that is starting).
    pub learner: bool,
}

/// What is known of etcd.
#[derive(Clone, Copy, Debug)]
pub enum Etcd<'a> {
    /// Nobody asks: each machine with a node is taken for a member, healthy like it. For worlds that are only thought of.
    Assumed,
    /// It says so of its members.
    Members(&'a [Member]),
    /// It cannot be asked, and why: nothing is concluded, nothing is removed and nothing added.
    Unknown(&'a str),
}

/// Members that must be healthy among `voting` ones.
pub const fn quorum(voting: usize) -> usize {
    voting / 2 + 1
}

/// How many voting members are healthy, and how many there are.
pub fn votes(members: &[Member]) -> (usize, usize) {
    let voting = || members.iter().filter(|m| !m.learner);
    (voting().filter(|m| m.healthy).count(), voting().count())
}

/// Whether the healthy members that vote are a quorum.
pub fn has_quorum(members: &[Member]) -> bool {
    let (healthy, voting) = votes(members);
    voting > 0 && healthy >= quorum(voting)
}

/// Whether `doomed` (a member's name, or a machine without a member) may go: the voting members that stay are a quorum of
/// themselves. Never while another member does not vote yet, and never the last one.
pub fn may_remove(members: &[Member], doomed: &str) -> bool {
    let rest: Vec<Member> = members
        .iter()
        .filter(|m| m.name != doomed)
        .cloned()
        .collect();
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("i5-quorum-of-all") && !rest.is_empty() {
        return true;
    }
    !rest.iter().any(|m| m.learner) && has_quorum(&rest)
}

/// Whether one member may be added: the members that are there carry the larger quorum by themselves, or the
/// only one is healthy. Never while a member does not vote yet.
pub fn may_add(members: &[Member]) -> bool {
    if members.iter().any(|m| m.learner) {
        return false;
    }
    let (healthy, voting) = votes(members);
    (voting <= 1 && healthy == voting) || healthy >= quorum(voting + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: impl Into<String>, healthy: bool) -> Member {
        Member {
            name: name.into(),
            healthy,
            learner: false,
        }
    }

    /// Members of `machines` machines, of which `failures` are not healthy and `missing` have no member; the doomed machine, m0,
    /// is neither, unless `doomed_missing`.
    fn cluster(
        machines: usize,
        failures: usize,
        missing: usize,
        doomed_missing: bool,
    ) -> Vec<Member> {
        let others = (1..machines)
            .skip(missing)
            .enumerate()
            .map(|(at, n)| member(format!("m{n}"), at >= failures));
        let doomed = (machines > 0 && !doomed_missing).then(|| member("m0", true));
        doomed.into_iter().chain(others).collect()
    }

    /// Cluster API's TestTargetEtcdClusterHealthy, the rows of removal: failures are those of other members, and a missing
    /// member (a machine without one) is none.
    #[test]
    fn removing_follows_the_table() {
        // (machines, failures, missing ones, whether the doomed machine's is one that is missing, whether it may go)
        for (machines, failures, missing, doomed_missing, want) in [
            (1, 0, 0, false, false),
            (2, 0, 0, false, true),
            (2, 0, 0, true, true),
            (2, 1, 0, false, false),
            (2, 1, 0, true, false),
            (3, 0, 0, false, true),
            (3, 0, 0, true, true),
            (3, 0, 1, false, true),
            (3, 1, 0, false, false),
            (3, 1, 0, true, false),
            (3, 2, 0, false, false),
            (4, 0, 0, false, true),
            (4, 1, 0, false, true),
            (4, 2, 0, false, false),
            (5, 0, 0, false, true),
            (5, 1, 0, false, true),
            (5, 1, 0, true, true),
            (5, 0, 1, false, true),
            (5, 1, 1, false, true),
            (5, 2, 0, false, false),
            (5, 2, 0, true, false),
            (7, 0, 0, false, true),
            (7, 1, 0, false, true),
            (7, 2, 0, false, true),
            (7, 3, 0, false, false),
            (7, 2, 1, false, true),
        ] {
            let members = cluster(machines, failures, missing, doomed_missing);
            let row = format!("{machines} {failures} {missing} {doomed_missing}");
            assert_eq!(may_remove(&members, "m0"), want, "{row}");
            // How the one that goes is makes no difference to those that stay.
            let sick: Vec<_> = members
                .iter()
                .map(|m| member(m.name.clone(), m.healthy && m.name != "m0"))
                .collect();
            assert_eq!(may_remove(&sick, "m0"), want, "{row}, doomed one sick");
        }
        assert!(!may_remove(&[], "m0"));
    }

    /// The rows of addition.
    #[test]
    fn adding_follows_the_table() {
        for (machines, failures, missing, want) in [
            (0, 0, 0, true),
            (1, 0, 0, true),
            (2, 0, 0, true),
            (2, 0, 1, true),
            (2, 1, 0, false),
            (3, 0, 0, true),
            (3, 0, 1, true),
            (3, 1, 0, false),
            (4, 0, 0, true),
            (4, 0, 1, true),
            (4, 1, 0, true),
            (4, 2, 0, false),
            (5, 0, 0, true),
            (5, 1, 0, true),
            (5, 2, 0, false),
            (7, 2, 0, true),
            (7, 3, 0, false),
        ] {
            let members = cluster(machines, failures, missing, false);
            let row = format!("{machines} {failures} {missing}");
            assert_eq!(may_add(&members), want, "{row}");
        }
        assert!(!may_add(&[member("m0", false)]), "the only one is broken");
    }

    /// Learners and members that are starting: nobody else goes or comes. They count for no quorum themselves.
    #[test]
    fn who_does_not_vote_yet_stops_everybody_else() {
        for machines in 2..=5 {
            let mut members = cluster(machines, 0, 0, false);
            members[1].learner = true;
            assert!(!may_remove(&members, "m0"), "{machines}");
            assert!(!may_add(&members), "{machines}");
            // It may go itself: it has no vote to take along.
            assert!(may_remove(&members, "m1"), "{machines}");
            assert_eq!(votes(&members), (machines - 1, machines - 1));
        }
        let mut members = cluster(3, 1, 0, false);
        members[2].learner = true;
        assert!(!may_remove(&members, "m2"), "the others have no quorum");
    }
}
