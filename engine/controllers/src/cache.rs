//! Caches of our kinds: ordered, indexed by what others know an object by, without managedFields.
//!
//! What we write ourselves goes in at once, so that a reconcile reads its own writes; an older observation
//! never replaces a newer one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use fleetwright_api::{
    Cluster, Fleet, Machine, MachineDeployment, MachineDrainRule, MachineHealthCheck, MachineSet,
    ProviderAccount, meta, names,
};
use fleetwright_core::cluster::is_control_plane;
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;

use crate::{
    reconcile::{Shared, node_name},
    wake,
};

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

/// What objects are found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    /// Uid of the controlling owner.
    Owner(String),
    /// Namespace and name of the Cluster.
    Cluster(String, String),
    /// Namespace and name of the Cluster, and the providerID.
    ProviderId(String, String, String),
    /// Namespace and name of the Cluster, and the name of the node.
    Node(String, String, String),
    /// Namespace and name of the Cluster whose worker nobody controls.
    Orphan(String, String),
    /// A Fleet, by the hash on what is its own.
    Fleet(String),
}

impl Mark {
    /// A number that stands for it, the same in every process.
    fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether an object is found by it.
    fn is_of<K: Cached>(&self, object: &K) -> bool {
        match self {
            Self::Owner(uid) => meta::controller_of(object).is_some_and(|o| o.uid == *uid),
            Self::Cluster(namespace, cluster) => {
                object.meta().namespace.as_ref().map_or("", String::as_str) == namespace
                    && object.cluster() == *cluster
            }
            other => object.marks().contains(other),
        }
    }
}

/// One kind's objects.
pub(crate) struct Kind<K> {
    objects: BTreeMap<Arc<NamespacedName>, Arc<K>>,
    /// Names by the numbers of their objects' marks. The marks themselves, three names long and four to a machine, would take
    /// more memory than the machine; that two have one number is ruled out where objects are found.
    index: BTreeSet<(u64, Arc<NamespacedName>)>,
    gone: VecDeque<String>,
    /// Objects that became known since a list was begun: it need not show them.
    news: Option<BTreeSet<Arc<NamespacedName>>>,
    synced: bool,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            index: BTreeSet::new(),
            gone: VecDeque::new(),
            news: None,
            synced: false,
        }
    }
}

/// What a complete list did not show.
pub(crate) struct Missing<K> {
    /// It is not there.
    pub(crate) gone: Vec<Arc<K>>,
    /// It became known while the list was on its way: it may have been made after it, or be gone again.
    pub(crate) unsure: Vec<Arc<K>>,
}

/// A kind of ours, with the cluster that an object of it belongs to.
pub(crate) trait Cached: Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// Name of the Cluster.
    fn cluster(&self) -> String;
    /// What it is found by beside its owner and its cluster.
    fn marks(&self) -> Vec<Mark> {
        Vec::new()
    }
    /// Takes from `like`, an object of the same name or owner, what both say alike: it is kept once, and lists without spare room.
    fn share(&mut self, _like: Option<&Self>) {}
    /// Whether others write conditions of it too: a status that was decided without having seen theirs is not written.
    const CONDITIONS_ARE_SHARED: bool = false;
    /// Wakes who looks at what is news: what was known before, and what is now, if anything.
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>);
    /// The kind's place in the caches.
    fn of(caches: &Caches) -> &RwLock<Kind<Self>>;
}

impl<K: Cached> Kind<K> {
    fn index(&mut self, name: &Arc<NamespacedName>, object: &K, add: bool) {
        let owner = meta::controller_of(object).map(|o| Mark::Owner(o.uid.clone()));
        let cluster = Mark::Cluster(name.0.clone(), object.cluster());
        for mark in object.marks().into_iter().chain(owner).chain([cluster]) {
            let entry = (mark.number(), Arc::clone(name));
            if add {
                self.index.insert(entry);
            } else {
                self.index.remove(&entry);
            }
        }
    }

