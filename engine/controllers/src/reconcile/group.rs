//! MachineDeployment whose nodes its provider makes, replaces and scales: ordered, looked at and taken away.

use fleetwright_api::{
    Cluster, Fleet, MachineDeployment, MachineSet,
    condition::{self, kind},
    drift::DriftKind,
    fleet::DriftAction,
    meta,
};
use fleetwright_core::{
    group::{self, GroupDecision, GroupOrder},
    managed::{Known, Trouble},
    outcome::Outcome,
    status::{self, GroupNodes},
};
use fleetwright_providers::{
    Account, Provider,
    managed::{ManagedPhase, PoolOrder, PoolState},
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde_json::json;

use super::{
    Error, Shared,
    machine::called,
    provider::{find, lacks, owner},
};
use crate::{
    cache::name_of,
    node_sync,
    nodes::NodeView,
    provided::{digest, trouble},
    queue::Key,
};

const BY: &str = "fleetwright-machinedeployment";
/// What is asked for a group's deletion, where an order would be.
const GOES: &str = "goes";

fn key(pool: &MachineDeployment) -> Key {
    let (namespace, name) = name_of(pool);
    Key::Pool(namespace, name)
}

fn account(pool: &MachineDeployment) -> &str {
    pool.spec.template.spec.provider_config.account()
}

/// Whether the pool's nodes are its provider's, or are to be.
pub(super) fn is_group(shared: &Shared, pool: &MachineDeployment) -> bool {
    let settings = &pool.spec.template.spec.provider_config;
    shared.catalogue.is_group(settings) || is_provided(pool)
}

/// Whether a group was ordered for it, and is not known to be gone.
fn is_provided(pool: &MachineDeployment) -> bool {
    let mut finalizers = pool.finalizers().iter();
    finalizers.any(|f| f == meta::FINALIZER_POOL)
}

pub(super) async fn reconcile(shared: &Shared, pool: &MachineDeployment) -> Result<Outcome, Error> {
    let (namespace, _) = name_of(pool);
    let now = shared.now();
    let cluster = shared
        .caches
        .get::<Cluster>(&namespace, &pool.spec.cluster_name);
    let sets = shared
        .caches
        .owned::<MachineSet>(&pool.uid().unwrap_or_default());
    let decision = group::decide(
        pool,
        cluster.as_deref(),
        !sets.is_empty(),
        &shared.catalogue,
    );
    let leaves = pool.metadata.deletion_timestamp.is_some();
    let ours = is_provided(pool);
    if decision.order.is_some() && !ours {
        // Fails where the pool has changed since it was read: one that is being deleted gets no group.
        let finalizer = meta::FINALIZER_POOL;
        shared.add_finalizer(pool, finalizer, BY).await?;
        return Ok(Outcome::Changed);
    }
    if leaves && !ours {
        return Ok(Outcome::wait("the pool is on its way out"));
    }
    let key = key(pool);
    let paused = cluster
        .as_ref()
        .is_some_and(|c| meta::is_paused(c.as_ref()));
    let mut left = None;
    let known = match &decision.order {
        Some(wanted) => order(shared, pool, cluster.as_deref(), wanted, &mut left).await,
        None if leaves && !paused => match leave(shared, pool).await {
            None => {
                shared.groups.forget(&key);
                let latest = shared
                    .caches
                    .get::<MachineDeployment>(&namespace, &pool.name_any());
                if let Some(latest) = latest {
                    let finalizer = meta::FINALIZER_POOL;
                    shared
                        .remove_finalizer(latest.as_ref(), finalizer, BY)
                        .await?;
                }
                return Ok(Outcome::Deleted);
            }
            Some(known) => known,
        },
        None => shared.groups.known(&key, None),
    };
    let state = shared.groups.state(&key);
    let (nodes, next) = count(shared, pool, state.as_ref(), &decision, now);
    let mut new = status::group(pool, &known, nodes.as_ref(), &decision, now);
    let generation = pool.metadata.generation;
    tell(shared, &key, &mut new.conditions, left, generation, now);
    shared
        .write_status(pool, pool.status.as_ref(), &new, BY)
        .await?;
    if decision.order.is_some()
        && let Some(state) = &state
        && let Some(replicas) = group::replicas_follow(pool, state.replicas)
        && let Some(latest) = shared
            .caches
            .get::<MachineDeployment>(&namespace, &pool.name_any())
    {
        let patch = json!({"spec": {"replicas": replicas}});
        shared.patch(latest.as_ref(), patch, BY).await?;
        return Ok(Outcome::Changed);
    }
    let available = next.map(|at| super::seconds_until(at, now));
    let available = available.map(std::time::Duration::from_secs);
    let asks = decision.order.is_some() || (leaves && !paused);
    let again = shared.groups.next(&key).filter(|_| asks);
    let reason = decision.waits.as_ref().map(ToString::to_string);
    Ok(Outcome::Wait {
        reason: reason.unwrap_or_else(|| "the provider runs the pool's nodes".to_owned()),
        retry_after: again.into_iter().chain(available).min(),
    })
}

/// Orders the group where that is due; gives what is known then. A number of nodes that somebody else changed is told in `left` where
/// it is not to be written back.
async fn order(
    shared: &Shared,
    pool: &MachineDeployment,
    cluster: Option<&Cluster>,
    wanted: &GroupOrder,
    left: &mut Option<i32>,
) -> Known {
    let (namespace, name) = name_of(pool);
    let (key, looks) = (key(pool), &shared.groups);
    let found = find(shared, &namespace, account(pool));
    let account = found.as_ref().ok().map(|(_, account)| account.clone());
    let mut order = PoolOrder {
        owner: owner(shared, &namespace, &pool.spec.cluster_name, &name),
        version: wanted.version.to_string(),
        config: wanted.config.to_value(),
        replicas: wanted.replicas,
        bounds: wanted.bounds,
        labels: node_sync::synced(&wanted.labels),
        taints: wanted.taints.clone(),
    };
    // What tells it from others is all of it, whatever of it is written.
    let digest = digest(&(&account, &order));
    let fresh = looks.state(&key).is_none();
    let number = wanted.replicas.map(|n| n.to_string()).unwrap_or_default();
    let had = looks.was_settled(&key, &number) || (fresh && was_as_wanted(pool));
    let fleet = cluster.and_then(|cluster| shared.caches.fleet_of(cluster));
    let spec = fleet.as_deref().map(|fleet: &Fleet| &fleet.spec);
    let stays = had && group::drift_action(spec, shared.now()) != DriftAction::Correct;
    if stays {
        order.replicas = None;
    }
    if looks.is_due(&key, &digest) {
        let answer = match found {
            Ok((provider, account)) => ensure(shared, provider.as_ref(), &account, &order).await,
            Err(trouble) => Err(trouble),
        };
        looks.took(&key, &digest, answer);
    }
    let rests = looks
        .state(&key)
        .filter(|s| s.phase == ManagedPhase::Active);
    if let Some(state) = rests {
        let same = wanted
            .replicas
            .is_none_or(|wanted| wanted == state.replicas);
        if same || stays {
            looks.settle(&key, &number);
        }
        *left = Some(state.replicas).filter(|_| stays && !same);
    }
    looks.known(&key, Some(&digest))
}

/// Whether the pool was what it says when it was last looked at, perhaps by another process.
fn was_as_wanted(pool: &MachineDeployment) -> bool {
    let Some(status) = &pool.status else {
        return false;
    };
    let is_false = |kind| condition::is_false(&status.conditions, kind);
    let drifted = condition::get(&status.conditions, kind::IN_SYNC).is_some();
    let scaled = is_false(kind::SCALING_UP) && is_false(kind::SCALING_DOWN);
    status.observed_generation == pool.metadata.generation && (scaled || drifted)
}

async fn ensure(
    shared: &Shared,
    provider: &dyn Provider,
    account: &Account,
    order: &PoolOrder,
) -> Result<PoolState, Trouble> {
    let Some(half) = provider.pools() else {
        return Err(lacks(provider, "groups of nodes"));
    };
    let verb = "ensurePool";
    let call = called(shared, verb, half.ensure(account, order));
    let whose = format!("{}/{}", order.owner.cluster_key, order.owner.pool);
    let asked = (account, order);
    let answer = shared
        .refusals
        .call((&whose, verb), &asked, shared.now(), call)
        .await;
    answer.map_err(|error| trouble(&error))
}

/// Takes the group away where that is due; `None` once it is gone.
async fn leave(shared: &Shared, pool: &MachineDeployment) -> Option<Known> {
    let (namespace, name) = name_of(pool);
    let (key, looks) = (key(pool), &shared.groups);
    if looks.is_due(&key, GOES) {
        let owner = owner(shared, &namespace, &pool.spec.cluster_name, &name);
        let removed = async {
            let (provider, account) = find(shared, &namespace, account(pool))?;
            let Some(half) = provider.pools() else {
                return Err(lacks(provider.as_ref(), "groups of nodes"));
            };
            let verb = "removePool";
            let call = called(shared, verb, half.remove(&account, &owner));
            let whose = format!("{}/{}", owner.cluster_key, owner.pool);
            let asked = (&account, &owner);
            let answer = shared
                .refusals
                .call((&whose, verb), &asked, shared.now(), call);
            answer.await.map_err(|error| trouble(&error))
        };
        match removed.await {
            Ok(true) => {
                shared
                    .refusals
                    .forget(&format!("{}/{}", owner.cluster_key, owner.pool));
                return None;
            }
            Ok(false) => {
                let none = || PoolState {
                    id: String::new(),
                    owner: owner.clone(),
                    phase: ManagedPhase::Deleting,
                    version: None,
                    replicas: 0,
                    node_label: String::new(),
                };
                let state = looks.state(&key).unwrap_or_else(none);
                let phase = ManagedPhase::Deleting;
                looks.took(&key, GOES, Ok(PoolState { phase, ..state }));
            }
            Err(trouble) => looks.took(&key, GOES, Err(trouble)),
        }
    }
    Some(looks.known(&key, None))
}

/// The group's nodes, and when the next of them is available by time alone; `None` where the cluster cannot be seen.
fn count(
    shared: &Shared,
    pool: &MachineDeployment,
    state: Option<&PoolState>,
    decision: &GroupDecision,
    now: Timestamp,
) -> (Option<GroupNodes>, Option<Timestamp>) {
    let label = || {
        let (namespace, _) = name_of(pool);
        let account = find(shared, &namespace, account(pool)).ok()?;
        let key = account.0.pools()?.node_label().to_owned();
        Some((key, state?.node_label.clone()))
    };
    let Some((label, value)) = label() else {
        return (None, None);
    };
    let (namespace, _) = name_of(pool);
    let cluster = &pool.spec.cluster_name;
    let Some(nodes) = shared.nodes.labelled(&namespace, cluster, &label, &value) else {
        return (None, None);
    };
    let least = pool
        .spec
        .template
        .spec
        .min_ready_seconds
        .unwrap_or(0)
        .max(0);
    let least = SignedDuration::from_secs(least.into());
    let minor = decision
        .order
        .as_ref()
        .map(|order| (order.version.major(), order.version.minor()));
    let (mut out, mut next) = (GroupNodes::default(), None::<Timestamp>);
    for node in nodes {
        out.nodes += 1;
        out.at_version += i32::from(minor.is_some() && kubelet(&node) == minor);
        let Some(since) = ready_since(&node) else {
            continue;
        };
        out.ready += 1;
        let at = since.checked_add(least).unwrap_or(Timestamp::MAX);
        match at <= now {
            true => out.available += 1,
            false => next = Some(next.map_or(at, |next| next.min(at))),
        }
    }
    (Some(out), next)
}

fn kubelet(node: &NodeView) -> Option<(u64, u64)> {
    let version: fleetwright_api::version::Version =
        node.info.kubelet_version.as_ref()?.parse().ok()?;
    Some((version.major(), version.minor()))
}

fn ready_since(node: &NodeView) -> Option<Timestamp> {
    let ready = node.conditions.iter().find(|c| c.kind == "Ready")?;
    (ready.status == "True").then_some(ready.since)
}

/// Says that somebody else changed the number of nodes, where it stays so.
fn tell(
    shared: &Shared,
    key: &Key,
    conditions: &mut Vec<condition::Condition>,
    left: Option<i32>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let kinds = match left {
        Some(replicas) => {
            let text =
                format!("the group wants {replicas} nodes: somebody else changed their number");
            let (kind, reason) = (kind::IN_SYNC, condition::reason::DRIFTED);
            condition::set(
                conditions,
                kind,
                condition::Status::False,
                reason,
                text,
                generation,
                now,
            );
            vec![DriftKind::InstanceChanged]
        }
        None => {
            conditions.retain(|c| c.type_ != kind::IN_SYNC);
            Vec::new()
        }
    };
    shared
        .drifts
        .told(&shared.context.metrics, key.clone(), kinds);
}

/// Forgets a pool that is gone.
pub(super) fn forget(shared: &Shared, key: &Key) {
    shared.groups.forget(key);
    shared
        .drifts
        .told(&shared.context.metrics, key.clone(), Vec::new());
}
