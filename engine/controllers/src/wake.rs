//! Who looks at what: whoever brings news of an object into the caches, a watch or a write of ours, wakes those whom the
//! news concerns, and nobody else. Machines come by the hundred: what wakes all of them is told apart from what does not.

use fleetwright_api::{
    Cluster, Fleet, Machine, MachineDeployment, MachineHealthCheck, MachineSet, ProviderAccount,
    cluster::ClusterStatus, condition, meta, names,
};
use fleetwright_core::cluster::is_control_plane;
use kube::{Resource, ResourceExt};

use crate::{
    cache::{Mark, name_of},
    queue::Key,
    reconcile::Shared,
};

/// What machines and pools look at of their Cluster: all but what it counts and says of itself. Its Fleet says what is done about drift.
fn cluster_part(cluster: &Cluster) -> impl PartialEq {
    let status = cluster.status.clone().map(|status| ClusterStatus {
        observed_generation: None,
        phase: None,
        conditions: Vec::new(),
        control_plane: None,
        workers: None,
        unmanaged_instances: Vec::new(),
        duplicate_instances: Vec::new(),
        bootstrap_manifests_hash: None,
        ..status
    });
    let fleet = cluster.labels().get(meta::LABEL_FLEET).cloned();
    (wish(cluster), cluster.spec.clone(), status, fleet)
}

/// What a wish consists of beside the spec: not the counter that goes up with each machine that is made.
fn wish<K: Resource<DynamicType = ()>>(object: &K) -> impl PartialEq + use<K> {
    let mut annotations = object.annotations().clone();
    annotations.remove(meta::ANNOTATION_NEXT_ORDINAL);
    let deleting = object.meta().deletion_timestamp.is_some();
    (object.uid(), annotations, deleting)
}

pub(crate) fn cluster(shared: &Shared, before: Option<&Cluster>, now: Option<&Cluster>) {
    let Some(object) = now.or(before) else { return };
    let (namespace, name) = name_of(object);
    if before.map(cluster_part) != now.map(cluster_part) {
        shared.budgets.changed(shared);
        let pools = shared
            .caches
            .of_cluster::<MachineDeployment>(&namespace, &name);
        for pool in pools {
            shared
                .queue
                .add(Key::Pool(namespace.clone(), pool.name_any()));
        }
        wake_sets_of(shared, &namespace, &name);
        shared.wake_machines_of(&namespace, &name);
    }
    shared.queue.add(Key::Cluster(namespace, name));
}

/// Wakes every set of a cluster: its version may let them make machines, or a machine of nobody's be one of theirs.
fn wake_sets_of(shared: &Shared, namespace: &str, cluster: &str) {
    for set in shared.caches.of_cluster::<MachineSet>(namespace, cluster) {
        let key = Key::Set(namespace.to_owned(), set.name_any());
        shared.queue.add(key);
    }
}

pub(crate) fn pool(
    shared: &Shared,
    before: Option<&MachineDeployment>,
    now: Option<&MachineDeployment>,
) {
    let Some(object) = now.or(before) else { return };
    let (namespace, name) = name_of(object);
    let sizes = |pool: &MachineDeployment| {
        let deleting = pool.metadata.deletion_timestamp.is_some();
        (pool.spec.replicas, pool.spec.disruption.clone(), deleting)
    };
    if before.map(sizes) != now.map(sizes) {
        shared.budgets.changed(shared);
    }
    // What its sets look at, such as how many broken machines may go at once, and its machines: they tell whether they are what it wants.
    let part = |pool: &MachineDeployment| {
        let version = pool.status.as_ref().and_then(|s| s.version.clone());
        (wish(pool), pool.spec.clone(), version)
    };
    if before.map(part) != now.map(part) {
        let owner = Mark::Owner(object.uid().unwrap_or_default());
        for set in shared.caches.marked::<MachineSet>(&owner) {
            let owner = Mark::Owner(set.uid().unwrap_or_default());
            for machine in shared.caches.marked::<Machine>(&owner) {
                let key = Key::Machine(namespace.clone(), machine.name_any());
                shared.queue.add(key);
            }
            let key = Key::Set(namespace.clone(), set.name_any());
            shared.queue.add(key);
        }
    }
    let cluster = object.spec.cluster_name.clone();
    shared.queue.add(Key::Cluster(namespace.clone(), cluster));
    shared.queue.add(Key::Pool(namespace, name));
}

