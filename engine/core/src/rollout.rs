//! What a pool does next: which set is the new one, how many machines each set is to have, what goes.

pub mod arithmetic;
pub mod bounds;
mod exceptions;
mod history;
mod sets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use fleetwright_api::{
    Cluster, MachineDeployment, MachineSet,
    machine::MachineTemplate,
    machine_deployment::{DEFAULT_REVISION_HISTORY_LIMIT, StrategyType},
    machine_set::{MachineSetSpec, SetDeletion},
    meta,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use self::arithmetic::Row;
pub(crate) use self::sets::set_named;
pub use self::{
    arithmetic::ScaleReason,
    bounds::{Bounds, BoundsError, bounds},
    exceptions::Exception,
    history::{Revision, Undo, UndoError, history, undo},
};
use crate::{
    catalogue::Catalogue,
    compare::FieldChange,
    content::Content,
    pool_version::{PoolVersion, VersionReason},
    why::Record,
};

/// A set to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSet {
    /// Its name, made from the pool's and its content.
    pub name: String,
    /// Value of [`meta::LABEL_TEMPLATE_HASH`] on the set and its machines.
    pub hash: String,
    /// Labels of the set itself (cluster, pool, hash).
    pub labels: BTreeMap<String, String>,
    /// Annotations of the set itself (revision, desired and highest replicas, config as written).
    pub annotations: BTreeMap<String, String>,
    /// What it makes machines of; the version is the effective one.
    pub template: MachineTemplate,
    /// The version as the pool writes it.
    pub written_version: Option<String>,
    /// Machines that it starts with.
    pub replicas: i32,
    /// Which machines go first.
    pub deletion: Option<SetDeletion>,
    /// What of the pool's wish differs from the set that was new until now; empty for a first set.
    pub because: Vec<FieldChange>,
}

impl NewSet {
    /// The set as it is stored.
    pub fn to_set(&self, pool: &MachineDeployment) -> MachineSet {
        let selector = [meta::LABEL_DEPLOYMENT_NAME, meta::LABEL_TEMPLATE_HASH]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), self.labels.get(key)?.clone())))
            .collect();
        let spec = MachineSetSpec {
            cluster_name: pool.spec.cluster_name.clone(),
            replicas: Some(self.replicas),
            selector: Some(LabelSelector {
                match_labels: Some(selector),
                match_expressions: None,
            }),
            template: self.template.clone(),
            written_version: self.written_version.clone(),
            deletion: self.deletion.clone(),
        };
        let mut set = MachineSet::new(&self.name, spec);
        set.metadata.namespace.clone_from(&pool.metadata.namespace);
        set.metadata.labels = Some(self.labels.clone());
        set.metadata.annotations = Some(self.annotations.clone());
        set.metadata.owner_references = meta::controller_owner(pool).map(|owner| vec![owner]);
        set
    }
}

/// A set that gets another number of machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetScale {
    /// The set.
    pub name: String,
    /// Its `spec.replicas` now.
    pub from: i32,
    /// Its `spec.replicas` from now on.
    pub to: i32,
    /// Why.
    pub reason: ScaleReason,
}

/// A set whose own fields change while its machines live on.
#[derive(Clone, Debug, PartialEq)]
pub struct SetUpdate {
    /// The set.
    pub name: String,
    /// The whole template from now on (its replacing fields are those it has).
    pub template: MachineTemplate,
    /// Which machines go first.
    pub deletion: Option<SetDeletion>,
    /// Annotations to put (`Some`) or to take away (`None`).
    pub annotations: BTreeMap<String, Option<String>>,
    /// What of the template changes.
    pub changes: Vec<FieldChange>,
}

/// A set becomes the current one: it is made, or an old one is what the pool wants again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// What of the pool's wish differs from the set that was current until now; empty for a first set and for a restart.
    pub changes: Vec<FieldChange>,
    /// The time before which machines are replaced, where nothing else is why.
    pub restart: Option<Timestamp>,
}

/// Why a pool does not do what its spec says yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutWait {
    /// The pool is paused: it scales, but does not roll.
    Paused,
    /// Its Cluster, of this name, is not there.
    NoCluster(String),
    /// Its version is not settled; a changed `providerConfig` waits too, so that the pool rolls once.
    Version(VersionReason),
}

impl fmt::Display for RolloutWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused => f.write_str("paused"),
            Self::NoCluster(name) => write!(
                f,
                "there is no Cluster {name} in this namespace: make it, or a pool for another one"
            ),
            Self::Version(reason) => reason.fmt(f),
        }
    }
}

/// What a pool does next. Nothing in it means: nothing to do.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct RolloutDecision {
    /// Name of the set that new machines belong to (the one of `create`, if that is set).
    pub current: Option<String>,
    /// The pool's effective version, for its status.
    pub version: Option<String>,
    /// Revision of the current set: for the pool's annotation [`meta::ANNOTATION_ROLLOUT_REVISION`].
    pub revision: u64,
    /// Why the current set becomes the current one, when it does so now.
    pub turn: Option<Turn>,
    /// A set to be made.
    pub create: Option<NewSet>,
    /// Sets whose own fields change.
    pub updates: Vec<SetUpdate>,
    /// Sets that get another number of machines.
    pub scale: Vec<SetScale>,
    /// Empty sets beyond the history limit, to be deleted.
    pub cleanup: Vec<String>,
    /// Why something does not happen yet.
    pub waiting: Option<RolloutWait>,
    /// Whether `current` is not what the pool wants: a set for that is made only when `waiting` is over.
    pub held: bool,
    /// Why the pool may be outside its bounds for now.
    pub exceptions: BTreeSet<Exception>,
    /// When there will be something to decide though nothing happens: `rollout.after` or a restart that lies ahead.
    pub next: Option<Timestamp>,
}

