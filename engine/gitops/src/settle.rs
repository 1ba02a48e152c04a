//! When a commit has come to its end: which objects have converged, as pure functions of what is seen of them.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    API_VERSION, Cluster, MachineDeployment, ProviderAccount, commit_status::CommitState,
    condition::kind, meta::LABEL_FLEET,
};
use fleetwright_core::{plan::Key, status};
use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt, api::ObjectMeta};
use serde_json::Value;

use crate::progress::{ClusterName, Progress, Told};

/// Where one object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is what its spec says.
    Converged,
    /// It is on its way; in words.
    Converging(String),
    /// It gets no further unless something is put right: why. Then it may get there yet.
    Blocked(String),
    /// It will not get there by itself: why, and what to do.
    Stuck(String),
}

/// Where a pool stands; `cluster` is the one that it belongs to, if it is known.
fn pool(cluster: Option<&Cluster>, pool: &MachineDeployment) -> Standing {
    match status::pool_unconverged(cluster, pool) {
        Some(words) => blocked(pool).map_or(Standing::Converging(words), Standing::Blocked),
        None => Standing::Converged,
    }
}

/// Why the provider will make no machine of a pool as it is now, if so. What was seen of it before its last change says nothing.
fn blocked(pool: &MachineDeployment) -> Option<String> {
    let status = pool.status.as_ref()?;
    let seen = status.observed_generation == pool.metadata.generation;
    let why = status::refused(&status.conditions).filter(|_| seen)?;
    Some(format!("pool {}: {why}", pool.name_any()))
}

/// The same of a cluster's control plane.
fn blocked_control_plane(cluster: &Cluster) -> Option<String> {
    let status = cluster.status.as_ref()?;
    let seen = status.observed_generation == cluster.metadata.generation;
    let why = status::refused(&status.conditions).filter(|_| seen)?;
    Some(format!("cluster {}: {why}", cluster.name_any()))
}

/// Where a cluster stands, its own pools included.
fn cluster<'a>(
    cluster: &Cluster,
    pools: impl IntoIterator<Item = &'a MachineDeployment>,
) -> Standing {
    if let Some(words) = status::upgrade_blocked(cluster) {
        return Standing::Blocked(words);
    }
    let pools: Vec<_> = pools.into_iter().collect();
    if let Some(words) = status::unconverged(cluster, pools.iter().copied()) {
        let blocked = blocked_control_plane(cluster)
            .or_else(|| status::manifests_refused(cluster))
            .or_else(|| pools.iter().find_map(|p| blocked(p)));
        return blocked.map_or(Standing::Converging(words), Standing::Blocked);
    }
    let conditions = cluster.status.iter().flat_map(|s| &s.conditions);
    let held = conditions
        .into_iter()
        .find(|c| c.type_ == kind::VERSION_HELD && c.status == "True");
    match held {
        Some(held) => Standing::Stuck(format!("cluster {}: {}", cluster.name_any(), held.message)),
        None => Standing::Converged,
    }
}

/// The clusters and pools that are watched, by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Clusters.
    pub clusters: BTreeMap<(String, String), Cluster>,
    /// Pools.
    pub pools: BTreeMap<(String, String), MachineDeployment>,
    /// All accounts of providers; they have no namespace.
    pub accounts: BTreeMap<(String, String), ProviderAccount>,
}

impl Seen {
    /// The generation in which an object was seen; the highest for kinds that are not watched.
    fn generation(&self, key: &Key) -> Option<i64> {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind.as_str() {
            "Cluster" => self.clusters.get(&name)?.metadata.generation,
            "MachineDeployment" => self.pools.get(&name)?.metadata.generation,
            _ => Some(i64::MAX),
        }
    }

    /// How far an object that was deleted has gone; `None` once it is gone. One of the same name that somebody made since is
    /// another one.
    fn leaving(&self, key: &Key) -> Option<String> {
        let name = (key.namespace.clone(), key.name.clone());
        let ours = |meta: &ObjectMeta| {
            let labels = meta.labels.as_ref();
            labels.is_some_and(|l| l.contains_key(LABEL_FLEET))
        };
        match key.kind.as_str() {
            "Cluster" => {
                let found = self.clusters.get(&name).filter(|c| ours(&c.metadata))?;
                let conditions = found.status.iter().flat_map(|s| &s.conditions);
                let mut deleting = conditions.filter(|c| c.type_ == kind::DELETING);
                let words = deleting.next().map_or("", |c| c.message.as_str());
                Some(format!("{key} is being deleted: {words}"))
            }
            "MachineDeployment" => {
                let found = self.pools.get(&name).filter(|p| ours(&p.metadata))?;
                let left = found.status.as_ref().map_or(0, |s| s.replicas);
                Some(format!("{key} is being deleted: {left} machines are left"))
            }
            _ => None,
        }
    }

