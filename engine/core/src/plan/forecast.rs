//! Which machines a plan replaces, in which steps, and why: the controllers' decisions, run ahead on a model.
//!
//! Nothing here decides: [`super::model`] runs the functions that the controllers run. With no other event between plan
//! and end, machines are replaced in this order; steps that the model takes together may come one after the other.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    API_VERSION, Cluster, Machine, MachineDeployment, MachineSet,
    meta::{
        self, LABEL_CLUSTER_NAME, LABEL_CONTROL_PLANE, LABEL_DEPLOYMENT_NAME, LABEL_FLEET,
        LABEL_SET_NAME,
    },
    names::fleet_hash,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::budgets::Budgets;
use super::{
    Change, Key, Live, Plan, Policy,
    effect::typed,
    model::{Model, Moves, Owner},
};
use crate::{catalogue::Catalogue, images::Image, waves::Place};

mod budgets;

/// Rounds after which a forecast is broken off, whatever is left.
const MOST_ROUNDS: usize = 20_000;

/// What becomes of the machines of one control plane or pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// The Cluster, for its control plane, or the MachineDeployment.
    pub owner: Key,
    /// Why: fields that changed, or the number that is wanted.
    pub because: Vec<String>,
    /// Machines that are changed while they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_place: Vec<String>,
    /// Machines that come and go, step by step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The versions that a control plane passes through, where they are several, and when workers move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What does not happen, or not yet, and why; or what of the order only shows when it happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Machines that come and go together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Which step of the cluster's; from 1. Steps of one number go on at the same time.
    pub step: usize,
    /// The wave that brings it, where the Fleet has waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// Machines that are made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create: Vec<String>,
    /// Their Kubernetes version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Machines that are drained and deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<String>,
}

impl Rollout {
    /// How many machines are made, and how many go.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let sum = |list: fn(&Step) -> &Vec<String>| self.steps.iter().map(|s| list(s).len()).sum();
        (sum(|s| &s.create), sum(|s| &s.delete))
    }

    /// Machines that come, and go again when the next change reaches them: a pool that grows while its cluster is upgraded has some.
    #[must_use]
    pub fn passing(&self) -> BTreeSet<&str> {
        let mut come = BTreeSet::new();
        let mut out = BTreeSet::new();
        for step in &self.steps {
            out.extend(step.delete.iter().filter(|m| come.contains(*m)));
            come.extend(&step.create);
        }
        out.into_iter().map(String::as_str).collect()
    }
}

impl Plan {
    /// The Clusters whose machines it may concern, but for those that are only deleted.
    #[must_use]
    pub fn clusters(&self) -> BTreeSet<Key> {
        let changes = self.creates.iter().chain(&self.changes);
        changes.filter_map(cluster_of).collect()
    }
}

