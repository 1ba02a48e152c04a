//! What the Secret of `spec.source.secretRef` says: who we are at the repository, and by what it is known.

use std::{collections::BTreeMap, error::Error, sync::Arc};

use async_trait::async_trait;
use fleetwright_api::{names::short_hash, secret::SecretText};
use jiff::Timestamp;
use k8s_openapi::ByteString;

use super::{
    authority::Authority,
    host_keys::KnownHosts,
    transport::{Address, Form},
};

/// Keys of the Secret that are looked at.
const KEYS: [&str; 10] = [
    "username",
    "token",
    "password",
    "identity",
    "identityPassword",
    "known_hosts",
    "ca.crt",
    APP_ID,
    APP_INSTALLATION,
    APP_KEY,
];
const APP_ID: &str = "githubAppID";
const APP_INSTALLATION: &str = "githubAppInstallationID";
const APP_KEY: &str = "githubAppPrivateKey";

/// A GitHub App that is installed where the repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubApp {
    /// Its id.
    pub id: String,
    /// Id of the installation.
    pub installation: String,
    /// Its private key, PEM.
    pub private_key: SecretText,
    /// Base URL of the forge's API (`spec.forge.apiURL`); the public one when left out.
    pub api_url: Option<String>,
}

/// Makes tokens of GitHub Apps. They are asked for before each fetch, so whoever makes them keeps them as long as they hold.
#[async_trait]
pub trait AppTokens: Send + Sync {
    /// A token of `app` that holds for some minutes from `now`.
    ///
    /// # Errors
    /// The forge refuses, or cannot be asked.
    async fn token(
        &self,
        app: &GithubApp,
        now: Timestamp,
    ) -> Result<SecretText, Box<dyn Error + Send + Sync>>;
}

/// Who we are at a repository, and by what it is known.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// User name; the URL's, `x-access-token` or `git` when left out.
    pub username: Option<String>,
    /// Token or password for https.
    pub token: Option<SecretText>,
    /// In the place of a token.
    pub app: Option<GithubApp>,
    /// Private key for ssh, PEM or OpenSSH's form.
    pub identity: Option<SecretText>,
    /// What the private key is encrypted with.
    pub identity_password: Option<SecretText>,
    /// Keys of ssh servers.
    pub known_hosts: Option<Arc<KnownHosts>>,
    /// Who signs https servers' certificates, in the place of the system's authorities.
    pub authority: Option<Authority>,
    /// Hash of all of it, and of nothing else.
    pub identifier: String,
}

impl Credentials {
    /// Of a Secret's data, for a repository at `address`. Without a Secret there is nothing to be wrong.
    ///
    /// # Errors
    /// What the Secret lacks or has too much of.
    pub fn of(
        secret: Option<&BTreeMap<String, ByteString>>,
        address: &Address,
    ) -> Result<Self, String> {
        let text = |key: &str| {
            let text = std::str::from_utf8(&secret?.get(key)?.0).ok()?.trim_end();
            (!text.is_empty()).then_some(text)
        };
        let hidden = |key: &str| text(key).map(SecretText::new);
        let known = KEYS
            .iter()
            .flat_map(|key| [*key, text(key).unwrap_or_default()]);
        let mut found = Self {
            username: text("username").map(str::to_owned),
            identifier: short_hash(known, 40),
            ..Self::default()
        };
        match &address.form {
            Form::File => {}
            Form::Https => {
                found.token = hidden("token").or_else(|| hidden("password"));
                found.app = app(&text)?;
                found.authority = text("ca.crt").map(Authority::parse).transpose()?;
                if found.token.is_some() && found.app.is_some() {
                    return Err(format!(
                        "it has a token or password, and {APP_ID} too: remove one of them"
                    ));
                }
                let empty =
                    found.token.is_none() && found.app.is_none() && found.authority.is_none();
                if secret.is_some() && empty {
                    return Err("it has no text in key token or password".into());
                }
            }
            Form::Ssh { .. } => {
                found.identity = hidden("identity");
                found.identity_password = hidden("identityPassword");
                if found.identity.is_none() {
                    return Err("ssh needs a private key in key identity".into());
                }
                let Some(lines) = text("known_hosts") else {
                    return Err("ssh needs the server's keys in key known_hosts: compare what `ssh-keyscan` prints with what its administrator publishes".into());
                };
                found.known_hosts = Some(Arc::new(KnownHosts::parse(lines)?));
            }
        }
        Ok(found)
    }
}

fn app<'a>(text: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<GithubApp>, String> {
    match (text(APP_ID), text(APP_INSTALLATION), text(APP_KEY)) {
        (None, None, None) => Ok(None),
        (Some(id), Some(installation), Some(key)) => Ok(Some(GithubApp {
            id: id.to_owned(),
            installation: installation.to_owned(),
            private_key: SecretText::new(key),
            api_url: None,
        })),
        _ => Err(format!(
            "a GitHub App needs all of {APP_ID}, {APP_INSTALLATION} and {APP_KEY}"
        )),
    }
}
