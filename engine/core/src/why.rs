//! Why an object is as it is: from the commit and the field over the rule to what it waits for, and since when. Read from what the
//! objects say of themselves, with nothing asked of anybody.

mod check;
mod record;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use fleetwright_api::{
    Cluster, Machine, MachineDeployment, MachineSet,
    condition::{self, Condition, kind, reason},
    meta,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

pub use self::record::{Record, broken_goes, control_plane_goes, short, worker_goes};
use crate::{cluster::is_control_plane, rollout::bounds};

/// Members of an object that are told of one by one; the rest is counted.
const MEMBERS: usize = 5;

/// One thing that is true of an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statement {
    /// In words.
    pub text: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// An object, what is true of it, and those that make it so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is true of it, the cause first and what it waits for last.
    pub says: Vec<Statement>,
    /// Objects that it waits for or that are why it is so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Why>,
}

impl Why {
    fn of(kind: &str, object: &ObjectMeta) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: object.namespace.clone().unwrap_or_default(),
            name: name(object).to_owned(),
            says: Vec::new(),
            because: Vec::new(),
        }
    }

    fn say(&mut self, text: impl Into<String>, since: Option<Timestamp>) {
        let text = text.into();
        self.says.push(Statement { text, since });
    }

    /// As lines for people: an object a line, those that make it so below it.
    pub fn text(&self, now: Timestamp) -> String {
        let mut out = String::new();
        self.lines(now, 0, &mut out);
        out
    }

    fn lines(&self, now: Timestamp, depth: usize, out: &mut String) {
        let says: Vec<String> = self.says.iter().map(|s| s.sentence(now)).collect();
        let place = match depth {
            0 => format!("{}/{}", self.namespace, self.name),
            _ => self.name.clone(),
        };
        let indent = "  ".repeat(depth);
        let _ = writeln!(out, "{indent}{} {place}: {}", self.kind, says.join("; "));
        for other in &self.because {
            other.lines(now, depth + 1, out);
        }
    }
}

impl Statement {
    /// With the time that it has been so.
    pub fn sentence(&self, now: Timestamp) -> String {
        match self.since {
            Some(since) => format!("{}, since {}", self.text, span(since, now)),
            None => self.text.clone(),
        }
    }
}

