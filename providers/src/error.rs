//! Errors of providers say what to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a call to a provider failed. None of them carries a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "camelCase")]
pub enum ProviderError {
    /// The provider asks for patience; nothing was done.
    #[error("the provider throttles; next try in {after_ms} ms")]
    Throttled {
        /// Milliseconds to wait.
        #[serde(rename = "afterMs")]
        after_ms: u64,
    },
    /// The call did not reach the provider or failed there without effect; ask again.
    #[error("{message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// The answer was lost: the call may have had its effect. Ask again with the same key.
    #[error("no answer: {message}")]
    Ambiguous {
        /// What happened.
        message: String,
    },
    /// A quota of the account is used up.
    #[error("quota exceeded: {message}")]
    Quota {
        /// Which quota, its limit, and who can raise it.
        message: String,
    },
    /// The provider has no machine of this kind there now.
    #[error("no capacity: {message}")]
    NoCapacity {
        /// What was asked for, where.
        message: String,
    },
    /// The credentials were refused.
    #[error("credentials refused: {message}")]
    Credentials {
        /// What the provider said, without the credentials.
        message: String,
    },
    /// There is no such thing.
    #[error("not found: {message}")]
    NotFound {
        /// What was asked for.
        message: String,
    },
    /// Asking again cannot help; the configuration must change.
    #[error("{message}")]
    Terminal {
        /// What is wrong and what would be right.
        message: String,
    },
}

impl ProviderError {
    /// How long to wait before the next try where the provider knows; `None` where back-off decides.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { after_ms } => Some(Duration::from_millis(*after_ms)),
            _ => None,
        }
    }

    /// Whether the same call would be refused again, until the settings or the account change.
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. } | Self::Credentials { .. })
    }

    /// The reason that conditions give where no retry mends it ([`is_terminal`](Self::is_terminal)).
    pub fn for_good(&self) -> Option<&'static str> {
        self.is_terminal().then(|| self.word())
    }

    /// A word for metrics and reasons.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Throttled { .. } => "Throttled",
            Self::Unavailable { .. } => "Unavailable",
            Self::Ambiguous { .. } => "Ambiguous",
            Self::Quota { .. } => "QuotaExceeded",
            Self::NoCapacity { .. } => "NoCapacity",
            Self::Credentials { .. } => "CredentialsRefused",
            Self::NotFound { .. } => "NotFound",
            Self::Terminal { .. } => "Terminal",
        }
    }
}
