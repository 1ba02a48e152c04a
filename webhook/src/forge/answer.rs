//! What a forge's answer means.

use std::time::Duration;

use fleetwright_api::secret::SecretText;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::cut;

/// Longest part of a forge's message that is told, in characters.
const MAX_MESSAGE: usize = 200;

/// Why a forge did not do what it was asked for, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The configuration is wrong; asking again cannot help.
    #[error("{0}")]
    Configuration(String),
    /// The forge asks for patience.
    #[error("the forge limits our rate; next try in {} s", after.as_secs())]
    RateLimited {
        /// How long.
        after: Duration,
    },
    /// Nothing was sent: the forge asked for patience before, or its limit would be passed.
    #[error("waiting {} s so as not to pass the forge's rate limit", after.as_secs())]
    Held {
        /// How long.
        after: Duration,
    },
    /// The token was refused or may not do this.
    #[error(
        "the forge refuses the token ({status}): is it valid, and does it have permission to write commit statuses and comments?"
    )]
    Refused {
        /// HTTP status code.
        status: u16,
    },
    /// The forge knows no such repository, commit or pull request (perhaps not yet).
    #[error("the forge knows no such repository, commit or pull request ({status}): {message}")]
    Unknown {
        /// HTTP status code.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Anything that may pass: network, 5xx.
    #[error("{0}")]
    Passing(String),
}

/// Whether the answer asks for patience; and for how long, where it says so.
///
/// GitHub limits with 403 as well as 429, and its secondary limits at times by words alone. GitLab's headers are often absent.
pub(super) fn limited(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Option<Option<Duration>> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<i64>().ok();
    let either = |a: &str, b: &str| number(a).or_else(|| number(b));
    let retry = number("retry-after").or_else(|| {
        let date = jiff::fmt::rfc2822::parse(text("retry-after")?).ok()?;
        Some(date.timestamp().as_second() - now.as_second())
    });
    let spent = either("x-ratelimit-remaining", "ratelimit-remaining") == Some(0);
    let reset = either("x-ratelimit-reset", "ratelimit-reset").map(|at| at - now.as_second());
    let asks = match status.as_u16() {
        429 => true,
        403 => retry.is_some() || spent || said(body).to_lowercase().contains("rate limit"),
        _ => false,
    };
    let seconds = retry.or(reset.filter(|_| spent));
    asks.then(|| seconds.map(|s| Duration::from_secs(s.max(1).unsigned_abs())))
}

/// What an answer means that asks for no patience.
pub(super) fn judge(status: StatusCode, body: &[u8], token: &SecretText) -> Result<(), PostError> {
    let code = status.as_u16();
    let message = || {
        let mut text = said(body).replace(char::is_control, " ");
        if !token.is_empty() {
            text = text.replace(token.expose(), "***");
        }
        cut(&text, MAX_MESSAGE)
    };
    match code {
        200..=299 | 304 => Ok(()),
        401 | 403 => Err(PostError::Refused { status: code }),
        404 | 422 => Err(PostError::Unknown {
            status: code,
            message: message(),
        }),
        300..=399 => Err(PostError::Configuration(format!(
            "the forge answered {code}, which sends us elsewhere: correct forge.apiURL or forge.repository, the repository may have moved"
        ))),
        // Of two requests at once GitLab refuses one.
        408 | 409 | 500..=599 => Err(PostError::Passing(format!(
            "the forge answered {code} {}",
            message()
        ))),
        _ => Err(PostError::Configuration(format!(
            "the forge answered {code} {}",
            message()
        ))),
    }
}

/// What the body says: a text under `message`, or else GitLab's lists of mistakes by field, or `error`.
pub(super) fn said(body: &[u8]) -> String {
    let value = serde_json::from_slice::<Value>(body).unwrap_or_default();
    match (&value["message"], &value["error"]) {
        (Value::String(text), _) | (Value::Null, Value::String(text)) => text.clone(),
        (Value::Null, _) => String::new(),
        (lists, _) => lists.to_string(),
    }
}
