//! Cluster: control-plane machines one at a time, then what it says of itself.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, drift::DriftKind, meta, names,
    version::Version,
};
use fleetwright_core::{
    addons,
    cluster::{ClusterDeletionStep, deletion_step, is_control_plane},
    control_plane::{
        ControlPlaneAction, ControlPlaneDecision, ControlPlaneView, ControlPlaneWait, Snapshots,
        decide, has_served, route,
    },
    drift::MachinesInSync,
    external::differs,
    group,
    machine_set::NewMachine,
    outcome::Outcome,
    quorum::Etcd,
    status::{self, ClusterFacts},
    upgrade::Blocker,
    why::{Record, control_plane_goes},
};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Error, Shared, control_plane, managed, manifests, rebuild};
use crate::{
    bootstrap,
    cache::name_of,
    etcd::{self, Answer},
    health, images,
    queue::Key,
    run::Follow,
    snapshots::Seen,
    trail::Deeds,
    write::Written,
};

const BY: &str = "fleetwright-cluster";

pub(super) async fn reconcile(shared: &Arc<Shared>, cluster: &Cluster) -> Result<Outcome, Error> {
    let (namespace, name) = name_of(cluster);
    shared.know_again().await?;
    let deleting = cluster.metadata.deletion_timestamp.is_some();
    if !deleting
        && !cluster
            .finalizers()
            .iter()
            .any(|f| f == meta::FINALIZER_CLUSTER)
    {
        shared
            .add_finalizer(cluster, meta::FINALIZER_CLUSTER, BY)
            .await?;
        return Ok(Outcome::Changed);
    }
    if rebuild::control_plane(shared, cluster, BY).await? {
        return Ok(Outcome::Changed);
    }
    let machines: Vec<Arc<Machine>> = shared.caches.of_cluster(&namespace, &name);
    let pools: Vec<MachineDeployment> = all(shared, &namespace, &name);
    let now = shared.now();

    let (control_plane, workers): (Vec<&Machine>, Vec<&Machine>) = machines
        .iter()
        .map(Arc::as_ref)
        .partition(|m| is_control_plane(m));
    // Few beside the workers.
    let control_plane: Vec<Machine> = control_plane.into_iter().cloned().collect();
    let sets: Vec<MachineSet> = all(shared, &namespace, &name);
    // A set that is to have machines counts though they are not made yet.
    let lowest_worker = workers
        .iter()
        .map(|m| &m.spec.content)
        .chain(
            sets.iter()
                .filter(|s| s.spec.replicas != Some(0))
                .map(|s| &s.spec.template.spec),
        )
        .filter_map(|c| c.version.as_deref()?.parse::<Version>().ok())
        .chain(group::lowest_version(&pools, &shared.catalogue))
        .min();
    let unknown_workers = pools
        .iter()
        .find_map(|pool| rebuild::holds_pool(shared, pool));
    let unknown_workers = unknown_workers.map(|hold| hold.why);
    let deletion = match deleting.then(|| deletion_step(cluster, &pools, &sets, &machines)) {
        Some(step) => Some(managed::goes(shared, cluster, step).await),
        None => None,
    };
    let initialized = cluster
        .status
        .as_ref()
        .and_then(|s| s.initialization.as_ref())
        .is_some_and(|i| i.control_plane_initialized);
    let reference = shared.cluster_ref(&namespace, &name);
    let versions = control_plane::allowed_versions(shared, cluster);
    let domains = control_plane::failure_domains(shared, cluster);
    let asked = health::ask(shared, &namespace, &name, &control_plane);
    let shown = managed::known(shared, cluster);
    let gathered = ControlPlaneView {
        cluster,
        machines: &control_plane,
        managed: shown.as_ref(),
        etcd: Etcd::Members(&[]),
        components: &[],
        snapshots: Snapshots::NotKept,
        lowest_worker: lowest_worker.as_ref(),
        unknown_workers: unknown_workers.as_deref(),
        pools: &pools,
        versions: &versions,
        blocker: None,
        held: &asked.held,
        domains: &domains,
        catalogue: &shared.catalogue,
    };
    let route = route(&gathered).and_then(Result::ok);
    let blocker = match &route {
        Some(path) if !deleting => images::blocker(shared, cluster, &pools, path).await,
        _ => None,
    };
    let addons = bootstrap::addons::follow(shared, cluster, &control_plane).await;
    let behind = || addons::blocker(addons.as_ref()?, route.as_ref()?, &control_plane);
    let blocker = blocker.or_else(behind);
    let snapshots = bootstrap::snapshots(shared, cluster, &reference, route.as_ref()).await;
    let gathered = ControlPlaneView {
        blocker: blocker.as_ref(),
        snapshots: snapshots.as_ref().map_or(Snapshots::NotKept, Seen::kept),
        ..gathered
    };
    // Before anything serves there is no etcd; and where all of it goes nobody needs it.
    let serves = !deleting && (initialized || control_plane.iter().any(has_served));
    // Without a machine there is none to ask: the next one begins anew.
    let serves = serves && !control_plane.is_empty();
    let known = shared.etcds.known(&reference, &control_plane);
    let mut etcd = match known.filter(|_| serves) {
        None if serves => Some((etcd::ask(shared, &reference, &control_plane).await, true)),
        known => known.map(|answer| (answer, false)),
    };
    let mut decision = decide(&with_etcd(gathered, etcd.as_ref()), now);
    if serves && decision.needs_etcd() && !etcd.as_ref().is_some_and(|(_, fresh)| *fresh) {
        etcd = Some((etcd::ask(shared, &reference, &control_plane).await, true));
        decision = decide(&with_etcd(gathered, etcd.as_ref()), now);
    }
    let ordered = managed::order(shared, cluster, &decision, deletion.as_ref()).await;
    if ordered.is_some() {
        let gathered = ControlPlaneView {
            managed: ordered.as_ref(),
            ..gathered
        };
        decision = decide(&gathered, now);
    }
    let etcd = etcd.map(|(answer, _)| answer);
    let key = Key::Cluster(namespace.clone(), name.clone());
    if let ControlPlaneAction::Delete { machine, .. } = &decision.action
        && let Some(doomed) = control_plane.iter().find(|m| m.name_any() == *machine)
        && let Some(held) = shared.budgets.blocked(shared, doomed, &key)
    {
        decision.action = ControlPlaneAction::Wait(ControlPlaneWait::Budget(held));
    }
    let unlisted = rebuild::holds_control_plane(shared, cluster);
    let ground = bootstrap::prepare(shared, cluster, &control_plane, unlisted.as_ref(), BY).await;
    if let ControlPlaneAction::Create { .. } = &decision.action
        && let Some(why) = unlisted.or_else(|| ground.as_ref()?.hold.clone())
    {
        decision.action = ControlPlaneAction::Wait(ControlPlaneWait::Held(why));
    }

    let ours = cluster.spec.control_plane.machines.is_some();
    if !ours || control_plane.iter().any(|m| m.spec.provider_id.is_some()) || initialized {
        // Sent to the task that owns the watches; it knows which run already.
        let watch = Follow::Nodes(reference.clone());
        shared.follow.send(watch).ok();
    }
    if let Some(version) = &decision.snapshot {
        let snapshot = Follow::Snapshot(reference.clone(), version.clone());
        shared.follow.send(snapshot).ok();
    }
    let keys: BTreeSet<_> = machines
        .iter()
        .filter_map(|m| m.spec.instance_key.clone())
        .collect();
    let serves = initialized || control_plane.iter().any(has_served);
    let manifests = manifests::look(shared, cluster, serves).await;
    let external = cluster.spec.control_plane.external.as_ref();
    let served = external.and_then(|_| shared.nodes.served(&namespace, &name));
    let others = external.and_then(|_| shared.nodes.unmanaged(&namespace, &name, &machines));
    let facts = ClusterFacts {
        foreign_version: match &served {
            Some((oldest, _)) => Some(oldest.clone()),
            None => ordered
                .as_ref()
                .and_then(|known| Some(known.serves()?.to_string())),
        },
        foreign_newest: served.map(|(_, newest)| newest),
        unmanaged_nodes: others,
        reachable: shared.nodes.reachable(&namespace, &name),
        unreachable: shared.nodes.trouble(&namespace, &name),
        managed: ordered,
        failure_domains: domains,
        unmanaged_instances: shared.inventory.unmanaged(&reference.key, &keys),
        duplicate_instances: shared.inventory.duplicated(&reference.key),
        in_sync: Some(MachinesInSync::of(&machines)),
        etcd: etcd.as_ref().map(|answer| answer.members.clone()),
        components: etcd.as_ref().and_then(|answer| answer.components.clone()),
        endpoint: match &ground {
            Some(ground) => ground.endpoint.clone(),
            None => managed::endpoint(shared, cluster),
        },
        certificates: ground
            .as_ref()
            .and_then(|ground| ground.certificates.clone()),
        // Nobody can tell while it does not answer.
        addons: addons.filter(|_| shared.nodes.reachable(&namespace, &name) == Some(true)),
        without_snapshots: ground.is_some() && shared.context.escrow.is_none(),
        path: route
            .filter(|path| path.control_plane().count() > 1)
            .map(|path| path.to_string()),
        manifests: manifests.standing,
        deletion: deletion.clone(),
    };
    let new = status::cluster(cluster, &control_plane, &pools, &facts, &decision, now);
    let became = new
        .initialization
        .as_ref()
        .is_some_and(|i| i.control_plane_initialized)
        && !initialized;
    if became && ground.is_none() && cluster.spec.control_plane.managed.is_none() {
        // Before the status says that it has become so: a kill in between must not lose it.
        write_kubeconfig(shared, cluster).await?;
    }
    shared
        .write_status(cluster, cluster.status.as_ref(), &new, BY)
        .await?;
    let mut kinds = vec![DriftKind::Orphaned; new.unmanaged_instances.len()];
    kinds.resize(
        kinds.len() + new.duplicate_instances.len(),
        DriftKind::Duplicated,
    );
    kinds.extend(differs(cluster, new.version.as_deref()).map(|_| DriftKind::Version));
    shared
        .drifts
        .told(&shared.context.metrics, key.clone(), kinds);

    if let Some(leave) = &decision.leave {
        control_plane::leave(shared, &reference, &control_plane, leave, BY).await?;
        shared
            .queue
            .add(Key::Cluster(namespace.clone(), name.clone()));
    }
    if let Some(step) = deletion {
        return tear_down(shared, cluster, &machines, &pools, step).await;
    }
    for update in &decision.updates {
        if let Some(machine) = control_plane.iter().find(|m| m.name_any() == update.name) {
            shared.update_machine(machine, update, BY).await?;
        }
    }
    if !meta::is_paused(cluster) {
        control_plane::annotate(shared, &reference, &control_plane, BY).await?;
        control_plane::say(shared, &control_plane, etcd.as_ref(), &decision, BY).await?;
    }
    if let Some(text) = &decision.remember
        && let Some(latest) = shared.caches.get::<Cluster>(&namespace, &name)
    {
        let annotation = json!({meta::ANNOTATION_REMEDIATION_IN_PROGRESS: text});
        let patch = json!({"metadata": {"annotations": annotation}});
        shared.patch(latest.as_ref(), patch, BY).await?;
    }
    // A storm of failures passes though nothing happens.
    decision.look_again = decision.look_again.into_iter().chain(asked.next).min();
    let again = next_look(&decision, etcd.as_ref(), blocker.as_ref(), now);
    let snapshot = decision
        .snapshot
        .as_ref()
        .and_then(|_| shared.snapshots.again(&reference, now));
    let again = again
        .into_iter()
        .chain(snapshot)
        .chain(ground.and_then(|ground| ground.again))
        .chain(bootstrap::addons::next(shared, cluster))
        .chain(managed::next(shared, cluster))
        .chain(manifests.next)
        .min();
    let mut deeds = Deeds::of(
        shared,
        "Cluster",
        &cluster.metadata,
        Some(&cluster.metadata),
    );
    let seen = || seen(cluster, &pools, &machines);
    match decision.action {
        ControlPlaneAction::Create { machine, reason } => {
            tracing::info!(cluster = %name, machine = %machine.name, %reason, "control-plane machine");
            let mut machine = machine;
            let content = &mut machine.spec.content;
            content.provider_config = images::resolved(shared, &namespace, content).await?;
            // The counter goes up first: a name is never used twice, whatever happens in between. The read
            // is the one of this reconcile, so a stale one fails with a conflict.
            let latest = shared
                .caches
                .get::<Cluster>(&namespace, &name)
                .map_or_else(|| cluster.clone(), |c| (*c).clone());
            if Shared::next_ordinal(&latest) <= machine.ordinal {
                shared
                    .patch(&latest, Shared::ordinal_patch(machine.ordinal + 1), BY)
                    .await?;
            }
            let mut new = to_machine(shared, cluster, *machine)?;
            new.annotations_mut().insert(
                meta::ANNOTATION_MADE_BECAUSE.to_owned(),
                Record::of_control_plane(&reason, cluster).write(),
            );
            deeds.did(
                format!("create Machine {namespace}/{}: {reason}", new.name_any()),
                seen,
            );
            shared.create_machine(&new, BY).await?;
            Ok(Outcome::Changed)
        }
        ControlPlaneAction::Delete { machine, reason } => {
            tracing::info!(cluster = %name, %machine, %reason, "control-plane machine goes");
            if let Some(doomed) = control_plane.iter().find(|m| m.name_any() == machine) {
                let because = decision.outdated.get(&machine);
                let because = because.map_or(&[][..], Vec::as_slice);
                let because = control_plane_goes(doomed, reason, because, cluster);
                let words = format!("delete Machine {namespace}/{machine}: {because}");
                if shared.take(doomed, because, &key).await?.is_none() {
                    deeds.did(words, seen);
                }
            }
            Ok(Outcome::Changed)
        }
        ControlPlaneAction::Wait(wait) => Ok(Outcome::Wait {
            reason: wait.to_string(),
            retry_after: again,
        }),
        ControlPlaneAction::Settled => Ok(match again {
            None => Outcome::Done,
            retry_after => Outcome::Wait {
                reason: "everything is as wanted".into(),
                retry_after,
            },
        }),
    }
}

