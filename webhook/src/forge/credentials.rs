//! What we show a forge to be let in: a token, or the key of a GitHub App.

use std::collections::BTreeMap;

use fleetwright_api::{fleet::ForgeType, random::hex, secret::SecretText};
use k8s_openapi::ByteString;
use sha2::{Digest, Sha256};

/// Keys of a forge's Secret.
const TOKEN: &str = "token";
const APP_ID: &str = "githubAppID";
const INSTALLATION_ID: &str = "githubAppInstallationID";
const PRIVATE_KEY: &str = "githubAppPrivateKey";

/// What we show a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A token of a user, a project or a bot.
    Token(SecretText),
    /// A GitHub App, whose tokens live an hour.
    App(AppCredentials),
}

/// A GitHub App as it is installed for one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppCredentials {
    /// The app's number.
    pub app: u64,
    /// The installation's number.
    pub installation: u64,
    /// Its RSA key as PEM, PKCS#1 (as GitHub gives it out) or PKCS#8.
    pub private_key: SecretText,
}

impl Credentials {
    /// What a forge's Secret holds.
    ///
    /// # Errors
    /// Neither a token nor a whole app, or both: what is missing is named, values are not.
    pub fn of(data: &BTreeMap<String, ByteString>, kind: ForgeType) -> Result<Self, String> {
        let text = |key: &str| {
            let text = std::str::from_utf8(&data.get(key)?.0).ok()?.trim();
            (!text.is_empty()).then(|| SecretText::new(text))
        };
        let token = text(TOKEN);
        let app = [APP_ID, INSTALLATION_ID, PRIVATE_KEY];
        if !app.iter().any(|key| data.contains_key(*key)) {
            return token
                .map(Self::Token)
                .ok_or_else(|| format!("no key {TOKEN}, or it is empty"));
        }
        if kind != ForgeType::Github {
            return Err(format!(
                "keys of a GitHub App, but the forge is {}",
                kind.as_str()
            ));
        }
        if token.is_some() {
            return Err(format!("both {TOKEN} and keys of a GitHub App: remove one"));
        }
        let need = |key: &str| text(key).ok_or_else(|| format!("no key {key}, or it is empty"));
        let number = |key: &str| {
            let value = need(key)?;
            let number = value.expose().parse::<u64>();
            number.map_err(|_| format!("{key} is no number"))
        };
        Ok(Self::App(AppCredentials {
            app: number(APP_ID)?,
            installation: number(INSTALLATION_ID)?,
            private_key: need(PRIVATE_KEY)?,
        }))
    }

    /// A name for whom these let in, that tells nothing of them. Who has not the same credentials has another one.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Token(token) => digest(&["token", token.expose()]),
            Self::App(app) => app.identity(),
        }
    }
}

impl AppCredentials {
    pub(crate) fn identity(&self) -> String {
        let (app, installation) = (self.app.to_string(), self.installation.to_string());
        digest(&["app", &app, &installation, self.private_key.expose()])
    }
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_holds() {
        let app = |key: &str| {
            Ok(Credentials::App(AppCredentials {
                app: 12,
                installation: 345,
                private_key: SecretText::new(key),
            }))
        };
        let token = |text: &str| Ok(Credentials::Token(SecretText::new(text)));
        let wrong = |text: &str| Err(text.to_owned());
        use ForgeType::{Gitea, Github, Gitlab};
        type Pairs = &'static [(&'static str, &'static str)];
        let whole: Pairs = &[
            (APP_ID, "12\n"),
            (INSTALLATION_ID, "345"),
            (PRIVATE_KEY, "pem\n"),
        ];
        let cases: [(Pairs, ForgeType, Result<Credentials, String>); 12] = [
            (&[("token", "t\n")], Github, token("t")),
            (&[("token", "t")], Gitlab, token("t")),
            (&[("token", "t")], Gitea, token("t")),
            (
                &[("token", " \n")],
                Github,
                wrong("no key token, or it is empty"),
            ),
            (&[], Github, wrong("no key token, or it is empty")),
            (whole, Github, app("pem")),
            (
                whole,
                Gitea,
                wrong("keys of a GitHub App, but the forge is gitea"),
            ),
            (
                &[(APP_ID, "12"), (INSTALLATION_ID, "345")],
                Github,
                wrong("no key githubAppPrivateKey, or it is empty"),
            ),
            (
                &[(PRIVATE_KEY, "pem")],
                Github,
                wrong("no key githubAppID, or it is empty"),
            ),
            (
                &[
                    (APP_ID, "x"),
                    (INSTALLATION_ID, "345"),
                    (PRIVATE_KEY, "pem"),
                ],
                Github,
                wrong("githubAppID is no number"),
            ),
            (
                &[
                    (APP_ID, "12"),
                    (INSTALLATION_ID, "-1"),
                    (PRIVATE_KEY, "pem"),
                ],
                Github,
                wrong("githubAppInstallationID is no number"),
            ),
            (
                &[
                    ("token", "t"),
                    (APP_ID, "12"),
                    (INSTALLATION_ID, "345"),
                    (PRIVATE_KEY, "pem"),
                ],
                Github,
                wrong("both token and keys of a GitHub App: remove one"),
            ),
        ];
        for (pairs, kind, want) in cases {
            let data = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
                .collect();
            assert_eq!(Credentials::of(&data, kind), want, "{pairs:?} {kind:?}");
        }
    }

    #[test]
    fn identities_differ_with_the_key_and_tell_nothing() {
        let app = |key: &str| AppCredentials {
            app: 1,
            installation: 2,
            private_key: SecretText::new(key),
        };
        assert_ne!(app("a").identity(), app("b").identity());
        assert_eq!(app("a").identity(), app("a").identity());
        let token = Credentials::Token(SecretText::new("t0ken"));
        assert!(!format!("{token:?} {}", token.identity()).contains("t0ken"));
    }
}
