//! How a reconcile ends.

use std::{fmt, time::Duration};

/// How a reconcile ended, and why it waits if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Everything is as wanted.
    Done,
    /// Something was changed; what follows from it wakes the next reconcile.
    Changed,
    /// It waits.
    Wait {
        /// For what, in one sentence.
        reason: String,
        /// When to look again without an event; `None` when an event will come.
        retry_after: Option<Duration>,
    },
    /// The object is gone.
    Deleted,
}

impl Outcome {
    /// Waits for an event.
    pub fn wait(reason: impl Into<String>) -> Self {
        Self::Wait {
            reason: reason.into(),
            retry_after: None,
        }
    }

    /// Waits for an event, but at most `seconds`.
    pub fn wait_seconds(reason: impl Into<String>, seconds: u64) -> Self {
        Self::Wait {
            reason: reason.into(),
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Changed => f.write_str("changed"),
            Self::Wait { reason, .. } => write!(f, "waiting: {reason}"),
            Self::Deleted => f.write_str("deleted"),
        }
    }
}

/// Why an owner may make no machine for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// In words.
    pub why: String,
    /// The reason that conditions give where no retry mends it.
    pub for_good: Option<&'static str>,
}

impl Hold {
    /// One that passes.
    pub fn passing(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            for_good: None,
        }
    }

    /// Reason and words, where no retry mends it.
    pub(crate) fn refusal(&self) -> Option<(&'static str, String)> {
        self.for_good.map(|reason| (reason, self.why.clone()))
    }
}
