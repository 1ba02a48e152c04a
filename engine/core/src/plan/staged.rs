//! What of a plan may be made now, as waves and windows have it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Change, Key, Plan, PlanBlocker, Policy};
use crate::waves::{Hold, Place, Stage, cluster_of};
use fleetwright_api::waves::WaveStatus;

/// Changes of a plan that are made together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedWave {
    /// The wave's name; `None` for what belongs to no wave: what comes before all waves, and the deletes, which come after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many objects it creates, changes or deletes.
    pub changes: usize,
    /// How long all of it must have stayed converged before the next one begins, in seconds.
    #[serde(default)]
    pub soak_seconds: i32,
    /// What it waits for; written as one of [`Plan::blockers`].
    #[serde(skip)]
    pub hold: Option<Hold>,
}

impl Plan {
    /// Which of its changes may be made now, `states` being how far the Fleet's waves have come. What waits, and for what, is in
    /// [`Plan::waves`] and [`Plan::blockers`] then.
    pub fn stage(&mut self, policy: &Policy, states: &[WaveStatus], now: Timestamp) -> Stage {
        let waves = policy.waves();
        self.blockers.retain(|blocker| !blocker.is_of_waves());
        if waves.is_empty() {
            return Stage::default();
        }
        let place = |change: &Change| waves.place(change.wave.as_deref());
        let changes = self.creates.iter().chain(&self.changes);
        let mut planned: BTreeMap<Place, usize> = BTreeMap::new();
        for change in changes {
            *planned.entry(place(change)).or_default() += 1;
        }
        // What is refused in a wave is missing there: the next ones wait for it, too.
        let refused = self.refused.iter().map(|r| waves.place(r.wave.as_deref()));
        let stage = waves.stage(planned.keys().copied().chain(refused), states, now);
        self.waves = planned
            .iter()
            .map(|(place, changes)| PlannedWave {
                name: waves.name(*place).map(str::to_owned),
                changes: *changes,
                soak_seconds: waves.soak_seconds(*place),
                hold: stage.hold(*place).cloned(),
            })
            .collect();
        if !self.deletes.is_empty() {
            self.waves.push(PlannedWave {
                name: None,
                changes: self.deletes.len(),
                soak_seconds: 0,
                hold: stage.deletes().cloned(),
            });
        }
        let holds = self.waves.iter().filter_map(|wave| wave.hold.as_ref());
        self.blockers.extend(holds.map(PlanBlocker::held));
        stage
    }

    /// The objects that it creates or changes later, as `stage` has it.
    pub fn held(&self, policy: &Policy, stage: &Stage) -> BTreeSet<&Key> {
        let waves = policy.waves();
        let waits = |c: &&Change| stage.hold(waves.place(c.wave.as_deref())).is_some();
        let changes = self.creates.iter().chain(&self.changes);
        changes.filter(waits).map(|change| &change.key).collect()
    }

    /// Namespaces and names of the Clusters of which something is created, changed or deleted later.
    pub fn held_clusters(&self, policy: &Policy, stage: &Stage) -> BTreeSet<(String, String)> {
        let held = self.held(policy, stage);
        let changes = self.creates.iter().chain(&self.changes);
        let changes = changes.filter(|change| held.contains(&change.key));
        let deletes = self.deletes.iter().filter(|_| stage.deletes().is_some());
        let cluster = |change: &Change| {
            let object = change.after.as_ref().or(change.before.as_ref())?;
            let name = cluster_of(&change.key, object)?;
            Some((change.key.namespace.clone(), name.to_owned()))
        };
        changes.chain(deletes).filter_map(cluster).collect()
    }

    /// The part of it that `stage` lets through, as far as it is carried out.
    pub fn part(&self, policy: &Policy, stage: &Stage) -> Self {
        let waves = policy.waves();
        let may = |change: &&Change| stage.hold(waves.place(change.wave.as_deref())).is_none();
        let some = |list: &[Change]| list.iter().filter(may).cloned().collect();
        Self {
            creates: some(&self.creates),
            changes: some(&self.changes),
            deletes: match stage.deletes() {
                None => self.deletes.clone(),
                Some(_) => Vec::new(),
            },
            drift: self.drift.clone(),
            ..Self::default()
        }
    }
}
