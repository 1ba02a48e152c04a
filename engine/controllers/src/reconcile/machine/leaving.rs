//! A machine on its way out, where its node is: the drain and the volumes.

use std::{sync::Arc, time::Duration};

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineDrainRule, MachineSet, meta};
use fleetwright_core::{
    cluster::is_control_plane,
    drain::{pause_seconds, rules_of},
    machine::{DeletionStep, MachineStep, next_step},
    why::Scene,
};
use jiff::Timestamp;
use kube::ResourceExt;

use super::{Error, Shared, View, chain, workload};
use crate::{cache::name_of, drain::Draining, etcd::member_of, nodes::SeenNode};

/// Longest wait for what a workload cluster is asked: a pass of a drain takes 10 s and some lists.
const ANSWER: Duration = Duration::from_secs(30);

/// What a workload cluster answers. One that takes requests and never answers must not hold up time-outs.
pub(super) async fn answer<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(result) => result.map_err(|e| Error::Workload(Box::new(e))),
        Err(_) => Err(Error::Invalid(format!(
            "the cluster's API has not answered within {} s",
            ANSWER.as_secs()
        ))),
    }
}

/// A drain, and the volumes that it leaves, are looked at where they are: what is found is part of what is decided. Gives the step,
/// more words on it, and when to look again although nothing happens here.
pub(super) async fn look(
    shared: &Shared,
    machine: &Machine,
    view: &mut View,
    mut step: MachineStep,
    now: Timestamp,
) -> (MachineStep, Option<String>, Option<u64>) {
    while let MachineStep::Delete(
        deletion
        @ (DeletionStep::Drain { started, .. } | DeletionStep::WaitVolumes { started, .. }),
    ) = &step
    {
        let pause = Some(pause_seconds(*started, now));
        let drains = matches!(deletion, DeletionStep::Drain { .. });
        if !drains && view.facts.volumes_attached.is_some() {
            return (step, None, pause);
        }
        let looked = match workload(shared, machine).await {
            Ok(client) => {
                let draining = draining(shared, machine, view, &client, deletion);
                if drains {
                    answer(draining.pass(now)).await.map(|progress| {
                        let done = progress.plan.is_done();
                        view.facts.drained = Some(done);
                        (!done).then(|| progress.to_string())
                    })
                } else {
                    answer(draining.volumes(now)).await.map(|volumes| {
                        view.facts.volumes_attached = Some(volumes);
                        None
                    })
                }
            }
            Err(error) => Err(error),
        };
        match looked {
            Ok(None) => step = next_step(machine, &view.facts, now),
            Ok(words) => return (step, words, pause),
            Err(error) => {
                let words = format!("{deletion}: {}", chain(&error));
                return (step, Some(words), pause);
            }
        }
    }
    (step, None, None)
}

fn draining<'a>(
    shared: &Shared,
    machine: &Machine,
    view: &View,
    client: &'a kube::Client,
    step: &'a DeletionStep,
) -> Draining<'a> {
    let (node, unreachable, started, until) = match step {
        DeletionStep::Drain {
            node,
            unreachable,
            started,
            until,
        } => (node.as_str(), *unreachable, *started, *until),
        DeletionStep::WaitVolumes {
            node,
            started,
            until,
            ..
        } => (node.as_str(), false, *started, *until),
        _ => ("", false, Timestamp::MIN, Timestamp::MIN),
    };
    let rules = shared.caches.all::<MachineDrainRule>();
    let rules = rules.iter().map(Arc::as_ref);
    Draining {
        client,
        node,
        cordoned: matches!(&view.node, SeenNode::There(n) if n.unschedulable),
        unreachable,
        rules: match &view.cluster {
            Some(cluster) => rules_of(machine, cluster, rules),
            None => Vec::new(),
        },
        started,
        until,
    }
}

/// Whether a machine that was no member of etcd when our hook let it go is one now: an instance that boots joins by itself. Where etcd
/// cannot be asked it goes, as the hook has it.
pub(super) async fn has_joined_since(shared: &Shared, machine: &Machine, view: &View) -> bool {
    if !is_control_plane(machine) || !view.facts.control_plane_stays {
        return false;
    }
    let (namespace, name) = name_of(machine);
    let cluster = shared.cluster_ref(&namespace, &machine.spec.cluster_name);
    let all = shared
        .caches
        .of_cluster::<Machine>(&namespace, &cluster.name);
    let control_plane = all.iter().filter(|m| is_control_plane(m));
    let control_plane: Vec<Machine> = control_plane.map(|m| (**m).clone()).collect();
    let member = member_of(shared, &cluster, &control_plane, &name).await;
    let joined = member.is_ok_and(|member| member.is_some());
    if joined {
        shared.etcds.forget(&cluster.namespace, &cluster.name);
    }
    joined
}

/// Why the machine goes: what was noted when it was deleted, else what its owners tell.
pub(super) fn goes(shared: &Shared, machine: &Machine, cluster: Option<&Cluster>) -> String {
    if let Some(noted) = shared.goes.lock().get(&name_of(machine)) {
        return noted.clone();
    }
    let namespace = machine.namespace().unwrap_or_default();
    let owner = meta::controller_of(machine).filter(|o| o.kind == "MachineSet");
    let set = owner.and_then(|o| shared.caches.get::<MachineSet>(&namespace, &o.name));
    let owner = set.as_deref().and_then(meta::controller_of);
    let pool = owner.and_then(|o| shared.caches.get::<MachineDeployment>(&namespace, &o.name));
    let scene = Scene {
        cluster,
        pools: pool.as_deref().map_or(&[], std::slice::from_ref),
        sets: set.as_deref().map_or(&[], std::slice::from_ref),
        machines: &[],
    };
    scene.goes(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_never_answers_holds_up_nobody() {
        let begun = tokio::time::Instant::now();
        let silent = answer(std::future::pending::<kube::Result<()>>()).await;
        let text = silent.unwrap_err().to_string();
        assert_eq!(text, "the cluster's API has not answered within 30 s");
        assert_eq!(begun.elapsed(), ANSWER);
    }
}
