//! Revisions of a pool, as its sets keep them, and the way back to one.

use fleetwright_api::{MachineDeployment, MachineSet, machine::MachineTemplate, meta};
use jiff::Timestamp;

use super::sets::{annotation, number, spec};
use crate::{
    catalogue::Catalogue,
    compare::{FieldChange, compare},
    content::Content,
    why::Record,
};

/// A revision of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// The set that has it.
    pub set: String,
    /// Whether it is the current one.
    pub current: bool,
    /// Machines that its set wants.
    pub wanted: i32,
    /// Machines of its set that there are.
    pub replicas: i32,
    /// Machines of its set that are available.
    pub available: i32,
    /// When its set was made.
    pub created: Option<Timestamp>,
    /// What of its content differs from the revision before it that is still kept.
    pub changes: Vec<FieldChange>,
    /// What it was made for, where that is known.
    pub record: Option<Record>,
    /// What its machines are made of: the version is the effective one, the `providerConfig` as it was written.
    pub template: MachineTemplate,
}

/// All revisions that a pool's sets keep, the oldest first.
pub fn history(sets: &[MachineSet], catalogue: &Catalogue) -> Vec<Revision> {
    let mut sets: Vec<(u64, &MachineSet)> = sets
        .iter()
        .filter_map(|set| Some((number(set, meta::ANNOTATION_ROLLOUT_REVISION)?, set)))
        .collect();
    sets.sort_by_key(|(revision, set)| (*revision, set.metadata.name.clone()));
    let last = sets.last().map(|(revision, _)| *revision);
    let mut before: Option<Content> = None;
    let mut out = Vec::new();
    for (revision, set) in sets {
        let content = Content::of_set(set);
        let status = set.status.as_ref();
        let mut template = content.to_template();
        template.spec.provider_config = content.written.clone();
        out.push(Revision {
            revision,
            set: set.metadata.name.clone().unwrap_or_default(),
            current: Some(revision) == last,
            wanted: spec(set),
            replicas: status.map_or(0, |s| s.replicas),
            available: status.map_or(0, |s| s.available_replicas),
            created: set.metadata.creation_timestamp.as_ref().map(|t| t.0),
            changes: before
                .map(|before| compare(&content, &before, catalogue).replace)
                .unwrap_or_default(),
            record: annotation(set, meta::ANNOTATION_MADE_BECAUSE).and_then(Record::read),
            template,
        });
        before = Some(content);
    }
    out
}

/// The way back to a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Undo {
    /// The revision.
    pub revision: u64,
    /// The pool's template from then on: fields that replace machines as they were written then, all others as they are.
    pub template: MachineTemplate,
    /// What that changes of the template as the pool writes it now.
    pub changes: Vec<FieldChange>,
    /// The commit that brought what is undone, where one alone did.
    pub commit: Option<String>,
}

/// Why there is no way back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UndoError {
    /// Nothing is kept of a revision of this number.
    #[error("there is no revision {wanted}: there are {}", list(.kept))]
    NoRevision {
        /// The number that was asked for.
        wanted: u64,
        /// Those that there are.
        kept: Vec<u64>,
    },
    /// There is one revision only.
    #[error("there is no earlier revision to go back to")]
    NoEarlier,
    /// The pool says already what it said then.
    #[error("revision {0} differs in nothing that the pool writes")]
    Same(u64),
    /// The pool follows its Cluster's version, and nothing else differs.
    #[error(
        "revision {revision} differs in the version alone, and the pool follows its Cluster's: set spec.version of Cluster {cluster} back to {version}"
    )]
    Follows {
        /// The revision.
        revision: u64,
        /// The Cluster.
        cluster: String,
        /// The version of the revision.
        version: String,
    },
}

fn list(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    if words.is_empty() {
        "none".into()
    } else {
        words.join(", ")
    }
}

/// The way back to revision `to`, or to the one before the current one.
///
/// # Errors
/// [`UndoError`], when there is none.
pub fn undo(
    pool: &MachineDeployment,
    sets: &[MachineSet],
    to: Option<u64>,
    catalogue: &Catalogue,
) -> Result<Undo, UndoError> {
    let all = history(sets, catalogue);
    let found = match to {
        Some(wanted) => all
            .iter()
            .position(|r| r.revision == wanted)
            .ok_or_else(|| UndoError::NoRevision {
                wanted,
                kept: all.iter().map(|r| r.revision).collect(),
            }),
        None => all.len().checked_sub(2).ok_or(UndoError::NoEarlier),
    }?;
    let revision = all[found].revision;
    let Some(set) = sets
        .iter()
        .find(|s| s.metadata.name.as_ref() == Some(&all[found].set))
    else {
        return Err(UndoError::NoEarlier);
    };
    // Compared as written: what the pool leaves to a default stays left to it.
    let written = |content: Content, version: Option<String>| {
        let mut content = content;
        content.spec.provider_config = content.written.clone();
        content.spec.version = version;
        content
    };
    let template = &pool.spec.template;
    let now = Content {
        metadata: template.metadata.clone(),
        spec: template.spec.clone(),
        written: template.spec.provider_config.clone(),
    };
    let then = written(Content::of_set(set), set.spec.written_version.clone());
    let back = then.with_in_place(&now, catalogue);
    let changes = compare(&back, &now, catalogue).replace;
    if changes.is_empty() {
        let version = set.spec.template.spec.version.clone();
        let differs = all
            .last()
            .is_some_and(|c| c.template.spec.version != version);
        return Err(match version {
            Some(version) if differs && template.spec.version.is_none() => UndoError::Follows {
                revision,
                cluster: pool.spec.cluster_name.clone(),
                version,
            },
            _ => UndoError::Same(revision),
        });
    }
    let alone = found + 2 == all.len();
    Ok(Undo {
        revision,
        template: back.to_template(),
        changes,
        commit: all
            .last()
            .filter(|_| alone)
            .and_then(|current| current.record.as_ref()?.commit.clone()),
    })
}
