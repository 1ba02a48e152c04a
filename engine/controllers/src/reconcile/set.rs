//! MachineSet: as many machines as wanted, each with what reaches it in place.

use fleetwright_api::{Machine, MachineDeployment, MachineSet, condition, meta};
use fleetwright_core::{
    health::is_broken,
    machine_set::{NewMachine, Remediation, decide},
    outcome::Outcome,
    status,
};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::{Error, Shared, seconds_until};
use crate::{cache::name_of, health, queue::Key, write::Written};

const BY: &str = "fleetwright-machineset";
/// Machines that a set makes at the same time.
const AT_ONCE: usize = 16;

pub(super) async fn reconcile(shared: &Shared, set: &MachineSet) -> Result<Outcome, Error> {
    let (namespace, name) = name_of(set);
    let machines: Vec<Machine> = shared.caches.owned(&set.uid().unwrap_or_default());
    let pool = meta::controller_of(set)
        .filter(|o| o.kind == "MachineDeployment")
        .and_then(|o| shared.caches.get::<MachineDeployment>(&namespace, &o.name));
    let now = shared.now();
    let next = pool.as_ref().map_or_else(
        || Shared::next_ordinal(set),
        |p| Shared::next_ordinal(p.as_ref()),
    );
    let key = Key::Set(namespace.clone(), name.clone());
    let (remediation, look_again) = health::remediation(shared, set, pool.as_deref(), &machines);
    let surge = remediation.surge;
    let decision = decide(set, &machines, next, surge, &shared.catalogue, now);
    let find = |name: &str| machines.iter().find(|m| m.name_any() == name);
    let held = decision
        .delete
        .iter()
        .filter_map(|doomed| find(&doomed.name))
        .find_map(|machine| shared.budgets.blocked(shared, machine, &key));

    let new = status::machine_set(set, &machines, held.as_deref(), now);
    shared
        .write_status(set, set.status.as_ref(), &new, BY)
        .await?;
    let replaced = replace_broken(shared, &machines, &remediation, &key).await?;

    if !decision.create.is_empty() {
        // The counter goes up first, so that an ordinal is never used again.
        match &pool {
            Some(pool) => raise(shared, pool.as_ref(), decision.next_ordinal).await?,
            None => raise(shared, set, decision.next_ordinal).await?,
        }
        let owner = meta::controller_owner(set)
            .ok_or_else(|| Error::Invalid("the set has no uid".into()))?;
        let mut machines = Vec::with_capacity(decision.create.len());
        for new in &decision.create {
            tracing::info!(set = %name, machine = %new.name, "new machine");
            machines.push(to_machine(
                shared,
                set.namespace(),
                owner.clone(),
                new.clone(),
            ));
        }
        // Together they share the API's commits.
        for some in machines.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|machine| shared.create(machine, BY))).await?;
        }
    }
    for doomed in &decision.delete {
        if let Some(machine) = find(&doomed.name)
            && shared.take(machine, &key).await?.is_none()
        {
            tracing::info!(set = %name, machine = %doomed.name, because = %doomed.because, "machine goes");
        }
    }
    for update in &decision.update {
        if let Some(machine) = find(&update.name) {
            shared.update_machine(machine, update, BY).await?;
        }
    }
    if let Some(at) = look_again {
        return Ok(Outcome::wait_seconds(
            "machines that broke together",
            seconds_until(at, now),
        ));
    }
    match (&decision.waiting, decision.is_settled() && !replaced) {
        (_, false) => Ok(Outcome::Changed),
        (Some(wait), true) => Ok(Outcome::wait(wait.to_string())),
        (None, true) => Ok(Outcome::Done),
    }
}

/// Says of each broken machine what is done about it, and deletes those that go; `true` when one did.
async fn replace_broken(
    shared: &Shared,
    machines: &[Machine],
    remediation: &Remediation,
    key: &Key,
) -> Result<bool, Error> {
    let mut replaced = false;
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
        let (namespace, name) = name_of(machine);
        // One that has recovered meanwhile was written since, and this fails with a conflict.
        shared
            .write_status(machine, machine.status.as_ref(), &status, BY)
            .await?;
        if goes && held.is_none() {
            let latest = shared.caches.get::<Machine>(&namespace, &name);
            let latest = latest.filter(|m| is_broken(m) && m.uid() == machine.uid());
            if let Some(machine) = latest
                && shared.take(&machine, key).await?.is_none()
            {
                tracing::info!(machine = %name, "broken machine goes");
                replaced = true;
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
    spec.instance_key = Some(shared.context.random.key128());
    let mut machine = Machine::new(&new.name, spec);
    machine.metadata.namespace = namespace;
    machine.metadata.labels = Some(new.labels);
    machine.metadata.annotations = Some(new.annotations);
    machine.metadata.finalizers = Some(vec![meta::FINALIZER_MACHINE.to_owned()]);
    machine.metadata.owner_references = Some(vec![owner]);
    machine
}