    /// Where its objects stand. Pools are sorted by their clusters once, however many objects are asked for.
    #[must_use]
    pub fn standings(&self) -> Standings<'_> {
        let mut pools: BTreeMap<(&str, &str), Vec<&MachineDeployment>> = BTreeMap::new();
        for ((namespace, _), pool) in &self.pools {
            let of = (namespace.as_str(), pool.spec.cluster_name.as_str());
            pools.entry(of).or_default().push(pool);
        }
        Standings { seen: self, pools }
    }
}

/// Where objects stand, as they were seen.
pub struct Standings<'a> {
    seen: &'a Seen,
    /// By namespace and name of their cluster.
    pools: BTreeMap<(&'a str, &'a str), Vec<&'a MachineDeployment>>,
}

impl Standings<'_> {
    /// Where an object stands; one that is no longer there, or has nothing to converge, has converged.
    #[must_use]
    pub fn of(&self, key: &Key) -> Standing {
        let name = (key.namespace.clone(), key.name.clone());
        let standing = match key.kind.as_str() {
            "Cluster" => self.seen.clusters.get(&name).map(|found| {
                let own = self.pools.get(&(key.namespace.as_str(), key.name.as_str()));
                cluster(found, own.into_iter().flatten().copied())
            }),
            "MachineDeployment" => self.seen.pools.get(&name).map(|found| {
                let of = (key.namespace.clone(), found.spec.cluster_name.clone());
                pool(self.seen.clusters.get(&of), found)
            }),
            _ => None,
        };
        standing.unwrap_or(Standing::Converged)
    }
}

/// What a commit has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many objects are on their way; the first of them in words.
    Pending(usize, String),
    /// What may be made now has converged; the rest waits: for what.
    Waiting(String),
    /// Everything that it changed has converged once.
    Success(usize),
    /// It does not converge: why.
    Failure(String),
}

/// The objects that commits since the last settled one changed and that have not converged yet.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// With the generation that the write gave them; an older one says nothing of it. `None` for what was deleted.
    waiting: BTreeMap<Key, Option<i64>>,
    all: BTreeSet<Key>,
    stuck: BTreeMap<Key, String>,
    /// Where those that wait stood at the last look.
    stood: BTreeMap<Key, Standing>,
    words: String,
    moved: Option<Timestamp>,
}

impl Pending {
    /// Adds what a commit changed.
    pub fn add(&mut self, keys: impl IntoIterator<Item = (Key, Option<i64>)>, now: Timestamp) {
        for (key, generation) in keys {
            self.stuck.remove(&key);
            self.all.insert(key.clone());
            self.waiting.insert(key, generation);
        }
        self.moved = Some(now);
    }

