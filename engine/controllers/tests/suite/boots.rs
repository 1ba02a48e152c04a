//! A provider whose instances are given what they boot from: the simulated cloud, which only remembers it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use age::{secrecy::ExposeSecret as _, x25519::Identity};
use async_trait::async_trait;
use fleetwright_api::{
    Cluster, Machine, MachineDeployment, ProviderAccount,
    condition::{Condition, kind},
    secret::SecretText,
};
use fleetwright_bootstrap::escrow::unseal;
use fleetwright_controllers::Escrow;
use fleetwright_providers::{
    Account, Bootstrap, ClusterRef, ConnectionError, ControlPlaneEndpoint, EtcdMember, EtcdMembers,
    Infrastructure, InfrastructureOrder, NodeId, Ownership, ProviderError, Snapshot,
};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    client::Body,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::timeout};

use crate::{
    kit::{Kit, PATIENCE, World, of_cluster, of_machine},
    kubeadm::{self, Kubeadm},
    ward::Ward,
};

/// What instances were given, and what was asked for clusters.
#[derive(Default)]
pub(crate) struct Boots {
    /// Machines for which something was kept, each time.
    keeps: Vec<String>,
    /// What was kept last.
    pub(crate) payload: String,
    /// Machines for which something is kept now.
    kept: BTreeSet<String>,
    /// Instances behind the endpoint, each time that it was asked for.
    endpoints: Vec<Vec<String>>,
    /// What is kubeadm's of its clusters.
    pub(crate) kubeadm: Kubeadm,
    /// Snapshots of etcd that were asked for.
    snapshots: usize,
    /// Why etcd gives none.
    mute: Option<String>,
    /// Machines whose names begin so are refused for good.
    refused: Option<String>,
    /// What was kept, each text once, by machine.
    texts: BTreeMap<String, BTreeSet<String>>,
    /// Whether nothing that was kept can be removed, and how often that was tried.
    sticks: bool,
    discards: watch::Sender<usize>,
    /// How many creates come to nothing.
    pub(crate) creates_fail: usize,
}

#[async_trait]
impl Bootstrap for Ward {
    fn operating_system<'a>(&self, _: &'a Value) -> &'a str {
        "ubuntu-24.04"
    }

    fn waits_for_cloud_controller(&self, cluster_config: Option<&Value>) -> bool {
        cluster_config.is_some()
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
            let texts = boots.texts.entry(owner.machine.clone()).or_default();
            texts.insert(payload.expose().to_owned());
            payload.expose().clone_into(&mut boots.payload);
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
        self.boots(|boots| {
            boots.discards.send_modify(|tried| *tried += 1);
            if boots.sticks {
                let message = "the test says so".into();
                return Err(ProviderError::Unavailable { message });
            }
            boots.kept.remove(&owner.machine);
            Ok(())
        })
    }
}

#[async_trait]
impl Infrastructure for Ward {
    async fn ensure(
        &self,
        _: &Account,
        order: &InfrastructureOrder,
    ) -> Result<Option<ControlPlaneEndpoint>, ProviderError> {
        self.boots(|boots| boots.endpoints.push(order.instances.clone()));
        Ok(Some(ControlPlaneEndpoint {
            host: "plane.test".into(),
            port: order.port,
        }))
    }

    async fn remove(&self, _: &Account, _: &InfrastructureOrder) -> Result<bool, ProviderError> {
        Ok(true)
    }
}

/// Members are the simulated cloud's.
#[async_trait]
impl EtcdMembers for Ward {
    async fn members(&self, cluster: &ClusterRef) -> Result<Vec<EtcdMember>, ConnectionError> {
        self.cloud().members(cluster).await
    }

    async fn remove(&self, cluster: &ClusterRef, name: &str) -> Result<(), ConnectionError> {
        self.cloud().remove(cluster, name).await
    }

