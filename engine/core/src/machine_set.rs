//! What a set does next: machines to make, to delete, to change in place.

mod ownership;
mod preflight;

use std::{borrow::Borrow, collections::BTreeMap, fmt};

use fleetwright_api::{
    Machine, MachineSet, condition,
    machine::{MachineSpec, MachineTemplateSpec},
    machine_set::DeletionOrder,
    meta, names,
};
use jiff::Timestamp;

use crate::{
    catalogue::Catalogue,
    compare::{FieldChange, compare},
    content::Content,
    health,
};

pub use self::{
    ownership::{Ownership, ownership},
    preflight::{PreflightFailure, preflight},
};

mod remediation;
#[cfg(test)]
mod tests;

pub use self::remediation::{Remediation, RemediationView, Said, Surge, remediate};

/// A machine to be made. The instance key is not part of it: it is drawn when the Machine is made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMachine {
    /// Its name.
    pub name: String,
    /// Its ordinal: never used again, so the counter is raised above it before the Machine is made.
    pub ordinal: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its spec, without instance key and providerID.
    pub spec: MachineSpec,
}

/// A machine to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDelete {
    /// The machine.
    pub name: String,
    /// Why this one.
    pub because: Because,
}

/// Why a machine is chosen, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Because {
    /// It is on its way out already.
    Deleting,
    /// Somebody marked it.
    Marked,
    /// It has no node, or is not healthy.
    Unhealthy,
    /// By the set's order.
    Order,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleting => "already on its way out",
            Self::Marked => "marked for deletion",
            Self::Unhealthy => "not healthy",
            Self::Order => "next by the set's order of deletion",
        })
    }
}

/// A machine whose fields change while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineUpdate {
    /// The machine.
    pub name: String,
    /// Labels to put, and to take away (`None`).
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations to put, and to take away (`None`).
    pub annotations: BTreeMap<String, Option<String>>,
    /// Its whole content from now on; the replacing fields are those it has.
    pub content: MachineTemplateSpec,
    /// What changes.
    pub changes: Vec<FieldChange>,
}

/// Why a set makes no machine though it has too few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetWait {
    /// The set or its pool is paused.
    Paused,
    /// The set makes no machines (OnDelete: an old set only shrinks).
    CreateDisabled,
    /// The set is on its way out.
    Deleting,
    /// The selector does not select what the template makes: each machine would be let go at once, and another one made.
    Selector,
    /// Checks before machines are made do not pass.
    Preflight(Vec<PreflightFailure>),
}

impl SetWait {
    /// The reason that conditions give for it, and words, where no retry mends it.
    pub(crate) fn refusal(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Selector => Some((condition::reason::TERMINAL, self.to_string())),
            Self::Preflight(failures) => failures.iter().find_map(|failure| match failure {
                PreflightFailure::Unlisted(hold) => hold.refusal(),
                _ => None,
            }),
            Self::Paused | Self::CreateDisabled | Self::Deleting => None,
        }
    }
}

impl fmt::Display for SetWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused"),
            Self::CreateDisabled => f.write_str("this set makes no more machines"),
            Self::Deleting => f.write_str("the set is on its way out"),
            Self::Selector => f.write_str(
                "selector does not select what the template makes: write its labels into template.metadata.labels, or leave selector out",
            ),
            Self::Preflight(failures) => {
                let words: Vec<String> = failures.iter().map(ToString::to_string).collect();
                f.write_str(&words.join("; "))
            }
        }
    }
}

/// What a set does next. Nothing in it means: nothing to do.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct SetDecision {
    /// Machines to be made, in order.
    pub create: Vec<NewMachine>,
    /// Machines to be deleted.
    pub delete: Vec<MachineDelete>,
    /// Machines whose fields change.
    pub update: Vec<MachineUpdate>,
    /// What the pool's counter is to be raised to before the first of `create` is made.
    pub next_ordinal: u64,
    /// Why machines are missing all the same.
    pub waiting: Option<SetWait>,
}

impl SetDecision {
    /// Whether there is nothing to do.
    pub fn is_settled(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty() && self.update.is_empty()
    }

    /// Makes no machine while checks do not pass; what goes and what changes in place is not held up.
    pub fn hold(&mut self, failures: Vec<PreflightFailure>) {
        if !failures.is_empty() && !self.create.is_empty() {
            self.create.clear();
            self.waiting = Some(SetWait::Preflight(failures));
        }
    }
}

