//! A control plane that a provider runs: ordered, looked at and taken away; its kubeconfig.

use std::time::Duration;

use fleetwright_api::{Cluster, MachineDeployment, ProviderConfig, cluster::Endpoint};
use fleetwright_core::{
    cluster::ClusterDeletionStep,
    control_plane::{ControlPlaneAction, ControlPlaneDecision},
    managed::{Known, Trouble},
};
use fleetwright_providers::{
    Account, Provider,
    managed::{ManagedControlPlaneOrder, ManagedControlPlaneState, ManagedOwner, ManagedPhase},
};
use kube::ResourceExt;

use super::{
    Shared,
    machine::called,
    provider::{find, lacks, owner},
};
use crate::{
    cache::name_of,
    provided::{digest, trouble},
    queue::Key,
};

mod kubeconfig;

pub(crate) use kubeconfig::Tokens;

/// What is asked for a control plane's deletion, and for a look at it, where an order would be.
const GOES: &str = "goes";
const LOOK: &str = "look";

fn key(cluster: &Cluster) -> Key {
    let (namespace, name) = name_of(cluster);
    Key::Cluster(namespace, name)
}

fn settings(cluster: &Cluster) -> Option<&ProviderConfig> {
    let managed = cluster.spec.control_plane.managed.as_ref();
    managed.map(|managed| &managed.provider_config)
}

/// What the provider showed last; `None` where it runs no control plane.
pub(super) fn known(shared: &Shared, cluster: &Cluster) -> Option<Known> {
    settings(cluster)?;
    Some(shared.control_planes.known(&key(cluster), None))
}

/// Orders what was decided, where that is due; gives what is known then, `None` where the provider runs no control plane. A newer
/// version is ordered only once the status tells of it: pools keep within its skew from then on. One that is paused, or whose workers
/// still go, is looked at.
pub(super) async fn order(
    shared: &Shared,
    cluster: &Cluster,
    decision: &ControlPlaneDecision,
    deletion: Option<&ClusterDeletionStep>,
) -> Option<Known> {
    let settings = settings(cluster)?;
    let (key, looks) = (key(cluster), &shared.control_planes);
    if let Some(ClusterDeletionStep::Managed { .. } | ClusterDeletionStep::Finish) = deletion {
        return Some(looks.known(&key, None));
    }
    let version = decision
        .version
        .as_ref()
        .map(|step| step.version().to_string());
    let version = version.filter(|_| decision.action == ControlPlaneAction::Settled);
    let (namespace, name) = name_of(cluster);
    let found = find(shared, &namespace, settings.account());
    let whose = owner(shared, &namespace, &name, "");
    let mut known = match version {
        Some(version) => {
            let account = found.as_ref().ok().map(|(_, account)| account.clone());
            let order = ManagedControlPlaneOrder {
                owner: whose,
                version,
                config: shared.catalogue.effective(settings).to_value(),
                network: cluster.spec.cluster_network.clone(),
            };
            let digest = digest(&(&account, &order));
            if !is_known(shared, cluster) {
                // It may be there already, with an older version: what is ordered of it then is a step of its own.
                let first = format!("{LOOK} {digest}");
                if !looks.is_due(&key, &first) || !looks.is_due(&key, &digest) {
                    return Some(looks.known(&key, Some(&digest)));
                }
                let found = match &found {
                    Ok((provider, account)) => {
                        get(shared, provider.as_ref(), account, &order.owner).await
                    }
                    Err(trouble) => Err(trouble.clone()),
                };
                if let Some(answer) = found.transpose() {
                    looks.took(&key, &first, answer);
                    return Some(looks.known(&key, Some(&digest)));
                }
            }
            if is_announced(cluster, &order.version) && looks.is_due(&key, &digest) {
                let answer = match found {
                    Ok((provider, account)) => {
                        ensure(shared, provider.as_ref(), &account, &order).await
                    }
                    Err(trouble) => Err(trouble),
                };
                looks.took(&key, &digest, answer);
            }
            looks.known(&key, Some(&digest))
        }
        None => {
            if looks.is_due(&key, LOOK) {
                let answer = match found {
                    Ok((provider, account)) => {
                        look(shared, provider.as_ref(), &account, &whose).await
                    }
                    Err(trouble) => Err(trouble),
                };
                looks.took(&key, LOOK, answer);
            }
            looks.known(&key, None)
        }
    };
    if let Some(state) = looks.state(&key)
        && let Err(trouble) = kubeconfig::keep(shared, cluster, &state).await
    {
        known.trouble.get_or_insert(trouble);
    }
    Some(known)
}

/// Whether its version is known, from before this process or from a look of it.
fn is_known(shared: &Shared, cluster: &Cluster) -> bool {
    let told = cluster.status.as_ref().and_then(|s| s.version.as_ref());
    told.is_some() || shared.control_planes.state(&key(cluster)).is_some()
}

/// Looks without an order. Of the version only an order tells.
async fn look(
    shared: &Shared,
    provider: &dyn Provider,
    account: &Account,
    owner: &ManagedOwner,
) -> Result<ManagedControlPlaneState, Trouble> {
    let found = get(shared, provider, account, owner).await?;
    let none = || nothing(ManagedPhase::Failed("there is none".into()));
    Ok(ManagedControlPlaneState {
        version: None,
        ..found.unwrap_or_else(none)
    })
}