/// The time between two moments in its largest unit: `12 s`, `4 m`, `3 h`, `5 d`.
pub fn span(since: Timestamp, now: Timestamp) -> String {
    match now.duration_since(since).as_secs().max(0) {
        s @ ..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} m", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

fn name(object: &ObjectMeta) -> &str {
    object.name.as_deref().unwrap_or_default()
}

fn annotation<'a>(object: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    object.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The commit that last changed an object, as people write it.
pub fn commit(object: &ObjectMeta) -> Option<String> {
    annotation(object, meta::ANNOTATION_REVISION).map(short)
}

fn since(condition: &Condition) -> Option<Timestamp> {
    Some(condition.last_transition_time.0)
}

/// The message of a condition, else its reason.
fn message(condition: &Condition) -> &str {
    match condition.message.as_str() {
        "" => &condition.reason,
        message => message,
    }
}

fn conditions(machine: &Machine) -> &[Condition] {
    machine.status.as_ref().map_or(&[], |s| &s.conditions)
}

/// What a pool waits for, and since when; `None` when it is what it says.
pub fn pool_waits(pool: &MachineDeployment) -> Option<Statement> {
    let seen = pool.status.as_ref();
    let Some(status) = seen.filter(|s| s.observed_generation == pool.metadata.generation) else {
        return Some(Statement {
            text: "its latest change is not looked at yet".into(),
            since: None,
        });
    };
    let list = &status.conditions;
    let is = |kind| condition::get(list, kind).filter(|c| c.status == "True");
    let not = |kind| condition::get(list, kind).filter(|c| c.status != "True");
    let paused = is(kind::PAUSED);
    let head = is(kind::DELETING)
        .or_else(|| is(kind::ROLLING_OUT))
        .or_else(|| is(kind::SCALING_DOWN))
        .or_else(|| is(kind::SCALING_UP))
        .or_else(|| is(kind::REMEDIATING))
        .or_else(|| not(kind::AVAILABLE))?;
    let mut text = message(head).to_owned();
    // Machines that are not ready are what a rollout waits for; those on their way out are told with a scale-down.
    if head.type_ != kind::SCALING_DOWN
        && let Some(machines) = not(kind::MACHINES_READY)
    {
        text = format!("{text}; {}", message(machines));
    }
    if paused.is_some() && !text.contains("paused") {
        text.push_str("; paused");
    }
    let since = since(head);
    Some(Statement { text, since })
}

/// What a Cluster waits for beside its pools, and since when; `None` when it is what it says.
pub fn cluster_waits(cluster: &Cluster) -> Option<Statement> {
    let seen = cluster.status.as_ref();
    let Some(status) = seen.filter(|s| s.observed_generation == cluster.metadata.generation) else {
        return Some(Statement {
            text: "its latest change is not looked at yet".into(),
            since: None,
        });
    };
    let list = &status.conditions;
    let is = |kind| condition::get(list, kind).filter(|c| c.status == "True");
    let not = |kind| condition::get(list, kind).filter(|c| c.status != "True");
    let first = is(kind::DELETING)
        .or_else(|| is(kind::VERSION_HELD))
        .or_else(|| is(kind::UPGRADE_BLOCKED))
        .or_else(|| is(kind::ROLLING_OUT))
        .or_else(|| is(kind::SCALING_DOWN))
        .or_else(|| is(kind::SCALING_UP))
        .or_else(|| not(kind::BOOTSTRAP_MANIFESTS_APPLIED))
        .or_else(|| not(kind::AVAILABLE));
    let paused = is(kind::PAUSED);
    let found = first.or(paused)?;
    let mut text = match found.type_.as_str() {
        kind::PAUSED => "paused".to_owned(),
        kind::BOOTSTRAP_MANIFESTS_APPLIED => format!("bootstrap manifests: {}", message(found)),
        _ => message(found).to_owned(),
    };
    if found.type_ == kind::ROLLING_OUT
        && let Some(machines) = not(kind::CONTROL_PLANE_MACHINES_READY)
    {
        text = format!("{text}; {}", message(machines));
    }
    let since = since(found);
    Some(Statement { text, since })
}

/// What is known: a Cluster and everything that belongs to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scene<'a> {
    /// The Cluster; `None` when there is none.
    pub cluster: Option<&'a Cluster>,
    /// Its pools.
    pub pools: &'a [MachineDeployment],
    /// Their sets.
    pub sets: &'a [MachineSet],
    /// All its machines.
    pub machines: &'a [Machine],
}

