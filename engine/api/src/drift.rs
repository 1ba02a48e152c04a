//! Drift: what differs from what was declared, though nobody declared it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What sort of thing differs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum DriftKind {
    /// A field of an API object, that another manager holds.
    Field,
    /// A machine's instance is gone, and we did not delete it.
    InstanceMissing,
    /// A machine's instance is another than it was made.
    InstanceChanged,
    /// An instance carries a cluster's key, and no Machine has it.
    Orphaned,
    /// Several instances carry one Machine's key.
    Duplicated,
    /// The node runs another kubelet than its Machine says.
    Kubelet,
    /// The node has another label than its Machine hands to it.
    Label,
    /// The node has another taint than its Machine hands to it.
    Taint,
    /// Somebody else's control plane runs another version than its Cluster says.
    Version,
}

impl DriftKind {
    /// The wire form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Field => "Field",
            Self::InstanceMissing => "InstanceMissing",
            Self::InstanceChanged => "InstanceChanged",
            Self::Orphaned => "Orphaned",
            Self::Duplicated => "Duplicated",
            Self::Kubelet => "Kubelet",
            Self::Label => "Label",
            Self::Taint => "Taint",
            Self::Version => "Version",
        }
    }
}

/// Settings of an instance that others can change at its provider, but for type and image.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceSettings {
    /// The network or subnet that it is in; `None` where nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its security groups, or what else a provider has of that sort; `None` where nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<BTreeSet<String>>,
    /// Its tags, but for ours and those that the provider puts on by itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// One thing of a machine that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDrift {
    /// What sort of thing.
    pub kind: DriftKind,
    /// Which: `instance`, `state`, `instanceType`, `image`, `network`, `securityGroups`, `tags` (ours), `tags.KEY`, `kubelet`, or the
    /// key of a label or taint.
    pub what: String,
    /// What it should be; nothing where it should not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What was found; nothing where it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// When it was seen first; when the Machine was made, where it was never otherwise.
    pub since: Time,
}

impl fmt::Display for MachineDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.as_deref().unwrap_or("none");
        let found = self.found.as_deref().unwrap_or("none");
        match self.kind {
            DriftKind::InstanceMissing => write!(f, "the provider shows instance {wanted} no more"),
            DriftKind::InstanceChanged if self.what == "state" => {
                write!(f, "the instance is {found}, and nobody here asked for that")
            }
            DriftKind::InstanceChanged => {
                let what = self.what.strip_prefix("tags.");
                let what = what.map_or_else(|| self.what.clone(), |tag| format!("tag {tag}"));
                let wanted = match self.what.as_str() {
                    "instanceType" | "image" => format!("it was {wanted}"),
                    _ => format!("wanted is {wanted}"),
                };
                write!(f, "the instance's {what} is {found}, {wanted}")
            }
            DriftKind::Kubelet => write!(f, "the node runs kubelet {found}, wanted is {wanted}"),
            DriftKind::Label | DriftKind::Taint => {
                let kind = match self.kind {
                    DriftKind::Label => "label",
                    _ => "taint",
                };
                write!(
                    f,
                    "the node's {kind} {} is {found}, wanted is {wanted}",
                    self.what
                )
            }
            // These are no machine's.
            DriftKind::Field | DriftKind::Orphaned | DriftKind::Duplicated | DriftKind::Version => {
                write!(f, "{} is {found}, wanted is {wanted}", self.what)
            }
        }
    }
}
