//! What one instance is given when it is made, so that it becomes a node of its cluster.

use std::time::Duration;

use fleetwright_api::{Cluster, Machine, cluster::Endpoint, secret::SecretText, version::Version};
use fleetwright_bootstrap::{
    kubeadm::{ClusterValues, NodeValues, ProviderId, Role},
    setup::{OperatingSystem, node_setup},
    token::{self, BootstrapToken},
    user_data::{self, UserData},
};
use fleetwright_providers::{Account, CreateInstance, NodeId, Ownership, Provider};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{is_ours, steps};
use crate::{
    cache::name_of,
    reconcile::{Error, Shared},
};

/// Time between two looks at the token of a machine that boots.
const AGAIN: Duration = Duration::from_secs(300);

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::Invalid(error.to_string())
}

fn version(text: Option<&str>) -> Result<Version, Error> {
    let text = text.unwrap_or_default();
    text.parse()
        .map_err(|_| invalid(format!("{text:?} is no Kubernetes version")))
}

/// The user data of an order; `None` where the provider's instances become nodes by themselves, or by those who make them. What holds
/// secrets is kept at the provider first, and tokens are made known to the cluster.
pub(crate) async fn user_data(
    shared: &Shared,
    machine: &Machine,
    cluster: &Cluster,
    provider: &dyn Provider,
    account: &Account,
    order: &CreateInstance,
) -> Result<Option<SecretText>, Error> {
    let Some(bootstrap) = provider.bootstrap() else {
        return Ok(None);
    };
    let by_others = bootstrap.made_by_others();
    if by_others && !is_ours(shared, cluster) {
        return Ok(None);
    }
    let key = name_of(cluster);
    let status = cluster.status.clone().unwrap_or_default();
    let endpoint: Endpoint = status
        .control_plane_endpoint
        .ok_or_else(|| invalid("the endpoint of the cluster's API is not known yet"))?;
    let pki = shared.grounds.with(&key, |known| known.pki.clone());
    let pki =
        pki.ok_or_else(|| invalid("the cluster's keys and certificates are not there yet"))?;
    let own = version(Some(&order.version))?;
    let serves = match order.control_plane {
        true => own.clone(),
        false => version(status.version.as_deref())?,
    };
    let system: OperatingSystem = bootstrap
        .operating_system(&order.config)
        .parse()
        .map_err(invalid)?;
    let values = ClusterValues {
        name: key.1.clone(),
        version: serves,
        certificate_sans: vec![endpoint.host.clone()],
        endpoint,
        network: cluster.spec.cluster_network.clone().unwrap_or_default(),
        external_cloud_provider: bootstrap
            .waits_for_cloud_controller(order.cluster_config.as_ref()),
    };
    // Clouds' controllers find nodes by the names that the clouds give.
    let (name, provider_id) = match bootstrap.node_id(&order.owner) {
        NodeId::ByController => (None, ProviderId::ByController),
        NodeId::Expression(text) => (None, ProviderId::Expression(text.to_owned())),
        NodeId::Known(id) => (Some(order.owner.machine.clone()), ProviderId::Known(id)),
    };
    let node = NodeValues {
        name,
        version: own,
        provider_id,
        labels: order.labels.clone(),
        taints: order.taints.clone(),
    };
    let token = BootstrapToken::generate(shared.context.random.as_ref());
    let initialized = status
        .initialization
        .is_some_and(|i| i.control_plane_initialized);
    let hash = pki.cluster.hash().map_err(invalid)?;
    let role = match (order.control_plane, initialized) {
        (true, false) => Role::Init {
            pki: &pki,
            token: &token,
        },
        (true, true) => Role::JoinControlPlane {
            pki: &pki,
            token: &token,
        },
        (false, _) => Role::JoinWorker {
            authority: &hash,
            token: &token,
        },
    };
    let setup = node_setup(system, &values, &node, role).map_err(invalid)?;
    let limit = bootstrap.user_data_limit();
    let rendered = user_data::render(&setup, system.format(), limit, by_others);
    let rendered = rendered.map_err(invalid)?;
    if let Role::JoinControlPlane { .. } = role {
        steps::before(shared, cluster, &values.version).await?;
    }
    if !matches!(role, Role::Init { .. }) {
        make_known(shared, cluster, machine, &token).await?;
    }
    match rendered {
        UserData::OneStep(text) => Ok(Some(text)),
        UserData::TwoSteps { payload } => {
            let fetch = bootstrap
                .keep(account, &order.owner, &order.config, &payload)
                .await?;
            let stub = user_data::stub(system.format(), &fetch, limit).map_err(invalid)?;
            Ok(Some(SecretText::new(stub)))
        }
    }
}

/// Makes a token known to the cluster, for as long as an instance usually takes to boot.
async fn make_known(
    shared: &Shared,
    cluster: &Cluster,
    machine: &Machine,
    token: &BootstrapToken,
) -> Result<(), Error> {
    let secrets = tokens(shared, machine).await?;
    let expires = until(shared.now())?;
    secrets
        .create(
            &PostParams::default(),
            &token.secret(&words(machine), expires),
        )
        .await
        .map_err(|e| Error::Workload(Box::new(e)))?;
    let token = Token {
        secret: token.secret_name(),
        expires,
    };
    let key = name_of(machine);
    let before = shared.grounds.tokens.lock().insert(key, Some(token));
    // That of a create that came to nothing.
    if let Some(before) = before.flatten() {
        tracing::debug!(cluster = %cluster.name_any(), secret = %before.secret, "a token is given up");
        secrets
            .delete(&before.secret, &DeleteParams::default())
            .await
            .ok();
    }
    Ok(())
}

