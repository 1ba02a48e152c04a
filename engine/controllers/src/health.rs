//! What health checks say: of one machine, for its status, and of all machines of a check, for who replaces them.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineHealthCheck, MachineSet, ProviderAccount,
    condition, condition::kind, machine_health_check::RemediationStrategy, meta,
};
use fleetwright_core::{
    cluster::is_control_plane,
    health::{Gate, HealthFacts, Judgement, NodeSight, Peer, gate, is_broken, judge, unseen},
    machine::Instance,
    machine_set::{Remediation, RemediationView, Surge, preflight, remediate},
    rollout::bounds,
    status::NodeHealth,
};
use jiff::Timestamp;
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use crate::{
    cache::{Mark, name_of},
    nodes::SeenNode,
    queue::Key,
    reconcile::Shared,
};

/// Digits of a revision in a sentence.
const REVISION_DIGITS: usize = 12;

/// Whether `check` looks at `machine`.
pub(crate) fn selects(check: &MachineHealthCheck, machine: &Machine) -> bool {
    check.metadata.deletion_timestamp.is_none()
        && check.spec.cluster_name == machine.spec.cluster_name
        && Selector::try_from(check.spec.selector.clone())
            .is_ok_and(|s| !s.selects_all() && s.matches(machine.labels()))
}

fn checks_of(shared: &Shared, machine: &Machine) -> Vec<Arc<MachineHealthCheck>> {
    let (namespace, cluster) = (
        machine.namespace().unwrap_or_default(),
        &machine.spec.cluster_name,
    );
    let mut all = shared
        .caches
        .of_cluster::<MachineHealthCheck>(&namespace, cluster);
    all.retain(|check| selects(check, machine));
    all
}

/// What the checks that select `machine` say of it.
pub(crate) fn of_machine(
    shared: &Shared,
    machine: &Machine,
    cluster: Option<&Cluster>,
    instance: &Instance,
    node: &SeenNode,
    (drifted, seen_whole): (Option<&str>, bool),
) -> Judgement {
    let checks = checks_of(shared, machine);
    let checks: Vec<&MachineHealthCheck> = checks.iter().map(AsRef::as_ref).collect();
    let status = cluster.and_then(|c| c.status.as_ref());
    let initialized = status
        .and_then(|s| s.initialization.as_ref())
        .is_some_and(|i| i.control_plane_initialized);
    let since = status
        .and_then(|s| condition::get(&s.conditions, kind::CONTROL_PLANE_INITIALIZED))
        .map_or(Timestamp::UNIX_EPOCH, |c| c.last_transition_time.0);
    let namespace = machine.namespace().unwrap_or_default();
    if became_silent(machine, node) {
        let account = machine.spec.content.provider_config.account();
        shared.inventory.hurry(account);
    }
    let facts = HealthFacts {
        instance,
        node: match node {
            SeenNode::Unknown | SeenNode::Several(_) => NodeSight::Unknown,
            SeenNode::Missing => NodeSight::Missing,
            SeenNode::There(node) => NodeSight::There(&node.conditions),
        },
        initialized_at: initialized.then_some(since),
        seen_since: shared
            .nodes
            .seen_since(&namespace, &machine.spec.cluster_name),
        drifted,
        seen_whole,
    };
    judge(machine, &facts, &checks, shared.now())
}

/// Whether a node that was healthy is silent now or gone, as it is when its instance is.
fn became_silent(machine: &Machine, node: &SeenNode) -> bool {
    let silent = match node {
        SeenNode::Unknown | SeenNode::Several(_) => false,
        SeenNode::Missing => true,
        SeenNode::There(node) => matches!(node.health, NodeHealth::Unknown(_)),
    };
    let status = machine.status.as_ref();
    silent && status.is_some_and(|s| condition::is_true(&s.conditions, kind::NODE_HEALTHY))
}

