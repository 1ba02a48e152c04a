//! Disruption budgets: what every machine is to them, what is spent, and who waits for it.
//!
//! Whatever deletes a machine that may be in service passes [`Shared::take`]. Between the decision and the API's answer the machine is
//! reserved, so that reconciles that run at the same time cannot spend the same machine twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleetwright_api::{Cluster, Fleet, Machine, MachineDeployment, MachineSet, meta};
use fleetwright_core::{
    cluster::is_control_plane,
    disruption::{Blocked, Holder, Service, Usage, Whose, may_take},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::{
    cache::name_of,
    queue::Key,
    reconcile::{Error, Shared},
};

/// How long a machine stays reserved when nobody knows whether its deletion arrived and no watch says so.
const RESERVED: SignedDuration = SignedDuration::from_secs(60);

/// Namespace, Cluster, and whose machines of it.
type Group = (String, String, Of);

/// Whose machines are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    ControlPlane,
    Pool(String),
    /// A set without a pool.
    Set(String),
    /// No budget holds for machines of nobody.
    Nobody,
}

/// Who spends of a budget together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Pool(String, String),
    Cluster(String, String),
    /// By the hash on its Clusters.
    Fleet(String),
}

#[derive(Default)]
struct Counts {
    in_service: i32,
    leaving: i32,
}

#[derive(Default)]
struct Inner {
    /// What each machine is, by namespace and name.
    machines: BTreeMap<(String, String), (Group, Service)>,
    groups: BTreeMap<Group, Counts>,
    /// Machines whose deletion is under way but not seen, with when that began.
    reserved: BTreeMap<(String, String), Timestamp>,
    /// Who could not take a machine, by each budget that holds for it.
    waiting: BTreeMap<Scope, BTreeSet<Key>>,
}

impl Inner {
    /// Takes in what a machine is now; `true` when that is news.
    fn put(&mut self, name: (String, String), now: Option<(Group, Service)>) -> bool {
        if self.machines.get(&name) == now.as_ref() {
            return false;
        }
        if let Some((group, service)) = self.machines.remove(&name) {
            self.count(group, service, -1);
        }
        if let Some((group, service)) = now {
            self.count(group.clone(), service, 1);
            self.machines.insert(name, (group, service));
        }
        true
    }

    fn count(&mut self, group: Group, service: Service, by: i32) {
        let counts = self.groups.entry(group.clone()).or_default();
        match service {
            Service::In => counts.in_service += by,
            Service::Leaving => counts.leaving += by,
            Service::Out => {}
        }
        if counts.in_service == 0 && counts.leaving == 0 {
            self.groups.remove(&group);
        }
    }

    /// Forgets reservations of which nothing was heard: those machines are what the cache says.
    fn expire(&mut self, shared: &Shared, now: Timestamp) {
        let old = |(_, at): &(&(String, String), &Timestamp)| now.duration_since(**at) > RESERVED;
        let expired: Vec<_> = self
            .reserved
            .iter()
            .filter(old)
            .map(|(n, _)| n.clone())
            .collect();
        for name in expired {
            self.reserved.remove(&name);
            let known = shared.caches.get::<Machine>(&name.0, &name.1);
            self.put(name, known.map(|m| (group_of(&m), Service::of(&m))));
        }
    }

    fn usage(&self, group: &Group, wanted: i32) -> Usage {
        let counts = self.groups.get(group);
        Usage {
            wanted,
            in_service: counts.map_or(0, |c| c.in_service),
            leaving: counts.map_or(0, |c| c.leaving),
        }
    }
}

/// The budgets of everything.
#[derive(Default)]
pub(crate) struct Budgets(Mutex<Inner>);

fn group_of(machine: &Machine) -> Group {
    let pool = machine.labels().get(meta::LABEL_DEPLOYMENT_NAME);
    let of = match (pool, meta::controller_of(machine)) {
        _ if is_control_plane(machine) => Of::ControlPlane,
        (Some(pool), _) => Of::Pool(pool.clone()),
        (None, Some(set)) if set.kind == "MachineSet" => Of::Set(set.name.clone()),
        _ => Of::Nobody,
    };
    let namespace = machine.namespace().unwrap_or_default();
    (namespace, machine.spec.cluster_name.clone(), of)
}

