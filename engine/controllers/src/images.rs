//! Whether the providers can boot every version on the way of an upgrade, asked before anything of it moves.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{
    Cluster, MachineDeployment, ProviderAccount, ProviderConfig, machine::MachineTemplateSpec,
};
use fleetwright_core::{
    images::{Image, on_the_way},
    upgrade::{Blocker, Path},
};
use fleetwright_providers::lacks_image;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::reconcile::{Error, Shared, account_provider};

/// How long it holds that an image is there.
const THERE: Duration = Duration::from_secs(300);
/// How long it holds that one is missing, or that nobody can tell.
pub(crate) const MISSING: Duration = Duration::from_secs(5);

/// What the providers said last.
#[derive(Default)]
pub(crate) struct Images {
    known: Mutex<BTreeMap<Image, (Instant, Option<String>)>>,
}

impl Images {
    fn see(&self, image: &Image) -> Option<Option<String>> {
        let known = self.known.lock();
        let (until, missing) = known.get(image)?;
        (Instant::now() < *until).then(|| missing.clone())
    }

    fn keep(&self, image: Image, missing: Option<String>) {
        let now = Instant::now();
        let until = now + if missing.is_some() { MISSING } else { THERE };
        let mut known = self.known.lock();
        known.retain(|_, (until, _)| *until > now);
        known.insert(image, (until, missing));
    }
}

/// The first version on the way that the control plane, or a pool that follows it, has no image of.
pub(crate) async fn blocker(
    shared: &Shared,
    cluster: &Cluster,
    pools: &[MachineDeployment],
    path: &Path,
) -> Option<Blocker> {
    for one in on_the_way(cluster, pools, path, &shared.catalogue) {
        if let Some(why) = missing(shared, &one.image).await {
            return Some(one.missing(why));
        }
    }
    None
}

/// Effective settings with what aliases in them stand for now: what a set or a machine of the control plane keeps from when it is made.
pub(crate) async fn resolved(
    shared: &Shared,
    namespace: &str,
    content: &MachineTemplateSpec,
) -> Result<ProviderConfig, Error> {
    let config = &content.provider_config;
    let (provider, account) = match account_provider(shared, namespace, config.account()) {
        Ok(found) => found,
        Err(error) if error.of_provider().is_some() => return Err(error),
        // What is wrong with the account is said where machines are made.
        Err(_) => return Ok(config.clone()),
    };
    let (version, written) = (content.version.as_deref(), config.to_value());
    let found = provider.resolve(&account, version.unwrap_or_default(), &written);
    Ok(match found.await? {
        Value::Object(fields) => fields.into(),
        _ => config.clone(),
    })
}

async fn missing(shared: &Shared, image: &Image) -> Option<String> {
    // What is wrong with the account is said where machines are made.
    let account = shared.caches.get::<ProviderAccount>("", &image.account)?;
    let provider = shared.context.providers.get(&account.spec.provider)?;
    if let Some(known) = shared.images.see(image) {
        return known;
    }
    let asked = match shared.account(&account) {
        Ok(account) => {
            lacks_image(provider.as_ref(), &account, &image.version, &image.config()).await
        }
        Err(error) => Err(error.to_string()),
    };
    let missing = match asked {
        Ok(missing) => missing.map(|error| error.message),
        Err(why) => Some(why),
    };
    shared.images.keep(image.clone(), missing.clone());
    missing
}