/// Fills in what the plan does to machines. `live` must hold all pools, sets and machines of the clusters that it touches. Gives the
/// images that machines would be made from: whoever knows that some are missing says so in [`Live::missing_images`] and forecasts again.
pub fn forecast(
    plan: &mut Plan,
    live: &Live,
    policy: &Policy,
    catalogue: &Catalogue,
    now: Timestamp,
) -> BTreeSet<Image> {
    let touched = plan.clusters();
    plan.rollouts.clear();
    if touched.is_empty() {
        return BTreeSet::new();
    }
    let known = Known::of(plan, live);
    let mut pools: BTreeMap<Key, Vec<&Key>> = BTreeMap::new();
    let hash = fleet_hash(&policy.namespace, &policy.fleet);
    let mut budgets = Budgets::of_fleet(&policy.fleet, policy.disruption.as_ref());
    for (key, (object, change)) in &known.0 {
        let Some(cluster) = owner_of(key, *object, *change) else {
            continue;
        };
        let is_touched = touched.contains(&cluster);
        // Budgets of others hold nothing of this up, but a Fleet's counts them all.
        let counts = is_touched || policy.disruption.is_some();
        if key.kind == "Cluster"
            && counts
            && let Some(cluster) = merged::<Cluster>(*object, *change)
            && cluster.metadata.deletion_timestamp.is_none()
        {
            // What a plan changes becomes the Fleet's, if it is not yet.
            let label = object.and_then(|o| o["metadata"]["labels"][LABEL_FLEET].as_str());
            let of_fleet = change.is_some() || label == Some(&hash);
            budgets.cluster(&cluster, of_fleet);
        }
        if key.kind == "MachineDeployment" {
            if counts
                && let Some(pool) = merged::<MachineDeployment>(*object, *change)
                && pool.metadata.deletion_timestamp.is_none()
            {
                budgets.pool(&pool);
            }
            if is_touched {
                pools.entry(cluster).or_default().push(key);
            }
        }
    }
    live.machines.iter().for_each(|m| budgets.machine(m));
    let mut machines = by_cluster(live, &touched);
    let sets = by_pool(live);
    let (mut rollouts, mut images) = (Vec::new(), BTreeSet::new());
    let waves = policy.waves();
    let place = |change: &Change| waves.place(change.wave.as_deref());
    for key in &touched {
        // What of the cluster and of its pools has changed once `stage` is applied.
        let changed = |k: &Key, stage: Place| known.change(k).filter(|c| place(c) <= stage);
        let own = pools.remove(key).unwrap_or_default();
        let stages = own.iter().copied().chain([key]);
        let stages: BTreeSet<Place> = stages
            .filter_map(|k| known.change(k).map(place))
            .collect();
        let mut running: Option<Running<'_>> = None;
        for stage in stages {
            let Some(cluster) = merged::<Cluster>(known.object(key), changed(key, stage)) else {
                continue;
            };
            if cluster.metadata.deletion_timestamp.is_some() {
                break;
            }
            let pools: Vec<MachineDeployment> = own
                .iter()
                .filter_map(|k| merged::<MachineDeployment>(known.object(k), changed(k, stage)))
                .filter(|p| p.metadata.deletion_timestamp.is_none())
                .collect();
            match &mut running {
                Some(running) => running.model.becomes(cluster, pools),
                None => {
                    let names = pools.iter().filter_map(|p| p.metadata.name.as_deref());
                    let own = names.filter_map(|name| sets.get(&(key.namespace.as_str(), name)));
                    let sets = own.flatten().map(|set| (*set).clone()).collect();
                    let found = machines.remove(key).unwrap_or_default().into_iter();
                    let cloned = found.map(|(set, all)| (set, all.into_iter().cloned().collect()));
                    running = Some(Running::new(Model {
                        fresh: BTreeSet::new(),
                        sets,
                        machines: cloned.collect(),
                        cluster,
                        pools,
                        versions: &policy.versions,
                        catalogue,
                        now,
                        missing: &live.missing_images,
                        images: BTreeMap::new(),
                        notes: BTreeMap::new(),
                    }));
                }
            }
            if let Some(running) = &mut running {
                running.run(key, waves.name(stage));
            }
        }
        if let Some(running) = running {
            images.extend(running.model.images.values().flatten().cloned());
            rollouts.extend(running.ended(key, &budgets));
        }
    }
    plan.rollouts = rollouts;
    images
}

/// Clusters and pools that are there or come, each with what the plan makes of it; those that it deletes are left out.
struct Known<'a>(BTreeMap<Key, (Option<&'a Value>, Option<&'a Change>)>);

impl<'a> Known<'a> {
    fn of(plan: &'a Plan, live: &'a Live) -> Self {
        let mut out: BTreeMap<Key, (Option<&Value>, Option<&Change>)> = BTreeMap::new();
        for object in &live.objects {
            out.entry(Key::of(object)).or_default().0 = Some(object);
        }
        for change in plan.creates.iter().chain(&plan.changes) {
            out.entry(change.key.clone()).or_default().1 = Some(change);
        }
        for delete in &plan.deletes {
            out.remove(&delete.key);
        }
        Self(out)
    }

    fn object(&self, key: &Key) -> Option<&'a Value> {
        self.0.get(key)?.0
    }

    fn change(&self, key: &Key) -> Option<&'a Change> {
        self.0.get(key)?.1
    }
}

