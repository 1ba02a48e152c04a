//! Status of a Cluster.

use fleetwright_api::{
    Cluster, Machine, MachineDeployment,
    cluster::{ClusterInitialization, ClusterPhase, ClusterStatus, Endpoint, MachineCounts},
    condition::{self, Condition, Status, kind, reason},
    meta,
};
use jiff::Timestamp;

use super::{
    Conditions, all_machines, bootstrap,
    control_plane::{blocked, components, etcd, remediating, unsaved},
    few, in_sync, managed,
    pool::incomplete,
    refusal,
    workers::{pools_conditions, scaling, workers},
};
use crate::{
    addons::Addons,
    cluster::ClusterDeletionStep,
    control_plane::{
        ComponentState, ControlPlaneAction, ControlPlaneDecision, ControlPlaneWait, VersionStep,
        has_served, running_version, upgrading_to,
    },
    drift::MachinesInSync,
    external::differs,
    managed::Known,
    manifests::Standing,
    pool_version::{VersionReason, effective_version},
    quorum::{Member, votes},
};

/// What was seen of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterFacts {
    /// Whether its API answers; `None` while nobody asked.
    pub reachable: Option<bool>,
    /// Why it does not, where that is known.
    pub unreachable: Option<String>,
    /// Where its API server listens; `None` keeps what is known.
    pub endpoint: Option<Endpoint>,
    /// Whether its keys and certificates are there, with what is to be told of them or why they are not; `None` where that is not our
    /// business.
    pub certificates: Option<Result<String, String>>,
    /// Version of a control plane that is not on machines of ours, as its API says; `None` keeps what is known.
    pub foreign_version: Option<String>,
    /// What the provider shows of a control plane that it runs; `None` where it runs none.
    pub managed: Option<Known>,
    /// Newest version that a part of such a control plane runs or is about to run, where that is known.
    pub foreign_newest: Option<String>,
    /// Nodes of somebody else's cluster that belong to no Machine; `None` keeps what is known.
    pub unmanaged_nodes: Option<i32>,
    /// Failure domains of control-plane machines; empty keeps what is known.
    pub failure_domains: Vec<String>,
    /// Instances that carry the cluster's key but belong to no Machine; `None` keeps what is known.
    pub unmanaged_instances: Option<Vec<String>>,
    /// Instances that share a Machine's key; `None` keeps what is known.
    pub duplicate_instances: Option<Vec<String>>,
    /// How many of all its machines differ; `None` where nobody counted.
    pub in_sync: Option<MachinesInSync>,
    /// What etcd says of its members, or why it cannot be asked; `None` while nobody asked.
    pub etcd: Option<Result<Vec<Member>, String>>,
    /// How the parts of its control plane are on its machines, or why they cannot be asked; `None` while nobody asked.
    pub components: Option<Result<Vec<ComponentState>, String>>,
    /// How far what kubeadm installed has followed; `None` keeps what is known.
    pub addons: Option<Addons>,
    /// Whether snapshots of its etcd could be taken before each minor version, and nobody keeps them.
    pub without_snapshots: bool,
    /// The way of an upgrade over several minor versions, in words.
    pub path: Option<String>,
    /// How far its bootstrap manifests have come; `None` where nobody looked.
    pub manifests: Option<Standing>,
    /// What is done next for a Cluster on its way out.
    pub deletion: Option<ClusterDeletionStep>,
}

impl ClusterFacts {
    /// Why its API does not answer.
    fn silence(&self) -> &str {
        let why = self.unreachable.as_deref();
        why.unwrap_or("the cluster's API does not answer")
    }
}

fn conditions(machine: &Machine) -> &[Condition] {
    machine
        .status
        .as_ref()
        .map_or(&[], |s| s.conditions.as_slice())
}

