//! The audit trail of decisions: what was decided by what, from which inputs, and what came of it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

/// Actions that a decision names; the rest is counted.
const ACTIONS: usize = 100;
/// Longest text of one, in characters.
const ACTION: usize = 500;
/// Longest reason, in characters.
const REASON: usize = 2_000;

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It was carried out.
    Applied,
    /// What may be done was done; the rest waits.
    Held,
    /// It is not carried out as a whole: something in it may not be done.
    Refused,
    /// Something of it could not be done.
    Failed,
}

/// One decision with consequences. All of it is bounded, and none of it is secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    time: Timestamp,
    by: String,
    verdict: Verdict,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    actions: Vec<String>,
    count: usize,
    inputs: BTreeMap<&'static str, String>,
}

impl Decision {
    /// A decision at `time` by the object `by`, in the form `Fleet default/eu`.
    #[must_use]
    pub fn new(time: Timestamp, by: impl Into<String>, verdict: Verdict) -> Self {
        Self {
            time,
            by: by.into(),
            verdict,
            reason: String::new(),
            actions: Vec::new(),
            count: 0,
            inputs: BTreeMap::new(),
        }
    }

    /// Why it is so: what it waits for, what was refused, what failed.
    #[must_use]
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = reason.chars().take(REASON).collect();
        self
    }

    /// Adds what is done.
    #[must_use]
    pub fn doing(mut self, actions: impl IntoIterator<Item = String>) -> Self {
        for action in actions {
            self.count += 1;
            if self.actions.len() < ACTIONS {
                self.actions.push(action.chars().take(ACTION).collect());
            }
        }
        self
    }

    /// Adds an input: a revision, or the digest of something that was looked at.
    #[must_use]
    pub fn from(mut self, input: &'static str, value: impl Into<String>) -> Self {
        self.inputs.insert(input, value.into());
        self
    }
}

/// Where decisions are written down; nowhere by default.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<dyn Fn(Decision) + Send + Sync>>);

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trail").field(&self.0.is_some()).finish()
    }
}

impl Trail {
    /// A trail whose decisions `write` gets; it must not wait.
    pub fn new(write: impl Fn(Decision) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(write)))
    }

    /// Writes a decision down; it is made only where somebody reads it.
    pub fn write(&self, decision: impl FnOnce() -> Decision) {
        if let Some(write) = &self.0 {
            write(decision());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_bounded() {
        let long = "é".repeat(10_000);
        let decision = Decision::new(Timestamp::UNIX_EPOCH, "Fleet default/a", Verdict::Refused)
            .because(&long)
            .doing((0..1_000).map(|_| long.clone()))
            .from("revision", "3fa2c1d");
        let text = serde_json::to_string(&decision).unwrap();
        assert!(text.len() < 2 * (REASON + ACTIONS * ACTION) + 1_000);
        assert!(text.contains(r#""count":1000"#) && text.contains(r#""verdict":"Refused""#));
        assert!(text.starts_with(r#"{"time":"1970-01-01T00:00:00Z","by":"Fleet default/a""#));
    }
}