/// The pools, the sets without one and the control plane of a cluster, with how many machines each is to have; none of what is on its way out.
fn groups(shared: &Shared, cluster: &Cluster) -> Vec<(Group, i32)> {
    let (namespace, name) = name_of(cluster);
    let mut out = Vec::new();
    if let Some(machines) = &cluster.spec.control_plane.machines {
        let group = (namespace.clone(), name.clone(), Of::ControlPlane);
        out.push((group, machines.replicas.unwrap_or(1)));
    }
    for pool in shared
        .caches
        .of_cluster::<MachineDeployment>(&namespace, &name)
    {
        // Bounds of groups that a provider runs are its own.
        let settings = &pool.spec.template.spec.provider_config;
        if pool.metadata.deletion_timestamp.is_none() && !shared.catalogue.is_group(settings) {
            let group = (namespace.clone(), name.clone(), Of::Pool(pool.name_any()));
            out.push((group, pool.spec.replicas.unwrap_or(1)));
        }
    }
    for set in shared.caches.of_cluster::<MachineSet>(&namespace, &name) {
        if set.metadata.deletion_timestamp.is_none() && meta::controller_of(set.as_ref()).is_none()
        {
            let group = (namespace.clone(), name.clone(), Of::Set(set.name_any()));
            out.push((group, set.spec.replicas.unwrap_or(1)));
        }
    }
    out
}

/// All that holds for a machine's place.
struct Place {
    group: Group,
    /// How many machines of this group there should be.
    wanted: i32,
    cluster: Arc<Cluster>,
    pool: Option<Arc<MachineDeployment>>,
    fleet: Option<(String, Arc<Fleet>)>,
}

impl Place {
    /// `None` where no budget holds: the cluster, or the pool or the set, is on its way out or gone.
    fn of(shared: &Shared, machine: &Machine) -> Option<Self> {
        let group = group_of(machine);
        let (namespace, name, of) = &group;
        let lives = |m: &kube::api::ObjectMeta| m.deletion_timestamp.is_none();
        let cluster = shared.caches.get::<Cluster>(namespace, name);
        let cluster = cluster.filter(|c| lives(&c.metadata))?;
        let mut pool = None;
        let wanted = match of {
            Of::ControlPlane => {
                let machines = cluster.spec.control_plane.machines.as_ref();
                machines.map_or(0, |m| m.replicas.unwrap_or(1))
            }
            Of::Pool(name) => {
                let known = shared.caches.get::<MachineDeployment>(namespace, name);
                let known = known.filter(|p| lives(&p.metadata))?;
                pool.insert(known).spec.replicas.unwrap_or(1)
            }
            Of::Set(name) => {
                let known = shared.caches.get::<MachineSet>(namespace, name);
                let known = known.filter(|s| lives(&s.metadata))?;
                known.spec.replicas.unwrap_or(1)
            }
            Of::Nobody => return None,
        };
        let fleet = shared.caches.fleet_of(&cluster);
        let fleet = fleet.filter(|f| f.spec.disruption.is_some());
        let fleet = fleet.and_then(|f| Some((cluster.labels().get(meta::LABEL_FLEET)?.clone(), f)));
        Some(Self {
            group,
            wanted,
            cluster,
            pool,
            fleet,
        })
    }

    fn scopes(&self) -> Vec<Scope> {
        let (namespace, cluster, _) = &self.group;
        let mut out = vec![Scope::Cluster(namespace.clone(), cluster.clone())];
        let pool = self.pool.as_ref();
        out.extend(pool.map(|p| Scope::Pool(namespace.clone(), p.name_any())));
        out.extend(self.fleet.clone().map(|(hash, _)| Scope::Fleet(hash)));
        out
    }

    /// Whether another machine of this place may be taken out of service.
    fn may_take(&self, shared: &Shared, inner: &Inner) -> Result<(), Blocked> {
        let mut holders = Vec::new();
        if let Some(pool) = &self.pool
            && let Some(budget) = &pool.spec.disruption
        {
            holders.push(Holder {
                whose: Whose::Pool(pool.name_any()),
                budget,
                others_wanted: 0,
                others_out: 0,
            });
        }
        let others = |cluster: &Cluster| {
            groups(shared, cluster)
                .into_iter()
                .filter(|(group, _)| *group != self.group)
                .map(|(group, wanted)| (wanted, inner.usage(&group, wanted).out()))
                .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        };
        if let Some(budget) = &self.cluster.spec.disruption {
            let (others_wanted, others_out) = others(&self.cluster);
            holders.push(Holder {
                whose: Whose::Cluster(self.cluster.name_any()),
                budget,
                others_wanted,
                others_out,
            });
        }
        if let Some((hash, fleet)) = &self.fleet
            && let Some(budget) = &fleet.spec.disruption
        {
            let (mut others_wanted, mut others_out) = (0, 0);
            for cluster in shared.caches.all::<Cluster>() {
                let lives = cluster.metadata.deletion_timestamp.is_none();
                if lives && cluster.labels().get(meta::LABEL_FLEET) == Some(hash) {
                    let (wanted, out) = others(&cluster);
                    others_wanted += wanted;
                    others_out += out;
                }
            }
            holders.push(Holder {
                whose: Whose::Fleet(fleet.name_any()),
                budget,
                others_wanted,
                others_out,
            });
        }
        if holders.is_empty() {
            return Ok(());
        }
        may_take(inner.usage(&self.group, self.wanted), &holders)
    }
}

