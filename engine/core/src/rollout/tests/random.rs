//! Invariant I3: whole rollouts, of pools, sets and machines as the controllers see them, in random order and with everything that
//! people and clouds do in between, stay inside their bounds but for the named exceptions.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    Machine, MachineSet,
    condition::{self, Status, kind},
    machine::{MachineStatus, NodeRef},
    machine_deployment::StrategyType,
    meta,
    time::k8s_time,
};
use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{ObjectMeta, OwnerReference},
    util::intstr::IntOrString,
};
use proptest::prelude::*;
use serde_json::json;

use super::decide::{World, at, config, pool};
use crate::{
    health::is_broken,
    machine_set::{self, Remediation, RemediationView, Surge, remediate},
    rollout::{Bounds, Exception, bounds},
    status,
};

/// A machine: the object, and what is true of it though its status may not say so yet.
struct Live {
    machine: Machine,
    available: bool,
    failed: bool,
    /// It came back after a failure, and nobody has seen that yet.
    back: bool,
    /// Whether a health check looks at it.
    checked: bool,
}

impl Live {
    fn deleting(&self) -> bool {
        self.machine.metadata.deletion_timestamp.is_some()
    }

    fn counts(&self) -> bool {
        self.available && !self.deleting()
    }

    fn of(&self, set: &MachineSet) -> bool {
        meta::controller_of(&self.machine).map(|o| &o.name) == set.metadata.name.as_ref()
    }

    fn says_available(&self) -> bool {
        let conditions = self.machine.status.as_ref().map(|s| &s.conditions[..]);
        condition::is_true(conditions.unwrap_or_default(), kind::AVAILABLE)
    }

    /// The machine's controller looks at it: its status says what is true.
    fn see(&mut self) {
        let (available, deleting) = (self.available, self.deleting());
        let (checked, failed) = (self.checked, self.failed);
        let status = self
            .machine
            .status
            .get_or_insert_with(MachineStatus::default);
        if available || self.failed {
            status.node_ref = Some(NodeRef { name: "n".into() });
        }
        for (name, on) in [
            (kind::NODE_HEALTHY, available),
            (kind::READY, available && !deleting),
            (kind::AVAILABLE, available && !deleting),
        ] {
            condition::set(
                &mut status.conditions,
                name,
                Status::from(on),
                "X",
                "",
                None,
                at(0),
            );
        }
        status
            .conditions
            .retain(|c| c.type_ != kind::HEALTH_CHECK_SUCCEEDED);
        if checked && failed {
            let (name, why) = (kind::HEALTH_CHECK_SUCCEEDED, "X");
            condition::set(
                &mut status.conditions,
                name,
                Status::False,
                why,
                "",
                None,
                at(0),
            );
        }
    }
}

/// Something happens. Numbers choose among what there is, by remainder.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The pool's controller runs; it is cut off after so many of its changes of size.
    Pool(usize),
    /// A set's controller runs; it is cut off after so many machines made or deleted.
    Set(usize, usize),
    /// A machine comes up.
    Up(usize),
    /// A machine's status is written.
    Seen(usize),
    /// A machine that is being deleted is gone.
    Gone(usize),
    /// A machine fails.
    Fail(usize),
    /// A machine that failed comes back.
    Recover(usize),
    /// Somebody deletes a machine.
    Kill(usize),
    /// Somebody marks a machine to go first.
    Mark(usize),
    /// Somebody scales the pool.
    Scale(i32),
    /// Somebody changes the pool's content, to one that it may have had before.
    Content(usize),
    /// Somebody pauses or resumes the pool.
    Pause,
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0..64_usize;
    prop_oneof![
        6 => prop_oneof![4 => Just(usize::MAX), 1 => 0..3_usize].prop_map(Event::Pool),
        8 => (n.clone(), prop_oneof![3 => Just(usize::MAX), 1 => 0..3_usize])
            .prop_map(|(set, cut)| Event::Set(set, cut)),
        10 => n.clone().prop_map(Event::Up),
        12 => n.clone().prop_map(Event::Seen),
        8 => n.clone().prop_map(Event::Gone),
        1 => n.clone().prop_map(Event::Fail),
        1 => n.clone().prop_map(Event::Recover),
        1 => n.clone().prop_map(Event::Kill),
        1 => n.prop_map(Event::Mark),
        1 => (0..9_i32).prop_map(Event::Scale),
        1 => (0..3_usize).prop_map(Event::Content),
        1 => Just(Event::Pause),
    ]
}

