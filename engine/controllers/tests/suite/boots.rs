//! A provider whose instances are given what they boot from: the simulated cloud, which only remembers it.

use std::{collections::BTreeSet, path::Path};

use age::{secrecy::ExposeSecret as _, x25519::Identity};
use async_trait::async_trait;
use fleetwright_api::{
    Machine, ProviderAccount,
    condition::{Condition, kind},
    secret::SecretText,
};
use fleetwright_bootstrap::escrow::unseal;
use fleetwright_controllers::Escrow;
use fleetwright_providers::{
    Account, Bootstrap, ControlPlaneEndpoint, Infrastructure, InfrastructureOrder, NodeId,
    Ownership, ProviderError,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    client::Body,
};
use serde_json::{Value, json};

use crate::{
    kit::{Kit, World, of_cluster, of_machine},
    ward::Ward,
};

/// What instances were given, and what was asked for clusters.
#[derive(Default)]
pub(crate) struct Boots {
    /// Machines for which something was kept, each time.
    keeps: Vec<String>,
    /// Machines for which something is kept now.
    kept: BTreeSet<String>,
    /// How often an endpoint was asked for.
    endpoints: usize,
    /// Machines whose names begin so are refused for good.
    refused: Option<String>,
}

#[async_trait]
impl Bootstrap for Ward {
    fn operating_system<'a>(&self, _: &'a Value) -> &'a str {
        "ubuntu-24.04"
    }

    fn waits_for_cloud_controller(&self, _: Option<&Value>) -> bool {
        false
    }

    fn user_data_limit(&self) -> usize {
        16_384
    }

    fn node_id(&self, _: &Ownership) -> NodeId {
        NodeId::ByController
    }

    async fn keep(
        &self,
        _: &Account,
        owner: &Ownership,
        _: &Value,
        payload: &SecretText,
    ) -> Result<String, ProviderError> {
        assert!(payload.expose().contains("kubeadm"));
        self.boots(|boots| {
            boots.keeps.push(owner.machine.clone());
            let refused = boots.refused.as_deref();
            if refused.is_some_and(|name| owner.machine.starts_with(name)) {
                let message = "no profile to read it with".into();
                return Err(ProviderError::Terminal { message });
            }
            boots.kept.insert(owner.machine.clone());
            Ok("true".into())
        })
    }

    async fn discard(&self, _: &Account, owner: &Ownership) -> Result<(), ProviderError> {
        self.boots(|boots| boots.kept.remove(&owner.machine));
        Ok(())
    }
}

#[async_trait]
impl Infrastructure for Ward {
    async fn ensure(
        &self,
        _: &Account,
        order: &InfrastructureOrder,
    ) -> Result<Option<ControlPlaneEndpoint>, ProviderError> {
        self.boots(|boots| boots.endpoints += 1);
        Ok(Some(ControlPlaneEndpoint {
            host: "plane.test".into(),
            port: order.port,
        }))
    }

    async fn remove(&self, _: &Account, _: &InfrastructureOrder) -> Result<bool, ProviderError> {
        Ok(true)
    }
}

const KEYS: [&str; 4] = ["eu-ca", "eu-etcd", "eu-proxy", "eu-sa"];

/// A kit whose controllers keep keys in this folder, for the identity.
async fn start(folder: &Path, of: &Identity) -> Kit {
    let mut kit = Kit::start().await;
    kit.stop_controllers().await;
    kit.ward.give_boots();
    kit.escrow(escrow(folder, of, false));
    kit
}

fn escrow(folder: &Path, of: &Identity, opens: bool) -> Escrow {
    Escrow {
        folder: folder.to_owned(),
        recipients: vec![of.to_public().to_string()],
        identity: opens.then(|| SecretText::new(of.to_string().expose_secret())),
    }
}

/// The cluster's Secrets that are there, with their first value.
async fn keys(kit: &Kit) -> Vec<(String, Vec<u8>)> {
    let secrets = kit.api::<Secret>().list(&ListParams::default()).await;
    let mut found: Vec<_> = secrets
        .unwrap()
        .into_iter()
        .filter(|s| KEYS.contains(&s.name_any().as_str()))
        .map(|s| (s.name_any(), s.data.unwrap()["tls.key"].0.clone()))
        .collect();
    found.sort();
    found
}

/// What the newest file of the folder holds, in the same form.
fn escrowed(folder: &Path, of: &Identity) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap();
    let newest = files.map(|f| f.unwrap().path()).max().unwrap();
    let identity = SecretText::new(of.to_string().expose_secret());
    let found = unseal(&std::fs::read(newest).unwrap(), &identity).unwrap();
    let mut found: Vec<_> = found
        .pki
        .secrets("default", "eu")
        .into_iter()
        .map(|s| (s.name_any(), s.data.unwrap()["tls.key"].0.clone()))
        .collect();
    found.sort();
    found
}

