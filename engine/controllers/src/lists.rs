//! The lists of all accounts: each when it is due, and whom what it shows concerns.

use std::sync::Arc;

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, ProviderAccount,
    condition::{self, Status, kind},
};
use fleetwright_core::{health::is_broken, rebuild::has_begun};
use fleetwright_providers::{ListScope, ProviderError};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    cache::name_of,
    inventory::IDLE,
    queue::Key,
    reconcile::Shared,
    schedule::{Listed, Schedule},
    wake,
};

/// Lists every account when its list is due.
pub(crate) async fn list_accounts(shared: Arc<Shared>) {
    let mut schedule = Schedule::default();
    loop {
        let accounts = shared.caches.all::<ProviderAccount>();
        let look = |account: &Arc<ProviderAccount>| {
            let name = account.name_any();
            let moves = shared.inventory.moving(&name);
            Listed {
                generation: account.metadata.generation,
                moving: moves.then(|| shared.inventory.pause(&name)),
                name,
            }
        };
        let known: Vec<Listed> = accounts.iter().map(look).collect();
        let mut lists = JoinSet::new();
        for name in schedule.take(&known, Instant::now()) {
            if let Some(account) = accounts.iter().find(|a| a.name_any() == name) {
                lists.spawn(list(Arc::clone(&shared), Arc::clone(account)));
            }
        }
        while let Some(done) = lists.join_next().await {
            let Ok((name, result)) = done else { continue };
            if let Err(error) = &result {
                tracing::warn!(account = %name, %error, "cannot list the account's instances");
            }
            // Whether something moves is known better now, and the generation is the one that was asked with.
            if let Some(account) = accounts.iter().find(|a| a.name_any() == name) {
                schedule.ended(&look(account), result.err().as_ref(), Instant::now());
            }
        }
        let next = schedule.next().unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(next) => {}
            () = shared.inventory.wake.notified() => {}
        }
    }
}

async fn list(
    shared: Arc<Shared>,
    account: Arc<ProviderAccount>,
) -> (String, Result<(), ProviderError>) {
    let name = account.name_any();
    let Some(provider) = shared
        .context
        .providers
        .get(&account.spec.provider)
        .cloned()
    else {
        return (
            name,
            Err(ProviderError::Terminal {
                message: format!("no provider {}", account.spec.provider),
            }),
        );
    };
    let begun = shared.inventory.begin(shared.now());
    let asked = Instant::now();
    let result = match shared.read_account(&account).await {
        Ok(account) => provider.list(&account, &ListScope::Account).await,
        Err(error) => Err(error),
    };
    if let Err(ProviderError::Credentials { .. }) = &result {
        shared.credentials.doubt(&name);
    }
    shared.context.metrics.called(
        "list",
        result.as_ref().err().map_or("Ok", ProviderError::word),
        asked.elapsed().as_secs_f64(),
    );
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("i2-owner-by-name") {
        let strangers = result
            .iter()
            .flatten()
            .filter_map(|i| Some((&i.id, i.owner.as_ref()?)));
        for (id, owner) in strangers.filter(|(_, o)| o.installation != shared.context.installation)
        {
            let named = |c: &Arc<Cluster>| owner.cluster.ends_with(&c.name_any());
            if shared.caches.all::<Cluster>().iter().any(named) {
                provider
                    .delete(
                        &fleetwright_providers::Account::from(account.as_ref()),
                        id,
                        &owner.instance_key,
                    )
                    .await
                    .ok();
            }
        }
    }
    if let Err(error) = &result
        && shared.inventory.failed(&name, error.clone())
    {
        // Machines that wait for the first list say why it does not come, and those that differed that nobody knows.
        let complete = shared.inventory.is_complete(&name);
        wake_machines_of(&shared, &name, |m| !complete || differs(m));
        wake_who_replaces(&shared, &name);
        if !complete {
            wake_pools_that_wait(&shared);
            wake_clusters(&shared);
        }
    }
    tell(&shared, &account, result.as_ref().err()).await;
    let outcome = result.map(|list| {
        let complete_before = shared.inventory.is_complete(&name);
        let troubled = shared.inventory.trouble(&name).is_some();
        let changed = shared.inventory.listed(&name, begun, list);
        for owner in changed {
            let Some((namespace, cluster)) = owner.cluster.split_once('/') else {
                continue;
            };
            let machine = shared.caches.get::<Machine>(namespace, &owner.machine);
            let known = machine.and_then(|m| m.spec.instance_key.clone());
            let key = if known.as_ref() == Some(&owner.instance_key) {
                Key::Machine(namespace.to_owned(), owner.machine)
            } else {
                // Its Cluster shows instances that belong to no Machine.
                Key::Cluster(namespace.to_owned(), cluster.to_owned())
            };
            shared.queue.add(key);
        }
        if !complete_before || troubled {
            wake_machines_of(&shared, &name, |m| !complete_before || differs(m));
            wake_who_replaces(&shared, &name);
        }
        if !complete_before {
            wake_pools_that_wait(&shared);
            // Now they can tell whose instances there are.
            wake_clusters(&shared);
        }
    });
    (name, outcome)
}

