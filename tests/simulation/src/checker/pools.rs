//! I3, and that sets and workers come and go for a reason (I7, I12).

use std::collections::VecDeque;

use fleetwright_api::meta;
use jiff::{SignedDuration, Timestamp};

use super::{
    Checker, Known,
    model::{Pool, Set, is_true},
};

/// How long a decision may take to be carried out: bounds that held then still count.
const DECIDED: SignedDuration = SignedDuration::from_secs(180);
/// How long what happens to a machine is news to those who tell of a pool whose spec is as it was.
const NEWS: SignedDuration = SignedDuration::from_secs(1);

/// What was seen of a pool beside the pool itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Bounds that it had, and until when.
    bounds: VecDeque<(Timestamp, (i64, i64))>,
    /// It was scaled up since it was last at rest: fewer may be available.
    scaled_up: bool,
    /// It was scaled down since then: there may be more.
    scaled_down: bool,
    /// What the newest set was made for.
    cause: Option<String>,
    /// Since the Git revision that it carries was applied, it was what it is to be.
    pub(crate) converged: bool,
    /// When that was first.
    converged_at: Option<Timestamp>,
    /// That revision left its spec as it was: no status of it is newer for that.
    same_spec: bool,
}

impl Checker {
    /// What a pool's machines are to be made of, and all that may change it.
    fn cause(&self, pool: &Pool) -> String {
        let cluster = self.clusters.get(&pool.spec.cluster_name);
        let restarted = pool.metadata.annotations.get(meta::ANNOTATION_RESTARTED_AT);
        format!(
            "{:?} {:?} {restarted:?} {:?}",
            pool.spec.template,
            pool.spec.rollout.after,
            cluster.map(|c| (&c.spec.version, &c.status.version)),
        )
    }

    pub(super) fn workers(&self, pool: &str) -> impl Iterator<Item = (&String, &Known)> {
        self.machines.iter().filter(move |(_, m)| {
            let of = m.object.metadata.labels.get(meta::LABEL_DEPLOYMENT_NAME);
            of.is_some_and(|p| p == pool)
        })
    }

    /// Of each pool whose machines wait for somebody to delete them, one that is not of the newest set, where all serve.
    pub(crate) fn outdated(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (name, _) in self.pools.iter().filter(|(_, pool)| pool.on_delete()) {
            let sets = self.sets.values();
            let of = sets.filter(|s| s.metadata.owner() == Some(name));
            let newest = of.map(|s| s.revision()).max();
            let set = |m: &Known| self.sets.get(m.object.metadata.owner()?);
            let old = |m: &Known| set(m).map(|s| s.revision()) < newest;
            if self.workers(name).all(|(_, m)| m.available()) {
                let machine = self.workers(name).find(|(_, m)| old(m));
                all.extend(machine.map(|(n, _)| n.clone()));
            }
        }
        all
    }

    pub(super) fn pool(&mut self, name: &str, object: Pool, gone: bool) -> String {
        if gone {
            self.root_gone("MachineDeployment", name, &object.metadata);
            self.pools.remove(name);
            self.pools_seen.remove(name);
            return String::new();
        }
        self.root("MachineDeployment", name, &object.metadata);
        let was = self.pools.get(name).map(|p| p.metadata.clone());
        self.reached("MachineDeployment", was.as_ref(), &object.metadata);
        let (now, bounds) = (self.now(), object.bounds());
        let seen = self.pools_seen.entry(name.to_owned()).or_default();
        if let Some(before) = self.pools.get(name) {
            seen.scaled_up |= object.spec.replicas > before.spec.replicas;
            seen.scaled_down |= object.spec.replicas < before.spec.replicas;
            if before.bounds() != bounds {
                seen.bounds.push_back((now, before.bounds()));
            }
            let revision = |p: &Pool| {
                p.metadata
                    .annotations
                    .get(meta::ANNOTATION_REVISION)
                    .cloned()
            };
            if revision(before) != revision(&object) {
                seen.converged = false;
                seen.converged_at = None;
                seen.same_spec = before.metadata.generation == object.metadata.generation;
            }
        } else {
            seen.scaled_up = true;
        }
        let text = format!(
            "gen={} replicas={} bounds={bounds:?}",
            object.metadata.generation, object.spec.replicas
        );
        self.pools.insert(name.to_owned(), object);
        self.at_rest(name);
        text
    }