impl<'a> Scene<'a> {
    fn set_of(&self, machine: &Machine) -> Option<&'a MachineSet> {
        let owner = meta::controller_of(machine)?;
        self.sets
            .iter()
            .find(|s| s.metadata.uid.as_ref() == Some(&owner.uid))
    }

    fn pool_of(&self, set: &MachineSet) -> Option<&'a MachineDeployment> {
        let owner = meta::controller_of(set)?;
        self.pools
            .iter()
            .find(|p| p.metadata.uid.as_ref() == Some(&owner.uid))
    }

    /// The current set of a pool.
    fn current(&self, pool: &MachineDeployment) -> Option<&'a MachineSet> {
        current(pool, self.sets)
    }

    /// Why a machine is as it is.
    pub fn machine(&self, machine: &Machine) -> Why {
        let mut why = self.alone(machine);
        let set = self.set_of(machine);
        let pool = set.and_then(|set| self.pool_of(set));
        if let Some(pool) = pool {
            why.because.push(self.pool_alone(pool));
        } else if let Some(set) = set {
            why.because.push(self.set_alone(set));
        }
        if let Some(cluster) = self.cluster
            && (pool.is_none() || waits_for_control_plane(machine))
        {
            why.because.push(cluster_alone(cluster));
        }
        why
    }

    /// A machine without those that make it so.
    fn alone(&self, machine: &Machine) -> Why {
        let mut why = Why::of("Machine", &machine.metadata);
        let list = conditions(machine);
        if let Some(deleted) = &machine.metadata.deletion_timestamp {
            let told = machine
                .status
                .as_ref()
                .and_then(|s| s.deletion.as_ref()?.because.clone());
            why.say(told.unwrap_or_else(|| self.goes(machine)), None);
            let text = condition::get(list, kind::DELETING).filter(|c| c.status == "True");
            let text = text.map_or("on its way out", message);
            why.say(text, Some(step_began(machine).unwrap_or(deleted.0)));
            return why;
        }
        let set = self.set_of(machine);
        let pool = set.and_then(|set| self.pool_of(set));
        match condition::get(list, kind::UP_TO_DATE).filter(|c| c.status == "False") {
            Some(outdated) => {
                let current = pool.and_then(|pool| self.current(pool));
                let other =
                    current.filter(|c| set.is_some_and(|s| s.metadata.uid != c.metadata.uid));
                let clause = match other.and_then(|o| Record::on(&o.metadata)) {
                    Some(record) => record.clause(),
                    None => self.because_of(machine, outdated),
                };
                why.say(format!("to be replaced because {clause}"), since(outdated));
            }
            None => {
                let record = set
                    .and_then(|o| Record::on(&o.metadata))
                    .or_else(|| Record::on(&machine.metadata));
                if let Some(record) = record {
                    why.say(format!("made because {}", record.clause()), None);
                }
            }
        }
        match trouble(machine) {
            Some((text, since)) => why.say(text, since),
            None => {
                let node = machine.status.as_ref().and_then(|s| s.node_ref.as_ref());
                let node = node.map_or("?", |n| n.name.as_str());
                let text = format!("runs as node {node} and waits for nothing");
                why.say(text, condition::get(list, kind::AVAILABLE).and_then(since));
            }
        }
        why
    }

    /// What differs, and the commit of whoever says what is wanted.
    fn because_of(&self, machine: &Machine, outdated: &Condition) -> String {
        let owner = match self.set_of(machine).and_then(|s| self.pool_of(s)) {
            Some(pool) => Some(&pool.metadata),
            None => self.cluster.map(|c| &c.metadata),
        };
        let text = message(outdated);
        match owner.and_then(commit) {
            Some(commit) => format!("{text} in {commit}"),
            None => text.to_owned(),
        }
    }

    /// Why a machine goes that nobody noted a reason for.
    pub fn goes(&self, machine: &Machine) -> String {
        let set = self.set_of(machine);
        let pool = set.and_then(|set| self.pool_of(set));
        let owners = [
            self.cluster.map(|c| ("Cluster", &c.metadata)),
            pool.map(|p| ("pool", &p.metadata)),
            set.map(|s| ("set", &s.metadata)),
        ];
        let leaves = |(_, owner): &(&str, &ObjectMeta)| owner.deletion_timestamp.is_some();
        if let Some((what, owner)) = owners.into_iter().flatten().find(leaves) {
            return format!("removed because {what} {} is on its way out", name(owner));
        }
        if set.is_none() && !is_control_plane(machine) && meta::controller_of(machine).is_some() {
            return "removed because its set is gone".into();
        }
        "deleted by somebody else: no decision of Fleetwright is known".into()
    }

    /// Why a set is as it is.
    pub fn set(&self, set: &MachineSet) -> Why {
        let mut why = self.set_alone(set);
        let own = |m: &&Machine| {
            meta::controller_of(*m).is_some_and(|o| Some(&o.uid) == set.metadata.uid.as_ref())
        };
        self.members(&mut why, self.machines.iter().filter(own));
        if let Some(pool) = self.pool_of(set) {
            why.because.push(self.pool_alone(pool));
        }
        why
    }

    fn set_alone(&self, set: &MachineSet) -> Why {
        let mut why = Why::of("MachineSet", &set.metadata);
        let revision = annotation(&set.metadata, meta::ANNOTATION_ROLLOUT_REVISION);
        let revision = revision.map_or_else(String::new, |n| format!("revision {n}, "));
        let made = Record::on(&set.metadata).map_or_else(
            || "made".to_owned(),
            |r| format!("made because {}", r.clause()),
        );
        why.say(format!("{revision}{made}"), None);
        if let Some(pool) = self.pool_of(set) {
            let current = self
                .current(pool)
                .is_some_and(|c| c.metadata.uid == set.metadata.uid);
            let text = if current {
                "the current set of pool"
            } else {
                "an old set of pool"
            };
            why.say(format!("{text} {}", name(&pool.metadata)), None);
        }
        let list = set.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let found = [
            kind::DELETING,
            kind::SCALING_DOWN,
            kind::SCALING_UP,
            kind::REMEDIATING,
            kind::PAUSED,
        ]
        .into_iter()
        .filter_map(|kind| condition::get(list, kind))
        .find(|c| c.status == "True");
        match found {
            Some(found) => why.say(message(found), since(found)),
            None => why.say(
                format!(
                    "has the {} machines that it wants",
                    set.spec.replicas.unwrap_or(1)
                ),
                None,
            ),
        }
        why
    }

    /// Why a pool is as it is.
    pub fn pool(&self, pool: &MachineDeployment) -> Why {
        let mut why = self.pool_alone(pool);
        let sets = self.sets.iter().filter(|s| {
            self.pool_of(s)
                .is_some_and(|p| p.metadata.uid == pool.metadata.uid)
        });
        let uids: Vec<_> = sets.filter_map(|s| s.metadata.uid.as_ref()).collect();
        let own = |m: &&Machine| meta::controller_of(*m).is_some_and(|o| uids.contains(&&o.uid));
        self.members(&mut why, self.machines.iter().filter(own));
        why
    }

    fn pool_alone(&self, pool: &MachineDeployment) -> Why {
        let mut why = Why::of("MachineDeployment", &pool.metadata);
        if let Some(set) = self.current(pool) {
            let revision = annotation(&set.metadata, meta::ANNOTATION_ROLLOUT_REVISION);
            let revision = revision.unwrap_or("?");
            let record = Record::on(&set.metadata)
                .map_or_else(String::new, |r| format!(" because {}", r.clause()));
            why.say(format!("at revision {revision}{record}"), None);
        }
        let status = pool.status.as_ref();
        let rolling = status.is_some_and(|s| condition::is_true(&s.conditions, kind::ROLLING_OUT));
        if let (true, Ok(bounds)) = (rolling, bounds(pool)) {
            let (surge, unavailable) = (bounds.surge, bounds.unavailable);
            why.say(format!("it may have {surge} machines more and {unavailable} fewer available than {} while it rolls", bounds.replicas), None);
        }
        match pool_waits(pool) {
            Some(waits) => why.says.push(waits),
            None => why.say(
                format!(
                    "has the {} machines that it wants, and waits for nothing",
                    pool.spec.replicas.unwrap_or(1)
                ),
                None,
            ),
        }
        why
    }

    /// Why a Cluster is as it is.
    pub fn whole(&self, cluster: &Cluster) -> Why {
        let mut why = cluster_alone(cluster);
        self.members(
            &mut why,
            self.machines.iter().filter(|m| is_control_plane(m)),
        );
        let pools = self.pools.iter().filter(|p| pool_waits(p).is_some());
        why.because.extend(pools.map(|pool| self.pool_alone(pool)));
        why
    }

    /// Those of an object's machines that are not what they should be: on their way out first.
    fn members<'m>(&self, why: &mut Why, machines: impl Iterator<Item = &'m Machine>) {
        let mut all: Vec<(bool, &Machine)> = machines
            .filter(|m| {
                m.metadata.deletion_timestamp.is_some() || trouble(m).is_some() || is_outdated(m)
            })
            .map(|m| (m.metadata.deletion_timestamp.is_none(), m))
            .collect();
        all.sort_by_key(|(stays, m)| (*stays, trouble(m).is_none(), name(&m.metadata)));
        let rest = all.len().saturating_sub(MEMBERS);
        why.because
            .extend(all.iter().take(MEMBERS).map(|(_, m)| self.alone(m)));
        if rest > 0 {
            why.say(format!("{rest} more machines like those below"), None);
        }
    }
}

