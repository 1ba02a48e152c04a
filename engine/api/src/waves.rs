//! Waves and windows of a Fleet: in which order, and when, a revision reaches its clusters.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the wave that takes what no other takes.
pub const REST: &str = "rest";

/// Clusters and pools that a revision reaches together, once all waves before have passed.
///
/// An object belongs to the first wave that selects it. What belongs to no Cluster comes before all waves, what no wave selects comes
/// last, as wave `rest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Its name, for people.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = [{"rule": "self != 'rest'", "message": "rest is the name of the wave that takes what no other takes"}]))]
    pub name: String,
    /// Labels of the Clusters; all when left out. Their pools and health checks go with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<LabelSelector>,
    /// Labels of pools: the wave takes these pools of its Clusters, and nothing else. A pool that comes with its Cluster does not come before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<LabelSelector>,
    /// How long everything in it must have stayed converged before the next wave begins, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub soak_seconds: Option<i32>,
    /// When it may begin; the Fleet's windows when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Vec<Window>,
}

/// A time, again each week, at which changes may begin. What has begun goes on when it closes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Days on which it opens; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub days: Vec<Day>,
    /// Time of the day at which it opens, as `22:00`.
    #[schemars(regex(pattern = r"^([01]\d|2[0-3]):[0-5]\d$"))]
    pub start: String,
    /// How long it stays open, in seconds; at most a week.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: i32,
    /// Time zone of days and start, by its name in the IANA database, such as `Europe/Berlin`; UTC when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// How far a wave has come with what was last changed in it. A wave that is not listed has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveStatus {
    /// The wave's name.
    pub name: String,
    /// Where it stands.
    pub state: WaveState,
    /// Since when.
    pub since: Time,
}

/// Where a wave stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaveState {
    /// Something in it changed and has not converged.
    Rolling,
    /// All of it has converged and is watched for a while.
    Soaking,
}
