//! Drift: what differs from what was declared, though nobody declared it.

use std::fmt;

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
        }
    }
}

/// One thing of a machine that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDrift {
    /// What sort of thing.
    pub kind: DriftKind,
    /// Which: `instance`, `state`, `instanceType`, `image`, `tags`, `kubelet`, or the key of a label or taint.
    pub what: String,
    /// What it should be; nothing where it should not be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What was found; nothing where it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// When it was seen first.
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
                write!(
                    f,
                    "the instance's {} is {found}, it was {wanted}",
                    self.what
                )
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
            DriftKind::Field | DriftKind::Orphaned | DriftKind::Duplicated => {
                write!(f, "{} is {found}, wanted is {wanted}", self.what)
            }
        }
    }
}