impl Budgets {
    /// Takes news of a machine in, and wakes who waits for it.
    pub(crate) fn follow(&self, shared: &Shared, machine: &Machine) {
        let name = name_of(machine);
        let mut inner = self.0.lock();
        // What is known now, not what the news says: news of one machine may come in another order than it was learned.
        let known = shared.caches.get::<Machine>(&name.0, &name.1);
        let mut now = known.as_ref().map(|m| (group_of(m), Service::of(m)));
        let leaves = known
            .as_ref()
            .is_none_or(|m| m.metadata.deletion_timestamp.is_some());
        if leaves {
            inner.reserved.remove(&name);
        } else if inner.reserved.contains_key(&name)
            && let Some((_, service @ Service::In)) = &mut now
        {
            *service = Service::Leaving;
        }
        if inner.put(name, now)
            && !inner.waiting.is_empty()
            && let Some(place) = Place::of(shared, machine)
        {
            for scope in place.scopes() {
                let waiting = inner.waiting.remove(&scope).unwrap_or_default();
                waiting.into_iter().for_each(|key| shared.queue.add(key));
            }
        }
    }

    /// A budget, or how many machines there should be, has changed: all who wait look again.
    pub(crate) fn changed(&self, shared: &Shared) {
        let waiting = std::mem::take(&mut self.0.lock().waiting);
        let keys = waiting.into_values().flatten();
        keys.for_each(|key| shared.queue.add(key));
    }

    /// Why `machine` may not be taken out of service now; `waiter` is woken when that may have changed.
    pub(crate) fn blocked(
        &self,
        shared: &Shared,
        machine: &Machine,
        waiter: &Key,
    ) -> Option<String> {
        self.reserve(shared, machine, waiter, false)
            .err()
            .map(|blocked| blocked.to_string())
    }

    fn reserve(
        &self,
        shared: &Shared,
        machine: &Machine,
        waiter: &Key,
        keep: bool,
    ) -> Result<(), Blocked> {
        let Some(place) = Place::of(shared, machine) else {
            return Ok(());
        };
        let name = name_of(machine);
        let now = shared.now();
        let mut inner = self.0.lock();
        inner.expire(shared, now);
        if inner.reserved.contains_key(&name) {
            return Ok(());
        }
        if inner.machines.get(&name).map(|(_, s)| *s) != Some(Service::In) {
            return Ok(());
        }
        if let Err(blocked) = place.may_take(shared, &inner) {
            for scope in place.scopes() {
                inner
                    .waiting
                    .entry(scope)
                    .or_default()
                    .insert(waiter.clone());
            }
            return Err(blocked);
        }
        if keep {
            inner.reserved.insert(name.clone(), now);
            inner.put(name, Some((place.group, Service::Leaving)));
        }
        Ok(())
    }

    fn release(&self, shared: &Shared, machine: &Machine) {
        self.0.lock().reserved.remove(&name_of(machine));
        self.follow(shared, machine);
    }
}

impl Shared {
    /// Deletes a machine where the disruption budgets that hold for it allow that; says which one does not. `waiter` is woken when
    /// it may. `because` is what the machine says of its end.
    pub(crate) async fn take(
        &self,
        machine: &Machine,
        because: String,
        waiter: &Key,
    ) -> Result<Option<String>, Error> {
        if let Err(blocked) = self.budgets.reserve(self, machine, waiter, true) {
            return Ok(Some(blocked.to_string()));
        }
        match self.delete_machine(machine, because).await {
            Ok(()) => {}
            // Refused: it is as it was. Otherwise nobody knows, and a watch will tell.
            Err(error) => {
                if error.is_refusal() {
                    self.budgets.release(self, machine);
                }
                return Err(error);
            }
        }
        Ok(None)
    }
}
