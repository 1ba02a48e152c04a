//! What one instance is given when it is made, so that it becomes a node of its cluster.

use std::{sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, ProviderConfig, cluster::Endpoint, secret::SecretText, version::Version,
};
use fleetwright_bootstrap::{
    discovery::{self, Discovered},
    kubeadm::{ClusterValues, NodeValues, ProviderId, Role},
    pki::ClusterPki,
    setup::{OperatingSystem, node_setup},
    token::{self, BootstrapToken},
    user_data::{self, UserData},
};
use fleetwright_providers::{Account, CreateInstance, NodeId, Ownership, Provider};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{is_ours, steps};
use crate::{
    cache::name_of,
    reconcile::{Error, Shared, called},
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
    let ours = match cluster.spec.control_plane.machines {
        Some(_) => Some(ground(shared, cluster)?),
        None => None,
    };
    let (endpoint, authority) = match &ours {
        Some((endpoint, pki)) => (endpoint.clone(), pki.cluster.hash().map_err(invalid)?),
        None => {
            let found = discover(shared, machine).await?;
            (found.endpoint, found.authority)
        }
    };
    let own = version(Some(&order.version))?;
    let serves = match order.control_plane {
        true => own.clone(),
        false => version(status.version.as_deref())?,
    };
    let system: OperatingSystem = bootstrap
        .operating_system(&order.config)
        .parse()
        .map_err(invalid)?;
    // Workers too: an order has these settings for the control plane's instances alone.
    let cluster_config = cluster.spec.provider_config.as_ref();
    let cluster_config = cluster_config.map(ProviderConfig::to_value);
    let values = ClusterValues {
        name: key.1.clone(),
        version: serves,
        certificate_sans: vec![endpoint.host.clone()],
        endpoint,
        network: cluster.spec.cluster_network.clone().unwrap_or_default(),
        external_cloud_provider: bootstrap.waits_for_cloud_controller(cluster_config.as_ref()),
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
    let token = token_of(shared, machine);
    let initialized = status
        .initialization
        .is_some_and(|i| i.control_plane_initialized);
    let token = &token;
    let role = match (order.control_plane, &ours) {
        (true, Some((_, pki))) if initialized => Role::JoinControlPlane { pki, token },
        (true, Some((_, pki))) => Role::Init { pki, token },
        (true, None) => return Err(invalid("its control plane is somebody else's")),
        (false, _) => Role::JoinWorker {
            authority: &authority,
            token,
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
        make_known(shared, machine, token).await?;
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

/// A token that a machine was given.
#[derive(Clone)]
pub(super) struct Token {
    token: BootstrapToken,
    /// When the cluster forgets it; `None` where it was not made known, as the first machine makes it known itself.
    expires: Option<Timestamp>,
}

/// The token of a machine: that of its last create while it is good, so that what is tried again is the same.
fn token_of(shared: &Shared, machine: &Machine) -> BootstrapToken {
    let now = shared.now();
    let before = known(shared, machine).filter(|t| t.expires.is_none_or(|at| at > now));
    if let Some(before) = before {
        return before.token;
    }
    let token = BootstrapToken::generate(shared.context.random.as_ref());
    keep(shared, machine, &token, None);
    token
}

/// The endpoint of a control plane of ours, and its keys and certificates.
fn ground(shared: &Shared, cluster: &Cluster) -> Result<(Endpoint, Arc<ClusterPki>), Error> {
    let status = cluster.status.as_ref();
    let endpoint = status.and_then(|s| s.control_plane_endpoint.clone());
    let endpoint =
        endpoint.ok_or_else(|| invalid("the endpoint of the cluster's API is not known yet"))?;
    let pki = shared
        .grounds
        .with(&name_of(cluster), |known| known.pki.clone());
    let pki =
        pki.ok_or_else(|| invalid("the cluster's keys and certificates are not there yet"))?;
    Ok((endpoint, pki))
}

/// What the control plane of somebody else says to those who join. We believe it as whoever gave us the kubeconfig does.
async fn discover(shared: &Shared, machine: &Machine) -> Result<Discovered, Error> {
    let name = &machine.spec.cluster_name;
    let (namespace, info) = discovery::PLACE;
    let maps = Api::<ConfigMap>::namespaced(reach(shared, machine).await?, namespace);
    let found = maps.get_opt(info).await;
    let cannot = |why: &str| {
        invalid(format!(
            "machines cannot join cluster {name} by kubeadm: ConfigMap {namespace}/{info}, which kubeadm makes there: {why}"
        ))
    };
    match found {
        Ok(Some(found)) => discovery::read(&found).map_err(cannot),
        Ok(None) => Err(cannot("there is none")),
        Err(error) => Err(cannot(&error.to_string())),
    }
}

/// Makes a token known to the cluster, for as long as an instance usually takes to boot.
async fn make_known(
    shared: &Shared,
    machine: &Machine,
    token: &BootstrapToken,
) -> Result<(), Error> {
    let secrets = tokens(shared, machine).await?;
    let there = secrets.get_opt(&token.secret_name()).await;
    let there = there.map_err(|e| Error::Workload(Box::new(e)))?;
    if there.is_some() {
        // Where the answer to its making was lost, nobody knows until when it is good.
        let expires = known(shared, machine).and_then(|t| t.expires);
        let expires = expires.unwrap_or(shared.now());
        return live_on(shared, machine, &secrets, token, expires).await;
    }
    let expires = until(shared.now())?;
    secrets
        .create(
            &PostParams::default(),
            &token.secret(&words(machine), expires),
        )
        .await
        .map_err(|e| Error::Workload(Box::new(e)))?;
    keep(shared, machine, token, Some(expires));
    Ok(())
}

/// What a token of this machine says of itself in the cluster.
fn words(machine: &Machine) -> String {
    format!("Fleetwright: machine {} joins", machine.name_any())
}

fn known(shared: &Shared, machine: &Machine) -> Option<Token> {
    let known = shared.grounds.tokens.lock();
    known.get(&name_of(machine)).cloned().flatten()
}

fn keep(shared: &Shared, machine: &Machine, token: &BootstrapToken, expires: Option<Timestamp>) {
    let token = Token {
        token: token.clone(),
        expires,
    };
    let mut tokens = shared.grounds.tokens.lock();
    tokens.insert(name_of(machine), Some(token));
}

fn until(now: Timestamp) -> Result<Timestamp, Error> {
    now.checked_add(token::LIFE).map_err(invalid)
}

/// The tokens of the machine's cluster.
async fn tokens(shared: &Shared, machine: &Machine) -> Result<Api<Secret>, Error> {
    let client = reach(shared, machine).await?;
    Ok(Api::namespaced(client, token::NAMESPACE))
}

/// A client of the machine's cluster.
async fn reach(shared: &Shared, machine: &Machine) -> Result<Client, Error> {
    let (namespace, name) = (name_of(machine).0, &machine.spec.cluster_name);
    let reference = shared.cluster_ref(&namespace, name);
    let client = shared.context.connections.client(&reference).await;
    client.map_err(|e| invalid(format!("cluster {name} cannot be reached: {e}")))
}

/// Lets a token that ends then live on, where that is due.
async fn live_on(
    shared: &Shared,
    machine: &Machine,
    api: &Api<Secret>,
    token: &BootstrapToken,
    expires: Timestamp,
) -> Result<(), Error> {
    let Some(expires) = token::extended(expires, shared.now()) else {
        return Ok(());
    };
    let text = fleetwright_api::time::rfc3339_seconds(expires);
    let patch = Patch::Merge(json!({"stringData": {"expiration": text}}));
    let params = PatchParams::default();
    let written = api.patch(&token.secret_name(), &params, &patch).await;
    written.map_err(|e| Error::Workload(Box::new(e)))?;
    keep(shared, machine, token, Some(expires));
    Ok(())
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
    let serves = |c: &Cluster| {
        let status = c.status.as_ref();
        let initialization = status.and_then(|s| s.initialization.as_ref());
        let initialized = initialization.is_some_and(|i| i.control_plane_initialized);
        c.spec.control_plane.external.is_some() || (is_ours(shared, c) && initialized)
    };
    let Some(bootstrap) = provider.bootstrap() else {
        return Ok(Boot::Rests);
    };
    if !cluster.is_some_and(serves) {
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
    let ended = match bootstrap.made_by_others() {
        true => Boot::Ended,
        false => Boot::Rests,
    };
    let Some(Token { token, expires }) = known else {
        return Ok(ended);
    };
    let Some(expires) = expires else {
        return Ok(Boot::Rests);
    };
    if token::extended(expires, shared.now()).is_some() {
        let api = tokens(shared, machine).await?;
        if let Err(error) = live_on(shared, machine, &api, &token, expires).await {
            if error.is_not_found() {
                shared.grounds.tokens.lock().insert(key, None);
                return Ok(ended);
            }
            return Err(error);
        }
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
        let whole = format!("{}.{}", text("token-id")?, text("token-secret")?);
        let token = BootstrapToken::parse(&SecretText::new(whole)).ok()?;
        (text("description") == Some(words.as_str())).then_some(Token {
            token,
            expires: Some(expires),
        })
    });
    let now = Some(shared.now());
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
    let call = called(shared, "discard", bootstrap.discard(account, owner));
    let (id, asked) = ((owner.instance_key.as_str(), "discard"), (account, owner));
    shared.refusals.call(id, &asked, shared.now(), call).await?;
    let token = shared.grounds.tokens.lock().remove(&name_of(machine));
    if let Some(token) = token.flatten().filter(|t| t.expires.is_some())
        && let Ok(secrets) = tokens(shared, machine).await
    {
        // It ends by itself as well.
        let params = DeleteParams::default();
        secrets
            .delete(&token.token.secret_name(), &params)
            .await
            .ok();
    }
    Ok(())
}
