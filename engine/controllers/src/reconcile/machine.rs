//! Machine: its instance, its node, and its way out.

use std::sync::Arc;

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, ProviderAccount, meta, names, version::Version,
};
use fleetwright_core::{
    cluster::is_control_plane,
    compare::compare,
    content::Content,
    drain::DrainProgress,
    machine::{DeletionStep, Instance, MachineFacts, MachineStep, NodeState, next_step},
    outcome::Outcome,
    pool_version::effective_version,
    status::{self, MachineObservation, NodeHealth, NodeObservation, UpToDate},
};
use fleetwright_providers::{
    Account, CreateInstance, InstanceState, Ownership, Provider, ProviderError, UpdateInstance,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::{Error, Shared};
use crate::{
    cache::name_of,
    drain,
    inventory::Seen,
    node_sync,
    nodes::{NodeView, SeenNode},
};

const BY: &str = "fleetwright-machine";
/// Time between two passes of a drain that has to wait.
const DRAIN_PAUSE_SECONDS: u64 = 2;

struct View {
    cluster: Option<Arc<Cluster>>,
    account: String,
    seen: Seen,
    node: SeenNode,
    facts: MachineFacts,
}

pub(super) async fn reconcile(shared: &Arc<Shared>, machine: &Machine) -> Result<Outcome, Error> {
    let now = shared.now();
    let (namespace, name) = name_of(machine);
    let mut view = gather(shared, machine);
    let mut step = next_step(machine, &view.facts, now);
    let mut detail = None;
    let mut retry = None;

    // A drain is looked at where it happens: what it finds is part of what is decided.
    if let MachineStep::Delete(DeletionStep::Drain {
        node, unreachable, ..
    }) = &step
    {
        match drain_pass(shared, machine, &view, node, *unreachable).await {
            Ok(progress) => {
                view.facts.drained = Some(progress.plan.is_done());
                view.facts.volumes_attached = Some(Vec::new());
                if progress.plan.is_done() {
                    step = next_step(machine, &view.facts, now);
                } else {
                    detail = Some(progress.to_string());
                    retry = Some(DRAIN_PAUSE_SECONDS);
                }
            }
            Err(error) => {
                detail = Some(format!("draining: {error}"));
                retry = Some(DRAIN_PAUSE_SECONDS);
            }
        }
    }
    let mut failure = act(shared, machine, &mut view, &step).await;
    // What follows once the id is stored is done at once: the status in between would tell nobody anything.
    if let (MachineStep::SetProviderId(_), Ok(())) = (&step, &failure)
        && let Some(stored) = shared.caches.get::<Machine>(&namespace, &name)
    {
        step = next_step(&stored, &view.facts, now);
        failure = act(shared, &stored, &mut view, &step).await;
    }
    if let Err(error) = &failure {
        detail = Some(chain(error));
    }

    let latest = shared
        .caches
        .get::<Machine>(&namespace, &name)
        .map_or_else(|| machine.clone(), |m| (*m).clone());
    if let MachineStep::Delete(deletion) = &step
        && let Some(until) = deletion.until()
    {
        // A time-out wakes itself: nothing else need happen for it to pass.
        let wait = seconds_until(until, now);
        retry = Some(retry.map_or(wait, |r: u64| r.min(wait)));
    }
    if !matches!(step, MachineStep::Delete(DeletionStep::RemoveFinalizer)) || failure.is_err() {
        let observation = observe(shared, &latest, &view, step.clone(), detail);
        let mut new = status::machine(&latest, &observation, now);
        if let MachineStep::Delete(deletion) = &step {
            deletion.record_start(new.deletion.get_or_insert_default(), now);
        }
        shared
            .write_status(&latest, latest.status.as_ref(), &new, BY)
            .await?;
        if let Some(at) = status::available_at(&latest, &new.conditions).filter(|at| *at > now) {
            let wait = seconds_until(at, now);
            retry = Some(retry.map_or(wait, |r: u64| r.min(wait)));
        }
    }
    failure?;
    match step {
        MachineStep::Delete(DeletionStep::RemoveFinalizer) => Ok(Outcome::Deleted),
        MachineStep::Running { .. } if retry.is_none() => Ok(Outcome::Done),
        step => match retry {
            Some(seconds) => Ok(Outcome::wait_seconds(step.to_string(), seconds)),
            None => Ok(Outcome::wait(step.to_string())),
        },
    }
}

/// Whole seconds after which `at` has passed.
fn seconds_until(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(at.duration_since(now).as_secs()).unwrap_or(0) + 1
}

/// The error and its causes in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn gather(shared: &Shared, machine: &Machine) -> View {
    let (namespace, name) = name_of(machine);
    let cluster_name = &machine.spec.cluster_name;
    let cluster = shared.caches.get::<Cluster>(&namespace, cluster_name);
    let account = machine.spec.content.provider_config.account().to_owned();
    let key = machine.spec.instance_key.as_deref().unwrap_or_default();
    let seen = shared.inventory.see(&account, key);
    let instance = match &seen {
        Seen::Unknown => Instance::Unknown,
        Seen::Missing => Instance::Missing,
        Seen::There(i) => match i.state {
            InstanceState::Pending | InstanceState::Failed => Instance::Pending,
            InstanceState::Running | InstanceState::Stopped => Instance::Running {
                provider_id: i.provider_id.clone(),
            },
            InstanceState::Deleting => Instance::Stopping,
        },
    };
    let provider_id = match &seen {
        Seen::There(i) => Some(i.provider_id.as_str()),
        _ => machine.spec.provider_id.as_deref(),
    };
    let node = shared.nodes.see(
        &namespace,
        cluster_name,
        provider_id,
        super::node_name(machine),
    );
    let node_state = match &node {
        SeenNode::Unknown => NodeState::Unknown,
        SeenNode::Missing => NodeState::Missing,
        SeenNode::There(n) => NodeState::Present {
            name: n.name.clone(),
            unreachable: matches!(n.health, NodeHealth::Unknown(_)),
        },
    };
    let initialized = |c: &Arc<Cluster>| {
        c.status
            .as_ref()
            .and_then(|s| s.initialization.as_ref())
            .is_some_and(|i| i.control_plane_initialized)
    };
    let ours = cluster
        .as_ref()
        .is_some_and(|c| c.spec.control_plane.machines.is_some());
    // Only a machine on its way out asks: that looks at all machines of the cluster.
    let stays = || {
        !ours
            || shared
                .caches
                .any_of_cluster::<Machine>(&namespace, cluster_name, |m| {
                    is_control_plane(m)
                        && m.name_any() != name
                        && m.metadata.deletion_timestamp.is_none()
                })
    };
    let facts = MachineFacts {
        instance,
        node: node_state,
        may_start: is_control_plane(machine) || cluster.as_ref().is_some_and(initialized),
        cluster_deleting: cluster
            .as_ref()
            .is_none_or(|c| c.metadata.deletion_timestamp.is_some()),
        control_plane_stays: machine.metadata.deletion_timestamp.is_none() || stays(),
        drained: None,
        volumes_attached: None,
    };
    View {
        cluster,
        account,
        seen,
        node,
        facts,
    }
}