/// Whether `set` is the one of its pool's current revision.
fn is_current(set: &MachineSet, pool: Option<&MachineDeployment>) -> bool {
    let revision = |a: &BTreeMap<String, String>| a.get(meta::ANNOTATION_ROLLOUT_REVISION).cloned();
    pool.is_none_or(|pool| revision(set.annotations()) == revision(pool.annotations()))
}

fn pool_of(shared: &Shared, set: &MachineSet) -> Option<Arc<MachineDeployment>> {
    let owner = meta::controller_of(set).filter(|o| o.kind == "MachineDeployment")?;
    let namespace = set.namespace().unwrap_or_default();
    shared.caches.get(&namespace, &owner.name)
}

/// Whether what is called so, a MachineSet or a Cluster, still makes machines of the same.
fn goes_on(shared: &Shared, namespace: &str, owner: &str) -> bool {
    match shared.caches.get::<MachineSet>(namespace, owner) {
        Some(set) => is_current(&set, pool_of(shared, &set).as_deref()),
        None => shared.caches.get::<Cluster>(namespace, owner).is_some(),
    }
}

fn peer<'a>(shared: &Shared, machine: &'a Machine) -> Peer<'a> {
    let (namespace, _) = name_of(machine);
    let owner = meta::controller_of(machine).map_or_else(String::new, |o| o.name.clone());
    let status = machine.status.as_ref();
    let mut storm = None;
    let outdated = status.is_some_and(|s| condition::is_false(&s.conditions, kind::UP_TO_DATE));
    let mut traits = Vec::new();
    // All this is asked of broken machines alone.
    if is_broken(machine) {
        storm = shared.storms.over(shared, machine);
        let mut add = |what: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                traits.push(format!("{what} {value}"));
            }
        };
        let revision = if is_control_plane(machine) {
            let cluster = shared.caches.get::<Cluster>(&namespace, &owner);
            cluster.and_then(|c| c.annotations().get(meta::ANNOTATION_REVISION).cloned())
        } else {
            let set = shared.caches.get::<MachineSet>(&namespace, &owner);
            let pool = set.and_then(|set| pool_of(shared, &set));
            pool.and_then(|p| p.annotations().get(meta::ANNOTATION_REVISION).cloned())
        };
        let short: Option<String> = revision.map(|r| r.chars().take(REVISION_DIGITS).collect());
        add("revision", short.as_deref());
        let shown = status.and_then(|s| s.instance.as_ref());
        add("image", shown.map(|i| i.image.as_str()));
        add("instance type", shown.map(|i| i.instance_type.as_str()));
        add(
            "failure domain",
            status.and_then(|s| s.failure_domain.as_deref()),
        );
        add(
            "account",
            Some(machine.spec.content.provider_config.account()),
        );
    }
    Peer {
        machine,
        current: traits.is_empty() || (!outdated && goes_on(shared, &namespace, &owner)),
        owner,
        traits,
        storm,
    }
}

/// The gate of a check.
pub(crate) fn gate_of(shared: &Shared, check: &MachineHealthCheck) -> Gate {
    let namespace = check.namespace().unwrap_or_default();
    gate_over(shared, &namespace, &check.spec.cluster_name, Some(check))
}

/// The gate over the machines that `check` selects; without one, over those of the cluster that no check selects.
fn gate_over(
    shared: &Shared,
    namespace: &str,
    cluster: &str,
    check: Option<&MachineHealthCheck>,
) -> Gate {
    let mut machines = shared.caches.of_cluster::<Machine>(namespace, cluster);
    machines.retain(|machine| match check {
        Some(check) => selects(check, machine),
        None => checks_of(shared, machine).is_empty(),
    });
    let peers: Vec<Peer<'_>> = machines.iter().map(|m| peer(shared, m)).collect();
    let current = |owner: &str| goes_on(shared, namespace, owner);
    gate(check, &peers, current, shared.now())
}

/// The gates that broken machines have to pass, each worked out once.
struct Gates<'a> {
    shared: &'a Shared,
    /// By namespace, Cluster and check; without a check for machines that none selects.
    known: BTreeMap<(String, String, Option<String>), Gate>,
}

