//! Machine: its instance, its node, and its way out.

mod absence;
mod drifting;
mod leaving;
mod provision;

pub(crate) use self::provision::{account_provider, called};

use std::{sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, ProviderAccount, meta, version::Version,
};
use fleetwright_core::{
    cluster::is_control_plane,
    compare::compare,
    content::Content,
    control_plane::{ETCD_HOOK, difference, has_served},
    machine::{
        DeletionStep, MachineFacts, MachineStep, NodeState, cluster_goes, control_plane_stays,
        next_step,
    },
    outcome::Outcome,
    pool_version::effective_version,
    status::{self, MachineObservation, NodeHealth, NodeObservation, UpToDate},
};
use fleetwright_providers::{ProviderError, UpdateInstance};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

pub(super) use self::provision::digest;
use self::{
    absence::{instance, prove_absence},
    leaving::{answer, goes, has_joined_since, look},
    provision::{create_instance, owner, provider, update_instance},
};
use super::{Error, Shared, seconds_until};
use crate::{
    bootstrap::{Boot, await_node, discard},
    cache::name_of,
    drift, health,
    inventory::Seen,
    node_sync,
    nodes::{NodeView, SeenNode},
    queue::Key,
    refusals::AGAIN_SECONDS,
};

const BY: &str = "fleetwright-machine";

struct View {
    cluster: Option<Arc<Cluster>>,
    account: String,
    seen: Seen,
    /// The settings that its instance should have.
    given: UpdateInstance,
    /// When to look again at what others change back as often as it is put right.
    again: Option<Timestamp>,
    node: SeenNode,
    /// Whether the node is not to count yet.
    held: bool,
    /// Since when the cluster does not answer.
    lost: Option<Timestamp>,
    /// The provider's error, where it refused something just now.
    refused: Option<ProviderError>,
    facts: MachineFacts,
}

