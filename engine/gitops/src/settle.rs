//! When a commit has come to its end: which objects have converged, as pure functions of what is seen of them.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, MachineDeployment,
    condition::{get, is_false, is_true, kind},
};
use fleetwright_core::plan::Key;
use jiff::Timestamp;
use kube::ResourceExt;

/// Where one object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is what its spec says.
    Converged,
    /// It is on its way; in words.
    Converging(String),
    /// It will not get there by itself: why, and what to do.
    Stuck(String),
}

/// Where a pool stands. `version` is the one that it is to run, when it is known.
#[must_use]
pub fn pool(pool: &MachineDeployment, version: Option<&str>) -> Standing {
    let status = pool.status.clone().unwrap_or_default();
    let name = pool.name_any();
    if status.observed_generation < pool.metadata.generation {
        return Standing::Converging(format!("pool {name} is not looked at yet"));
    }
    let wanted = pool.spec.replicas.unwrap_or(1);
    let own = pool.spec.template.spec.version.as_deref();
    if let Some(version) = own.or(version)
        && status.version.as_deref() != Some(version)
    {
        return Standing::Converging(format!("pool {name} does not yet use {version}"));
    }
    let counts = [
        (status.up_to_date_replicas, "up to date"),
        (status.available_replicas, "available"),
        (status.replicas, "there"),
    ];
    match counts.into_iter().find(|(have, _)| *have != wanted) {
        Some((have, what)) => Standing::Converging(format!(
            "pool {name}: {have} of {wanted} machines are {what}"
        )),
        None => Standing::Converged,
    }
}

/// Where a cluster stands, its own pools included.
#[must_use]
pub fn cluster(cluster: &Cluster, pools: &[&MachineDeployment]) -> Standing {
    let status = cluster.status.clone().unwrap_or_default();
    let name = cluster.name_any();
    if status.observed_generation < cluster.metadata.generation {
        return Standing::Converging(format!("cluster {name} is not looked at yet"));
    }
    let held = is_true(&status.conditions, kind::VERSION_HELD);
    if !held
        && cluster.spec.control_plane.machines.is_some()
        && status.version.as_deref() != Some(&cluster.spec.version)
    {
        let running = status.version.as_deref().unwrap_or("nothing");
        return Standing::Converging(format!(
            "cluster {name} runs {running}, not yet {}",
            cluster.spec.version
        ));
    }
    for (condition, wanted) in [(kind::ROLLING_OUT, false), (kind::AVAILABLE, true)] {
        let done = if wanted {
            is_true(&status.conditions, condition)
        } else {
            is_false(&status.conditions, condition)
        };
        if !done {
            let text = get(&status.conditions, condition)
                .map(|c| c.message.clone())
                .unwrap_or_default();
            return Standing::Converging(format!(
                "cluster {name}: {condition} is not {wanted}: {text}"
            ));
        }
    }
    let version = status.version.as_deref();
    let slow = pools
        .iter()
        .map(|p| pool(p, version))
        .find(|standing| *standing != Standing::Converged);
    match slow {
        Some(slow) => slow,
        None if held => {
            let text = get(&status.conditions, kind::VERSION_HELD)
                .map(|c| c.message.clone())
                .unwrap_or_default();
            Standing::Stuck(format!("cluster {name}: {text}"))
        }
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

    /// Where an object stands; one that is no longer there, or has nothing to converge, has converged.
    #[must_use]
    pub fn standing(&self, key: &Key) -> Standing {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind.as_str() {
            "Cluster" => self
                .clusters
                .get(&name)
                .map_or(Standing::Converged, |found| {
                    let own = |p: &&MachineDeployment| {
                        p.spec.cluster_name == key.name
                            && p.namespace().as_ref() == Some(&key.namespace)
                    };
                    cluster(found, &self.pools.values().filter(own).collect::<Vec<_>>())
                }),
            "MachineDeployment" => self.pools.get(&name).map_or(Standing::Converged, |found| {
                let cluster = self
                    .clusters
                    .get(&(key.namespace.clone(), found.spec.cluster_name.clone()));
                let held = cluster
                    .and_then(|c| c.status.as_ref())
                    .is_some_and(|s| is_true(&s.conditions, kind::VERSION_HELD));
                let wanted = cluster.map(|c| match &c.status {
                    Some(status) if held => status.version.clone().unwrap_or_default(),
                    _ => c.spec.version.clone(),
                });
                pool(found, wanted.as_deref())
            }),
            _ => Standing::Converged,
        }
    }
}

/// What a commit has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many objects are on their way; the first of them in words.
    Pending(usize, String),
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
    total: usize,
    stuck: BTreeMap<Key, String>,
    words: String,
    moved: Option<Timestamp>,
}

impl Pending {
    /// Adds what a commit changed.
    pub fn add(&mut self, keys: impl IntoIterator<Item = (Key, Option<i64>)>, now: Timestamp) {
        for (key, generation) in keys {
            self.stuck.remove(&key);
            self.waiting.insert(key, generation);
        }
        self.total = self.waiting.len() + self.stuck.len();
        self.moved = Some(now);
    }

    /// Whether nothing is waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.stuck.is_empty()
    }

    /// Looks again: what converged once is done with. Fails when nothing moved for `deadline` seconds.
    pub fn look(&mut self, seen: &Seen, now: Timestamp, deadline: i64) -> Outcome {
        let mut words = String::new();
        let mut done = Vec::new();
        for (key, generation) in &self.waiting {
            let standing = match generation {
                Some(generation) if seen.generation(key) < Some(*generation) => {
                    Standing::Converging(format!("{key} is not seen yet"))
                }
                _ => seen.standing(key),
            };
            match standing {
                Standing::Converged => done.push(key.clone()),
                Standing::Stuck(why) => {
                    self.stuck.insert(key.clone(), why);
                    done.push(key.clone());
                }
                Standing::Converging(text) if words.is_empty() => words = text,
                Standing::Converging(_) => {}
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
            return Outcome::Success(self.total);
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
