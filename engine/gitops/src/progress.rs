//! How far a rollout has come, counted in machines, and which clusters of a commit stand where. Pure functions of what is seen.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{Cluster, MachineDeployment, commit_status::CommitState};
use kube::ResourceExt;

/// Namespace and name of a Cluster.
pub type ClusterName = (String, String);

/// Machines that are what a commit wants, of all that it concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    upgrading: bool,
    clusters: BTreeSet<String>,
    done: i32,
    all: i32,
}

impl Progress {
    /// Adds a cluster whose control plane and pools the commit concerns.
    pub(crate) fn cluster<'a>(
        &mut self,
        cluster: &Cluster,
        pools: impl IntoIterator<Item = &'a MachineDeployment>,
    ) {
        self.clusters.insert(cluster.name_any());
        if let Some(status) = &cluster.status {
            let wanted = Some(&cluster.spec.version);
            let behind = status.version.is_some() && status.version.as_ref() != wanted;
            self.upgrading |= behind;
            if let Some(counts) = &status.control_plane {
                self.all += counts.desired_replicas;
                // On the way through several versions none has arrived before the last step.
                let arriving = !behind || status.upgrading_to.as_ref() == wanted;
                self.done += match arriving {
                    true => counts.up_to_date_replicas.min(counts.desired_replicas),
                    false => 0,
                };
            }
        }
        for one in pools {
            self.pool(Some(cluster), one);
        }
    }

    /// Adds a pool that the commit concerns.
    pub(crate) fn pool(&mut self, cluster: Option<&Cluster>, pool: &MachineDeployment) {
        self.clusters.insert(pool.spec.cluster_name.clone());
        let wanted = pool.spec.replicas.unwrap_or(1);
        self.all += wanted;
        let Some(status) = &pool.status else {
            return;
        };
        let follows = pool.spec.template.spec.version.is_none();
        let target = cluster.map(|c| &c.spec.version).filter(|_| follows);
        let behind = target.is_some() && status.version.as_ref() != target;
        self.upgrading |= behind && status.version.is_some();
        if !behind {
            self.done += status.up_to_date_replicas.min(wanted);
        }
    }

    /// In words, such as `upgrading prod-eu: 14/40 machines`; `None` where it concerns no machines.
    pub(crate) fn words(&self) -> Option<String> {
        let first = self.clusters.first().filter(|_| self.all > 0)?;
        let what = if self.upgrading {
            "upgrading"
        } else {
            "rolling out"
        };
        let more = match self.clusters.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        Some(format!(
            "{what} {first}{more}: {}/{} machines",
            self.done, self.all
        ))
    }

    /// How many tenths are done: what is told anew when it changes, so that a rollout is told at most ten times.
    pub(crate) fn tenths(&self) -> i32 {
        match self.all {
            0 => 0,
            all => i32::try_from(i64::from(self.done) * 10 / i64::from(all)).unwrap_or(0),
        }
    }
}

/// Where a cluster stands with what a commit changed of it.
pub(crate) type Told = (CommitState, String);

/// The clusters of a commit that get a status of their own, about `most`: those that were told of before to the end, and in the
/// room that is left those that fail first.
fn chosen(
    all: BTreeMap<ClusterName, Told>,
    before: &BTreeSet<ClusterName>,
    most: usize,
) -> BTreeMap<ClusterName, Told> {
    let (kept, mut new): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(name, _)| before.contains(name));
    new.sort_by_key(|(_, (state, _))| *state != CommitState::Failure);
    let room = most.saturating_sub(kept.len());
    kept.into_iter().chain(new.into_iter().take(room)).collect()
}

/// What was said last of a commit, so that only news is said.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    sha: String,
    words: String,
    tenths: i32,
    upgrading: bool,
    clusters: BTreeMap<ClusterName, Told>,
}

impl Spoken {
    fn of(&mut self, sha: &str) -> &mut Self {
        if self.sha != sha {
            *self = Self {
                sha: sha.to_owned(),
                ..Self::default()
            };
        }
        self
    }

    /// The words for a commit that is on its way; others than before only when there is something to say.
    pub(crate) fn words(&mut self, sha: &str, progress: &Progress) -> String {
        let this = self.of(sha);
        let same = this.tenths == progress.tenths() && this.upgrading == progress.upgrading;
        if !same || this.words.is_empty() {
            let words = progress.words();
            this.words = words.unwrap_or_else(|| "applied, converging".to_owned());
            (this.tenths, this.upgrading) = (progress.tenths(), progress.upgrading);
        }
        this.words.clone()
    }

    /// What is to be said of its clusters: of about `most`, and only where it is news.
    pub(crate) fn news(
        &self,
        sha: &str,
        all: BTreeMap<ClusterName, Told>,
        most: usize,
    ) -> BTreeMap<ClusterName, Told> {
        let none = BTreeMap::new();
        let said = if self.sha == sha {
            &self.clusters
        } else {
            &none
        };
        let mut chosen = chosen(all, &said.keys().cloned().collect(), most);
        chosen.retain(|name, (state, words)| {
            said.get(name).is_none_or(|(before, words_before)| {
                let failing = *state == CommitState::Failure && words != words_before;
                before != state || failing
            })
        });
        chosen
    }

    /// Whether anything was said of a cluster for this commit.
    pub(crate) fn told_of(&self, sha: &str, cluster: &ClusterName) -> bool {
        self.sha == sha && self.clusters.contains_key(cluster)
    }

