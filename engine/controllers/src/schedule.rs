//! When each account is listed: soon while something moves there, rarely otherwise, and rarely where the list was refused for good,
//! until the account changes.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_providers::ProviderError;
use tokio::time::Instant;

use crate::inventory::IDLE;

/// Time after which a list that failed is tried again, where the provider does not say another.
const AGAIN: Duration = Duration::from_secs(1);

/// An account, as far as its lists go.
pub(crate) struct Listed {
    pub(crate) name: String,
    /// Of its ProviderAccount.
    pub(crate) generation: Option<i64>,
    /// How long after a list the next one is due while something in it moves; `None` while nothing does.
    pub(crate) moving: Option<Duration>,
}

/// When accounts are listed.
#[derive(Default)]
pub(crate) struct Schedule {
    due: BTreeMap<String, Instant>,
    /// Those whose list was refused for good, with the generation that was refused.
    refused: BTreeMap<String, Option<i64>>,
}

impl Schedule {
    /// Takes the accounts in as they are now; gives the names of those whose list is due.
    pub(crate) fn take(&mut self, accounts: &[Listed], now: Instant) -> Vec<String> {
        let there = |name: &String| accounts.iter().any(|a| a.name == *name);
        self.due.retain(|name, _| there(name));
        self.refused.retain(|name, _| there(name));
        let mut names = Vec::new();
        for account in accounts {
            let at = self.due.entry(account.name.clone()).or_insert(now);
            match self.refused.get(&account.name) {
                Some(generation) if *generation == account.generation => {}
                Some(_) => {
                    self.refused.remove(&account.name);
                    *at = now;
                }
                None => *at = account.moving.map_or(*at, |pause| (*at).min(now + pause)),
            }
            if *at <= now {
                *at = now + IDLE;
                names.push(account.name.clone());
            }
        }
        names
    }

    /// How the list of an account went.
    pub(crate) fn ended(&mut self, account: &Listed, error: Option<&ProviderError>, now: Instant) {
        let name = account.name.clone();
        self.refused.remove(&name);
        let pause = match error {
            None => account.moving.unwrap_or(IDLE),
            Some(error) if error.is_terminal() => {
                self.refused.insert(name.clone(), account.generation);
                IDLE
            }
            Some(error) => error.retry_after().unwrap_or(AGAIN),
        };
        self.due.insert(name, now + pause);
    }

    /// When the next list is due, if any is.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn account(generation: i64, moving: Option<Duration>) -> [Listed; 1] {
        [Listed {
            name: "a".into(),
            generation: Some(generation),
            moving,
        }]
    }

    /// Lists within ten minutes of an account that answers with this.
    fn lists(error: Option<&ProviderError>, moving: Option<Duration>) -> usize {
        let begun = Instant::now();
        let (mut schedule, mut now, mut count) = (Schedule::default(), begun, 0);
        while now < begun + Duration::from_secs(600) {
            let accounts = account(1, moving);
            if !schedule.take(&accounts, now).is_empty() {
                count += 1;
                schedule.ended(&accounts[0], error, now);
            }
            // Somebody wakes the lists all the time: that brings none of them forward.
            now = (now + Duration::from_millis(500)).min(schedule.next().unwrap());
        }
        count
    }

    #[test]
    fn lists_are_as_frequent_as_they_are_useful() {
        let message = String::new;
        let terminal = ProviderError::Terminal { message: message() };
        let credentials = ProviderError::Credentials { message: message() };
        let throttled = ProviderError::Throttled { after_ms: 500 };
        let unavailable = ProviderError::Unavailable { message: message() };
        for (error, moving, want) in [
            (None, Some(SECOND), 600),
            (None, Some(SECOND * 5), 120),
            (None, None, 10),
            (Some(&unavailable), Some(SECOND), 600),
            (Some(&throttled), Some(SECOND), 1200),
            (Some(&terminal), Some(SECOND), 10),
            (Some(&credentials), Some(SECOND), 10),
        ] {
            assert_eq!(lists(error, moving), want, "{error:?}");
        }
    }

    #[test]
    fn an_account_that_changes_is_listed_at_once() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        let error = ProviderError::Credentials {
            message: String::new(),
        };
        let account = |generation| account(generation, Some(SECOND));
        assert_eq!(schedule.take(&account(1), now), ["a"]);
        schedule.ended(&account(1)[0], Some(&error), now);
        assert!(schedule.take(&account(1), now).is_empty());
        assert_eq!(schedule.take(&account(2), now), ["a"]);
        let [at_rest] = super::tests::account(2, None);
        schedule.ended(&at_rest, None, now);
        assert_eq!(schedule.next(), Some(now + IDLE));
    }
}
