//! How long calls take before they have their effect.

use std::time::Duration;

use fleetwright_api::random::Random;
use serde::{Deserialize, Serialize};

use crate::faults::{check_verb, matches};

/// Longest time that can be asked for.
const MOST_MILLIS: u64 = 600_000;

/// Time that the calls that match take; what is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    /// Milliseconds of each call.
    pub millis: u64,
    /// Up to so many milliseconds more, drawn for each call.
    #[serde(default)]
    pub jitter_millis: u64,
    /// Verb of the call, such as `create`.
    #[serde(default)]
    pub verb: Option<String>,
    /// Name of the account.
    #[serde(default)]
    pub account: Option<String>,
    /// Region of the account.
    #[serde(default)]
    pub region: Option<String>,
}

impl Latency {
    /// Refuses what no call can match or nobody can wait for, with what is allowed.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        check_verb(self.verb.as_deref())?;
        if self.millis > MOST_MILLIS || self.jitter_millis > MOST_MILLIS {
            return Err(format!("millis and jitterMillis are at most {MOST_MILLIS}"));
        }
        Ok(())
    }
}

/// How long a call takes: all latencies that match add up, as a slow region and a slow verb do.
pub(crate) fn delay(
    all: &[Latency],
    verb: &str,
    account: &str,
    region: &str,
    random: &dyn Random,
) -> Duration {
    let ours = all.iter().filter(|l| {
        matches(&l.verb, verb) && matches(&l.account, account) && matches(&l.region, region)
    });
    let millis = ours.fold(0_u64, |sum, l| {
        let jitter = match l.jitter_millis {
            0 => 0,
            most => random.next_u64() % (most + 1),
        };
        sum.saturating_add(l.millis).saturating_add(jitter)
    });
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use fleetwright_api::random::SeededRandom;

    use super::*;

    #[test]
    fn what_matches_adds_up() {
        let latency = |text: &str| serde_json::from_str::<Latency>(text).unwrap();
        let all = [
            latency(r#"{"millis": 10}"#),
            latency(r#"{"millis": 200, "verb": "create"}"#),
            latency(r#"{"millis": 3000, "region": "eu", "verb": "create"}"#),
            latency(r#"{"millis": 0, "account": "odd", "jitterMillis": 5}"#),
        ];
        let random = SeededRandom::new(1);
        let millis =
            |verb, account, region| delay(&all, verb, account, region, &random).as_millis();
        assert_eq!(delay(&[], "create", "a", "eu", &random), Duration::ZERO);
        assert_eq!(millis("create", "a", "eu"), 3210);
        assert_eq!(millis("create", "a", "us"), 210);
        assert_eq!(millis("list", "a", "eu"), 10);
        let drawn: Vec<_> = (0..50).map(|_| millis("list", "odd", "eu")).collect();
        assert!(drawn.iter().all(|m| (10..=15).contains(m)), "{drawn:?}");
        assert!(drawn.iter().any(|m| *m != drawn[0]), "{drawn:?}");
    }
}