fn count<'a>(machines: impl Iterator<Item = &'a Machine>, kind: &str) -> i32 {
    let n = machines
        .filter(|m| condition::is_true(conditions(m), kind))
        .count();
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The status of a cluster from its control-plane machines, its pools' statuses and what was decided for it.
pub fn cluster(
    cluster: &Cluster,
    machines: &[Machine],
    pools: &[MachineDeployment],
    facts: &ClusterFacts,
    decision: &ControlPlaneDecision,
    now: Timestamp,
) -> ClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let ours = cluster.spec.control_plane.machines.as_ref();
    let deleting = cluster.metadata.deletion_timestamp.is_some();
    status.observed_generation = cluster.metadata.generation;
    if let Some(endpoint) = &facts.endpoint {
        status.control_plane_endpoint = Some(endpoint.clone());
    }
    if !facts.failure_domains.is_empty() {
        status.failure_domains = facts.failure_domains.iter().take(100).cloned().collect();
    }
    if let Some(list) = &facts.unmanaged_instances {
        status.unmanaged_instances = list.iter().take(100).cloned().collect();
    }
    let running = match ours {
        Some(_) => running_version(machines).map(|v| v.to_string()),
        None => facts.foreign_version.clone(),
    };
    if let Some(running) = running {
        status.version = Some(running);
    }
    if let Some(list) = &facts.duplicate_instances {
        status.duplicate_instances = list.iter().take(100).cloned().collect();
    }
    let strays = (
        status.unmanaged_instances.clone(),
        status.duplicate_instances.clone(),
    );
    status.upgrading_to = match cluster.spec.control_plane.external {
        None => upgrading_to(machines, decision, status.version.as_deref()),
        Some(_) => facts
            .foreign_newest
            .clone()
            .filter(|newest| status.version.as_ref() != Some(newest)),
    };
    status.unmanaged_nodes = facts.unmanaged_nodes.or(status.unmanaged_nodes);
    let was = status
        .initialization
        .as_ref()
        .is_some_and(|i| i.control_plane_initialized);
    let initialized =
        was || machines.iter().any(has_served) || (ours.is_none() && facts.reachable == Some(true));
    let provided = cluster.spec.control_plane.managed.is_some();
    let known = facts.managed.as_ref();
    let initialized = initialized || known.is_some_and(|known| known.serves().is_some());

    let cp = ours.map(|spec| MachineCounts {
        desired_replicas: spec.replicas.unwrap_or(1),
        replicas: i32::try_from(machines.len()).unwrap_or(i32::MAX),
        ready_replicas: count(machines.iter(), kind::READY),
        available_replicas: count(machines.iter(), kind::AVAILABLE),
        up_to_date_replicas: i32::try_from(
            machines
                .iter()
                .filter(|m| m.metadata.deletion_timestamp.is_none())
                .filter(|m| {
                    !decision
                        .outdated
                        .contains_key(m.metadata.name.as_deref().unwrap_or_default())
                })
                .count(),
        )
        .unwrap_or(i32::MAX),
    });
    let workers = workers(pools);
    let mut list = std::mem::take(&mut status.conditions);
    let mut out = Conditions {
        list: &mut list,
        generation: cluster.metadata.generation,
        now,
    };
    match &facts.deletion {
        Some(step) => out.set(
            kind::DELETING,
            Status::True,
            step.reason(),
            step.to_string(),
        ),
        None => out.flag(kind::DELETING, deleting, ""),
    }
    out.flag(kind::PAUSED, meta::is_paused(cluster), "");
    let (why, text) = if initialized {
        (reason::INITIALIZED, "")
    } else {
        let what = match (provided, ours) {
            (true, _) => "waiting for the provider's control plane",
            (_, Some(_)) => "waiting for the control plane's first machine",
            (_, None) => "waiting for the cluster's API to answer",
        };
        (reason::NOT_INITIALIZED, what)
    };
    out.set(
        kind::CONTROL_PLANE_INITIALIZED,
        initialized.into(),
        why,
        text,
    );
    match facts.reachable {
        Some(true) => out.set(
            kind::REMOTE_CONNECTION_PROBE,
            Status::True,
            reason::PROBE_SUCCEEDED,
            "",
        ),
        Some(false) => out.set(
            kind::REMOTE_CONNECTION_PROBE,
            Status::False,
            reason::PROBE_FAILED,
            facts.silence(),
        ),
        None => {}
    }
    managed::infrastructure(&mut out, known);
    let (manifests, bootstrapped) = bootstrap::applied(&mut out, cluster, facts, initialized);
    held(&mut out, decision);
    blocked(&mut out, decision);
    remediating(&mut out, decision);
    let version = differs(cluster, status.version.as_deref());
    in_sync::of_cluster(&mut out, facts, &strays, version);
    etcd(&mut out, facts);
    components(&mut out, facts);
    control_plane(&mut out, cp.as_ref(), initialized, facts, decision);
    if ours.is_some() {
        all_machines(
            &mut out,
            kind::CONTROL_PLANE_MACHINES_READY,
            kind::READY,
            machines.iter().map(|m| {
                (
                    m.metadata.name.as_deref().unwrap_or_default(),
                    conditions(m),
                )
            }),
        );
    }
    pools_conditions(&mut out, pools);
    match &facts.certificates {
        Some(Ok(told)) => {
            let kind = kind::CERTIFICATES_AVAILABLE;
            out.set(kind, Status::True, reason::AVAILABLE, told);
        }
        Some(Err(why)) => {
            let kind = kind::CERTIFICATES_AVAILABLE;
            out.set(kind, Status::False, reason::NOT_AVAILABLE, why);
        }
        None => {}
    }
    bootstrap::addons(&mut out, facts.addons.as_ref());
    let wanted = machines.iter().filter(|m| {
        let name = m.metadata.name.as_deref().unwrap_or_default();
        m.metadata.deletion_timestamp.is_none() && !decision.outdated.contains_key(name)
    });
    let held = || match &decision.action {
        ControlPlaneAction::Wait(ControlPlaneWait::Held(hold)) => hold.refusal(),
        _ => None,
    };
    let refusal = refusal(wanted)
        .or_else(held)
        .or_else(|| managed::refusal(known));
    scaling(&mut out, cp.as_ref(), pools, refusal);
    let unsaved = unsaved(&status, facts);
    let provider = managed::rolling(known, status.version.as_deref(), decision.version.as_ref());
    rolling(
        &mut out,
        cluster,
        (cp.as_ref(), provider, unsaved),
        pools,
        facts,
        decision,
    );
    available(&mut out, deleting, bootstrapped);
    status.conditions = list;
    status.bootstrap_manifests_hash = manifests;
    status.initialization = Some(ClusterInitialization {
        control_plane_initialized: initialized,
        bootstrap_manifests_applied: bootstrapped,
    });
    status.control_plane = cp;
    status.workers = Some(workers);
    status.phase = Some(if deleting {
        ClusterPhase::Deleting
    } else if initialized {
        ClusterPhase::Provisioned
    } else if machines.is_empty() && (ours.is_some() || is_unmade(known)) {
        ClusterPhase::Pending
    } else {
        ClusterPhase::Provisioning
    });
    status
}

