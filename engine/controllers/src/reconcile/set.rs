//! MachineSet: as many machines as wanted, each with what reaches it in place.

use std::sync::Arc;

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineSet, condition, meta};
use fleetwright_core::{
    health::is_broken,
    machine_set::{
        NewMachine, Ownership, PreflightFailure, Remediation, decide, ownership, preflight,
    },
    outcome::Outcome,
    status,
    why::{broken_goes, current, worker_goes},
};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::json;

use super::{Error, Shared, rebuild};
use crate::{
    cache::{Mark, name_of},
    health,
    queue::Key,
    trail::Deeds,
    write::Written,
};

const BY: &str = "fleetwright-machineset";
/// Machines that a set makes at the same time.
const AT_ONCE: usize = 16;

pub(super) async fn reconcile(shared: &Shared, set: &MachineSet) -> Result<Outcome, Error> {
    let (namespace, name) = name_of(set);
    shared.know_again().await?;
    let uid = set.uid().unwrap_or_default();
    let owner = meta::controller_of(set).filter(|o| o.kind == "MachineDeployment");
    let mut machines: Vec<Arc<Machine>> = shared.caches.owned(&uid);
    // One that is broken may have its replacement made first, where the pool has room for it.
    let mut latest = None;
    let _room = match owner {
        Some(pool) if machines.iter().any(|m| is_broken(m)) => {
            let room = shared.rooms.enter(&pool.uid).await;
            shared.know_again().await?;
            machines = shared.caches.owned(&uid);
            latest = shared.caches.get::<MachineSet>(&namespace, &name);
            Some(room)
        }
        _ => None,
    };
    let set = latest.as_deref().unwrap_or(set);
    let pool = owner.and_then(|o| shared.caches.get::<MachineDeployment>(&namespace, &o.name));
    let now = shared.now();
    if own(shared, set, &machines).await? {
        return Ok(Outcome::Changed);
    }
    let next = pool.as_ref().map_or_else(
        || Shared::next_ordinal(set),
        |p| Shared::next_ordinal(p.as_ref()),
    );
    let key = Key::Set(namespace.clone(), name.clone());
    let (remediation, look_again) =
        health::remediation(shared, set, pool.as_deref(), &machines, &key);
    let extra = remediation.extra;
    let decision = decide(set, &machines, next, extra, &shared.catalogue, now);
    #[cfg(feature = "seeded-bugs")]
    let decision = youngest_first(decision, &machines);
    let mut decision = decision;
    let cluster = shared
        .caches
        .get::<Cluster>(&namespace, &set.spec.cluster_name);
    if let (Some(cluster), false) = (&cluster, decision.create.is_empty()) {
        decision.hold(preflight(set, pool.as_deref(), cluster));
    }
    if let Some(why) = pool
        .as_deref()
        .and_then(|pool| rebuild::holds_pool(shared, pool))
    {
        decision.hold(vec![PreflightFailure::Unlisted(why)]);
    }
    let find = |name: &str| machines.iter().find(|m| m.name_any() == name);
    let held = decision
        .delete
        .iter()
        .filter_map(|doomed| find(&doomed.name))
        .find_map(|machine| shared.budgets.blocked(shared, machine, &key));

    let mut new = status::machine_set(
        set,
        &machines,
        decision.waiting.as_ref(),
        held.as_deref(),
        now,
    );
    let paused = shared.cluster_is_paused(&namespace, &set.spec.cluster_name);
    if paused {
        status::pause(&mut new.conditions, set.metadata.generation, now);
    }
    shared
        .write_status(set, set.status.as_ref(), &new, BY)
        .await?;
    if paused {
        return Ok(Outcome::wait("its Cluster is paused"));
    }
    let declared = pool.as_ref().map(|pool| &pool.metadata);
    let mut deeds = Deeds::of(shared, "MachineSet", &set.metadata, declared);
    let seen = || {
        let cluster = cluster.as_ref().map(|cluster| &cluster.metadata);
        let above = [Some(&set.metadata), declared, cluster]
            .into_iter()
            .flatten();
        above.chain(machines.iter().map(|m| &m.metadata))
    };
    let mut replaced = false;
    for (name, because) in replace_broken(shared, &machines, &remediation, &key).await? {
        deeds.did(
            format!("delete Machine {namespace}/{name}: {because}"),
            seen,
        );
        replaced = true;
    }

    if !decision.create.is_empty() {
        // The counter goes up first, so that an ordinal is never used again.
        match &pool {
            Some(pool) => raise(shared, pool.as_ref(), decision.next_ordinal).await?,
            None => raise(shared, set, decision.next_ordinal).await?,
        }
        let owner = meta::controller_owner(set)
            .ok_or_else(|| Error::Invalid("the set has no uid".into()))?;
        let mut made = Vec::with_capacity(decision.create.len());
        for new in &decision.create {
            tracing::info!(set = %name, machine = %new.name, "new machine");
            deeds.did(format!("create Machine {namespace}/{}", new.name), seen);
            made.push(to_machine(
                shared,
                set.namespace(),
                owner.clone(),
                new.clone(),
            ));
        }
        // Together they share the API's commits.
        for some in made.chunks(AT_ONCE) {
            try_join_all(
                some.iter()
                    .map(|machine| shared.create_machine(machine, BY)),
            )
            .await?;
        }
    }
    if !decision.delete.is_empty() {
        let owner = meta::controller_of(set).map(|o| o.uid.as_str());
        let sets = shared.caches.owned::<MachineSet>(owner.unwrap_or_default());
        let sets: Vec<MachineSet> = sets.into_iter().map(Arc::unwrap_or_clone).collect();
        let current = pool.as_ref().and_then(|pool| current(pool, &sets));
        for doomed in &decision.delete {
            let Some(machine) = find(&doomed.name) else {
                continue;
            };
            let because = worker_goes(doomed.because, set, pool.as_deref(), current);
            if shared.take(machine, because.clone(), &key).await?.is_none() {
                tracing::info!(set = %name, machine = %doomed.name, %because, "machine goes");
                deeds.did(
                    format!("delete Machine {namespace}/{}: {because}", doomed.name),
                    seen,
                );
            }
        }
    }
    for update in &decision.update {
        if let Some(machine) = find(&update.name) {
            shared.update_machine(machine, update, BY).await?;
        }
    }
    if !decision.is_settled() || replaced {
        return Ok(Outcome::Changed);
    }
    let waits = decision.waiting.as_ref().map(ToString::to_string);
    // A storm of failures passes though nothing happens.
    let next = status::next_turn(&machines, now);
    let next = next.into_iter().chain(look_again).min();
    Ok(super::rest(waits, next, now))
}

