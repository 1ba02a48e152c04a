//! The recorded exchanges, played against our server.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fleetwright_api::{random::OsRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Auth, Options, Tls};
use fleetwright_store::Store;
use fleetwright_tests::conformance::{Target, install, play, scenarios};
use tokio_util::sync::CancellationToken;

/// The scenarios that pass by shape. One that passes and is not here is to be added: the list only grows.
const PASS: &[&str] = &[
    "apply-after-update",
    "apply-basic",
    "apply-conflict",
    "apply-errors",
    "apply-list-errors",
    "apply-lists",
    "apply-status",
    "auth",
    "core-configmaps-secrets",
    "core-pods-eviction",
    "crd-life",
    "create-conflicts",
    "create-generate-name",
    "crud-basic",
    "delete-collection",
    "delete-propagation",
    "discovery",
    "discovery-aggregated",
    "dry-run",
    "finalizers",
    "generation",
    "list-all-namespaces",
    "list-selectors",
    "list-versions",
    "namespaces",
    "patch-merge",
    "patch-types",
    "update-versions",
    "validate-unknown",
    "watch-errors",
    "watch-history",
    "watch-initial-events",
];

#[tokio::test]
async fn scenarios_that_passed_still_pass() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let lines = "admintoken,admin,admin,\"system:masters\"\nusertoken,user,user,\n";
    std::fs::write(&tokens, lines).unwrap();
    let tls = Tls::open(&dir.path().join("pki")).unwrap();
    let authority = tls.authority().to_owned();
    let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
    let server = ApiServer::new(Store::memory(), options).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(server.serve(
        listener,
        tls,
        Auth::from_file(&tokens).unwrap(),
        stop.clone(),
    ));
    let target = Target::https(&address, authority.as_bytes(), Some("admintoken")).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let crds = std::fs::read(folder.join("crds.json")).unwrap();
    let crds: Vec<serde_json::Value> = serde_json::from_slice(&crds).unwrap();
    install(&target, &crds).await.unwrap();
    let (mut passed, mut lost) = (BTreeSet::new(), Vec::new());
    for scenario in scenarios(&folder.join("recorded")).unwrap() {
        match play(&target, &scenario).await.shape {
            None => drop(passed.insert(scenario.name)),
            Some(why) if PASS.contains(&scenario.name.as_str()) => {
                lost.push(format!("{}: {why}", scenario.name));
            }
            Some(_) => {}
        }
    }
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(lost.is_empty(), "{lost:#?}");
    let listed: BTreeSet<String> = PASS.iter().map(|s| (*s).to_owned()).collect();
    assert_eq!(passed, listed, "scenarios pass that the list does not name");
}
