//! Which set is the new one, and what is written on sets.

use std::collections::BTreeMap;

use fleetwright_api::{MachineDeployment, MachineSet, meta, names};
use jiff::Timestamp;

use super::{Bounds, NewSet, SetUpdate, Turn, arithmetic::Row};
use crate::{
    catalogue::Catalogue,
    compare::compare,
    content::{ANNOTATION_WRITTEN_CONFIG, Content},
};

/// Digits of the hash in a set's name. The first character says the hash's version.
const HASH_DIGITS: usize = 9;

/// The last time that has passed at which older sets became out of date.
pub(super) fn cutoff(pool: &MachineDeployment, now: Timestamp) -> Option<Timestamp> {
    cutoffs(pool).filter(|t| *t <= now).max()
}

/// The first time ahead at which sets will become out of date.
pub(super) fn next_cutoff(pool: &MachineDeployment, now: Timestamp) -> Option<Timestamp> {
    cutoffs(pool).filter(|t| *t > now).min()
}

/// Times at which older sets become out of date: `rollout.after`, `restarted-at`.
fn cutoffs(pool: &MachineDeployment) -> impl Iterator<Item = Timestamp> {
    let after = pool
        .spec
        .rollout
        .as_ref()
        .and_then(|r| r.after.as_ref())
        .map(|t| t.0);
    let restarted = pool
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(meta::ANNOTATION_RESTARTED_AT))
        .and_then(|text| text.parse::<Timestamp>().ok());
    [after, restarted].into_iter().flatten()
}

pub(super) fn spec(set: &MachineSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

pub(super) fn annotation<'a>(set: &'a MachineSet, key: &str) -> Option<&'a str> {
    set.metadata
        .annotations
        .as_ref()?
        .get(key)
        .map(String::as_str)
}

pub(super) fn number<T: std::str::FromStr>(set: &MachineSet, key: &str) -> Option<T> {
    annotation(set, key)?.parse().ok()
}

fn alive(set: &MachineSet) -> bool {
    set.metadata.deletion_timestamp.is_none()
}

/// The set of this content: of several the largest, then the oldest, then the first by name (`sets` is sorted
/// by age and name).
pub(super) fn find_new<'a>(
    sets: &[&'a MachineSet],
    want: &Content,
    cutoff: Option<Timestamp>,
    catalogue: &Catalogue,
) -> Option<&'a MachineSet> {
    let mut found: Option<&MachineSet> = None;
    for set in sets.iter().copied().filter(|s| alive(s)) {
        let stale = match (cutoff, &set.metadata.creation_timestamp) {
            (Some(cutoff), Some(created)) => created.0 < cutoff,
            _ => false,
        };
        if stale
            || !compare(want, &Content::of_set(set), catalogue)
                .replace
                .is_empty()
        {
            continue;
        }
        if found.is_none_or(|f| spec(set) > spec(f)) {
            found = Some(set);
        }
    }
    found
}

/// The set of the highest revision: the pool's current one until there is a new one.
pub(super) fn latest<'a>(sets: &[&'a MachineSet]) -> Option<&'a MachineSet> {
    sets.iter()
        .copied()
        .filter(|s| alive(s))
        .max_by_key(|s| number::<u64>(s, meta::ANNOTATION_ROLLOUT_REVISION))
}

/// The revision of the new set: above all others'. It never goes down.
pub(super) fn revision(sets: &[&MachineSet], current: Option<&MachineSet>) -> u64 {
    let name = current.map(|c| &c.metadata.name);
    let others = sets
        .iter()
        .filter(|s| Some(&s.metadata.name) != name)
        .filter_map(|s| number::<u64>(s, meta::ANNOTATION_ROLLOUT_REVISION))
        .max()
        .unwrap_or(0);
    let own = current.and_then(|c| number::<u64>(c, meta::ANNOTATION_ROLLOUT_REVISION));
    own.filter(|r| *r > others).unwrap_or(others + 1)
}