fn told(world: &World, text: &str) -> Option<()> {
    let status = world.clusters.get("eu")?.status.as_ref()?;
    let says = |c: &Condition| c.message.contains(text);
    status.conditions.iter().any(says).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_made_once_and_never_while_nobody_can_tell_what_there_is() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.ward.unlist(true);
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until("the cluster waits", |w| told(w, "cannot be listed"))
        .await;
    assert_eq!(keys(&kit).await, []);
    assert_eq!(kit.ward.boots(|b| b.endpoints), 0);
    kit.ward.unlist(false);
    kit.until_settled("eu").await;
    let first = keys(&kit).await;
    assert_eq!(first.len(), 4);
    assert_eq!(escrowed(folder.path(), &identity), first);
    let kubeconfig = kit.api::<Secret>().get("eu-kubeconfig").await.unwrap();
    let text = String::from_utf8(kubeconfig.data.unwrap()["value"].0.clone()).unwrap();
    assert!(text.contains("https://plane.test:6443"));
    // Each was given it once, and nothing stays once it has joined; one look for each change of the machines, no stream.
    let (keeps, kept) = kit.ward.boots(|b| (b.keeps.len(), b.kept.len()));
    assert_eq!((keeps, kept), (2, 0));
    assert!(kit.ward.boots(|b| b.endpoints) <= 3);

    // The state is lost. Before the list comes no new keys are made, and afterwards neither.
    kit.lose_state().await;
    kit.ward.unlist(true);
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until("the cluster waits", |w| told(w, "cannot be listed"))
        .await;
    assert_eq!(keys(&kit).await, []);
    kit.ward.unlist(false);
    let line = kit
        .until("it says that its keys are gone", |w| {
            let line = of_cluster(w.clusters.get("eu")?, kind::CERTIFICATES_AVAILABLE);
            line.starts_with("False").then_some(line)
        })
        .await;
    assert!(line.contains("--escrow-identity"), "{line}");
    assert_eq!(keys(&kit).await, []);
    assert_eq!(escrowed(folder.path(), &identity), first);

    kit.stop_controllers().await;
    kit.escrow(escrow(folder.path(), &identity, true));
    kit.start_controllers();
    kit.until("its keys are back", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::CERTIFICATES_AVAILABLE);
        line.starts_with("True").then_some(())
    })
    .await;
    kit.until_settled("eu").await;
    assert_eq!(keys(&kit).await, first);
    kit.stop().await;
}

/// A client whose first writing of the last of a cluster's Secrets comes to nothing.
fn cut_off(inner: Client) -> Client {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let cut = Arc::new(AtomicBool::new(false));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (inner, cut) = (inner.clone(), Arc::clone(&cut));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await?;
            let makes = parts.method == http::Method::POST
                && parts.uri.path().ends_with("/secrets")
                && String::from_utf8_lossy(&bytes).contains("\"eu-sa\"");
            if makes && !cut.swap(true, Ordering::SeqCst) {
                return Err(tower::BoxError::from(std::io::Error::other("cut off")));
            }
            let request = http::Request::from_parts(parts, Body::from(bytes));
            inner.send(request).await.map_err(tower::BoxError::from)
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_escrow_is_what_is_used_though_storing_was_cut_off() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    let client = cut_off(kit.client.clone());
    kit.restart_over(client).await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    assert_eq!(escrowed(folder.path(), &identity), keys(&kit).await);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_good_is_kept_no_second_time() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit.ward.boots(|b| b.refused = Some("eu-bad".into()));
    kit.pool("eu-bad", "eu", 1, json!({})).await;
    let name = kit
        .until("the machine says why", |w| {
            let machine = *w.workers("eu-bad").first()?;
            let line = of_machine(machine, kind::INFRASTRUCTURE_READY);
            line.contains("no profile").then(|| machine.name_any())
        })
        .await;
    for n in 0..3 {
        let change = json!({"metadata": {"annotations": {"by-hand": n.to_string()}}});
        kit.patch::<Machine>(&name, change).await;
    }
    // What comes after them is done, so they were looked at.
    kit.pool("eu-good", "eu", 1, json!({})).await;
    kit.until("the other has joined", |w| {
        let machine = *w.workers("eu-good").first()?;
        machine.status.as_ref()?.node_ref.as_ref().map(drop)
    })
    .await;
    let keeps = kit
        .ward
        .boots(|b| b.keeps.iter().filter(|m| **m == name).count());
    assert_eq!(keeps, 1);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_not_for_the_namespace_makes_no_endpoint() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    let accounts = Api::<ProviderAccount>::all(kit.client.clone());
    let others = Patch::Merge(json!({"spec": {"allowedNamespaces": ["other"]}}));
    let params = PatchParams::default();
    accounts.patch("sim-eu", &params, &others).await.unwrap();
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until("the cluster says so", |w| {
        told(w, "is not for namespace default")
    })
    .await;
    assert_eq!(kit.ward.boots(|b| b.endpoints), 0);
    kit.stop().await;
}
