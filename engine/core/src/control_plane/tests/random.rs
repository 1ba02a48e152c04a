//! Invariants I4 and I5: upgrades over several minors, reverts, scaling and failures in random order never take the version skew
//! out of Kubernetes' policy, nor etcd below its quorum.

use fleetwright_api::{
    MachineDeployment,
    machine_deployment::{MachineDeploymentSpec, MachineDeploymentStatus},
    version::{Skew, kubelet_skew},
};
use proptest::prelude::*;

use super::*;
use crate::{
    pool_version::effective_version,
    quorum::quorum,
    status::{self, ClusterFacts},
};

/// A control-plane machine, and what is true of it though its status may not say so yet.
struct Live {
    machine: Machine,
    /// Its API server has served: it is a member of etcd.
    member: bool,
    healthy: bool,
}

impl Live {
    fn deleting(&self) -> bool {
        self.machine.metadata.deletion_timestamp.is_some()
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
    Seen(usize),
    Gone(usize),
    Fail(usize),
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
        8 => n.clone().prop_map(Seen),
        8 => n.clone().prop_map(Gone),
        1 => n.clone().prop_map(Fail),
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
        let view = ControlPlaneView {
            cluster: &self.cluster,
            machines: &machines,
            etcd: Etcd::Assumed,
            lowest_worker: worker.as_ref(),
            pools: &pools,
            versions: &[],
            blocker: None,
            domains: &[],
            catalogue: &catalogue,
        };
        let decision = decide(&view, at(self.clock));
        let facts = ClusterFacts::default();
        let status = status::cluster(&self.cluster, &machines, &[], &facts, &decision, at(0));
        self.cluster.status = Some(status);
        let members: Vec<&Live> = self.machines.iter().filter(|l| l.member).collect();
        let healthy = |m: &[&Live]| m.iter().filter(|l| l.healthy).count();
        let has_quorum = |m: &[&Live]| healthy(m) >= quorum(m.len());
        match decision.action {
            ControlPlaneAction::Create { machine, reason } => {
                let more = members.len() + 1;
                prop_assert!(
                    self.seen_differs() || members.len() <= 1 || healthy(&members) >= quorum(more),
                    "{reason}: a member more than {} of {} healthy ones carry",
                    healthy(&members),
                    members.len()
                );
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
                    healthy: false,
                });
                Ok(true)
            }
            ControlPlaneAction::Delete { machine, reason } => {
                let rest: Vec<&Live> = members
                    .iter()
                    .copied()
                    .filter(|l| name(&l.machine) != machine)
                    .collect();
                // A failure that nobody has seen yet is not a decision's fault.
                prop_assert!(
                    self.seen_differs() || !has_quorum(&members) || has_quorum(&rest),
                    "{reason}: without {machine} {} of {} members are healthy",
                    healthy(&rest),
                    rest.len()
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

    /// Whether a member that failed is still said to be ready.
    fn seen_differs(&self) -> bool {
        self.machines
            .iter()
            .any(|l| l.member && !l.healthy && ready(&l.machine))
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
                if let Some(live) = pick(&mut self.machines, n, |l| !l.member && !l.deleting()) {
                    live.machine.spec.provider_id = Some("x".into());
                    live.member = true;
                    live.healthy = true;
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
                    let gone = name(&gone.machine);
                    self.machines.retain(|l| name(&l.machine) != gone);
                }
            }
            Event::Fail(n) => {
                if let Some(l) = pick(&mut self.machines, n, |l| l.healthy) {
                    l.healthy = false;
                }
            }
            Event::Recover(n) => {
                if let Some(l) = pick(&mut self.machines, n, |l| l.member && !l.healthy) {
                    l.healthy = true;
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
            for live in &mut self.machines {
                moved |= !live.member || !ready(&live.machine);
                live.member = true;
                live.healthy = true;
                set_ready(&mut live.machine, true);
            }
            moved |= self.machines.iter().any(Live::deleting);
            self.machines.retain(|l| !l.deleting());
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