/// Why `current`, or a set that is to be made, becomes the current one; `None` when it is that already.
pub(super) fn turn(
    sets: &[&MachineSet],
    current: Option<&MachineSet>,
    want: &Content,
    cutoff: Option<Timestamp>,
    revision: u64,
    catalogue: &Catalogue,
) -> Option<Turn> {
    if current.is_some_and(|c| number(c, meta::ANNOTATION_ROLLOUT_REVISION) == Some(revision)) {
        return None;
    }
    let before =
        latest(sets).filter(|l| current.is_none_or(|c| c.metadata.name != l.metadata.name));
    let changes = before
        .map(|before| compare(want, &Content::of_set(before), catalogue).replace)
        .unwrap_or_default();
    let restart = cutoff.filter(|_| before.is_some() && changes.is_empty());
    Some(Turn { changes, restart })
}

/// The numbers of the new set and of the old ones, oldest first. A set on its way out wants none.
pub(super) fn rows(sets: &[&MachineSet], current: Option<&MachineSet>) -> (Option<Row>, Vec<Row>) {
    let mut new = None;
    let mut old = Vec::new();
    for set in sets {
        let status = set.status.as_ref();
        let row = Row {
            name: set.metadata.name.clone().unwrap_or_default(),
            spec: if alive(set) { spec(set) } else { 0 },
            status: status.map_or(0, |s| s.replicas),
            available: status.map_or(0, |s| s.available_replicas),
            max_annotation: number(set, meta::ANNOTATION_MAX_REPLICAS),
            desired_annotation: number(set, meta::ANNOTATION_DESIRED_REPLICAS),
            intent: None,
        };
        if current.is_some_and(|c| c.metadata.name == set.metadata.name) {
            new = Some(row);
        } else {
            old.push(row);
        }
    }
    (new, old)
}

fn sizes(bounds: &Bounds) -> [(String, String); 2] {
    [
        (
            meta::ANNOTATION_DESIRED_REPLICAS.to_owned(),
            bounds.replicas.to_string(),
        ),
        (
            meta::ANNOTATION_MAX_REPLICAS.to_owned(),
            bounds.max_total().to_string(),
        ),
    ]
}

/// A set for `want`, named by its content.
pub(super) fn new_set(
    pool: &MachineDeployment,
    sets: &[&MachineSet],
    want: &Content,
    cutoff: Option<Timestamp>,
    bounds: &Bounds,
    revision: u64,
    catalogue: &Catalogue,
) -> NewSet {
    let pool_name = pool.metadata.name.as_deref().unwrap_or_default();
    let taken = |name: &str| {
        sets.iter()
            .any(|s| s.metadata.name.as_deref() == Some(name))
    };
    let (mut hash, mut name) = (String::new(), String::new());
    // A name is only taken by a set of other content: by a collision, or one on its way out.
    for attempt in 0..=sets.len() {
        hash = hash_of(want, cutoff, attempt);
        name = names::machine_set(pool_name, &hash);
        if !taken(&name) {
            break;
        }
    }
    let because = latest(sets)
        .map(|before| compare(want, &Content::of_set(before), catalogue).replace)
        .unwrap_or_default();
    let mut new = set_of(pool, name, hash, want, revision);
    new.annotations.extend(sizes(bounds));
    NewSet { because, ..new }
}

/// A set that had this name: made again, with as many machines as are known to be its.
pub(crate) fn set_named(
    pool: &MachineDeployment,
    name: &str,
    content: &Content,
    revision: u64,
    machines: usize,
) -> NewSet {
    let hash = name.rsplit_once('-').map_or(name, |(_, hash)| hash);
    let replicas = i32::try_from(machines).unwrap_or(i32::MAX);
    NewSet {
        replicas,
        ..set_of(pool, name.to_owned(), hash.to_owned(), content, revision)
    }
}

fn set_of(
    pool: &MachineDeployment,
    name: String,
    hash: String,
    content: &Content,
    revision: u64,
) -> NewSet {
    let mut annotations = content.set_annotations();
    annotations.insert(
        meta::ANNOTATION_ROLLOUT_REVISION.to_owned(),
        revision.to_string(),
    );
    let pool_name = pool.metadata.name.clone().unwrap_or_default();
    NewSet {
        labels: BTreeMap::from([
            (
                meta::LABEL_CLUSTER_NAME.to_owned(),
                pool.spec.cluster_name.clone(),
            ),
            (meta::LABEL_DEPLOYMENT_NAME.to_owned(), pool_name),
            (meta::LABEL_TEMPLATE_HASH.to_owned(), hash.clone()),
        ]),
        name,
        hash,
        annotations,
        template: content.to_template(),
        written_version: pool.spec.template.spec.version.clone(),
        replicas: 0,
        deletion: pool.spec.deletion.clone(),
        because: Vec::new(),
    }
}

