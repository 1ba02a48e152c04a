//! Pools of a cluster whose machines break and heal at random, while people scale and ask for replacements: what is broken is always
//! marked, and no more is taken away than is allowed.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{MachineSet, machine::NodeInfo};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::*;
use crate::{
    catalogue::Catalogue,
    disruption::{Holder, Service, Usage, Whose, limit, may_take},
    machine::MachineStep,
    machine_set::{self, RemediationView, Surge, remediate},
    status::{self, MachineObservation, NodeHealth, NodeObservation, UpToDate},
};
use fleetwright_api::disruption::DisruptionBudget;

const POOLS: usize = 2;

/// What a machine's instance and node are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Body {
    Boots,
    Well,
    /// Not ready since then.
    Ill(i64),
    Lost,
}

#[derive(Clone, Debug)]
enum Event {
    /// The `n`th machine changes.
    Body(usize, u8),
    /// Somebody asks for the replacement of the `n`th machine.
    Ask(usize),
    /// A pool gets another size.
    Scale(usize, i32),
    /// Time passes.
    Pass(i64),
    /// A machine is looked at.
    Look(usize),
    /// A set is looked at.
    Set(usize),
    /// A machine on its way out is gone.
    Gone(usize),
    /// The cluster is seen, or not.
    Seen(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..12usize, 0..4u8).prop_map(|(m, b)| Event::Body(m, b)),
        1 => (0..12usize).prop_map(Event::Ask),
        1 => (0..POOLS, 0..5i32).prop_map(|(p, n)| Event::Scale(p, n)),
        2 => (1..400i64).prop_map(Event::Pass),
        6 => (0..12usize).prop_map(Event::Look),
        6 => (0..POOLS).prop_map(Event::Set),
        3 => (0..12usize).prop_map(Event::Gone),
        1 => any::<bool>().prop_map(Event::Seen),
    ]
}

struct World {
    now: i64,
    check: MachineHealthCheck,
    budget: DisruptionBudget,
    max_in_flight: Option<IntOrString>,
    sets: Vec<MachineSet>,
    /// Machines by name, with what they are.
    machines: BTreeMap<String, (usize, Machine, Body)>,
    next: u64,
    seen: bool,
}

impl World {
    fn new(check: MachineHealthCheck, budget: &str, max_in_flight: Option<i32>) -> Self {
        let sets = (0..POOLS)
            .map(|p| {
                let name = format!("set{p}");
                read(json!({
                    "metadata": {"name": name, "uid": name},
                    "spec": {
                        "clusterName": "c", "replicas": 3,
                        "template": {"spec": {"providerConfig": {"account": "a"}}},
                    },
                }))
            })
            .collect();
        let max_unavailable = budget
            .parse()
            .map_or_else(|_| IntOrString::String(budget.into()), IntOrString::Int);
        Self {
            now: 0,
            check,
            budget: DisruptionBudget { max_unavailable },
            max_in_flight: max_in_flight.map(IntOrString::Int),
            sets,
            machines: BTreeMap::new(),
            next: 0,
            seen: true,
        }
    }

    fn of_set(&self, set: usize) -> Vec<Machine> {
        let mine = self.machines.values().filter(|(s, ..)| *s == set);
        mine.map(|(_, m, _)| m.clone()).collect()
    }

    fn usage(&self, set: usize) -> Usage {
        let count = |service| {
            let is = |m: &&Machine| Service::of(m) == service;
            i32::try_from(self.of_set(set).iter().filter(is).count()).unwrap()
        };
        Usage {
            wanted: self.sets[set].spec.replicas.unwrap(),
            in_service: count(Service::In),
            leaving: count(Service::Leaving),
        }
    }

    fn nth(&self, n: usize) -> Option<String> {
        let names: Vec<&String> = self.machines.keys().collect();
        (!names.is_empty()).then(|| names[n % names.len()].clone())
    }