/// The provider and the account of a machine.
fn provider(
    shared: &Shared,
    machine: &Machine,
    name: &str,
) -> Result<(Arc<dyn Provider>, Account), Error> {
    let account = shared.caches.get::<ProviderAccount>("", name).ok_or_else(|| {
        Error::Invalid(format!("there is no ProviderAccount {name}: make it, or name another in providerConfig.account"))
    })?;
    let allowed = &account.spec.allowed_namespaces;
    let namespace = machine.namespace().unwrap_or_default();
    if !allowed.is_empty() && !allowed.contains(&namespace) {
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
    Ok((Arc::clone(provider), to_account(&account)))
}

pub(crate) fn to_account(account: &ProviderAccount) -> Account {
    Account {
        name: account.name_any(),
        provider: account.spec.provider.clone(),
        region: account.spec.region.clone().unwrap_or_default(),
        endpoint: account.spec.endpoint.clone(),
        quotas: account.spec.quotas.clone(),
    }
}

async fn act(
    shared: &Arc<Shared>,
    machine: &Machine,
    view: &mut View,
    step: &MachineStep,
) -> Result<(), Error> {
    match step {
        MachineStep::AddFinalizer => {
            shared
                .add_finalizer(machine, meta::FINALIZER_MACHINE, BY)
                .await
        }
        MachineStep::SetInstanceKey => {
            let key = shared.context.random.key128();
            shared
                .patch(machine, json!({"spec": {"instanceKey": key}}), BY)
                .await
                .map(|_| ())
        }
        // Why nobody can be asked: there is no such account, it is not for this machine, or it cannot be listed.
        MachineStep::WaitProvider | MachineStep::Delete(DeletionStep::WaitProvider) => {
            provider(shared, machine, &view.account)?;
            shared
                .inventory
                .trouble(&view.account)
                .map_or(Ok(()), |why| {
                    Err(Error::Invalid(format!(
                        "the instances of account {} cannot be listed: {why}",
                        view.account
                    )))
                })
        }
        MachineStep::CreateInstance => create_instance(shared, machine, view).await,
        MachineStep::SetProviderId(id) => shared
            .patch(machine, json!({"spec": {"providerID": id}}), BY)
            .await
            .map(|_| ()),
        MachineStep::Running { .. } => {
            if let SeenNode::There(node) = &view.node {
                sync_node(shared, machine, node).await?;
            }
            update_instance(shared, machine, view).await
        }
        MachineStep::Delete(DeletionStep::DeleteInstance) => {
            let Seen::There(instance) = &view.seen else {
                return Ok(());
            };
            let (provider, account) = provider(shared, machine, &view.account)?;
            let key = machine.spec.instance_key.as_deref().unwrap_or_default();
            let result = provider.delete(&account, &instance.id, key).await;
            shared.context.metrics.called("delete", word(&result));
            result?;
            shared.inventory.deleting(&view.account, key);
            Ok(())
        }
        MachineStep::Delete(DeletionStep::DeleteNode { node, .. }) => {
            let client = workload(shared, machine).await?;
            match Api::<Node>::all(client)
                .delete(node, &DeleteParams::default())
                .await
            {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(Error::Workload(Box::new(error))),
            }
        }
        MachineStep::Delete(DeletionStep::RemoveFinalizer) => {
            shared
                .remove_finalizer(machine, meta::FINALIZER_MACHINE, BY)
                .await
        }
        _ => Ok(()),
    }
}

fn word<T>(result: &Result<T, ProviderError>) -> &'static str {
    result.as_ref().err().map_or("Ok", ProviderError::word)
}

