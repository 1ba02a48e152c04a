//! The etcd of real clusters: asked through the port-forward of the cluster's API to the members' pods, with certificates of the
//! cluster's etcd authority.

mod credentials;
mod gateway;
mod view;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use fleetwright_api::{names, time::Clock};
use fleetwright_providers::{
    ClusterConnections, ClusterRef, ConnectionError, EtcdMember, EtcdMembers, Snapshot,
};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use self::{
    gateway::{Failure, Gateway, Parts},
    view::{Answer, View},
};
use crate::{
    Connections,
    connections::broken,
    pods::{self, ANSWER, NAMESPACE},
};

/// Labels of etcd's pods, as kubeadm makes them.
const PODS: &str = "component=etcd,tier=control-plane";
/// Longest time for a part of a snapshot: etcd sends 32 KiB each.
const PART: Duration = Duration::from_secs(30);
/// Time between two looks whether the leader is another.
const AGAIN: Duration = Duration::from_millis(100);

/// The etcd of clusters that [`Connections`] reaches.
pub struct Etcd {
    /// Of the API that holds the Secrets.
    api: Client,
    connections: Arc<Connections>,
    clock: Arc<dyn Clock>,
}

/// One member that answers, by the way to it.
struct Asked {
    gateway: Gateway,
    answer: Answer,
}

impl Etcd {
    /// The etcd of the clusters of `connections`; `api` holds the Secrets with their authorities, and certificates are made by `clock`.
    pub fn new(api: Client, connections: Arc<Connections>, clock: Arc<dyn Clock>) -> Self {
        Self {
            api,
            connections,
            clock,
        }
    }

    /// Asks all members at once; those that do not answer are left out.
    async fn ask(&self, cluster: &ClusterRef) -> Result<Vec<Asked>, ConnectionError> {
        let client = self.connections.client(cluster).await?;
        let tls = Arc::new(self.credentials(cluster).await?);
        let (api, pods) = pods::list(&client, PODS, "etcd's").await?;
        if pods.is_empty() {
            return Err(broken(format!(
                "no pod in {NAMESPACE} has the labels {PODS} of etcd's"
            )));
        }
        let ask = |pod: &Pod| {
            let (api, name, tls) = (api.clone(), pod.name_any(), Arc::clone(&tls));
            async move {
                let asked = timeout(ANSWER, ask_one(&api, &name, tls)).await;
                let asked = asked.unwrap_or_else(|_| Err("no answer".into()));
                asked.map_err(|why| format!("{name}: {why}"))
            }
        };
        let asked = join_all(pods.iter().map(ask)).await;
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for one in asked {
            match one {
                Ok(one) => found.push(one),
                Err(why) => silent.push(why),
            }
        }
        if found.is_empty() {
            return Err(broken(format!(
                "no member of etcd answers: {}",
                silent.join("; ")
            )));
        }
        Ok(found)
    }

    /// Who we are to etcd, and whom we believe.
    async fn credentials(
        &self,
        cluster: &ClusterRef,
    ) -> Result<rustls::ClientConfig, ConnectionError> {
        let name = names::etcd_secret(&cluster.name);
        let named = |why: String| {
            broken(format!(
                "etcd's authority in Secret {}/{name}: {why}",
                cluster.namespace
            ))
        };
        let secrets = Api::<Secret>::namespaced(self.api.clone(), &cluster.namespace);
        let secret = match secrets.get_opt(&name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => return Err(named("there is no such Secret".into())),
            Err(error) => return Err(named(format!("it cannot be read: {error}"))),
        };
        let data = secret.data.unwrap_or_default();
        let pem = |key: &str| {
            let bytes = data.get(key).map(|value| value.0.as_slice());
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.ok_or_else(|| named(format!("it has no key {key} with PEM")))
        };
        let (certificate, key) = (pem("tls.crt")?, pem("tls.key")?);
        credentials::make(certificate, key, self.clock.now()).map_err(|why| named(why.into()))
    }

