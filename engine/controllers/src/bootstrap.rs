//! What the machines of a cluster stand on, where its provider's instances do not become nodes by themselves: the cluster's keys and
//! certificates, the way to its API, its kubeconfig, and what each instance is given when it is made.

mod approve;
mod keys;
mod node;
mod steps;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, ProviderAccount, cluster::Endpoint, condition::reason, meta, names,
    secret::SecretText, version::Version,
};
use fleetwright_bootstrap::{
    kubeconfig::{self, Due},
    pki::{ClusterPki, LEAF_VALIDITY},
};
use fleetwright_core::{outcome::Hold, upgrade::Path};
use fleetwright_providers::{
    Account, ClusterRef, ControlPlaneEndpoint, InfrastructureOrder, InstanceState, Provider,
    ProviderError,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use self::{
    approve::Approvals,
    node::{Boot, await_node, discard, user_data},
};
use crate::{
    cache::name_of,
    reconcile::{Error, Shared, account_provider, called, store_kubeconfig},
    snapshots::{self, Seen},
};

/// Time between two looks at an endpoint that is being made, or at what failed and may pass.
const SOON: Duration = Duration::from_secs(5);
/// Time after which an endpoint that nobody changed is looked at again.
const SELDOM: Duration = Duration::from_secs(600);
/// Port of API servers, where the cluster names none.
const API_PORT: u16 = 6443;

/// What a cluster's control plane stands on.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    /// Where its API is reached.
    pub(crate) endpoint: Option<Endpoint>,
    /// Whether its keys and certificates are there, and in words what of them is to be told.
    pub(crate) certificates: Option<Result<String, String>>,
    /// Why no machine of the control plane is made for now.
    pub(crate) hold: Option<Hold>,
    /// When to look again without an event.
    pub(crate) again: Option<Duration>,
}

/// What is known of a cluster's ground.
#[derive(Clone, Default)]
struct Known {
    pki: Option<Arc<ClusterPki>>,
    escrowed: bool,
    /// What was ordered last, when, and what came of it.
    infrastructure: Option<(InfrastructureOrder, Instant, Option<ControlPlaneEndpoint>)>,
    /// URL in the kubeconfig, and when it is to be made anew.
    kubeconfig: Option<(String, Timestamp)>,
    /// The version whose step was finished.
    finished: Option<Version>,
}

/// What is known of all clusters' grounds, by the Cluster's namespace and name. Keys of clusters stay in this process's memory.
#[derive(Default)]
pub(crate) struct Grounds {
    clusters: Mutex<BTreeMap<(String, String), Known>>,
    /// Tokens of machines that have not joined yet, by the Machine's namespace and name; `None` where the cluster knows none.
    tokens: Mutex<BTreeMap<(String, String), Option<node::Token>>>,
}

impl Grounds {
    fn with<T>(&self, cluster: &(String, String), change: impl FnOnce(&mut Known) -> T) -> T {
        change(self.clusters.lock().entry(cluster.clone()).or_default())
    }

    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.clusters.lock().remove(&key);
    }
}

/// What is known of the snapshots of a cluster's etcd where an upgrade to another minor is ahead; `None` where nobody keeps them.
pub(crate) async fn snapshots(
    shared: &Shared,
    cluster: &Cluster,
    reference: &ClusterRef,
    route: Option<&Path>,
) -> Option<Seen> {
    let minor = |v: &Version| (v.major(), v.minor());
    let path = route?;
    let next = path.control_plane().next()?;
    let escrow = shared.context.escrow.as_ref()?;
    if !is_ours(shared, cluster) || minor(next) == minor(&path.from) {
        return None;
    }
    Some(snapshots::look(shared, escrow, reference).await)
}

/// Whether nodes of this cluster are of our making: its control plane's instances are given what they become nodes by.
fn is_ours(shared: &Shared, cluster: &Cluster) -> bool {
    let provider = || {
        let machines = cluster.spec.control_plane.machines.as_ref()?;
        let account = machines.template.spec.provider_config.account();
        let account = shared.caches.get::<ProviderAccount>("", account)?;
        let provider = shared.context.providers.get(&account.spec.provider)?;
        provider.bootstrap().map(drop)
    };
    provider().is_some()
}

