//! What two plans have in common that decide the same.

use fleetwright_api::names::short_hash;
use serde::Serialize;

use super::{Change, Plan, Policy, Step};

/// What the digest is made of. Another number makes other digests of the same plans.
const FORM: &str = "plan-3";

impl Plan {
    /// SHA-256, in hexadecimal digits, of the tree that was planned, the policy and the decisions: actions, effects, machines, steps and
    /// their order. Live changes that alter no decision keep it, and so do times: what is expected, what waits, and until when.
    #[must_use]
    pub fn digest(&self, tree: &str, policy: &Policy) -> String {
        let actions = |verb: &'static str, list: &[Change]| -> Vec<String> {
            let one = |c: &Change| {
                let to: Vec<_> = c.fields.iter().map(|f| (&f.path, &f.to)).collect();
                text(&(verb, &c.key, to, &c.effect, &c.wave, &c.adopted_from))
            };
            list.iter().map(one).collect()
        };
        let mut parts = vec![FORM.to_owned(), tree.to_owned(), policy.digest()];
        parts.extend(actions("create", &self.creates));
        parts.extend(actions("change", &self.changes));
        parts.extend(actions("delete", &self.deletes));
        parts.push(text(&self.refused));
        parts.extend(self.rollouts.iter().map(|rollout| {
            let steps: &[Step] = &rollout.steps;
            let decided = (&rollout.owner, &rollout.because, &rollout.in_place);
            text(&(decided, steps, &rollout.path))
        }));
        short_hash(parts.iter().map(String::as_str), 64)
    }
}

impl Policy {
    /// SHA-256, in hexadecimal digits, of all of it.
    #[must_use]
    pub fn digest(&self) -> String {
        let Self {
            namespace,
            fleet,
            max_machines,
            allow,
            drift,
            versions,
            disruption,
            waves,
            windows,
        } = self;
        let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
        let guards = text(&(max_machines, allow, disruption));
        let order = text(&(drift, versions, waves, windows));
        short_hash(["policy-1", namespace, fleet, &guards, &order], 64)
    }
}

/// Nothing of it can fail to be written.
fn text(of: &impl Serialize) -> String {
    serde_json::to_string(of).unwrap_or_default()
}