/// What there is of it; `None` where there is none.
async fn get(
    shared: &Shared,
    provider: &dyn Provider,
    account: &Account,
    owner: &ManagedOwner,
) -> Result<Option<ManagedControlPlaneState>, Trouble> {
    let Some(half) = provider.control_planes() else {
        return Err(lacks(provider, "control planes"));
    };
    let call = called(shared, "getControlPlane", half.get(account, owner));
    call.await.map_err(|error| trouble(&error))
}

fn nothing(phase: ManagedPhase) -> ManagedControlPlaneState {
    ManagedControlPlaneState {
        id: String::new(),
        phase,
        version: None,
        endpoint: None,
        certificate_authority: None,
    }
}

/// Whether the status says that the control plane may come to this version.
fn is_announced(cluster: &Cluster, version: &str) -> bool {
    let status = cluster.status.as_ref();
    let runs = status.and_then(|s| s.version.as_deref());
    let to = status.and_then(|s| s.upgrading_to.as_deref());
    runs.is_none() || runs == Some(version) || to == Some(version)
}

async fn ensure(
    shared: &Shared,
    provider: &dyn Provider,
    account: &Account,
    order: &ManagedControlPlaneOrder,
) -> Result<ManagedControlPlaneState, Trouble> {
    let Some(half) = provider.control_planes() else {
        return Err(lacks(provider, "control planes"));
    };
    let verb = "ensureControlPlane";
    let call = called(shared, verb, half.ensure(account, order));
    let key = (order.owner.cluster_key.as_str(), verb);
    let asked = (account, order);
    let answer = shared.refusals.call(key, &asked, shared.now(), call).await;
    answer.map_err(|error| trouble(&error))
}

/// Where its API listens, as the provider says it.
pub(super) fn endpoint(shared: &Shared, cluster: &Cluster) -> Option<Endpoint> {
    settings(cluster)?;
    let state = shared.control_planes.state(&key(cluster))?;
    let url: http::Uri = state.endpoint?.parse().ok()?;
    Some(Endpoint {
        host: url.host()?.to_owned(),
        port: url.port_u16().unwrap_or(443).into(),
    })
}

/// After how long there is something to do though no event comes.
pub(super) fn next(shared: &Shared, cluster: &Cluster) -> Option<Duration> {
    settings(cluster)?;
    let token = shared.tokens.next(&key(cluster), shared.now());
    next_look(shared, cluster).into_iter().chain(token).min()
}

/// After how long the provider is asked again.
pub(super) fn next_look(shared: &Shared, cluster: &Cluster) -> Option<Duration> {
    shared.control_planes.next(&key(cluster))
}

/// What is done next for a Cluster on its way out, the provider's control plane included: that goes when all else is gone.
pub(super) async fn goes(
    shared: &Shared,
    cluster: &Cluster,
    step: ClusterDeletionStep,
) -> ClusterDeletionStep {
    let Some(settings) = settings(cluster).filter(|_| step == ClusterDeletionStep::Finish) else {
        return step;
    };
    let (key, looks) = (key(cluster), &shared.control_planes);
    if looks.is_due(&key, GOES) {
        match remove(shared, cluster, settings).await {
            Ok(true) => {
                looks.forget(&key);
                return step;
            }
            Ok(false) => looks.took(&key, GOES, Ok(going(looks.state(&key)))),
            Err(trouble) => looks.took(&key, GOES, Err(trouble)),
        }
    }
    let trouble = looks.known(&key, None).trouble;
    step.before_managed(cluster, false, trouble.map(|trouble| trouble.message))
}

fn going(state: Option<ManagedControlPlaneState>) -> ManagedControlPlaneState {
    let phase = ManagedPhase::Deleting;
    match state {
        Some(state) => ManagedControlPlaneState { phase, ..state },
        None => nothing(phase),
    }
}

/// Takes the control plane away, after groups of its nodes that no pool stands for; true once all of it is gone.
async fn remove(
    shared: &Shared,
    cluster: &Cluster,
    settings: &ProviderConfig,
) -> Result<bool, Trouble> {
    let (namespace, name) = name_of(cluster);
    let (provider, account) = find(shared, &namespace, settings.account())?;
    let owner = owner(shared, &namespace, &name, "");
    let failed = |error| trouble(&error);
    if let Some(pools) = provider.pools() {
        let call = called(shared, "listPools", pools.list(&account, &owner));
        let mut left = false;
        for group in call.await.map_err(failed)? {
            let pool = shared
                .caches
                .get::<MachineDeployment>(&namespace, &group.owner.pool);
            let of_us = pool.is_some_and(|pool| pool.spec.cluster_name == cluster.name_any());
            if !of_us {
                tracing::info!(cluster = %name, group = %group.id, "a group of nodes that no pool stands for goes");
                let call = called(shared, "removePool", pools.remove(&account, &group.owner));
                left |= !call.await.map_err(failed)?;
            }
        }
        if left {
            return Ok(false);
        }
    }
    let Some(half) = provider.control_planes() else {
        return Err(lacks(provider.as_ref(), "control planes"));
    };
    let verb = "removeControlPlane";
    let call = called(shared, verb, half.remove(&account, &owner));
    let key = (owner.cluster_key.as_str(), verb);
    let asked = (&account, &owner);
    let answer = shared.refusals.call(key, &asked, shared.now(), call);
    answer.await.map_err(failed)
}

/// Forgets a cluster that is gone.
pub(super) fn forget(shared: &Shared, namespace: &str, name: &str) {
    let key = Key::Cluster(namespace.to_owned(), name.to_owned());
    shared.control_planes.forget(&key);
    shared.tokens.forget(&key);
    let cluster = shared.cluster_ref(namespace, name);
    shared.refusals.forget(&cluster.key);
}