struct Sim {
    world: World,
    machines: Vec<Live>,
    next_ordinal: u64,
    /// The bounds that the last decision kept to.
    bounds: Bounds,
    /// The most that a set that replaces a machine let the pool have, since the pool was last inside its bounds at rest: it looks at
    /// the pool as it is, which the pool's controller need not have done yet.
    room: i32,
    /// Exceptions that decisions named since the pool was last inside its bounds at rest.
    named: BTreeSet<Exception>,
    /// Available machines that were lost by what is no decision of ours, since then.
    lost: i32,
    /// How broken machines are replaced: whether another comes first. Without it no check looks at machines.
    replace_first: Option<bool>,
    /// Machines made in all.
    made: usize,
}

impl Sim {
    fn new(replicas: i32, surge: i32, unavailable: i32) -> Self {
        let pool = pool(
            replicas,
            IntOrString::Int(surge),
            IntOrString::Int(unavailable),
        );
        let bounds = bounds(&pool).unwrap();
        let mut sim = Self {
            world: World::new(pool),
            machines: Vec::new(),
            next_ordinal: 0,
            bounds,
            room: 0,
            named: BTreeSet::new(),
            lost: 0,
            replace_first: None,
            made: 0,
        };
        sim.settle();
        sim
    }

    fn of_set(&self, set: &MachineSet) -> Vec<Machine> {
        self.machines
            .iter()
            .filter(|m| m.of(set))
            .map(|m| m.machine.clone())
            .collect()
    }

    /// The pool's controller: it counts the machines themselves.
    fn pool(&mut self, scales: usize) -> bool {
        for at in 0..self.world.sets.len() {
            let machines = self.of_set(&self.world.sets[at]);
            status::recount(&mut self.world.sets[at], &machines);
        }
        let decision = self.world.decide();
        let settled = decision.is_settled();
        self.bounds = bounds(&self.world.pool).unwrap();
        self.named.extend(&decision.exceptions);
        self.world.clock += 1;
        self.world.apply(decision, scales);
        !settled
    }

    fn set(&mut self, index: usize, cut: usize) -> bool {
        let Some(set) = self.world.sets.get(index).cloned() else {
            return false;
        };
        let mine = self.of_set(&set);
        let remediation = self.remediation(&set, &mine);
        let decision = machine_set::decide(
            &set,
            &mine,
            self.next_ordinal,
            remediation.extra,
            &self.world.catalogue,
            at(self.world.clock),
        );
        let settled = decision.is_settled() && remediation.delete.is_empty();
        // A machine that goes because it is broken is not one of those that there are too many of.
        if !remediation.delete.is_empty() {
            assert!(decision.delete.is_empty(), "{remediation:?} {decision:?}");
        }
        if remediation.extra > 0 {
            let now = bounds(&self.world.pool).unwrap();
            self.room = self.room.max(now.max_total());
        }
        self.made += decision.create.len().min(cut);
        self.next_ordinal = decision.next_ordinal;
        for new in decision.create.into_iter().take(cut) {
            let machine = Machine {
                metadata: ObjectMeta {
                    name: Some(new.name),
                    labels: Some(new.labels),
                    annotations: Some(new.annotations),
                    creation_timestamp: Some(k8s_time(at(self.world.clock))),
                    owner_references: Some(vec![OwnerReference {
                        name: set.metadata.name.clone().unwrap(),
                        controller: Some(true),
                        ..OwnerReference::default()
                    }]),
                    ..ObjectMeta::default()
                },
                spec: new.spec,
                status: None,
            };
            self.machines.push(Live {
                machine,
                available: false,
                failed: false,
                back: false,
                checked: self.replace_first.is_some(),
            });
        }
        let excess = decision.delete.into_iter().map(|d| d.name);
        for doomed in remediation.delete.into_iter().chain(excess).take(cut) {
            let live = self
                .machines
                .iter_mut()
                .find(|m| m.machine.metadata.name.as_ref() == Some(&doomed))
                .unwrap();
            live.machine.metadata.deletion_timestamp = Some(k8s_time(at(self.world.clock)));
        }
        !settled
    }