/// Whether the provider is to run the control plane, and shows none yet.
fn is_unmade(known: Option<&Known>) -> bool {
    known.is_some_and(|known| known.shown.is_none())
}

fn held(out: &mut Conditions<'_>, decision: &ControlPlaneDecision) {
    match &decision.version {
        Some(step) if step.is_held() => {
            out.set(
                kind::VERSION_HELD,
                Status::True,
                reason::VERSION_BELOW_RUNNING,
                step.to_string(),
            );
        }
        Some(_) => out.set(kind::VERSION_HELD, Status::False, reason::NOT_HELD, ""),
        None => {}
    }
}

fn control_plane(
    out: &mut Conditions<'_>,
    counts: Option<&MachineCounts>,
    initialized: bool,
    facts: &ClusterFacts,
    decision: &ControlPlaneDecision,
) {
    let kind = kind::CONTROL_PLANE_AVAILABLE;
    if let Some(text) = managed::unavailable(facts) {
        return out.set(kind, Status::False, reason::NOT_AVAILABLE, text);
    }
    let Some(counts) = counts else {
        return match facts.reachable {
            Some(true) => out.set(kind, Status::True, reason::AVAILABLE, ""),
            Some(false) => {
                out.set(kind, Status::False, reason::NOT_AVAILABLE, facts.silence());
            }
            None => out.set(
                kind,
                Status::Unknown,
                "AvailableUnknown",
                "nobody asked the cluster's API yet",
            ),
        };
    };
    // etcd has its quorum: as it says itself, or else because a majority of the wanted machines serves.
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let known = facts.etcd.as_ref().and_then(|etcd| etcd.as_ref().ok());
    let (healthy, of, what) = match known.map(|members| votes(members)) {
        Some((healthy, voting)) if voting > 0 => {
            (count(healthy), count(voting), "etcd members healthy")
        }
        _ => (
            counts.available_replicas,
            counts.desired_replicas,
            "machines available",
        ),
    };
    let needed = of / 2 + 1;
    let doing = match &decision.action {
        ControlPlaneAction::Create { reason, .. } => format!("; making a machine: {reason}"),
        ControlPlaneAction::Delete { machine, reason } => format!("; deleting {machine}: {reason}"),
        ControlPlaneAction::Wait(wait) => format!("; {wait}"),
        ControlPlaneAction::Settled => String::new(),
    };
    if initialized && healthy >= needed && counts.available_replicas >= 1 {
        out.set(kind, Status::True, reason::AVAILABLE, "");
    } else {
        let none = if healthy >= needed {
            ", and no machine is available"
        } else {
            ""
        };
        let text = format!("{healthy} of {of} {what}, at least {needed} required{none}{doing}");
        out.set(kind, Status::False, reason::NOT_AVAILABLE, text);
    }
}