/// Takes in machines that nobody controls and that the set selects, and lets go of those that it no longer selects; whether any.
async fn own(shared: &Shared, set: &MachineSet, machines: &[Arc<Machine>]) -> Result<bool, Error> {
    let (namespace, name) = name_of(set);
    let mark = Mark::Orphan(namespace, set.spec.cluster_name.clone());
    let orphans: Vec<Arc<Machine>> = shared.caches.marked(&mark);
    let change = ownership(set, machines, &orphans);
    let find = |list: &[Arc<Machine>], name: &String| {
        list.iter()
            .find(|m| m.metadata.name.as_ref() == Some(name))
            .cloned()
    };
    for (adopts, names) in [(true, &change.adopt), (false, &change.release)] {
        for machine in names
            .iter()
            .filter_map(|name| find(if adopts { &orphans } else { machines }, name))
        {
            let mut owners: Vec<OwnerReference> = machine.owner_references().to_vec();
            if adopts {
                owners.extend(meta::controller_owner(set));
            } else {
                owners.retain(|o| Some(&o.uid) != set.metadata.uid.as_ref());
            }
            let label = adopts.then_some(&name);
            tracing::info!(set = %name, machine = %machine.name_any(), adopts, "machine changes hands");
            let patch = json!({"metadata": {"ownerReferences": owners, "labels": {meta::LABEL_SET_NAME: label}}});
            shared.patch(machine.as_ref(), patch, BY).await?;
        }
    }
    Ok(change != Ownership::default())
}