/// Prepares what the control plane stands on; `None` where its machines become nodes by themselves. While nobody knows which machines it
/// has (`unlisted`), nothing is made: keys of a cluster whose state was lost would be made anew.
pub(crate) async fn prepare(
    shared: &Shared,
    cluster: &Cluster,
    control_plane: &[Machine],
    unlisted: Option<&Hold>,
    by: &str,
) -> Option<Ground> {
    if !is_ours(shared, cluster) {
        return None;
    }
    let status = cluster.status.as_ref();
    let mut ground = Ground {
        endpoint: status.and_then(|s| s.control_plane_endpoint.clone()),
        hold: unlisted.cloned(),
        ..Ground::default()
    };
    let rests = cluster.metadata.deletion_timestamp.is_some() || meta::is_paused(cluster);
    if rests || unlisted.is_some() {
        return Some(ground);
    }
    let key = name_of(cluster);
    let pki = match keys::keys(shared, cluster, control_plane, by).await {
        Ok(pki) => pki,
        Err(hold) => {
            ground.certificates = Some(Err(hold.why.clone()));
            ground.again = Some(SOON);
            ground.hold = Some(hold);
            return Some(ground);
        }
    };
    let escrowed = shared.grounds.with(&key, |known| known.escrowed);
    ground.certificates = Some(Ok(if escrowed {
        String::new()
    } else {
        "not in escrow: should the state be lost, the cluster can be watched and not changed".into()
    }));
    match endpoint(shared, cluster, control_plane).await {
        Ok((Some(endpoint), again)) => {
            ground.endpoint = Some(Endpoint {
                host: endpoint.host,
                port: i32::from(endpoint.port),
            });
            ground.again = again;
        }
        Ok((None, again)) => {
            ground.hold = Some(Hold::passing("the endpoint of its API is being made"));
            ground.again = again;
        }
        Err(error) => {
            let refused = error.of_provider();
            ground.hold = Some(Hold {
                why: format!(
                    "the endpoint of its API: {}",
                    refused.map_or_else(|| error.to_string(), ToString::to_string)
                ),
                for_good: refused.map_or(Some(reason::TERMINAL), ProviderError::for_good),
            });
            ground.again = Some(error.retry_after().unwrap_or(SOON));
        }
    }
    if let Some(endpoint) = &ground.endpoint {
        let server = url(endpoint);
        match keep_kubeconfig(shared, cluster, &pki, &server).await {
            Ok(due) => {
                let wait = due.duration_since(shared.now()).unsigned_abs();
                ground.again = ground.again.into_iter().chain([wait]).min();
            }
            Err(error) => {
                tracing::warn!(cluster = %key.1, %error, "the kubeconfig is not stored");
                ground.again = Some(SOON);
            }
        }
    }
    if let Err(error) = finish(shared, cluster).await {
        tracing::warn!(cluster = %key.1, %error, "what follows the control plane's version is not done");
        ground.again = ground.again.into_iter().chain([SOON]).min();
    }
    Some(ground)
}

/// Lets what kubeadm installed follow the version that all of the control plane runs.
async fn finish(shared: &Shared, cluster: &Cluster) -> Result<(), Error> {
    let key = name_of(cluster);
    let running = cluster.status.as_ref().and_then(|s| s.version.as_deref());
    let Some(running) = running.and_then(|v| v.parse::<Version>().ok()) else {
        return Ok(());
    };
    let finished = shared.grounds.with(&key, |known| known.finished.clone());
    if finished.as_ref() == Some(&running) || shared.nodes.reachable(&key.0, &key.1) != Some(true) {
        return Ok(());
    }
    steps::after(shared, cluster, &running).await?;
    shared
        .grounds
        .with(&key, |known| known.finished = Some(running));
    Ok(())
}

/// Whether nodes of this cluster are of our making.
pub(crate) fn makes_nodes(shared: &Shared, namespace: &str, name: &str) -> bool {
    let cluster = shared.caches.get::<Cluster>(namespace, name);
    cluster.is_some_and(|cluster| is_ours(shared, &cluster))
}

/// URL of an API.
fn url(endpoint: &Endpoint) -> String {
    // Of an address of version 6 the colons are not the port's.
    if endpoint.host.contains(':') {
        format!("https://[{}]:{}", endpoint.host, endpoint.port)
    } else {
        format!("https://{}:{}", endpoint.host, endpoint.port)
    }
}

/// Instances through which the API is reached: those that run. Providers take no others, and one that they refuse would hold up the rest.
fn targets(control_plane: &[Machine]) -> Vec<String> {
    let stays = |m: &&Machine| m.metadata.deletion_timestamp.is_none();
    let instances = control_plane.iter().filter(stays);
    let instances = instances.filter_map(|m| m.status.as_ref()?.instance.as_ref());
    let run = instances.filter(|i| i.state == InstanceState::Running.as_str());
    run.map(|instance| instance.id.clone()).collect()
}

/// The provider, the account and the settings of a cluster's endpoint: its own, and without them those of its control plane's machines.
fn order(
    shared: &Shared,
    cluster: &Cluster,
    control_plane: &[Machine],
) -> Result<(Arc<dyn Provider>, Account, InfrastructureOrder), Error> {
    let (namespace, name) = name_of(cluster);
    let machines = cluster.spec.control_plane.machines.as_ref();
    let machines = machines.map(|m| &m.template.spec.provider_config);
    let config = cluster.spec.provider_config.as_ref();
    let account = config.or(machines).map_or("", |config| config.account());
    let (provider, account) = account_provider(shared, &namespace, account)?;
    let network = cluster.spec.cluster_network.as_ref();
    let port = network.and_then(|n| n.api_server_port);
    let order = InfrastructureOrder {
        installation: shared.context.installation.clone(),
        cluster_key: shared.cluster_ref(&namespace, &name).key,
        cluster: format!("{namespace}/{name}"),
        config: config.map_or(serde_json::Value::Null, |config| {
            shared.catalogue.effective(config).to_value()
        }),
        port: port.and_then(|p| p.try_into().ok()).unwrap_or(API_PORT),
        instances: targets(control_plane),
    };
    Ok((provider, account, order))
}

