//! The kubeconfig of a control plane that a provider runs: with a token of short life, renewed at half of it.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{Cluster, secret::SecretText};
use fleetwright_core::managed::{Trouble, renew_at};
use fleetwright_providers::{ProviderError, managed::ManagedControlPlaneState};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use parking_lot::Mutex;
use serde_json::json;

use super::{key, settings};
use crate::{
    cache::name_of,
    provided::trouble,
    queue::Key,
    reconcile::{
        Shared,
        cluster::store_kubeconfig,
        machine::called,
        provider::{find, lacks, owner},
    },
};

struct Kept {
    /// Where the API listens and whom it is believed by, as the kubeconfig has it.
    of: (String, String),
    renew: Timestamp,
    /// Why it could not be written.
    trouble: Option<Trouble>,
}

/// After how long a kubeconfig that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The kubeconfigs that this process wrote. It renews those that others wrote.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<Key, Kept>>);

impl Tokens {
    /// After how long the token is renewed.
    pub(super) fn next(&self, key: &Key, now: Timestamp) -> Option<Duration> {
        let renew = self.0.lock().get(key)?.renew;
        let wait = renew.duration_since(now);
        Some(wait.try_into().unwrap_or_default())
    }

    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

/// Writes the kubeconfig where that is due.
pub(super) async fn keep(
    shared: &Shared,
    cluster: &Cluster,
    state: &ManagedControlPlaneState,
) -> Result<(), Trouble> {
    let (key, now) = (key(cluster), shared.now());
    let (Some(endpoint), Some(authority)) = (&state.endpoint, &state.certificate_authority) else {
        // One that is made anew: a token of the one before is not renewed.
        shared.tokens.forget(&key);
        return Ok(());
    };
    let of = (endpoint.clone(), authority.clone());
    if let Some(kept) = shared.tokens.0.lock().get(&key)
        && kept.of == of
        && now < kept.renew
    {
        return kept.trouble.clone().map_or(Ok(()), Err);
    }
    let written = renew(shared, cluster, &of, now).await;
    let again = |trouble: &Trouble| now + trouble.retry_after.unwrap_or(AGAIN);
    let kept = Kept {
        of,
        renew: written.as_ref().map_or_else(again, |renew| *renew),
        trouble: written.as_ref().err().cloned(),
    };
    shared.tokens.0.lock().insert(key, kept);
    written.map(drop)
}

/// Writes it with a new token; gives when it is to be renewed.
async fn renew(
    shared: &Shared,
    cluster: &Cluster,
    (endpoint, authority): &(String, String),
    now: Timestamp,
) -> Result<Timestamp, Trouble> {
    let (namespace, name) = name_of(cluster);
    let account = settings(cluster).map_or("", |settings| settings.account());
    let (provider, account) = find(shared, &namespace, account)?;
    let Some(half) = provider.control_planes() else {
        return Err(lacks(provider.as_ref(), "control planes"));
    };
    let owner = owner(shared, &namespace, &name, "");
    let verb = "access";
    let call = called(shared, verb, half.access(&account, &owner));
    let refused = (owner.cluster_key.as_str(), verb);
    let asked = (&account, &owner);
    let access = shared.refusals.call(refused, &asked, now, call);
    let access = access.await.map_err(|error| trouble(&error))?;
    let text = write(&name, endpoint, authority, &access.token);
    store_kubeconfig(shared, cluster, text)
        .await
        .map_err(|error| {
            let message = format!("the kubeconfig cannot be stored: {error}");
            trouble(&ProviderError::Unavailable { message })
        })?;
    Ok(renew_at(now, access.expires))
}

/// A kubeconfig, as JSON: that is YAML too.
fn write(cluster: &str, endpoint: &str, authority: &str, token: &SecretText) -> String {
    let authority = ByteString(authority.as_bytes().to_vec());
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [{"name": cluster, "cluster": {
            "server": endpoint,
            "certificate-authority-data": authority,
        }}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
        "users": [{"name": cluster, "user": {"token": token.expose()}}],
    })
    .to_string()
}
