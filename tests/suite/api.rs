//! The recorded exchanges, played against our server.

use std::path::Path;
use std::sync::Arc;

use fleetwright_api::{random::OsRandom, time::SystemClock};
use fleetwright_apiserver::{ApiServer, Auth, Options, Tls};
use fleetwright_store::Store;
use fleetwright_tests::conformance::{Target, install, play, scenarios};
use tokio_util::sync::CancellationToken;

/// What does not pass exactly, and why. The list only shrinks.
const INEXACT: &[(&str, &str)] = &[(
    "validate-types",
    "the recorded server tells several faults of one object in the random order of its maps",
)];

struct Server {
    api: ApiServer,
    auth: Auth,
    dir: tempfile::TempDir,
}

fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    let lines = "admintoken,admin,admin,\"system:masters\"\nusertoken,user,user,\n";
    std::fs::write(&tokens, lines).unwrap();
    let options = Options::new(Arc::new(SystemClock), Arc::new(OsRandom));
    Server {
        api: ApiServer::new(Store::memory(), options).unwrap(),
        auth: Auth::from_file(&tokens).unwrap(),
        dir,
    }
}

/// Plays all scenarios: each must pass by shape, and exactly unless it is listed.
async fn play_all(target: &Target) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let crds = std::fs::read(folder.join("crds.json")).unwrap();
    let crds: Vec<serde_json::Value> = serde_json::from_slice(&crds).unwrap();
    install(target, &crds).await.unwrap();
    let mut failed = Vec::new();
    let all = ["recorded", "more"].map(|of| scenarios(&folder.join(of)).unwrap());
    for scenario in all.into_iter().flatten() {
        let verdict = play(target, &scenario).await;
        let inexact = INEXACT.iter().any(|(name, _)| *name == scenario.name);
        match (verdict.shape, verdict.exact, inexact) {
            (Some(why), ..) | (None, Some(why), false) => {
                failed.push(format!("{}: {why}", scenario.name));
            }
            (None, None, true) => {
                failed.push(format!("{} passes exactly: strike it", scenario.name));
            }
            _ => {}
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A new server in this process, as its administrator, and the folder of its tokens.
pub(crate) fn in_process() -> (Target, tempfile::TempDir) {
    let Server { api, auth, dir } = server();
    (Target::in_process(api, auth, Some("admintoken")), dir)
}

#[tokio::test]
async fn recorded_exchanges_go_as_they_went_in_process() {
    let (target, _dir) = in_process();
    play_all(&target).await;
}

#[tokio::test]
async fn recorded_exchanges_go_as_they_went_over_https() {
    let Server { api, auth, dir } = server();
    let tls = Tls::open(&dir.path().join("pki")).unwrap();
    let authority = tls.authority().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(api.serve(listener, tls, auth, stop.clone()));
    let target = Target::https(&address, authority.as_bytes(), Some("admintoken")).unwrap();
    play_all(&target).await;
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
}
