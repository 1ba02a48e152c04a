//! What machines of a plan boot from, as their providers say it now.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetwright_api::ProviderAccount;
use fleetwright_controllers::with_credentials;
use fleetwright_core::images::Image;
use fleetwright_providers::{BootImage, Provider, Registry};
use kube::{Api, Client};
use tokio::time::{Instant, timeout_at};

/// For how long a plan waits for all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What machines would boot from, of those images whose providers say so: each alias is asked for once. What cannot be told in time is
/// `None`: no plan fails for it.
pub(crate) async fn boot_images(
    client: &Client,
    providers: &Registry,
    images: &BTreeSet<Image>,
) -> BTreeMap<Image, Option<String>> {
    told(client, providers, images, Instant::now() + PATIENCE).await
}

async fn told(
    client: &Client,
    providers: &Registry,
    images: &BTreeSet<Image>,
    until: Instant,
) -> BTreeMap<Image, Option<String>> {
    let mut accounts: BTreeMap<&str, Option<ProviderAccount>> = BTreeMap::new();
    let mut aliases = BTreeMap::new();
    let mut told = BTreeMap::new();
    for image in images {
        let name = image.account.as_str();
        if !accounts.contains_key(name) {
            let api = Api::<ProviderAccount>::all(client.clone());
            let found = timeout_at(until, api.get_opt(name)).await;
            accounts.insert(name, found.ok().and_then(Result::ok).flatten());
        }
        let account = accounts.get(name).and_then(Option::as_ref);
        let Some(account) = account else { continue };
        let Some(provider) = providers.get(&account.spec.provider) else {
            continue;
        };
        let found = match provider.boot_image(&image.config()) {
            BootImage::Unsaid => continue,
            BootImage::Named(image) => Some(image),
            BootImage::Alias(alias) => {
                let key = (name, image.version.as_str(), alias.to_string());
                match aliases.get(&key) {
                    Some(known) => Option::clone(known),
                    None => {
                        let asked = stands_for(client, provider.as_ref(), account, image);
                        let found = timeout_at(until, asked).await.ok().flatten();
                        aliases.insert(key, found.clone());
                        found
                    }
                }
            }
        };
        told.insert(image.clone(), found);
    }
    told
}

/// What the alias in these settings stands for now.
async fn stands_for(
    client: &Client,
    provider: &dyn Provider,
    account: &ProviderAccount,
    image: &Image,
) -> Option<String> {
    let account = with_credentials(client, account).await.ok()?;
    let config = image.config();
    let found = provider.resolve(&account, &image.version, &config).await;
    let found = found.inspect_err(|error| {
        tracing::debug!(account = account.name, %error, "nobody can tell what machines boot from");
    });
    match provider.boot_image(&found.ok()?) {
        BootImage::Named(image) => Some(image),
        BootImage::Alias(_) | BootImage::Unsaid => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use async_trait::async_trait;
    use fleetwright_core::catalogue::Catalogue;
    use fleetwright_providers::{
        Account, ConfigError, ConfigSchema, CreateInstance, Instance, ListScope, ProviderError,
        UpdateInstance,
    };
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A provider of images alone: `newest` stands for one, `silent` is never told, `none` stands for nothing.
    #[derive(Default)]
    struct Fake {
        asked: AtomicUsize,
    }

    fn no<T>() -> Result<T, ProviderError> {
        Err(ProviderError::Terminal {
            message: "not here".into(),
        })
    }

    #[async_trait]
    impl Provider for Fake {
        fn name(&self) -> &str {
            "fake"
        }

        fn schemas(&self) -> Vec<ConfigSchema> {
            Vec::new()
        }

        fn boot_image(&self, config: &Value) -> BootImage {
            match config["image"].as_str() {
                Some(image) => BootImage::Named(image.to_owned()),
                None if config["alias"].is_null() => BootImage::Unsaid,
                None => BootImage::Alias(config["alias"].clone()),
            }
        }

        async fn resolve(
            &self,
            account: &Account,
            version: &str,
            config: &Value,
        ) -> Result<Value, ProviderError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match config["alias"].as_str() {
                Some("newest") => Ok(json!({"image": format!("{}-{version}", account.name)})),
                Some("silent") => std::future::pending().await,
                _ => no(),
            }
        }

        async fn create(&self, _: &Account, _: &CreateInstance) -> Result<Instance, ProviderError> {
            no()
        }

        async fn get(&self, _: &Account, _: &str) -> Result<Option<Instance>, ProviderError> {
            no()
        }

        async fn list(&self, _: &Account, _: &ListScope) -> Result<Vec<Instance>, ProviderError> {
            no()
        }

        async fn update(
            &self,
            _: &Account,
            _: &str,
            _: &UpdateInstance,
        ) -> Result<Instance, ProviderError> {
            no()
        }

        async fn delete(&self, _: &Account, _: &str, _: &str) -> Result<(), ProviderError> {
            no()
        }

        async fn missing_image(
            &self,
            _: &Account,
            _: &str,
            _: &Value,
        ) -> Result<Option<ConfigError>, ProviderError> {
            no()
        }
    }

    /// An API that has accounts of the provider, and none that is called `gone`.
    fn api() -> Client {
        let service = tower::service_fn(async |request: http::Request<Body>| {
            let name = request.uri().path().rsplit('/').next().unwrap_or_default();
            let (code, body) = match name {
                "gone" => (
                    404,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}),
                ),
                name => (
                    200,
                    json!({
                        "apiVersion": "fleetwright.dev/v1alpha1", "kind": "ProviderAccount",
                        "metadata": {"name": name}, "spec": {"provider": "fake", "region": "eu"},
                    }),
                ),
            };
            let answer = http::Response::builder().status(code);
            answer
                .body(Body::from(body.to_string().into_bytes()))
                .map_err(tower::BoxError::from)
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn each_alias_is_asked_for_once_and_no_plan_waits_for_ever() {
        let fake = Arc::new(Fake::default());
        let providers = Registry::new([Arc::clone(&fake) as Arc<dyn Provider>]);
        let image = |account: &str, version: &str, mut config: Value| {
            config["account"] = json!(account);
            let config = serde_json::from_value(config).unwrap();
            Image::of(&config, version, &Catalogue::default())
        };
        let newest = |size: u32| json!({"alias": "newest", "size": size});
        let rows = [
            (image("a", "v1", newest(1)), Some(Some("a-v1"))),
            (image("a", "v1", newest(2)), Some(Some("a-v1"))),
            (image("a", "v2", newest(1)), Some(Some("a-v2"))),
            (image("b", "v1", newest(1)), Some(Some("b-v1"))),
            (image("a", "v1", json!({"image": "own"})), Some(Some("own"))),
            (image("a", "v1", json!({"alias": "none"})), Some(None)),
            (image("a", "v1", json!({})), None),
            (image("gone", "v1", newest(1)), None),
        ];
        let images: BTreeSet<Image> = rows.iter().map(|(image, _)| image.clone()).collect();
        let found = boot_images(&api(), &providers, &images).await;
        for (image, want) in rows {
            let got = found.get(&image).map(Option::as_deref);
            assert_eq!(got, want, "{image:?}");
        }
        assert_eq!(fake.asked.load(Ordering::SeqCst), 4);

        let silent = image("a", "v1", json!({"alias": "silent"}));
        let until = Instant::now() + Duration::from_millis(50);
        let found = told(&api(), &providers, &[silent.clone()].into(), until).await;
        assert_eq!(found.get(&silent), Some(&None));
    }
}
