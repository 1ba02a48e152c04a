//! Waves: which changes of a plan may be made now, and what the others wait for.
//!
//! A wave begins when all before it have passed: nothing is left to change in them, what was changed has converged, and all of them
//! has stayed so for the soak time. Deletions come after the last wave.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    meta::LABEL_CLUSTER_NAME,
    time::k8s_time,
    waves::{REST, Wave, WaveState, WaveStatus, Window},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    plan::{BlockerKind, Desired, Key},
    selector,
};

mod window;

pub use window::{Opening, opening};

/// Why changes are not made yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The wave that waits; `None` where it is the deletions, or the whole Fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// Whether it waits for a wave or for a window.
    pub kind: BlockerKind,
    /// What it waits for.
    pub because: String,
    /// When it ends by itself, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wave {
            Some(wave) => write!(f, "wave {wave} waits: {}", self.because),
            None => f.write_str(&self.because),
        }
    }
}

/// A Fleet's waves, and its windows.
#[derive(Clone, Copy, Debug)]
pub struct Waves<'a> {
    waves: &'a [Wave],
    windows: &'a [Window],
}

/// Where an object stands in the order: before all waves, in one of them, or in the one that takes the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(usize);

impl Place {
    /// Of what belongs to no Cluster.
    pub const FIRST: Self = Self(0);
}

/// The places of a Fleet's objects.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<Key, Place>);

impl Places {
    /// The place of an object.
    #[must_use]
    pub fn of(&self, key: &Key) -> Place {
        self.0.get(key).copied().unwrap_or(Place::FIRST)
    }

    /// The objects of a place.
    pub fn at(&self, place: Place) -> impl Iterator<Item = &Key> {
        let there = self.0.iter().filter(move |(_, at)| **at == place);
        there.map(|(key, _)| key)
    }
}

/// What of a plan may be made now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// By place.
    holds: Vec<Option<Hold>>,
    /// Of the deletions.
    deletes: Option<Hold>,
}

impl Stage {
    /// Why changes at `place` are not made yet.
    #[must_use]
    pub fn hold(&self, place: Place) -> Option<&Hold> {
        self.holds.get(place.0)?.as_ref()
    }

    /// Why deletions are not made yet.
    #[must_use]
    pub fn deletes(&self) -> Option<&Hold> {
        self.deletes.as_ref()
    }
}

impl<'a> Waves<'a> {
    /// Of a Fleet.
    #[must_use]
    pub fn new(waves: &'a [Wave], windows: &'a [Window]) -> Self {
        Self { waves, windows }
    }