    /// A machine's reconcile.
    fn look(&mut self, name: &str) {
        let (now, seen) = (at(self.now), self.seen);
        let (_, machine, body) = self.machines.get_mut(name).unwrap();
        if *body == Body::Lost && machine.spec.provider_id.is_none() {
            // Nobody has seen the first one: another is made with the same key.
            *body = Body::Boots;
        }
        let instance = match body {
            Body::Boots => Instance::Pending,
            Body::Well | Body::Ill(_) => Instance::Running {
                provider_id: "sim:///1".into(),
            },
            Body::Lost => Instance::Missing,
        };
        if matches!(body, Body::Well | Body::Ill(_)) {
            machine.spec.provider_id = Some("sim:///1".into());
        }
        let mut conditions = ready("True", 0);
        if let Body::Ill(since) = body {
            conditions = ready("False", 0);
            conditions[0].since = at(*since);
        }
        let node = match body {
            _ if !seen => NodeSight::Unknown,
            Body::Boots => NodeSight::Missing,
            _ => NodeSight::There(&conditions),
        };
        let facts = HealthFacts {
            node,
            ..facts(&instance, NodeSight::Unknown)
        };
        let judged = judge(machine, &facts, &[&self.check], now);
        let health = match body {
            Body::Ill(_) => NodeHealth::NotHealthy("ill".into()),
            _ => NodeHealth::Healthy,
        };
        let observation = MachineObservation {
            instance: instance.clone(),
            instance_view: None,
            addresses: None,
            failure_domain: None,
            node: match node {
                NodeSight::Unknown => NodeObservation::NotAsked,
                NodeSight::Missing => NodeObservation::Missing,
                NodeSight::There(_) => NodeObservation::Present {
                    name: "n".into(),
                    health,
                    info: NodeInfo::default(),
                },
            },
            drift: Default::default(),
            up_to_date: UpToDate::Yes,
            health: judged,
            step: MachineStep::WaitNode,
            refused: None,
            detail: None,
        };
        let new = status::machine(machine, &observation, now);
        machine.status = Some(new);
        // Marked, whatever a gate says: always when it can be seen, at once when its instance is gone.
        let leaves = machine.metadata.deletion_timestamp.is_some();
        let due = match body {
            Body::Ill(since) => seen && self.now - *since > 300,
            Body::Lost => machine.spec.provider_id.is_some(),
            _ => false,
        };
        assert!(leaves || !due || is_broken(machine), "{name} is not marked");
        if *body == Body::Well && seen && !is_asked_for(machine) {
            assert!(leaves || !is_broken(machine), "{name} is marked and well");
        }
    }

    fn gate(&self) -> Gate {
        let peers: Vec<Peer<'_>> = self
            .machines
            .values()
            .map(|(set, machine, _)| Peer {
                machine,
                owner: format!("set{set}"),
                current: true,
                traits: vec!["account a".into()],
                storm: None,
            })
            .collect();
        gate(Some(&self.check), &peers, |_| true, at(self.now))
    }

    /// Whether the budget keeps a machine from being taken out of service.
    fn blocked(&self, set: usize, name: &str) -> bool {
        let (mut others_wanted, mut others_out) = (0, 0);
        for other in (0..POOLS).filter(|o| *o != set) {
            others_wanted += self.usage(other).wanted;
            others_out += self.usage(other).out();
        }
        let holder = Holder {
            whose: Whose::Cluster("c".into()),
            budget: &self.budget,
            others_wanted,
            others_out,
        };
        Service::of(&self.machines[name].1) == Service::In
            && may_take(self.usage(set), &[holder]).is_err()
    }

