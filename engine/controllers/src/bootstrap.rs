//! What the machines of a cluster stand on, where its provider's instances do not become nodes by themselves: the cluster's keys and
//! certificates, the way to its API, its kubeconfig, and what each instance is given when it is made.

pub(crate) mod addons;
mod approve;
mod keys;
mod node;
mod steps;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, ProviderAccount,
    cluster::Endpoint,
    condition::{self, kind, reason},
    machine::MachineStatus,
    meta, names,
    secret::SecretText,
    version::Version,
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
/// Time after which a kubeconfig is looked at again: somebody may have deleted or damaged it. Secrets are read and not watched.
const LOOK: Duration = Duration::from_secs(30);
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
    /// URL in the kubeconfig, when it is to be made anew, and when it was looked at last.
    kubeconfig: Option<(String, Timestamp, Timestamp)>,
    /// What came of letting what kubeadm installed follow.
    tried: Option<addons::Tried>,
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
    if let Some(instances) = targets(control_plane) {
        reach(shared, cluster, instances, &mut ground).await;
    } else {
        let why = "the endpoint of its API: which instances its machines have is not known yet";
        ground.hold = Some(Hold::passing(why));
        ground.again = Some(SOON);
    }
    if let Some(endpoint) = &ground.endpoint {
        let server = url(endpoint);
        match keep_kubeconfig(shared, cluster, &pki, &server).await {
            Ok(()) => ground.again = ground.again.into_iter().chain([LOOK]).min(),
            Err(error) => {
                tracing::warn!(cluster = %key.1, %error, "the kubeconfig is not stored");
                ground.again = Some(SOON);
            }
        }
    }
    Some(ground)
}

/// Sees to it that the cluster's API is reached through these instances.
async fn reach(shared: &Shared, cluster: &Cluster, instances: Vec<String>, ground: &mut Ground) {
    match endpoint(shared, cluster, instances).await {
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
/// `None` while nobody knows all of them: a Machine that was made anew from its instance's tags, as after the state was lost, does not
/// show it at once, and what is not named would be taken away from an API that serves.
fn targets(control_plane: &[Machine]) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let stays = |m: &&Machine| m.metadata.deletion_timestamp.is_none();
    for machine in control_plane.iter().filter(stays) {
        let status = machine.status.as_ref();
        let gone =
            |s: &MachineStatus| condition::is_false(&s.conditions, kind::INFRASTRUCTURE_READY);
        match status.and_then(|s| s.instance.as_ref()) {
            Some(found) if found.state == InstanceState::Running.as_str() => {
                all.push(found.id.clone());
            }
            None if machine.spec.provider_id.is_some() && !status.is_some_and(gone) => return None,
            _ => {}
        }
    }
    Some(all)
}

/// The provider, the account and the settings of a cluster's endpoint: its own, and without them those of its control plane's machines.
fn order(
    shared: &Shared,
    cluster: &Cluster,
    instances: Vec<String>,
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
        instances,
    };
    Ok((provider, account, order))
}

/// The way to the API through these instances, and when to look at it again.
async fn endpoint(
    shared: &Shared,
    cluster: &Cluster,
    instances: Vec<String>,
) -> Result<(Option<ControlPlaneEndpoint>, Option<Duration>), Error> {
    let (provider, account, order) = order(shared, cluster, instances)?;
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
    let (provider, account, order) = order(shared, cluster, Vec::new())?;
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

/// Keeps the cluster's kubeconfig up to date.
async fn keep_kubeconfig(
    shared: &Shared,
    cluster: &Cluster,
    pki: &ClusterPki,
    server: &str,
) -> Result<(), Error> {
    let (namespace, name) = name_of(cluster);
    let (key, now) = ((namespace.clone(), name.clone()), shared.now());
    let fresh = |at: Timestamp| now >= at && now.duration_since(at).unsigned_abs() < LOOK;
    if let Some((known, due, at)) = shared.grounds.with(&key, |known| known.kubeconfig.clone())
        && known == server
        && due > now
        && fresh(at)
    {
        return Ok(());
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
        known.kubeconfig = Some((server.to_owned(), due, now));
    });
    Ok(())
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
        assert_eq!(targets(&all), Some(vec!["runs".to_owned()]));
    }

    #[test]
    fn nobody_is_named_while_an_instance_is_not_known_again() {
        let machine = |made: bool, shown: bool, leaves: bool| -> Machine {
            let mut machine = json!({
                "metadata": {"name": "a"}, "spec": {"clusterName": "eu", "providerConfig": {}},
            });
            if made {
                machine["spec"]["providerID"] = json!("sim:///eu/i-1");
            }
            if shown {
                machine["status"] = json!({"instance": {"id": "i-1", "state": "Running"}});
            }
            if leaves {
                machine["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(machine).unwrap()
        };
        let (unmade, known) = (machine(false, false, false), machine(true, true, false));
        let (lost, leaves) = (machine(true, false, false), machine(true, false, true));
        let mut gone = lost.clone();
        let ready = |status: &str| json!([{"type": "InfrastructureReady", "status": status, "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        gone.status = serde_json::from_value(json!({"conditions": ready("False")})).unwrap();
        let mut awaited = lost.clone();
        awaited.status = serde_json::from_value(json!({"conditions": ready("Unknown")})).unwrap();
        for (all, want) in [
            (vec![], Some(0)),
            (vec![unmade.clone()], Some(0)),
            (vec![known.clone(), unmade], Some(1)),
            (vec![lost.clone()], None),
            (vec![known.clone(), lost], None),
            (vec![known.clone(), awaited], None),
            (vec![known.clone(), gone], Some(1)),
            (vec![known, leaves], Some(1)),
        ] {
            assert_eq!(targets(&all).map(|t| t.len()), want, "{all:?}");
        }
    }
}