    /// Whether nothing ever waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty() && self.windows.is_empty()
    }

    /// The name of a place; `None` for what comes before all waves, and where there are none.
    #[must_use]
    pub fn name(&self, place: Place) -> Option<&'a str> {
        if self.waves.is_empty() {
            return None;
        }
        let at = place.0.checked_sub(1)?;
        Some(self.waves.get(at).map_or(REST, |wave| &wave.name))
    }

    /// The place of that name.
    #[must_use]
    pub fn place(&self, name: Option<&str>) -> Place {
        let Some(name) = name else {
            return Place::FIRST;
        };
        let at = self.waves.iter().position(|wave| wave.name == name);
        at.map_or(self.rest(), |at| Place(at + 1))
    }

    /// How long a wave soaks, in seconds.
    #[must_use]
    pub fn soak_seconds(&self, place: Place) -> i32 {
        let wave = place.0.checked_sub(1).and_then(|at| self.waves.get(at));
        wave.and_then(|wave| wave.soak_seconds).unwrap_or(0)
    }

    /// All places that have a name, in their order.
    pub fn named(self) -> impl Iterator<Item = (Place, &'a str)> {
        (1..=self.waves.len() + 1).filter_map(move |at| Some((Place(at), self.name(Place(at))?)))
    }

    fn rest(&self) -> Place {
        Place(self.waves.len() + 1)
    }

    /// The places of what the repository declares and of what is there, by the labels that Git says, else by those that are there.
    /// A pool that comes with its Cluster is in no earlier wave than that.
    #[must_use]
    pub fn places(&self, desired: &[Desired], live: &[Value]) -> Places {
        let declared = desired.iter().map(|d| &d.document);
        // Later entries win.
        let all: BTreeMap<Key, &Value> = live
            .iter()
            .chain(declared)
            .map(|object| (Key::of(object), object))
            .collect();
        let mut clusters = BTreeMap::new();
        for (key, object) in all.iter().filter(|(key, _)| key.kind == "Cluster") {
            clusters.insert((key.namespace.as_str(), key.name.as_str()), labels(object));
        }
        let there: BTreeSet<(&str, &str)> = live
            .iter()
            .filter(|object| object["kind"] == "Cluster")
            .map(|object| {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                (text("namespace"), text("name"))
            })
            .collect();
        let none = BTreeMap::new();
        let first = |owner: (&str, &str), pool: Option<&BTreeMap<String, String>>| {
            let cluster = clusters.get(&owner).unwrap_or(&none);
            let takes = |wave: &Wave| {
                let selects = wave.clusters.as_ref();
                selects.is_none_or(|s| selector::matches(s, cluster))
                    && wave.pools.as_ref().is_none_or(|pools| {
                        pool.is_some_and(|labels| selector::matches(pools, labels))
                    })
            };
            let at = self.waves.iter().position(takes);
            at.map_or(self.rest(), |at| Place(at + 1))
        };
        let place = |key: &Key, object: &Value| {
            let Some(owner) = cluster_of(key, object) else {
                return Place::FIRST;
            };
            let owner = (key.namespace.as_str(), owner);
            if key.kind != "MachineDeployment" {
                return first(owner, None);
            }
            let own = first(owner, Some(&labels(object)));
            // A pool cannot converge before there is its Cluster.
            let comes = clusters.contains_key(&owner) && !there.contains(&owner);
            match comes {
                true => own.max(first(owner, None)),
                false => own,
            }
        };
        let placed = all
            .iter()
            .map(|(key, object)| (key.clone(), place(key, object)));
        Places(placed.collect())
    }

    /// Which changes may be made now: `planned` are the places of those that are to be made, `states` how far waves have come.
    #[must_use]
    pub fn stage(
        &self,
        planned: impl IntoIterator<Item = Place>,
        states: &[WaveStatus],
        now: Timestamp,
    ) -> Stage {
        #[cfg(feature = "seeded-bugs")]
        if fleetwright_api::bugs::on("i9-waves-at-once") {
            return Stage::default();
        }
        let mut counts = vec![0usize; self.rest().0 + 1];
        for place in planned {
            if let Some(count) = counts.get_mut(place.0) {
                *count += 1;
            }
        }
        let mut stage = Stage::default();
        let mut earlier: Option<Hold> = None;
        for (at, planned) in counts.iter().enumerate() {
            let place = Place(at);
            let name = self.name(place);
            let hold = match &earlier {
                Some(earlier) => Some(earlier.clone()),
                None if *planned > 0 => self.closed(place, now),
                None => None,
            };
            let hold = hold.map(|hold| Hold {
                wave: name.map(str::to_owned),
                ..hold
            });
            if let (None, Some(name)) = (&earlier, name) {
                earlier = match (*planned, &hold) {
                    (0, _) => self.unpassed(place, name, states, now),
                    (_, Some(hold)) => Some(Hold {
                        kind: BlockerKind::Wave,
                        because: format!("wave {name} comes first, and waits: {}", hold.because),
                        ..hold.clone()
                    }),
                    (_, None) => Some(Hold {
                        wave: None,
                        kind: BlockerKind::Wave,
                        because: format!("wave {name} comes first"),
                        until: None,
                    }),
                };
            }
            stage.holds.push(hold);
        }
        stage.deletes = earlier.or_else(|| self.closed(Place::FIRST, now));
        if let Some(hold) = &mut stage.deletes {
            hold.wave = None;
            hold.because = format!("deletions wait: {}", hold.because);
        }
        stage
    }

    /// What of a wave without planned changes keeps the next from beginning.
    fn unpassed(
        &self,
        place: Place,
        name: &str,
        states: &[WaveStatus],
        now: Timestamp,
    ) -> Option<Hold> {
        let status = states.iter().find(|status| status.name == name)?;
        let (because, until) = match status.state {
            WaveState::Rolling => (format!("wave {name} has not converged"), None),
            WaveState::Soaking => {
                let until = self.soaked(place, status).filter(|until| *until > now)?;
                (format!("wave {name} soaks until {until:.0}"), Some(until))
            }
        };
        Some(Hold {
            wave: None,
            kind: BlockerKind::Wave,
            because,
            until,
        })
    }

    /// Why nothing may begin at a place now: its windows are closed.
    fn closed(&self, place: Place, now: Timestamp) -> Option<Hold> {
        let wave = place.0.checked_sub(1).and_then(|at| self.waves.get(at));
        let own = wave.map(|wave| wave.windows.as_slice());
        let windows = own.filter(|own| !own.is_empty()).unwrap_or(self.windows);
        let (because, until) = match opening(windows, now) {
            Opening::Open => return None,
            Opening::At(at) => (format!("its window opens at {at:.0}"), Some(at)),
            Opening::Never(why) => (why, None),
        };
        Some(Hold {
            wave: None,
            kind: BlockerKind::Window,
            because,
            until,
        })
    }

    /// When a wave has soaked; `None` for one that does not soak yet.
    #[must_use]
    pub fn soaks_until(&self, status: &WaveStatus) -> Option<Timestamp> {
        let soaks = status.state == WaveState::Soaking;
        soaks.then(|| self.soaked(self.place(Some(&status.name)), status))?
    }

    fn soaked(&self, place: Place, status: &WaveStatus) -> Option<Timestamp> {
        let soak = SignedDuration::from_secs(self.soak_seconds(place).into());
        status.since.0.checked_add(soak).ok()
    }

    /// A wave in which something is about to change.
    #[must_use]
    pub fn rolling(name: &str, now: Timestamp) -> WaveStatus {
        WaveStatus {
            name: name.to_owned(),
            state: WaveState::Rolling,
            since: k8s_time(now),
        }
    }

    /// Where a wave stands now that all of it has `converged`, or not; `None` once it has passed.
    #[must_use]
    pub fn advance(
        &self,
        place: Place,
        status: &WaveStatus,
        converged: bool,
        now: Timestamp,
    ) -> Option<WaveStatus> {
        let next = |state| WaveStatus {
            name: status.name.clone(),
            state,
            since: k8s_time(now),
        };
        let status = match (status.state, converged) {
            (WaveState::Rolling, false) | (WaveState::Soaking, true) => status.clone(),
            (WaveState::Soaking, false) => next(WaveState::Rolling),
            (WaveState::Rolling, true) => next(WaveState::Soaking),
        };
        let soaking = status.state == WaveState::Soaking;
        let passed = soaking && self.soaked(place, &status).is_none_or(|at| at <= now);
        (!passed).then_some(status)
    }
}

/// Name of the Cluster with which an object goes through the waves.
pub(crate) fn cluster_of<'a>(key: &'a Key, object: &'a Value) -> Option<&'a str> {
    match key.kind.as_str() {
        "Cluster" => Some(key.name.as_str()),
        "MachineDeployment" | "MachineHealthCheck" => {
            object.pointer("/spec/clusterName").and_then(Value::as_str)
        }
        // Its bootstrap manifests.
        "ConfigMap" => object
            .pointer("/metadata/labels")
            .and_then(|labels| labels.get(LABEL_CLUSTER_NAME)?.as_str()),
        _ => None,
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let texts = labels.into_iter().flatten();
    texts
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests;
