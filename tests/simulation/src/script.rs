//! What happens in a run, and when: drawn before it begins.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_provider_sim::FaultEffect;

use crate::{
    chance::Chance,
    clock::SimClock,
    waves::Waves,
    weather::{Kind, Window},
};

/// When the last fault is over, and people have put right what they did.
pub(crate) const CALM: u64 = 9 * 3600 + 1800;
/// When faults begin: there is a fleet by then.
const BEGIN: u64 = 900;

/// By when what must have happened, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Everything has converged.
    pub(crate) converged: u64,
    /// Everything has converged that the last commit changed.
    pub(crate) ended: u64,
    /// The run is over, after a time in which nothing happens.
    pub(crate) length: u64,
}

impl Ends {
    /// Where one wave after the other has to converge, it takes longer.
    pub(crate) fn of(waves: &Waves) -> Self {
        let times = if waves.is_empty() { 1 } else { 3 };
        let converged = CALM + 4500 * times;
        let ended = converged + 4000 * times;
        Self {
            converged,
            ended,
            length: ended + 500,
        }
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// Somebody pushes a commit.
    Commit,
    /// Somebody pushes what the commit before the last one held.
    Revert,
    /// Somebody pushes a commit with a mistake in one file, and mends it after so many seconds.
    Mistake(u64),
    /// Somebody mends it.
    Mend,
    /// The engine ends after so many polls.
    Crash(u64),
    /// The engine ends, and another release of it starts.
    Release,
    /// The provider's calls go wrong.
    Provider(FaultEffect, Option<&'static str>, u64),
    /// An account may have no more instances than it has.
    QuotaLow(usize),
    /// It may again.
    QuotaHigh(usize),
    /// An instance vanishes.
    Lose,
    /// An instance is there twice.
    Duplicate,
    /// A node is not ready for so many seconds.
    Flap(u64),
    /// Members of one etcd are broken, so many of them for so many seconds.
    BreakEtcd(usize, u64),
    /// A cluster cannot be reached for so many seconds.
    Unreachable(u64),
    /// Somebody scales a pool with kubectl.
    Scale,
    /// Somebody pauses a pool or a cluster for so many seconds.
    Pause(u64),
    /// Somebody deletes a machine.
    Kill,
    /// Somebody has the machines of a pool made anew.
    Restart,
    /// Somebody makes a pool and nodes by hand, which are none of the repository's.
    Strangers,
    /// Somebody looks for machines that do not come, or that wait to be deleted, and deletes them.
    Repair,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Script {
    /// What happens when.
    pub(crate) acts: Vec<(u64, Act)>,
    /// The weather.
    pub(crate) windows: BTreeMap<Kind, Vec<Window>>,
}

impl Script {
    /// The script of a seed.
    pub(crate) fn draw(chance: &Chance) -> Self {
        let mut kinds: BTreeSet<Kind> = [
            Kind::Crash,
            Kind::ApiError,
            Kind::WatchCut,
            Kind::ProviderThrottled,
            Kind::StaleList,
        ]
        .into();
        while kinds.len() < 13 {
            kinds.insert(*chance.pick(Kind::ALL));
        }
        let mut script = Self {
            acts: Vec::new(),
            windows: BTreeMap::new(),
        };
        script.acts.push((BEGIN - 100, Act::Strangers));
        for n in 0..chance.within(3, 6) {
            let act = if n > 1 && chance.permille(300) {
                Act::Revert
            } else {
                Act::Commit
            };
            script.add(chance, act);
        }
        for _ in 0..chance.within(0, 3) {
            script.add(chance, Act::Scale);
        }
        if chance.permille(200) {
            let wait = chance.within(60, 2400);
            script.add(chance, Act::Mistake(wait));
            let at = script.acts.last().map_or(BEGIN, |(at, _)| *at);
            script.acts.push((at + wait, Act::Mend));
        }
        if chance.permille(400) {
            script.add(chance, Act::Pause(chance.within(300, 3600)));
        }
        if chance.permille(300) {
            script.add(chance, Act::Kill);
        }
        if chance.permille(250) {
            script.add(chance, Act::Restart);
        }
        for kind in kinds {
            script.kind(chance, kind);
        }
        for at in (BEGIN..CALM + 1200).step_by(1200) {
            script.acts.push((at, Act::Repair));
        }
        script.acts.sort_by_key(|(at, _)| *at);
        script
    }

    fn add(&mut self, chance: &Chance, act: Act) {
        self.acts.push((chance.within(BEGIN, CALM - 3600), act));
    }

    /// Something that happens soon after some commit or other, when there is much to disturb.
    fn soon(&mut self, chance: &Chance, act: Act) {
        let commits: Vec<u64> = self
            .acts
            .iter()
            .filter(|(_, a)| matches!(a, Act::Commit | Act::Revert))
            .map(|(at, _)| *at)
            .collect();
        let at = chance.pick(&commits) + chance.within(0, 400);
        self.acts.push((at.min(CALM - 1), act));
    }

    fn window(&mut self, chance: &Chance, kind: Kind, permille: u64) {
        let mut all = Vec::new();
        for _ in 0..chance.within(2, 5) {
            let commits: Vec<u64> = self
                .acts
                .iter()
                .filter(|(_, a)| matches!(a, Act::Commit | Act::Revert))
                .map(|(at, _)| *at)
                .collect();
            let from = chance.pick(&commits) + chance.within(0, 300);
            let to = (from + chance.within(60, 1500)).min(CALM);
            all.push(Window {
                from: SimClock::at(from),
                to: SimClock::at(to),
                permille,
            });
        }
        self.windows.insert(kind, all);
    }

    fn kind(&mut self, chance: &Chance, kind: Kind) {
        let provider = |effect, verb| Act::Provider(effect, verb, chance.within(1, 9));
        let times = chance.within(2, 6);
        match kind {
            Kind::ApiError => self.window(chance, kind, 80),
            Kind::ApiConflict => self.window(chance, kind, 100),
            Kind::ApiTimeout => self.window(chance, kind, 20),
            Kind::ApiAnswerLost => self.window(chance, kind, 80),
            Kind::WatchCut => self.window(chance, kind, 700),
            Kind::WatchGone => self.window(chance, kind, 500),
            Kind::WorkloadError => self.window(chance, kind, 150),
            Kind::EtcdAway => self.window(chance, kind, 400),
            Kind::SourceFails => self.window(chance, kind, 600),
            Kind::ForgeFails => self.window(chance, kind, 500),
            Kind::ForgeAnswerLost => self.window(chance, kind, 500),
            // These come by themselves, of what the fleet is.
            Kind::Budget | Kind::DrainTimeout => {}
            _ => {
                for _ in 0..times {
                    let act = match kind {
                        Kind::Crash => Act::Crash(chance.within(0, 400)),
                        Kind::ProviderThrottled => provider(FaultEffect::Throttled, None),
                        Kind::ProviderRequestLost => provider(FaultEffect::RequestLost, None),
                        Kind::ProviderAnswerLost => provider(
                            FaultEffect::AnswerLost,
                            chance
                                .pick(&[Some("create"), Some("delete"), None])
                                .to_owned(),
                        ),
                        Kind::NoCapacity => provider(FaultEffect::NoCapacity, None),
                        Kind::StaleList => provider(FaultEffect::Stale, None),
                        Kind::NeverJoins => Act::Provider(FaultEffect::NeverJoins, None, 1),
                        Kind::LostInstance => Act::Lose,
                        Kind::Duplicate => Act::Duplicate,
                        Kind::NodeFlap => Act::Flap(chance.within(20, 900)),
                        Kind::EtcdBroken => {
                            Act::BreakEtcd(1 + chance.index(2), chance.within(60, 900))
                        }
                        Kind::Unreachable => Act::Unreachable(chance.within(20, 1200)),
                        Kind::Quota => {
                            let account = chance.index(crate::fleet::ACCOUNTS.len());
                            let until = chance.within(600, 2400);
                            self.soon(chance, Act::QuotaLow(account));
                            let at = self.acts.last().map_or(BEGIN, |(at, _)| *at);
                            self.acts
                                .push(((at + until).min(CALM), Act::QuotaHigh(account)));
                            continue;
                        }
                        Kind::Release => Act::Release,
                        _ => continue,
                    };
                    self.soon(chance, act);
                }
            }
        }
    }
}
