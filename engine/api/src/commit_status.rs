//! CommitStatus: the durable outbox of commit statuses. Internal.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fleet::ForgeType;

/// One status of one commit: wanted in spec, posted in status.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fleetwright.dev",
    version = "v1alpha1",
    kind = "CommitStatus",
    plural = "commitstatuses",
    category = "fleetwright",
    namespaced,
    status = "CommitStatusStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn = r#"{"name":"Repository","type":"string","jsonPath":".spec.repository","description":"Repository"}"#,
    printcolumn = r#"{"name":"Commit","type":"string","jsonPath":".spec.sha","description":"Commit"}"#,
    printcolumn = r#"{"name":"Wanted","type":"string","jsonPath":".spec.wanted.state","description":"Wanted state"}"#,
    printcolumn = r#"{"name":"Posted","type":"string","jsonPath":".status.posted.state","description":"Posted state"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct CommitStatusSpec {
    /// Name of the Fleet in the same namespace: says the forge and its credentials.
    pub fleet: String,
    /// Kind of forge.
    #[serde(default)]
    pub forge: ForgeType,
    /// The repository, as the Fleet's `forge.repository` names it; or its URL where a note is wanted.
    pub repository: String,
    /// Whether it is a Git note that is wanted, of the repository that the Fleet follows, and no status at a forge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub note: bool,
    /// Full commit id.
    pub sha: String,
    /// Branch or tag on which the commit was seen. GitLab shows the status in that branch's pipeline, and takes the first branch
    /// that holds the commit when this is left out.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Context, such as `fleetwright/default/default.default`.
    pub context: String,
    /// What the commit's status is to be.
    pub wanted: StatusContent,
    /// Rises with each newer observation; an older one never replaces a newer one.
    #[serde(default)]
    pub observation: i64,
}

/// A commit status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusContent {
    /// The state.
    pub state: CommitState,
    /// One sentence.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// Where to read more.
    #[serde(default, rename = "targetURL", skip_serializing_if = "Option::is_none")]
    pub target_url: Option<String>,
}

/// State of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CommitState {
    /// Not ended.
    #[default]
    Pending,
    /// Ended well.
    Success,
    /// Ended badly, by the repository's fault.
    Failure,
    /// Ended badly, by ours.
    Error,
}

impl CommitState {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
        }
    }
}

/// What became of the wish.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitStatusStatus {
    /// What was posted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posted: Option<StatusContent>,
    /// Observation that was posted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posted_observation: Option<i64>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posted_at: Option<Time>,
    /// Failed tries since the last success.
    #[serde(default)]
    pub tries: i32,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
