//! Lets what kubeadm installed follow the version that all of the control plane runs.

use std::{error::Error as _, time::Duration};

use fleetwright_api::{Cluster, Machine, meta, version::Version};
use fleetwright_core::{addons::Addons, control_plane::running_version};
use tokio::time::Instant;

use super::{SELDOM, is_ours, steps};
use crate::{cache::name_of, reconcile::Shared};

/// Shortest and longest time between two tries.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// What came of the last try.
#[derive(Clone)]
pub(super) struct Tried {
    version: Version,
    addons: Addons,
    at: Instant,
    /// How long after it the next one is due; `None` where there is nothing left to do.
    pause: Option<Duration>,
}

impl Tried {
    /// Time until the next try.
    fn left(&self) -> Option<Duration> {
        Some(self.pause?.saturating_sub(self.at.elapsed()))
    }
}

/// How far what kubeadm installed has followed to what serves; `None` where that is not our business, and before anything serves. Done
/// once for each version in this process; what failed is tried again, and what was left to people is looked at now and then.
pub(crate) async fn follow(
    shared: &Shared,
    cluster: &Cluster,
    control_plane: &[Machine],
) -> Option<Addons> {
    let rests = cluster.metadata.deletion_timestamp.is_some() || meta::is_paused(cluster);
    if rests || !is_ours(shared, cluster) {
        return None;
    }
    let version = running_version(control_plane)?;
    let key = name_of(cluster);
    let last = shared.grounds.with(&key, |known| known.tried.clone());
    let last = last.filter(|tried| tried.version == version);
    if let Some(tried) = &last
        && tried.left().is_none_or(|left| !left.is_zero())
    {
        return Some(tried.addons.clone());
    }
    if shared.nodes.reachable(&key.0, &key.1) != Some(true) {
        // Nothing was tried: once it answers it is tried at once.
        let why = || Addons::Behind("the cluster's API does not answer".into());
        return Some(last.map_or_else(why, |tried| tried.addons));
    }
    let (addons, pause) = match steps::after(shared, cluster, &version).await {
        Ok(left) if left.is_empty() => (Addons::UpToDate, None),
        Ok(left) => (Addons::LeftAlone(left.join("; ")), Some(SELDOM)),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            let why = format!("{error}{}", cause.unwrap_or_default());
            tracing::warn!(cluster = %key.1, %version, error = %why, "what follows the control plane's version is not done");
            let failed = |tried: &Tried| matches!(tried.addons, Addons::Behind(_));
            let before = last.filter(failed).and_then(|tried| tried.pause);
            let pause = before.map_or(SHORTEST, |pause| (pause * 2).min(LONGEST));
            (Addons::Behind(why), Some(pause))
        }
    };
    let tried = Tried {
        version,
        addons: addons.clone(),
        at: Instant::now(),
        pause,
    };
    shared.grounds.with(&key, |known| known.tried = Some(tried));
    Some(addons)
}

/// Time until [`follow`] has something to do again.
pub(crate) fn next(shared: &Shared, cluster: &Cluster) -> Option<Duration> {
    let tried = |known: &mut super::Known| known.tried.as_ref()?.left();
    shared.grounds.with(&name_of(cluster), tried)
}
