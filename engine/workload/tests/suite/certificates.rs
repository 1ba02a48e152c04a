//! API servers that show their certificates, each behind the port-forward of its pod in a workload cluster.

use fleetwright_providers::ClusterConnections;
use fleetwright_tests::{
    pki::Authority,
    workload::{TOKEN, Workload},
};
use serde_json::json;

use crate::kit::{Kit, cluster};

async fn looked(kit: &Kit) -> Vec<(String, i64)> {
    let all = kit.connections.serving_certificates(&cluster("eu")).await;
    let all = all.unwrap().into_iter();
    all.map(|(node, end)| (node, end.as_second())).collect()
}

#[tokio::test]
async fn each_api_server_that_answers_shows_when_its_certificate_ends() {
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let kubeconfig = workload.kubeconfig(&json!({"token": TOKEN}));
    kit.secret("eu", "value", &kubeconfig).await;
    let unknown = kit.connections.serving_certificates(&cluster("us")).await;
    assert!(unknown.is_err(), "nobody leads to it");
    assert_eq!(looked(&kit).await, []);
    let ends = [
        ("a", 1_700_000_000),
        ("b", 2_000_000_000),
        ("c", 2_000_000_001),
    ];
    for (node, end) in ends {
        let authority = Authority::new("kubernetes");
        let identity = authority.sign_until("kube-apiserver", &["kubernetes"], end);
        workload.api_server(node, &identity).await;
    }
    let want = ends.map(|(node, end)| (node.to_owned(), end));
    assert_eq!(looked(&kit).await, want);
    // A port that nobody listens at.
    workload.forward("kube-apiserver-b", 1);
    let want = [want[0].clone(), want[2].clone()];
    assert_eq!(looked(&kit).await, want);
}