    /// Takes a machine away where the budget lets it.
    fn take(&mut self, set: usize, name: &str) -> bool {
        let service = Service::of(&self.machines[name].1);
        if self.blocked(set, name) {
            return false;
        }
        let before: i32 = (0..POOLS).map(|s| self.usage(s).out()).sum();
        let machine = &mut self.machines.get_mut(name).unwrap().1;
        machine.metadata.deletion_timestamp = Some(k8s_time(at(self.now)));
        let after: i32 = (0..POOLS).map(|s| self.usage(s).out()).sum();
        let wanted = (0..POOLS).map(|s| self.usage(s).wanted).sum();
        let limit = limit(&self.budget, wanted).unwrap();
        if service == Service::In {
            assert!(after <= limit, "{after} out of service, {limit} allowed");
        } else if self.machines[name].1.status.is_none() || is_broken(&self.machines[name].1) {
            assert!(after <= before, "what is broken costs nothing");
        }
        true
    }

    /// A set's reconcile; `true` when it did something.
    fn set(&mut self, index: usize) -> bool {
        let machines = self.of_set(index);
        let set = self.sets[index].clone();
        let gate = self.gate();
        let held: BTreeMap<String, String> = machines
            .iter()
            .filter(|m| is_broken(m))
            .filter_map(|m| {
                let why = gate.holds(m).map(ToString::to_string);
                let why = why.or_else(|| (!self.seen).then(|| "not seen".to_owned()));
                let name = m.metadata.name.clone()?;
                let blocked = || self.blocked(index, &name).then(|| "budget".to_owned());
                let why = why.or_else(blocked)?;
                Some((name, why))
            })
            .collect();
        let strategy = self
            .check
            .spec
            .remediation
            .clone()
            .unwrap_or_default()
            .strategy;
        let first = strategy
            == Some(fleetwright_api::machine_health_check::RemediationStrategy::ReplaceFirst);
        let replace_first: BTreeSet<String> = machines
            .iter()
            .filter(|_| first)
            .filter_map(|m| m.metadata.name.clone())
            .collect();
        let going = |m: &&Machine| m.metadata.deletion_timestamp.is_some() && is_broken(m);
        let in_flight = machines.iter().filter(going).count();
        let wanted = usize::try_from(set.spec.replicas.unwrap()).unwrap();
        let all: Vec<&Machine> = machines.iter().collect();
        let view = RemediationView {
            set: &set,
            machines: &all,
            current: true,
            replicas: set.spec.replicas.unwrap(),
            max_in_flight: self.max_in_flight.as_ref(),
            in_flight,
            surge: if machines.len() <= wanted {
                Surge::Room
            } else {
                Surge::Full
            },
            held: &held,
            preflight: &[],
            replace_first: &replace_first,
        };
        let remediation = remediate(&view);
        let said: BTreeSet<&String> = remediation.say.iter().map(|s| &s.machine).collect();
        for machine in machines.iter().filter(|m| is_broken(m)) {
            let name = machine.metadata.name.as_ref().unwrap();
            let leaves = machine.metadata.deletion_timestamp.is_some();
            assert!(leaves || said.contains(name), "nothing is said of {name}");
        }
        let mut did = false;
        for name in &remediation.delete {
            assert!(!held.contains_key(name), "{name} is held");
            if first {
                let others = machines.iter().filter(|m| Service::of(m) == Service::In);
                let well = others.filter(|m| !is_broken(m)).count();
                let broken = machines.iter().filter(|m| is_broken(m)).count();
                assert!(
                    well + broken > wanted,
                    "{name} goes before another is there"
                );
            }
            did |= self.take(index, name);
        }
        if let Some(IntOrString::Int(limit)) = self.max_in_flight {
            let flying = self.of_set(index).iter().filter(going).count();
            // What scales down goes beside.
            let asked = in_flight + remediation.delete.len();
            let limit = usize::try_from(limit).unwrap();
            assert!(asked <= limit.max(in_flight), "{flying} in flight");
        }
        let catalogue = Catalogue::default();
        let extra = remediation.extra;
        let decision =
            machine_set::decide(&set, &machines, self.next, extra, &catalogue, at(self.now));
        for doomed in &decision.delete {
            did |= self.take(index, &doomed.name);
        }
        self.next = self.next.max(decision.next_ordinal);
        for new in decision.create {
            let mut machine = Machine::new(&new.name, new.spec);
            machine.metadata.creation_timestamp = Some(k8s_time(at(self.now)));
            self.machines
                .insert(new.name, (index, machine, Body::Boots));
            did = true;
        }
        let there = self.of_set(index).len();
        assert!(
            there <= wanted.max(machines.len()) + extra,
            "{there} machines"
        );
        did
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Body(n, body) => {
                if let Some(name) = self.nth(*n) {
                    let now = self.now;
                    let body = match body {
                        0 | 1 => Body::Well,
                        2 => Body::Ill(now),
                        _ => Body::Lost,
                    };
                    let slot = &mut self.machines.get_mut(&name).unwrap().2;
                    let worse = matches!((*slot, body), (Body::Ill(_), Body::Ill(_)));
                    // What is gone does not come back.
                    if *slot != Body::Lost && !worse {
                        *slot = body;
                    }
                    self.look(&name);
                }
            }
            Event::Ask(n) => {
                if let Some(name) = self.nth(*n) {
                    let key = meta::ANNOTATION_REMEDIATE_MACHINE.to_owned();
                    let machine = &mut self.machines.get_mut(&name).unwrap().1;
                    machine.metadata.annotations = Some([(key, String::new())].into());
                }
            }
            Event::Scale(set, to) => self.sets[*set].spec.replicas = Some(*to),
            Event::Pass(seconds) => self.now += seconds,
            Event::Look(n) => {
                if let Some(name) = self.nth(*n) {
                    self.look(&name);
                }
            }
            Event::Set(set) => {
                self.set(*set);
            }
            Event::Gone(n) => {
                if let Some(name) = self.nth(*n)
                    && self.machines[&name].1.metadata.deletion_timestamp.is_some()
                {
                    self.machines.remove(&name);
                }
            }
            Event::Seen(seen) => self.seen = *seen,
        }
    }

    /// Faults are over and everybody looks until nothing moves.
    fn settle(&mut self) {
        self.seen = true;
        for _ in 0..200 {
            // Long enough for every storm to pass.
            self.now += 700;
            self.machines
                .retain(|_, (_, m, _)| m.metadata.deletion_timestamp.is_none());
            let names: Vec<String> = self.machines.keys().cloned().collect();
            for name in names {
                let body = &mut self.machines.get_mut(&name).unwrap().2;
                if *body != Body::Lost {
                    *body = Body::Well;
                }
                self.look(&name);
            }
            let moved: Vec<bool> = (0..POOLS).map(|set| self.set(set)).collect();
            let gone = |m: &Machine| m.metadata.deletion_timestamp.is_some();
            if !moved.contains(&true) && !self.machines.values().any(|(_, m, _)| gone(m)) {
                break;
            }
        }
        for set in 0..POOLS {
            let usage = self.usage(set);
            assert_eq!(usage.in_service, usage.wanted, "set{set} is whole again");
            assert_eq!(
                self.of_set(set).len(),
                usize::try_from(usage.wanted).unwrap()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_broken_is_marked_and_no_more_is_taken_than_is_allowed(
        events in prop::collection::vec(event(), 0..120),
        budget in prop_oneof![Just("1"), Just("2"), Just("10%"), Just("60%")],
        max_in_flight in prop::option::of(1..3i32),
        first in any::<bool>(),
        storm in prop_oneof![Just(0), Just(2), Just(5)],
    ) {
        let mut check = check();
        check.spec.remediation = Some(read(json!({
            "strategy": if first { "ReplaceFirst" } else { "DeleteFirst" },
            "storm": {"machines": storm},
        })));
        let mut world = World::new(check, budget, max_in_flight);
        for event in &events {
            world.apply(event);
        }
        world.settle();
    }

    /// A budget that lets nothing go holds for ever whatever happens, but for what is broken.
    #[test]
    fn nothing_in_service_goes_where_the_budget_is_zero(events in prop::collection::vec(event(), 0..80)) {
        let mut world = World::new(check(), "0%", None);
        for event in &events {
            world.apply(event);
        }
    }
}
