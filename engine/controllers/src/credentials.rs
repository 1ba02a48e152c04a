//! Credentials of accounts: the Secrets that ProviderAccounts name, read before their lists. They are read and not watched: that takes no
//! right to list Secrets.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{ProviderAccount, provider_account::SecretRef, secret::SecretText};
use fleetwright_providers::{Account, Credentials, ProviderError};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{inventory::IDLE, reconcile::Shared};

/// How long what was read is taken for what is there, while the provider accepts it.
const FRESH: Duration = IDLE;

struct Held {
    of: SecretRef,
    at: Instant,
    credentials: Credentials,
}

/// What was read last, by the account's name.
#[derive(Default)]
pub(crate) struct Known(Mutex<BTreeMap<String, Held>>);

impl Known {
    /// The provider refused them: they are read again before the next list.
    pub(crate) fn doubt(&self, account: &str) {
        if let Some(held) = self.0.lock().get_mut(account) {
            held.at -= FRESH;
        }
    }

    fn of(&self, account: &str, secret: &SecretRef) -> Option<Credentials> {
        let known = self.0.lock();
        let held = known.get(account).filter(|held| held.of == *secret)?;
        Some(held.credentials.clone())
    }

    fn is_fresh(&self, account: &str, secret: &SecretRef) -> bool {
        let known = self.0.lock();
        let held = known.get(account).filter(|held| held.of == *secret);
        held.is_some_and(|held| held.at.elapsed() < FRESH)
    }
}

impl Shared {
    /// The account with its credentials as they were read last.
    ///
    /// # Errors
    /// They have not been read: the account is not to be used without them.
    pub(crate) fn account(&self, account: &ProviderAccount) -> Result<Account, ProviderError> {
        let mut out = Account::from(account);
        if let Some(secret) = &account.spec.credentials_ref {
            let known = self.credentials.of(&out.name, secret);
            out.credentials = Some(known.ok_or_else(|| ProviderError::Unavailable {
                message: format!(
                    "the credentials of account {} have not been read yet",
                    out.name
                ),
            })?);
        }
        Ok(out)
    }

    /// Reads the credentials of an account where they may have changed; the account with them.
    pub(crate) async fn read_account(
        &self,
        account: &ProviderAccount,
    ) -> Result<Account, ProviderError> {
        let name = account.name_any();
        if let Some(of) = &account.spec.credentials_ref
            && !self.credentials.is_fresh(&name, of)
        {
            let credentials = read(&self.context.client, &name, of).await?;
            let held = Held {
                of: of.clone(),
                at: Instant::now(),
                credentials,
            };
            self.credentials.0.lock().insert(name, held);
        }
        self.account(account)
    }
}

/// An account with its credentials as they are now.
///
/// # Errors
/// They cannot be read.
pub async fn with_credentials(
    client: &kube::Client,
    account: &ProviderAccount,
) -> Result<Account, ProviderError> {
    let mut out = Account::from(account);
    if let Some(of) = &account.spec.credentials_ref {
        out.credentials = Some(read(client, &out.name, of).await?);
    }
    Ok(out)
}

async fn read(
    client: &kube::Client,
    account: &str,
    of: &SecretRef,
) -> Result<Credentials, ProviderError> {
    let SecretRef { namespace, name } = of;
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = api
        .get_opt(name)
        .await
        .map_err(|e| ProviderError::Unavailable {
            message: format!("Secret {namespace}/{name} cannot be read: {e}"),
        })?;
    let Some(secret) = secret else {
        return Err(ProviderError::Credentials {
            message: format!(
                "there is no Secret {namespace}/{name}, which ProviderAccount {account} names: make it"
            ),
        });
    };
    let version = format!(
        "{}/{}",
        secret.uid().unwrap_or_default(),
        secret.resource_version().unwrap_or_default()
    );
    let mut entries = Vec::new();
    for (key, value) in secret.data.unwrap_or_default() {
        // A key written with an editor ends in a newline.
        let text = String::from_utf8(value.0).map_err(|_| ProviderError::Credentials {
            message: format!("{key} in Secret {namespace}/{name} is no text (UTF-8)"),
        })?;
        entries.push((key, SecretText::new(text.trim())));
    }
    Ok(Credentials::new(version, entries))
}