/// The sets of pools, by namespace and pool.
fn by_pool(live: &Live) -> BTreeMap<(&str, &str), Vec<&MachineSet>> {
    let mut out: BTreeMap<_, Vec<&MachineSet>> = BTreeMap::new();
    for set in &live.sets {
        let labels = set.metadata.labels.as_ref();
        let pool = labels.and_then(|l| l.get(LABEL_DEPLOYMENT_NAME));
        if let (Some(namespace), Some(pool)) = (set.metadata.namespace.as_deref(), pool) {
            let sets = out.entry((namespace, pool.as_str())).or_default();
            sets.push(set);
        }
    }
    out
}

/// The cluster whose machines a change may concern.
fn cluster_of(change: &Change) -> Option<Key> {
    owner_of(&change.key, None, Some(change))
}

/// The cluster that an object is, or that a pool belongs to once it is changed.
fn owner_of(key: &Key, live: Option<&Value>, change: Option<&Change>) -> Option<Key> {
    match key.kind.as_str() {
        "Cluster" => Some(key.clone()),
        "MachineDeployment" => {
            let object = change.and_then(|c| c.after.as_ref()).or(live)?;
            let name = object.pointer("/spec/clusterName")?.as_str()?;
            Some(Key {
                api_version: API_VERSION.into(),
                kind: "Cluster".into(),
                namespace: key.namespace.clone(),
                name: name.to_owned(),
            })
        }
        _ => None,
    }
}

/// The live object with what the plan makes of it.
fn merged<K: serde::de::DeserializeOwned>(
    live: Option<&Value>,
    change: Option<&Change>,
) -> Option<K> {
    let after = change.and_then(|c| c.after.as_ref());
    let (Some(live), Some(after)) = (live, after) else {
        return typed(live.or(after)?);
    };
    let mut object = live.clone();
    object["spec"] = after["spec"].clone();
    for field in ["labels", "annotations"] {
        object["metadata"][field] = after["metadata"][field].clone();
    }
    typed(&object)
}

type Machines<'a> = BTreeMap<String, Vec<&'a Machine>>;

/// The machines of the touched clusters, by set; the control plane's under the empty name.
fn by_cluster<'a>(live: &'a Live, touched: &BTreeSet<Key>) -> BTreeMap<Key, Machines<'a>> {
    let mut out: BTreeMap<Key, Machines<'a>> = BTreeMap::new();
    for machine in &live.machines {
        let labels = machine.metadata.labels.as_ref();
        let label = |name: &str| labels.and_then(|l| l.get(name));
        let Some(cluster) = label(LABEL_CLUSTER_NAME) else {
            continue;
        };
        let key = Key {
            api_version: API_VERSION.into(),
            kind: "Cluster".into(),
            namespace: machine.metadata.namespace.clone().unwrap_or_default(),
            name: cluster.clone(),
        };
        let set = match label(LABEL_CONTROL_PLANE) {
            Some(_) => Some(String::new()),
            None => label(LABEL_SET_NAME).cloned(),
        };
        if let Some(set) = set.filter(|_| touched.contains(&key)) {
            let sets = out.entry(key).or_default();
            sets.entry(set).or_default().push(machine);
        }
    }
    out
}

/// A forecast of one cluster, wave by wave.
struct Running<'a> {
    model: Model<'a>,
    out: BTreeMap<Owner, Rollout>,
    step: usize,
    path: Option<String>,
    /// What would happen to whose machines, and why, if the cluster were not paused.
    paused: BTreeMap<Owner, Vec<String>>,
}

impl<'a> Running<'a> {
    fn new(model: Model<'a>) -> Self {
        Self {
            model,
            out: BTreeMap::new(),
            step: 0,
            path: None,
            paused: BTreeMap::new(),
        }
    }