    /// Takes an observation in; gives what is known now and what was known before, or `None` when something as new is
    /// known already.
    pub(crate) fn apply(&mut self, mut object: K) -> Option<(Arc<K>, Option<Arc<K>>)> {
        let meta = object.meta_mut();
        meta.managed_fields = None;
        // Lists are parsed with room for four, and stay.
        meta.owner_references.as_mut().map(Vec::shrink_to_fit);
        meta.finalizers.as_mut().map(Vec::shrink_to_fit);
        let name = name_of(&object);
        let known = self.objects.get(&name).cloned();
        let name = match self.objects.get_key_value(&name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::new(name),
        };
        let same = known.as_ref().filter(|k| k.uid() == object.uid());
        // What is known lives: only another object of the name may be one that is gone already.
        let stale = match same {
            Some(known) => version_of(known.as_ref()) >= version_of(&object),
            None => self.gone.contains(&object.uid().unwrap_or_default()),
        };
        if stale {
            return None;
        }
        let is_new = same.is_none();
        if let Some(known) = &known {
            self.index(&name, known, false);
        }
        let owner = meta::controller_of(&object).map(|o| Mark::Owner(o.uid.clone()));
        let sibling = owner.and_then(|owner| self.marked(&owner).next().cloned());
        object.share(known.as_deref().or(sibling.as_deref()));
        self.index(&name, &object, true);
        let object = Arc::new(object);
        if let Some(news) = self.news.as_mut().filter(|_| is_new) {
            news.insert(Arc::clone(&name));
        }
        self.objects.insert(name, Arc::clone(&object));
        Some((object, known))
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
            let name = Arc::new(name);
            self.index(&name, &known, false);
            self.objects.remove(&name);
        }
        self.gone.push_back(uid);
        if self.gone.len() > TOMBSTONES {
            self.gone.pop_front();
        }
    }

    /// A complete list is asked for now.
    pub(crate) fn begin_list(&mut self) {
        self.news = Some(BTreeSet::new());
    }

    /// Forgets the objects that a complete list did not show, and gives them.
    pub(crate) fn keep_only(&mut self, listed: &BTreeSet<NamespacedName>) -> Missing<K> {
        self.synced = true;
        let news = self.news.take().unwrap_or_default();
        let (mut gone, mut unsure) = (Vec::new(), Vec::new());
        for (name, object) in &self.objects {
            if listed.contains(name.as_ref()) {
                continue;
            }
            let list = match news.contains(name) {
                true => &mut unsure,
                false => &mut gone,
            };
            list.push(Arc::clone(object));
        }
        for object in &gone {
            self.delete(object);
        }
        Missing { gone, unsure }
    }

    fn marked(&self, mark: &Mark) -> impl Iterator<Item = &Arc<K>> {
        let number = mark.number();
        let names = self.index.range((number, Arc::default())..);
        names
            .take_while(move |(found, _)| *found == number)
            .filter_map(|(_, name)| self.objects.get(name))
            .filter(|object| mark.is_of(object.as_ref()))
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
    pub(crate) checks: RwLock<Kind<MachineHealthCheck>>,
    pub(crate) drain_rules: RwLock<Kind<MachineDrainRule>>,
    pub(crate) fleets: RwLock<Kind<Fleet>>,
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

    /// All objects that `uid` controls, by name.
    pub(crate) fn owned<K: Cached>(&self, uid: &str) -> Vec<Arc<K>> {
        self.marked(&Mark::Owner(uid.to_owned()))
    }

    /// All objects of a cluster, by name.
    pub(crate) fn of_cluster<K: Cached>(&self, namespace: &str, cluster: &str) -> Vec<Arc<K>> {
        let mark = Mark::Cluster(namespace.to_owned(), cluster.to_owned());
        self.marked(&mark)
    }

    /// Whether a cluster has an object of which `test` holds.
    pub(crate) fn any_of_cluster<K: Cached>(
        &self,
        namespace: &str,
        cluster: &str,
        test: impl Fn(&K) -> bool,
    ) -> bool {
        let mark = Mark::Cluster(namespace.to_owned(), cluster.to_owned());
        K::of(self).read().marked(&mark).any(|o| test(o))
    }

    /// All objects with this mark, by name.
    pub(crate) fn marked<K: Cached>(&self, mark: &Mark) -> Vec<Arc<K>> {
        K::of(self).read().marked(mark).cloned().collect()
    }

    /// The Fleet that a Cluster belongs to.
    pub(crate) fn fleet_of(&self, cluster: &Cluster) -> Option<Arc<Fleet>> {
        let hash = cluster.labels().get(meta::LABEL_FLEET)?;
        let fleets = self.fleets.read();
        fleets.marked(&Mark::Fleet(hash.clone())).next().cloned()
    }

    /// All objects.
    pub(crate) fn all<K: Cached>(&self) -> Vec<Arc<K>> {
        K::of(self).read().objects.values().cloned().collect()
    }

    /// Whether every kind has been listed completely once.
    pub(crate) fn synced(&self) -> bool {
        self.clusters.read().synced
            && self.pools.read().synced
            && self.sets.read().synced
            && self.machines.read().synced
            && self.accounts.read().synced
            && self.checks.read().synced
            && self.drain_rules.read().synced
            && self.fleets.read().synced
    }
}

