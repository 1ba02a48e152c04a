//! An idealised cluster: the controllers' own decisions, in a world where every machine comes up and goes at once.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet, cluster::ClusterInitialization,
    machine_set::MachineSetStatus, meta, time::k8s_time, version::Version,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    blockers::{self, BlockerKind},
    forecast::ByProvider,
};
use crate::{
    catalogue::Catalogue,
    control_plane::{
        self, ControlPlaneAction, ControlPlaneView, CreateReason, Snapshots, VersionStep,
        running_version, upgrading_to,
    },
    group,
    images::{self, Image, Missing, OnTheWay},
    machine_set::{self, NewMachine},
    pool_version::effective_version,
    quorum::Etcd,
    rollout,
};

mod machines;
mod managed;

pub(super) use managed::Provided;

use machines::{is_available, leave, made, serve, update};

/// Decisions without any progress of machines after which a round is broken off.
const MOST_PASSES: usize = 100;

/// On a model nothing is broken.
static NOTHING_HELD: BTreeMap<String, String> = BTreeMap::new();

/// Whose machines: `None` for the control plane, else the pool's name.
pub(super) type Owner = Option<String>;

/// What happens to an owner's machines in one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) create: Vec<String>,
    pub(super) version: Option<String>,
    pub(super) delete: Vec<String>,
    pub(super) in_place: Vec<String>,
    /// What a provider does by itself.
    pub(super) provider: Option<ByProvider>,
    /// What of the content changed, or that there is something new.
    pub(super) because: Vec<String>,
    /// Why the number changed: said only where nothing else is.
    pub(super) number: Option<String>,
}

/// A cluster with everything that belongs to it.
#[derive(Clone)]
pub(super) struct Model<'a> {
    pub(super) cluster: Cluster,
    pub(super) pools: Vec<MachineDeployment>,
    pub(super) sets: Vec<MachineSet>,
    /// By set; under the empty name the control plane's.
    pub(super) machines: BTreeMap<String, Vec<Machine>>,
    /// Versions that the Fleet allows; all when empty.
    pub(super) versions: &'a [Version],
    pub(super) catalogue: &'a Catalogue,
    pub(super) now: Timestamp,
    /// Sets whose machines may still have to be changed in place.
    pub(super) fresh: BTreeSet<String>,
    /// Images that there are none of.
    pub(super) missing: &'a BTreeMap<Image, Missing>,
    /// The images of machines that are made, by owner.
    pub(super) images: BTreeMap<Owner, BTreeSet<Image>>,
    /// What providers run.
    pub(super) provided: Provided,
    /// What waits at the end, by owner.
    pub(super) waits: BTreeMap<Owner, Wait>,
}

/// Why something waits.
#[derive(Clone)]
pub(super) struct Wait {
    pub(super) kind: BlockerKind,
    pub(super) why: String,
    /// Whose field asks for what there is none of, and its path.
    pub(super) mistake: Option<(Owner, String)>,
}

impl Wait {
    pub(super) fn new(kind: BlockerKind, why: String) -> Self {
        Self {
            kind,
            why,
            mistake: None,
        }
    }
}