fn with_etcd<'a>(
    view: ControlPlaneView<'a>,
    etcd: Option<&'a (Answer, bool)>,
) -> ControlPlaneView<'a> {
    let Some((answer, _)) = etcd else {
        return ControlPlaneView {
            etcd: Etcd::Members(&[]),
            components: &[],
            ..view
        };
    };
    ControlPlaneView {
        etcd: match &answer.members {
            Ok(members) => Etcd::Members(members),
            Err(why) => Etcd::Unknown(why),
        },
        components: match &answer.components {
            Some(Ok(states)) => states,
            _ => &[],
        },
        ..view
    }
}

/// After how long to look again without an event: etcd tells nobody of a change, providers of no new image, time of its passing.
fn next_look(
    decision: &ControlPlaneDecision,
    etcd: Option<&Answer>,
    blocker: Option<&Blocker>,
    now: Timestamp,
) -> Option<Duration> {
    let time = decision.look_again.map(|at| {
        let wait = at.duration_since(now).as_secs().saturating_add(1);
        Duration::from_secs(u64::try_from(wait).unwrap_or(1))
    });
    let image = blocker.map(|_| images::MISSING);
    let etcd = etcd.map(etcd::holds);
    [time, image, etcd].into_iter().flatten().min()
}

/// Lets machines of a Cluster that is gone go on their way out.
pub(super) async fn abandoned(shared: &Shared, namespace: &str, name: &str) -> Result<(), Error> {
    control_plane::abandoned(shared, namespace, name, BY).await
}

