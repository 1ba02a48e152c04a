//! I9: what the plan of a commit foretells, to be compared with what happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleetwright_api::Fleet;
use fleetwright_core::plan::{Rollout, forecast, plan};
use fleetwright_gitops::{
    gather::{by_key, desired_of, gather, gather_machines, live_clusters, load_files, policy_of},
    load::SourceFile,
};
use kube::Api;
use serde_json::Value;

use crate::{engine::catalogue, world::World};

/// Machines that come and go, in order, by what is done and the set or control plane that they belong to.
pub(crate) type Order = BTreeMap<String, Vec<String>>;

/// What a plan foretells.
pub(crate) struct Foretold {
    pub(crate) order: Order,
    /// Machines that come and go with the plan: when among the others of their set they go only shows then, as the plan says.
    pub(crate) passing: BTreeSet<String>,
    /// The wave of each move, where the Fleet has waves.
    pub(crate) waves: BTreeMap<(String, String), usize>,
}

impl Foretold {
    /// The same order of moves, with that left out which only shows when it happens: machines that come and go are last, by name.
    pub(crate) fn comparable(&self, order: &Order) -> Order {
        let mut order = order.clone();
        for (_, names) in order
            .iter_mut()
            .filter(|(key, _)| key.starts_with("delete "))
        {
            let (mut passing, stay): (Vec<_>, Vec<_>) = names
                .drain(..)
                .partition(|name| self.passing.contains(name));
            passing.sort();
            names.extend(stay);
            names.append(&mut passing);
        }
        order
    }
}

/// Sorts moves by verb and owner.
pub(crate) fn order(moves: impl Iterator<Item = (String, String)>) -> Order {
    let mut all = Order::new();
    for (verb, name) in moves {
        let owner = name.rsplit_once('-').map_or("", |(owner, _)| owner);
        all.entry(format!("{verb} {owner}")).or_default().push(name);
    }
    // Machines that a set makes together are asked for together; their ordinals tell in which order it decided.
    let ordinal = |name: &String| name.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
    for (_, names) in all.iter_mut().filter(|(key, _)| key.starts_with("create ")) {
        names.sort_by_key(ordinal);
    }
    all
}

fn source_files(files: &BTreeMap<String, Value>) -> Vec<SourceFile> {
    let file = |(path, document): (&String, &Value)| SourceFile {
        path: path.clone(),
        content: Ok(document.to_string().into_bytes()),
    };
    files.iter().map(file).collect()
}

/// What a commit of these files would do now.
///
/// # Errors
/// It cannot be planned.
pub(crate) async fn foresee(
    world: &World,
    before: &BTreeMap<String, Value>,
    files: &BTreeMap<String, Value>,
) -> Result<Foretold, String> {
    let client = world.kubectl();
    let text = |e: &dyn std::error::Error| e.to_string();
    let fleet: Fleet = Api::namespaced(client.clone(), "default")
        .get("default")
        .await
        .map_err(|e| text(&e))?;
    let release = world.release.load(std::sync::atomic::Ordering::Relaxed);
    let catalogue = Arc::new(catalogue(release));
    let allow = fleet.spec.allow.clone().unwrap_or_default();
    let clusters = live_clusters(&client).await.map_err(|e| text(&e))?;
    let load = |files| load_files(&source_files(files), &catalogue, &allow, &clusters);
    let desired = desired_of(&load(files));
    let previous = by_key(&desired_of(&load(before)));
    let policy = policy_of(&fleet);
    let mut live = gather(&client, &desired, &policy)
        .await
        .map_err(|e| text(&e))?;
    let mut plan = plan(&desired, Some(&previous), &live, &policy, &catalogue);
    gather_machines(&client, &plan, &policy, &mut live)
        .await
        .map_err(|e| text(&e))?;
    forecast(&mut plan, &live, &policy, &catalogue, world.now());
    let steps = plan.rollouts.iter().flat_map(|r| &r.steps);
    let pools = plan.rollouts.iter().filter(|r| r.owner.kind != "Cluster");
    let passing = pools.flat_map(Rollout::passing).map(ToOwned::to_owned);
    let passing = passing.collect();
    let mut waves = BTreeMap::new();
    for step in plan.rollouts.iter().flat_map(|r| &r.steps) {
        let Some(wave) = step.wave.as_deref().map(|w| world.waves.named(w)) else {
            continue;
        };
        for (verb, names) in [("create", &step.create), ("delete", &step.delete)] {
            let moves = names.iter().map(|name| (verb.to_owned(), name.clone()));
            waves.extend(moves.map(|of| (of, wave)));
        }
    }
    let order = order(steps.flat_map(|step| {
        let made = step
            .create
            .iter()
            .map(|name| ("create".to_owned(), name.clone()));
        let gone = step
            .delete
            .iter()
            .map(|name| ("delete".to_owned(), name.clone()));
        made.chain(gone)
    }));
    Ok(Foretold {
        order,
        passing,
        waves,
    })
}
