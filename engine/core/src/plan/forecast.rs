//! Which machines a plan replaces, in which steps, and why: the controllers' decisions, run ahead on a model.
//!
//! Nothing here decides: [`super::model`] runs the functions that the controllers run. With no other event between plan
//! and end, machines are replaced in this order; steps that the model takes together may come one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fleetwright_api::{
    API_VERSION, Cluster, Machine, MachineDeployment, MachineSet,
    meta::{
        self, LABEL_CLUSTER_NAME, LABEL_CONTROL_PLANE, LABEL_DEPLOYMENT_NAME, LABEL_FLEET,
        LABEL_SET_NAME,
    },
    names::fleet_hash,
};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{budgets::Budgets, expected::Times, quotas::Quotas, running::Running};
pub use self::{
    expected::{History, HistoryOf},
    quotas::has_quota,
};
use super::{
    Change, Key, Live, Plan, PlanBlocker, Policy,
    effect::typed,
    model::{Model, Owner, Provided},
};
use crate::{catalogue::Catalogue, images::Image, waves::Place};

mod budgets;
mod expected;
mod quotas;
mod running;

/// What becomes of the machines of one control plane or pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What its new machines boot from, where the provider tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<BootImage>,
    /// How long it takes until its last machine is available, in seconds, drains and waits for others not counted; `None` where no machine
    /// tells, or none comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<i64>,
    /// What that is taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_from: Option<History>,
    /// What of the order only shows when it happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What machines of one version boot from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootImage {
    /// Their Kubernetes version.
    pub version: String,
    /// The image, or the one that its alias stands for now; nothing where the provider could not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Machines that come and go together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What a provider does by itself, in an order of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ByProvider>,
}

/// What a provider does by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ByProvider {
    /// It makes a control plane.
    ControlPlaneMade,
    /// It changes its control plane.
    ControlPlaneChanged,
    /// It makes a group of nodes.
    NodesMade {
        /// So many.
        nodes: i32,
    },
    /// It replaces the nodes of a group.
    NodesRolled {
        /// So many.
        nodes: i32,
    },
    /// It adds nodes to a group or takes some away.
    NodesScaled {
        /// From so many.
        from: i32,
        /// To so many.
        to: i32,
    },
}

impl fmt::Display for ByProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlPlaneMade => f.write_str("the provider makes the control plane"),
            Self::ControlPlaneChanged => f.write_str("the provider changes the control plane"),
            Self::NodesMade { nodes } => write!(f, "the provider makes {nodes} nodes"),
            Self::NodesRolled { nodes } => write!(f, "the provider replaces {nodes} nodes"),
            Self::NodesScaled { from, to } => {
                write!(f, "the provider goes from {from} to {to} nodes")
            }
        }
    }
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

    /// Takes in what machines boot from: of `images`, which are those of the [`forecast`], what was asked for.
    pub fn boots_from(&mut self, images: &Images, told: &BTreeMap<Image, Option<String>>) {
        for rollout in &mut self.rollouts {
            let own = images.get(&rollout.owner).into_iter().flatten();
            let own = own.filter_map(|of| {
                let (version, image) = (of.version.clone(), told.get(of)?.clone());
                Some(BootImage { version, image })
            });
            let own: BTreeSet<BootImage> = own.collect();
            rollout.images = own.into_iter().collect();
        }
    }
}

/// What machines would be made from, by the Cluster of a control plane, or the pool.
pub type Images = BTreeMap<Key, BTreeSet<Image>>;

/// Fills in what the plan does to machines. `live` must hold all pools, sets and machines of the clusters that it touches. Gives the
/// images that machines would be made from: whoever knows that some are missing says so in [`Live::missing_images`] and forecasts again.
pub fn forecast(
    plan: &mut Plan,
    live: &Live,
    policy: &Policy,
    catalogue: &Catalogue,
    now: Timestamp,
) -> Images {
    let touched = plan.clusters();
    plan.rollouts.clear();
    plan.expected_seconds = None;
    plan.blockers.retain(PlanBlocker::is_of_waves);
    if touched.is_empty() && plan.deletes.is_empty() {
        return Images::new();
    }
    let known = Known::of(plan, live);
    let mut blockers = paused_deletes(plan, &known);
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
                // Bounds of these are the provider's.
                && !catalogue.is_group(&pool.spec.template.spec.provider_config)
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
    let (mut rollouts, mut images) = (Vec::new(), Images::new());
    let mut quotas = Quotas::of(live);
    let mut times = Times::of(&live.machines);
    let waves = policy.waves();
    let place = |change: &Change| waves.place(change.wave.as_deref());
    for key in &touched {
        // What of the cluster and of its pools has changed once `stage` is applied.
        let changed = |k: &Key, stage: Place| known.change(k).filter(|c| place(c) <= stage);
        let own = pools.remove(key).unwrap_or_default();
        let stages = own.iter().copied().chain([key]);
        let stages: BTreeSet<Place> = stages.filter_map(|k| known.change(k).map(place)).collect();
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
                    let before = own.iter().filter_map(|k| typed(known.object(k)?));
                    let before: Vec<MachineDeployment> = before.collect();
                    let of: Option<Cluster> = known.object(key).and_then(typed);
                    let provided = Provided::of(of.as_ref(), &before, catalogue);
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
                        provided,
                        waits: BTreeMap::new(),
                    }));
                }
            }
            if let Some(running) = &mut running {
                running.run(key, stage, waves.name(stage), &mut quotas);
            }
        }
        if let Some(running) = running {
            images.extend(running.images(key));
            let ended = running.ended(key, &budgets, &mut times);
            rollouts.extend(ended.rollouts);
            blockers.extend(ended.blockers);
        }
    }
    blockers.extend(quotas.blockers());
    plan.expected_seconds = times.all(plan, waves);
    plan.rollouts = rollouts;
    blockers.append(&mut plan.blockers);
    plan.blockers = blockers;
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

/// Deletions that a pause of the Cluster holds back.
fn paused_deletes(plan: &Plan, known: &Known<'_>) -> Vec<PlanBlocker> {
    let is_paused = |object: &Value| {
        let annotations = object.pointer("/metadata/annotations");
        annotations.is_some_and(|a| a.get(meta::ANNOTATION_PAUSED).is_some())
    };
    let mut paused = BTreeSet::new();
    for delete in &plan.deletes {
        let before = delete.before.as_ref();
        let Some(cluster) = owner_of(&delete.key, before, None) else {
            continue;
        };
        let stays = known.0.get(&cluster).and_then(|(object, change)| {
            let after = change.and_then(|c| c.after.as_ref());
            after.or(*object)
        });
        let object = match delete.key.kind.as_str() {
            "Cluster" => before,
            _ => stays,
        };
        if object.is_some_and(is_paused) {
            paused.insert(cluster);
        }
    }
    let blocker = |cluster| PlanBlocker::paused(cluster, "nothing of it is deleted");
    paused.into_iter().map(blocker).collect()
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

#[cfg(test)]
mod tests;