async fn create_instance(shared: &Shared, machine: &Machine, view: &mut View) -> Result<(), Error> {
    let (provider, account) = provider(shared, machine, &view.account)?;
    let (namespace, name) = name_of(machine);
    let cluster = &machine.spec.cluster_name;
    let label = |key: &str| machine.labels().get(key).cloned().unwrap_or_default();
    let key = machine.spec.instance_key.clone().unwrap_or_default();
    #[cfg(feature = "seeded-bugs")]
    let key = match fleetwright_api::bugs::on("i1-new-key-on-retry") && machine.status.is_some() {
        true => shared.context.random.key128(),
        false => key,
    };
    let given = given(machine, view.cluster.as_deref());
    let order = CreateInstance {
        owner: Ownership {
            installation: shared.context.installation.clone(),
            cluster_key: names::cluster_key(&shared.context.installation, &namespace, cluster),
            cluster: format!("{namespace}/{cluster}"),
            pool: label(meta::LABEL_DEPLOYMENT_NAME),
            set: label(meta::LABEL_SET_NAME),
            machine: name,
            instance_key: key.clone(),
        },
        control_plane: is_control_plane(machine),
        version: machine.spec.content.version.clone().unwrap_or_default(),
        config: given.config,
        cluster_config: given.cluster_config,
        config_digest: given.config_digest,
        failure_domain: machine.spec.content.failure_domain.clone(),
        labels: node_sync::labels(machine),
        taints: machine.spec.content.taints.clone(),
    };
    let result = provider.create(&account, &order).await;
    shared.context.metrics.called("create", word(&result));
    let instance = result?;
    shared
        .inventory
        .wrote(&view.account, &key, Some(instance.clone()));
    view.seen = Seen::There(Box::new(instance));
    view.facts.instance = Instance::Pending;
    Ok(())
}

/// The settings that a machine's instance should have: its own, and for the control plane the cluster's.
fn given(machine: &Machine, cluster: Option<&Cluster>) -> UpdateInstance {
    let config = machine.spec.content.provider_config.to_value();
    let cluster_config = cluster
        .filter(|_| is_control_plane(machine))
        .and_then(|c| c.spec.provider_config.as_ref())
        .map(fleetwright_api::ProviderConfig::to_value);
    let text = json!([config, cluster_config]).to_string();
    UpdateInstance {
        config,
        cluster_config,
        config_digest: names::short_hash(["config", &text], 16),
    }
}