    /// What the set does about its broken machines.
    fn remediation(&self, set: &MachineSet, machines: &[Machine]) -> Remediation {
        let Some(first) = self.replace_first else {
            return Remediation::default();
        };
        let revision = |s: &MachineSet| {
            let all = s.metadata.annotations.as_ref()?;
            let text = all.get(meta::ANNOTATION_ROLLOUT_REVISION)?;
            text.parse::<u64>().ok()
        };
        let sizes = self.world.sets.iter().map(|s| {
            let wants = usize::try_from(s.spec.replicas.unwrap()).unwrap();
            (self.machines.iter().filter(|m| m.of(s)).count(), wants)
        });
        let names = machines.iter().filter_map(|m| m.metadata.name.clone());
        let leaves = |m: &&Live| m.deleting() && is_broken(&m.machine);
        let machines: Vec<&Machine> = machines.iter().collect();
        remediate(&RemediationView {
            set,
            machines: &machines,
            current: revision(set) == self.world.sets.iter().filter_map(revision).max(),
            replicas: self.world.pool.spec.replicas.unwrap(),
            max_in_flight: None,
            in_flight: self.machines.iter().filter(leaves).count(),
            surge: Surge::of(&bounds(&self.world.pool).unwrap(), sizes),
            held: &BTreeMap::new(),
            preflight: &[],
            replace_first: &names.filter(|_| first).collect(),
        })
    }

