//! When each account is listed: soon while something moves there, rarely otherwise, and rarely where the list was refused for good,
//! until the account changes.

use std::collections::BTreeMap;

use fleetwright_providers::ProviderError;
use tokio::time::Instant;

use crate::inventory::{IDLE, MOVING};

/// An account, as far as its lists go.
pub(crate) struct Listed {
    pub(crate) name: String,
    /// Of its ProviderAccount.
    pub(crate) generation: Option<i64>,
    /// Whether something in it moves.
    pub(crate) moving: bool,
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
                None if account.moving => *at = (*at).min(now + MOVING),
                None => {}
            }
            if *at <= now {
                *at = now + IDLE;
                names.push(account.name.clone());
            }
        }
        names
    }

    /// How the list of an account went, as it was taken.
    pub(crate) fn ended(
        &mut self,
        account: &Listed,
        error: Option<&ProviderError>,
        moving: bool,
        now: Instant,
    ) {
        let name = account.name.clone();
        self.refused.remove(&name);
        let pause = match error {
            None if moving => MOVING,
            None => IDLE,
            Some(error) if error.is_terminal() => {
                self.refused.insert(name.clone(), account.generation);
                IDLE
            }
            Some(error) => error.retry_after().unwrap_or(MOVING),
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
    use std::time::Duration;

    use super::*;

    fn account(generation: i64) -> [Listed; 1] {
        [Listed {
            name: "a".into(),
            generation: Some(generation),
            moving: true,
        }]
    }

    /// Lists within ten minutes of an account that answers with this.
    fn lists(error: Option<&ProviderError>, moving: bool) -> usize {
        let begun = Instant::now();
        let (mut schedule, mut now, mut count) = (Schedule::default(), begun, 0);
        while now < begun + Duration::from_secs(600) {
            let accounts = account(1);
            if !schedule.take(&accounts, now).is_empty() {
                count += 1;
                schedule.ended(&accounts[0], error, moving, now);
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
            (None, true, 600),
            (Some(&unavailable), true, 600),
            (Some(&throttled), true, 1200),
            (Some(&terminal), true, 10),
            (Some(&credentials), true, 10),
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
        assert_eq!(schedule.take(&account(1), now), ["a"]);
        schedule.ended(&account(1)[0], Some(&error), true, now);
        assert!(schedule.take(&account(1), now).is_empty());
        assert_eq!(schedule.take(&account(2), now), ["a"]);
        schedule.ended(&account(2)[0], None, false, now);
        assert_eq!(schedule.next(), Some(now + IDLE));
    }
}
