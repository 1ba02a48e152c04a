//! What the Cluster's controller does to its control-plane machines beside making and deleting them: their etcd members, and what it
//! says of each.

use fleetwright_api::{
    Cluster, Machine, ProviderAccount,
    condition::{self, Status, kind, reason},
    meta,
    time::rfc3339_seconds,
    version::Version,
};
use fleetwright_core::{
    cluster::is_control_plane,
    control_plane::{ComponentHealth, ControlPlaneDecision, ETCD_HOOK, Leave},
    health::is_broken,
};
use fleetwright_providers::{Account, ClusterRef};
use kube::ResourceExt;
use serde_json::json;

use super::{Error, Shared};
use crate::{
    bootstrap::makes_nodes,
    cache::name_of,
    certificates,
    etcd::{self, Answer},
    nodes::SeenNode,
};

/// The versions that the Cluster's Fleet allows; all where it belongs to none.
pub(super) fn allowed_versions(shared: &Shared, cluster: &Cluster) -> Vec<Version> {
    let fleet = shared.caches.fleet_of(cluster);
    fleet.map_or_else(Vec::new, |fleet| fleet.spec.allowed_versions())
}

/// The failure domains that its control-plane machines are spread over.
pub(super) fn failure_domains(shared: &Shared, cluster: &Cluster) -> Vec<String> {
    let domains = || {
        let machines = cluster.spec.control_plane.machines.as_ref()?;
        let config = &machines.template.spec.provider_config;
        let account = shared.caches.get::<ProviderAccount>("", config.account())?;
        let provider = shared.context.providers.get(&account.spec.provider)?;
        let config = shared.catalogue.effective(config);
        Some(provider.failure_domains(&Account::from(account.as_ref()), &config))
    };
    domains().unwrap_or_default()
}

/// Lets a member leave etcd, and then the machine that it belongs to go on its way out.
pub(super) async fn leave(
    shared: &Shared,
    cluster: &ClusterRef,
    control_plane: &[Machine],
    leave: &Leave,
    by: &str,
) -> Result<(), Error> {
    let (machine, member) = match leave {
        Leave::Machine { machine, member } => {
            let called = match member {
                true => etcd::member_of(shared, cluster, control_plane, machine).await,
                false => Ok(None),
            };
            let called =
                called.map_err(|e| Error::Invalid(format!("etcd cannot be asked: {e}")))?;
            let machine = control_plane.iter().find(|m| m.name_any() == *machine);
            (machine, called)
        }
        Leave::Orphan(member) => (None, Some(member.clone())),
    };
    if let Some(member) = member {
        tracing::info!(cluster = %cluster.name, %member, "etcd member leaves");
        let removed = shared.context.etcd.remove(cluster, &member).await;
        shared.etcds.forget(&cluster.namespace, &cluster.name);
        removed.map_err(|e| Error::Invalid(format!("etcd member {member} cannot leave: {e}")))?;
    }
    match machine {
        Some(machine) => release(shared, machine, by).await,
        None => Ok(()),
    }
}

