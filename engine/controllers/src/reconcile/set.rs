//! MachineSet: as many machines as wanted, each with what reaches it in place.

use fleetwright_api::{Machine, MachineDeployment, MachineSet, meta};
use fleetwright_core::{
    machine_set::{NewMachine, decide},
    outcome::Outcome,
    status,
};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

use super::{Error, Shared};
use crate::{cache::name_of, write::Written};

const BY: &str = "fleetwright-machineset";
/// Machines that a set makes at the same time.
const AT_ONCE: usize = 16;

pub(super) async fn reconcile(shared: &Shared, set: &MachineSet) -> Result<Outcome, Error> {
    let (namespace, name) = name_of(set);
    shared.know_again().await?;
    let machines: Vec<Machine> = shared.caches.owned(&set.uid().unwrap_or_default());
    let pool = meta::controller_of(set)
        .filter(|o| o.kind == "MachineDeployment")
        .and_then(|o| shared.caches.get::<MachineDeployment>(&namespace, &o.name));
    let now = shared.now();
    let next = pool.as_ref().map_or_else(
        || Shared::next_ordinal(set),
        |p| Shared::next_ordinal(p.as_ref()),
    );
    let decision = decide(set, &machines, next, &shared.catalogue, now);
    #[cfg(feature = "seeded-bugs")]
    let decision = youngest_first(decision, &machines);

    let new = status::machine_set(set, &machines, now);
    shared
        .write_status(set, set.status.as_ref(), &new, BY)
        .await?;

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
            try_join_all(
                some.iter()
                    .map(|machine| shared.create_machine(machine, BY)),
            )
            .await?;
        }
    }
    for doomed in &decision.delete {
        if let Some(machine) = machines.iter().find(|m| m.name_any() == doomed.name) {
            tracing::info!(set = %name, machine = %doomed.name, because = %doomed.because, "machine goes");
            shared.delete(machine).await?;
        }
    }
    for update in &decision.update {
        if let Some(machine) = machines.iter().find(|m| m.name_any() == update.name) {
            shared.update_machine(machine, update, BY).await?;
        }
    }
    match (&decision.waiting, decision.is_settled()) {
        (_, false) => Ok(Outcome::Changed),
        (Some(wait), true) => Ok(Outcome::wait(wait.to_string())),
        (None, true) => Ok(Outcome::Done),
    }
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

/// Puts the machines that were made last in the place of those that are to go.
#[cfg(feature = "seeded-bugs")]
fn youngest_first(
    mut decision: fleetwright_core::machine_set::SetDecision,
    machines: &[Machine],
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