/// What `set` does next, given all its machines (those on their way out included, which count until they are gone).
/// `next_ordinal` is the counter on its pool (or on itself, without a pool); it is never below an ordinal in use. `extra` machines
/// are there beyond the wanted ones (see [`Remediation::extra`]).
pub fn decide(
    set: &MachineSet,
    machines: &[impl Borrow<Machine>],
    next_ordinal: u64,
    extra: usize,
    catalogue: &Catalogue,
    now: Timestamp,
) -> SetDecision {
    let mut out = scale_to(set, machines, next_ordinal, extra, now);
    if !matches!(out.waiting, Some(SetWait::Paused | SetWait::Deleting)) {
        out.update = updates(set, machines, catalogue);
        let goes = |name: &String| out.delete.iter().any(|d| d.name == *name);
        out.update.retain(|u| !goes(&u.name));
    }
    out
}

/// The part of [`decide`] that is about the number of machines.
pub fn scale(
    set: &MachineSet,
    machines: &[impl Borrow<Machine>],
    next_ordinal: u64,
    now: Timestamp,
) -> SetDecision {
    scale_to(set, machines, next_ordinal, 0, now)
}

fn scale_to(
    set: &MachineSet,
    machines: &[impl Borrow<Machine>],
    next_ordinal: u64,
    extra: usize,
    now: Timestamp,
) -> SetDecision {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let floor = machines
        .iter()
        .filter_map(|m| ordinal(m.borrow()))
        .map(|o| o + 1)
        .max();
    let mut out = SetDecision {
        next_ordinal: next_ordinal.max(floor.unwrap_or(0)),
        ..SetDecision::default()
    };
    let want = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0) + extra;
    if meta::is_paused(set) {
        out.waiting = Some(SetWait::Paused);
        return out;
    }
    if set.metadata.deletion_timestamp.is_some() {
        out.waiting = Some(SetWait::Deleting);
        return out;
    }
    let content = Content::of_set(set);
    let disabled = set
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key(meta::ANNOTATION_DISABLE_MACHINE_CREATE));
    if machines.len() < want && disabled {
        out.waiting = Some(SetWait::CreateDisabled);
    } else {
        let there = machines.len();
        #[cfg(feature = "seeded-bugs")]
        let there = match fleetwright_api::bugs::on("i3-surge-forgets-what-goes") {
            true => machines
                .iter()
                .map(Borrow::borrow)
                .filter(|m: &&Machine| m.metadata.deletion_timestamp.is_none())
                .count(),
            false => there,
        };
        for _ in there..want {
            let new = new_machine(set, name, out.next_ordinal, &content);
            if !ownership::keeps(set, &new.labels) {
                out.waiting = Some(SetWait::Selector);
                break;
            }
            out.next_ordinal += 1;
            out.create.push(new);
        }
    }
    let order = set
        .spec
        .deletion
        .as_ref()
        .and_then(|d| d.order)
        .unwrap_or_default();
    let excess = machines.len().saturating_sub(want);
    out.delete = choose(machines, excess, order, seed(set), now)
        .into_iter()
        .filter(|(_, because)| *because != Because::Deleting)
        .map(|(machine, because)| MachineDelete {
            name: machine.metadata.name.clone().unwrap_or_default(),
            because,
        })
        .collect();
    out
}

/// The part of [`decide`] that changes machines while they run.
pub fn updates(
    set: &MachineSet,
    machines: &[impl Borrow<Machine>],
    catalogue: &Catalogue,
) -> Vec<MachineUpdate> {
    let content = Content::of_set(set);
    machines
        .iter()
        .map(Borrow::borrow)
        .filter(|m: &&Machine| m.metadata.deletion_timestamp.is_none())
        .filter_map(|m| update(m, &content, catalogue))
        .collect()
}

/// What makes one pool's `Random` order another than the next one's: the uid of the pool, or of a set without one.
fn seed(set: &MachineSet) -> &str {
    let pool = meta::controller_of(set).map(|o| o.uid.as_str());
    pool.or(set.metadata.uid.as_deref()).unwrap_or_default()
}