    fn pick(&mut self, n: usize, which: impl Fn(&Live) -> bool) -> Option<usize> {
        let found: Vec<usize> = (0..self.machines.len())
            .filter(|i| which(&self.machines[*i]))
            .collect();
        (!found.is_empty()).then(|| found[n % found.len()])
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pool(scales) => {
                self.pool(scales);
            }
            Event::Set(n, cut) => {
                let count = self.world.sets.len().max(1);
                self.set(n % count, cut);
            }
            Event::Up(n) => {
                if let Some(i) = self.pick(n, |m| !m.available && !m.failed && !m.deleting()) {
                    self.machines[i].available = true;
                }
            }
            Event::Seen(n) => {
                if let Some(i) = self.pick(n, |m| m.counts() != m.says_available()) {
                    self.machines[i].see();
                    // While a set is still to delete one it may be this very machine: it was chosen among broken ones.
                    let back = std::mem::take(&mut self.machines[i].back);
                    if back && self.machines[i].counts() && !self.deletes() {
                        self.lost = (self.lost - 1).max(0);
                    }
                }
            }
            Event::Gone(n) => {
                if let Some(i) = self.pick(n, Live::deleting) {
                    self.machines.remove(i);
                }
            }
            Event::Fail(n) => {
                if let Some(i) = self.pick(n, Live::counts) {
                    let live = &mut self.machines[i];
                    live.available = false;
                    live.failed = true;
                    self.lost += i32::from(!std::mem::take(&mut live.back));
                }
            }
            Event::Recover(n) => {
                if let Some(i) = self.pick(n, |m| m.failed && !m.deleting()) {
                    let live = &mut self.machines[i];
                    live.available = true;
                    live.failed = false;
                    live.back = true;
                }
            }
            Event::Kill(n) => {
                if let Some(i) = self.pick(n, |m| !m.deleting()) {
                    let live = &mut self.machines[i];
                    self.lost += i32::from(live.counts() && !std::mem::take(&mut live.back));
                    self.machines[i].machine.metadata.deletion_timestamp =
                        Some(k8s_time(at(self.world.clock)));
                }
            }
            Event::Mark(n) => {
                if let Some(i) = self.pick(n, |m| !m.deleting()) {
                    let mark = (meta::ANNOTATION_DELETE_MACHINE.to_owned(), String::new());
                    let all = self.machines[i]
                        .machine
                        .metadata
                        .annotations
                        .get_or_insert_default();
                    all.extend([mark]);
                }
            }
            Event::Scale(replicas) => self.world.pool.spec.replicas = Some(replicas),
            Event::Content(n) => {
                let image = ["a", "b", "c"][n];
                self.world.pool.spec.template.spec.provider_config =
                    config(json!({"image": image}));
            }
            Event::Pause => {
                let all = self.world.pool.metadata.annotations.get_or_insert_default();
                if all.remove(meta::ANNOTATION_PAUSED).is_none() {
                    all.insert(meta::ANNOTATION_PAUSED.to_owned(), String::new());
                }
            }
        }
    }

    fn available(&self) -> i32 {
        i32::try_from(self.machines.iter().filter(|m| m.counts()).count()).unwrap()
    }

    fn total(&self) -> i32 {
        i32::try_from(self.machines.len()).unwrap()
    }

    /// Whether a set is to delete machines.
    fn deletes(&self) -> bool {
        let wants = |s: &MachineSet| usize::try_from(s.spec.replicas.unwrap()).unwrap();
        self.world.sets.iter().any(|s| {
            let staying = self.machines.iter().filter(|m| m.of(s) && !m.deleting());
            staying.count() > wants(s)
        })
    }

    /// Whether nothing that was decided is still to be done, and every machine's status says what is true.
    fn at_rest(&self) -> bool {
        self.machines
            .iter()
            .all(|m| !m.deleting() && m.counts() == m.says_available())
            && self
                .world
                .sets
                .iter()
                .all(|s| usize::try_from(s.spec.replicas.unwrap()).unwrap() == self.of_set(s).len())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let (available, total) = (self.available(), self.total());
        let (min, max) = (self.bounds.min_available(), self.bounds.max_total());
        prop_assert!(
            available + self.lost >= min || self.named.iter().any(|e| e.lowers_available()),
            "{available} available (and {} lost) < {min}, named {:?}: {}",
            self.lost,
            self.named,
            self.line()
        );
        prop_assert!(
            total <= max.max(self.room) || self.named.iter().any(|e| e.raises_total()),
            "{total} > {max}, named {:?}: {}",
            self.named,
            self.line()
        );
        if available >= min && total <= max && self.at_rest() {
            self.named.clear();
            (self.lost, self.room) = (0, 0);
            self.machines.iter_mut().for_each(|m| m.back = false);
        }
        Ok(())
    }

    fn line(&self) -> String {
        let set = |s: &MachineSet| {
            let live = || self.machines.iter().filter(|m| m.of(s));
            let (all, ok) = (live().count(), live().filter(|m| m.counts()).count());
            format!("{}({all}/{ok})", s.spec.replicas.unwrap())
        };
        let sets: Vec<String> = self.world.sets.iter().map(set).collect();
        format!("{:?} {}", self.bounds, sets.join(";"))
    }

    /// Everything runs in turn, and every machine comes up, until nothing is left to do; whether that came.
    fn settle(&mut self) -> bool {
        for _ in 0..200 {
            let mut moved = self.pool(usize::MAX);
            for at in 0..self.world.sets.len() {
                moved |= self.set(at, usize::MAX);
            }
            moved |= self.machines.iter().any(Live::deleting);
            self.machines.retain(|m| !m.deleting());
            for live in &mut self.machines {
                moved |= !live.says_available();
                live.available = true;
                live.failed = false;
                live.see();
            }
            if !moved {
                return true;
            }
        }
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rollout_stays_inside_its_bounds_but_for_the_named_exceptions(
        replicas in 0..9_i32,
        surge in 0..4_i32,
        unavailable in 0..4_i32,
        replace_first in proptest::option::of(any::<bool>()),
        events in proptest::collection::vec(event(), 0..300),
    ) {
        let mut sim = Sim::new(replicas, surge, unavailable);
        sim.check_health(replace_first);
        for event in events {
            sim.happen(event);
            sim.check()?;
        }
        // Left alone it ends at what the pool says.
        sim.world.pool.metadata.annotations = None;
        prop_assert!(sim.settle(), "does not end: {}", sim.line());
        let decision = sim.world.decide();
        prop_assert_eq!(sim.total(), sim.world.pool.spec.replicas.unwrap());
        for live in &sim.machines {
            let owner = meta::controller_of(&live.machine).map(|o| o.name.clone());
            prop_assert_eq!(owner, decision.current.clone());
            prop_assert_eq!(
                live.machine.spec.content.provider_config.settings().get("image"),
                sim.world.pool.spec.template.spec.provider_config.settings().get("image")
            );
        }
    }
}

