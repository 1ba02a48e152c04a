//! A plan as a document for programs: what `fleetwright plan -o json` prints. Its form is kept: fields are added to it, none goes or changes
//! its meaning without another `apiVersion`. docs/plan.md tells of it, docs/plan.schema.json is its JSON Schema.

use fleetwright_api::API_VERSION;
use fleetwright_core::plan::{Plan, Policy};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machines;

/// Its kind.
pub const KIND: &str = "Plan";

/// A plan with what it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "A plan of Fleetwright")]
pub struct Document {
    /// Version of this form.
    #[schemars(extend("const" = "fleetwright.dev/v1alpha1"))]
    pub api_version: String,
    /// What it is.
    #[schemars(extend("const" = "Plan"))]
    pub kind: String,
    /// Namespace and name of the Fleet, with `/` between.
    pub fleet: String,
    /// What was planned: a commit, or `dir:` and the tree of a directory.
    pub revision: String,
    /// Git tree id of the files.
    pub tree: String,
    /// SHA-256 of the tree, the Fleet's policy and what is decided, in hexadecimal digits: plans that do the same have the same.
    pub digest: String,
    /// The plan in numbers.
    pub summary: Summary,
    /// What it does.
    #[serde(flatten)]
    pub plan: Plan,
}

/// A plan in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Objects that are created.
    pub creates: usize,
    /// Objects that are changed.
    pub changes: usize,
    /// Objects that are deleted.
    pub deletes: usize,
    /// Objects that are refused.
    pub refused: usize,
    /// Machines that are made.
    pub machines_made: usize,
    /// Machines that are deleted, those of deleted objects among them.
    pub machines_deleted: usize,
    /// Things that are in the way.
    pub blockers: usize,
    /// Fields that stay as others set them.
    pub drift: usize,
}

/// What a plan was made from.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// What was planned.
    pub revision: &'a str,
    /// Git tree id of the files.
    pub tree: &'a str,
    /// What the Fleet says.
    pub policy: &'a Policy,
}

impl Document {
    /// Of a plan.
    #[must_use]
    pub fn of(made: Made<'_>, plan: Plan) -> Self {
        let Policy {
            namespace, fleet, ..
        } = made.policy;
        let (machines_made, machines_deleted) = machines(&plan);
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            fleet: format!("{namespace}/{fleet}"),
            revision: made.revision.to_owned(),
            tree: made.tree.to_owned(),
            digest: plan.digest(made.tree, made.policy),
            summary: Summary {
                creates: plan.creates.len(),
                changes: plan.changes.len(),
                deletes: plan.deletes.len(),
                refused: plan.refused.len(),
                machines_made,
                machines_deleted,
                blockers: plan.blockers.len(),
                drift: plan.drift.len(),
            },
            plan,
        }
    }
}

/// Its JSON Schema (draft 07).
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().for_serialize();
    let schema = settings.into_generator().into_root_schema_for::<Document>();
    schema.to_value()
}

#[cfg(test)]
mod tests;
