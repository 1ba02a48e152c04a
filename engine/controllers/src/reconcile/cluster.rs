//! Cluster: control-plane machines one at a time, then what it says of itself.

use std::{collections::BTreeSet, sync::Arc};

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineSet, meta, version::Version};
use fleetwright_core::{
    cluster::{ClusterDeletionStep, deletion_step, is_control_plane},
    control_plane::{ControlPlaneAction, ControlPlaneView, decide},
    machine_set::NewMachine,
    outcome::Outcome,
    status::{self, ClusterFacts},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Error, Shared};
use crate::{cache::name_of, write::Written};

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
    let machines: Vec<Machine> = all(shared, &namespace, &name);
    let pools: Vec<MachineDeployment> = all(shared, &namespace, &name);
    let now = shared.now();

    let (control_plane, workers): (Vec<_>, Vec<_>) =
        machines.iter().cloned().partition(is_control_plane);
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
        .min();
    let deletion = deleting.then(|| deletion_step(cluster, &pools, &sets, &machines));
    let view = ControlPlaneView {
        cluster,
        machines: &control_plane,
        members: None,
        lowest_worker: lowest_worker.as_ref(),
        steps: &[],
        catalogue: &shared.catalogue,
    };
    let decision = decide(&view, now);

    let initialized = cluster
        .status
        .as_ref()
        .and_then(|s| s.initialization.as_ref())
        .is_some_and(|i| i.control_plane_initialized);
    let reference = shared.cluster_ref(&namespace, &name);
    if control_plane.iter().any(|m| m.spec.provider_id.is_some()) || initialized {
        // Sent to the task that owns the watches; it knows which run already.
        shared.follow.send(reference.clone()).ok();
    }
    let keys: BTreeSet<_> = machines
        .iter()
        .filter_map(|m| m.spec.instance_key.clone())
        .collect();
    let facts = ClusterFacts {
        reachable: shared.nodes.reachable(&namespace, &name),
        unmanaged_instances: shared.inventory.unmanaged(&reference.key, &keys),
        deletion: deletion.clone(),
        ..ClusterFacts::default()
    };
    let new = status::cluster(cluster, &control_plane, &pools, &facts, &decision, now);
    let became = new
        .initialization
        .as_ref()
        .is_some_and(|i| i.control_plane_initialized)
        && !initialized;
    if became {
        // Before the status says that it has become so: a kill in between must not lose it.
        write_kubeconfig(shared, cluster).await?;
    }
    shared
        .write_status(cluster, cluster.status.as_ref(), &new, BY)
        .await?;

    if let Some(step) = deletion {
        return tear_down(shared, cluster, &machines, &pools, step).await;
    }
    for update in &decision.updates {
        if let Some(machine) = control_plane.iter().find(|m| m.name_any() == update.name) {
            shared.update_machine(machine, update, BY).await?;
        }
    }
    match decision.action {
        ControlPlaneAction::Create { machine, reason } => {
            tracing::info!(cluster = %name, machine = %machine.name, %reason, "control-plane machine");
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
            let new = to_machine(shared, cluster, *machine)?;
            shared.create_machine(&new, BY).await?;
            Ok(Outcome::Changed)
        }
        ControlPlaneAction::Delete { machine, reason } => {
            tracing::info!(cluster = %name, %machine, %reason, "control-plane machine goes");
            if let Some(doomed) = control_plane.iter().find(|m| m.name_any() == machine) {
                shared.delete(doomed).await?;
            }
            Ok(Outcome::Changed)
        }
        ControlPlaneAction::Wait(wait) => Ok(Outcome::wait(wait.to_string())),
        ControlPlaneAction::Settled => Ok(Outcome::Done),
    }
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

async fn tear_down(
    shared: &Shared,
    cluster: &Cluster,
    machines: &[Machine],
    pools: &[MachineDeployment],
    step: ClusterDeletionStep,
) -> Result<Outcome, Error> {
    let (namespace, name) = name_of(cluster);
    let waiting = step.to_string();
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
                shared.delete(pool).await?;
            }
            for set in all::<MachineSet>(shared, &namespace, &name) {
                if delete_sets.contains(&set.name_any()) {
                    shared.delete(&set).await?;
                }
            }
            for machine in machines
                .iter()
                .filter(|m| delete_machines.contains(&m.name_any()))
            {
                shared.delete(machine).await?;
            }
        }
        ClusterDeletionStep::ControlPlane {
            delete_machines, ..
        } => {
            for machine in machines
                .iter()
                .filter(|m| delete_machines.contains(&m.name_any()))
            {
                shared.delete(machine).await?;
            }
        }
        ClusterDeletionStep::Finish => {
            let latest = shared.caches.get::<Cluster>(&namespace, &name);
            if let Some(latest) = latest {
                shared
                    .remove_finalizer(latest.as_ref(), meta::FINALIZER_CLUSTER, BY)
                    .await?;
            }
            return Ok(Outcome::Deleted);
        }
    }
    Ok(Outcome::wait(waiting))
}

/// Keeps the cluster's kubeconfig where Cluster API keeps it: Secret `<cluster>-kubeconfig`, key `value`.
async fn write_kubeconfig(shared: &Shared, cluster: &Cluster) -> Result<(), Error> {
    let (namespace, name) = name_of(cluster);
    let reference = shared.cluster_ref(&namespace, &name);
    let Ok(Some(kubeconfig)) = shared.context.connections.kubeconfig(&reference).await else {
        return Ok(());
    };
    let secret = Secret {
        metadata: kube::api::ObjectMeta {
            name: Some(format!("{name}-kubeconfig")),
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