    /// Whether an object has not converged since it was changed, or never will.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.waiting.contains_key(key) || self.stuck.contains_key(key)
    }

    /// The cluster of each object that was changed: as its document says, else as it is seen.
    fn clusters<'a>(
        &'a self,
        seen: &'a Seen,
        documents: &'a BTreeMap<Key, Value>,
    ) -> impl Iterator<Item = (&'a Key, ClusterName)> {
        self.all.iter().filter_map(|key| {
            let said = documents
                .get(key)
                .and_then(|d| d.pointer("/spec/clusterName")?.as_str());
            let name = match key.kind.as_str() {
                "Cluster" => key.name.as_str(),
                "MachineDeployment" => {
                    let name = (key.namespace.clone(), key.name.clone());
                    let seen = seen.pools.get(&name);
                    said.or(seen.map(|pool| pool.spec.cluster_name.as_str()))?
                }
                _ => return None,
            };
            Some((key, (key.namespace.clone(), name.to_owned())))
        })
    }

    /// How far everything that was changed has come.
    pub(crate) fn progress(&self, seen: &Seen) -> Progress {
        let mut progress = Progress::default();
        let own = self.all.iter().filter(|key| key.kind == "Cluster");
        let own = own.map(|key| ((key.namespace.clone(), key.name.clone()), Vec::new()));
        let mut whole: BTreeMap<ClusterName, Vec<&MachineDeployment>> = own.collect();
        let stays = |pool: &&MachineDeployment| pool.metadata.deletion_timestamp.is_none();
        for ((namespace, name), pool) in seen.pools.iter().filter(|(_, pool)| stays(pool)) {
            let of = (namespace.clone(), pool.spec.cluster_name.clone());
            if let Some(pools) = whole.get_mut(&of) {
                pools.push(pool);
                continue;
            }
            let key = Key {
                api_version: API_VERSION.to_owned(),
                kind: "MachineDeployment".to_owned(),
                namespace: namespace.clone(),
                name: name.clone(),
            };
            if self.all.contains(&key) {
                progress.pool(seen.clusters.get(&of), pool);
            }
        }
        for (name, pools) in whole {
            if let Some(cluster) = seen.clusters.get(&name) {
                progress.cluster(cluster, pools);
            }
        }
        progress
    }

    /// Where each cluster of what was changed stands, as of the last look.
    pub(crate) fn by_cluster(
        &self,
        seen: &Seen,
        documents: &BTreeMap<Key, Value>,
    ) -> BTreeMap<ClusterName, Told> {
        let mut out: BTreeMap<ClusterName, Told> = BTreeMap::new();
        for (key, cluster) in self.clusters(seen, documents) {
            let told = match (self.stuck.get(key), self.stood.get(key)) {
                (Some(why), _) | (None, Some(Standing::Blocked(why) | Standing::Stuck(why))) => {
                    (CommitState::Failure, why.clone())
                }
                (None, Some(Standing::Converging(words))) => (CommitState::Pending, words.clone()),
                (None, Some(Standing::Converged) | None) => {
                    (CommitState::Success, "converged".to_owned())
                }
            };
            let worst = |(state, _): &Told| match state {
                CommitState::Failure | CommitState::Error => 2,
                CommitState::Pending => 1,
                CommitState::Success => 0,
            };
            let entry = out.entry(cluster).or_insert_with(|| told.clone());
            if worst(&told) > worst(entry) {
                *entry = told;
            }
        }
        out
    }

    /// When `deadline` seconds will have passed without a move; `None` when nothing is waited for.
    #[must_use]
    pub fn due(&self, deadline: i64) -> Option<Timestamp> {
        let moved = self.moved.filter(|_| !self.waiting.is_empty())?;
        moved.checked_add(SignedDuration::from_secs(deadline)).ok()
    }

    /// Looks again: what converged once is done with. Fails when nothing moved for `deadline` seconds, and at once when something can
    /// get no further; what is still waited for may turn that.
    pub fn look(&mut self, seen: &Seen, now: Timestamp, deadline: i64) -> Outcome {
        let (mut words, mut blocked) = (String::new(), None);
        let mut done = Vec::new();
        self.stood.clear();
        let standings = seen.standings();
        for (key, generation) in &self.waiting {
            #[cfg(feature = "seeded-bugs")]
            let generation = match fleetwright_api::bugs::on("i8-old-news-is-news") {
                true => &generation.map(|_| 0),
                false => generation,
            };
            let standing = match generation {
                Some(generation) if seen.generation(key) < Some(*generation) => {
                    Standing::Converging(format!("{key} is not seen yet"))
                }
                Some(_) => standings.of(key),
                None => seen
                    .leaving(key)
                    .map_or(Standing::Converged, Standing::Converging),
            };
            if let Standing::Blocked(why) = &standing {
                blocked.get_or_insert_with(|| why.clone());
            }
            self.stood.insert(key.clone(), standing.clone());
            match standing {
                Standing::Converged => done.push(key.clone()),
                Standing::Stuck(why) => {
                    self.stuck.insert(key.clone(), why);
                    done.push(key.clone());
                }
                Standing::Converging(text) | Standing::Blocked(text) if words.is_empty() => {
                    words = text;
                }
                Standing::Converging(_) | Standing::Blocked(_) => {}
            }
        }
        for key in &done {
            self.waiting.remove(key);
        }
        if !done.is_empty() || words != self.words || self.moved.is_none() {
            self.moved = Some(now);
            self.words.clone_from(&words);
        }
        if let (true, Some(why)) = (self.waiting.is_empty(), self.stuck.values().next()) {
            return Outcome::Failure(why.clone());
        }
        if self.waiting.is_empty() {
            return Outcome::Success(self.all.len());
        }
        // Waiting for the deadline would tell nobody more; what is put right turns it.
        if let Some(why) = blocked {
            return Outcome::Failure(why);
        }
        let still = self
            .moved
            .map_or(0, |moved| now.duration_since(moved).as_secs());
        if still >= deadline {
            return Outcome::Failure(format!("nothing moved for {still} s: {words}"));
        }
        Outcome::Pending(self.waiting.len(), words)
    }
}

#[cfg(test)]
mod tests;