pub(crate) fn set(shared: &Shared, before: Option<&MachineSet>, now: Option<&MachineSet>) {
    let Some(object) = now.or(before) else { return };
    let (namespace, name) = name_of(object);
    if let Some(owner) = meta::controller_of(object) {
        let key = Key::Pool(namespace.clone(), owner.name.clone());
        shared.queue.add(key);
    }
    // Its machines may have been known before it, and what they were made for is written on it.
    if before.is_none() {
        let owner = Mark::Owner(object.uid().unwrap_or_default());
        for machine in shared.caches.marked::<Machine>(&owner) {
            shared.storms.follow(shared, &machine);
        }
    }
    let sizes = |set: &MachineSet| {
        let deleting = set.metadata.deletion_timestamp.is_some();
        (set.spec.replicas, deleting)
    };
    if meta::controller_of(object).is_none() && before.map(sizes) != now.map(sizes) {
        shared.budgets.changed(shared);
    }
    // Its Cluster looks at what its sets are to be, not at how they are.
    let part = |set: &MachineSet| (wish(set), set.spec.clone());
    if before.map(part) != now.map(part) {
        let cluster = object.spec.cluster_name.clone();
        shared.queue.add(Key::Cluster(namespace.clone(), cluster));
    }
    shared.queue.add(Key::Set(namespace, name));
}

pub(crate) fn machine(shared: &Shared, before: Option<&Machine>, now: Option<&Machine>) {
    let Some(object) = now.or(before) else { return };
    let (namespace, name) = name_of(object);
    let owner = meta::controller_of(object).filter(|o| o.kind == "MachineSet");
    if let Some(owner) = owner {
        let key = Key::Set(namespace.clone(), owner.name.clone());
        shared.queue.add(key);
    } else if !is_control_plane(object) && meta::controller_of(object).is_none() {
        wake_sets_of(shared, &namespace, &object.spec.cluster_name);
    }
    // How a worker is comes to the Cluster through its pool's status.
    let passes = before.is_none() || object.metadata.deletion_timestamp.is_some() || now.is_none();
    // What differs of it does not: its Cluster counts that itself.
    let in_sync = |machine: &Machine| {
        let conditions = &machine.status.as_ref()?.conditions;
        let told = condition::get(conditions, condition::kind::IN_SYNC)?;
        Some((told.status.clone(), told.message.clone()))
    };
    let drifts = before.and_then(in_sync) != now.and_then(in_sync);
    if is_control_plane(object) || owner.is_none() || passes || drifts {
        let cluster = object.spec.cluster_name.clone();
        shared.queue.add(Key::Cluster(namespace.clone(), cluster));
    }
    let cluster = &object.spec.cluster_name;
    let checks = shared
        .caches
        .of_cluster::<MachineHealthCheck>(&namespace, cluster);
    if !checks.is_empty() && before.map(health_part) != now.map(health_part) {
        for check in checks {
            let key = Key::Check(namespace.clone(), check.name_any());
            shared.queue.add(key);
        }
    }
    shared.budgets.follow(shared, object);
    shared.storms.follow(shared, object);
    shared.queue.add(Key::Machine(namespace, name));
}

/// Who replaces a broken machine, and the checks that say whether it may be.
pub(crate) fn who_replaces(shared: &Shared, machine: &Machine) {
    let (namespace, _) = name_of(machine);
    let cluster = &machine.spec.cluster_name;
    let owner = meta::controller_of(machine);
    shared
        .queue
        .add(match owner.filter(|o| o.kind == "MachineSet") {
            Some(set) => Key::Set(namespace.clone(), set.name.clone()),
            None => Key::Cluster(namespace.clone(), cluster.clone()),
        });
    for check in shared
        .caches
        .of_cluster::<MachineHealthCheck>(&namespace, cluster)
    {
        let key = Key::Check(namespace.clone(), check.name_any());
        shared.queue.add(key);
    }
}

