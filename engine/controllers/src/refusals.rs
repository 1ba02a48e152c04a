//! Calls that a provider has refused for good. The same call is not made again before the settings or the account have changed, or a
//! long pause has passed: events that wake a machine must not turn a mistake in its settings into a stream of calls.

use std::{collections::BTreeMap, future::Future};

use fleetwright_api::names;
use fleetwright_providers::ProviderError;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;

/// Seconds after which a call that was refused for good is tried again all the same: what was wrong may have been put right where we
/// cannot see it, such as credentials.
pub(crate) const AGAIN_SECONDS: u64 = 600;

struct Refusal {
    /// Digest of what was asked for.
    asked: String,
    until: Timestamp,
    error: ProviderError,
}

/// What providers have refused for good, by instance key and verb.
#[derive(Default)]
pub(crate) struct Refusals {
    known: Mutex<BTreeMap<(String, &'static str), Refusal>>,
}

fn digest<T: Serialize>(asked: &T) -> String {
    let text = serde_json::to_string(asked).unwrap_or_default();
    names::short_hash(["asked", &text], 16)
}

impl Refusals {
    /// Makes the call, or gives the answer that it had the last time when that still stands. `asked` is all that the answer depends on.
    pub(crate) async fn call<T, A: Serialize>(
        &self,
        (instance_key, verb): (&str, &'static str),
        asked: &A,
        now: Timestamp,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let key = (instance_key.to_owned(), verb);
        let before = self.known.lock().remove(&key);
        if let Some(before) = before.filter(|b| b.until > now && b.asked == digest(asked)) {
            let error = before.error.clone();
            self.known.lock().insert(key, before);
            return Err(error);
        }
        let result = call.await;
        if let Err(error) = &result
            && error.is_terminal()
        {
            let pause = SignedDuration::from_secs(i64::try_from(AGAIN_SECONDS).unwrap_or(i64::MAX));
            let refusal = Refusal {
                asked: digest(asked),
                until: now.checked_add(pause).unwrap_or(Timestamp::MAX),
                error: error.clone(),
            };
            self.known.lock().insert(key, refusal);
        }
        result
    }

    /// Forgets what was refused to a machine that is gone.
    pub(crate) fn forget(&self, instance_key: &str) {
        self.known.lock().retain(|(key, _), _| key != instance_key);
    }
}

#[cfg(test)]
mod tests {
    use fleetwright_api::condition::reason;

    use super::*;

    fn terminal() -> ProviderError {
        ProviderError::Terminal {
            message: "no such type".into(),
        }
    }

    #[tokio::test]
    async fn a_refusal_stands_until_the_order_changes_or_the_pause_is_over() {
        let refusals = Refusals::default();
        let (at, mut calls) = (|s| Timestamp::from_second(s).unwrap(), 0);
        for (second, verb, order, error, called) in [
            (0, "create", "a", Some(terminal()), true),
            (1, "create", "a", None, false),
            (599, "create", "a", None, false),
            (599, "delete", "a", None, true),
            (600, "create", "a", Some(terminal()), true),
            (601, "create", "b", Some(terminal()), true),
            (602, "create", "b", None, false),
            (603, "create", "c", None, true),
            (604, "create", "c", None, true),
            // What may help the next time is asked for each time.
            (
                605,
                "create",
                "c",
                Some(ProviderError::Quota {
                    message: "full".into(),
                }),
                true,
            ),
            (606, "create", "c", None, true),
        ] {
            let before = calls;
            let call = async {
                calls += 1;
                error.map_or(Ok(()), Err)
            };
            let result = refusals.call(("k", verb), &order, at(second), call).await;
            assert_eq!(calls > before, called, "{second} {order}");
            assert!(called || result == Err(terminal()));
        }
        let refuse = || async { Err::<(), _>(terminal()) };
        refusals
            .call(("k", "create"), &"d", at(700), refuse())
            .await
            .ok();
        refusals.forget("k");
        assert!(refusals.known.lock().is_empty());
    }

    #[test]
    fn words_of_errors_are_reasons_of_conditions() {
        let message = String::new;
        for (error, word) in [
            (terminal(), reason::TERMINAL),
            (
                ProviderError::Credentials { message: message() },
                reason::CREDENTIALS_REFUSED,
            ),
            (
                ProviderError::Quota { message: message() },
                reason::QUOTA_EXCEEDED,
            ),
        ] {
            assert_eq!(error.word(), word);
        }
    }
}
