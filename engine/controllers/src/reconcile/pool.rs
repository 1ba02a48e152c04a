//! MachineDeployment: which sets there are, and how large each is.

use std::sync::Arc;

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, machine_set::MachineSetSpec, meta,
};
use fleetwright_core::{
    compare::FieldChange,
    outcome::Outcome,
    pool_version::effective_version,
    rollout::{self, RolloutDecision, RolloutWait},
    status,
};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::{Error, Shared, rebuild};
use crate::{cache::name_of, images::resolved, queue::Key, trail::Deeds, write::merge_diff};

const BY: &str = "fleetwright-machinedeployment";

pub(super) async fn reconcile(shared: &Shared, pool: &MachineDeployment) -> Result<Outcome, Error> {
    let (namespace, name) = name_of(pool);
    let uid = pool.uid().unwrap_or_default();
    let _room = shared.rooms.enter(&uid).await;
    shared.know_again().await?;
    let sets = shared.caches.owned::<MachineSet>(&uid);
    let mut sets: Vec<MachineSet> = sets.into_iter().map(Arc::unwrap_or_clone).collect();
    let mut machines: Vec<Arc<Machine>> = Vec::new();
    for set in &mut sets {
        let own = shared.caches.owned(&set.uid().unwrap_or_default());
        status::recount(set, &own);
        machines.extend(own);
    }
    let now = shared.now();
    let Some(cluster) = shared
        .caches
        .get::<Cluster>(&namespace, &pool.spec.cluster_name)
    else {
        let wait = RolloutWait::NoCluster(pool.spec.cluster_name.clone());
        let decision = RolloutDecision {
            waiting: Some(wait.clone()),
            ..RolloutDecision::default()
        };
        let new = status::machine_deployment(pool, &sets, &machines, Some(&decision), now);
        shared
            .write_status(pool, pool.status.as_ref(), &new, BY)
            .await?;
        return Ok(Outcome::wait(wait.to_string()));
    };
    if meta::is_paused(cluster.as_ref()) {
        let mut new = status::machine_deployment(pool, &sets, &machines, None, now);
        status::pause(&mut new.conditions, pool.metadata.generation, now);
        shared
            .write_status(pool, pool.status.as_ref(), &new, BY)
            .await?;
        return Ok(Outcome::wait("its Cluster is paused"));
    }
    if rebuild::pool(shared, pool, &cluster, &sets, BY).await? {
        return Ok(Outcome::Changed);
    }
    let version = effective_version(&cluster, pool);
    let mut decision = match rollout::decide(pool, &sets, &version, &shared.catalogue, now) {
        Ok(decision) => decision,
        Err(error) => {
            let new = status::machine_deployment(pool, &sets, &machines, None, now);
            shared
                .write_status(pool, pool.status.as_ref(), &new, BY)
                .await?;
            return Err(Error::Invalid(error.to_string()));
        }
    };
    let new = status::machine_deployment(pool, &sets, &machines, Some(&decision), now);
    shared
        .write_status(pool, pool.status.as_ref(), &new, BY)
        .await?;
    if pool.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::wait("the pool is on its way out"));
    }

    decision.record(pool, Some(&cluster));
    let mut deeds = Deeds::of(
        shared,
        "MachineDeployment",
        &pool.metadata,
        Some(&pool.metadata),
    );
    let seen = || {
        let above = [&pool.metadata, &cluster.metadata].into_iter();
        let below = machines.iter().map(|m| &m.metadata);
        above.chain(sets.iter().map(|s| &s.metadata)).chain(below)
    };
    if let Some(new) = &decision.create {
        // Pools, sets and Clusters come by watches of their own, and what is applied to both is applied to the Cluster first: a new set
        // is made only of what the API says now, so that a version and a config changed together roll the pool once, and a pool
        // that is being deleted with its sets gets none.
        let moves = |change: &FieldChange| change.path == "spec.version";
        if pool.spec.template.spec.version.is_none() && new.because.iter().any(moves) {
            let now = (cluster.metadata.generation, pool.metadata.generation);
            let key = Key::Pool(namespace.clone(), name.clone());
            if let Some(left) = shared.together.left(&key, now) {
                return Ok(Outcome::Wait {
                    reason: "what else the commit changes of the pool may be on its way".into(),
                    retry_after: Some(left),
                });
            }
        }
        let of: Option<Cluster> = shared.read(&namespace, &pool.spec.cluster_name).await?;
        let own: Option<MachineDeployment> = shared.read(&namespace, &name).await?;
        let (Some(of), Some(own)) = (of, own) else {
            return Ok(Outcome::wait("the pool or its Cluster is gone"));
        };
        // A deletion is another generation too.
        let same = of.metadata.generation == cluster.metadata.generation
            && own.metadata.generation == pool.metadata.generation;
        if !same {
            shared.queue.add(Key::Pool(namespace, name));
            return Ok(Outcome::Changed);
        }
        let changes: Vec<String> = new.because.iter().map(ToString::to_string).collect();
        let because = changes.join("; ");
        tracing::info!(pool = %name, set = %new.name, %because, "new set");
        let why = match because.as_str() {
            "" => String::new(),
            because => format!(": {because}"),
        };
        deeds.did(
            format!("create MachineSet {namespace}/{}{why}", new.name),
            seen,
        );
        let mut set = new.to_set(pool);
        let content = &mut set.spec.template.spec;
        content.provider_config = resolved(shared, &namespace, content).await?;
        let made = shared.create(&set, BY).await;
        shared.doubt(Key::Set(namespace.clone(), new.name.clone()), made)?;
    }
    let find = |name: &str| sets.iter().find(|s| s.name_any() == name);
    let latest = |name: &str| shared.caches.get::<MachineSet>(&namespace, name);
    for update in &decision.updates {
        let Some(set) = find(&update.name) else {
            continue;
        };
        let mut patch = json!({});
        let annotations: Map<String, Value> = update
            .annotations
            .iter()
            .map(|(k, v)| (k.clone(), json!(v)))
            .collect();
        if !annotations.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(annotations);
        }
        let encode = |s: &MachineSetSpec| serde_json::to_value(s).map_err(Error::Encode);
        let mut spec = set.spec.clone();
        spec.template = update.template.clone();
        spec.deletion = update.deletion.clone();
        if let Some(change) = merge_diff(&encode(&set.spec)?, &encode(&spec)?) {
            patch["spec"] = change;
        }
        if patch != json!({}) {
            shared.patch(set, patch, BY).await?;
        }
    }
    for scale in &decision.scale {
        let Some(set) = latest(&scale.name) else {
            continue;
        };
        tracing::info!(pool = %name, set = %scale.name, from = scale.from, to = scale.to, reason = %scale.reason, "scale");
        let (set_name, from, to, why) = (&scale.name, scale.from, scale.to, &scale.reason);
        deeds.did(
            format!("scale MachineSet {namespace}/{set_name} from {from} to {to}: {why}"),
            seen,
        );
        let patch = json!({"spec": {"replicas": scale.to}});
        let scaled = shared.patch(set.as_ref(), patch, BY).await;
        shared.doubt(Key::Set(namespace.clone(), scale.name.clone()), scaled)?;
    }
    for old in &decision.cleanup {
        if let Some(set) = find(old) {
            deeds.did(format!("delete MachineSet {namespace}/{old}: it has no machines and the pool keeps enough others"), seen);
            shared.delete(set).await?;
        }
    }
    let revision = decision.revision.to_string();
    if decision.current.is_some()
        && pool.annotations().get(meta::ANNOTATION_ROLLOUT_REVISION) != Some(&revision)
    {
        let patch =
            json!({"metadata": {"annotations": {meta::ANNOTATION_ROLLOUT_REVISION: revision}}});
        let pool = shared.caches.get::<MachineDeployment>(&namespace, &name);
        if let Some(pool) = pool {
            shared.patch(pool.as_ref(), patch, BY).await?;
        }
    }
    if !decision.is_settled() {
        return Ok(Outcome::Changed);
    }
    let waits = decision.waiting.as_ref().map(ToString::to_string);
    let next = decision
        .next
        .into_iter()
        .chain(status::next_turn(&machines, now))
        .min();
    Ok(super::rest(waits, next, now))
}