    /// Goes on until nothing moves any more. In a paused cluster nothing does.
    fn run(&mut self, cluster: &Key, wave: Option<&str>) {
        self.paused.clear();
        if meta::is_paused(&self.model.cluster) {
            let mut model = self.model.clone();
            let annotations = model.cluster.metadata.annotations.as_mut();
            annotations.and_then(|a| a.remove(meta::ANNOTATION_PAUSED));
            let mut resumed = Self::new(model);
            resumed.run(cluster, wave);
            let waits = resumed.out.into_iter();
            self.paused = waits.map(|(owner, r)| (owner, r.because)).collect();
            return;
        }
        let model = &mut self.model;
        let all = model.sets.iter().filter_map(|s| s.metadata.name.clone());
        model.fresh = all.collect();
        if self.path.is_none() {
            self.path = model.path();
        }
        for round in 0.. {
            let moves = model.decide();
            let progress = model.progress();
            if moves.is_empty() && !progress {
                break;
            }
            let moves_some = |m: &Moves| !m.create.is_empty() || !m.delete.is_empty();
            self.step += usize::from(moves.values().any(moves_some));
            for (owner, moves) in moves {
                let rollout = entry(&mut self.out, cluster, owner);
                take(rollout, moves, self.step, wave);
            }
            if round == MOST_ROUNDS {
                let all = self.out.values_mut();
                let words = format!("no end was found within {MOST_ROUNDS} steps");
                all.for_each(|r| r.note = Some(words.clone()));
                break;
            }
        }
    }

    /// Everything, with what keeps it from going on.
    fn ended(self, cluster: &Key, budgets: &Budgets) -> Vec<Rollout> {
        let Self {
            mut model,
            mut out,
            path,
            paused,
            ..
        } = self;
        let place = (cluster.namespace.as_str(), cluster.name.as_str());
        let losing = out.iter().filter(|(_, r)| r.counts().1 > 0);
        let held: Vec<_> = losing
            .filter_map(|(owner, _)| Some((owner.clone(), budgets.note(place, owner, &out)?)))
            .collect();
        let unmade = model.images.iter().filter_map(|(owner, images)| {
            let why = images.iter().find_map(|i| model.missing.get(i))?;
            Some((owner.clone(), format!("machines cannot be made: {why}")))
        });
        for (owner, because) in paused {
            let rollout = entry(&mut out, cluster, owner);
            rollout.note = Some("the Cluster is paused".to_owned());
            rollout.because = because;
        }
        // What keeps machines from coming keeps others from going, too.
        for (owner, text) in unmade.chain(held) {
            entry(&mut out, cluster, owner).note.get_or_insert(text);
        }
        for (owner, text) in std::mem::take(&mut model.notes) {
            entry(&mut out, cluster, owner).note.get_or_insert(text);
        }
        for (owner, rollout) in &mut out {
            // A control plane waits for each machine; a pool's next rollout does not wait for those that still start.
            if owner.is_some() && !rollout.passing().is_empty() {
                let text = "machines that come with this and are not available yet when they are to go again go before the others";
                rollout.note.get_or_insert_with(|| text.to_owned());
            }
        }
        if let Some(rollout) = out.get_mut(&None) {
            rollout.path = path;
        }
        out.into_values().collect()
    }
}

fn entry<'m>(
    out: &'m mut BTreeMap<Owner, Rollout>,
    cluster: &Key,
    owner: Owner,
) -> &'m mut Rollout {
    let key = match &owner {
        None => cluster.clone(),
        Some(pool) => Key {
            kind: "MachineDeployment".into(),
            name: pool.clone(),
            ..cluster.clone()
        },
    };
    out.entry(owner).or_insert(Rollout {
        owner: key,
        because: Vec::new(),
        in_place: Vec::new(),
        steps: Vec::new(),
        path: None,
        note: None,
    })
}

fn take(rollout: &mut Rollout, moves: Moves, step: usize, wave: Option<&str>) {
    if rollout.because.is_empty() && moves.because.is_empty() {
        rollout.because.extend(moves.number);
    }
    for text in moves.because {
        if !rollout.because.contains(&text) {
            rollout.because.push(text);
        }
    }
    for name in moves.in_place {
        if !rollout.in_place.contains(&name) {
            rollout.in_place.push(name);
        }
    }
    if !moves.create.is_empty() || !moves.delete.is_empty() {
        rollout.steps.push(Step {
            step,
            wave: wave.map(str::to_owned),
            create: moves.create,
            version: moves.version,
            delete: moves.delete,
        });
    }
}

#[cfg(test)]
mod tests;
