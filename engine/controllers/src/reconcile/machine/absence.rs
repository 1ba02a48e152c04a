//! An instance that no list shows.

use std::sync::Arc;

use fleetwright_api::{Machine, meta};
use fleetwright_core::machine::{Instance, Proof, proof};
use fleetwright_providers::{InstanceState, Ownership};
use jiff::SignedDuration;

use super::{Error, Shared, View, called, provider, seconds_until};
use crate::inventory::Seen;

/// Seconds between lists while one is waited for that cannot be behind.
const LISTED: u64 = 5;

pub(super) fn instance(seen: &Seen) -> Instance {
    match seen {
        Seen::Unknown => Instance::Unknown,
        Seen::Missing => Instance::Missing,
        Seen::There(i) => match i.state {
            InstanceState::Pending => Instance::Pending,
            InstanceState::Failed => Instance::Failed,
            InstanceState::Running | InstanceState::Stopped => Instance::Running {
                provider_id: i.provider_id.clone(),
            },
            InstanceState::Deleting => Instance::Stopping,
        },
    }
}

/// A list that does not show an instance may be behind: before its machine is given up or let go, the provider is asked for it by its
/// id, or a list that cannot be behind any more must not show it either. Gives when to look again.
pub(super) async fn prove_absence(
    shared: &Shared,
    machine: &Machine,
    view: &mut View,
) -> Result<Option<u64>, Error> {
    // One that comes up is asked for once more with its key, which makes no second one.
    let given_up =
        machine.metadata.deletion_timestamp.is_some() || machine.spec.provider_id.is_some();
    let key = machine.spec.instance_key.as_deref().unwrap_or_default();
    if view.seen != Seen::Missing || !given_up || meta::is_paused(machine) {
        return Ok(None);
    }
    let Some(absent) = shared.inventory.absent(&view.account, key) else {
        return Ok(None);
    };
    if proof(machine, absent, SignedDuration::MAX) == Proof::Given {
        return Ok(None);
    }
    view.facts.instance = Instance::Unknown;
    let (provider, account) = provider(shared, machine, &view.account)?;
    let lag = provider.lists_catch_up_after();
    let lag = SignedDuration::try_from(lag).unwrap_or(SignedDuration::MAX);
    match proof(machine, absent, lag) {
        Proof::Given => view.facts.instance = Instance::Missing,
        Proof::ListAt(at) => {
            // It may show before: then it is deleted at once.
            shared.inventory.hurry(&view.account);
            return Ok(Some(seconds_until(at, shared.now()).clamp(1, LISTED)));
        }
        Proof::AskFor(id) => {
            let found = called(shared, "get", provider.get(&account, &id)).await?;
            let ours = |owner: &Ownership| owner.instance_key == key;
            let found = found.filter(|i| i.owner.as_ref().is_some_and(ours));
            match found {
                None => {
                    shared.inventory.gone(&view.account, key, shared.now());
                    view.facts.instance = Instance::Missing;
                }
                Some(found) => {
                    let account = &view.account;
                    shared.inventory.wrote(account, key, Some(found.clone()));
                    view.seen = Seen::There(Arc::new(found));
                    view.facts.instance = instance(&view.seen);
                }
            }
        }
    }
    Ok(None)
}
