//! Caches of our kinds: ordered, indexed by owner and cluster, without managedFields.
//!
//! What we write ourselves goes in at once, so that a reconcile reads its own writes; an older observation
//! never replaces a newer one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineSet, ProviderAccount, meta};
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;

/// Uids of deleted objects that are remembered, so that a late answer does not bring one back.
const TOMBSTONES: usize = 4096;

type NamespacedName = (String, String);

/// The namespace and name of an object.
pub(crate) fn name_of<K: ResourceExt>(object: &K) -> NamespacedName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn version_of<K: ResourceExt>(object: &K) -> u64 {
    object
        .resource_version()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// One kind's objects.
pub(crate) struct Kind<K> {
    objects: BTreeMap<NamespacedName, Arc<K>>,
    /// Index key to names: owner uid, or `namespace/cluster`.
    by_owner: BTreeMap<String, BTreeSet<NamespacedName>>,
    by_cluster: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    gone: VecDeque<String>,
    synced: bool,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            by_cluster: BTreeMap::new(),
            gone: VecDeque::new(),
            synced: false,
        }
    }
}

/// A kind of ours, with the cluster that an object of it belongs to.
pub(crate) trait Cached: Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// Name of the Cluster.
    fn cluster(&self) -> String;
    /// The kind's place in the caches.
    fn of(caches: &Caches) -> &RwLock<Kind<Self>>;
}

impl<K: Cached> Kind<K> {
    fn index(&mut self, object: &K, add: bool) {
        let name = name_of(object);
        let owner = meta::controller_of(object)
            .map(|o| o.uid.clone())
            .unwrap_or_default();
        let cluster = (name.0.clone(), object.cluster());
        let change = |set: &mut BTreeSet<NamespacedName>| {
            if add {
                set.insert(name.clone());
            } else {
                set.remove(&name);
            }
        };
        change(self.by_owner.entry(owner).or_default());
        change(self.by_cluster.entry(cluster).or_default());
    }

    /// Takes an observation in; `false` when something newer is known already.
    pub(crate) fn apply(&mut self, mut object: K) -> bool {
        object.meta_mut().managed_fields = None;
        let name = name_of(&object);
        let uid = object.uid().unwrap_or_default();
        if self.gone.contains(&uid) {
            return false;
        }
        if let Some(known) = self.objects.get(&name).cloned() {
            if known.uid() == object.uid() && version_of(known.as_ref()) >= version_of(&object) {
                return false;
            }
            self.index(&known, false);
        }
        self.index(&object, true);
        self.objects.insert(name, Arc::new(object));
        true
    }

    /// Forgets a deleted object.
    pub(crate) fn delete(&mut self, object: &K) {
        let name = name_of(object);
        let uid = object.uid().unwrap_or_default();
        if let Some(known) = self
            .objects
            .get(&name)
            .filter(|k| k.uid().unwrap_or_default() == uid)
            .cloned()
        {
            self.index(&known, false);
            self.objects.remove(&name);
        }
        self.gone.push_back(uid);
        if self.gone.len() > TOMBSTONES {
            self.gone.pop_front();
        }
    }

    /// Names of the objects that a complete list did not show.
    pub(crate) fn keep_only(&mut self, listed: &BTreeSet<NamespacedName>) -> Vec<Arc<K>> {
        self.synced = true;
        let missing: Vec<_> = self
            .objects
            .iter()
            .filter(|(n, _)| !listed.contains(*n))
            .map(|(_, o)| Arc::clone(o))
            .collect();
        for object in &missing {
            self.delete(object);
        }
        missing
    }

    fn named<'a>(
        &'a self,
        names: Option<&'a BTreeSet<NamespacedName>>,
    ) -> impl Iterator<Item = Arc<K>> + 'a {
        names
            .into_iter()
            .flatten()
            .filter_map(|n| self.objects.get(n).cloned())
    }
}

