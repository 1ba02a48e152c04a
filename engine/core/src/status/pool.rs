//! Statuses of sets and pools.

use std::{borrow::Borrow, collections::BTreeMap};

use fleetwright_api::{
    Machine, MachineDeployment, MachineSet,
    condition::{self, Condition, Status, kind, reason},
    machine_deployment::{MachineDeploymentStatus, PoolPhase},
    machine_set::MachineSetStatus,
    meta,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Conditions, all_machines, few, refusal, refused};
use crate::{
    health,
    machine_set::SetWait,
    rollout::{RolloutDecision, RolloutWait, bounds},
};

/// A machine that is younger and says nothing yet of whether it is up to date is left out: nobody has looked at it yet, and the
/// condition would change with each machine that is made.
const YOUNG: SignedDuration = SignedDuration::from_secs(10);
/// A machine that is on its way out for longer is named as stuck.
const STUCK: SignedDuration = SignedDuration::from_mins(15);
/// Between how much a set scales up and why it cannot.
const BUT: &str = ", but ";

fn conditions(machine: &Machine) -> &[Condition] {
    machine
        .status
        .as_ref()
        .map_or(&[], |s| s.conditions.as_slice())
}

fn named(machine: &Machine) -> (&str, &[Condition]) {
    (
        machine.metadata.name.as_deref().unwrap_or_default(),
        conditions(machine),
    )
}

/// When a machine that says nothing of whether it is up to date is no longer left out for that.
fn grown_up(machine: &Machine) -> Option<Timestamp> {
    let said = condition::get(conditions(machine), kind::UP_TO_DATE).is_some();
    let created = machine.metadata.creation_timestamp.as_ref()?.0;
    (!said).then(|| created.checked_add(YOUNG).ok()).flatten()
}

/// MachinesUpToDate of a set or a pool.
fn all_up_to_date(out: &mut Conditions<'_>, machines: &[&Machine]) {
    let now = out.now;
    let looked_at = |m: &&&Machine| grown_up(m).is_none_or(|at| at <= now);
    all_machines(
        out,
        kind::MACHINES_UP_TO_DATE,
        kind::UP_TO_DATE,
        machines.iter().filter(looked_at).copied().map(named),
    );
}

/// Those that are not on their way out.
fn alive<'a>(machines: &'a [&Machine]) -> impl Iterator<Item = &'a Machine> {
    let stays = |m: &&Machine| m.metadata.deletion_timestamp.is_none();
    machines.iter().copied().filter(stays)
}

