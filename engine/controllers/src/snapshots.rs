//! Snapshots of clusters' etcd, taken beside the reconciles: gigabytes take their time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleetwright_api::version::Version;
use fleetwright_core::control_plane;
use fleetwright_providers::ClusterRef;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};

use crate::{
    escrow::{Error, Escrow},
    queue::Key,
    reconcile::Shared,
};

/// Shortest and longest time between two tries.
const SHORTEST: SignedDuration = SignedDuration::from_secs(5);
const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// Snapshots that are taken at once.
const AT_ONCE: usize = 4;

/// The snapshots of all clusters, by the Cluster's namespace and name.
pub(crate) struct Snapshots {
    clusters: Mutex<BTreeMap<(String, String), Known>>,
    lanes: Semaphore,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            clusters: Mutex::default(),
            lanes: Semaphore::new(AT_ONCE),
        }
    }
}

/// What is known of a cluster's snapshots.
#[derive(Default)]
struct Known {
    /// When the newest was taken, and what ran then.
    newest: Option<(Timestamp, Version)>,
    /// Failures in a row, why the last one was, and when to try again.
    failed: Option<(u32, String, Timestamp)>,
    task: Option<AbortHandle>,
}

/// What is known where an upgrade is about to begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    newest: Option<(Timestamp, Version)>,
    failed: Option<String>,
}

impl Seen {
    /// For the decision.
    pub(crate) fn kept(&self) -> control_plane::Snapshots<'_> {
        control_plane::Snapshots::Kept {
            newest: self.newest.as_ref().map(|(at, of)| (*at, of)),
            failed: self.failed.as_deref(),
        }
    }
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> SignedDuration {
    let doublings = failures.saturating_sub(1).min(6);
    (SHORTEST * (1 << doublings)).min(LONGEST)
}

/// What is known of a cluster's snapshots in `escrow`.
pub(crate) async fn look(shared: &Shared, escrow: &Escrow, cluster: &ClusterRef) -> Seen {
    let key = (cluster.namespace.clone(), cluster.name.clone());
    let seen = |known: &Known| Seen {
        newest: known.newest.clone(),
        failed: known.failed.as_ref().map(|(_, why, _)| why.clone()),
    };
    let known = shared.snapshots.clusters.lock().get(&key).map(seen);
    if let Some(known) = known {
        return known;
    }
    // Of a process before this one.
    let newest = match escrow.snapshots(cluster).await {
        Ok(mut all) => all.pop().map(|(at, of, _)| (at, of)),
        Err(error) => {
            let failed = Some(error.to_string());
            return Seen {
                newest: None,
                failed,
            };
        }
    };
    let mut clusters = shared.snapshots.clusters.lock();
    let known = clusters.entry(key).or_default();
    known.newest = newest;
    seen(known)
}

impl Snapshots {
    /// Takes a snapshot of a cluster's etcd, where none is taken and the pause after a failure is over. Its Cluster is looked at afterwards.
    pub(crate) fn begin(
        &self,
        shared: &Arc<Shared>,
        (cluster, version): (ClusterRef, Version),
        tasks: &mut JoinSet<()>,
    ) {
        let key = (cluster.namespace.clone(), cluster.name.clone());
        let mut clusters = self.clusters.lock();
        let known = clusters.entry(key).or_default();
        let waits = known.failed.as_ref();
        let waits = waits.is_some_and(|(_, _, again)| *again > shared.now());
        if !waits && known.task.as_ref().is_none_or(AbortHandle::is_finished) {
            known.task = Some(tasks.spawn(take(Arc::clone(shared), cluster, version)));
        }
    }

    /// How long until a snapshot that failed is tried again.
    pub(crate) fn again(&self, cluster: &ClusterRef, now: Timestamp) -> Option<Duration> {
        let key = (cluster.namespace.clone(), cluster.name.clone());
        let clusters = self.clusters.lock();
        let known = clusters.get(&key)?;
        let runs = known.task.as_ref().is_some_and(|task| !task.is_finished());
        let (_, _, again) = known.failed.as_ref().filter(|_| !runs)?;
        let wait = again.duration_since(now).max(SignedDuration::from_secs(1));
        Some(wait.unsigned_abs())
    }

    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let gone = self.clusters.lock().remove(&key);
        if let Some(task) = gone.and_then(|known| known.task) {
            task.abort();
        }
    }
}

async fn take(shared: Arc<Shared>, cluster: ClusterRef, version: Version) {
    let Some(escrow) = &shared.context.escrow else {
        return;
    };
    // It is never closed.
    let _lane = shared.snapshots.lanes.acquire().await;
    let now = shared.now();
    let taken = async {
        let coming = shared.context.etcd.snapshot(&cluster).await?;
        let put = escrow.put_snapshot(&cluster, &version, coming, now);
        put.await
    };
    let taken: Result<(), Error> = taken.await;
    let key = (cluster.namespace.clone(), cluster.name.clone());
    if let Some(known) = shared.snapshots.clusters.lock().get_mut(&key) {
        // The next step begins by what this says: it is finished.
        known.task = None;
        match taken {
            Ok(()) => {
                tracing::info!(cluster = %cluster.name, %version, "a snapshot of etcd is kept");
                known.newest = Some((now, version));
                known.failed = None;
            }
            Err(error) => {
                tracing::warn!(cluster = %cluster.name, %version, %error, "no snapshot of etcd is kept");
                let failures = known.failed.as_ref().map_or(0, |(n, _, _)| *n);
                let failures = failures.saturating_add(1);
                let again = shared.now().checked_add(pause(failures));
                let again = again.unwrap_or(Timestamp::MAX);
                known.failed = Some((failures, error.to_string(), again));
            }
        }
    }
    shared
        .queue
        .add(Key::Cluster(cluster.namespace, cluster.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_five_minutes() {
        let seconds: Vec<i64> = (1..=8).map(|n| pause(n).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300]);
    }
}
