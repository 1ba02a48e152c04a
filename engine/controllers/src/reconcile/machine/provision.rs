//! What the provider is asked of a machine's instance: to make it, and to change it in place.

use std::sync::Arc;

use fleetwright_api::{Cluster, Machine, ProviderAccount, ProviderConfig, meta, names};
use fleetwright_core::{cluster::is_control_plane, machine::Instance, rebuild::for_provider};
use fleetwright_providers::{
    Account, CreateInstance, InstanceState, Ownership, Provider, ProviderError, UpdateInstance,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Error, Shared, View, drifting};
use crate::{bootstrap::user_data, cache::name_of, drift, inventory::Seen, node_sync, queue::Key};

/// The provider and the account of a machine.
pub(super) fn provider(
    shared: &Shared,
    machine: &Machine,
    name: &str,
) -> Result<(Arc<dyn Provider>, Account), Error> {
    account_provider(shared, &machine.namespace().unwrap_or_default(), name)
}

/// The provider and the account of this name, for an object in this namespace.
pub(crate) fn account_provider(
    shared: &Shared,
    namespace: &str,
    name: &str,
) -> Result<(Arc<dyn Provider>, Account), Error> {
    let account = shared.caches.get::<ProviderAccount>("", name).ok_or_else(|| {
        Error::Invalid(format!("there is no ProviderAccount {name}: make it, or name another in providerConfig.account"))
    })?;
    let allowed = &account.spec.allowed_namespaces;
    if !allowed.is_empty() && !allowed.iter().any(|allowed| allowed == namespace) {
        return Err(Error::Invalid(format!(
            "ProviderAccount {name} is not for namespace {namespace}"
        )));
    }
    let provider = shared
        .context
        .providers
        .get(&account.spec.provider)
        .ok_or_else(|| {
            let known = shared
                .context
                .providers
                .names()
                .collect::<Vec<_>>()
                .join(", ");
            Error::Invalid(format!(
                "ProviderAccount {name} names provider {}, but there are: {known}",
                account.spec.provider
            ))
        })?;
    Ok((Arc::clone(provider), shared.account(&account)?))
}

fn word<T>(result: &Result<T, ProviderError>) -> &'static str {
    result.as_ref().err().map_or("Ok", ProviderError::word)
}

/// Counts a call to a provider, when it is made.
pub(crate) async fn called<T>(
    shared: &Shared,
    verb: &'static str,
    call: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    let begun = Instant::now();
    let result = call.await;
    let seconds = begun.elapsed().as_secs_f64();
    shared.context.metrics.called(verb, word(&result), seconds);
    result
}

pub(super) async fn create_instance(
    shared: &Shared,
    machine: &Machine,
    view: &mut View,
) -> Result<(), Error> {
    let (provider, account) = provider(shared, machine, &view.account)?;
    let (namespace, name) = name_of(machine);
    let owner = owner(shared, machine);
    #[cfg(feature = "seeded-bugs")]
    let owner = match fleetwright_api::bugs::on("i1-new-key-on-retry") && machine.status.is_some() {
        true => Ownership {
            instance_key: shared.context.random.key128(),
            ..owner
        },
        false => owner,
    };
    let key = owner.instance_key.clone();
    let given = view.given.clone();
    let order = CreateInstance {
        owner,
        control_plane: is_control_plane(machine),
        version: machine.spec.content.version.clone().unwrap_or_default(),
        config: given.config,
        cluster_config: given.cluster_config,
        config_digest: given.config_digest,
        failure_domain: machine.spec.content.failure_domain.clone(),
        labels: node_sync::labels(machine),
        taints: node_sync::registered(machine),
        user_data: None,
    };
    let (inventory, now, asked) = (&shared.inventory, shared.now(), (&account, &order));
    let cluster = view.cluster.as_deref();
    // What it boots from is made with the call: what was refused for good leaves nothing behind each time.
    let call = async {
        let given = match cluster {
            Some(cluster) => {
                let provider = provider.as_ref();
                user_data(shared, machine, cluster, provider, &account, &order).await
            }
            None => Ok(None),
        };
        let user_data = match given {
            Ok(user_data) => user_data,
            Err(Error::Provider(error)) => return Err(error),
            Err(other) => return Ok(Err(other)),
        };
        let order = CreateInstance {
            user_data,
            ..order.clone()
        };
        let create = called(shared, "create", provider.create(&account, &order));
        let made = inventory.asked(&view.account, &key, now, create).await?;
        Ok(Ok(made))
    };
    let refusals = &shared.refusals;
    let instance = refusals.call((&key, "create"), &asked, now, call).await??;
    inventory.wrote(&view.account, &key, Some(instance.clone()));
    if instance.state != InstanceState::Pending {
        // It was asked for before, and a list that was behind did not show it: no news of it will come.
        shared.queue.add(Key::Machine(namespace, name));
    }
    view.seen = Seen::There(Arc::new(instance));
    view.facts.instance = Instance::Pending;
    Ok(())
}