/// Runs of whole rollouts, each in an order of its own.
const ORDERS: u64 = 1_024;

/// A plain generator (xorshift64*): the same seed gives the same order.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % n
    }

    fn small(&mut self, n: usize) -> i32 {
        i32::try_from(self.below(n)).unwrap()
    }

    /// One of the controllers runs, perhaps cut off, or a machine moves on.
    fn event(&mut self) -> Event {
        let n = self.below(64);
        let cut = match self.below(5) {
            0 => self.below(3),
            _ => usize::MAX,
        };
        match self.below(5) {
            0 => Event::Pool(cut),
            1 => Event::Set(n, cut),
            2 => Event::Up(n),
            3 => Event::Seen(n),
            _ => Event::Gone(n),
        }
    }
}

impl Sim {
    /// A health check looks at all machines; without one nobody replaces broken ones.
    fn check_health(&mut self, replace_first: Option<bool>) {
        self.replace_first = replace_first;
        for live in &mut self.machines {
            live.checked = replace_first.is_some();
        }
    }

    fn image(&mut self, image: &str) {
        self.world.pool.spec.template.spec.provider_config = config(json!({"image": image}));
    }

    /// Whether all machines are of the current set and available, and nothing is left to do.
    fn done(&self) -> bool {
        let replicas = self.bounds.replicas;
        if self.total() != replicas || self.available() != replicas || !self.at_rest() {
            return false;
        }
        let decision = self.world.decide();
        let of = |m: &Live| meta::controller_of(&m.machine).map(|o| o.name.clone());
        decision.is_settled() && self.machines.iter().all(|m| of(m) == decision.current)
    }
}

/// Nobody scales, fails or deletes anything: both bounds hold as they are at every step, with no exception, and the rollout ends.
#[test]
fn whole_rollouts_keep_both_bounds_in_more_than_a_thousand_random_orders() {
    let (mut steps, mut fullest) = (0, 0);
    for seed in 1..=ORDERS {
        let mut dice = Dice::new(seed);
        let mut sim = Sim::new(1 + dice.small(6), dice.small(4), dice.small(4));
        // In every second run another change comes while the first one is under way.
        let contents = 1 + dice.below(2);
        for (content, image) in (1..=contents).zip(["b", "c"]) {
            sim.image(image);
            let enough = if content < contents { 40 } else { 20_000 };
            let mut moves = 0;
            while moves < enough && !(content == contents && sim.done()) {
                moves += 1;
                sim.happen(dice.event());
                let (available, total) = (sim.available(), sim.total());
                let (min, max) = (sim.bounds.min_available(), sim.bounds.max_total());
                assert!(
                    available >= min,
                    "seed {seed}: {available} < {min}: {}",
                    sim.line()
                );
                assert!(total <= max, "seed {seed}: {total} > {max}: {}", sim.line());
                fullest = fullest.max(total - sim.bounds.replicas);
            }
            steps += moves;
            assert!(
                content < contents || sim.done(),
                "seed {seed} does not end: {}",
                sim.line()
            );
        }
    }
    assert!(
        fullest == 3 && steps > 50_000,
        "the surge was used: {fullest} in {steps} steps"
    );
}

