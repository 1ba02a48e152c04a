//! Disruption budgets: how many machines may be out of service at once before Fleetwright takes no more away.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::machine_deployment::count_or_share;

/// How many machines may be out of service at once. Rollouts, remediation and scale-down spend of the same budget; a machine
/// that is out of service for another cause spends too. No machine that is in service is deleted beyond it; budgets of the pool, of
/// its Cluster and of its Fleet hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// Machines out of service at most: a number, or a percentage of all machines that rounds down (but to no less than 1,
    /// unless it is 0%).
    #[schemars(extend("x-kubernetes-validations" = count_or_share()))]
    pub max_unavailable: IntOrString,
}
