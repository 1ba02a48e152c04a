//! The API that holds the Secrets, and connections by them.

use std::{sync::Arc, time::Duration};

use fleetwright_api::{
    random::{OsRandom, SeededRandom},
    time::SystemClock,
};
use fleetwright_apiserver::{ApiServer, Options};
use fleetwright_providers::{ClusterConnections, ClusterRef, ConnectionError};
use fleetwright_store::Store;
use fleetwright_workload::Connections;
use k8s_openapi::{
    ByteString,
    api::{authentication::v1::SelfSubjectReview, core::v1::Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};

pub(crate) struct Kit {
    pub(crate) api: Client,
    pub(crate) connections: Connections,
}

/// A cluster that somebody else runs.
pub(crate) fn cluster(name: &str) -> ClusterRef {
    ClusterRef {
        namespace: "default".into(),
        name: name.into(),
        kubeconfig: format!("{name}-kubeconfig"),
        ..ClusterRef::default()
    }
}

/// As if this much time had passed.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

impl Kit {
    pub(crate) fn new() -> Self {
        let options = Options::new(Arc::new(SystemClock), Arc::new(SeededRandom::new(1)));
        let api = ApiServer::new(Store::memory(), options).unwrap();
        let api = api.client("default");
        Self {
            connections: Connections::new(api.clone(), Arc::new(OsRandom)),
            api,
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.api.clone(), "default")
    }

    /// Makes or changes the Secret of a cluster.
    pub(crate) async fn secret(&self, cluster: &str, key: &str, kubeconfig: &str) {
        let name = format!("{cluster}-kubeconfig");
        let value = ByteString(kubeconfig.as_bytes().to_vec());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            data: Some([(key.to_owned(), value)].into()),
            ..Secret::default()
        };
        let api = self.secrets();
        match api.get_opt(&name).await.unwrap() {
            None => drop(api.create(&PostParams::default(), &secret).await.unwrap()),
            Some(_) => {
                let patch = Patch::Merge(&secret);
                api.patch(&name, &PatchParams::default(), &patch)
                    .await
                    .unwrap();
            }
        }
    }

    pub(crate) async fn withdraw(&self, cluster: &str) {
        self.remove(&format!("{cluster}-kubeconfig")).await;
    }

    /// Takes a Secret away.
    pub(crate) async fn remove(&self, name: &str) {
        let api = self.secrets();
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A Secret with an authority, as Cluster API keeps it.
    pub(crate) async fn authority(&self, name: &str, certificate: &str, key: &str) {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            string_data: Some(
                [("tls.crt", certificate), ("tls.key", key)]
                    .map(|(key, text)| (key.to_owned(), text.to_owned()))
                    .into(),
            ),
            ..Secret::default()
        };
        let api = self.secrets();
        api.create(&PostParams::default(), &secret).await.unwrap();
    }

    /// As whom the cluster knows us.
    pub(crate) async fn who(&self, cluster: &ClusterRef) -> Result<String, ConnectionError> {
        let client = self.connections.client(cluster).await?;
        Ok(who(&client).await)
    }

    /// Why the cluster cannot be reached.
    pub(crate) async fn why(&self, cluster: &ClusterRef) -> String {
        let client = self.connections.client(cluster).await;
        client.map(drop).unwrap_err().to_string()
    }
}

pub(crate) async fn who(client: &Client) -> String {
    let api = Api::<SelfSubjectReview>::all(client.clone());
    let asked = SelfSubjectReview::default();
    let review = api.create(&PostParams::default(), &asked).await.unwrap();
    let info = review.status.and_then(|s| s.user_info);
    info.and_then(|i| i.username).unwrap()
}