/// Tells the provider of settings that changed in place since the instance was last told.
async fn update_instance(shared: &Shared, machine: &Machine, view: &View) -> Result<(), Error> {
    let (Seen::There(instance), Some(cluster)) = (&view.seen, &view.cluster) else {
        return Ok(());
    };
    let change = given(machine, Some(cluster));
    if instance.config_digest == change.config_digest {
        return Ok(());
    }
    let (provider, account) = provider(shared, machine, &view.account)?;
    let result = provider.update(&account, &instance.id, &change).await;
    shared.context.metrics.called("update", word(&result));
    let key = machine.spec.instance_key.as_deref().unwrap_or_default();
    shared.inventory.wrote(&view.account, key, Some(result?));
    Ok(())
}

async fn workload(shared: &Shared, machine: &Machine) -> Result<kube::Client, Error> {
    let namespace = machine.namespace().unwrap_or_default();
    let reference = shared.cluster_ref(&namespace, &machine.spec.cluster_name);
    let client = shared.context.connections.client(&reference).await;
    client.map_err(|e| Error::Invalid(format!("cluster {} cannot be reached: {e}", reference.name)))
}

async fn sync_node(shared: &Shared, machine: &Machine, node: &NodeView) -> Result<(), Error> {
    let Some(patch) = node_sync::patch(machine, &machine.spec.cluster_name, node) else {
        return Ok(());
    };
    let client = workload(shared, machine).await?;
    let params = PatchParams {
        field_manager: Some(BY.into()),
        ..PatchParams::default()
    };
    match Api::<Node>::all(client)
        .patch(&node.name, &params, &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Workload(Box::new(error))),
    }
}

async fn drain_pass(
    shared: &Shared,
    machine: &Machine,
    view: &View,
    node: &str,
    unreachable: bool,
) -> Result<DrainProgress, Error> {
    let client = workload(shared, machine).await?;
    let cordoned = matches!(&view.node, SeenNode::There(n) if n.unschedulable);
    let started = machine
        .status
        .as_ref()
        .and_then(|s| s.deletion.as_ref()?.node_drain_start_time.clone());
    drain::pass(
        &client,
        node,
        cordoned,
        unreachable,
        started.map(|t| t.0),
        shared.now(),
    )
    .await
    .map_err(|e| Error::Workload(Box::new(e)))
}

fn observe(
    shared: &Shared,
    machine: &Machine,
    view: &View,
    step: MachineStep,
    detail: Option<String>,
) -> MachineObservation {
    let instance = match &view.seen {
        Seen::There(i) => Some(i),
        _ => None,
    };
    MachineObservation {
        instance: view.facts.instance.clone(),
        instance_view: instance.map(|i| {
            json!({
                "id": i.id, "state": i.state, "instanceType": i.instance_type, "image": i.image,
                "configDigest": i.config_digest,
            })
        }),
        addresses: instance.map(|i| i.addresses.clone()),
        failure_domain: instance.and_then(|i| i.failure_domain.clone()),
        node: match &view.node {
            SeenNode::Unknown => NodeObservation::NotAsked,
            SeenNode::Missing => NodeObservation::Missing,
            SeenNode::There(n) => NodeObservation::Present {
                name: n.name.clone(),
                health: n.health.clone(),
                info: n.info.clone(),
            },
        },
        up_to_date: up_to_date(shared, machine, view).unwrap_or(UpToDate::Unknown),
        step,
        detail,
    }
}

/// Whether the machine is what its pool or its Cluster wants now.
fn up_to_date(shared: &Shared, machine: &Machine, view: &View) -> Option<UpToDate> {
    let cluster = view.cluster.as_ref()?;
    let want = if is_control_plane(machine) {
        let wanted: Version = cluster.spec.version.parse().ok()?;
        Content::of_control_plane(cluster, &wanted, &shared.catalogue)?
    } else {
        let namespace = machine.namespace()?;
        let set = shared
            .caches
            .get::<MachineSet>(&namespace, &meta::controller_of(machine)?.name)?;
        let pool = shared
            .caches
            .get::<MachineDeployment>(&namespace, &meta::controller_of(set.as_ref())?.name)?;
        let version = effective_version(cluster, &pool).version?;
        Content::of_pool(&pool, &version, &shared.catalogue)
    };
    let replace = compare(&want, &Content::of_machine(machine), &shared.catalogue).replace;
    if replace.is_empty() {
        return Some(UpToDate::Yes);
    }
    Some(UpToDate::No(
        replace
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
    ))
}
