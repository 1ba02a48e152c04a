//! Clients of AWS' services for an account: made once, and again when the account or its credentials change.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use fleetwright_providers::{Account, ProviderError};
use parking_lot::Mutex;

use crate::{config::PROVIDER, whole::Whole};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the first byte of an answer may take.
const READ: Duration = Duration::from_secs(60);
/// Name of our sessions where we take on a role.
const SESSION: &str = "fleetwright";

/// Entries of an account's Secret.
const ACCESS_KEY_ID: &str = "accessKeyID";
const SECRET_ACCESS_KEY: &str = "secretAccessKey";
const SESSION_TOKEN: &str = "sessionToken";
const ROLE_ARN: &str = "roleARN";

/// Clients of one account in one region.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub(crate) ec2: aws_sdk_ec2::Client,
    pub(crate) eks: aws_sdk_eks::Client,
    pub(crate) balancing: aws_sdk_elasticloadbalancingv2::Client,
    pub(crate) ssm: aws_sdk_ssm::Client,
    /// What its calls are signed with.
    pub(crate) identity: Option<SharedCredentialsProvider>,
}

/// What clients are made of, but for the secrets themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    region: String,
    endpoint: Option<String>,
    credentials: Option<String>,
}

/// Clients by account.
#[derive(Debug)]
pub(crate) struct AllClients {
    http: aws_sdk_ec2::config::SharedHttpClient,
    known: Mutex<BTreeMap<String, (Made, Arc<Clients>)>>,
}

/// Refuses accounts that AWS does not have: of other providers, or without a region.
fn checked(account: &Account) -> Result<(), ProviderError> {
    let (name, region) = (&account.name, &account.region);
    let terminal = |message: String| Err(ProviderError::Terminal { message });
    if account.provider != PROVIDER {
        let provider = &account.provider;
        return terminal(format!(
            "account {name} is one of provider {provider:?}, not of {PROVIDER}"
        ));
    }
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if region.is_empty() || !region.chars().all(letter) {
        return terminal(format!(
            "account {name}: there is no region {region:?}: write it as eu-central-1"
        ));
    }
    Ok(())
}

/// The keys that an account's Secret holds, if any.
fn keys(account: &Account) -> Result<Option<Credentials>, ProviderError> {
    let Some(entries) = &account.credentials else {
        return Ok(None);
    };
    let text = |name: &str| entries.get(name).map(|t| t.expose().trim().to_owned());
    match (text(ACCESS_KEY_ID), text(SECRET_ACCESS_KEY)) {
        (Some(id), Some(secret)) => {
            let token = text(SESSION_TOKEN);
            let keys = Credentials::new(id, secret, token, None, "ProviderAccount");
            Ok(Some(keys))
        }
        (None, None) => Ok(None),
        (id, _) => {
            let missing = match id {
                Some(_) => SECRET_ACCESS_KEY,
                None => ACCESS_KEY_ID,
            };
            let name = &account.name;
            Err(ProviderError::Credentials {
                message: format!("the Secret of account {name} has no entry {missing}"),
            })
        }
    }
}

impl AllClients {
    pub(crate) fn new() -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        Self {
            http,
            known: Mutex::default(),
        }
    }

    /// Clients of this account.
    ///
    /// # Errors
    /// It is no account of AWS, or its Secret lacks something.
    pub(crate) async fn of(&self, account: &Account) -> Result<Arc<Clients>, ProviderError> {
        checked(account)?;
        let made = Made {
            region: account.region.clone(),
            endpoint: account.endpoint.clone(),
            credentials: account.credentials.as_ref().map(|c| c.version().to_owned()),
        };
        let known = self.known.lock().get(&account.name).cloned();
        if let Some((_, clients)) = known.filter(|(of, _)| *of == made) {
            return Ok(clients);
        }
        let config = self.load(account).await?;
        let clients = Arc::new(Clients {
            ec2: aws_sdk_ec2::Client::from_conf(
                aws_sdk_ec2::config::Builder::from(&config)
                    .interceptor(Whole)
                    .build(),
            ),
            eks: aws_sdk_eks::Client::new(&config),
            identity: config.credentials_provider(),
            balancing: aws_sdk_elasticloadbalancingv2::Client::from_conf(
                aws_sdk_elasticloadbalancingv2::config::Builder::from(&config)
                    .interceptor(Whole)
                    .build(),
            ),
            ssm: aws_sdk_ssm::Client::new(&config),
        });
        let entry = (made, Arc::clone(&clients));
        self.known.lock().insert(account.name.clone(), entry);
        Ok(clients)
    }

    async fn load(&self, account: &Account) -> Result<SdkConfig, ProviderError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .read_timeout(READ)
            .build();
        // Asking for credentials changes nothing, so that it is repeated at once.
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .region(Region::new(account.region.clone()))
            .retry_config(RetryConfig::standard())
            .timeout_config(timeouts);
        if let Some(endpoint) = &account.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(keys) = keys(account)? {
            loader = loader.credentials_provider(keys);
        }
        let config = loader.load().await;
        // Whoever asks us for more waits and asks again by itself, and must know what happened to each call.
        let once = |config: &SdkConfig| {
            let once = config.to_builder();
            once.retry_config(RetryConfig::disabled())
        };
        let role = account.credentials.as_ref().and_then(|c| c.get(ROLE_ARN));
        let Some(role) = role else {
            return Ok(once(&config).build());
        };
        let assumed = AssumeRoleProvider::builder(role.expose().trim())
            .session_name(SESSION)
            .configure(&config);
        let assumed = match config.credentials_provider() {
            Some(own) => assumed.build_from_provider(own).await,
            None => assumed.build().await,
        };
        let provider = aws_credential_types::provider::SharedCredentialsProvider::new(assumed);
        // An identity that was cached for our own keys must not be used for the role.
        Ok(once(&config)
            .credentials_provider(provider)
            .identity_cache(aws_config::identity::IdentityCache::lazy().build())
            .build())
    }
}

#[cfg(test)]
mod tests {
    use fleetwright_api::secret::SecretText;

    use super::*;

    fn account(entries: &[(&str, &str)]) -> Account {
        let entries = entries
            .iter()
            .map(|(name, text)| ((*name).to_owned(), SecretText::new(*text)));
        Account {
            name: "eu".into(),
            provider: PROVIDER.into(),
            region: "eu-central-1".into(),
            credentials: Some(fleetwright_providers::Credentials::new("1", entries)),
            ..Account::default()
        }
    }

    #[test]
    fn half_a_pair_of_keys_is_named() {
        assert_eq!(keys(&account(&[])).unwrap(), None);
        let both = account(&[(ACCESS_KEY_ID, "AKIA\n"), (SECRET_ACCESS_KEY, "hush")]);
        assert_eq!(keys(&both).unwrap().unwrap().access_key_id(), "AKIA");
        let half = keys(&account(&[(ACCESS_KEY_ID, "AKIA")])).unwrap_err();
        assert_eq!(
            half.to_string(),
            "credentials refused: the Secret of account eu has no entry secretAccessKey"
        );
    }

    #[test]
    fn accounts_of_others_are_refused() {
        for (provider, region) in [
            ("sim", "eu-central-1"),
            ("aws", ""),
            ("aws", "No Such Place"),
        ] {
            let account = Account {
                provider: provider.into(),
                region: region.into(),
                ..account(&[])
            };
            assert!(checked(&account).unwrap_err().is_terminal());
        }
        assert!(checked(&account(&[])).is_ok());
    }
}
