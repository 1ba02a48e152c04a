//! When the serving certificates of clusters' API servers expire: looked at seldom, for they change once a year.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleetwright_api::Machine;
use fleetwright_core::control_plane::has_served;
use fleetwright_providers::ClusterRef;
use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::reconcile::{Shared, node_name};

/// Time between two looks at a cluster while nothing changes.
const WELL: Duration = Duration::from_secs(3600);
/// The same after a look that did not show all of it; doubled each time.
const MISSED: Duration = Duration::from_secs(60);

/// What a cluster showed last.
struct Seen {
    /// The machines that were looked for.
    machines: BTreeSet<String>,
    /// By the name of the node.
    expire: BTreeMap<String, Timestamp>,
    at: Instant,
    holds: Duration,
}

/// What each cluster showed last, by the Cluster's namespace and name.
#[derive(Default)]
pub(crate) struct Certificates {
    clusters: Mutex<BTreeMap<(String, String), Seen>>,
}

impl Certificates {
    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.clusters.lock().remove(&key);
    }
}

/// When the certificates expire, by the name of the node that each API server runs on, as far as that is known. Asks where a machine is
/// new, and now and then. Nobody is woken for it: etcd is looked at far more often.
pub(crate) async fn look(
    shared: &Shared,
    cluster: &ClusterRef,
    control_plane: &[Machine],
) -> BTreeMap<String, Timestamp> {
    let stays = |m: &&Machine| m.metadata.deletion_timestamp.is_none() && has_served(m);
    let serving = || control_plane.iter().filter(stays);
    let machines: BTreeSet<String> = serving().map(ResourceExt::name_any).collect();
    if machines.is_empty() {
        return BTreeMap::new();
    }
    let key = (cluster.namespace.clone(), cluster.name.clone());
    let (mut expire, mut holds) = (BTreeMap::new(), MISSED);
    if let Some(seen) = shared.certificates.clusters.lock().get(&key) {
        if machines.is_subset(&seen.machines) {
            if seen.at.elapsed() < seen.holds {
                return seen.expire.clone();
            }
            holds = (seen.holds * 2).min(WELL);
        }
        expire = seen.expire.clone();
    }
    match shared
        .context
        .connections
        .serving_certificates(cluster)
        .await
    {
        Ok(shown) => {
            let all = serving().all(|m| node_name(m).is_some_and(|node| shown.contains_key(node)));
            if all {
                holds = WELL;
            }
            expire = shown;
        }
        // What was known goes on being so.
        Err(error) => tracing::debug!(cluster = %cluster.name, %error,
            "the certificates of the API servers cannot be looked at"),
    }
    let seen = Seen {
        machines,
        expire: expire.clone(),
        at: Instant::now(),
        holds,
    };
    shared.certificates.clusters.lock().insert(key, seen);
    expire
}