async fn release(shared: &Shared, machine: &Machine, by: &str) -> Result<(), Error> {
    let patch = json!({"metadata": {"annotations": {ETCD_HOOK: null}}});
    match shared.patch(machine, patch, by).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Machines on their way out whose Cluster is gone: nobody is left to take their members out of etcd.
pub(super) async fn abandoned(
    shared: &Shared,
    namespace: &str,
    name: &str,
    by: &str,
) -> Result<(), Error> {
    for machine in shared.caches.of_cluster::<Machine>(namespace, name) {
        let leaving = machine.metadata.deletion_timestamp.is_some();
        if leaving && is_control_plane(&machine) && machine.annotations().contains_key(ETCD_HOOK) {
            release(shared, &machine, by).await?;
        }
    }
    Ok(())
}

/// Keeps on each machine our hook, and when its certificates expire: as its API server shows it, or as its node says it where that is not
/// of our making and has nothing to show.
pub(super) async fn annotate(
    shared: &Shared,
    cluster: &ClusterRef,
    control_plane: &[Machine],
    by: &str,
) -> Result<(), Error> {
    let ours = makes_nodes(shared, &cluster.namespace, &cluster.name);
    let shown = match ours {
        true => certificates::look(shared, cluster, control_plane).await,
        false => Default::default(),
    };
    for machine in control_plane {
        if machine.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let expiry = match ours {
            true => {
                let node = super::node_name(machine);
                node.and_then(|node| shown.get(node).map(|at| rfc3339_seconds(*at)))
            }
            false => said_by_node(shared, machine),
        };
        let mut wanted = json!({});
        if !machine.annotations().contains_key(ETCD_HOOK) {
            wanted[ETCD_HOOK] = json!("");
        }
        let key = meta::ANNOTATION_CERTIFICATES_EXPIRY;
        if expiry.is_some() && expiry.as_ref() != machine.annotations().get(key) {
            wanted[key] = json!(expiry);
        }
        if wanted != json!({}) {
            let patch = json!({"metadata": {"annotations": wanted}});
            shared.patch(machine, patch, by).await?;
        }
    }
    Ok(())
}

fn said_by_node(shared: &Shared, machine: &Machine) -> Option<String> {
    let (namespace, _) = name_of(machine);
    let node = shared.nodes.see(
        &namespace,
        &machine.spec.cluster_name,
        machine.spec.provider_id.as_deref(),
        super::node_name(machine),
    );
    match node {
        SeenNode::There(node) => {
            let said = node.annotations.get(meta::ANNOTATION_CERTIFICATES_EXPIRY);
            said.cloned()
        }
        _ => None,
    }
}

/// Says on each machine how its etcd member and the parts of the control plane on it are, and of a broken one what is done about it.
pub(super) async fn say(
    shared: &Shared,
    control_plane: &[Machine],
    etcd: Option<&Answer>,
    decision: &ControlPlaneDecision,
    by: &str,
) -> Result<(), Error> {
    for machine in control_plane {
        let (namespace, name) = name_of(machine);
        let latest = shared.caches.get::<Machine>(&namespace, &name);
        let Some(machine) = latest.filter(|m| m.metadata.deletion_timestamp.is_none()) else {
            continue;
        };
        let mut status = machine.status.clone().unwrap_or_default();
        let mut set = |kind: &str, status_is: Status, reason: &str, message: String| {
            condition::set(
                &mut status.conditions,
                kind,
                status_is,
                reason,
                message,
                machine.metadata.generation,
                shared.now(),
            );
        };
        let members = etcd.and_then(|answer| answer.members.as_ref().ok());
        let member = members.and_then(|all| all.iter().find(|m| m.name == name));
        let components = etcd.and_then(|answer| answer.components.as_ref()?.as_ref().ok());
        let components = components.into_iter().flatten();
        for state in components.filter(|state| state.machine == name) {
            let (kind, health) = (state.component.condition(), &state.health);
            let runs = Status::from(*health == ComponentHealth::Running);
            set(kind, runs, health.reason(), health.message().to_owned());
        }
        match member {
            Some(m) if m.learner => {}
            Some(m) if m.healthy => set(
                kind::ETCD_MEMBER_HEALTHY,
                Status::True,
                reason::HEALTHY,
                String::new(),
            ),
            Some(_) => set(
                kind::ETCD_MEMBER_HEALTHY,
                Status::False,
                reason::NOT_HEALTHY,
                "the machine's etcd member does not answer or raises an alarm".into(),
            ),
            None => {}
        }
        if is_broken(&machine)
            && let Some(remediation) = &decision.remediation
        {
            let (why, text) = match &remediation.waits {
                _ if remediation.machine != name => (
                    reason::REMEDIATION_DEFERRED,
                    format!("machine {} comes first", remediation.machine),
                ),
                Some(waits) => (waits.reason(), waits.to_string()),
                None => (
                    reason::MACHINE_DELETING,
                    "the control plane replaces the machine".into(),
                ),
            };
            set(kind::OWNER_REMEDIATED, Status::False, why, text);
        }
        shared
            .write_status(machine.as_ref(), machine.status.as_ref(), &status, by)
            .await?;
    }
    Ok(())
}
