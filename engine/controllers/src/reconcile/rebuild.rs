//! A state that was lost is made again: what an owner's instances say of themselves in their tags becomes Machines, before the owner
//! makes any machine.

use std::{collections::BTreeSet, sync::Arc};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, ProviderAccount, ProviderConfig,
    meta::{self, MANAGER_HANDOVER},
    names,
    version::Version,
};
use fleetwright_core::{
    machine_set::NewMachine,
    outcome::Hold,
    pool_version::effective_version,
    rebuild::{self, Found, has_begun},
};
use fleetwright_providers::InstanceState;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::json;

use super::{Error, Shared, machine::digest};
use crate::{cache::name_of, queue::Key};

/// What an owner may not have made yet because nobody knows what it has.
fn found(
    shared: &Shared,
    (namespace, cluster, pool): (&str, &str, &str),
    written: &ProviderConfig,
    cluster_config: Option<&ProviderConfig>,
) -> Option<Vec<Found>> {
    let key = names::cluster_key(&shared.context.installation, namespace, cluster);
    let instances = shared.inventory.of_owner(written.account(), &key, pool)?;
    let wanted = shared.catalogue.effective(written).to_value();
    let account = shared.caches.get::<ProviderAccount>("", written.account());
    let provider = account.and_then(|a| shared.context.providers.get(&a.spec.provider).cloned());
    let found = instances.iter().filter_map(|instance| {
        let owner = instance.owner.as_ref()?;
        let made = match &provider {
            Some(provider) => provider.as_made(&wanted, instance),
            None => wanted.clone(),
        };
        let known = instance.config_digest == digest(&made, cluster_config);
        let config = made.as_object().cloned().map(ProviderConfig::from);
        Some(Found {
            machine: owner.machine.clone(),
            set: owner.set.clone(),
            instance_key: owner.instance_key.clone(),
            provider_id: instance.provider_id.clone(),
            version: instance.version.parse().ok(),
            failure_domain: instance.failure_domain.clone(),
            config: config.filter(|_| known),
            known,
            leaves: matches!(
                instance.state,
                InstanceState::Deleting | InstanceState::Failed
            ),
        })
    });
    let usable = |found: &Found| found.is_usable(!pool.is_empty());
    Some(found.filter(usable).collect())
}

/// Why an owner that has not begun may make no machine yet; `None` where it may.
fn waits(shared: &Shared, account: &str, found: Option<Vec<Found>>) -> Option<Hold> {
    if shared.caches.get::<ProviderAccount>("", account).is_none() {
        return Some(Hold::passing(format!(
            "there is no ProviderAccount {account}: make it, or name another in providerConfig.account"
        )));
    }
    match (found, shared.inventory.trouble(account)) {
        (Some(found), _) if found.is_empty() => None,
        (Some(_), _) => Some(Hold::passing(
            "its machines are made again first, from the tags of their instances",
        )),
        (None, Some(error)) => Some(Hold {
            why: format!("the instances of account {account} cannot be listed: {error}"),
            for_good: error.for_good(),
        }),
        (None, None) => Some(Hold::passing(format!(
            "the instances of account {account} have not been listed yet"
        ))),
    }
}

fn of_pool(shared: &Shared, pool: &MachineDeployment) -> Option<Vec<Found>> {
    let (namespace, name) = name_of(pool);
    let written = &pool.spec.template.spec.provider_config;
    let owner = (
        namespace.as_str(),
        pool.spec.cluster_name.as_str(),
        name.as_str(),
    );
    found(shared, owner, written, None)
}

fn of_control_plane(shared: &Shared, cluster: &Cluster) -> Option<Vec<Found>> {
    let (namespace, name) = name_of(cluster);
    let Some(machines) = &cluster.spec.control_plane.machines else {
        return Some(Vec::new());
    };
    let written = &machines.template.spec.provider_config;
    let own = cluster.spec.provider_config.as_ref();
    found(shared, (&namespace, &name, ""), written, own)
}

/// Why a set of this pool may make no machine yet.
pub(super) fn holds_pool(shared: &Shared, pool: &MachineDeployment) -> Option<Hold> {
    if has_begun(pool.metadata.annotations.as_ref()) {
        return None;
    }
    let account = pool.spec.template.spec.provider_config.account();
    waits(shared, account, of_pool(shared, pool))
}

/// Why the control plane may make no machine yet.
pub(super) fn holds_control_plane(shared: &Shared, cluster: &Cluster) -> Option<Hold> {
    let machines = cluster.spec.control_plane.machines.as_ref()?;
    if has_begun(cluster.metadata.annotations.as_ref()) {
        return None;
    }
    let account = machines.template.spec.provider_config.account();
    waits(shared, account, of_control_plane(shared, cluster))
}