/// Says of each broken machine what is done about it, and deletes those that go; gives which, and why.
async fn replace_broken(
    shared: &Shared,
    machines: &[Arc<Machine>],
    remediation: &Remediation,
    key: &Key,
) -> Result<Vec<(String, String)>, Error> {
    let mut replaced = Vec::new();
    for said in &remediation.say {
        let Some(machine) = machines.iter().find(|m| m.name_any() == said.machine) else {
            continue;
        };
        let goes = remediation.delete.contains(&said.machine);
        let (mut reason, mut message) = (said.reason, said.message.clone());
        // Most are out of service already; one whose replacement somebody asked for may not be.
        let held = goes.then(|| shared.budgets.blocked(shared, machine, key));
        let held = held.flatten();
        if let Some(held) = &held {
            (reason, message) = (condition::reason::REMEDIATION_DEFERRED, held.clone());
        }
        let mut status = machine.status.clone().unwrap_or_default();
        condition::set(
            &mut status.conditions,
            condition::kind::OWNER_REMEDIATED,
            condition::Status::False,
            reason,
            message,
            machine.metadata.generation,
            shared.now(),
        );
        let (namespace, name) = name_of(machine.as_ref());
        // One that has recovered meanwhile was written since, and this fails with a conflict.
        shared
            .write_status(machine.as_ref(), machine.status.as_ref(), &status, BY)
            .await?;
        if goes && held.is_none() {
            let latest = shared.caches.get::<Machine>(&namespace, &name);
            let latest = latest.filter(|m| is_broken(m) && m.uid() == machine.uid());
            if let Some(machine) = latest
                && let because = broken_goes(&machine)
                && shared.take(&machine, because.clone(), key).await?.is_none()
            {
                tracing::info!(machine = %name, "broken machine goes");
                replaced.push((name, because));
            }
        }
    }
    Ok(replaced)
}

async fn raise<K: Written>(shared: &Shared, owner: &K, to: u64) -> Result<(), Error> {
    if Shared::next_ordinal(owner) < to {
        shared.patch(owner, Shared::ordinal_patch(to), BY).await?;
    }
    Ok(())
}

/// A Machine with its finalizer on it and its instance key drawn: nothing has to be added before its
/// instance is asked for.
pub(super) fn to_machine(
    shared: &Shared,
    namespace: Option<String>,
    owner: OwnerReference,
    new: NewMachine,
) -> Machine {
    let mut spec = new.spec;
    let key = shared.context.random.key128();
    let account = spec.content.provider_config.account();
    shared.inventory.drew(account, &key, shared.now());
    spec.instance_key = Some(key);
    let mut machine = Machine::new(&new.name, spec);
    machine.metadata.namespace = namespace;
    machine.metadata.labels = Some(new.labels);
    machine.metadata.annotations = Some(new.annotations);
    machine.metadata.finalizers = Some(vec![meta::FINALIZER_MACHINE.to_owned()]);
    machine.metadata.owner_references = Some(vec![owner]);
    machine
}

/// Puts the machines that were made last in the place of those that are to go.
#[cfg(feature = "seeded-bugs")]
fn youngest_first(
    mut decision: fleetwright_core::machine_set::SetDecision,
    machines: &[Arc<Machine>],
) -> fleetwright_core::machine_set::SetDecision {
    if fleetwright_api::bugs::on("i9-youngest-goes-first") {
        let stay = machines
            .iter()
            .rev()
            .filter(|m| m.metadata.deletion_timestamp.is_none());
        for (doomed, machine) in decision.delete.iter_mut().zip(stay) {
            doomed.name = machine.name_any();
        }
    }
    decision
}