    /// Notes what was said of a cluster.
    pub(crate) fn said(&mut self, sha: &str, cluster: ClusterName, told: Told) {
        self.of(sha).clusters.insert(cluster, told);
    }
}

#[cfg(test)]
mod tests {
    use fleetwright_api::{
        cluster::ClusterStatus, cluster::MachineCounts, machine_deployment::MachineDeploymentStatus,
    };

    use super::*;

    fn cluster(name: &str, at: &str, to: &str, up: i32) -> Cluster {
        let mut cluster = Cluster::default();
        cluster.metadata.name = Some(name.into());
        cluster.spec.version = to.into();
        cluster.status = Some(ClusterStatus {
            version: Some(at.into()),
            upgrading_to: (at != to).then(|| to.into()),
            control_plane: Some(MachineCounts {
                desired_replicas: 3,
                up_to_date_replicas: up,
                ..MachineCounts::default()
            }),
            ..ClusterStatus::default()
        });
        cluster
    }

    fn pool(cluster: &str, at: &str, replicas: i32, up: i32) -> MachineDeployment {
        let mut pool = MachineDeployment::default();
        pool.spec.cluster_name = cluster.into();
        pool.spec.replicas = Some(replicas);
        pool.status = Some(MachineDeploymentStatus {
            version: Some(at.into()),
            up_to_date_replicas: up,
            ..MachineDeploymentStatus::default()
        });
        pool
    }

    #[test]
    fn machines_are_counted_towards_the_target() {
        let (old, new) = ("v1.33.2", "v1.34.1");
        let mut upgrade = Progress::default();
        assert_eq!(upgrade.words(), None);
        // The pool is at the old version: all of its machines are up to date with that, none with the commit.
        upgrade.cluster(&cluster("eu", old, new, 1), &[pool("eu", old, 37, 37)]);
        assert_eq!(
            upgrade.words().as_deref(),
            Some("upgrading eu: 1/40 machines")
        );
        let mut upgrade = Progress::default();
        upgrade.cluster(&cluster("eu", new, new, 3), &[pool("eu", new, 37, 11)]);
        assert_eq!(
            upgrade.words().as_deref(),
            Some("rolling out eu: 14/40 machines")
        );
        assert_eq!(upgrade.tenths(), 3);
        // On the way through an intermediate version none has arrived.
        let mut over = cluster("us", old, new, 3);
        over.status.get_or_insert_default().upgrading_to = Some("v1.33.9".into());
        upgrade.cluster(&over, &[]);
        assert_eq!(
            upgrade.words().as_deref(),
            Some("upgrading eu and 1 more: 14/43 machines")
        );
        let mut scale = Progress::default();
        scale.pool(None, &pool("eu", old, 5, 9));
        assert_eq!(
            (scale.words().as_deref(), scale.tenths()),
            (Some("rolling out eu: 5/5 machines"), 10)
        );
    }

    #[test]
    fn only_news_is_said() {
        let mut spoken = Spoken::default();
        let at = |done| Progress {
            clusters: ["eu".to_owned()].into(),
            done,
            all: 40,
            upgrading: false,
        };
        assert_eq!(spoken.words("1", &at(4)), "rolling out eu: 4/40 machines");
        assert_eq!(spoken.words("1", &at(7)), "rolling out eu: 4/40 machines");
        assert_eq!(spoken.words("1", &at(8)), "rolling out eu: 8/40 machines");
        assert_eq!(
            spoken.words("2", &Progress::default()),
            "applied, converging"
        );
        let name = || ("default".to_owned(), "eu".to_owned());
        let told = |state, words: &str| BTreeMap::from([(name(), (state, words.to_owned()))]);
        for (state, words, news) in [
            (CommitState::Pending, "a", true),
            (CommitState::Pending, "b", false),
            (CommitState::Failure, "c", true),
            (CommitState::Failure, "d", true),
            (CommitState::Failure, "d", false),
            (CommitState::Success, "e", true),
        ] {
            let said = spoken.news("2", told(state, words), 20);
            assert_eq!(said.len(), usize::from(news), "{state:?} {words}");
            for (name, told) in said {
                spoken.said("2", name, told);
            }
        }
        assert_eq!(
            spoken.news("3", told(CommitState::Success, "e"), 20).len(),
            1
        );
    }

    #[test]
    fn those_that_fail_come_first_and_who_was_told_of_stays() {
        use CommitState::{Failure, Pending};
        let name = |name: &str| ("default".to_owned(), name.to_owned());
        let all = |states: &[(&str, CommitState)]| {
            let told = states
                .iter()
                .map(|(n, state)| (name(n), (*state, String::new())));
            told.collect::<BTreeMap<_, _>>()
        };
        let fleet = all(&[
            ("a", Pending),
            ("b", Pending),
            ("c", Failure),
            ("d", Pending),
        ]);
        let names = |chosen: BTreeMap<ClusterName, Told>| {
            chosen
                .into_keys()
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let before = |names: &[&str]| names.iter().map(|n| name(n)).collect::<BTreeSet<_>>();
        for (told, most, want) in [
            (&[][..], 2, "a c"),
            (&[], 0, ""),
            (&["d"], 2, "c d"),
            (&["a", "d"], 2, "a d"),
            (&["a", "b", "d"], 2, "a b d"),
            (&[], 9, "a b c d"),
        ] {
            assert_eq!(
                names(chosen(fleet.clone(), &before(told), most)),
                want,
                "{told:?} {most}"
            );
        }
    }
}
