//! Serving certificates of kubelets: approved for what belongs to the node's Machine, once that is known, and for nothing else.

use age::x25519::Identity;
use fleetwright_api::Machine;
use fleetwright_bootstrap::csr::SIGNER;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use serde_json::json;

use crate::{
    boots::start,
    kit::{Kit, World},
    kubeadm::{ask, decided, take_requests, until_decided},
};

/// The name and the node of the pool's machine once it has one.
async fn until_joined(kit: &mut Kit, pool: &str) -> (String, String) {
    let node = |w: &World| {
        let machine = *w.workers(pool).first()?;
        let node = machine.status.as_ref()?.node_ref.as_ref()?;
        Some((machine.metadata.name.clone()?, node.name.clone()))
    };
    kit.until("its machine has a node", node).await
}

/// The address that a node says it has.
async fn address(kit: &Kit, node: &str) -> String {
    let nodes = kit.nodes("eu").await;
    let node = nodes
        .iter()
        .find(|n| n.metadata.name.as_deref() == Some(node));
    let status = node.unwrap().status.as_ref().unwrap();
    status.addresses.as_ref().unwrap()[0].address.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_judged_by_their_machines_as_soon_as_these_say_enough() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let kubeadm = kit.ward.boots(|b| b.kubeadm.clone());
    let cluster = kubeadm.over(kit.workload("eu").await);
    take_requests(&cluster).await;
    let (_, node) = until_joined(&mut kit, "eu-web").await;
    let own = address(&kit, &node).await;

    ask(&cluster, "right", SIGNER, &node, &[&node, &own]).await;
    let (what, _) = until_decided(&cluster, "right").await;
    assert_eq!(what, "Approved");
    let foreign = [own.as_str(), "192.0.2.77"];
    ask(&cluster, "foreign", SIGNER, &node, &foreign).await;
    let (what, why) = until_decided(&cluster, "foreign").await;
    assert_eq!(what, "Denied");
    assert!(why.contains("192.0.2.77"), "{why}");

    // The provider does not tell the addresses of the next one yet.
    kit.ward.unaddress(true);
    kit.pool("eu-late", "eu", 1, json!({})).await;
    let (late, its_node) = until_joined(&mut kit, "eu-late").await;
    let its = address(&kit, &its_node).await;
    let signer = "example.org/theirs";
    ask(&cluster, "theirs", signer, &node, &[&own]).await;
    ask(&cluster, "early", SIGNER, &its_node, &[&its]).await;
    // What comes after them is decided, so they were looked at.
    ask(&cluster, "after", SIGNER, &node, &foreign).await;
    until_decided(&cluster, "after").await;
    let requests = Api::<CertificateSigningRequest>::all(cluster.clone());
    let early = requests.get("early").await.unwrap();
    assert_eq!(decided(&early), None);
    kit.ward.unaddress(false);
    let wake = json!({"metadata": {"annotations": {"by-hand": "look"}}});
    kit.patch::<Machine>(&late, wake).await;
    let (what, _) = until_decided(&cluster, "early").await;
    assert_eq!(what, "Approved");
    let theirs = requests.get("theirs").await.unwrap();
    assert_eq!(decided(&theirs), None);
    kit.stop().await;
}
