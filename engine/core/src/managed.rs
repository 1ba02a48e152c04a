//! Control planes and groups of nodes that a provider runs by itself: what it shows of them, how often it is asked, and when a token
//! for such a control plane's API is renewed.

use std::time::Duration;

use fleetwright_api::version::Version;
use jiff::Timestamp;

#[cfg(test)]
mod tests;

/// Time between two looks while nothing moves: as between two lists of an account.
pub const IDLE: Duration = Duration::from_secs(60);
/// First and longest time between two looks while something moves, and first time after a failure.
const FIRST: Duration = Duration::from_secs(1);
const MOVING: Duration = Duration::from_secs(15);

/// Where in its life something is that a provider runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is being made.
    Creating,
    /// It is as it was last ordered.
    Active,
    /// It changes, to this version where that is known.
    Updating(Option<Version>),
    /// It goes.
    Deleting,
    /// It needs somebody: why, in the provider's words.
    Failed(String),
}

/// What a provider showed last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Where in its life it is.
    pub phase: Phase,
    /// Its version.
    pub version: Option<Version>,
}

/// An error of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A word for it, as conditions have it.
    pub reason: &'static str,
    /// What it said.
    pub message: String,
    /// Whether asking again cannot help.
    pub lasting: bool,
    /// How long it asked to wait.
    pub retry_after: Option<Duration>,
}

/// What is known of something that a provider runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What was shown last, if anything was.
    pub shown: Option<Shown>,
    /// Why the last call failed; `None` after one that did not.
    pub trouble: Option<Trouble>,
    /// Whether the present order has not been answered yet: what is shown is of another one.
    pub pending: bool,
}

impl Known {
    /// What the present order waits for before the provider has taken it; `None` once it has.
    pub fn unanswered(&self) -> Option<&str> {
        let why = self
            .trouble
            .as_ref()
            .map(|trouble| trouble.message.as_str());
        self.pending
            .then(|| why.unwrap_or("the provider was not asked yet"))
    }

    /// The phase, if any is known.
    pub fn phase(&self) -> Option<&Phase> {
        self.shown.as_ref().map(|shown| &shown.phase)
    }

    /// The version that serves; `None` before it does, or where nobody can tell.
    pub fn serves(&self) -> Option<&Version> {
        let shown = self.shown.as_ref()?;
        match shown.phase {
            Phase::Active | Phase::Updating(_) => shown.version.as_ref(),
            Phase::Creating | Phase::Deleting | Phase::Failed(_) => None,
        }
    }

    /// The version that serves, and the newest that does or will: a step that has begun is taken to its end.
    pub fn runs(&self) -> Option<(Version, Version)> {
        let serves = self.serves()?.clone();
        let to = match self.phase() {
            Some(Phase::Updating(Some(to))) => to.clone(),
            _ => serves.clone(),
        };
        Some((serves.clone(), to.max(serves)))
    }

    /// Whether the provider is at something.
    pub fn moves(&self) -> bool {
        matches!(
            self.phase(),
            Some(Phase::Creating | Phase::Updating(_) | Phase::Deleting)
        )
    }

    /// After how long the provider is asked again where nothing else gives reason to. `alike` counts the looks before this one that
    /// came to the same.
    pub fn pause(&self, alike: u32) -> Duration {
        let doubled = |most: Duration| {
            let factor = 1_u32.checked_shl(alike).unwrap_or(u32::MAX);
            FIRST.saturating_mul(factor).min(most)
        };
        match &self.trouble {
            Some(trouble) if trouble.lasting => IDLE,
            Some(trouble) => trouble.retry_after.unwrap_or_else(|| doubled(IDLE)),
            None if self.moves() => doubled(MOVING),
            None => IDLE,
        }
    }
}

/// When a token is renewed that was given at `issued` and ends at `expires`: at half of its life.
pub fn renew_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let half = expires.duration_since(issued) / 2;
    issued.checked_add(half).unwrap_or(expires)
}
