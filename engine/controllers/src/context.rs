//! What the controllers need from outside.

use std::sync::Arc;

use fleetwright_api::{decision::Trail, random::Random, time::Clock};
use fleetwright_core::catalogue::Catalogue;
use fleetwright_providers::{ClusterConnections, EtcdMembers, Registry};

use crate::{escrow::Escrow, metrics::Metrics};

/// What the controllers need from outside; nothing in it knows where the API lives.
#[derive(Clone)]
pub struct Context {
    /// Client of the API that holds our kinds.
    pub client: kube::Client,
    /// The providers.
    pub providers: Registry,
    /// The way to workload clusters.
    pub connections: Arc<dyn ClusterConnections>,
    /// The members of the clusters' etcd.
    pub etcd: Arc<dyn EtcdMembers>,
    /// Where the keys of clusters are kept beside the state, if anywhere.
    pub escrow: Option<Escrow>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of chance.
    pub random: Arc<dyn Random>,
    /// Name of this installation: part of every cluster's key.
    pub installation: String,
    /// Where counts go.
    pub metrics: Metrics,
    /// Where decisions are written down.
    pub trail: Trail,
}

impl Context {
    /// Keys of the labels by which providers tell nodes of their groups from others.
    pub(crate) fn group_labels(&self) -> Vec<String> {
        let providers = self.providers.names();
        let providers = providers.filter_map(|name| self.providers.get(name));
        let halves = providers.filter_map(|provider| provider.pools());
        halves.map(|pools| pools.node_label().to_owned()).collect()
    }

    /// The providers' schemas as core wants them.
    pub(crate) fn catalogue(&self) -> Catalogue {
        let mut catalogue = Catalogue::default();
        for schema in self.providers.schemas() {
            catalogue.insert(&schema.api_version, &schema.kind, schema.schema);
        }
        catalogue
    }
}