impl RolloutDecision {
    /// Has the current set tell why it becomes the current one, if it does so now: with what is written of it anyway.
    pub fn record(&mut self, pool: &MachineDeployment, cluster: Option<&Cluster>) {
        let Some(turn) = &self.turn else { return };
        let record = Record::of_set(turn, pool, cluster).write();
        let key = meta::ANNOTATION_MADE_BECAUSE.to_owned();
        let current = self.current.as_ref();
        if let Some(new) = &mut self.create {
            new.annotations.insert(key, record);
        } else if let Some(update) = self.updates.iter_mut().find(|u| Some(&u.name) == current) {
            update.annotations.insert(key, Some(record));
        }
    }

    /// Whether there is nothing to do.
    pub fn is_settled(&self) -> bool {
        self.create.is_none()
            && self.updates.is_empty()
            && self.scale.is_empty()
            && self.cleanup.is_empty()
    }
}

/// What `pool` does next, given all its sets (those on their way out included).
///
/// # Errors
/// When the bounds of the rollout cannot be read.
pub fn decide(
    pool: &MachineDeployment,
    sets: &[MachineSet],
    version: &PoolVersion,
    catalogue: &Catalogue,
    now: Timestamp,
) -> Result<RolloutDecision, BoundsError> {
    let bounds = bounds(pool)?;
    let mut sets: Vec<&MachineSet> = sets.iter().collect();
    sets.sort_by_key(|s| {
        (
            s.metadata.creation_timestamp.clone().map(|t| t.0),
            s.metadata.name.clone(),
        )
    });
    let mut out = RolloutDecision {
        version: version.version.as_ref().map(ToString::to_string),
        ..RolloutDecision::default()
    };
    if pool.metadata.deletion_timestamp.is_some() {
        return Ok(out);
    }
    let paused = meta::is_paused(pool);
    let roll_now = has_annotation(pool, meta::ANNOTATION_ROLL_NOW);
    let want = version
        .version
        .as_ref()
        .map(|v| Content::of_pool(pool, v, catalogue));

    // Which set is the new one.
    let cutoff = sets::cutoff(pool, now);
    out.next = sets::next_cutoff(pool, now);
    let mut current = want
        .as_ref()
        .and_then(|w| sets::find_new(&sets, w, cutoff, catalogue));
    if version.is_pending() || want.is_none() {
        out.waiting = Some(RolloutWait::Version(version.reason.clone()));
    }
    if current.is_none() && (paused || want.is_none() || (version.is_pending() && !roll_now)) {
        // No new set now: the newest goes on as the current one, and scaling with it.
        current = sets::latest(&sets);
        out.held = current.is_some();
        if paused && !sets.is_empty() {
            out.waiting = Some(RolloutWait::Paused);
        }
        if current.is_none() && (want.is_none() || paused) {
            return Ok(out);
        }
    }

    out.revision = sets::revision(&sets, current);
    let (create, rows) = match (current, &want) {
        (None, Some(want)) => {
            let new = sets::new_set(pool, &sets, want, cutoff, &bounds, out.revision, catalogue);
            (Some(new), sets::rows(&sets, None))
        }
        _ => (None, sets::rows(&sets, current)),
    };
    if let Some(want) = &want {
        out.turn = sets::turn(&sets, current, want, cutoff, out.revision, catalogue);
    }
    out.current = create
        .as_ref()
        .map(|n| n.name.clone())
        .or_else(|| current.and_then(|s| s.metadata.name.clone()));

    let (mut new, mut old) = rows;
    if create.is_some() {
        new = Some(Row {
            name: out.current.clone().unwrap_or_default(),
            ..Row::default()
        });
    }
    if let Some(new) = new.as_mut() {
        let strategy = strategy(pool);
        if paused {
            arithmetic::proportional(&bounds, new, &mut old);
        } else {
            match strategy {
                StrategyType::RollingUpdate => arithmetic::rolling_update(&bounds, new, &mut old),
                StrategyType::OnDelete => arithmetic::on_delete(&bounds, new, &mut old),
            }
        }
        out.exceptions = exceptions::met(&bounds, new, &old);
        for row in old.iter().chain([&*new]) {
            if let Some((to, reason)) = &row.intent
                && *to != row.spec
                && !(create.is_some() && row.name == new.name)
            {
                out.scale.push(SetScale {
                    name: row.name.clone(),
                    from: row.spec,
                    to: *to,
                    reason: reason.clone(),
                });
            }
        }
        out.create = create.map(|mut set| {
            set.replicas = new.target();
            set
        });
        let on_delete = strategy == StrategyType::OnDelete && !paused;
        let update = sets::Update {
            pool,
            bounds: &bounds,
            catalogue,
            want: want.as_ref().filter(|_| !paused),
            revision: out.revision,
            on_delete,
        };
        for set in &sets {
            let is_current = set.metadata.name.as_deref() == Some(new.name.as_str());
            let matches = is_current && !out.held;
            out.updates.extend(update.of(set, is_current, matches));
        }
    }
    let limit = pool
        .spec
        .revision_history_limit
        .unwrap_or(DEFAULT_REVISION_HISTORY_LIMIT);
    if !paused {
        out.cleanup = sets::cleanup(&sets, out.current.as_deref(), limit);
    }
    Ok(out)
}

fn strategy(pool: &MachineDeployment) -> StrategyType {
    pool.spec
        .rollout
        .as_ref()
        .and_then(|r| r.strategy.as_ref())
        .and_then(|s| s.kind)
        .unwrap_or_default()
}

fn has_annotation(pool: &MachineDeployment, key: &str) -> bool {
    pool.metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key(key))
}