fn all<K: Written>(shared: &Shared, namespace: &str, cluster: &str) -> Vec<K> {
    shared
        .caches
        .of_cluster::<K>(namespace, cluster)
        .into_iter()
        .map(Arc::unwrap_or_clone)
        .collect()
}

/// A Machine with its instance key drawn, controlled by the cluster.
fn to_machine(shared: &Shared, cluster: &Cluster, new: NewMachine) -> Result<Machine, Error> {
    let owner = meta::controller_owner(cluster)
        .ok_or_else(|| Error::Invalid("the Cluster has no uid".into()))?;
    Ok(super::set::to_machine(
        shared,
        cluster.namespace(),
        owner,
        new,
    ))
}

/// What was looked at of a cluster.
fn seen<'a>(
    cluster: &'a Cluster,
    pools: &'a [MachineDeployment],
    machines: &'a [Arc<Machine>],
) -> impl Iterator<Item = &'a ObjectMeta> {
    let above = [&cluster.metadata].into_iter();
    let pools = pools.iter().map(|pool| &pool.metadata);
    let machines = machines.iter().map(|machine| &machine.metadata);
    above.chain(pools).chain(machines)
}

async fn tear_down(
    shared: &Shared,
    cluster: &Cluster,
    machines: &[Arc<Machine>],
    pools: &[MachineDeployment],
    step: ClusterDeletionStep,
) -> Result<Outcome, Error> {
    let (namespace, name) = name_of(cluster);
    let waiting = step.to_string();
    let mut deeds = Deeds::of(
        shared,
        "Cluster",
        &cluster.metadata,
        Some(&cluster.metadata),
    );
    let seen = || seen(cluster, pools, machines);
    let mut goes = |kind: &str, meta: &ObjectMeta| {
        // What is on its way is asked for once.
        if meta.deletion_timestamp.is_none() {
            let name = meta.name.as_deref().unwrap_or_default();
            deeds.did(
                format!("delete {kind} {namespace}/{name}: its Cluster is deleted"),
                seen,
            );
        }
    };
    match step {
        ClusterDeletionStep::Paused => {}
        ClusterDeletionStep::Workers {
            delete_pools,
            delete_sets,
            delete_machines,
            ..
        } => {
            for pool in pools
                .iter()
                .filter(|p| delete_pools.contains(&p.name_any()))
            {
                goes("MachineDeployment", &pool.metadata);
                shared.delete(pool).await?;
            }
            for set in all::<MachineSet>(shared, &namespace, &name) {
                if delete_sets.contains(&set.name_any()) {
                    goes("MachineSet", &set.metadata);
                    shared.delete(&set).await?;
                }
            }
            for machine in machines
                .iter()
                .filter(|m| delete_machines.contains(&m.name_any()))
            {
                goes("Machine", &machine.metadata);
                shared.delete(machine.as_ref()).await?;
            }
        }
        ClusterDeletionStep::ControlPlane {
            delete_machines, ..
        } => {
            for machine in machines
                .iter()
                .filter(|m| delete_machines.contains(&m.name_any()))
            {
                goes("Machine", &machine.metadata);
                shared.delete(machine.as_ref()).await?;
            }
        }
        ClusterDeletionStep::Managed { .. } => {
            return Ok(Outcome::Wait {
                reason: waiting,
                retry_after: managed::next_look(shared, cluster),
            });
        }
        ClusterDeletionStep::Finish => {
            if let Some(waits) = bootstrap::remove(shared, cluster).await? {
                return Ok(Outcome::wait_seconds(waits, 5));
            }
            let latest = shared.caches.get::<Cluster>(&namespace, &name);
            if let Some(latest) = latest {
                shared
                    .remove_finalizer(latest.as_ref(), meta::FINALIZER_CLUSTER, BY)
                    .await?;
            }
            return Ok(Outcome::Deleted);
        }
    }
    Ok(Outcome::Wait {
        reason: waiting,
        retry_after: managed::next(shared, cluster),
    })
}