/// The current set of a pool: the one of its revision.
pub fn current<'a>(pool: &MachineDeployment, sets: &'a [MachineSet]) -> Option<&'a MachineSet> {
    let revision = annotation(&pool.metadata, meta::ANNOTATION_ROLLOUT_REVISION)?;
    sets.iter().find(|set| {
        meta::controller_of(*set).is_some_and(|o| Some(&o.uid) == pool.metadata.uid.as_ref())
            && annotation(&set.metadata, meta::ANNOTATION_ROLLOUT_REVISION) == Some(revision)
    })
}

fn cluster_alone(cluster: &Cluster) -> Why {
    let mut why = Why::of("Cluster", &cluster.metadata);
    let wanted = &cluster.spec.version;
    let status = cluster.status.as_ref();
    let running = status.and_then(|s| s.version.as_deref());
    let commit = commit(&cluster.metadata);
    let commit = commit.map_or_else(String::new, |c| format!(", as {c} says"));
    match running {
        Some(running) if running == wanted => why.say(format!("runs {running}{commit}"), None),
        Some(running) => why.say(
            format!("runs {running} and is to run {wanted}{commit}"),
            None,
        ),
        None => why.say(format!("is to run {wanted}{commit}"), None),
    }
    match cluster_waits(cluster) {
        Some(waits) => why.says.push(waits),
        None => why.say("waits for nothing", None),
    }
    why
}

