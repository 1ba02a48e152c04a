//! The forecast of one cluster: its model, run wave by wave, and what was seen of it.

use std::collections::BTreeMap;

use fleetwright_api::meta;

use super::{
    Images, Rollout, Step,
    budgets::Budgets,
    expected::Times,
    quotas::{Counts, Moment, Quotas},
};
use crate::{
    plan::{
        BlockerKind, Key, Mistake, PlanBlocker,
        model::{Model, Moves, Owner, Wait},
    },
    waves::Place,
};

/// Rounds after which a forecast is broken off, whatever is left.
const MOST_ROUNDS: usize = 20_000;

/// A forecast of one cluster, wave by wave.
pub(super) struct Running<'a> {
    pub(super) model: Model<'a>,
    out: BTreeMap<Owner, Rollout>,
    step: usize,
    path: Option<String>,
    /// What would happen to whose machines, and why, if the cluster were not paused; `None` where it is not.
    paused: Option<BTreeMap<Owner, Vec<String>>>,
    /// Machines by account, as they were counted last.
    counts: Counts,
}

/// What becomes of a cluster.
pub(super) struct Ended {
    pub(super) rollouts: Vec<Rollout>,
    pub(super) blockers: Vec<PlanBlocker>,
}

impl<'a> Running<'a> {
    pub(super) fn new(model: Model<'a>) -> Self {
        Self {
            out: BTreeMap::new(),
            step: 0,
            path: None,
            paused: None,
            counts: Counts::of(&model),
            model,
        }
    }

    /// Images that machines are made from.
    pub(super) fn images(&self, cluster: &Key) -> Images {
        let all = self.model.images.iter();
        let all = all.map(|(owner, images)| (key_of(cluster, owner), images.clone()));
        all.collect()
    }

    /// Goes on until nothing moves any more. In a paused cluster nothing does.
    pub(super) fn run(
        &mut self,
        cluster: &Key,
        stage: Place,
        wave: Option<&str>,
        quotas: &mut Quotas,
    ) {
        self.paused = None;
        if meta::is_paused(&self.model.cluster) {
            let mut model = self.model.clone();
            let annotations = model.cluster.metadata.annotations.as_mut();
            annotations.and_then(|a| a.remove(meta::ANNOTATION_PAUSED));
            let mut resumed = Self::new(model);
            resumed.run(cluster, stage, wave, &mut Quotas::default());
            let waits = resumed.out.into_iter();
            self.paused = Some(waits.map(|(owner, r)| (owner, r.because)).collect());
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
            if !quotas.is_empty() {
                let counts = Counts::of(model);
                quotas.note(Moment { stage, round }, &self.counts, &counts);
                self.counts = counts;
            }
            let progress = model.progress();
            if moves.is_empty() && !progress {
                break;
            }
            self.step += usize::from(moves.values().any(Moves::steps));
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
    pub(super) fn ended(self, cluster: &Key, budgets: &Budgets, times: &mut Times) -> Ended {
        let Self {
            mut model,
            mut out,
            path,
            paused,
            ..
        } = self;
        let mut blockers = Vec::new();
        let place = (cluster.namespace.as_str(), cluster.name.as_str());
        let losing = out.iter().filter(|(_, r)| r.counts().1 > 0);
        let held: Vec<_> = losing
            .filter_map(|(owner, _)| Some((owner.clone(), budgets.note(place, owner, &out)?)))
            .map(|(owner, why)| (owner, Wait::new(BlockerKind::Budget, why)))
            .collect();
        let unmade = model.images.iter().filter_map(|(owner, images)| {
            let missing = images.iter().find_map(|i| model.missing.get(i))?;
            let text = format!("machines cannot be made: {}", missing.why);
            let wait = Wait {
                mistake: model.mistake(owner, missing),
                ..Wait::new(BlockerKind::MissingImage, text)
            };
            Some((owner.clone(), wait))
        });
        // What keeps machines from coming keeps others from going, too.
        let first: BTreeMap<Owner, _> = held.into_iter().chain(unmade).collect();
        let waits = std::mem::take(&mut model.waits);
        if let Some(paused) = paused.filter(|paused| !paused.is_empty()) {
            blockers.push(PlanBlocker::paused(
                cluster.clone(),
                "nothing of it is changed",
            ));
            for (owner, because) in paused {
                let rollout = entry(&mut out, cluster, owner);
                if rollout.because.is_empty() {
                    rollout.because = because;
                }
            }
        }
        for (owner, wait) in first.into_iter().chain(waits) {
            let key = key_of(cluster, &owner);
            let mistake = |(owner, field): (Owner, String)| Mistake {
                object: key_of(cluster, &owner),
                field,
                place: None,
            };
            blockers.push(match wait.kind {
                BlockerKind::Paused => PlanBlocker::paused(key, "its machines are not replaced"),
                kind => PlanBlocker {
                    mistake: wait.mistake.map(mistake),
                    ..PlanBlocker::of(kind, key, wait.why)
                },
            });
        }
        for (owner, rollout) in &mut out {
            // A control plane waits for each machine; a pool's next rollout does not wait for those that still start.
            if owner.is_some() && !rollout.passing().is_empty() {
                let text = "machines that come with this and are not available yet when they are to go again go before the others";
                rollout.note.get_or_insert_with(|| text.to_owned());
            }
            times.tell(cluster, owner, model.min_ready_seconds(owner), rollout);
        }
        times.end(&out);
        if let Some(rollout) = out.get_mut(&None) {
            rollout.path = path;
        }
        blockers.sort_by(|a, b| (&a.object, a.kind).cmp(&(&b.object, b.kind)));
        Ended {
            rollouts: out.into_values().collect(),
            blockers,
        }
    }
}

fn key_of(cluster: &Key, owner: &Owner) -> Key {
    match owner {
        None => cluster.clone(),
        Some(pool) => Key {
            kind: "MachineDeployment".into(),
            name: pool.clone(),
            ..cluster.clone()
        },
    }
}

fn entry<'m>(
    out: &'m mut BTreeMap<Owner, Rollout>,
    cluster: &Key,
    owner: Owner,
) -> &'m mut Rollout {
    let key = key_of(cluster, &owner);
    out.entry(owner).or_insert(Rollout {
        owner: key,
        because: Vec::new(),
        in_place: Vec::new(),
        steps: Vec::new(),
        path: None,
        images: Vec::new(),
        expected_seconds: None,
        expected_from: None,
        note: None,
    })
}

fn take(rollout: &mut Rollout, moves: Moves, step: usize, wave: Option<&str>) {
    let steps = moves.steps();
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
    if steps {
        rollout.steps.push(Step {
            step,
            wave: wave.map(str::to_owned),
            create: moves.create,
            version: moves.version,
            delete: moves.delete,
            provider: moves.provider,
        });
    }
}
