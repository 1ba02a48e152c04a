//! Whether the providers let a Fleet use its accounts: a pure function of what is seen.

use std::collections::BTreeMap;

use fleetwright_api::{
    Cluster, ProviderAccount, ProviderConfig,
    condition::{self, Status, kind},
};

use crate::{settle::Seen, tell::some};

/// Reason of AccountsReady: no account is known to be refused.
const READY: &str = "AccountsReady";
/// Reason of AccountsReady: an account that is named is not there.
const MISSING: &str = "AccountMissing";

/// What the condition AccountsReady says.
pub(crate) struct Told {
    pub(crate) status: Status,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What the condition AccountsReady says: one sentence for each account that machines of the Fleet are to come from, and that cannot be
/// used until somebody puts it right. One that nobody has listed yet is no news.
pub(crate) fn judge(seen: &Seen) -> Told {
    let mut wrong: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    let of_clusters = seen.clusters.values().flat_map(settings);
    let of_pools = seen
        .pools
        .values()
        .map(|pool| &pool.spec.template.spec.provider_config);
    for name in of_clusters.chain(of_pools).map(ProviderConfig::account) {
        if name.is_empty() || wrong.contains_key(name) {
            continue;
        }
        let found = seen.accounts.get(&(String::new(), name.to_owned()));
        if let Some(why) = refused(name, found) {
            wrong.insert(name, why);
        }
    }
    let lines: Vec<String> = wrong.values().map(|(_, line)| line.clone()).collect();
    match wrong.values().next() {
        None => Told {
            status: Status::True,
            reason: READY.to_owned(),
            message: String::new(),
        },
        Some((reason, _)) => Told {
            status: Status::False,
            reason: (*reason).to_owned(),
            message: some(&lines, "; "),
        },
    }
}

/// All settings of a Cluster that name an account.
fn settings(cluster: &Cluster) -> impl Iterator<Item = &ProviderConfig> {
    let plane = &cluster.spec.control_plane;
    let machines = plane.machines.as_ref();
    let machines = machines.map(|m| &m.template.spec.provider_config);
    let managed = plane.managed.as_ref().map(|m| &m.provider_config);
    let own = cluster.spec.provider_config.as_ref();
    own.into_iter().chain(machines).chain(managed)
}

/// The reason for which an account cannot be used, and which in words.
fn refused<'a>(name: &str, account: Option<&'a ProviderAccount>) -> Option<(&'a str, String)> {
    let Some(account) = account else {
        let line = format!(
            "there is no ProviderAccount {name}: make it, or name another in providerConfig.account"
        );
        return Some((MISSING, line));
    };
    let conditions = &account.status.as_ref()?.conditions;
    let ready = condition::get(conditions, kind::READY)?;
    let line = || format!("account {name}: {}", ready.message);
    (ready.status == "False").then(|| (ready.reason.as_str(), line()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_account_that_cannot_be_used_is_named_once() {
        let config = |account: &str| json!({"apiVersion": "x/v1", "kind": "M", "account": account});
        let machines = |account: &str| json!({"machines": {"template": {"spec": {"providerConfig": config(account)}}}});
        let cluster = |plane: serde_json::Value, own: Option<&str>| -> Cluster {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "default"},
                "spec": {"version": "v1.33.2", "controlPlane": plane, "providerConfig": own.map(config)},
            }))
            .unwrap()
        };
        let pool = |account: &str| {
            serde_json::from_value(json!({
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"clusterName": "a", "template": {"spec": {"providerConfig": config(account)}}},
            }))
            .unwrap()
        };
        let account = |ready: Option<(&str, &str, &str)>| -> ProviderAccount {
            let conditions = ready.map(|(status, reason, message)| json!({
                "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
            }));
            serde_json::from_value(json!({
                "metadata": {"name": "any"}, "spec": {"provider": "sim"},
                "status": {"conditions": conditions.into_iter().collect::<Vec<_>>()},
            }))
            .unwrap()
        };
        let accounts = [
            ("well", account(Some(("True", "Listed", "")))),
            ("new", account(None)),
            (
                "refused",
                account(Some(("False", "CredentialsRefused", "the key is unknown"))),
            ),
            (
                "other",
                account(Some(("False", "Terminal", "no such region"))),
            ),
        ];
        let external = || json!({"external": {"kubeconfigSecretRef": {"name": "k"}}});
        let managed = |account: &str| json!({"managed": {"providerConfig": config(account)}});
        let refused = "account refused: the key is unknown";
        // (control plane, the cluster's own account, the pool's account, reason, message)
        for (plane, own, of_pool, reason, message) in [
            (machines("well"), Some("well"), "new", "AccountsReady", String::new()),
            (machines("refused"), Some("refused"), "refused", "CredentialsRefused", refused.into()),
            (machines("well"), None, "refused", "CredentialsRefused", refused.into()),
            (machines("well"), Some("refused"), "well", "CredentialsRefused", refused.into()),
            (managed("refused"), None, "well", "CredentialsRefused", refused.into()),
            (external(), None, "well", "AccountsReady", String::new()),
            (external(), None, "", "AccountsReady", String::new()),
            (
                machines("other"), None, "refused", "Terminal",
                format!("account other: no such region; {refused}"),
            ),
            (
                machines("gone"), None, "well", "AccountMissing",
                "there is no ProviderAccount gone: make it, or name another in providerConfig.account".into(),
            ),
        ] {
            let name = |name: &str| ("default".to_owned(), name.to_owned());
            let accounts = accounts.iter();
            let seen = Seen {
                clusters: [(name("a"), cluster(plane.clone(), own))].into(),
                pools: [(name("web"), pool(of_pool))].into(),
                accounts: accounts.map(|(name, a)| ((String::new(), (*name).to_owned()), a.clone())).collect(),
            };
            let told = judge(&seen);
            assert_eq!((told.reason.as_str(), &told.message), (reason, &message), "{plane} {own:?} {of_pool}");
            assert_eq!(told.status == Status::True, message.is_empty(), "{plane}");
        }
    }
}