/// Says on the account whether it can be read. Errors that pass by themselves change nothing of it.
async fn tell(shared: &Shared, account: &ProviderAccount, error: Option<&ProviderError>) {
    let mut status = account.status.clone().unwrap_or_default();
    let (is, reason, message) = match error {
        None => (Status::True, "Listed", String::new()),
        Some(error) if error.is_terminal() => (Status::False, error.word(), error.to_string()),
        Some(_) => return,
    };
    let (list, generation) = (&mut status.conditions, account.metadata.generation);
    condition::set(
        list,
        kind::READY,
        is,
        reason,
        message,
        generation,
        shared.now(),
    );
    if account.status.as_ref() == Some(&status) {
        return;
    }
    let api = Api::<ProviderAccount>::all(shared.context.client.clone());
    let patch = Patch::Merge(json!({"status": {"conditions": status.conditions}}));
    let params = PatchParams {
        field_manager: Some("fleetwright-provideraccount".into()),
        ..PatchParams::default()
    };
    // Nobody decides by it: the next list says it again.
    if let Err(error) = api.patch_status(&account.name_any(), &params, &patch).await {
        tracing::debug!(account = %account.name_any(), %error, "the account's status is not written");
    }
}

/// Wakes pools that have made no machine yet, and their sets: they wait for a list.
fn wake_pools_that_wait(shared: &Shared) {
    for pool in shared.caches.all::<MachineDeployment>() {
        if has_begun(pool.metadata.annotations.as_ref()) {
            continue;
        }
        let (namespace, name) = name_of(pool.as_ref());
        for set in shared
            .caches
            .owned::<MachineSet>(&pool.uid().unwrap_or_default())
        {
            let set = Key::Set(namespace.clone(), set.name_any());
            shared.queue.add(set);
        }
        shared.queue.add(Key::Pool(namespace, name));
    }
}

fn wake_clusters(shared: &Shared) {
    for cluster in shared.caches.all::<Cluster>() {
        let (namespace, cluster) = name_of(cluster.as_ref());
        shared.queue.add(Key::Cluster(namespace, cluster));
    }
}

/// Wakes those of an account's machines that `which` holds for.
fn wake_machines_of(shared: &Shared, account: &str, which: impl Fn(&Machine) -> bool) {
    for machine in shared.caches.all::<Machine>() {
        if machine.spec.content.provider_config.account() == account && which(&machine) {
            let (namespace, machine) = name_of(machine.as_ref());
            shared.queue.add(Key::Machine(namespace, machine));
        }
    }
}

/// Wakes who replaces broken machines of an account: none is replaced while it cannot be listed.
fn wake_who_replaces(shared: &Shared, account: &str) {
    for machine in shared.caches.all::<Machine>() {
        if is_broken(&machine) && machine.spec.content.provider_config.account() == account {
            wake::who_replaces(shared, &machine);
        }
    }
}

/// Whether a machine says that it differs, or that it did when it was last seen.
fn differs(machine: &Machine) -> bool {
    let conditions = machine.status.as_ref().map(|s| &s.conditions);
    conditions.is_some_and(|list| condition::get(list, kind::IN_SYNC).is_some())
}