/// Whose the machine's instance is.
pub(super) fn owner(shared: &Shared, machine: &Machine) -> Ownership {
    let (namespace, name) = name_of(machine);
    let cluster = &machine.spec.cluster_name;
    let label = |key: &str| machine.labels().get(key).cloned().unwrap_or_default();
    Ownership {
        installation: shared.context.installation.clone(),
        cluster_key: names::cluster_key(&shared.context.installation, &namespace, cluster),
        cluster: format!("{namespace}/{cluster}"),
        pool: label(meta::LABEL_DEPLOYMENT_NAME),
        set: label(meta::LABEL_SET_NAME),
        machine: name,
        instance_key: machine.spec.instance_key.clone().unwrap_or_default(),
    }
}

/// The settings that a machine's instance should have: its own, and for the control plane the cluster's. Whose it is is not in them.
pub(super) fn given(machine: &Machine, cluster: Option<&Cluster>) -> UpdateInstance {
    let config = for_provider(machine.spec.content.provider_config.settings());
    let cluster_config = cluster
        .filter(|_| is_control_plane(machine))
        .and_then(|c| c.spec.provider_config.as_ref());
    UpdateInstance {
        owner: Ownership::default(),
        config_digest: digest(&config, cluster_config),
        config,
        cluster_config: cluster_config.map(ProviderConfig::to_value),
    }
}

/// What tells settings of an instance from others.
pub(in crate::reconcile) fn digest(
    config: &Value,
    cluster_config: Option<&ProviderConfig>,
) -> String {
    let text = json!([config, cluster_config]).to_string();
    names::short_hash(["config", &text], 16)
}

/// Tells the provider of settings that changed in place since the instance was last told, and writes back what others changed of them
/// where its Fleet wants that.
pub(super) async fn update_instance(
    shared: &Shared,
    machine: &Machine,
    view: &mut View,
) -> Result<(), Error> {
    let (Seen::There(instance), Some(_)) = (&view.seen, &view.cluster) else {
        return Ok(());
    };
    let (namespace, name) = name_of(machine);
    let now = shared.now();
    let key = Key::Machine(namespace, name);
    let mut put_right = Vec::new();
    if instance.config_digest == view.given.config_digest {
        let (_, correction) = drifting::read(shared, machine, view, false, None, now);
        put_right = correction.write_back;
        view.again = shared.drifts.put_right_before(&key, &put_right, now);
        if put_right.is_empty() || view.again.is_some() {
            return Ok(());
        }
    }
    let change = UpdateInstance {
        owner: owner(shared, machine),
        ..view.given.clone()
    };
    let (provider, account) = provider(shared, machine, &view.account)?;
    let call = called(
        shared,
        "update",
        provider.update(&account, &instance.id, &change),
    );
    let (refusals, asked) = (&shared.refusals, (&account, &change, &put_right));
    let instance_key = change.owner.instance_key.as_str();
    let updated = refusals
        .call((instance_key, "update"), &asked, now, call)
        .await?;
    let account = &view.account;
    let shown = Some(updated.clone());
    shared.inventory.wrote(account, instance_key, shown);
    view.seen = Seen::There(Arc::new(updated));
    if !put_right.is_empty() {
        tracing::info!(machine = %name_of(machine).1, what = %put_right.join("; "), "drift is put right");
        drift::tell_put_right(shared, machine, &put_right).await;
        shared.drifts.put_right(key, put_right, now);
    }
    Ok(())
}
