//! What keeps a plan, or a part of it, from being carried out, as far as that is known beforehand.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Key;
use crate::{
    control_plane::VersionStep, pool_version::VersionReason, rollout::RolloutWait,
    upgrade::Blocker, waves::Hold,
};

/// Why something of a plan does not happen, or not yet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum BlockerKind {
    /// A disruption budget lets no machine go now, or fewer at once than the plan takes.
    Budget,
    /// The control plane does not come to the version that a pool waits for.
    ControlPlane,
    /// A setting cannot be read.
    Invalid,
    /// A provider has no image that machines would be made from, or no such instance type.
    MissingImage,
    /// A version on the way is not allowed, or there is none.
    MissingVersion,
    /// Somebody paused the object.
    Paused,
    /// An account may not have as many instances as there would be.
    Quota,
    /// Workers would be too far behind the control plane.
    Skew,
    /// The control plane runs a newer minor version, and never goes back.
    VersionHeld,
    /// A wave before has not passed.
    Wave,
    /// The window in which changes may begin is not open.
    Window,
}

impl fmt::Display for BlockerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that is in the way of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanBlocker {
    /// What it is.
    pub kind: BlockerKind,
    /// What it holds up: a Cluster's control plane (a paused Cluster: all of it) or a MachineDeployment; for a quota the ProviderAccount.
    /// `None` where it holds up a wave, the deletions or the whole Fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Key>,
    /// The wave that waits, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// Why, and what to do.
    pub reason: String,
    /// What the repository asks for and cannot have: nothing of this goes on before it is changed, or there is what it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistake: Option<Mistake>,
    /// When it ends by itself, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<Timestamp>,
}

/// A field of a declared object that asks for what there is none of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mistake {
    /// The Cluster or the MachineDeployment.
    pub object: Key,
    /// Path of the field, such as `spec.template.spec.providerConfig.image`.
    pub field: String,
    /// Where it is written, or what would hold it if it is not; `None` where the plan's files do not declare the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<FilePlace>,
}

/// A place in a file of the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilePlace {
    /// Path of the file, relative to the followed path.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl PlanBlocker {
    pub(super) fn of(kind: BlockerKind, object: Key, reason: impl Into<String>) -> Self {
        Self {
            kind,
            object: Some(object),
            wave: None,
            reason: reason.into(),
            mistake: None,
            until: None,
        }
    }

    /// That an object is paused; `what` of it does not happen.
    pub(super) fn paused(object: Key, what: &str) -> Self {
        let kind = object.kind.to_lowercase();
        let (namespace, name) = (&object.namespace, &object.name);
        let reason = format!(
            "paused, and {what}: `fleetwright rollout resume {kind}/{name} --namespace {namespace}` lets it go on"
        );
        Self::of(BlockerKind::Paused, object, reason)
    }

    /// What a wave, the deletions or the whole Fleet wait for.
    pub(super) fn held(hold: &Hold) -> Self {
        Self {
            kind: hold.kind,
            object: None,
            wave: hold.wave.clone(),
            reason: match hold.kind == BlockerKind::Window && hold.until.is_none() {
                true => hold.to_string(),
                false => format!("{hold}; it begins by itself"),
            },
            mistake: None,
            until: hold.until,
        }
    }

    /// Whether it holds up waves rather than machines.
    pub(super) fn is_of_waves(&self) -> bool {
        matches!(self.kind, BlockerKind::Wave | BlockerKind::Window)
    }
}

/// What a step of a control plane that goes no further is held up by; `None` of one that goes on.
pub(super) fn of_step(step: &VersionStep) -> Option<BlockerKind> {
    match step {
        VersionStep::Wanted(_) | VersionStep::Step { .. } | VersionStep::Snapshot { .. } => None,
        VersionStep::WaitingForWorkers { .. } | VersionStep::UnknownWorkers { .. } => {
            Some(BlockerKind::Skew)
        }
        VersionStep::Held { .. } => Some(BlockerKind::VersionHeld),
        VersionStep::Blocked { blocker, .. } => Some(match blocker {
            Blocker::NotAllowed { .. } | Blocker::Gap { .. } | Blocker::Major { .. } => {
                BlockerKind::MissingVersion
            }
            Blocker::Pinned { .. } => BlockerKind::Skew,
            Blocker::Image { .. } => BlockerKind::MissingImage,
            Blocker::Snapshot { .. } | Blocker::Addons { .. } => BlockerKind::ControlPlane,
        }),
    }
}

/// What a pool that waits is held up by.
pub(super) fn of_wait(wait: &RolloutWait) -> BlockerKind {
    match wait {
        RolloutWait::Paused => BlockerKind::Paused,
        RolloutWait::NoCluster(_) => BlockerKind::Invalid,
        RolloutWait::Version(reason) => of_version(reason).unwrap_or(BlockerKind::ControlPlane),
    }
}

/// What is wrong with the version that a pool asks for; `None` of one that it has or waits for.
pub(super) fn of_version(reason: &VersionReason) -> Option<BlockerKind> {
    match reason {
        VersionReason::TooOld { .. } => Some(BlockerKind::Skew),
        VersionReason::Unreadable { .. } => Some(BlockerKind::Invalid),
        VersionReason::Own
        | VersionReason::FollowsCluster
        | VersionReason::WaitingForControlPlane { .. }
        | VersionReason::WaitingForWorkerStep { .. } => None,
    }
}