/// Those of which a condition is true. One on its way out serves nobody for long, whatever it still says.
fn count(machines: &[&Machine], kind: &str) -> i32 {
    let n = alive(machines)
        .filter(|m| condition::is_true(conditions(m), kind))
        .count();
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A selector's text form: what is written, or the label that `key` stands for.
pub(super) fn selector(written: Option<&LabelSelector>, key: &str, name: Option<&str>) -> String {
    let default = BTreeMap::from([(key.to_owned(), name.unwrap_or_default().to_owned())]);
    let labels = written
        .and_then(|s| s.match_labels.as_ref())
        .filter(|l| !l.is_empty())
        .unwrap_or(&default);
    labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// The status of a set from its machines (those on their way out included), from why it makes none, and from the budget that
/// keeps it from scaling down (`held`).
pub fn machine_set(
    set: &MachineSet,
    machines: &[impl Borrow<Machine>],
    waiting: Option<&SetWait>,
    held: Option<&str>,
    now: Timestamp,
) -> MachineSetStatus {
    let all: Vec<&Machine> = machines.iter().map(Borrow::borrow).collect();
    let old = set.status.as_ref();
    let mut list = old.map(|s| s.conditions.clone()).unwrap_or_default();
    let replicas = i32::try_from(all.len()).unwrap_or(i32::MAX);
    let want = set.spec.replicas.unwrap_or(1);
    let deleting = set.metadata.deletion_timestamp.is_some();
    let mut out = Conditions {
        list: &mut list,
        generation: set.metadata.generation,
        now,
    };
    let but: Vec<String> = waiting.map(ToString::to_string).into_iter().collect();
    let held = Held {
        but: &but,
        refusal: refusal(alive(&all)).or_else(|| waiting.and_then(SetWait::refusal)),
        budget: held,
    };
    scaling(
        &mut out,
        replicas,
        if deleting { 0 } else { want },
        &all,
        held,
    );
    remediating(&mut out, &all);
    all_machines(
        &mut out,
        kind::MACHINES_READY,
        kind::READY,
        all.iter().copied().map(named),
    );
    all_up_to_date(&mut out, &all);
    out.flag(kind::DELETING, deleting, "");
    out.flag(kind::PAUSED, meta::is_paused(set), "");
    MachineSetStatus {
        observed_generation: set.metadata.generation,
        selector: Some(selector(
            set.spec.selector.as_ref(),
            meta::LABEL_SET_NAME,
            set.metadata.name.as_deref(),
        )),
        replicas,
        ready_replicas: count(&all, kind::READY),
        available_replicas: count(&all, kind::AVAILABLE),
        up_to_date_replicas: count(&all, kind::UP_TO_DATE),
        conditions: list,
    }
}

/// Brings the counts in a set's status up to its machines (those on their way out included), so that a pool's decision does not go
/// by a status that lags behind what the set has just made.
pub fn recount(set: &mut MachineSet, machines: &[impl Borrow<Machine>]) {
    let all: Vec<&Machine> = machines.iter().map(Borrow::borrow).collect();
    let status = set.status.get_or_insert_with(MachineSetStatus::default);
    status.replicas = i32::try_from(all.len()).unwrap_or(i32::MAX);
    status.ready_replicas = count(&all, kind::READY);
    status.available_replicas = count(&all, kind::AVAILABLE);
}

/// Remediating: machines are broken, with what is done about each.
fn remediating(out: &mut Conditions<'_>, machines: &[&Machine]) {
    let broken: Vec<String> = machines
        .iter()
        .filter(|m| health::is_broken(m))
        .map(|m| {
            let (name, list) = named(m);
            let says = |kind| condition::get(list, kind).map_or("", |c| c.message.as_str());
            let (why, then) = (
                says(kind::HEALTH_CHECK_SUCCEEDED),
                says(kind::OWNER_REMEDIATED),
            );
            format!("{name}: {why} ({then})")
        })
        .collect();
    out.flag(kind::REMEDIATING, !broken.is_empty(), few(&broken));
}

/// Which budget keeps one of the sets from scaling down, in words.
fn held_by_budget(sets: &[MachineSet]) -> Option<&str> {
    sets.iter()
        .filter_map(|s| condition::get(&s.status.as_ref()?.conditions, kind::SCALING_DOWN))
        .find(|c| c.reason == reason::DISRUPTION_BUDGET)
        .and_then(|c| c.message.rsplit("; ").next())
}

/// What holds scaling up or down.
struct Held<'a> {
    /// Why no machines are made.
    but: &'a [String],
    /// What the provider refuses: reason and message.
    refusal: Option<(&'a str, String)>,
    /// The budget that allows no machine to go.
    budget: Option<&'a str>,
}

/// ScalingUp with what holds it up, or with what the provider refuses; ScalingDown with the machines that are on their way
/// out: first those that are stuck.
fn scaling(out: &mut Conditions<'_>, have: i32, want: i32, machines: &[&Machine], held: Held<'_>) {
    let mut text = format!("scaling up from {have} to {want} machines");
    if !held.but.is_empty() {
        text.push_str(&format!("{BUT}{}", few(held.but)));
    }
    match held.refusal.filter(|_| want > 0) {
        Some((reason, text)) => out.set(kind::SCALING_UP, Status::True, reason, text),
        None => out.flag(kind::SCALING_UP, have < want, text),
    }
    let mut leaving: Vec<(bool, String)> = machines
        .iter()
        .filter_map(|m| Some((*m, m.metadata.deletion_timestamp.as_ref()?.0)))
        .map(|(m, since)| {
            let (name, list) = named(m);
            let why = condition::get(list, kind::DELETING).map_or("", |c| c.message.as_str());
            let stuck = out.now.duration_since(since) > STUCK;
            let mut text = name.to_owned();
            if stuck {
                text.push_str(" in deletion since more than 15m");
            }
            if !why.is_empty() {
                text.push_str(&format!(": {why}"));
            }
            (!stuck, text)
        })
        .collect();
    leaving.sort();
    let leaving: Vec<String> = leaving.into_iter().map(|(_, text)| text).collect();
    let mut text = format!("scaling down from {have} to {want} machines");
    if !leaving.is_empty() {
        text.push_str(&format!(" ({})", few(&leaving)));
    }
    match held.budget.filter(|_| have > want) {
        Some(held) => out.set(
            kind::SCALING_DOWN,
            Status::True,
            reason::DISRUPTION_BUDGET,
            format!("{text}; {held}"),
        ),
        None => out.flag(kind::SCALING_DOWN, have > want, text),
    }
}

/// When statuses change though nothing else does: the next machine on its way out counts as stuck, or one that nobody has looked at is
/// no longer young.
pub fn next_turn(machines: &[impl Borrow<Machine>], now: Timestamp) -> Option<Timestamp> {
    let all = || machines.iter().map(Borrow::borrow);
    let stuck = all()
        .filter_map(|m| m.metadata.deletion_timestamp.as_ref())
        .filter_map(|t| t.0.checked_add(STUCK).ok())
        .filter(|at| *at >= now);
    let grown_up = all().filter_map(grown_up).filter(|at| *at > now);
    stuck.chain(grown_up).min()
}

/// What the current set cannot be given for good, though it has no machine to say so.
fn of_set<'a>(sets: &'a [MachineSet], current: Option<&str>) -> Option<(&'a str, String)> {
    let set = sets
        .iter()
        .find(|s| s.metadata.name.as_deref() == current)?;
    let conditions = &set.status.as_ref()?.conditions;
    let said = condition::get(conditions, kind::SCALING_UP)?;
    let why = refused(conditions)?;
    Some((said.reason.as_str(), why.to_owned()))
}

/// What sets say of why they make no machines, each thing once.
fn held_up(sets: &[MachineSet]) -> Vec<String> {
    let mut all: Vec<String> = sets
        .iter()
        .filter_map(|set| condition::get(&set.status.as_ref()?.conditions, kind::SCALING_UP))
        .filter(|c| c.status == "True")
        .filter_map(|c| c.message.split_once(BUT).map(|(_, why)| why.to_owned()))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// The status of a pool from its machines (those on their way out included) and from what was decided for it.
/// Counts come from the machines themselves, not from statuses of sets, which may lag behind. Up to date are the machines of the
/// decision's current set: none of them while that is still to be made. Without a decision, as when its bounds cannot be read, or
/// without a current set, the version stays and the machines say it themselves.
pub fn machine_deployment(
    pool: &MachineDeployment,
    sets: &[MachineSet],
    machines: &[impl Borrow<Machine>],
    decision: Option<&RolloutDecision>,
    now: Timestamp,
) -> MachineDeploymentStatus {
    let all: Vec<&Machine> = machines.iter().map(Borrow::borrow).collect();
    let old = pool.status.as_ref();
    let mut list = old.map(|s| s.conditions.clone()).unwrap_or_default();
    let want = pool.spec.replicas.unwrap_or(1).max(0);
    let replicas = i32::try_from(all.len()).unwrap_or(i32::MAX);
    let deleting = pool.metadata.deletion_timestamp.is_some();
    let ready = count(&all, kind::READY);
    let available = count(&all, kind::AVAILABLE);
    let outdated: Vec<&Machine> = all
        .iter()
        .copied()
        .filter(|m| !is_up_to_date(m, decision))
        .collect();
    let up_to_date = replicas - i32::try_from(outdated.len()).unwrap_or(i32::MAX);
    let mut out = Conditions {
        list: &mut list,
        generation: pool.metadata.generation,
        now,
    };

    match bounds(pool) {
        Ok(bounds) if sets.is_empty() && want > 0 => out.set(
            kind::AVAILABLE,
            Status::False,
            "WaitingForAvailableReplicasSet",
            waiting(decision).unwrap_or_else(|| {
                format!(
                    "0 available replicas, at least {} required",
                    bounds.min_available()
                )
            }),
        ),
        Ok(bounds) => {
            let enough = available >= bounds.min_available();
            let text = format!(
                "{available} available replicas, at least {} required (maxUnavailable is {}, replicas is {want})",
                bounds.min_available(),
                bounds.unavailable
            );
            out.set(
                kind::AVAILABLE,
                enough.into(),
                if enough {
                    reason::AVAILABLE
                } else {
                    reason::NOT_AVAILABLE
                },
                if enough { String::new() } else { text },
            );
        }
        Err(error) => out.set(
            kind::AVAILABLE,
            Status::Unknown,
            reason::INTERNAL_ERROR,
            error.to_string(),
        ),
    }
    let budget = held_by_budget(sets);
    rolling(&mut out, &outdated, &all, decision, budget);
    // What the pool no longer wants may be refused.
    let current = decision.and_then(|d| d.current.as_deref());
    let held = Held {
        but: &held_up(sets),
        refusal: refusal(alive(&all).filter(|m| {
            meta::controller_of(*m).is_some_and(|owner| Some(owner.name.as_str()) == current)
        }))
        .or_else(|| of_set(sets, current)),
        budget,
    };
    scaling(
        &mut out,
        replicas,
        if deleting { 0 } else { want },
        &all,
        held,
    );
    remediating(&mut out, &all);
    all_machines(
        &mut out,
        kind::MACHINES_READY,
        kind::READY,
        all.iter().copied().map(named),
    );
    all_up_to_date(&mut out, &all);
    out.flag(kind::DELETING, deleting, "");
    out.flag(kind::PAUSED, meta::is_paused(pool), "");
    let phase = if replicas < want {
        PoolPhase::ScalingUp
    } else if replicas > want {
        PoolPhase::ScalingDown
    } else if available < want || up_to_date < want {
        PoolPhase::ScalingUp
    } else {
        PoolPhase::Running
    };
    MachineDeploymentStatus {
        observed_generation: pool.metadata.generation,
        selector: Some(selector(
            pool.spec.selector.as_ref(),
            meta::LABEL_DEPLOYMENT_NAME,
            pool.metadata.name.as_deref(),
        )),
        replicas,
        ready_replicas: ready,
        available_replicas: available,
        up_to_date_replicas: up_to_date,
        phase: Some(phase),
        // A version is the pool's once its set is there: until then it is decided from what it has.
        version: decision
            .filter(|d| d.create.is_none())
            .and_then(|d| d.version.clone())
            .or_else(|| old.and_then(|s| s.version.clone())),
        conditions: list,
    }
}

/// Whether a machine counts as up to date.
fn is_up_to_date(machine: &Machine, decision: Option<&RolloutDecision>) -> bool {
    let says = || condition::is_true(conditions(machine), kind::UP_TO_DATE);
    let Some(decision) = decision.filter(|d| d.current.is_some()) else {
        return says();
    };
    let of_current = meta::controller_of(machine)
        .is_some_and(|owner| Some(owner.name.as_str()) == decision.current.as_deref());
    of_current && (!decision.held || says())
}

/// RollingOut: there are machines that are not what the pool wants, or the pool has not come to the version that it is to have.
fn rolling(
    out: &mut Conditions<'_>,
    outdated: &[&Machine],
    all: &[&Machine],
    decision: Option<&RolloutDecision>,
    held: Option<&str>,
) {
    let mut reasons: Vec<String> = outdated
        .iter()
        .filter_map(|m| condition::get(conditions(m), kind::UP_TO_DATE))
        .filter(|c| c.status == "False")
        .map(|c| c.message.clone())
        .collect();
    reasons.sort();
    reasons.dedup();
    let mut text = Vec::new();
    if !outdated.is_empty() {
        let n = outdated.len();
        text.push(if reasons.is_empty() {
            format!("rolling out {n} not up-to-date machines")
        } else {
            format!(
                "rolling out {n} not up-to-date machines ({})",
                few(&reasons)
            )
        });
    }
    let version = decision.is_some_and(|d| matches!(d.waiting, Some(RolloutWait::Version(_))));
    let behind = !all.is_empty() && (version || decision.is_some_and(|d| d.held));
    text.extend(waiting(decision));
    text.extend(held.map(ToOwned::to_owned));
    out.flag(
        kind::ROLLING_OUT,
        !outdated.is_empty() || behind,
        text.join("; "),
    );
}

/// What a pool is not yet, in words; `None` when its latest change was seen, and as many machines as wanted are there, up to
/// date and available, and no others. A pool that follows its cluster's version is judged by [`super::pool_unconverged`] with it.
pub fn incomplete(pool: &MachineDeployment) -> Option<String> {
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    let want = pool.spec.replicas.unwrap_or(1).max(0);
    let status = match &pool.status {
        Some(s) if s.observed_generation == pool.metadata.generation => s,
        _ => return Some(format!("pool {name} is not looked at yet")),
    };
    let counts = [
        (status.up_to_date_replicas, "up to date"),
        (status.available_replicas, "available"),
        (status.replicas, "there"),
    ];
    if let Some((have, what)) = counts.iter().find(|(have, _)| *have != want) {
        return Some(format!("pool {name}: {have} of {want} machines are {what}"));
    }
    let rolling = condition::get(&status.conditions, kind::ROLLING_OUT)?;
    (rolling.status == "True").then(|| format!("pool {name}: {}", rolling.message))
}

/// Whether a pool is what it says, see [`incomplete`].
pub fn is_complete(pool: &MachineDeployment) -> bool {
    incomplete(pool).is_none()
}

fn waiting(decision: Option<&RolloutDecision>) -> Option<String> {
    decision?.waiting.as_ref().map(ToString::to_string)
}