/// The way to the API, and when to look at it again.
async fn endpoint(
    shared: &Shared,
    cluster: &Cluster,
    control_plane: &[Machine],
) -> Result<(Option<ControlPlaneEndpoint>, Option<Duration>), Error> {
    let (provider, account, order) = order(shared, cluster, control_plane)?;
    let Some(infrastructure) = provider.infrastructure() else {
        return Ok((None, None));
    };
    let key = name_of(cluster);
    let last = shared
        .grounds
        .with(&key, |known| known.infrastructure.clone());
    if let Some((asked, at, found)) = last
        && asked == order
    {
        let lasts = if found.is_some() { SELDOM } else { SOON };
        if let Some(left) = lasts.checked_sub(at.elapsed()).filter(|l| !l.is_zero()) {
            return Ok((found, Some(left)));
        }
    }
    let ensure = infrastructure.ensure(&account, &order);
    let call = called(shared, "ensureInfrastructure", ensure);
    let asked = (&account, &order);
    let refusals = &shared.refusals;
    let id = (order.cluster_key.as_str(), "endpoint");
    let found = refusals.call(id, &asked, shared.now(), call).await?;
    let lasts = if found.is_some() { SELDOM } else { SOON };
    shared.grounds.with(&key, |known| {
        known.infrastructure = Some((order.clone(), Instant::now(), found.clone()));
    });
    Ok((found, Some(lasts)))
}

/// Takes away what a cluster on its way out had beside machines; why that is not done yet.
pub(crate) async fn remove(shared: &Shared, cluster: &Cluster) -> Result<Option<String>, Error> {
    if !is_ours(shared, cluster) {
        return Ok(None);
    }
    let (provider, account, order) = order(shared, cluster, &[])?;
    let Some(infrastructure) = provider.infrastructure() else {
        return Ok(None);
    };
    let remove = infrastructure.remove(&account, &order);
    let call = called(shared, "removeInfrastructure", remove);
    let id = (order.cluster_key.as_str(), "removeEndpoint");
    let asked = (&account, &order);
    let gone = shared.refusals.call(id, &asked, shared.now(), call);
    Ok(match gone.await? {
        true => None,
        false => Some("the endpoint of its API is being taken away".into()),
    })
}

/// Keeps the cluster's kubeconfig up to date; when it is to be made anew.
async fn keep_kubeconfig(
    shared: &Shared,
    cluster: &Cluster,
    pki: &ClusterPki,
    server: &str,
) -> Result<Timestamp, Error> {
    let (namespace, name) = name_of(cluster);
    let (key, now) = ((namespace.clone(), name.clone()), shared.now());
    if let Some((known, due)) = shared.grounds.with(&key, |known| known.kubeconfig.clone())
        && known == server
        && due > now
    {
        return Ok(due);
    }
    let secrets = Api::<Secret>::namespaced(shared.context.client.clone(), &namespace);
    let there = secrets.get_opt(&names::kubeconfig_secret(&name)).await?;
    let text = there.as_ref().and_then(|secret| {
        let value = secret.data.as_ref()?.get("value")?;
        let text = String::from_utf8(value.0.clone()).ok()?;
        Some(SecretText::new(text))
    });
    let judged = text.map(|text| kubeconfig::due(&text, &pki.cluster, server, now));
    let due = match judged {
        Some(Due::At(at)) => at,
        other => {
            let because = match other {
                Some(Due::Now(because)) => because,
                _ => "there is none",
            };
            tracing::info!(cluster = %name, because, "new kubeconfig");
            let made = kubeconfig::admin(&name, server, &pki.cluster, LEAF_VALIDITY, now)
                .map_err(|e| Error::Invalid(e.to_string()))?;
            store_kubeconfig(shared, cluster, made.expose().to_owned()).await?;
            match kubeconfig::due(&made, &pki.cluster, server, now) {
                Due::At(at) => at,
                Due::Now(why) => {
                    return Err(Error::Invalid(format!(
                        "a new kubeconfig is no good: {why}"
                    )));
                }
            }
        }
    };
    shared.grounds.with(&key, |known| {
        known.kubeconfig = Some((server.to_owned(), due));
    });
    Ok(due)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_api_is_reached_through_instances_that_run() {
        let machine = |id: &str, state: &str, leaves: bool| -> Machine {
            let mut machine = json!({
                "metadata": {"name": id}, "spec": {"clusterName": "eu", "providerConfig": {}},
                "status": {"instance": {"id": id, "state": state}},
            });
            if leaves {
                machine["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(machine).unwrap()
        };
        let mut unasked = machine("none", "Running", false);
        unasked.status = None;
        let all = [
            machine("starts", "Pending", false),
            machine("runs", "Running", false),
            machine("stopped", "Stopped", false),
            machine("failed", "Failed", false),
            machine("leaves", "Running", true),
            unasked,
        ];
        assert_eq!(targets(&all), ["runs"]);
    }
}