/// Makes a pool's sets and machines again; whether it did something.
pub(super) async fn pool(
    shared: &Shared,
    pool: &MachineDeployment,
    cluster: &Cluster,
    sets: &[MachineSet],
    by: &str,
) -> Result<bool, Error> {
    let leaves = pool.metadata.deletion_timestamp.is_some();
    if leaves || has_begun(pool.metadata.annotations.as_ref()) {
        return Ok(false);
    }
    let found = of_pool(shared, pool).unwrap_or_default();
    let version = effective_version(cluster, pool).version;
    let version = version.or_else(|| cluster.spec.version.parse::<Version>().ok());
    let Some(version) = version.filter(|_| !found.is_empty()) else {
        return Ok(false);
    };
    let (namespace, name) = name_of(pool);
    let there = names_of(shared, &namespace, &pool.spec.cluster_name);
    let again = rebuild::pool(pool, sets, &there, &found, &version, &shared.catalogue);
    tracing::info!(pool = %name, sets = again.sets.len(), machines = again.machines.len(),
        "made again from the tags of instances");
    if !again.machines.is_empty() {
        let stay = found.iter().filter(|found| !found.leaves);
        keep_count(shared, pool, stay.count()).await?;
    }
    for set in &again.sets {
        shared.create(&set.to_set(pool), by).await?;
    }
    for (set, machine) in again.machines {
        let ours = |set: &Arc<MachineSet>| {
            let owner = set
                .owner_references()
                .iter()
                .find(|o| o.controller == Some(true));
            owner.is_some_and(|owner| Some(&owner.uid) == pool.metadata.uid.as_ref())
        };
        // One of a pool of this name before goes first.
        let set = shared.caches.get::<MachineSet>(&namespace, &set);
        let Some(set) = set.filter(ours) else {
            return Ok(true);
        };
        let owner = meta::controller_owner(set.as_ref())
            .ok_or_else(|| Error::Invalid("the set has no uid".into()))?;
        make(shared, &namespace, owner, machine, by).await?;
    }
    let latest = shared.caches.get::<MachineDeployment>(&namespace, &name);
    if let Some(latest) = latest {
        let patch = Shared::ordinal_patch(again.next_ordinal);
        shared.patch(latest.as_ref(), patch, by).await?;
    }
    for set in shared
        .caches
        .owned::<MachineSet>(&pool.uid().unwrap_or_default())
    {
        shared
            .queue
            .add(Key::Set(namespace.clone(), set.name_any()));
    }
    Ok(true)
}

/// Makes a control plane's machines again; whether it did something.
pub(super) async fn control_plane(
    shared: &Shared,
    cluster: &Cluster,
    by: &str,
) -> Result<bool, Error> {
    let rests = cluster.metadata.deletion_timestamp.is_some() || meta::is_paused(cluster);
    if rests || has_begun(cluster.metadata.annotations.as_ref()) {
        return Ok(false);
    }
    let found = of_control_plane(shared, cluster).unwrap_or_default();
    if found.is_empty() {
        return Ok(false);
    }
    let (namespace, name) = name_of(cluster);
    let there = names_of(shared, &namespace, &name);
    let again = rebuild::control_plane(cluster, &there, &found, &shared.catalogue);
    tracing::info!(cluster = %name, machines = again.machines.len(),
        "control plane made again from the tags of instances");
    let owner = meta::controller_owner(cluster)
        .ok_or_else(|| Error::Invalid("the Cluster has no uid".into()))?;
    for (_, machine) in again.machines {
        make(shared, &namespace, owner.clone(), machine, by).await?;
    }
    let latest = shared.caches.get::<Cluster>(&namespace, &name);
    if let Some(latest) = latest {
        let patch = Shared::ordinal_patch(again.next_ordinal);
        shared.patch(latest.as_ref(), patch, by).await?;
    }
    Ok(true)
}

fn names_of(shared: &Shared, namespace: &str, cluster: &str) -> BTreeSet<String> {
    let machines = shared.caches.of_cluster::<Machine>(namespace, cluster);
    machines.iter().map(|m| m.name_any()).collect()
}

async fn make(
    shared: &Shared,
    namespace: &str,
    owner: OwnerReference,
    new: NewMachine,
    by: &str,
) -> Result<(), Error> {
    let mut machine = Machine::new(&new.name, new.spec);
    machine.metadata.namespace = Some(namespace.to_owned());
    machine.metadata.labels = Some(new.labels);
    machine.metadata.annotations = Some(new.annotations);
    machine.metadata.finalizers = Some(vec![meta::FINALIZER_MACHINE.to_owned()]);
    machine.metadata.owner_references = Some(vec![owner]);
    shared.create_machine(&machine, by).await
}

/// Where Git does not say how many machines a pool has, it has as many as there are: the wish for more than the default was in the state
/// that is gone.
async fn keep_count(shared: &Shared, pool: &MachineDeployment, count: usize) -> Result<(), Error> {
    let (namespace, name) = name_of(pool);
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    if let Some(live) = shared.read::<MachineDeployment>(&namespace, &name).await?
        && !declares_replicas(&live)
        && live.spec.replicas != Some(count)
    {
        let patch = json!({"spec": {"replicas": count}});
        shared.patch(&live, patch, MANAGER_HANDOVER).await?;
    }
    Ok(())
}

/// Whether Git says how many machines the pool has.
fn declares_replicas(pool: &MachineDeployment) -> bool {
    let managers = pool.metadata.managed_fields.iter().flatten();
    managers
        .filter(|m| {
            m.manager
                .as_deref()
                .is_some_and(|m| m.starts_with("fleetwright/"))
        })
        .filter_map(|m| m.fields_v1.as_ref())
        .any(|fields| fields.0["f:spec"].get("f:replicas").is_some())
}