/// What the checks of a broken machine say of its replacement.
struct Asked {
    /// Why it is not replaced now.
    held: Option<String>,
    /// Whether another comes before it goes.
    replace_first: bool,
}

impl<'a> Gates<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            known: BTreeMap::new(),
        }
    }

    /// What all checks that select `machine` say.
    fn ask(&mut self, machine: &Machine) -> Asked {
        let (namespace, _) = name_of(machine);
        let cluster = &machine.spec.cluster_name;
        let checks = checks_of(self.shared, machine);
        let by: Vec<Option<&MachineHealthCheck>> = if checks.is_empty() {
            vec![None]
        } else {
            checks.iter().map(|c| Some(c.as_ref())).collect()
        };
        let mut out = Asked {
            held: None,
            replace_first: false,
        };
        for check in by {
            let name = check.map(ResourceExt::name_any);
            let gate = self
                .known
                .entry((namespace.clone(), cluster.clone(), name))
                .or_insert_with(|| gate_over(self.shared, &namespace, cluster, check));
            out.held = out
                .held
                .or_else(|| gate.holds(machine).map(ToString::to_string));
            let strategy = check.and_then(|c| c.spec.remediation.as_ref()?.strategy);
            out.replace_first |= strategy == Some(RemediationStrategy::ReplaceFirst);
        }
        out
    }

    /// When to look again at what is held though nothing happens.
    fn next(&self) -> Option<Timestamp> {
        let closed = self.known.values().filter(|g| g.stops().is_some());
        closed.filter_map(|g| g.next).min()
    }
}

/// What the gates say of all broken machines of a cluster that one owner replaces.
pub(crate) struct AllAsked {
    /// Those that may not be replaced for now, with why.
    pub(crate) held: BTreeMap<String, String>,
    /// Those that another machine is made for first.
    replace_first: BTreeSet<String>,
    /// When to look again though nothing happens.
    pub(crate) next: Option<Timestamp>,
}

/// Why no machine could be made in the place of a machine of this account now.
enum Unlisted<'a> {
    /// There is no such account.
    None(&'a str),
    /// It has not been listed: a moment after the start.
    NotYet(&'a str),
    /// It cannot be listed. Not in the error's own words, which may be others with each try.
    Fails(&'a str, &'static str),
}

impl fmt::Display for Unlisted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(account) => write!(f, "there is no ProviderAccount {account}"),
            Self::NotYet(account) => write!(f, "account {account} has not been listed yet"),
            Self::Fails(account, error) => {
                write!(f, "account {account} cannot be listed ({error})")
            }
        }?;
        f.write_str(": nothing is replaced while no other machine could be made")
    }
}

fn unlisted<'a>(shared: &Shared, machine: &'a Machine) -> Option<Unlisted<'a>> {
    let account = machine.spec.content.provider_config.account();
    if let Some(error) = shared.inventory.trouble(account) {
        return Some(Unlisted::Fails(account, error.word()));
    }
    if shared.inventory.is_complete(account) {
        return None;
    }
    let known = shared.caches.get::<ProviderAccount>("", account);
    Some(match known {
        Some(_) => Unlisted::NotYet(account),
        None => Unlisted::None(account),
    })
}

/// Asks the gates of all broken machines of a cluster.
pub(crate) fn ask(
    shared: &Shared,
    namespace: &str,
    cluster: &str,
    machines: &[impl Borrow<Machine>],
) -> AllAsked {
    let blind = shared.nodes.reachable(namespace, cluster) == Some(false);
    let mut gates = Gates::new(shared);
    let (mut held, mut replace_first) = (BTreeMap::new(), BTreeSet::new());
    for machine in machines.iter().map(Borrow::borrow).filter(|m| is_broken(m)) {
        let asked = gates.ask(machine);
        let why = blind.then(|| {
            format!("cluster {cluster} cannot be reached: nothing is replaced that cannot be seen")
        });
        let why = why.or_else(|| unseen(machine).map(str::to_owned));
        let why = why
            .or(asked.held)
            .or_else(|| unlisted(shared, machine).map(|u| u.to_string()));
        held.extend(why.map(|why| (machine.name_any(), why)));
        if asked.replace_first {
            replace_first.insert(machine.name_any());
        }
    }
    AllAsked {
        held,
        replace_first,
        next: gates.next(),
    }
}