fn is_outdated(machine: &Machine) -> bool {
    condition::is_false(conditions(machine), kind::UP_TO_DATE)
}

fn waits_for_control_plane(machine: &Machine) -> bool {
    machine.spec.provider_id.is_none() && machine.metadata.deletion_timestamp.is_none()
}

/// What keeps a machine from being available, and since when.
fn trouble(machine: &Machine) -> Option<(String, Option<Timestamp>)> {
    let list = conditions(machine);
    if list.is_empty() {
        return Some(("nobody looked at it yet".into(), None));
    }
    if let Some(paused) = condition::get(list, kind::PAUSED).filter(|c| c.status == "True") {
        return Some(("paused".into(), since(paused)));
    }
    let broken = [
        kind::OWNER_REMEDIATED,
        kind::HEALTH_CHECK_SUCCEEDED,
        kind::INFRASTRUCTURE_READY,
        kind::NODE_HEALTHY,
        kind::READY,
    ];
    let bad = |c: &&Condition| {
        c.status == "False" || (c.status == "Unknown" && c.type_ != kind::HEALTH_CHECK_SUCCEEDED)
    };
    let found = broken
        .into_iter()
        .filter_map(|kind| condition::get(list, kind))
        .find(bad);
    if let Some(found) = found {
        return Some((message(found).to_owned(), since(found)));
    }
    let available = condition::get(list, kind::AVAILABLE)?;
    let waits = available.reason == reason::WAITING_FOR_MIN_READY_SECONDS;
    waits.then(|| (message(available).to_owned(), since(available)))
}

/// When the step of its deletion that a machine is in began.
fn step_began(machine: &Machine) -> Option<Timestamp> {
    let status = machine.status.as_ref()?;
    let begun = status.deletion.as_ref()?;
    let deleting = condition::get(&status.conditions, kind::DELETING)?;
    let at = match deleting.reason.as_str() {
        reason::WAITING_FOR_PRE_DRAIN_HOOK => &begun.wait_for_pre_drain_hook_start_time,
        reason::DRAINING_NODE => &begun.node_drain_start_time,
        reason::WAITING_FOR_VOLUME_DETACH => &begun.wait_for_node_volume_detach_start_time,
        reason::WAITING_FOR_PRE_TERMINATE_HOOK => &begun.wait_for_pre_terminate_hook_start_time,
        reason::DELETING_NODE => &begun.node_deletion_start_time,
        _ => return None,
    };
    at.as_ref().map(|t| t.0)
}