/// The account's list, and the machines that may have been refused for what it said before.
pub(crate) fn account(
    shared: &Shared,
    before: Option<&ProviderAccount>,
    now: Option<&ProviderAccount>,
) {
    shared.inventory.wake.notify_one();
    let Some(object) = now.or(before) else { return };
    if before.map(|a| &a.spec) == now.map(|a| &a.spec) {
        return;
    }
    let account = object.name_any();
    for cluster in shared.caches.all::<Cluster>() {
        let managed = cluster.spec.control_plane.managed.as_ref();
        if managed.is_some_and(|managed| managed.provider_config.account() == account) {
            let (namespace, name) = name_of(cluster.as_ref());
            for pool in shared
                .caches
                .of_cluster::<MachineDeployment>(&namespace, &name)
            {
                shared
                    .queue
                    .add(Key::Pool(namespace.clone(), pool.name_any()));
            }
            shared.queue.add(Key::Cluster(namespace, name));
        }
    }
    for machine in shared.caches.all::<Machine>() {
        if machine.spec.content.provider_config.account() == account {
            let (namespace, name) = name_of(machine.as_ref());
            shared.queue.add(Key::Machine(namespace, name));
        }
    }
}

/// What of a machine its health checks look at.
fn health_part(machine: &Machine) -> impl PartialEq {
    let conditions = machine.status.as_ref().map(|s| &s.conditions);
    let says = |kind| {
        let found = conditions.and_then(|list| condition::get(list, kind));
        found.map(|c| (c.status.clone(), c.reason.clone()))
    };
    (
        machine.labels().clone(),
        wish(machine),
        says(condition::kind::HEALTH_CHECK_SUCCEEDED),
        says(condition::kind::UP_TO_DATE),
    )
}

pub(crate) fn check(
    shared: &Shared,
    before: Option<&MachineHealthCheck>,
    now: Option<&MachineHealthCheck>,
) {
    let Some(object) = now.or(before) else { return };
    let (namespace, name) = name_of(object);
    let cluster = &object.spec.cluster_name;
    // Its machines look at what it asks for, and who replaces them also at whom it finds broken.
    let asks = |check: &MachineHealthCheck| (wish(check), check.spec.clone());
    let finds = |check: &MachineHealthCheck| {
        let status = check.status.as_ref();
        status.map(|s| (s.unhealthy.clone(), s.recent.len()))
    };
    let asked = before.map(asks) != now.map(asks);
    if asked {
        shared.wake_machines_of(&namespace, cluster);
    }
    if asked || before.map(finds) != now.map(finds) {
        shared.wake_sets_of(&namespace, cluster);
        shared
            .queue
            .add(Key::Cluster(namespace.clone(), cluster.clone()));
    }
    shared.queue.add(Key::Check(namespace, name));
}

/// The clusters of a Fleet, where what they look at of it changed: the versions that it allows and its budget; and their machines, where
/// what is done about drift changed, or when.
pub(crate) fn fleet(shared: &Shared, before: Option<&Fleet>, now: Option<&Fleet>) {
    let part = |fleet: &Fleet| (fleet.spec.versions.clone(), fleet.spec.disruption.clone());
    let drift = |fleet: &Fleet| {
        let spec = &fleet.spec;
        (spec.drift.clone(), spec.windows.clone(), spec.suspend)
    };
    let Some(object) = now.or(before) else { return };
    let drift = before.map(drift) != now.map(drift);
    if !drift && before.map(part) == now.map(part) {
        return;
    }
    let (namespace, name) = name_of(object);
    shared.budgets.changed(shared);
    let hash = names::fleet_hash(&namespace, &name);
    for cluster in shared.caches.all::<Cluster>() {
        if cluster.labels().get(meta::LABEL_FLEET) == Some(&hash) {
            let (namespace, name) = name_of(cluster.as_ref());
            if drift {
                shared.wake_machines_of(&namespace, &name);
            }
            shared.queue.add(Key::Cluster(namespace, name));
        }
    }
}
