//! Whether the providers can boot every version on the way of an upgrade, asked before anything of it moves.

use std::{collections::BTreeMap, time::Duration};

use fleetwright_api::{
    Cluster, MachineDeployment, ProviderAccount, ProviderConfig, names, version::Version,
};
use fleetwright_core::upgrade::{Blocker, Path};
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::reconcile::{Shared, account_of};

/// How long it holds that an image is there.
const THERE: Duration = Duration::from_secs(300);
/// How long it holds that one is missing, or that nobody can tell.
pub(crate) const MISSING: Duration = Duration::from_secs(5);

/// Account, version and digest of the settings.
type Key = (String, String, String);

/// What the providers said last.
#[derive(Default)]
pub(crate) struct Images {
    known: Mutex<BTreeMap<Key, (Instant, Option<String>)>>,
}

impl Images {
    fn see(&self, key: &Key) -> Option<Option<String>> {
        let known = self.known.lock();
        let (until, missing) = known.get(key)?;
        (Instant::now() < *until).then(|| missing.clone())
    }

    fn keep(&self, key: Key, missing: Option<String>) {
        let now = Instant::now();
        let until = now + if missing.is_some() { MISSING } else { THERE };
        let mut known = self.known.lock();
        known.retain(|_, (until, _)| *until > now);
        known.insert(key, (until, missing));
    }
}

/// The first version on the way that the control plane, or a pool that follows it, has no image of.
pub(crate) async fn blocker(
    shared: &Shared,
    cluster: &Cluster,
    pools: &[MachineDeployment],
    path: &Path,
) -> Option<Blocker> {
    let machines = cluster.spec.control_plane.machines.as_ref()?;
    let config = &machines.template.spec.provider_config;
    for version in path.control_plane() {
        if let Some(why) = missing(shared, config, version).await {
            return Some(of(version, "the control plane".into(), why));
        }
    }
    for pool in pools {
        let spec = &pool.spec.template.spec;
        let stays = spec.version.is_some() || pool.metadata.deletion_timestamp.is_some();
        if stays || pool.spec.replicas == Some(0) {
            continue;
        }
        for version in path.workers() {
            if let Some(why) = missing(shared, &spec.provider_config, version).await {
                return Some(of(version, format!("pool {}", pool.name_any()), why));
            }
        }
    }
    None
}

fn of(version: &Version, of: String, why: String) -> Blocker {
    let version = version.clone();
    Blocker::Image { version, of, why }
}

async fn missing(shared: &Shared, written: &ProviderConfig, version: &Version) -> Option<String> {
    // What is wrong with the account is said where machines are made.
    let account = shared
        .caches
        .get::<ProviderAccount>("", written.account())?;
    let provider = shared.context.providers.get(&account.spec.provider)?;
    let config = shared.catalogue.effective(written).to_value();
    let digest = names::short_hash(["config", &config.to_string()], 16);
    let version = version.to_string();
    let key = (account.name_any(), version.clone(), digest);
    if let Some(known) = shared.images.see(&key) {
        return known;
    }
    let asked = provider
        .missing_image(&account_of(&account), &version, &config)
        .await;
    let missing = asked.unwrap_or_else(|error| {
        Some(format!(
            "the provider cannot say whether there is an image: {error}"
        ))
    });
    shared.images.keep(key, missing.clone());
    missing
}
