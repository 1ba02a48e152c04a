//! Invariants I4 and I5: upgrades over several minors, reverts, scaling and failures in random order never take the version skew
//! out of Kubernetes' policy, nor etcd below its quorum.

use std::collections::BTreeSet;

use fleetwright_api::{
    MachineDeployment,
    machine_deployment::{MachineDeploymentSpec, MachineDeploymentStatus},
    version::{Skew, kubelet_skew},
};
use proptest::prelude::*;

use super::*;
use crate::{
    pool_version::effective_version,
    quorum::{has_quorum, quorum, votes},
    status::{self, ClusterFacts},
};

/// A control-plane machine, and what is true of it though its status may not say so yet.
struct Live {
    machine: Machine,
    /// Its API server has served: it is a member of etcd.
    member: bool,
    /// It does not vote yet.
    learner: bool,
    healthy: bool,
}

impl Live {
    fn deleting(&self) -> bool {
        self.machine.metadata.deletion_timestamp.is_some()
    }

    fn join(&mut self, learner: bool) {
        self.machine.spec.provider_id = Some("x".into());
        self.member = true;
        self.learner = learner;
        self.healthy = true;
    }

    fn is_hooked(&self) -> bool {
        annotation(&self.machine, ETCD_HOOK).is_some()
    }

    fn set(&mut self, kind: &str, on: bool, reason: &str) {
        let status = self.machine.status.get_or_insert_default();
        let conditions = &mut status.conditions;
        fleetwright_api::condition::set(conditions, kind, on.into(), reason, "", None, at(0));
    }

    fn come_to_the_hook(&mut self) {
        use fleetwright_api::condition::reason::WAITING_FOR_PRE_TERMINATE_HOOK;
        self.set(kind::DELETING, true, WAITING_FOR_PRE_TERMINATE_HOOK);
    }

    fn find_broken(&mut self, broken: bool) {
        if broken || self.machine.status.is_some() {
            self.set(kind::HEALTH_CHECK_SUCCEEDED, !broken, "X");
            self.set(kind::OWNER_REMEDIATED, !broken, "X");
        }
    }
}

/// A set of workers: what it was decided to have, and each machine's kubelet (whether it has joined).
struct Set {
    version: Version,
    replicas: usize,
    joined: Vec<bool>,
}

struct Pool {
    pool: MachineDeployment,
    sets: Vec<Set>,
}

#[derive(Clone, Debug)]
enum Event {
    ControlPlane,
    Serve(usize),
    Vote(usize),
    Seen(usize),
    Gone(usize),
    Fail(usize),
    Break(usize),
    Recover(usize),
    Kill(usize),
    Pool(usize),
    Set(usize, usize),
    Join(usize),
    Version(u64, u64),
    Replicas(usize),
    PoolVersion(usize, Option<u64>),
    PoolReplicas(usize, i32),
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let n = 0..64_usize;
    prop_oneof![
        10 => Just(ControlPlane),
        8 => n.clone().prop_map(Serve),
        8 => n.clone().prop_map(Vote),
        8 => n.clone().prop_map(Seen),
        8 => n.clone().prop_map(Gone),
        1 => n.clone().prop_map(Fail),
        1 => n.clone().prop_map(Break),
        2 => n.clone().prop_map(Recover),
        1 => n.clone().prop_map(Kill),
        10 => n.clone().prop_map(Pool),
        10 => (n.clone(), n.clone()).prop_map(|(p, s)| Set(p, s)),
        8 => n.clone().prop_map(Join),
        2 => (29..36_u64, 0..3_u64).prop_map(|(minor, patch)| Version(minor, patch)),
        1 => (0..3_usize).prop_map(Replicas),
        1 => (n.clone(), proptest::option::of(29..36_u64)).prop_map(|(p, v)| PoolVersion(p, v)),
        2 => (n, 0..4_i32).prop_map(|(p, r)| PoolReplicas(p, r)),
    ]
}