    /// Hands leadership on, where the member leads; waits until it is so.
    async fn step_down(asked: &mut [Asked], view: &View, id: u64) -> Result<(), ConnectionError> {
        if view.leader != id {
            return Ok(());
        }
        let Some(target) = view.next_leader() else {
            return Err(broken(
                "it leads, and no other member is well enough to lead",
            ));
        };
        let body = json!({"targetID": target.to_string()});
        let leader = asked.iter_mut().find(|one| one.answer.id == id);
        let Some(leader) = leader else {
            return Err(broken(
                "it leads and does not answer: another member leads soon",
            ));
        };
        let moved = leader
            .gateway
            .call::<serde_json::Value>("maintenance/transfer-leadership", &body);
        let cannot = |why: &str| broken(format!("leadership cannot be handed on: {why}"));
        match timeout(ANSWER, moved).await {
            Ok(moved) => drop(moved.map_err(|e| cannot(&e.to_string()))?),
            Err(_) => return Err(cannot("no answer")),
        }
        let Some(other) = asked.iter_mut().find(|one| one.answer.id == target) else {
            return Err(broken(
                "leadership was handed on to a member that does not answer",
            ));
        };
        let moved = async {
            loop {
                let status = other.gateway.status().await?;
                if status.leader == target {
                    return Ok(());
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        match timeout(ANSWER, moved).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(Failure::to_string(&error))),
            Err(_) => Err(broken("leadership was handed on, and nobody took it")),
        }
    }
}

/// What the member behind a pod says.
async fn ask_one(
    api: &Api<Pod>,
    pod: &str,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Asked, String> {
    let mut gateway = Gateway::open(api, pod, tls).await?;
    let answer = gateway.answer().await.map_err(|e| e.to_string())?;
    Ok(Asked { gateway, answer })
}

fn view(asked: &[Asked]) -> Result<View, ConnectionError> {
    let answers: Vec<&Answer> = asked.iter().map(|one| &one.answer).collect();
    View::of(&answers).map_err(broken)
}

#[async_trait]
impl EtcdMembers for Etcd {
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        let asked = self.ask(cluster).await?;
        Ok(view(&asked)?.members())
    }

    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError> {
        let mut asked = self.ask(cluster).await?;
        let view = view(&asked)?;
        let Some(id) = view.id_of(name) else {
            return Ok(());
        };
        Self::step_down(&mut asked, &view, id).await?;
        // One that removes itself may end before it says so.
        let other = asked.iter_mut().find(|one| one.answer.id != id);
        let Some(other) = other else {
            return Err(broken("no other member answers"));
        };
        let body = json!({"ID": id.to_string()});
        let removal = other
            .gateway
            .call::<serde_json::Value>("cluster/member/remove", &body);
        match timeout(ANSWER, removal).await {
            Ok(Ok(_)) => Ok(()),
            // Somebody was quicker.
            Ok(Err(Failure::NotFound)) => Ok(()),
            Ok(Err(error)) => Err(broken(format!("it cannot be removed: {error}"))),
            Err(_) => Err(broken("it may have been removed: no answer")),
        }
    }

    /// Of the member that leads, which lacks nothing; of another healthy one where the leader does not answer.
    async fn snapshot(&self, cluster: &ClusterRef) -> Result<Box<dyn Snapshot>, ConnectionError> {
        let asked = self.ask(cluster).await?;
        let view = view(&asked)?;
        let mut may: Vec<Asked> = asked
            .into_iter()
            .filter(|one| view.is_full(one.answer.id))
            .collect();
        may.sort_by_key(|one| one.answer.id != view.leader);
        let Some(one) = may.into_iter().next() else {
            return Err(broken("no healthy member answers"));
        };
        match timeout(PART, one.gateway.snapshot()).await {
            Ok(Ok(parts)) => Ok(Box::new(Coming(parts))),
            Ok(Err(error)) => Err(broken(error.to_string())),
            Err(_) => Err(broken("no answer")),
        }
    }
}

struct Coming(Parts);

#[async_trait]
impl Snapshot for Coming {
    async fn part(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
        let broke = |why: &str| broken(format!("it broke off: {why}"));
        match timeout(PART, self.0.next()).await {
            Ok(part) => part.map_err(|e| broke(&e.to_string())),
            Err(_) => Err(broke("nothing more comes")),
        }
    }
}