/// Keeps the cluster's kubeconfig where Cluster API keeps it: Secret `<cluster>-kubeconfig`, key `value`.
async fn write_kubeconfig(shared: &Shared, cluster: &Cluster) -> Result<(), Error> {
    let (namespace, name) = name_of(cluster);
    let reference = shared.cluster_ref(&namespace, &name);
    let Ok(Some(kubeconfig)) = shared.context.connections.kubeconfig(&reference).await else {
        return Ok(());
    };
    store_kubeconfig(shared, cluster, kubeconfig).await
}

/// Stores a cluster's kubeconfig.
pub(crate) async fn store_kubeconfig(
    shared: &Shared,
    cluster: &Cluster,
    kubeconfig: String,
) -> Result<(), Error> {
    let (namespace, name) = name_of(cluster);
    let secret = Secret {
        metadata: kube::api::ObjectMeta {
            name: Some(names::kubeconfig_secret(&name)),
            namespace: Some(namespace.clone()),
            labels: Some([(meta::LABEL_CLUSTER_NAME.to_owned(), name)].into()),
            owner_references: meta::controller_owner(cluster).map(|o| vec![o]),
            ..Default::default()
        },
        data: Some([("value".to_owned(), ByteString(kubeconfig.into_bytes()))].into()),
        type_: Some("fleetwright.dev/secret".into()),
        ..Secret::default()
    };
    let body = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": secret.metadata, "data": secret.data, "type": secret.type_,
    });
    let params = PatchParams::apply(BY).force();
    let secrets = Api::<Secret>::namespaced(shared.context.client.clone(), &namespace);
    match secrets
        .patch(&secret.name_any(), &params, &Patch::Apply(body))
        .await
    {
        // The type of a Secret never changes: this one is another's, such as Cluster API's for a cluster of the same name.
        Err(kube::Error::Api(status)) if status.code == 422 => {
            tracing::warn!(%namespace, secret = %secret.name_any(), error = %status.message,
                "the cluster's kubeconfig is not stored: the Secret of this name belongs to somebody else");
            Ok(())
        }
        other => other.map(|_| ()).map_err(Error::from),
    }
}