struct Sim {
    cluster: Cluster,
    machines: Vec<Live>,
    pools: Vec<Pool>,
    clock: i64,
}

fn pick<T>(all: &mut [T], n: usize, which: impl Fn(&T) -> bool) -> Option<&mut T> {
    let count = all.iter().filter(|x| which(x)).count();
    (count > 0).then(|| all.iter_mut().filter(|x| which(x)).nth(n % count).unwrap())
}

impl Sim {
    fn new(replicas: i32, pools: usize) -> Self {
        let pool = |_| Pool {
            pool: MachineDeployment {
                spec: MachineDeploymentSpec {
                    replicas: Some(2),
                    ..MachineDeploymentSpec::default()
                },
                ..MachineDeployment::default()
            },
            sets: Vec::new(),
        };
        let mut sim = Self {
            cluster: World::new(replicas, "v1.30.0").cluster,
            machines: Vec::new(),
            pools: (0..pools).map(pool).collect(),
            clock: 0,
        };
        assert!(sim.settle().unwrap());
        sim
    }

    fn lowest_worker(&self) -> Option<Version> {
        self.pools
            .iter()
            .flat_map(|p| &p.sets)
            .filter(|s| s.replicas > 0 || !s.joined.is_empty())
            .map(|s| s.version.clone())
            .min()
    }

    /// The cluster's controller: status first, then one machine; what it did must leave etcd its quorum.
    fn control_plane(&mut self) -> Result<bool, TestCaseError> {
        self.clock += 1;
        let machines: Vec<Machine> = self.machines.iter().map(|l| l.machine.clone()).collect();
        let worker = self.lowest_worker();
        let pools: Vec<MachineDeployment> = self.pools.iter().map(|p| p.pool.clone()).collect();
        let catalogue = Catalogue::default();
        let etcd = self.etcd();
        let view = ControlPlaneView {
            cluster: &self.cluster,
            machines: &machines,
            managed: None,
            etcd: Etcd::Members(&etcd),
            components: &[],
            snapshots: Snapshots::NotKept,
            lowest_worker: worker.as_ref(),
            unknown_workers: None,
            pools: &pools,
            versions: &[],
            blocker: None,
            held: &BTreeMap::new(),
            domains: &[],
            catalogue: &catalogue,
        };
        let decision = decide(&view, at(self.clock));
        let facts = ClusterFacts::default();
        let status = status::cluster(&self.cluster, &machines, &[], &facts, &decision, at(0));
        self.cluster.status = Some(status);
        if let Some(text) = decision.remember {
            let annotations = self.cluster.metadata.annotations.get_or_insert_default();
            match text {
                Some(text) => {
                    annotations.insert(meta::ANNOTATION_REMEDIATION_IN_PROGRESS.into(), text)
                }
                None => annotations.remove(meta::ANNOTATION_REMEDIATION_IN_PROGRESS),
            };
        }
        let without = |name: &str| -> Vec<Member> {
            etcd.iter().filter(|m| m.name != name).cloned().collect()
        };
        if let Some(Leave::Machine { machine, member }) = decision.leave {
            let rest = without(&machine);
            prop_assert!(
                !member || !has_quorum(&etcd) || has_quorum(&rest),
                "member {machine} leaves {rest:?}"
            );
            let live = self.machines.iter_mut();
            let live = live.filter(|l| name(&l.machine) == machine);
            for live in live {
                live.member = false;
                let annotations = live.machine.metadata.annotations.as_mut().unwrap();
                annotations.remove(ETCD_HOOK);
            }
            return Ok(true);
        }
        match decision.action {
            ControlPlaneAction::Create { machine, reason } => {
                let (healthy, voting) = votes(&etcd);
                prop_assert!(
                    voting <= 1 || healthy >= quorum(voting + 1),
                    "{reason}: a member more than {healthy} of {voting} healthy ones carry"
                );
                prop_assert!(etcd.iter().all(|m| !m.learner), "{reason}: one learns yet");
                let annotations = self.cluster.metadata.annotations.get_or_insert_default();
                let next = (machine.ordinal + 1).to_string();
                annotations.insert(meta::ANNOTATION_NEXT_ORDINAL.into(), next);
                self.machines.push(Live {
                    machine: Machine {
                        metadata: ObjectMeta {
                            name: Some(machine.name),
                            labels: Some(machine.labels),
                            annotations: Some(machine.annotations),
                            creation_timestamp: Some(k8s_time(at(self.clock))),
                            ..ObjectMeta::default()
                        },
                        spec: machine.spec,
                        status: None,
                    },
                    member: false,
                    learner: false,
                    healthy: false,
                });
                Ok(true)
            }
            ControlPlaneAction::Delete { machine, reason } => {
                let rest = without(&machine);
                prop_assert!(
                    !has_quorum(&etcd) || has_quorum(&rest),
                    "{reason}: without {machine} {rest:?}"
                );
                let doomed = self
                    .machines
                    .iter_mut()
                    .find(|l| name(&l.machine) == machine)
                    .unwrap();
                doomed.machine.metadata.deletion_timestamp = Some(k8s_time(at(self.clock)));
                Ok(true)
            }
            ControlPlaneAction::Wait(_) | ControlPlaneAction::Settled => Ok(false),
        }
    }