/// Hash of what makes a set another one: for its name only, never compared.
fn hash_of(want: &Content, cutoff: Option<Timestamp>, attempt: usize) -> String {
    let parts = [
        want.spec.version.clone().unwrap_or_default(),
        want.spec.failure_domain.clone().unwrap_or_default(),
        want.spec.provider_config.to_value().to_string(),
        want.written.to_value().to_string(),
        cutoff.map(|t| t.to_string()).unwrap_or_default(),
        attempt.to_string(),
    ];
    format!(
        "a{}",
        names::short_hash(parts.iter().map(String::as_str), HASH_DIGITS)
    )
}

/// How a set is to be updated.
pub(super) struct Update<'a> {
    pub(super) pool: &'a MachineDeployment,
    pub(super) bounds: &'a Bounds,
    pub(super) catalogue: &'a Catalogue,
    /// The wanted content, when it may flow down now.
    pub(super) want: Option<&'a Content>,
    pub(super) revision: u64,
    pub(super) on_delete: bool,
}

impl Update<'_> {
    /// What changes on `set`: its template's in-place fields (those of `providerConfig` on the current set alone,
    /// for an old one's machines may be of another kind), its order of deletion, our annotations.
    pub(super) fn of(
        &self,
        set: &MachineSet,
        is_current: bool,
        matches: bool,
    ) -> Option<SetUpdate> {
        if !alive(set) {
            return None;
        }
        let have = Content::of_set(set);
        let mut content = have.clone();
        if let Some(want) = self.want {
            content = have.with_in_place(want, self.catalogue);
            if !matches {
                content.spec.provider_config = have.spec.provider_config.clone();
                content.written = have.written.clone();
            }
        }
        let changes = compare(&content, &have, self.catalogue).in_place;
        if changes.is_empty() {
            content = have;
        }
        let deletion = if self.want.is_some() {
            self.pool.spec.deletion.clone()
        } else {
            set.spec.deletion.clone()
        };
        let mut annotations: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut put = |key: &str, value: Option<String>| {
            if annotation(set, key) != value.as_deref() {
                annotations.insert(key.to_owned(), value);
            }
        };
        let there = set.status.as_ref().map_or(0, |s| s.replicas);
        if is_current || spec(set).max(there) > 0 {
            for (key, value) in sizes(self.bounds) {
                put(&key, Some(value));
            }
        }
        if is_current {
            put(
                meta::ANNOTATION_ROLLOUT_REVISION,
                Some(self.revision.to_string()),
            );
        }
        let frozen = self.on_delete && !is_current;
        put(
            meta::ANNOTATION_DISABLE_MACHINE_CREATE,
            frozen.then(|| "true".to_owned()),
        );
        if !changes.is_empty() {
            let written = content.written.to_value().to_string();
            put(ANNOTATION_WRITTEN_CONFIG, Some(written));
        }
        (!changes.is_empty() || !annotations.is_empty() || deletion != set.spec.deletion).then(
            || SetUpdate {
                name: set.metadata.name.clone().unwrap_or_default(),
                template: content.to_template(),
                deletion,
                annotations,
                changes,
            },
        )
    }
}

/// Empty sets beyond `limit`, the oldest revisions first.
pub(super) fn cleanup(sets: &[&MachineSet], current: Option<&str>, limit: i32) -> Vec<String> {
    let mut empty: Vec<&&MachineSet> = sets
        .iter()
        .filter(|s| {
            alive(s)
                && s.metadata.name.as_deref() != current
                && spec(s) == 0
                && s.status.as_ref().is_some_and(|st| st.replicas == 0)
        })
        .collect();
    empty.sort_by_key(|s| number::<u64>(s, meta::ANNOTATION_ROLLOUT_REVISION));
    let excess = empty
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    empty
        .into_iter()
        .take(excess)
        .filter_map(|s| s.metadata.name.clone())
        .collect()
}
