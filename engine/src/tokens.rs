//! Tokens of GitHub Apps for fetches, from where commit statuses have them too: one cache for both.

use std::{error::Error, sync::Arc};

use async_trait::async_trait;
use fleetwright_api::secret::SecretText;
use fleetwright_gitops::source::{AppTokens, GithubApp};
use fleetwright_webhook::forge::{self, AppCredentials, PUBLIC_GITHUB_API};
use jiff::Timestamp;

/// Asks the forge.
pub(crate) struct Tokens(pub(crate) Arc<forge::AppTokens>);

#[async_trait]
impl AppTokens for Tokens {
    async fn token(
        &self,
        app: &GithubApp,
        now: Timestamp,
    ) -> Result<SecretText, Box<dyn Error + Send + Sync>> {
        let number = |key: &str, text: &str| {
            let wrong =
                |_| format!("key {key} of the Secret of spec.source.secretRef is no number");
            text.trim().parse::<u64>().map_err(wrong)
        };
        let credentials = AppCredentials {
            app: number("githubAppID", &app.id)?,
            installation: number("githubAppInstallationID", &app.installation)?,
            private_key: app.private_key.clone(),
        };
        let api = app.api_url.as_deref().unwrap_or(PUBLIC_GITHUB_API);
        Ok(self.0.token(&credentials, api, now).await?)
    }
}