/// Why a pool is not yet what it or its cluster says; `None` when it is, as far as can be seen. A pool that follows the
/// cluster's version keeps its generation when that changes: its own `status.version` tells. One whose control plane is held more
/// than three minors above that version goes nowhere: what there is to do about it the cluster says, by condition `VersionHeld`.
fn behind(cluster: &Cluster, pool: &MachineDeployment) -> Option<String> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let status = pool.status.as_ref()?;
    let follows = pool.spec.template.spec.version.is_none();
    let wanted = &cluster.spec.version;
    let at = status.version.as_ref().filter(|v| *v != wanted);
    if condition::is_true(&status.conditions, kind::ROLLING_OUT) {
        Some(format!("pool {name}"))
    } else if status.observed_generation != pool.metadata.generation {
        Some(format!("pool {name} (its latest change was not seen yet)"))
    } else if let (true, Some(at)) = (follows, at.filter(|_| !is_left_behind(cluster, pool))) {
        Some(format!(
            "pool {name} (at {at}, follows the cluster to {wanted})"
        ))
    } else {
        None
    }
}

/// Whether the skew policy keeps a pool from the version that it follows.
fn is_left_behind(cluster: &Cluster, pool: &MachineDeployment) -> bool {
    let reason = effective_version(cluster, pool).reason;
    matches!(reason, VersionReason::TooOld { .. })
}

/// What a cluster is not yet, the first thing in words; `None` when it is what it says: its latest change was seen, it runs its
/// version (a held one does not count: see condition `VersionHeld`), it is Available, neither it nor one of its pools is rolling
/// out, what kubeadm installed has followed, and its control plane has the machines that it wants.
/// `pools` are all of the cluster's; a pool read later than the cluster may be behind it, so each is looked at again.
pub fn unconverged<'a>(
    cluster: &Cluster,
    pools: impl IntoIterator<Item = &'a MachineDeployment>,
) -> Option<String> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let status = match &cluster.status {
        Some(s) if s.observed_generation == cluster.metadata.generation => s,
        _ => return Some(format!("cluster {name} is not looked at yet")),
    };
    let is = |kind| condition::is_true(&status.conditions, kind);
    let wanted = &cluster.spec.version;
    let ours = cluster.spec.control_plane.external.is_none();
    if ours && !is(kind::VERSION_HELD) && status.version.as_ref() != Some(wanted) {
        let running = status.version.as_deref().unwrap_or("nothing");
        return Some(format!("cluster {name} runs {running}, not yet {wanted}"));
    }
    if let Some(words) = bootstrap::missing(cluster, status) {
        return Some(words);
    }
    for (kind, want) in [(kind::ROLLING_OUT, false), (kind::AVAILABLE, true)] {
        if is(kind) != want {
            let text = condition::get(&status.conditions, kind).map_or("", |c| c.message.as_str());
            return Some(format!("cluster {name}: {kind} is not {want}: {text}"));
        }
    }
    let addons = condition::get(&status.conditions, kind::ADDONS_UP_TO_DATE);
    // What people pinned is theirs; what is only behind belongs to the version.
    if let Some(behind) = addons.filter(|c| c.reason == reason::ADDONS_BEHIND) {
        return Some(format!("cluster {name}: {}", behind.message));
    }
    if let Some(c) = &status.control_plane {
        let counts = [
            (c.up_to_date_replicas, "up to date"),
            (c.available_replicas, "available"),
            (c.replicas, "there"),
        ];
        if let Some((have, what)) = counts.iter().find(|(n, _)| *n != c.desired_replicas) {
            return Some(format!(
                "cluster {name}: {have} of {} control-plane machines are {what}",
                c.desired_replicas
            ));
        }
    }
    let alive = |p: &&MachineDeployment| p.metadata.deletion_timestamp.is_none();
    let mut pools = pools.into_iter().filter(alive);
    pools.find_map(|pool| pool_unconverged(Some(cluster), pool))
}

/// What a pool is not yet, in words; `None` when it is what it and its cluster say.
pub fn pool_unconverged(cluster: Option<&Cluster>, pool: &MachineDeployment) -> Option<String> {
    incomplete(pool)
        .or_else(|| bootstrap::awaited(cluster?, pool))
        .or_else(|| behind(cluster?, pool))
}

