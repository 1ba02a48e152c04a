//! Objects that people name on the command line, and everything that belongs to the same cluster.

use std::{fmt, str::FromStr};

use fleetwright_api::{Cluster, Machine, MachineDeployment, MachineSet, meta};
use fleetwright_core::why::Scene;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use crate::{
    client::{self, Connection},
    error::Failure,
};

/// A kind that commands are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cluster,
    Pool,
    Set,
    Machine,
    HealthCheck,
    Node,
}

/// A kind and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Pool => "MachineDeployment",
            Self::Set => "MachineSet",
            Self::Machine => "Machine",
            Self::HealthCheck => "MachineHealthCheck",
            Self::Node => "Node",
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.name)
    }
}

impl FromStr for Named {
    type Err = String;

    /// Kinds by the words that kubectl takes: singular, plural or short.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is no KIND/NAME, such as md/web, cluster/prod-eu or machine/web-a1b2-3"
            )
        };
        let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
        let kind = match kind.to_lowercase().as_str() {
            "cluster" | "clusters" | "cl" => Kind::Cluster,
            "machinedeployment" | "machinedeployments" | "md" | "pool" => Kind::Pool,
            "machineset" | "machinesets" | "ms" => Kind::Set,
            "machine" | "machines" | "ma" => Kind::Machine,
            "machinehealthcheck" | "machinehealthchecks" | "mhc" | "mhcs" => Kind::HealthCheck,
            "node" | "nodes" | "no" => Kind::Node,
            _ => return Err(wrong()),
        };
        if name.is_empty() || name.contains('/') {
            return Err(wrong());
        }
        Ok(Self {
            kind,
            name: name.to_owned(),
        })
    }
}

/// The object that a command is about.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Object {
    /// The object: md/web, cluster/prod-eu, ms/web-a1b2, machine/web-a1b2-3, or the kinds' full names; `why` takes mhc/web and node/web-a1b2-3 too.
    #[arg(value_name = "KIND/NAME")]
    pub(crate) object: Named,
    /// Its namespace.
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    #[command(flatten)]
    connection: Connection,
}

impl Object {
    /// A client of the engine.
    ///
    /// # Errors
    /// No kubeconfig that can be used.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.connection.client().await
    }

    /// The object itself.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub(crate) async fn get<K>(&self, client: &Client) -> Result<K, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + fmt::Debug
            + DeserializeOwned,
    {
        let name = &self.object.name;
        self.find(client, name).await?.ok_or_else(|| {
            let what = format!(
                "there is no {} in namespace {}",
                self.object, self.namespace
            );
            Failure::input(what)
                .hint("name its namespace with -n; `kubectl get` lists what there is")
        })
    }

    /// The Machine of the node that is named.
    ///
    /// # Errors
    /// There is none or more than one, or they cannot be read.
    pub(crate) async fn machine_of_node(&self, client: &Client) -> Result<Machine, Failure> {
        let mut machines: Vec<Machine> = self.list(client, "").await?;
        machines.retain(|m| {
            let node = m.status.as_ref().and_then(|s| s.node_ref.as_ref());
            node.is_some_and(|node| node.name == self.object.name)
        });
        let name = &self.object.name;
        if let [one, other, ..] = machines.as_slice() {
            let (one, other) = (one.name_any(), other.name_any());
            let what = format!("machines {one} and {other} both have a node {name}");
            return Err(Failure::input(what).hint(format!("name one, as machine/{one}")));
        }
        machines.pop().ok_or_else(|| {
            let what = format!(
                "no Machine in namespace {} has a node {name}",
                self.namespace
            );
            Failure::input(what).hint(
                "name its namespace with -n; nodes of groups that a provider runs have no Machine",
            )
        })
    }

    /// An object of the same namespace; `None` when it is not there.
    async fn find<K>(&self, client: &Client, name: &str) -> Result<Option<K>, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + fmt::Debug
            + DeserializeOwned,
    {
        let found = Api::<K>::namespaced(client.clone(), &self.namespace)
            .get_opt(name)
            .await;
        found.map_err(|e| client::failure(&format!("cannot read {} {name}", K::kind(&())), e))
    }

    /// Objects of the same namespace by their labels.
    async fn list<K>(&self, client: &Client, labels: &str) -> Result<Vec<K>, Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + fmt::Debug
            + DeserializeOwned,
    {
        let params = ListParams::default().labels(labels);
        let found = Api::<K>::namespaced(client.clone(), &self.namespace)
            .list(&params)
            .await;
        found
            .map(|list| list.items)
            .map_err(|e| client::failure(&format!("cannot list {}", K::plural(&())), e))
    }

    /// The sets of a pool.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) async fn sets(
        &self,
        client: &Client,
        pool: &MachineDeployment,
    ) -> Result<Vec<MachineSet>, Failure> {
        let labels = format!("{}={}", meta::LABEL_DEPLOYMENT_NAME, pool.name_any());
        let mut sets: Vec<MachineSet> = self.list(client, &labels).await?;
        let uid = pool.uid();
        sets.retain(|set| meta::controller_of(set).is_some_and(|o| Some(&o.uid) == uid.as_ref()));
        Ok(sets)
    }

    /// A Cluster of the same namespace, and everything that belongs to it.
    ///
    /// # Errors
    /// Something of it cannot be read.
    pub(crate) async fn family(&self, client: &Client, cluster: &str) -> Result<Family, Failure> {
        let labels = format!("{}={cluster}", meta::LABEL_CLUSTER_NAME);
        let mut pools: Vec<MachineDeployment> = self.list(client, "").await?;
        pools.retain(|pool| pool.spec.cluster_name == cluster);
        Ok(Family {
            cluster: self.find(client, cluster).await?,
            pools,
            sets: self.list(client, &labels).await?,
            machines: self.list(client, &labels).await?,
        })
    }
}

/// A Cluster and everything that belongs to it.
pub(crate) struct Family {
    cluster: Option<Cluster>,
    pools: Vec<MachineDeployment>,
    sets: Vec<MachineSet>,
    machines: Vec<Machine>,
}

impl Family {
    pub(crate) fn scene(&self) -> Scene<'_> {
        Scene {
            cluster: self.cluster.as_ref(),
            pools: &self.pools,
            sets: &self.sets,
            machines: &self.machines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_for_kubectl() {
        for (text, want) in [
            ("md/web", "MachineDeployment web"),
            ("MachineDeployment/web", "MachineDeployment web"),
            ("machinesets/a-1", "MachineSet a-1"),
            ("machine/a-1-2", "Machine a-1-2"),
            ("cl/eu", "Cluster eu"),
            ("mhc/web", "MachineHealthCheck web"),
            ("nodes/a-1-2", "Node a-1-2"),
        ] {
            assert_eq!(text.parse::<Named>().unwrap().to_string(), want);
        }
        for text in ["web", "pod/web", "md/", "md/a/b", "/web"] {
            assert!(text.parse::<Named>().is_err(), "{text}");
        }
    }
}