    /// What etcd says when it is asked: nothing but the truth.
    fn etcd(&self) -> Vec<Member> {
        let members = self.machines.iter().filter(|l| l.member);
        members
            .map(|l| Member {
                name: name(&l.machine),
                healthy: l.healthy,
                learner: l.learner,
            })
            .collect()
    }

    fn pool(&mut self, index: usize) -> bool {
        let Pool { pool, sets } = &mut self.pools[index];
        let version = effective_version(&self.cluster, pool).version;
        let text = version.as_ref().map(ToString::to_string);
        if text.is_some() {
            let status = pool
                .status
                .get_or_insert_with(MachineDeploymentStatus::default);
            status.version = text;
        }
        let want = usize::try_from(pool.spec.replicas.unwrap()).unwrap();
        let total: usize = sets.iter().map(|s| s.replicas).sum();
        let current = version.map(|v| match sets.iter().position(|s| s.version == v) {
            Some(at) => at,
            None => {
                sets.push(Set {
                    version: v,
                    replicas: 0,
                    joined: Vec::new(),
                });
                sets.len() - 1
            }
        });
        if let Some(at) = current
            && sets[at].replicas < want
            && total <= want
        {
            sets[at].replicas += 1;
            return true;
        }
        if total > want {
            let old = (0..sets.len()).find(|i| Some(*i) != current && sets[*i].replicas > 0);
            if let Some(goes) = old.or(current) {
                sets[goes].replicas -= 1;
                return true;
            }
        }
        false
    }