/// The machines of which `count` go first, with the reason. `Random` shuffles by `seed` and the machines' names: whatever is known
/// of both, a plan too, tells the choice beforehand. Other ties go by name.
pub fn choose<'a>(
    machines: &'a [impl Borrow<Machine>],
    count: usize,
    order: DeletionOrder,
    seed: &str,
    now: Timestamp,
) -> Vec<(&'a Machine, Because)> {
    let mut all: Vec<(&Machine, Because)> = machines
        .iter()
        .map(Borrow::borrow)
        .map(|m| (m, because(m)))
        .collect();
    let age = |m: &Machine| {
        m.metadata
            .creation_timestamp
            .as_ref()
            .map(|t| now.duration_since(t.0).as_secs().max(0))
    };
    all.sort_by_cached_key(|(m, because)| {
        let name = m.metadata.name.as_deref().unwrap_or_default();
        let (by_age, by_chance) = match order {
            _ if count == 0 || *because != Because::Order => (0, String::new()),
            DeletionOrder::Random => (0, names::short_hash(["goes", seed, name], 16)),
            DeletionOrder::Oldest => (-age(m).unwrap_or(0), String::new()),
            DeletionOrder::Newest => (age(m).unwrap_or(0), String::new()),
        };
        // The pool gives up what is not available: then that goes, and not one that is.
        let available = *because == Because::Order
            && m.status
                .as_ref()
                .is_some_and(|s| condition::is_true(&s.conditions, condition::kind::AVAILABLE));
        (*because, available, by_age, by_chance, name)
    });
    all.truncate(count);
    all
}

fn because(machine: &Machine) -> Because {
    if machine.metadata.deletion_timestamp.is_some() {
        Because::Deleting
    } else if is_marked(machine) {
        Because::Marked
    } else if is_unhealthy(machine) || health::is_broken(machine) {
        Because::Unhealthy
    } else {
        Because::Order
    }
}

/// Whether somebody marked the machine to go first.
pub fn is_marked(machine: &Machine) -> bool {
    machine
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key(meta::ANNOTATION_DELETE_MACHINE))
}

/// Whether the machine has no node or is known not to be healthy; Unknown is not known.
pub fn is_unhealthy(machine: &Machine) -> bool {
    machine.status.as_ref().is_none_or(|s| {
        s.node_ref.is_none()
            || condition::is_false(&s.conditions, condition::kind::NODE_HEALTHY)
            || health::is_failing(machine)
    })
}

/// The ordinal in a machine's name.
pub fn ordinal(machine: &Machine) -> Option<u64> {
    ordinal_in(machine.metadata.name.as_deref()?)
}

/// The ordinal in the name of a machine.
pub fn ordinal_in(name: &str) -> Option<u64> {
    name.rsplit_once('-')?.1.parse().ok()
}

pub(crate) fn new_machine(
    set: &MachineSet,
    name: &str,
    ordinal: u64,
    content: &Content,
) -> NewMachine {
    let mut labels = content.machine_labels();
    labels.insert(
        meta::LABEL_CLUSTER_NAME.to_owned(),
        set.spec.cluster_name.clone(),
    );
    labels.insert(meta::LABEL_SET_NAME.to_owned(), name.to_owned());
    for key in [meta::LABEL_DEPLOYMENT_NAME, meta::LABEL_TEMPLATE_HASH] {
        if let Some(value) = set.metadata.labels.as_ref().and_then(|l| l.get(key)) {
            labels.insert(key.to_owned(), value.clone());
        }
    }
    NewMachine {
        name: names::machine(name, ordinal),
        ordinal,
        labels,
        annotations: content.machine_annotations(),
        spec: MachineSpec {
            cluster_name: set.spec.cluster_name.clone(),
            content: content.spec.clone(),
            provider_id: None,
            instance_key: None,
        },
    }
}

/// What changes on a running machine so that it has every in-place field of `want`; `None` when nothing does.
pub fn update(machine: &Machine, want: &Content, catalogue: &Catalogue) -> Option<MachineUpdate> {
    let have = Content::of_machine(machine);
    let changes = compare(want, &have, catalogue).in_place;
    if changes.is_empty() {
        return None;
    }
    let new = have.with_in_place(want, catalogue);
    Some(MachineUpdate {
        name: machine.metadata.name.clone().unwrap_or_default(),
        labels: patch(
            &have.metadata.labels,
            machine.metadata.labels.as_ref(),
            new.machine_labels(),
        ),
        annotations: patch(
            &have.machine_annotations(),
            machine.metadata.annotations.as_ref(),
            new.machine_annotations(),
        ),
        content: new.spec,
        changes,
    })
}

/// What to put and to take away: `ours` is what was put before, `live` is there.
fn patch(
    ours: &BTreeMap<String, String>,
    live: Option<&BTreeMap<String, String>>,
    want: BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let mut out: BTreeMap<String, Option<String>> = ours
        .keys()
        .filter(|k| !want.contains_key(*k))
        .map(|k| (k.clone(), None))
        .collect();
    #[cfg(feature = "seeded-bugs")]
    if fleetwright_api::bugs::on("end-labels-stay") {
        out.clear();
    }
    for (key, value) in want {
        if live.and_then(|l| l.get(&key)) != Some(&value) {
            out.insert(key, Some(value));
        }
    }
    out
}