/// What stands in the way of the cluster's upgrade, with the remedy, as far as its latest change was seen.
pub fn upgrade_blocked(cluster: &Cluster) -> Option<String> {
    let status = cluster.status.as_ref()?;
    let seen = status.observed_generation == cluster.metadata.generation;
    let blocked = condition::get(&status.conditions, kind::UPGRADE_BLOCKED);
    let blocked = blocked.filter(|c| seen && c.status == "True")?;
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    Some(format!("cluster {name}: {}", blocked.message))
}

/// Whether a cluster with all of its pools is what it says: nothing is [`unconverged`].
pub fn has_converged(cluster: &Cluster, pools: &[MachineDeployment]) -> bool {
    unconverged(cluster, pools).is_none()
}

fn rolling(
    out: &mut Conditions<'_>,
    cluster: &Cluster,
    (counts, provider, unsaved): (Option<&MachineCounts>, Option<String>, &str),
    pools: &[MachineDeployment],
    facts: &ClusterFacts,
    decision: &ControlPlaneDecision,
) {
    let mut what = Vec::new();
    if !decision.outdated.is_empty() {
        what.push(format!(
            "{} control-plane machines",
            decision.outdated.len()
        ));
    }
    let path = facts.path.as_ref().map(|path| format!(" ({path})"));
    let path = path.unwrap_or_default();
    match &decision.version {
        Some(
            VersionStep::Step { wanted, .. }
            | VersionStep::WaitingForWorkers { wanted, .. }
            | VersionStep::UnknownWorkers { wanted, .. },
        ) => {
            what.push(format!("the control plane to {wanted}{path}"));
        }
        Some(VersionStep::Snapshot { next, wanted, .. }) => what.push(format!(
            "the control plane to {wanted}{path}, once a snapshot of etcd is kept from before {next}"
        )),
        _ => {}
    }
    what.extend(provider.filter(|_| what.is_empty()));
    what.extend(
        pools
            .iter()
            .filter(|p| p.metadata.deletion_timestamp.is_none())
            .filter_map(|p| behind(cluster, p)),
    );
    if counts.is_some() {
        let stale: Vec<String> = decision
            .outdated
            .iter()
            .map(|(name, changes)| match changes.first() {
                Some(change) => format!("{name}: {change}"),
                None => name.clone(),
            })
            .collect();
        let kind = kind::CONTROL_PLANE_MACHINES_UP_TO_DATE;
        if stale.is_empty() {
            out.set(kind, Status::True, reason::UP_TO_DATE, "");
        } else {
            out.set(kind, Status::False, reason::NOT_UP_TO_DATE, few(&stale));
        }
    }
    out.flag(
        kind::ROLLING_OUT,
        !what.is_empty(),
        format!("rolling out {}{unsaved}", few(&what)),
    );
}

/// Available: not on its way out, reachable, control plane and workers available, and once it has had its bootstrap manifests.
fn available(out: &mut Conditions<'_>, deleting: bool, bootstrapped: bool) {
    let (mut bad, mut unknown) = (Vec::new(), Vec::new());
    if deleting {
        let text = condition::get(out.list, kind::DELETING).map(|c| c.message.clone());
        bad.push(format!("Deleting: {}", text.unwrap_or_default()));
    }
    let needed = [
        kind::CONTROL_PLANE_AVAILABLE,
        kind::REMOTE_CONNECTION_PROBE,
        kind::WORKERS_AVAILABLE,
    ];
    let bootstrap = (!bootstrapped).then_some(kind::BOOTSTRAP_MANIFESTS_APPLIED);
    for name in needed.into_iter().chain(bootstrap) {
        match condition::get(out.list, name) {
            Some(c) if c.status == "True" => {}
            Some(c) if c.status == "False" => bad.push(format!("{name}: {}", c.message)),
            Some(c) => unknown.push(format!("{name}: {}", c.message)),
            None if name == kind::REMOTE_CONNECTION_PROBE || bootstrap == Some(name) => {}
            None => unknown.push(format!("{name}: not known yet")),
        }
    }
    if !bad.is_empty() {
        bad.append(&mut unknown);
        out.set(
            kind::AVAILABLE,
            Status::False,
            reason::NOT_AVAILABLE,
            bad.join("; "),
        );
    } else if !unknown.is_empty() {
        out.set(
            kind::AVAILABLE,
            Status::Unknown,
            "AvailableUnknown",
            unknown.join("; "),
        );
    } else {
        out.set(kind::AVAILABLE, Status::True, reason::AVAILABLE, "");
    }
}