    /// Bounds that a decision that is carried out now may have been made under: the widest.
    fn bounds(&mut self, name: &str) -> Option<(i64, i64)> {
        let now = self.now();
        let mut bounds = self.pools.get(name)?.bounds();
        let seen = self.pools_seen.get_mut(name)?;
        while seen
            .bounds
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > DECIDED)
        {
            seen.bounds.pop_front();
        }
        for (_, (low, high)) in &seen.bounds {
            bounds = (bounds.0.min(*low), bounds.1.max(*high));
        }
        Some(bounds)
    }

    /// Where a pool is what it is to be, what excused it is over.
    fn at_rest(&mut self, name: &str) {
        let Some(pool) = self.pools.get(name) else {
            return;
        };
        let same_spec = self.pools_seen.get(name).is_some_and(|s| s.same_spec);
        let (mut count, mut all) = (0, true);
        for (_, machine) in self.workers(name) {
            count += 1;
            all &= machine.available();
            let passes = machine.available() || (same_spec && self.is_news(machine));
            if !passes {
                return;
            }
        }
        if count != pool.spec.replicas {
            return;
        }
        let cluster = self.clusters.get(&pool.spec.cluster_name);
        let wanted = &pool.spec.template.spec;
        let version = wanted.version.as_ref().or(cluster.map(|c| &c.spec.version));
        let now = self.now();
        let fits = self.workers(name).all(|(_, m)| {
            m.object.spec.provider_config.fits(&wanted.provider_config)
                && m.object.spec.version.as_ref() == version
        });
        let converged = fits && is_true(&pool.status.conditions, "Available");
        if let Some(seen) = self.pools_seen.get_mut(name) {
            if all {
                (seen.scaled_up, seen.scaled_down) = (false, false);
            }
            if converged && !seen.converged {
                seen.converged_at = Some(now);
            }
            seen.converged |= converged;
        }
    }

    /// Whether a machine that was available a moment ago is no more: its pool's status need not say so yet.
    fn is_news(&self, machine: &Known) -> bool {
        let stays = machine.was_available && !machine.object.metadata.deleting();
        stays && self.now().duration_since(machine.changed) < NEWS
    }

    pub(super) fn pool_of(&mut self, machine: &str) {
        let labels = self
            .machines
            .get(machine)
            .map(|m| &m.object.metadata.labels);
        let pool = labels
            .and_then(|l| l.get(meta::LABEL_DEPLOYMENT_NAME))
            .cloned();
        if let Some(pool) = pool {
            self.at_rest(&pool);
        }
    }

    pub(super) fn machine_gone(&mut self, object: &super::model::Machine) {
        self.node_given_up(object);
        if let Some(pool) = object
            .metadata
            .labels
            .get(meta::LABEL_DEPLOYMENT_NAME)
            .cloned()
        {
            self.at_rest(&pool);
        }
    }

    /// The converged flag of a pool.
    pub(super) fn pool_converged(&self, name: &str) -> bool {
        self.pools_seen.get(name).is_some_and(|s| s.converged)
    }

    /// Since when it has that flag.
    pub(super) fn pool_converged_at(&self, name: &str) -> Option<Timestamp> {
        self.pools_seen.get(name)?.converged_at
    }

    pub(super) fn worker_made(&mut self, name: &str) {
        let Some(pool) = self.pool_label(name) else {
            return;
        };
        let Some((_, high)) = self.bounds(&pool) else {
            return;
        };
        let total = i64::try_from(self.workers(&pool).count()).unwrap_or(i64::MAX);
        if total > high && !self.pools_seen[&pool].scaled_down {
            self.broke(
                "I3",
                format!("pool {pool} has {total} machines with {name}, and may have {high}"),
            );
        }
    }

    fn pool_label(&self, machine: &str) -> Option<String> {
        let labels = &self.machines.get(machine)?.object.metadata.labels;
        labels.get(meta::LABEL_DEPLOYMENT_NAME).cloned()
    }

    pub(super) fn worker_doomed(&mut self, name: &str, was_available: bool) {
        if self.by_people.contains(name) {
            return;
        }
        let Some(pool) = self.pool_label(name) else {
            return;
        };
        let Some(cluster) = self
            .machines
            .get(name)
            .map(|m| m.object.spec.cluster_name.clone())
        else {
            return;
        };
        // What goes with its cluster, its pool or its set has its reason there.
        let stays = |meta: Option<&super::model::Meta>| meta.is_some_and(|m| !m.deleting());
        let set = self.machines[name]
            .object
            .metadata
            .owner()
            .map(ToOwned::to_owned);
        let set = set.unwrap_or_default();
        if !stays(self.clusters.get(&cluster).map(|c| &c.metadata))
            || !stays(self.pools.get(&pool).map(|p| &p.metadata))
            || !stays(self.sets.get(&set).map(|s| &s.metadata))
        {
            return;
        }
        let of_set = self
            .machines
            .values()
            .filter(|m| m.object.metadata.owner() == Some(&set));
        let staying = of_set.filter(|m| !m.object.metadata.deleting()).count();
        let staying = i64::try_from(staying).unwrap_or(i64::MAX);
        let wanted = self.sets[&set].spec.replicas;
        let remediated = model_remediated(&self.machines[name]);
        if staying < wanted && !remediated {
            self.broke(
                "I7",
                format!("machine {name} of set {set} is deleted: the set wants {wanted} machines and has {staying} others"),
            );
            return;
        }
        if !was_available {
            return;
        }
        let Some((low, _)) = self.bounds(&pool) else {
            return;
        };
        // What failed by itself is not counted: it was available once.
        let good = self
            .workers(&pool)
            .filter(|(_, m)| !m.object.metadata.deleting() && m.was_available)
            .count();
        let lost = self
            .workers(&pool)
            .filter(|(n, m)| m.object.metadata.deleting() && self.by_people.contains(*n))
            .count();
        let good = i64::try_from(good + lost).unwrap_or(i64::MAX);
        let replicas = self.pools[&pool].spec.replicas;
        let shrinks = staying >= replicas;
        if good < low && !self.pools_seen[&pool].scaled_up && !shrinks {
            self.broke(
                "I3",
                format!("machine {name} of pool {pool} is deleted while it is available: {good} are left, and {low} are to stay"),
            );
        }
    }

    pub(super) fn set(&mut self, name: &str, object: Set, gone: bool) -> String {
        if gone {
            self.sets.remove(name);
            return String::new();
        }
        let text = format!("replicas={}", object.spec.replicas);
        let owner = object.metadata.owner().unwrap_or_default().to_owned();
        let before = self.sets.insert(name.to_owned(), object.clone());
        let Some(pool) = self.pools.get(&owner).cloned() else {
            return text;
        };
        match before {
            None => {
                let cause = self.cause(&pool);
                let seen = self.pools_seen.entry(owner.clone()).or_default();
                let last = seen.cause.replace(cause.clone());
                if last == Some(cause) {
                    self.broke(
                        "I12",
                        format!("pool {owner} gets the new set {name}, and nothing that it is made of has changed"),
                    );
                }
            }
            Some(before) if before.spec.replicas > object.spec.replicas => {
                let others = self.sets.iter().filter(|(n, s)| {
                    *n != name
                        && s.metadata.owner() == Some(&owner)
                        && (s.spec.replicas > 0 || s.revision() > object.revision())
                });
                let alone = others.count() == 0;
                let going = pool.metadata.deleting() || self.going(&pool.spec.cluster_name);
                let replicas = pool.spec.replicas;
                if alone
                    && !going
                    && object.spec.replicas < replicas
                    && !self.pools_seen[&owner].scaled_up
                {
                    let to = object.spec.replicas;
                    self.broke(
                        "I7",
                        format!("set {name} shrinks to {to}: it is the newest of pool {owner}, which wants {replicas}"),
                    );
                }
            }
            Some(_) => {}
        }
        text
    }

    fn going(&self, cluster: &str) -> bool {
        self.clusters
            .get(cluster)
            .is_none_or(|c| c.metadata.deleting())
    }
}

/// Whether a health check gave the machine up.
fn model_remediated(machine: &Known) -> bool {
    let conditions = &machine.object.status.conditions;
    ["OwnerRemediated", "HealthCheckSucceeded"]
        .iter()
        .any(|kind| super::model::condition(conditions, kind).is_some_and(|c| c.status == "False"))
}
