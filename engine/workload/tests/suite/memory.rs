//! What a cluster costs in memory.

use std::process::Command;

use fleetwright_bootstrap::csr::SIGNER;
use fleetwright_providers::{ClusterConnections, ClusterRef};
use fleetwright_tests::workload::{TOKEN, Workload};
use futures::{Stream, StreamExt, stream::BoxStream};
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Node};
use kube::{Api, runtime::watcher};
use serde_json::json;

use crate::kit::{Kit, cluster, who};

/// Most bytes of a cluster: its client, the connections of two watches (its nodes, and what they ask certificates with) and one that is kept
/// for the next call.
const MOST: usize = 100 << 10;
const CLUSTERS: usize = 300;
/// Says that a process runs this test alone: what others of the suite take would be measured too.
const ALONE: &str = "FLEETWRIGHT_TEST_ALONE";
const NAME: &str = "memory::a_cluster_takes_less_than_100_kb_with_its_watches_and_a_call";

/// Bytes of this process in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("Rss:")).unwrap();
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}

/// A watch whose list has been read.
async fn begun<T: Send + 'static>(
    events: impl Stream<Item = watcher::Result<watcher::Event<T>>> + Send + 'static,
) -> BoxStream<'static, watcher::Result<watcher::Event<T>>> {
    let mut events = events.boxed();
    while !matches!(
        events.next().await.unwrap().unwrap(),
        watcher::Event::InitDone
    ) {}
    // The next step asks for the watch itself.
    assert!(futures::poll!(events.next()).is_pending());
    events
}

#[tokio::test]
async fn a_cluster_takes_less_than_100_kb_with_its_watches_and_a_call() {
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let done = alone.args(["--exact", NAME]).env(ALONE, "1").output();
        let done = done.unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let (kit, workload) = (Kit::new(), Workload::start().await);
    let kubeconfig = workload.kubeconfig(&json!({"token": TOKEN}));
    kit.secret("eu", "value", &kubeconfig).await;
    let mut watches = Vec::new();
    let mut before = 0;
    // The first ones pay for what all share.
    for n in 0..CLUSTERS + 50 {
        if n == 50 {
            before = resident();
        }
        let one = ClusterRef {
            name: format!("c{n}"),
            ..cluster("eu")
        };
        let client = kit.connections.client(&one).await.unwrap();
        let nodes = Api::<Node>::all(client.clone());
        let nodes = watcher::watcher(nodes, watcher::Config::default());
        let requests = Api::<CertificateSigningRequest>::all(client.clone());
        let ours = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let requests = watcher::watcher(requests, ours);
        watches.push((begun(nodes).await, begun(requests).await));
        who(&client).await;
    }
    // The cluster's end of each connection is in this process too.
    let each = (resident() - before) / CLUSTERS;
    println!("{each} bytes for each cluster, both ends");
    assert!(each < MOST, "{each} bytes");
}