    fn set(&mut self, pool: usize, set: usize) -> bool {
        let Some(set) = self.pools[pool].sets.get_mut(set) else {
            return false;
        };
        match set.joined.len().cmp(&set.replicas) {
            std::cmp::Ordering::Less => set.joined.push(false),
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => drop(set.joined.pop()),
        }
        true
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        let pools = self.pools.len();
        match event {
            Event::ControlPlane => {
                self.control_plane()?;
            }
            Event::Serve(n) => {
                let first = self.etcd().is_empty();
                if let Some(live) = pick(&mut self.machines, n, |l| !l.member && !l.deleting()) {
                    live.join(!first);
                }
            }
            Event::Vote(n) => {
                if let Some(live) = pick(&mut self.machines, n, |l| l.learner) {
                    live.learner = false;
                }
            }
            Event::Seen(n) => {
                if let Some(l) = pick(&mut self.machines, n, |l| {
                    l.member && l.healthy != ready(&l.machine)
                }) {
                    set_ready(&mut l.machine, l.healthy);
                }
            }
            Event::Gone(n) => {
                if let Some(gone) = pick(&mut self.machines, n, Live::deleting) {
                    gone.come_to_the_hook();
                    if !gone.is_hooked() {
                        let gone = name(&gone.machine);
                        self.machines.retain(|l| name(&l.machine) != gone);
                    }
                }
            }
            Event::Fail(n) => {
                if let Some(l) = pick(&mut self.machines, n, |l| l.healthy) {
                    l.healthy = false;
                }
            }
            Event::Break(n) => {
                if let Some(l) = pick(&mut self.machines, n, |l| !l.deleting()) {
                    l.healthy = false;
                    l.find_broken(true);
                }
            }
            Event::Recover(n) => {
                if let Some(l) = pick(&mut self.machines, n, |l| l.member && !l.healthy) {
                    l.healthy = true;
                    l.find_broken(false);
                }
            }
            Event::Kill(n) => {
                if let Some(l) = pick(&mut self.machines, n, |l| !l.deleting()) {
                    l.machine.metadata.deletion_timestamp = Some(k8s_time(at(self.clock)));
                }
            }
            Event::Pool(n) => {
                self.pool(n % pools);
            }
            Event::Set(p, s) => {
                let sets = self.pools[p % pools].sets.len().max(1);
                self.set(p % pools, s % sets);
            }
            Event::Join(n) => {
                let sets = self.pools.iter_mut().flat_map(|p| &mut p.sets);
                let mut waiting: Vec<&mut bool> =
                    sets.flat_map(|s| &mut s.joined).filter(|j| !**j).collect();
                if !waiting.is_empty() {
                    let at = n % waiting.len();
                    *waiting[at] = true;
                }
            }
            Event::Version(minor, patch) => {
                self.cluster.spec.version = format!("v1.{minor}.{patch}");
            }
            Event::Replicas(n) => {
                let machines = self.cluster.spec.control_plane.machines.as_mut().unwrap();
                machines.replicas = Some([1, 3, 5][n]);
            }
            Event::PoolVersion(n, version) => {
                self.pools[n % pools].pool.spec.template.spec.version =
                    version.map(|minor| format!("v1.{minor}.0"));
            }
            Event::PoolReplicas(n, replicas) => {
                self.pools[n % pools].pool.spec.replicas = Some(replicas);
            }
        }
        self.check()
    }

    /// I4, at this moment: no kubelet is newer than an API server, or more than three minors older; API servers are at most one
    /// minor apart.
    fn check(&self) -> Result<(), TestCaseError> {
        let serving: Vec<Version> = self
            .machines
            .iter()
            .filter(|l| l.member)
            .filter_map(|l| machine_version(&l.machine))
            .collect();
        for set in self.pools.iter().flat_map(|p| &p.sets) {
            for api in serving.iter().filter(|_| set.joined.contains(&true)) {
                let skew = kubelet_skew(api, &set.version);
                prop_assert_eq!(skew, Skew::Allowed, "{} under {}", set.version, api);
            }
        }
        let minors = || serving.iter().map(Version::minor);
        let apart = minors().max().unwrap_or(0) - minors().min().unwrap_or(0);
        prop_assert!(apart <= 1, "API servers are {apart} minors apart");
        Ok(())
    }

