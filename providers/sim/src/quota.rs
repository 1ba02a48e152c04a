//! Quotas of accounts: what may be used of each thing.

use std::collections::BTreeMap;

use fleetwright_providers::{Account, ProviderError};

use crate::config::InstanceType;

/// How much of a thing an instance of a type uses.
pub type Amount = fn(InstanceType) -> i64;

/// What can be limited.
pub const QUOTAS: &[(&str, Amount)] = &[
    ("instances", |_| 1),
    ("cpus", |t| t.cpus),
    ("memoryGiB", |t| t.memory_gib),
];

/// Refuses an instance of type `wanted` beside those of the types `used` where the account's quotas do not hold both.
///
/// # Errors
/// [`ProviderError::Quota`]; [`ProviderError::Terminal`] for a quota that the cloud does not know, which would
/// otherwise limit nothing.
pub(crate) fn check(
    account: &Account,
    used: impl Iterator<Item = InstanceType> + Clone,
    wanted: InstanceType,
) -> Result<(), ProviderError> {
    let known: BTreeMap<_, _> = QUOTAS.iter().copied().collect();
    for (thing, limit) in &account.quotas {
        let name = &account.name;
        let Some(amount) = known.get(thing.as_str()) else {
            let all: Vec<_> = QUOTAS.iter().map(|q| q.0).collect();
            return Err(ProviderError::Terminal {
                message: format!(
                    "ProviderAccount {name}: the simulated cloud has no quota {thing}; it has {}",
                    all.join(", ")
                ),
            });
        };
        let has: i64 = used.clone().map(amount).sum();
        let more = amount(wanted);
        if has.saturating_add(more) > *limit {
            return Err(ProviderError::Quota {
                message: format!(
                    "account {name} may use {limit} {thing}, uses {has}, and {} needs {more} more: raise \
                     spec.quotas.{thing} of ProviderAccount {name}, or delete machines",
                    wanted.name
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::INSTANCE_TYPES;

    #[test]
    fn each_quota_counts_its_own_thing() {
        let [small, medium] = [INSTANCE_TYPES[0], INSTANCE_TYPES[1]];
        let asked = |quota: &str, limit: i64| {
            let quotas = BTreeMap::from([(quota.to_owned(), limit)]);
            let account = Account {
                name: "a".into(),
                quotas,
                ..Account::default()
            };
            check(&account, [small, medium].into_iter(), medium)
        };
        for (quota, uses) in [("instances", 3), ("cpus", 10), ("memoryGiB", 20)] {
            assert_eq!(asked(quota, uses), Ok(()), "{quota}");
            let refused = asked(quota, uses - 1);
            assert!(
                matches!(refused, Err(ProviderError::Quota { .. })),
                "{quota}: {refused:?}"
            );
        }
        let text = asked("instances", 2).unwrap_err().to_string();
        assert_eq!(
            text,
            "quota exceeded: account a may use 2 instances, uses 2, and sim.medium needs 1 more: raise \
             spec.quotas.instances of ProviderAccount a, or delete machines"
        );
        let text = asked("instnaces", 9).unwrap_err().to_string();
        assert!(
            text.ends_with("has no quota instnaces; it has instances, cpus, memoryGiB"),
            "{text}"
        );
    }
}
