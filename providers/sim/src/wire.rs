//! What the simulated cloud's HTTP service and its client say to each other.

use std::collections::BTreeSet;

use fleetwright_providers::{
    Account, ClusterRef, CreateInstance, ListScope, ProviderError, UpdateInstance,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{faults::Fault, latency::Latency};

/// Header by which one of several engines says which it is.
pub(crate) const CALLER: &str = "fleetwright-caller";

/// An answer: never bare, so that nothing else that answers is taken for a simulated cloud.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer<T> {
    /// What was asked for.
    Result(T),
    /// Why not.
    Error(ProviderError),
}

/// `POST /instances/create`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    pub(crate) account: Account,
    pub(crate) order: CreateInstance,
}

/// `POST /instances/get`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Get {
    pub(crate) account: Account,
    pub(crate) id: String,
}

/// `POST /instances/list`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct List {
    pub(crate) account: Account,
    /// Key of the cluster; everything in the account where there is none.
    #[serde(default)]
    pub(crate) cluster_key: Option<String>,
}

impl List {
    pub(crate) fn new(account: &Account, scope: &ListScope) -> Self {
        Self {
            account: account.clone(),
            cluster_key: match scope {
                ListScope::Account => None,
                ListScope::Cluster(key) => Some(key.clone()),
            },
        }
    }

    pub(crate) fn scope(&self) -> ListScope {
        self.cluster_key
            .clone()
            .map_or(ListScope::Account, ListScope::Cluster)
    }
}

/// `POST /instances/update`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    pub(crate) account: Account,
    pub(crate) id: String,
    pub(crate) change: UpdateInstance,
}

/// `POST /instances/delete`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Delete {
    pub(crate) account: Account,
    pub(crate) id: String,
    pub(crate) instance_key: String,
}

/// `POST /instances/missing`: what is missing to boot a version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Missing {
    pub(crate) version: String,
    pub(crate) config: Value,
}

/// `PUT /versions`, and what `GET /versions` shows: `null` for all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Versions {
    pub(crate) versions: Option<BTreeSet<String>>,
}

/// `GET /faults`, and the answer to `POST /faults`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultList {
    pub(crate) faults: Vec<Fault>,
}

/// `PUT /latencies`, and what `GET /latencies` shows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LatencyList {
    pub(crate) latencies: Vec<Latency>,
}

/// The kubeconfig of a cluster whose cloud is served at `url`. There are no users: the cloud listens on loopback alone.
pub(crate) fn kubeconfig(cluster: &ClusterRef, url: &str) -> String {
    let (name, key) = (&cluster.name, &cluster.key);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
         clusters:\n- name: {name}\n  cluster:\n    server: {url}/clusters/{key}\n\
         contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n\
         users:\n- name: {name}\n  user: {{}}\n"
    )
}