    async fn snapshot(&self, _: &ClusterRef) -> Result<Box<dyn Snapshot>, ConnectionError> {
        self.boots(|boots| {
            boots.snapshots += 1;
            match &boots.mute {
                Some(why) => Err(ConnectionError::Broken(why.clone())),
                None => Ok(Box::new(Parts(Some(DATABASE.to_vec()))) as Box<dyn Snapshot>),
            }
        })
    }
}

const DATABASE: &[u8] = b"all that etcd holds";

/// A snapshot of two parts.
struct Parts(Option<Vec<u8>>);

#[async_trait]
impl Snapshot for Parts {
    async fn part(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
        let last = || Sha256::digest(DATABASE).to_vec();
        Ok(match self.0.take() {
            Some(first) if first == DATABASE => {
                self.0 = Some(last());
                Some(first)
            }
            other => other,
        })
    }
}

impl Kit {
    /// What kubeadm leaves in a real cluster: control-plane machines can join it.
    async fn can_be_joined(&self, version: &str) {
        let maps = Api::<ConfigMap>::namespaced(self.workload("eu").await, "kube-system");
        let config = format!("kind: ClusterConfiguration\nkubernetesVersion: {version}\n");
        let config = json!({
            "metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": config},
        });
        let config = serde_json::from_value(config).unwrap();
        maps.create(&PostParams::default(), &config).await.unwrap();
    }

    /// A cluster of three control-plane machines that were given what they boot from.
    pub(crate) async fn three_that_joined(&mut self, version: &str) {
        self.stop_controllers().await;
        self.ward.give_boots();
        self.start_controllers();
        self.cluster("eu", version, 1, json!({})).await;
        self.until_settled("eu").await;
        self.can_be_joined(version).await;
        let three = json!({"spec": {"controlPlane": {"machines": {"replicas": 3}}}});
        self.patch::<Cluster>("eu", three).await;
        self.until_settled("eu").await;
    }
}

const KEYS: [&str; 4] = ["eu-ca", "eu-etcd", "eu-proxy", "eu-sa"];