/// Machines break while a rollout is under way, and are replaced in both ways: the rollout and their replacement together keep the bounds,
/// and no machine is made twice in another's place.
#[test]
fn whole_rollouts_in_which_machines_break_and_are_replaced_keep_both_bounds() {
    let (mut broke, mut first) = (0, 0);
    for seed in 1..=ORDERS {
        let mut dice = Dice::new(seed);
        let mut sim = Sim::new(1 + dice.small(6), dice.small(4), dice.small(4));
        let replace_first = seed % 2 == 0;
        sim.check_health(Some(replace_first));
        sim.made = 0;
        sim.image("b");
        let (mut moves, mut breaks) = (0, 0);
        while moves < 20_000 && !sim.done() {
            moves += 1;
            if breaks < 4 && dice.below(15) == 0 {
                // Of one that nobody saw available nobody could see that it is not any more.
                let well = |m: &Live| m.counts() && m.says_available();
                if let Some(at) = sim.pick(dice.below(64), well) {
                    let live = &mut sim.machines[at];
                    (live.available, live.failed) = (false, true);
                    sim.lost += 1;
                    breaks += 1;
                }
            }
            let before = sim.total();
            sim.happen(dice.event());
            let (available, total) = (sim.available(), sim.total());
            let (min, max) = (sim.bounds.min_available(), sim.bounds.max_total());
            assert!(
                available + sim.lost >= min,
                "seed {seed}: {available} and {} lost < {min}: {}",
                sim.lost,
                sim.line()
            );
            assert!(total <= max, "seed {seed}: {total} > {max}: {}", sim.line());
            let more = total > before && total > sim.bounds.replicas;
            first += usize::from(more && replace_first);
        }
        assert!(sim.done(), "seed {seed} does not end: {}", sim.line());
        let wanted = usize::try_from(sim.bounds.replicas).unwrap();
        assert!(
            sim.made <= wanted + breaks,
            "seed {seed}: {} were made for {wanted} and {breaks} that broke",
            sim.made
        );
        broke += breaks;
    }
    assert!(broke > 1_000 && first > 100, "{broke} {first}");
}

/// OnDelete: machines are replaced as somebody deletes them, none goes by itself, and there are never more than wanted.
#[test]
fn whole_rollouts_on_delete_end_as_people_delete_in_any_order() {
    for seed in 1..=256 {
        let mut dice = Dice::new(seed);
        let mut sim = Sim::new(1 + dice.small(6), 1, 0);
        let strategy = sim.world.pool.spec.rollout.as_mut().unwrap();
        strategy.strategy.as_mut().unwrap().kind = Some(StrategyType::OnDelete);
        sim.image("b");
        sim.pool(usize::MAX);
        let old = sim.world.sets[0].clone();
        let (mut moves, mut killed) = (0, 0);
        while moves < 20_000 && !sim.done() {
            moves += 1;
            let stays = |m: &Live| m.of(&old) && !m.deleting();
            if dice.below(40) == 0
                && let Some(at) = sim.pick(dice.below(64), stays)
            {
                killed += 1;
                sim.machines[at].machine.metadata.deletion_timestamp =
                    Some(k8s_time(super::decide::at(0)));
            }
            let before = sim.machines.iter().filter(|m| stays(m)).count();
            sim.happen(dice.event());
            let after = sim.machines.iter().filter(|m| stays(m)).count();
            assert_eq!(
                before,
                after,
                "seed {seed}: an old one went by itself: {}",
                sim.line()
            );
            let (total, wanted) = (sim.total(), sim.bounds.replicas);
            assert!(
                total <= wanted,
                "seed {seed}: {total} > {wanted}: {}",
                sim.line()
            );
        }
        assert!(sim.done(), "seed {seed} does not end: {}", sim.line());
        assert_eq!(killed, sim.bounds.replicas, "seed {seed}");
    }
}