/// The caches of all our kinds.
#[derive(Default)]
pub(crate) struct Caches {
    pub(crate) clusters: RwLock<Kind<Cluster>>,
    pub(crate) pools: RwLock<Kind<MachineDeployment>>,
    pub(crate) sets: RwLock<Kind<MachineSet>>,
    pub(crate) machines: RwLock<Kind<Machine>>,
    pub(crate) accounts: RwLock<Kind<ProviderAccount>>,
}

impl Caches {
    /// The object of this name.
    pub(crate) fn get<K: Cached>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        K::of(self)
            .read()
            .objects
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Copies of all objects that `uid` controls, by name.
    pub(crate) fn owned<K: Cached>(&self, uid: &str) -> Vec<K> {
        let kind = K::of(self).read();
        kind.named(kind.by_owner.get(uid))
            .map(Arc::unwrap_or_clone)
            .collect()
    }

    /// All objects of a cluster, by name.
    pub(crate) fn of_cluster<K: Cached>(&self, namespace: &str, cluster: &str) -> Vec<Arc<K>> {
        let kind = K::of(self).read();
        kind.named(
            kind.by_cluster
                .get(&(namespace.to_owned(), cluster.to_owned())),
        )
        .collect()
    }

    /// All objects.
    pub(crate) fn all<K: Cached>(&self) -> Vec<Arc<K>> {
        K::of(self).read().objects.values().cloned().collect()
    }

    /// Takes in what the API answered to a write of ours.
    pub(crate) fn wrote<K: Cached>(&self, object: K) {
        K::of(self).write().apply(object);
    }

    /// Whether every kind has been listed completely once.
    pub(crate) fn synced(&self) -> bool {
        self.clusters.read().synced
            && self.pools.read().synced
            && self.sets.read().synced
            && self.machines.read().synced
            && self.accounts.read().synced
    }
}

impl Cached for Cluster {
    fn cluster(&self) -> String {
        self.name_any()
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.clusters
    }
}

impl Cached for MachineDeployment {
    fn cluster(&self) -> String {
        self.spec.cluster_name.clone()
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.pools
    }
}

impl Cached for MachineSet {
    fn cluster(&self) -> String {
        self.spec.cluster_name.clone()
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.sets
    }
}

impl Cached for Machine {
    fn cluster(&self) -> String {
        self.spec.cluster_name.clone()
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.machines
    }
}

impl Cached for ProviderAccount {
    fn cluster(&self) -> String {
        String::new()
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.accounts
    }
}

#[cfg(test)]
mod tests {
    use fleetwright_api::machine::MachineSpec;

    use super::*;

    fn machine(name: &str, uid: &str, version: u64) -> Machine {
        let mut m = Machine::new(
            name,
            MachineSpec {
                cluster_name: "c".into(),
                ..Default::default()
            },
        );
        m.metadata.namespace = Some("ns".into());
        m.metadata.uid = Some(uid.into());
        m.metadata.resource_version = Some(version.to_string());
        m
    }

    #[test]
    fn an_older_observation_never_replaces_a_newer_one() {
        let mut kind = Kind::default();
        assert!(kind.apply(machine("a", "1", 5)));
        assert!(!kind.apply(machine("a", "1", 4)));
        assert!(kind.apply(machine("a", "1", 6)));
        kind.delete(&machine("a", "1", 7));
        assert!(
            !kind.apply(machine("a", "1", 6)),
            "a late answer brings nothing back"
        );
        assert!(
            kind.apply(machine("a", "2", 8)),
            "a new object of the name is another one"
        );
    }

    #[test]
    fn indexes_follow_the_objects() {
        let caches = Caches::default();
        caches.wrote(machine("a", "1", 1));
        caches.wrote(machine("b", "2", 2));
        assert_eq!(caches.of_cluster::<Machine>("ns", "c").len(), 2);
        let listed = BTreeSet::from([("ns".to_owned(), "a".to_owned())]);
        let gone = caches.machines.write().keep_only(&listed);
        assert_eq!(gone.len(), 1);
        assert_eq!(caches.of_cluster::<Machine>("ns", "c").len(), 1);
        assert!(!caches.synced());
    }
}