/// What a set does about its broken machines, and when to look again though nothing happens.
pub(crate) fn remediation(
    shared: &Shared,
    set: &MachineSet,
    pool: Option<&MachineDeployment>,
    machines: &[Arc<Machine>],
    key: &Key,
) -> (Remediation, Option<Timestamp>) {
    if !machines.iter().any(|m| is_broken(m)) {
        return (Remediation::default(), None);
    }
    let (namespace, _) = name_of(set);
    let cluster = &set.spec.cluster_name;
    let reachable = shared.nodes.reachable(&namespace, cluster);
    let unlisted_yet =
        |m: &Arc<Machine>| is_broken(m) && matches!(unlisted(shared, m), Some(Unlisted::NotYet(_)));
    if reachable.is_none() || machines.iter().any(unlisted_yet) {
        // A moment after the start: what was said stays until the cluster and the provider have been asked.
        let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
        let stays = |m: &&Arc<Machine>| m.metadata.deletion_timestamp.is_none();
        let as_it_is = Remediation {
            extra: usize::from(machines.iter().filter(stays).count() > wanted),
            ..Remediation::default()
        };
        return (as_it_is, None);
    }
    let mut asked = ask(shared, &namespace, cluster, machines);
    // One that is in service, whose replacement somebody asked for, keeps none that is broken from being replaced.
    for machine in machines.iter().filter(|m| is_broken(m)) {
        if let Some(held) = shared.budgets.blocked(shared, machine, key) {
            asked.held.entry(machine.name_any()).or_insert(held);
        }
    }
    let of_pool: Vec<Arc<MachineSet>> = pool.map_or_else(Vec::new, |pool| {
        let owner = Mark::Owner(pool.uid().unwrap_or_default());
        shared.caches.marked(&owner)
    });
    let in_flight = of_pool
        .iter()
        .flat_map(|set| {
            let owner = Mark::Owner(set.uid().unwrap_or_default());
            shared.caches.marked::<Machine>(&owner)
        })
        .filter(|m| m.metadata.deletion_timestamp.is_some() && is_broken(m))
        .count();
    let all: Vec<&Machine> = machines.iter().map(Arc::as_ref).collect();
    let known = shared.caches.get::<Cluster>(&namespace, cluster);
    let preflight = known.map_or_else(Vec::new, |cluster| preflight(set, pool, &cluster));
    let view = RemediationView {
        set,
        machines: &all,
        current: is_current(set, pool),
        replicas: pool
            .map_or(set.spec.replicas, |p| p.spec.replicas)
            .unwrap_or(1),
        max_in_flight: pool.and_then(|p| p.spec.remediation.as_ref()?.max_in_flight.as_ref()),
        in_flight,
        surge: surge(shared, pool, &of_pool),
        held: &asked.held,
        preflight: &preflight,
        replace_first: &asked.replace_first,
    };
    (remediate(&view), asked.next)
}

/// Whether the pool may have a machine more than it wants: its rollouts have the same room.
fn surge(shared: &Shared, pool: Option<&MachineDeployment>, sets: &[Arc<MachineSet>]) -> Surge {
    let Some(pool) = pool else { return Surge::Room };
    let Ok(bounds) = bounds(pool) else {
        return Surge::Never;
    };
    let sizes = sets.iter().map(|set| {
        let owner = Mark::Owner(set.uid().unwrap_or_default());
        let wants = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
        (shared.caches.marked::<Machine>(&owner).len(), wants)
    });
    Surge::of(&bounds, sizes)
}
