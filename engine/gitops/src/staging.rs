//! How far a revision has come through its Fleet's waves. What may begin is decided in core; here is what is known between looks.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{commit_status::CommitState, waves::WaveStatus};
use fleetwright_core::{
    plan::{Change, Key, Plan, Policy},
    waves::{Hold, Places, Stage, Waves},
};
use jiff::Timestamp;

use crate::{
    progress::{ClusterName, Told},
    settle::{Pending, Seen, Standing},
};

/// What of the revision waits.
#[derive(Default)]
pub(crate) struct Staging {
    places: Places,
    hold: Option<Hold>,
    /// Clusters of which something waits.
    waiting: BTreeSet<ClusterName>,
    /// What goes once all waves have passed: no wave waits until it is as nobody wants it any more.
    leaving: BTreeSet<Key>,
}

impl Staging {
    /// Of a plan that was staged.
    pub(crate) fn of(places: Places, plan: &Plan, policy: &Policy, stage: &Stage) -> Self {
        Self {
            places,
            hold: plan.waves.iter().find_map(|wave| wave.hold.clone()),
            waiting: plan.held_clusters(policy, stage),
            leaving: plan.deletes.iter().map(|gone| gone.key.clone()).collect(),
        }
    }

    /// A cluster of which something waits has not converged.
    pub(crate) fn hold_back(&self, clusters: &mut BTreeMap<ClusterName, Told>) {
        let Some(hold) = &self.hold else {
            return;
        };
        for (name, told) in clusters {
            if told.0 == CommitState::Success && self.waiting.contains(name) {
                *told = (CommitState::Pending, hold.to_string());
            }
        }
    }

    /// What waits, if anything does.
    pub(crate) fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Notes that the waves of `plan` are about to change; gives whether that was news. It is to be known before anything is
    /// written: a process that ends in between must not take such a wave for one that has passed.
    pub(crate) fn begin(
        waves: Waves<'_>,
        states: &mut Vec<WaveStatus>,
        plan: &Plan,
        now: Timestamp,
    ) -> bool {
        let before = states.clone();
        let named = |change: &Change| change.wave.clone();
        let changing = plan.creates.iter().chain(&plan.changes).filter_map(named);
        for name in changing.collect::<BTreeSet<_>>() {
            states.retain(|state| state.name != name);
            states.push(Waves::rolling(&name, now));
        }
        // What is no wave any more holds nothing up.
        states.retain(|state| waves.named().any(|(_, name)| name == state.name));
        *states != before
    }

    /// Looks how far the waves have come; gives whether one has passed.
    pub(crate) fn advance(
        &self,
        waves: Waves<'_>,
        states: &mut Vec<WaveStatus>,
        (seen, pending): (&Seen, &Pending),
        now: Timestamp,
    ) -> bool {
        let before = states.len();
        let standings = seen.standings();
        let stands = |key: &Key| standings.of(key) == Standing::Converged;
        *states = std::mem::take(states)
            .into_iter()
            .filter_map(|state| {
                let place = waves.place(Some(&state.name));
                let stays = |key: &&Key| !self.leaving.contains(*key);
                let mut all = self.places.at(place).filter(stays);
                let converged = all.all(|key| !pending.holds(key) && stands(key));
                waves.advance(place, &state, converged, now)
            })
            .collect();
        states.len() < before
    }

    /// When the first of the waves that soak has done so, or what waits may begin, if nothing happens until then.
    pub(crate) fn due(&self, waves: Waves<'_>, states: &[WaveStatus]) -> Option<Timestamp> {
        let soaked = states.iter().filter_map(|state| waves.soaks_until(state));
        soaked
            .chain(self.hold.as_ref().and_then(|hold| hold.until))
            .min()
    }
}
