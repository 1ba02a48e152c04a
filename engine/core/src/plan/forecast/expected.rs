//! How long machines take to come, from those that came before.

use std::collections::BTreeMap;

use fleetwright_api::{
    Machine,
    condition::{self, kind},
    meta::{LABEL_CLUSTER_NAME, LABEL_CONTROL_PLANE, LABEL_DEPLOYMENT_NAME},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Owner, Rollout};
use crate::{
    plan::{Key, Plan},
    waves::{Place, Waves},
};

/// A machine that became ready longer than a day after it was made was ready before, and not all the time since.
const LONGEST: i64 = 24 * 3600;

/// What an expected time is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Whose machines.
    pub of: HistoryOf,
    /// How many of them tell.
    pub machines: usize,
    /// The median of their times from creation to Ready, in seconds.
    pub seconds: i64,
}

/// Whose machines a history is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HistoryOf {
    /// Those of the same pool or control plane.
    Own,
    /// Those of the same Cluster.
    Cluster,
    /// All that were looked at.
    All,
}

/// Namespace and Cluster.
type ClusterName = (String, String);

/// How long machines took, and how long those of the plan will take.
#[derive(Debug, Default)]
pub(super) struct Times {
    own: BTreeMap<(ClusterName, Owner), Vec<i64>>,
    clusters: BTreeMap<ClusterName, Vec<i64>>,
    all: Vec<i64>,
    /// The longest time that a cluster takes in a wave, by the wave's name.
    waves: BTreeMap<Option<String>, i64>,
    /// Machines come of which no history tells.
    untold: bool,
    /// Machines come.
    some: bool,
}

/// From creation to Ready, in seconds, where a machine tells. One whose node comes and goes does not.
fn took(machine: &Machine) -> Option<i64> {
    let status = machine.status.as_ref()?;
    let is_available = condition::is_true(&status.conditions, kind::AVAILABLE);
    if !is_available || !status.bad_conditions.is_empty() {
        return None;
    }
    let ready = condition::get(&status.conditions, kind::READY).filter(|c| c.status == "True")?;
    let made = machine.metadata.creation_timestamp.as_ref()?;
    let seconds = ready.last_transition_time.0.as_second() - made.0.as_second();
    (0..=LONGEST).contains(&seconds).then_some(seconds)
}

fn median(sorted: &[i64]) -> Option<i64> {
    let (lower, upper) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some((sorted.get(lower)? + sorted.get(upper)?) / 2)
}

impl Times {
    pub(super) fn of(machines: &[Machine]) -> Self {
        let mut out = Self::default();
        for machine in machines {
            let label = |name: &str| machine.metadata.labels.as_ref()?.get(name).cloned();
            let (Some(seconds), Some(namespace)) =
                (took(machine), machine.metadata.namespace.clone())
            else {
                continue;
            };
            out.all.push(seconds);
            let Some(cluster) = label(LABEL_CLUSTER_NAME) else {
                continue;
            };
            let place = (namespace, cluster);
            let owner = match label(LABEL_CONTROL_PLANE) {
                Some(_) => None,
                None => label(LABEL_DEPLOYMENT_NAME),
            };
            out.clusters.entry(place.clone()).or_default().push(seconds);
            out.own.entry((place, owner)).or_default().push(seconds);
        }
        let groups = out.own.values_mut().chain(out.clusters.values_mut());
        groups.for_each(|times| times.sort_unstable());
        out.all.sort_unstable();
        out
    }

    fn history(&self, cluster: &Key, owner: &Owner) -> Option<History> {
        let place = (cluster.namespace.clone(), cluster.name.clone());
        let of_cluster = self.clusters.get(&place);
        let own = self.own.get(&(place, owner.clone()));
        let levels = [
            (HistoryOf::Own, own),
            (HistoryOf::Cluster, of_cluster),
            (HistoryOf::All, Some(&self.all)),
        ];
        levels.into_iter().find_map(|(of, times)| {
            let times = times?;
            Some(History {
                of,
                machines: times.len(),
                seconds: median(times)?,
            })
        })
    }

    /// Says of a rollout how long it takes: each step that makes machines, one after the other.
    pub(super) fn tell(
        &mut self,
        cluster: &Key,
        owner: &Owner,
        min_ready: i64,
        rollout: &mut Rollout,
    ) {
        if rollout.steps.iter().any(|s| s.provider.is_some()) {
            // Nobody knows how long a provider takes.
            (self.some, self.untold) = (true, true);
            return;
        }
        let steps = rollout.steps.iter().filter(|s| !s.create.is_empty());
        let steps = i64::try_from(steps.count()).unwrap_or(i64::MAX);
        if steps == 0 {
            return;
        }
        self.some = true;
        let Some(history) = self.history(cluster, owner) else {
            self.untold = true;
            return;
        };
        let each = history.seconds.saturating_add(min_ready);
        rollout.expected_seconds = Some(steps.saturating_mul(each));
        rollout.expected_from = Some(history);
    }

    /// Takes in the rollouts of a cluster: what goes on in one of its steps goes on at the same time.
    pub(super) fn end(&mut self, rollouts: &BTreeMap<Owner, Rollout>) {
        let mut steps: BTreeMap<(Option<&String>, usize), i64> = BTreeMap::new();
        for rollout in rollouts.values() {
            let making = || rollout.steps.iter().filter(|s| !s.create.is_empty());
            let Some(all) = rollout.expected_seconds else {
                continue;
            };
            let each = all / i64::try_from(making().count().max(1)).unwrap_or(i64::MAX);
            for step in making() {
                let longest = steps.entry((step.wave.as_ref(), step.step)).or_default();
                *longest = each.max(*longest);
            }
        }
        let mut waves: BTreeMap<Option<&String>, i64> = BTreeMap::new();
        for ((wave, _), seconds) in steps {
            *waves.entry(wave).or_default() += seconds;
        }
        for (wave, seconds) in waves {
            let longest = self.waves.entry(wave.cloned()).or_default();
            *longest = seconds.max(*longest);
        }
    }

    /// How long all of a plan takes: wave after wave, each with its soak time where something comes after it.
    pub(super) fn all(self, plan: &Plan, waves: Waves<'_>) -> Option<i64> {
        if self.untold || !self.some {
            return None;
        }
        let place = |wave: Option<&str>| waves.place(wave);
        let changes = plan.creates.iter().chain(&plan.changes);
        let mut planned: BTreeMap<Place, i64> =
            changes.map(|c| (place(c.wave.as_deref()), 0)).collect();
        for (wave, seconds) in &self.waves {
            *planned.entry(place(wave.as_deref())).or_default() += seconds;
        }
        let last = planned.keys().next_back().copied();
        let soaks = |at: Place| Some(at) != last || !plan.deletes.is_empty();
        let each = planned.into_iter().map(|(at, seconds)| {
            let soak = if soaks(at) { waves.soak_seconds(at) } else { 0 };
            seconds + i64::from(soak)
        });
        Some(each.sum())
    }
}
