//! Quotas of accounts that a plan goes beyond.
//!
//! Clusters of one wave begin together and take their steps side by side: that is when most machines are there at once.

use std::collections::BTreeMap;

use fleetwright_api::{API_VERSION, Machine, ProviderAccount};

use crate::{
    plan::{BlockerKind, Key, Live, PlanBlocker, model::Model},
    waves::Place,
};

/// The quota that counts machines. What others count is the provider's knowledge.
const INSTANCES: &str = "instances";

/// Whether an account limits how many instances it may have.
#[must_use]
pub fn has_quota(account: &ProviderAccount) -> bool {
    limit(account).is_some()
}

/// How many instances an account may have, and whether the provider says so rather than we.
fn limit(account: &ProviderAccount) -> Option<(i64, bool)> {
    let own = account.spec.quotas.get(INSTANCES).copied();
    let theirs = account.status.as_ref();
    let theirs = theirs.and_then(|s| s.quotas.get(INSTANCES).copied());
    let limit = own.into_iter().chain(theirs).min()?;
    Some((limit, own != Some(limit)))
}

/// A round of all clusters of a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) stage: Place,
    pub(super) round: usize,
}

/// Machines by account.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(BTreeMap<String, i64>);

impl Counts {
    pub(super) fn of(model: &Model<'_>) -> Self {
        let all = model.by_account().into_iter();
        Self(all.map(|(name, n)| (name.to_owned(), n)).collect())
    }

    fn at(&self, account: &str) -> i64 {
        self.0.get(account).copied().unwrap_or(0)
    }
}

/// The accounts that have a quota of instances, and how the number of machines in them changes.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    accounts: BTreeMap<String, Account>,
}

#[derive(Debug)]
struct Account {
    limit: i64,
    /// Whose limit it is.
    of_provider: bool,
    now: i64,
    changes: BTreeMap<Moment, i64>,
}

impl Quotas {
    pub(super) fn of(live: &Live) -> Self {
        let mut accounts = BTreeMap::new();
        for account in &live.accounts {
            let Some((limit, of_provider)) = limit(account) else {
                continue;
            };
            let name = account.metadata.name.clone().unwrap_or_default();
            let in_it = |m: &&_| is_in(m, &name);
            let found = Account {
                limit,
                of_provider,
                now: i64::try_from(live.machines.iter().filter(in_it).count()).unwrap_or(i64::MAX),
                changes: BTreeMap::new(),
            };
            accounts.insert(name, found);
        }
        Self { accounts }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Takes in what a cluster's machines changed by at a moment.
    pub(super) fn note(&mut self, moment: Moment, before: &Counts, after: &Counts) {
        for (name, account) in &mut self.accounts {
            let change = after.at(name) - before.at(name);
            if change != 0 {
                *account.changes.entry(moment).or_default() += change;
            }
        }
    }

    /// The accounts that would have more machines than they may, and more than now.
    pub(super) fn blockers(self) -> Vec<PlanBlocker> {
        let blocker = |(name, account): (String, Account)| {
            let Account {
                limit,
                of_provider,
                now,
                changes,
            } = account;
            let mut at = now;
            let most = changes.into_values().map(|change| {
                at += change;
                at
            });
            let most = most.max().unwrap_or(now);
            if most <= limit || most <= now {
                return None;
            }
            let (who, remedy) = match of_provider {
                true => ("the provider allows", "ask the provider for more"),
                false => (
                    "spec.quotas.instances of it is",
                    "raise it, if the provider allows that",
                ),
            };
            let reason = format!(
                "the plan needs {most} instances at once, {now} are there, and {who} {limit}: {remedy}, or lower maxSurge, or change fewer clusters at once by waves"
            );
            let key = Key {
                api_version: API_VERSION.into(),
                kind: "ProviderAccount".into(),
                namespace: String::new(),
                name,
            };
            Some(PlanBlocker::of(BlockerKind::Quota, key, reason))
        };
        self.accounts.into_iter().filter_map(blocker).collect()
    }
}

fn is_in(machine: &Machine, account: &str) -> bool {
    machine.spec.content.provider_config.account() == account
}