/// A kit whose controllers keep keys in this folder, for the identity.
pub(crate) async fn start(folder: &Path, of: &Identity) -> Kit {
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

/// Waits until the pool's one machine is a node and all rests.
async fn until_joined(kit: &mut Kit) {
    kit.until("its worker has joined", |w| {
        (w.workers("eu-web").len() == 1 && w.settled("eu")).then_some(())
    })
    .await;
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
    assert_eq!(kit.ward.boots(|b| b.endpoints.len()), 0);
    kit.ward.unlist(false);
    until_joined(&mut kit).await;
    let first = keys(&kit).await;
    assert_eq!(first.len(), 4);
    assert_eq!(escrowed(folder.path(), &identity), first);
    let kubeconfig = kit.api::<Secret>().get("eu-kubeconfig").await.unwrap();
    let text = String::from_utf8(kubeconfig.data.unwrap()["value"].0.clone()).unwrap();
    assert!(text.contains("https://plane.test:6443"));
    // Each was given it once, and nothing stays once it has joined; one look for each change of the machines, no stream.
    let (keeps, kept) = kit.ward.boots(|b| (b.keeps.len(), b.kept.len()));
    assert_eq!((keeps, kept), (2, 0));
    assert!(kit.ward.boots(|b| b.endpoints.len()) <= 3);

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
async fn what_a_cluster_says_of_its_nodes_holds_for_workers_too() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    let config = json!({
        "apiVersion": "sim.fleetwright.dev/v1alpha1", "kind": "SimClusterConfig", "account": "sim-eu",
    });
    let config = json!({"providerConfig": config});
    kit.cluster("eu", "v1.33.2", 1, config).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let texts = kit.ward.boots(|b| b.texts.clone());
    assert_eq!(texts.len(), 2, "one of the control plane and one worker");
    for (machine, texts) in texts {
        let waits = |text: &String| text.contains("cloud-provider");
        assert!(texts.iter().all(waits), "{machine}: {texts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_machine_booted_from_is_removed_before_it_counts_as_a_node() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit.ward.boots(|b| b.sticks = true);
    kit.pool("eu-web", "eu", 1, json!({})).await;
    let says = |w: &World| {
        let machine = *w.workers("eu-web").first()?;
        let status = machine.status.as_ref()?;
        let said = |c: &Condition| c.message.contains("the test says so");
        status.conditions.iter().any(said).then_some(())?;
        Some((machine.name_any(), status.node_ref.is_some()))
    };
    let (name, joined) = kit.until("it says what is in the way", says).await;
    assert!(!joined);
    // Neither does a process forget it.
    kit.stop_controllers().await;
    let mut discards = kit.ward.boots(|b| b.discards.subscribe());
    let before = *discards.borrow();
    kit.start_controllers();
    let again = discards.wait_for(|tried| *tried > before);
    timeout(PATIENCE, again).await.unwrap().unwrap();
    let machine = kit.api::<Machine>().get(&name).await.unwrap();
    assert_eq!(machine.status.unwrap().node_ref, None);
    kit.ward.boots(|b| b.sticks = false);
    until_joined(&mut kit).await;
    assert_eq!(kit.ward.boots(|b| b.kept.len()), 0);
    // On its way out it is removed again, after its instance and before its node.
    kit.ward.boots(|b| b.sticks = true);
    kit.patch::<MachineDeployment>("eu-web", json!({"spec": {"replicas": 0}}))
        .await;
    kit.until("its deletion waits for that", |w| {
        let line = of_machine(w.machines.get(&name)?, kind::DELETING);
        line.starts_with("True WaitingForBootstrapDeletion: ")
            .then_some(())
    })
    .await;
    let there = |nodes: &[Node]| nodes.iter().any(|n| n.name_any() == name);
    assert!(there(&kit.nodes("eu").await));
    kit.ward.boots(|b| b.sticks = false);
    kit.until("it is gone", |w| {
        (!w.machines.contains_key(&name)).then_some(())
    })
    .await;
    assert!(!there(&kit.nodes("eu").await));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_is_tried_again_gives_the_same() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.ward.boots(|b| b.creates_fail = 2);
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit.ward.boots(|b| b.creates_fail = 2);
    kit.pool("eu-web", "eu", 1, json!({})).await;
    until_joined(&mut kit).await;
    let (keeps, texts) = kit.ward.boots(|b| (b.keeps.clone(), b.texts.clone()));
    assert_eq!((keeps.len(), texts.len()), (6, 2), "{keeps:?}");
    for (machine, texts) in texts {
        assert_eq!(texts.len(), 1, "{machine} got another text");
    }
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
    assert_eq!(kit.ward.boots(|b| b.endpoints.len()), 0);
    kit.stop().await;
}

/// A client that writes no Machine's status while it `holds`.
fn without_status(inner: Client, holds: Arc<AtomicBool>) -> Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let path = request.uri().path();
        let status = path.contains("/machines/") && path.ends_with("/status");
        let (inner, held) = (inner.clone(), status && holds.load(Ordering::SeqCst));
        async move {
            if held {
                return Err(tower::BoxError::from(std::io::Error::other("held")));
            }
            inner.send(request).await.map_err(tower::BoxError::from)
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_lost_takes_no_target_from_the_endpoint() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.escrow(escrow(folder.path(), &identity, true));
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit.lose_state().await;
    let before = kit.ward.boots(|b| b.endpoints.len());
    // Its Machine is there again, and cannot say yet which instance it has.
    let holds = Arc::new(AtomicBool::new(true));
    let client = without_status(kit.client.clone(), Arc::clone(&holds));
    kit.restart_over(client).await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until("it has its keys and its machine", |w| {
        let [machine] = w.control_plane("eu")[..] else {
            return None;
        };
        let line = of_cluster(w.clusters.get("eu")?, kind::CERTIFICATES_AVAILABLE);
        let unseen = machine.spec.provider_id.is_some() && machine.status.is_none();
        (unseen && line.starts_with("True")).then_some(())
    })
    .await;
    assert_eq!(kit.ward.boots(|b| b.endpoints.len()), before);
    holds.store(false, Ordering::SeqCst);
    kit.until_settled("eu").await;
    let orders = kit.ward.boots(|b| b.endpoints.split_off(before));
    assert!(!orders.is_empty());
    assert!(orders.iter().all(|all| all.len() == 1), "{orders:?}");
    kit.stop().await;
}

/// The names of a cluster's snapshots in this folder, without the times.
fn snapshots(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap();
    let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
    let mut of: Vec<String> = names
        .filter_map(|name| {
            let (_, rest) = name.split_once(".etcd.")?;
            Some(rest.split_once('.')?.1.to_owned())
        })
        .collect();
    of.sort();
    of
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_minor_waits_for_a_snapshot_of_etcd() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.1", 1, json!({})).await;
    kit.until_settled("eu").await;
    let kubeadm = kit.ward.boots(|b| b.kubeadm.clone());
    let cluster = kubeadm.over(kit.workload("eu").await);
    kubeadm::install(&cluster, "v1.33.1", "v1.12.0").await;
    // Within a minor nothing is taken.
    let to = |version: &str| json!({"spec": {"version": version}});
    kit.patch::<Cluster>("eu", to("v1.33.2")).await;
    kit.until_settled("eu").await;
    assert_eq!(kit.ward.boots(|b| b.snapshots), 0);
    let mut changes = vec![
        "kubeadm-config v1.33.2",
        "kube-proxy registry.k8s.io/kube-proxy:v1.33.2",
    ];
    assert_eq!(kubeadm.changes(), changes);

    kit.ward.boots(|b| b.mute = Some("no space".into()));
    kit.patch::<Cluster>("eu", to("v1.35.0")).await;
    kit.until("the upgrade says what it lacks", |w| {
        let line = of_cluster(w.clusters.get("eu")?, kind::UPGRADE_BLOCKED);
        line.contains("True SnapshotFailed").then_some(line)
    })
    .await;
    let kept = folder.path().to_owned();
    kit.always(move |w| {
        let newer = |m: &&Machine| m.spec.content.version.as_deref() > Some("v1.33.2");
        match w.control_plane("eu").into_iter().find(newer) {
            Some(m) if snapshots(&kept).is_empty() => Err(format!("{} came before", m.name_any())),
            _ => Ok(()),
        }
    });
    kit.ward.boots(|b| b.mute = None);
    kit.until_settled("eu").await;
    assert_eq!(
        snapshots(folder.path()),
        ["v1.33.2.age", "v1.34.0.age"],
        "one for each minor"
    );
    changes.extend([
        "kubeadm-config v1.34.0",
        "kube-proxy registry.k8s.io/kube-proxy:v1.34.0",
        "coredns registry.k8s.io/coredns/coredns:v1.12.1",
        "kubeadm-config v1.35.0",
        "kube-proxy registry.k8s.io/kube-proxy:v1.35.0",
        "coredns registry.k8s.io/coredns/coredns:v1.13.1",
    ]);
    assert_eq!(kubeadm.changes(), changes, "step by step");
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_escrow_no_snapshot_is_taken_and_that_is_said() {
    let mut kit = Kit::start().await;
    kit.stop_controllers().await;
    kit.ward.give_boots();
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.0"}}))
        .await;
    kit.until("it goes on and says so", |w| {
        told(w, "no snapshot of etcd is kept from before it")?;
        let newer = |m: &&Machine| m.spec.content.version.as_deref() == Some("v1.34.0");
        w.control_plane("eu").into_iter().find(newer).map(drop)
    })
    .await;
    assert_eq!(kit.ward.boots(|b| b.snapshots), 0);
    kit.stop().await;
}