pub(super) async fn reconcile(shared: &Arc<Shared>, machine: &Machine) -> Result<Outcome, Error> {
    let now = shared.now();
    let (namespace, name) = name_of(machine);
    let mut view = gather(shared, machine);
    let proven = prove_absence(shared, machine, &mut view).await;
    let step = next_step(machine, &view.facts, now);
    let (mut step, mut detail, mut retry) = look(shared, machine, &mut view, step, now).await;
    let mut failure = match proven {
        Ok(wait) => {
            retry = retry.into_iter().chain(wait).min();
            act(shared, machine, &mut view, &step).await
        }
        Err(error) => Err(error),
    };
    // What follows once the id is stored is done at once: the status in between would tell nobody anything.
    if let (MachineStep::SetProviderId(_), Ok(())) = (&step, &failure)
        && let Some(stored) = shared.caches.get::<Machine>(&namespace, &name)
    {
        step = next_step(&stored, &view.facts, now);
        failure = act(shared, &stored, &mut view, &step).await;
    }
    // What follows once that is removed which it booted from, too.
    if let (MachineStep::Delete(DeletionStep::DeleteBootstrap), Ok(())) = (&step, &failure) {
        view.facts.bootstrap_kept = false;
        step = next_step(machine, &view.facts, now);
        failure = act(shared, machine, &mut view, &step).await;
    }
    let boots = matches!(
        step,
        MachineStep::CreateInstance | MachineStep::WaitInstance | MachineStep::WaitNode
    );
    if boots && failure.is_ok() && !has_node(&view) {
        match keep_boot(shared, machine, &mut view, &step).await {
            Ok(again) => retry = retry.into_iter().chain(again.map(|d| d.as_secs())).min(),
            Err(error) => failure = Err(error),
        }
    }
    if let Err(error) = &failure {
        detail = Some(told(error));
        view.refused = error.of_provider().cloned();
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
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("still-node-patch") {
        retry = Some(retry.map_or(60, |r: u64| r.min(60)));
    }
    if !matches!(step, MachineStep::Delete(DeletionStep::RemoveFinalizer)) || failure.is_err() {
        let (observation, window) = observe(
            shared,
            &latest,
            &view,
            step.clone(),
            detail,
            failure.as_ref().err(),
            now,
        );
        let check = observation.health.verdict.next_check();
        let check = check.map(|seconds| u64::try_from(seconds).unwrap_or(0));
        let drift = view.again.into_iter().chain(window).min();
        let drift = drift.map(|at| seconds_until(at, now));
        retry = retry.into_iter().chain(check).chain(drift).min();
        let mut new = status::machine(&latest, &observation, now);
        if let MachineStep::Delete(deletion) = &step {
            let record = new.deletion.get_or_insert_default();
            deletion.record_start(record, now);
            if record.because.is_none() {
                record.because = Some(goes(shared, &latest, view.cluster.as_deref()));
            }
        }
        let written = shared
            .write_status(&latest, latest.status.as_ref(), &new, BY)
            .await?;
        let key = Key::Machine(namespace, name);
        let kinds = new.drift.iter().map(|d| d.kind).collect();
        shared.drifts.told(&shared.context.metrics, key, kinds);
        if written {
            let before = latest.status.as_ref();
            let before = before.map_or(&[][..], |s| s.conditions.as_slice());
            drift::tell(shared, &latest, before, &new.conditions).await;
        }
        if let Some(at) = status::available_at(&latest, &new.conditions).filter(|at| *at > now) {
            let wait = seconds_until(at, now);
            retry = Some(retry.map_or(wait, |r: u64| r.min(wait)));
        }
    }
    match failure {
        // Asking again at once cannot help: the machine or its account has to change.
        Err(error) if error.of_provider().is_some_and(ProviderError::is_terminal) => {
            let seconds = retry.unwrap_or(AGAIN_SECONDS).min(AGAIN_SECONDS);
            return Ok(Outcome::wait_seconds(chain(&error), seconds));
        }
        other => other?,
    }
    match step {
        MachineStep::Delete(DeletionStep::RemoveFinalizer) => Ok(Outcome::Deleted),
        MachineStep::Running { .. } if retry.is_none() => Ok(Outcome::Done),
        step => match retry {
            Some(seconds) => Ok(Outcome::wait_seconds(step.to_string(), seconds)),
            None => Ok(Outcome::wait(step.to_string())),
        },
    }
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

/// The error, and what comes of it.
fn told(error: &Error) -> String {
    let text = chain(error);
    match error.of_provider() {
        Some(e) if e.is_terminal() => format!(
            "{text}; it is asked again when the machine or its account changes, or after {AGAIN_SECONDS} s"
        ),
        Some(ProviderError::Quota { .. } | ProviderError::NoCapacity { .. }) => {
            format!("{text}; it is asked again, at least once a minute")
        }
        _ => text,
    }
}

fn gather(shared: &Shared, machine: &Machine) -> View {
    let (namespace, _) = name_of(machine);
    let cluster_name = &machine.spec.cluster_name;
    let cluster = shared.caches.get::<Cluster>(&namespace, cluster_name);
    let account = machine.spec.content.provider_config.account().to_owned();
    let key = machine.spec.instance_key.as_deref().unwrap_or_default();
    let seen = match shared.inventory.see(&account, key) {
        // Nothing was asked for: an account that cannot be listed holds it up no more.
        Seen::Unknown if key.is_empty() && machine.metadata.deletion_timestamp.is_some() => {
            Seen::Missing
        }
        seen => seen,
    };
    let instance = instance(&seen);
    let provider_id = match &seen {
        Seen::There(i) => Some(i.provider_id.as_str()),
        _ => machine.spec.provider_id.as_deref(),
    };
    let look = |id| {
        let name = super::node_name(machine);
        shared.nodes.see(&namespace, cluster_name, id, name)
    };
    let mut node = look(provider_id);
    // Of two instances with one key, the one that is seen may not be the one that joined: whose node it left goes along.
    if node == SeenNode::Missing && machine.metadata.deletion_timestamp.is_some() {
        node = look(machine.spec.provider_id.as_deref());
    }
    let node_state = match &node {
        SeenNode::Unknown | SeenNode::Several(_) => NodeState::Unknown,
        SeenNode::Missing => NodeState::Missing,
        SeenNode::There(n) => NodeState::Present {
            name: n.name.clone(),
            unreachable: matches!(n.health, NodeHealth::Unknown(_)),
        },
    };
    let given = provision::given(machine, cluster.as_deref());
    let initialized = |c: &Arc<Cluster>| {
        c.status
            .as_ref()
            .and_then(|s| s.initialization.as_ref())
            .is_some_and(|i| i.control_plane_initialized)
    };
    let any = |is: &dyn Fn(&Machine) -> bool| {
        let all = &shared.caches;
        all.any_of_cluster::<Machine>(&namespace, cluster_name, |m| is(m))
    };
    let facts = MachineFacts {
        instance,
        node: node_state,
        may_start: is_control_plane(machine) || cluster.as_ref().is_some_and(initialized),
        cluster_deleting: cluster_goes(cluster.as_deref()),
        cluster_paused: cluster
            .as_ref()
            .is_some_and(|c| meta::is_paused(c.as_ref())),
        control_plane_stays: control_plane_stays(machine, cluster.as_deref(), any),
        bootstrap_kept: keeps_boot(shared, machine, &account),
        drained: None,
        volumes_attached: None,
    };
    View {
        lost: shared.nodes.lost(&namespace, cluster_name),
        cluster,
        account,
        seen,
        given,
        again: None,
        node,
        held: false,
        refused: None,
        facts,
    }
}

fn has_node(view: &View) -> bool {
    matches!(view.facts.node, NodeState::Present { .. })
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
            let written = shared.patch(machine, json!({"spec": {"instanceKey": key}}), BY);
            written.await?;
            shared.inventory.drew(&view.account, &key, shared.now());
            Ok(())
        }
        // Why nobody can be asked: there is no such account, it is not for this machine, or it cannot be listed.
        MachineStep::WaitProvider | MachineStep::Delete(DeletionStep::WaitProvider) => {
            // Why the list does not come is the cause of whatever else is missing.
            match shared.inventory.trouble(&view.account) {
                Some(why) if why.is_terminal() => Err(Error::Provider(why)),
                Some(why) => Err(Error::Invalid(format!(
                    "the instances of account {} cannot be listed: {why}",
                    view.account
                ))),
                None => provider(shared, machine, &view.account).map(drop),
            }
        }
        MachineStep::CreateInstance => create_instance(shared, machine, view).await,
        MachineStep::SetProviderId(id) => shared
            .patch(machine, json!({"spec": {"providerID": id}}), BY)
            .await
            .map(|_| ()),
        // Its id is known before its provider says that it runs: its node may be faster.
        MachineStep::WaitInstance if has_node(view) && !has_served(machine) => {
            forget_boot_first(shared, machine, view).await
        }
        MachineStep::Running { .. } => {
            if !has_served(machine) {
                forget_boot_first(shared, machine, view).await?;
            }
            if let SeenNode::There(node) = &view.node {
                sync_node(shared, machine, node).await?;
            }
            update_instance(shared, machine, view).await
        }
        MachineStep::Delete(DeletionStep::DeleteInstance) => {
            let Seen::There(instance) = &view.seen else {
                return Ok(());
            };
            if has_joined_since(shared, machine, view).await {
                let hook = json!({"metadata": {"annotations": {ETCD_HOOK: ""}}});
                return shared.patch(machine, hook, BY).await.map(drop);
            }
            let (provider, account) = provider(shared, machine, &view.account)?;
            let key = machine.spec.instance_key.as_deref().unwrap_or_default();
            let call = called(
                shared,
                "delete",
                provider.delete(&account, &instance.id, key),
            );
            let asked = (&account, &instance.id);
            let (refusals, now) = (&shared.refusals, shared.now());
            refusals.call((key, "delete"), &asked, now, call).await?;
            shared.inventory.deleting(&view.account, key);
            Ok(())
        }
        MachineStep::Delete(DeletionStep::DeleteBootstrap) => {
            forget_boot(shared, machine, view).await
        }
        MachineStep::Delete(DeletionStep::DeleteNode { node, .. }) => {
            let client = workload(shared, machine).await?;
            let nodes = Api::<Node>::all(client);
            match answer(nodes.delete(node, &DeleteParams::default())).await {
                Err(error) if error.is_not_found() => Ok(()),
                other => other.map(drop),
            }
        }
        MachineStep::Delete(DeletionStep::RemoveFinalizer) => {
            let key = machine.spec.instance_key.as_deref().unwrap_or_default();
            shared.refusals.forget(key);
            shared
                .remove_finalizer(machine, meta::FINALIZER_MACHINE, BY)
                .await?;
            shared.inventory.forget(&view.account, key);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What it is to boot from holds until it has; when to look again. An order that nobody has fulfilled is made again with the same key
/// where that has ended.
async fn keep_boot(
    shared: &Shared,
    machine: &Machine,
    view: &mut View,
    step: &MachineStep,
) -> Result<Option<Duration>, Error> {
    let (provider, _) = provider(shared, machine, &view.account)?;
    let cluster = view.cluster.clone();
    let look = || await_node(shared, machine, cluster.as_deref(), provider.as_ref());
    let mut boot = look().await?;
    if boot == Boot::Ended && *step == MachineStep::WaitInstance {
        create_instance(shared, machine, view).await?;
        boot = look().await?;
    }
    match boot {
        Boot::Holds(again) => Ok(Some(again)),
        Boot::Ended | Boot::Rests => Ok(None),
    }
}

/// Whether the provider of this account may keep what the machine booted from, or boots from.
fn keeps_boot(shared: &Shared, machine: &Machine, account: &str) -> bool {
    let of = shared.caches.get::<ProviderAccount>("", account);
    let of = of.and_then(|of| shared.context.providers.get(&of.spec.provider));
    let drawn = machine.spec.instance_key.as_deref();
    drawn.is_some_and(|key| !key.is_empty()) && of.is_some_and(|p| p.bootstrap().is_some())
}

/// What it booted from holds secrets: nothing of it stays once it has joined or is gone.
async fn forget_boot(shared: &Shared, machine: &Machine, view: &View) -> Result<(), Error> {
    if !keeps_boot(shared, machine, &view.account) {
        return Ok(());
    }
    let owner = owner(shared, machine);
    let (provider, account) = match provider(shared, machine, &view.account) {
        Ok(found) => found,
        Err(error) if error.of_provider().is_some() => return Err(error),
        // An account that is gone holds nobody up.
        Err(_) => return Ok(()),
    };
    discard(shared, machine, provider.as_ref(), &account, &owner).await
}

/// The same before its status says that it has joined: nothing would try again after that, nor after a kill in between.
async fn forget_boot_first(
    shared: &Shared,
    machine: &Machine,
    view: &mut View,
) -> Result<(), Error> {
    let forgot = forget_boot(shared, machine, view).await;
    view.held = forgot.is_err();
    forgot
}

async fn workload(shared: &Shared, machine: &Machine) -> Result<kube::Client, Error> {
    let namespace = machine.namespace().unwrap_or_default();
    let reference = shared.cluster_ref(&namespace, &machine.spec.cluster_name);
    let client = shared.context.connections.client(&reference).await;
    client.map_err(|e| Error::Invalid(format!("cluster {} cannot be reached: {e}", reference.name)))
}

async fn sync_node(shared: &Shared, machine: &Machine, node: &NodeView) -> Result<(), Error> {
    let outdated = node_sync::is_outdated(&shared.caches, machine);
    let Some(patch) = node_sync::patch(machine, &machine.spec.cluster_name, node, outdated) else {
        return Ok(());
    };
    let client = workload(shared, machine).await?;
    let params = PatchParams {
        field_manager: Some(BY.into()),
        ..PatchParams::default()
    };
    let (nodes, patch) = (Api::<Node>::all(client), Patch::Merge(patch));
    answer(nodes.patch(&node.name, &params, &patch))
        .await
        .map(drop)
}

/// What is seen of the machine, and when a window opens in which what differs of it is put right.
fn observe(
    shared: &Shared,
    machine: &Machine,
    view: &View,
    step: MachineStep,
    detail: Option<String>,
    failure: Option<&Error>,
    now: Timestamp,
) -> (MachineObservation, Option<Timestamp>) {
    let instance = match &view.seen {
        Seen::There(i) => Some(i),
        _ => None,
    };
    let reason = instance.and_then(|i| i.reason.as_deref());
    let detail = match reason {
        Some(reason) => Some(format!(
            "{}; the provider says: {reason}",
            detail.unwrap_or_else(|| step.to_string())
        )),
        None => detail,
    };
    let paused = step == MachineStep::Paused;
    let (drift, correction) = drifting::read(shared, machine, view, paused, failure, now);
    let observation = MachineObservation {
        instance: view.facts.instance.clone(),
        instance_view: instance.map(|i| drifting::shown(i)),
        addresses: instance.map(|i| i.addresses.clone()),
        failure_domain: instance.and_then(|i| i.failure_domain.clone()),
        node: match &view.node {
            SeenNode::Unknown => NodeObservation::not_asked(view.lost, now),
            SeenNode::Missing => NodeObservation::Missing,
            SeenNode::Several(names) => NodeObservation::Several(names.clone()),
            SeenNode::There(_) if view.held => NodeObservation::Held,
            SeenNode::There(n) => NodeObservation::Present {
                name: n.name.clone(),
                health: n.health.clone(),
                info: n.info.clone(),
            },
        },
        health: health::of_machine(
            shared,
            machine,
            view.cluster.as_deref(),
            &view.facts.instance,
            &view.node,
            (correction.replace.as_deref(), drift.whole),
        ),
        up_to_date: match (&view.refused, &step, &detail) {
            // What changes in place never reaches it.
            (Some(error), MachineStep::Running { .. }, Some(why)) if error.is_terminal() => {
                UpToDate::No(why.clone())
            }
            _ => up_to_date(shared, machine, view).unwrap_or(UpToDate::Unknown),
        },
        drift,
        step,
        refused: view.refused.as_ref().map(ProviderError::word),
        detail,
    };
    (observation, correction.next)
}

/// Whether the machine is what its pool or its Cluster wants now.
fn up_to_date(shared: &Shared, machine: &Machine, view: &View) -> Option<UpToDate> {
    let cluster = view.cluster.as_ref()?;
    let replace = if is_control_plane(machine) {
        let wanted: Version = cluster.spec.version.parse().ok()?;
        let want = Content::of_control_plane(cluster, &wanted, &shared.catalogue)?;
        difference(&want, machine, &shared.catalogue).replace
    } else {
        let namespace = machine.namespace()?;
        let set = shared
            .caches
            .get::<MachineSet>(&namespace, &meta::controller_of(machine)?.name)?;
        let pool = shared
            .caches
            .get::<MachineDeployment>(&namespace, &meta::controller_of(set.as_ref())?.name)?;
        let version = effective_version(cluster, &pool).version?;
        let want = Content::of_pool(&pool, &version, &shared.catalogue);
        compare(&want, &Content::of_machine(machine), &shared.catalogue).replace
    };
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
