//! What one instance is given when it is made, so that it becomes a node of its cluster.

use std::{sync::Arc, time::Duration};

use fleetwright_api::{Cluster, Machine, cluster::Endpoint, secret::SecretText, version::Version};
use fleetwright_bootstrap::{
    discovery::{self, Discovered},
    kubeadm::{ClusterValues, NodeValues, ProviderId, Role},
    pki::ClusterPki,
    setup::{OperatingSystem, node_setup},
    token::{self, BootstrapToken},
    user_data::{self, UserData},
};
use fleetwright_providers::{Account, CreateInstance, Ownership, Provider};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::steps;
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

/// The user data of an order; `None` where the provider's instances become nodes by themselves. What holds secrets is kept at the
/// provider first, and tokens are made known to the cluster.
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
    let values = ClusterValues {
        name: key.1.clone(),
        version: serves,
        certificate_sans: vec![endpoint.host.clone()],
        endpoint,
        network: cluster.spec.cluster_network.clone().unwrap_or_default(),
        external_cloud_provider: bootstrap
            .waits_for_cloud_controller(order.cluster_config.as_ref()),
    };
    let node = NodeValues {
        // Clouds' controllers find nodes by the names that the clouds give.
        name: None,
        version: own,
        provider_id: bootstrap
            .provider_id_expression()
            .map_or(ProviderId::ByController, |text| {
                ProviderId::Expression(text.to_owned())
            }),
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
    let rendered = user_data::render(&setup, system.format(), limit).map_err(invalid)?;
    if let Role::JoinControlPlane { .. } = role {
        steps::before(shared, cluster, &values.version).await?;
    }
    if !matches!(role, Role::Init { .. }) {
        make_known(shared, machine, token).await?;
    }
    let text = match rendered {
        UserData::OneStep(text) => text,
        UserData::TwoSteps { payload } => {
            let fetch = bootstrap
                .keep(account, &order.owner, &order.config, &payload)
                .await?;
            user_data::stub(system.format(), &fetch, limit).map_err(invalid)?
        }
    };
    Ok(Some(SecretText::new(text)))
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
    let words = format!("Fleetwright: machine {} joins", machine.name_any());
    secrets
        .create(&PostParams::default(), &token.secret(&words, expires))
        .await
        .map_err(|e| Error::Workload(Box::new(e)))?;
    keep(shared, machine, token, Some(expires));
    Ok(())
}

fn known(shared: &Shared, machine: &Machine) -> Option<Token> {
    let known = shared.grounds.tokens.lock();
    known.get(&name_of(machine)).cloned()
}

fn keep(shared: &Shared, machine: &Machine, token: &BootstrapToken, expires: Option<Timestamp>) {
    let token = Token {
        token: token.clone(),
        expires,
    };
    shared.grounds.tokens.lock().insert(name_of(machine), token);
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

/// Lets the token of a machine that boots slowly live on; when to look again. A token of a process before this one is not known, and ends:
/// then a health check replaces the machine.
pub(crate) async fn await_node(
    shared: &Shared,
    machine: &Machine,
) -> Result<Option<Duration>, Error> {
    let known = known(shared, machine).and_then(|t| Some((t.token, t.expires?)));
    let Some((token, expires)) = known else {
        return Ok(None);
    };
    if token::extended(expires, shared.now()).is_some() {
        let api = tokens(shared, machine).await?;
        live_on(shared, machine, &api, &token, expires).await?;
    }
    Ok(Some(AGAIN))
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
    if let Some(token) = token.filter(|t| t.expires.is_some())
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