impl Cached for Cluster {
    fn cluster(&self) -> String {
        self.name_any()
    }
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>) {
        wake::cluster(shared, before, now);
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.clusters
    }
}

impl Cached for MachineDeployment {
    fn cluster(&self) -> String {
        self.spec.cluster_name.clone()
    }
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>) {
        wake::pool(shared, before, now);
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.pools
    }
}

impl Cached for MachineSet {
    fn cluster(&self) -> String {
        self.spec.cluster_name.clone()
    }
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>) {
        wake::set(shared, before, now);
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.sets
    }
}

impl Cached for Machine {
    const CONDITIONS_ARE_SHARED: bool = true;
    fn cluster(&self) -> String {
        self.spec.cluster_name.clone()
    }
    fn marks(&self) -> Vec<Mark> {
        let (namespace, cluster) = (self.namespace().unwrap_or_default(), self.cluster());
        let id = self.spec.provider_id.clone();
        let id = id.map(|id| Mark::ProviderId(namespace.clone(), cluster.clone(), id));
        let node = node_name(self).map(ToOwned::to_owned);
        let node = node.map(|node| Mark::Node(namespace.clone(), cluster.clone(), node));
        let orphan = meta::controller_of(self).is_none() && !is_control_plane(self);
        let orphan = orphan.then_some(Mark::Orphan(namespace, cluster));
        id.into_iter().chain(node).chain(orphan).collect()
    }
    fn share(&mut self, like: Option<&Self>) {
        if let Some(status) = &mut self.status {
            status.conditions.shrink_to_fit();
            status.addresses.shrink_to_fit();
        }
        let own = &mut self.spec.content.provider_config;
        if let Some(config) = like.map(|m| &m.spec.content.provider_config)
            && config == own
        {
            *own = config.clone();
        }
    }
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>) {
        wake::machine(shared, before, now);
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.machines
    }
}

impl Cached for ProviderAccount {
    fn cluster(&self) -> String {
        String::new()
    }
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>) {
        wake::account(shared, before, now);
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.accounts
    }
}

impl Cached for MachineHealthCheck {
    fn cluster(&self) -> String {
        self.spec.cluster_name.clone()
    }
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>) {
        wake::check(shared, before, now);
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.checks
    }
}

impl Cached for MachineDrainRule {
    fn cluster(&self) -> String {
        String::new()
    }
    /// A drain looks at them at each pass.
    fn wake(_: &Shared, _: Option<&Self>, _: Option<&Self>) {}
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.drain_rules
    }
}

impl Cached for Fleet {
    fn cluster(&self) -> String {
        String::new()
    }
    fn marks(&self) -> Vec<Mark> {
        let (namespace, name) = name_of(self);
        vec![Mark::Fleet(names::fleet_hash(&namespace, &name))]
    }
    fn wake(shared: &Shared, before: Option<&Self>, now: Option<&Self>) {
        wake::fleet(shared, before, now);
    }
    fn of(caches: &Caches) -> &RwLock<Kind<Self>> {
        &caches.fleets
    }
}

#[cfg(test)]
mod tests;
