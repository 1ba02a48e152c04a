//! An order as values: what it is called, what stands in it, and what it shows.

use std::collections::BTreeMap;

use fleetwright_api::{
    ExternalInstance, ProviderConfig,
    external_instance::{ExternalInstanceSpec, ExternalInstanceState as State, UserDataRef},
    meta::{
        FINALIZER_RELEASE, LABEL_ACCOUNT, LABEL_CLUSTER_KEY, LABEL_CLUSTER_NAME,
        LABEL_DEPLOYMENT_NAME,
    },
    names,
};
use fleetwright_providers::{
    Account, CreateInstance, Instance, InstanceState, Ownership, ProviderError,
};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

/// Longest name of an order: that of the Secret beside it.
const LONGEST: usize = 253;

pub(crate) fn terminal<T>(message: impl Into<String>) -> Result<T, ProviderError> {
    Err(ProviderError::Terminal {
        message: message.into(),
    })
}

/// Namespace and name of an owner's order, which its Secret has too: one for each instance key.
///
/// # Errors
/// The owner has no Machine, no key or no Cluster.
pub(crate) fn place(owner: &Ownership) -> Result<(&str, String), ProviderError> {
    let (key, machine) = (&owner.instance_key, &owner.machine);
    if key.is_empty() || machine.is_empty() {
        return terminal("the order names no machine and instance key");
    }
    let Some((namespace, _)) = owner.cluster.split_once('/') else {
        return terminal(format!("{:?} is no namespace/name", owner.cluster));
    };
    let suffix = names::short_hash(["external", key], 10);
    Ok((namespace, names::child_name(machine, &suffix, LONGEST)))
}

/// What a node registers as its `spec.providerID`.
pub fn provider_id(namespace: &str, name: &str) -> String {
    format!("external://{namespace}/{name}")
}

/// Labels of an owner's order.
pub(crate) fn labels(account: &str, owner: &Ownership) -> BTreeMap<String, String> {
    let cluster = owner.cluster.split_once('/').map_or("", |(_, name)| name);
    let all = [
        (LABEL_ACCOUNT, account),
        (LABEL_CLUSTER_KEY, &owner.cluster_key),
        (LABEL_CLUSTER_NAME, cluster),
        (LABEL_DEPLOYMENT_NAME, &owner.pool),
    ];
    let all = all.into_iter().filter(|(_, value)| !value.is_empty());
    all.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Settings as they stand in an order.
pub(crate) fn settings(config: &Value) -> ProviderConfig {
    let settings: Map<String, Value> = config.as_object().cloned().unwrap_or_default();
    settings.into()
}

/// The order itself.
///
/// # Errors
/// As [`place`].
pub(crate) fn object(
    account: &Account,
    order: &CreateInstance,
) -> Result<ExternalInstance, ProviderError> {
    let owner = order.owner.clone();
    let (namespace, name) = place(&order.owner)?;
    let cluster = owner.cluster.split_once('/').map_or("", |(_, name)| name);
    let spec = ExternalInstanceSpec {
        account: account.name.clone(),
        installation: owner.installation,
        cluster_name: cluster.to_owned(),
        cluster_key: owner.cluster_key,
        pool: owner.pool,
        set: owner.set,
        machine: owner.machine,
        instance_key: owner.instance_key,
        provider_id: provider_id(namespace, &name),
        control_plane: order.control_plane,
        version: order.version.clone(),
        provider_config: settings(&order.config),
        config_digest: order.config_digest.clone(),
        failure_domain: order.failure_domain.clone(),
        labels: order.labels.clone(),
        taints: order.taints.clone(),
        user_data: order.user_data.as_ref().map(|_| UserDataRef {
            secret_name: name.clone(),
        }),
    };
    let mut object = ExternalInstance::new(&name, spec);
    object.metadata.namespace = Some(namespace.to_owned());
    object.metadata.labels = Some(labels(&account.name, &order.owner));
    object.metadata.finalizers = Some(vec![FINALIZER_RELEASE.to_owned()]);
    Ok(object)
}

/// The Secret with an order's user data; with the order once that is there, so that it goes with it.
pub(crate) fn secret(name: &str, user_data: &str, order: Option<&ExternalInstance>) -> Value {
    // Ignition's configuration is JSON, all else says what it is in its first line.
    let format = match user_data.starts_with('{') {
        true => "ignition",
        false => "cloud-config",
    };
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "cluster.x-k8s.io/secret",
        "metadata": {"name": name},
        "data": {"value": bytes(user_data), "format": bytes(format)},
    });
    if let Some(order) = order {
        secret["metadata"]["ownerReferences"] = json!([{
            "apiVersion": fleetwright_api::API_VERSION, "kind": "ExternalInstance",
            "name": name, "uid": order.uid(),
        }]);
    }
    secret
}

/// Whether nobody has taken the order up: then there is no machine to give back.
pub(crate) fn is_open(order: &ExternalInstance) -> bool {
    order.status.as_ref().is_none_or(|s| s.state.is_none())
}

/// Finalizers that an order is to be deleted with: ours stays, and comes back, unless there is no machine to give back.
pub(crate) fn to_delete(order: &ExternalInstance) -> Vec<String> {
    let mut finalizers = order.finalizers().to_vec();
    finalizers.retain(|f| f != FINALIZER_RELEASE);
    if !is_open(order) {
        finalizers.push(FINALIZER_RELEASE.to_owned());
    }
    finalizers
}

/// The order as an instance.
pub(crate) fn show(order: &ExternalInstance) -> Instance {
    let (namespace, name) = (order.namespace().unwrap_or_default(), order.name_any());
    let id = format!("{namespace}/{name}");
    let (spec, status) = (&order.spec, order.status.clone().unwrap_or_default());
    let deleting = order.metadata.deletion_timestamp.is_some();
    let state = match status.state {
        _ if deleting => InstanceState::Deleting,
        None | Some(State::Pending) => InstanceState::Pending,
        Some(State::Running) => InstanceState::Running,
        Some(State::Stopped) => InstanceState::Stopped,
        Some(State::Failed) => InstanceState::Failed,
    };
    let reason = match status.reason {
        _ if deleting => Some(format!(
            "ExternalInstance {id} waits until whoever runs the machine has given it back and removes finalizer {FINALIZER_RELEASE}"
        )),
        None if is_open(order) => Some(format!("nobody has taken up ExternalInstance {id} yet")),
        reason => reason,
    };
    let image = || spec.provider_config.settings().get("image")?.as_str();
    let created = order.metadata.creation_timestamp.as_ref();
    Instance {
        provider_id: provider_id(&namespace, &name),
        owner: Some(Ownership {
            installation: spec.installation.clone(),
            cluster_key: spec.cluster_key.clone(),
            cluster: format!("{namespace}/{}", spec.cluster_name),
            pool: spec.pool.clone(),
            set: spec.set.clone(),
            machine: spec.machine.clone(),
            instance_key: spec.instance_key.clone(),
        }),
        state,
        reason,
        addresses: status.addresses,
        failure_domain: spec.failure_domain.clone(),
        instance_type: status.instance_type.unwrap_or_default(),
        image: status
            .image
            .unwrap_or_else(|| image().unwrap_or_default().to_owned()),
        settings: Default::default(),
        config_digest: spec.config_digest.clone(),
        version: spec.version.clone(),
        created: created.map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        id,
    }
}

#[cfg(test)]
mod tests;
