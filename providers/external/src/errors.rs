//! What the API's errors mean to whoever orders machines.

use fleetwright_providers::ProviderError;
use kube::Error;

/// How long to wait where a server that asks for patience does not say.
const PATIENCE_SECONDS: u32 = 1;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It only reads.
    Reads,
    /// It may have had its effect though it failed.
    Writes,
}

/// The error of a call, `what` it was.
pub(crate) fn told(call: Call, what: &str, error: Error) -> ProviderError {
    let message = format!("{what}: {error}");
    let Error::Api(status) = &error else {
        return match call {
            Call::Reads => ProviderError::Unavailable { message },
            Call::Writes => ProviderError::Ambiguous { message },
        };
    };
    match status.code {
        429 => {
            let details = status.details.as_ref();
            let seconds = details.map_or(0, |d| d.retry_after_seconds);
            let seconds = seconds.max(PATIENCE_SECONDS);
            ProviderError::Throttled {
                after_ms: u64::from(seconds) * 1000,
            }
        }
        401 | 403 => ProviderError::Credentials { message },
        404 => ProviderError::NotFound { message },
        // Somebody else was faster: it is looked at anew.
        409 => ProviderError::Unavailable { message },
        400..500 => ProviderError::Terminal { message },
        _ if call == Call::Writes => ProviderError::Ambiguous { message },
        _ => ProviderError::Unavailable { message },
    }
}

/// Whether the API says so with this code.
pub(crate) fn is(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}