impl Model<'_> {
    /// Takes what a later wave brings to the cluster and its pools.
    pub(super) fn becomes(&mut self, cluster: Cluster, pools: Vec<MachineDeployment>) {
        let carry = |old: &ObjectMeta, new: &mut ObjectMeta| {
            let annotations = old.annotations.as_ref();
            // What was counted up since is in the model alone.
            if let Some(next) = annotations.and_then(|a| a.get(meta::ANNOTATION_NEXT_ORDINAL)) {
                let annotations = new.annotations.get_or_insert_default();
                annotations.insert(meta::ANNOTATION_NEXT_ORDINAL.to_owned(), next.clone());
            }
        };
        let old = std::mem::replace(&mut self.cluster, cluster);
        carry(&old.metadata, &mut self.cluster.metadata);
        self.cluster.status = old.status;
        let old = std::mem::replace(&mut self.pools, pools);
        for pool in &mut self.pools {
            let same = |o: &&MachineDeployment| o.metadata.name == pool.metadata.name;
            if let Some(old) = old.iter().find(same) {
                carry(&old.metadata, &mut pool.metadata);
                pool.status.clone_from(&old.status);
            }
        }
    }

    /// Everything that the controllers decide until they rest; empty when they have nothing to do.
    pub(super) fn decide(&mut self) -> BTreeMap<Owner, Moves> {
        let mut moves = BTreeMap::new();
        for _ in 0..MOST_PASSES {
            self.observe();
            let mut changed = self.control_plane(&mut moves);
            for at in 0..self.pools.len() {
                changed |= self.pool(at, &mut moves);
            }
            for at in 0..self.sets.len() {
                changed |= self.set(at, &mut moves);
            }
            if !changed {
                break;
            }
        }
        moves.retain(|_, m: &mut Moves| m.steps() || !m.in_place.is_empty());
        moves
    }

    /// Machines that were asked for serve; those on their way out are gone. Whether any did.
    pub(super) fn progress(&mut self) -> bool {
        self.now += SignedDuration::from_secs(1);
        let mut moved = self.provide();
        for machines in self.machines.values_mut() {
            let before = machines.len();
            machines.retain(|m| m.metadata.deletion_timestamp.is_none());
            moved |= machines.len() != before;
            for machine in machines.iter_mut().filter(|m| !is_available(m)) {
                serve(machine, self.now);
                moved = true;
            }
        }
        moved
    }

    /// What the controllers' statuses say, as far as decisions look at it.
    fn observe(&mut self) {
        let control_plane = self.machines.get("").map_or(&[][..], Vec::as_slice);
        let status = self.cluster.status.get_or_insert_default();
        if self.cluster.spec.control_plane.machines.is_some() {
            if let Some(version) = running_version(control_plane) {
                status.version = Some(version.to_string());
                status.initialization = Some(ClusterInitialization {
                    control_plane_initialized: true,
                    bootstrap_manifests_applied: true,
                });
            }
        } else if status.version.is_none() && self.cluster.spec.control_plane.external.is_some() {
            status.version = Some(self.cluster.spec.version.clone());
        }
        for set in &mut self.sets {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let machines = self.machines.get(name).map_or(&[][..], Vec::as_slice);
            let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
            let stays = |m: &&Machine| m.metadata.deletion_timestamp.is_none() && is_available(m);
            let available = count(machines.iter().filter(stays).count());
            set.status = Some(MachineSetStatus {
                replicas: count(machines.len()),
                ready_replicas: available,
                available_replicas: available,
                ..MachineSetStatus::default()
            });
        }
    }

    /// What the control plane's decision looks at, the workers' versions and the failure domains excepted.
    fn view<'m>(&'m self, machines: &'m [Machine]) -> ControlPlaneView<'m> {
        ControlPlaneView {
            cluster: &self.cluster,
            machines,
            managed: self.provided.known(&None),
            etcd: Etcd::Assumed,
            components: &[],
            snapshots: Snapshots::NotKept,
            lowest_worker: None,
            unknown_workers: None,
            pools: &self.pools,
            versions: self.versions,
            blocker: None,
            held: &NOTHING_HELD,
            domains: &[],
            catalogue: self.catalogue,
        }
    }

    /// The way of an upgrade over several minors, in words; `None` where it is none.
    pub(super) fn path(&mut self) -> Option<String> {
        self.observe();
        let machines = self.machines.get("").map_or(&[][..], Vec::as_slice);
        let path = control_plane::route(&self.view(machines))?.ok()?;
        (path.control_plane().count() > 1).then(|| path.to_string())
    }

    /// The first image on the way of an upgrade that there is none of.
    fn blocker(&self, machines: &[Machine]) -> Option<(OnTheWay, &Missing)> {
        if self.missing.is_empty() {
            return None;
        }
        let path = control_plane::route(&self.view(machines))?.ok()?;
        let all = images::on_the_way(&self.cluster, &self.pools, &path, self.catalogue);
        let found = |one: OnTheWay| self.missing.get(&one.image).map(|missing| (one, missing));
        all.into_iter().find_map(found)
    }

    /// The owner, and the path in its object, of the field that asks for what is missing; `None` where nobody can tell whether it is.
    pub(super) fn mistake(&self, owner: &Owner, missing: &Missing) -> Option<(Owner, String)> {
        let settings = match owner {
            Some(_) => "spec.template.spec.providerConfig",
            None if self.cluster.spec.control_plane.managed.is_some() => {
                "spec.controlPlane.managed.providerConfig"
            }
            None => "spec.controlPlane.machines.template.spec.providerConfig",
        };
        let field = format!("{settings}.{}", missing.field.as_ref()?);
        Some((owner.clone(), field))
    }

    fn control_plane(&mut self, moves: &mut BTreeMap<Owner, Moves>) -> bool {
        let none = Vec::new();
        let machines = self.machines.get("").unwrap_or(&none);
        // Many machines, few versions: each is read once.
        let workers = self.machines.iter().filter(|(set, _)| !set.is_empty());
        let versions: BTreeSet<&str> = workers
            .flat_map(|(_, m)| m)
            .filter_map(|m| m.spec.content.version.as_deref())
            .collect();
        let lowest = versions
            .iter()
            .filter_map(|v| v.parse::<Version>().ok())
            .chain(group::lowest_version(&self.pools, self.catalogue))
            .min();
        let status = self.cluster.status.as_ref();
        let mut domains = status.map_or_else(Vec::new, |s| s.failure_domains.clone());
        if domains.is_empty() {
            // Nobody has asked the provider yet.
            let shown = machines.iter();
            let shown = shown.filter_map(|m| m.status.as_ref()?.failure_domain.clone());
            domains = shown.collect::<BTreeSet<_>>().into_iter().collect();
        }
        let missing = self.blocker(machines);
        let mistake = missing.as_ref();
        let mistake = mistake.and_then(|(one, missing)| self.mistake(&one.pool, missing));
        let blocker = missing.map(|(one, missing)| one.missing(missing.why.clone()));
        let view = ControlPlaneView {
            blocker: blocker.as_ref(),
            lowest_worker: lowest.as_ref(),
            unknown_workers: None,
            domains: &domains,
            ..self.view(machines)
        };
        let decision = control_plane::decide(&view, self.now);
        let running = self
            .cluster
            .status
            .as_ref()
            .and_then(|s| s.version.as_deref());
        let next = upgrading_to(machines, &decision, running);
        self.cluster.status.get_or_insert_default().upgrading_to = next;
        let stays = |step: &VersionStep| {
            let kind = blockers::of_step(step)?;
            Some(Wait {
                mistake: mistake.filter(|_| kind == BlockerKind::MissingImage),
                ..Wait::new(kind, step.to_string())
            })
        };
        let waits = decision.version.as_ref().and_then(stays);
        self.waits(None, waits);
        let mine = moves.entry(None).or_default();
        if self.cluster.spec.control_plane.managed.is_some() {
            return self.order_control_plane(&decision, mine);
        }
        let control_plane = self.machines.entry(String::new()).or_default();
        let mut changed = update(control_plane, decision.updates, mine);
        match decision.action {
            ControlPlaneAction::Create { machine, reason } => {
                changed = true;
                because(
                    mine,
                    match &reason {
                        CreateReason::Replace { because, .. } if !because.is_empty() => {
                            sentence(because)
                        }
                        reason => reason.to_string(),
                    },
                );
                let next = (machine.ordinal + 1).to_string();
                let annotations = self.cluster.metadata.annotations.get_or_insert_default();
                annotations.insert(meta::ANNOTATION_NEXT_ORDINAL.to_owned(), next);
                mine.create(&machine);
                let images = self.images.entry(None).or_default();
                images.insert(image(&machine, self.catalogue));
                control_plane.push(made(*machine, &self.cluster.metadata.namespace, self.now));
            }
            ControlPlaneAction::Delete { machine, reason } => {
                changed = true;
                mine.number = Some(reason.to_string());
                leave(control_plane, &machine, self.now, mine);
            }
            ControlPlaneAction::Wait(_) | ControlPlaneAction::Settled => {}
        }
        changed
    }

    fn pool(&mut self, at: usize, moves: &mut BTreeMap<Owner, Moves>) -> bool {
        let pool = &self.pools[at];
        let settings = &pool.spec.template.spec.provider_config;
        if self.catalogue.is_group(settings) {
            return self.order_group(at, moves);
        }
        let name = pool.metadata.name.clone().unwrap_or_default();
        let version = effective_version(&self.cluster, pool);
        let own = |s: &&MachineSet| label(s.metadata.labels.as_ref()) == Some(name.as_str());
        let sets: Vec<MachineSet> = self.sets.iter().filter(own).cloned().collect();
        let decision = match rollout::decide(pool, &sets, &version, self.catalogue, self.now) {
            Ok(decision) => decision,
            Err(error) => {
                let wait = Wait::new(BlockerKind::Invalid, error.to_string());
                self.waits(Some(name), Some(wait));
                return false;
            }
        };
        let made = decision.create.as_ref().map(|new| new.to_set(pool));
        let waiting = decision.waiting.as_ref();
        let waits = waiting.map(|wait| Wait::new(blockers::of_wait(wait), wait.to_string()));
        let stays = || {
            let kind = blockers::of_version(&version.reason)?;
            Some(Wait::new(kind, version.reason.to_string()))
        };
        let waits = waits.or_else(stays);
        self.waits(Some(name.clone()), waits);
        let settled = decision.is_settled();
        let mine = moves.entry(Some(name)).or_default();
        if let (Some(new), Some(mut set)) = (&decision.create, made) {
            because(
                mine,
                match new.because.as_slice() {
                    [] => "the first machines of the pool".to_owned(),
                    changes => sentence(changes),
                },
            );
            set.metadata.creation_timestamp = Some(k8s_time(self.now));
            self.fresh.insert(new.name.clone());
            self.sets.push(set);
        }
        if !decision.scale.is_empty() {
            let wanted = self.pools[at].spec.replicas.unwrap_or(1);
            mine.number = Some(format!("the pool wants {wanted}"));
        }
        for set in &mut self.sets {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            for scale in decision.scale.iter().filter(|s| s.name == name) {
                set.spec.replicas = Some(scale.to);
            }
            if let Some(update) = decision.updates.iter().find(|u| u.name == name) {
                self.fresh.insert(name.to_owned());
                set.spec.template = update.template.clone();
                set.spec.deletion.clone_from(&update.deletion);
                let annotations = set.metadata.annotations.get_or_insert_default();
                for (key, value) in &update.annotations {
                    match value {
                        Some(value) => annotations.insert(key.clone(), value.clone()),
                        None => annotations.remove(key),
                    };
                }
            }
        }
        let gone = |s: &MachineSet| {
            let name = s.metadata.name.as_deref().unwrap_or_default();
            decision.cleanup.iter().any(|old| old == name)
        };
        self.sets.retain(|s| !gone(s));
        self.pools[at].status.get_or_insert_default().version = decision.version;
        !settled
    }

    fn set(&mut self, at: usize, moves: &mut BTreeMap<Owner, Moves>) -> bool {
        let set = &self.sets[at];
        let name = set.metadata.name.clone().unwrap_or_default();
        let machines = self.machines.entry(name.clone()).or_default();
        let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
        let is_fresh = self.fresh.remove(&name);
        // A set of the right size whose template did not change has nothing to do.
        if !is_fresh && machines.len() == wanted {
            return false;
        }
        let owner = label(set.metadata.labels.as_ref()).map(str::to_owned);
        let pool = self.pools.iter_mut().find(|p| p.metadata.name == owner);
        let (Some(pool), Some(owner)) = (pool, owner) else {
            return false;
        };
        let annotations = pool.metadata.annotations.get_or_insert_default();
        let next = annotations.get(meta::ANNOTATION_NEXT_ORDINAL);
        let next = next.and_then(|n| n.parse().ok()).unwrap_or(0);
        let decision = machine_set::scale(set, machines, next, self.now);
        let next = decision.next_ordinal.to_string();
        annotations.insert(meta::ANNOTATION_NEXT_ORDINAL.to_owned(), next);
        let mine = moves.entry(Some(owner.clone())).or_default();
        let mut changed = !decision.is_settled();
        let images = self.images.entry(Some(owner)).or_default();
        for doomed in decision.delete {
            leave(machines, &doomed.name, self.now, mine);
        }
        if is_fresh {
            let updates = machine_set::updates(set, machines, self.catalogue);
            changed |= update(machines, updates, mine);
        }
        for new in decision.create {
            mine.create(&new);
            images.insert(image(&new, self.catalogue));
            machines.push(made(new, &set.metadata.namespace, self.now));
        }
        changed
    }

    fn waits(&mut self, owner: Owner, wait: Option<Wait>) {
        match wait {
            Some(wait) => self.waits.insert(owner, wait),
            None => self.waits.remove(&owner),
        };
    }

    /// Machines that there are, those on their way out included, by account.
    pub(super) fn by_account(&self) -> BTreeMap<&str, i64> {
        let mut out = BTreeMap::new();
        for machine in self.machines.values().flatten() {
            let account = machine.spec.content.provider_config.account();
            *out.entry(account).or_default() += 1;
        }
        out
    }

    /// For how long a new machine must be ready before it counts, in seconds.
    pub(super) fn min_ready_seconds(&self, owner: &Owner) -> i64 {
        let spec = match owner {
            None => {
                let machines = self.cluster.spec.control_plane.machines.as_ref();
                machines.map(|m| &m.template.spec)
            }
            Some(name) => {
                let mut pools = self.pools.iter();
                let pool = pools.find(|p| p.metadata.name.as_ref() == Some(name));
                pool.map(|p| &p.spec.template.spec)
            }
        };
        let seconds = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
        i64::from(seconds.max(0))
    }
}

impl Moves {
    /// Whether something comes or goes, or a provider does something.
    pub(super) fn steps(&self) -> bool {
        !self.create.is_empty() || !self.delete.is_empty() || self.provider.is_some()
    }

    fn create(&mut self, machine: &NewMachine) {
        self.create.push(machine.name.clone());
        self.version.clone_from(&machine.spec.content.version);
    }
}

fn image(machine: &NewMachine, catalogue: &Catalogue) -> Image {
    let spec = &machine.spec.content;
    let version = spec.version.as_deref().unwrap_or_default();
    Image::of(&spec.provider_config, version, catalogue)
}

fn label(labels: Option<&BTreeMap<String, String>>) -> Option<&str> {
    labels?.get(meta::LABEL_DEPLOYMENT_NAME).map(String::as_str)
}

fn sentence<T: ToString>(changes: &[T]) -> String {
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    words.join("; ")
}

fn because(moves: &mut Moves, text: String) {
    if !moves.because.contains(&text) {
        moves.because.push(text);
    }
}