    /// Everything runs in turn and comes up until nothing is left to do; whether that came.
    fn settle(&mut self) -> Result<bool, TestCaseError> {
        for _ in 0..400 {
            let mut moved = self.control_plane()?;
            moved |= self.machines.iter().any(Live::deleting);
            self.machines.retain(|l| !l.deleting() || l.is_hooked());
            for live in &mut self.machines {
                moved |= live.member && !live.healthy || crate::health::is_broken(&live.machine);
                live.healthy = true;
                live.find_broken(false);
                if live.deleting() {
                    live.come_to_the_hook();
                    continue;
                }
                moved |= !live.member || live.learner || !ready(&live.machine);
                if !live.member {
                    live.join(false);
                }
                live.learner = false;
                set_ready(&mut live.machine, true);
            }
            for pool in 0..self.pools.len() {
                moved |= self.pool(pool);
                for set in 0..self.pools[pool].sets.len() {
                    moved |= self.set(pool, set);
                    self.pools[pool].sets[set].joined.fill(true);
                }
            }
            self.check()?;
            if !moved {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn skew_and_quorum_hold_whatever_happens(
        replicas in 0..3_usize,
        pools in 1..3_usize,
        events in proptest::collection::vec(event(), 0..300),
    ) {
        let mut sim = Sim::new([1, 3, 5][replicas], pools);
        for event in events {
            sim.happen(event)?;
        }
        // Left alone, with a version that nothing runs above and pools that follow it, it comes to what the cluster says.
        sim.cluster.spec.version = "v1.36.1".into();
        for pool in &mut sim.pools {
            pool.pool.spec.template.spec.version = None;
        }
        prop_assert!(sim.settle()?, "does not end");
        let want = sim.cluster.spec.control_plane.machines.as_ref().unwrap().replicas.unwrap();
        prop_assert_eq!(i32::try_from(sim.machines.len()).unwrap(), want);
        let all = sim.machines.iter().map(|l| machine_version(&l.machine));
        for version in all.chain([sim.lowest_worker()]).flatten() {
            prop_assert_eq!(version.to_string(), sim.cluster.spec.version.clone());
        }
    }
}

/// One upgrade over four minor versions, taken back after each of its steps and to each version on its way: whatever serves then is
/// taken to a safe end, and whoever can go back does.
#[test]
fn a_revert_at_every_point_of_an_upgrade_comes_to_a_safe_end() {
    let steps = |sim: &mut Sim, count: usize| {
        let round = [
            Event::ControlPlane,
            Event::Serve(0),
            Event::Seen(0),
            Event::Vote(0),
            Event::ControlPlane,
            Event::Gone(0),
            Event::Pool(0),
            Event::Set(0, 0),
            Event::Join(0),
            Event::Set(0, 1),
            Event::Join(0),
        ];
        for event in round.iter().cycle().take(count) {
            sim.happen(event.clone()).unwrap();
        }
    };
    let mut ends = BTreeSet::new();
    for replicas in [1, 3] {
        for back in ["v1.30.0", "v1.31.0", "v1.33.0"] {
            for point in (0..).step_by(3) {
                let mut sim = Sim::new(replicas, 1);
                sim.cluster.spec.version = "v1.34.2".into();
                steps(&mut sim, point);
                let done = sim
                    .machines
                    .iter()
                    .filter_map(|l| machine_version(&l.machine));
                let done = done.min().unwrap().minor() == 34;
                let served = sim.machines.iter().filter(|l| has_served(&l.machine));
                let served = served.filter_map(|l| machine_version(&l.machine)).max();
                sim.cluster.spec.version = back.into();
                assert!(sim.settle().unwrap(), "{replicas} {back} after {point}");
                let wanted: Version = back.parse().unwrap();
                let end = running_version(
                    &sim.machines
                        .iter()
                        .map(|l| l.machine.clone())
                        .collect::<Vec<_>>(),
                );
                let end = end.unwrap();
                let highest = served.unwrap().max(wanted.clone());
                assert!(
                    end == wanted || (end == highest && end.minor() > wanted.minor()),
                    "{replicas} {back} after {point}: {end}, not {wanted}"
                );
                let workers = sim.lowest_worker().unwrap();
                let can = kubelet_skew(&end, &wanted) == Skew::Allowed;
                assert_eq!(
                    workers == wanted,
                    can,
                    "{replicas} {back} after {point}: {workers}"
                );
                ends.insert((back, end.to_string()));
                if done {
                    break;
                }
            }
        }
    }
    // Each of them came up: taken back before anything served, at each step, and at the end.
    for end in ["v1.30.0", "v1.31.0", "v1.32.0", "v1.33.0", "v1.34.2"] {
        assert!(ends.contains(&("v1.30.0", end.to_owned())), "{ends:?}");
    }
}