/// What a token of this machine says of itself in the cluster.
fn words(machine: &Machine) -> String {
    format!("Fleetwright: machine {} joins", machine.name_any())
}

/// A token that a machine was given.
#[derive(Clone)]
pub(super) struct Token {
    secret: String,
    expires: Timestamp,
}

fn until(now: Timestamp) -> Result<Timestamp, Error> {
    now.checked_add(token::LIFE).map_err(invalid)
}

/// The tokens of the machine's cluster.
async fn tokens(shared: &Shared, machine: &Machine) -> Result<Api<Secret>, Error> {
    let (namespace, name) = (name_of(machine).0, &machine.spec.cluster_name);
    let reference = shared.cluster_ref(&namespace, name);
    let client = shared.context.connections.client(&reference).await;
    let client = client.map_err(|e| invalid(format!("cluster {name} cannot be reached: {e}")))?;
    Ok(Api::namespaced(client, token::NAMESPACE))
}

/// What is known of the token of a machine that has not joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Boot {
    /// There is none, or none is needed.
    Rests,
    /// It holds until this look at it.
    Holds(Duration),
    /// It holds no more, and the machine can be given another.
    Ended,
}

/// Lets the token of a machine that boots slowly live on. What a process before this one gave is found again in the cluster; where it has
/// ended, machines that others make are given another while they do, and all others are left to health checks.
pub(crate) async fn await_node(
    shared: &Shared,
    machine: &Machine,
    cluster: Option<&Cluster>,
    provider: &dyn Provider,
) -> Result<Boot, Error> {
    let initialized = |c: &Cluster| {
        let status = c.status.as_ref();
        let initialization = status.and_then(|s| s.initialization.as_ref());
        initialization.is_some_and(|i| i.control_plane_initialized)
    };
    let Some(bootstrap) = provider.bootstrap() else {
        return Ok(Boot::Rests);
    };
    if !cluster.is_some_and(|c| is_ours(shared, c) && initialized(c)) {
        return Ok(Boot::Rests);
    }
    let key = name_of(machine);
    let known = shared.grounds.tokens.lock().get(&key).cloned();
    let known = match known {
        Some(known) => known,
        None => {
            let found = find(shared, machine).await?;
            let mut tokens = shared.grounds.tokens.lock();
            tokens.entry(key.clone()).or_insert(found).clone()
        }
    };
    let Some(Token { secret, expires }) = known else {
        return Ok(match bootstrap.made_by_others() {
            true => Boot::Ended,
            false => Boot::Rests,
        });
    };
    let now = shared.now();
    if let Some(expires) = token::extended(expires, now) {
        let text = fleetwright_api::time::rfc3339_seconds(expires);
        let patch = Patch::Merge(json!({"stringData": {"expiration": text}}));
        let api = tokens(shared, machine).await?;
        let written = api.patch(&secret, &PatchParams::default(), &patch).await;
        if let Err(kube::Error::Api(status)) = &written
            && status.code == 404
        {
            shared.grounds.tokens.lock().insert(key, None);
            return Ok(match bootstrap.made_by_others() {
                true => Boot::Ended,
                false => Boot::Rests,
            });
        }
        written.map_err(|e| Error::Workload(Box::new(e)))?;
        let token = Token { secret, expires };
        shared.grounds.tokens.lock().insert(key, Some(token));
    }
    Ok(Boot::Holds(AGAIN))
}

/// The machine's token that the cluster knows: of several, as a create that was asked for twice leaves them, the one that ends last.
async fn find(shared: &Shared, machine: &Machine) -> Result<Option<Token>, Error> {
    let of_tokens = ListParams::default().fields(&format!("type={}", token::SECRET_TYPE));
    let listed = tokens(shared, machine).await?.list(&of_tokens).await;
    let listed = listed.map_err(|e| Error::Workload(Box::new(e)))?;
    let words = words(machine);
    let ours = listed.items.iter().filter_map(|secret| {
        let data = secret.data.as_ref()?;
        let text = |key: &str| std::str::from_utf8(&data.get(key)?.0).ok();
        let expires: Timestamp = text("expiration")?.parse().ok()?;
        (text("description") == Some(words.as_str())).then(|| Token {
            secret: secret.name_any(),
            expires,
        })
    });
    let now = shared.now();
    Ok(ours
        .filter(|token| token.expires > now)
        .max_by_key(|token| token.expires))
}

/// Removes what a machine, which is a node or gone, booted from: what was kept at the provider, and its token.
pub(crate) async fn discard(
    shared: &Shared,
    machine: &Machine,
    provider: &dyn Provider,
    account: &Account,
    owner: &Ownership,
) -> Result<(), Error> {
    let Some(bootstrap) = provider.bootstrap() else {
        return Ok(());
    };
    bootstrap.discard(account, owner).await?;
    let token = shared.grounds.tokens.lock().remove(&name_of(machine));
    if let Some(token) = token.flatten()
        && let Ok(secrets) = tokens(shared, machine).await
    {
        // It ends by itself as well.
        let params = DeleteParams::default();
        secrets.delete(&token.secret, &params).await.ok();
    }
    Ok(())
}
