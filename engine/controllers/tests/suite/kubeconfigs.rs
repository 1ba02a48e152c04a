//! The administrator's kubeconfig of a cluster of ours: made anew at half of its certificate's life, and when somebody takes it away.

use age::x25519::Identity;
use fleetwright_api::Cluster;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::watcher::{self, Event},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    boots::start,
    kit::{Kit, PATIENCE},
};

const NAME: &str = "eu-kubeconfig";
const DAY: i64 = 86_400;

/// The authority and the client's certificate of a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    authority: String,
    client: String,
}

fn read(secret: &Secret) -> Option<Way> {
    let value = secret.data.as_ref()?.get("value")?;
    let text = std::str::from_utf8(&value.0).ok()?;
    let of = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.split_once(key)?.1.trim().to_owned()))
    };
    Some(Way {
        authority: of("certificate-authority-data:")?,
        client: of("client-certificate-data:")?,
    })
}

fn secrets(kit: &Kit) -> Api<Secret> {
    kit.api()
}

/// Lets the cluster be looked at, at this time from now.
async fn look(kit: &mut Kit, ahead: i64) {
    kit.ward.ahead(ahead);
    let wake = json!({"metadata": {"annotations": {"by-hand": ahead.to_string()}}});
    kit.patch::<Cluster>("eu", wake).await;
}

/// Waits for a kubeconfig that is another one.
async fn until_another(kit: &Kit, than: &Way) -> Way {
    let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = watcher::watcher(secrets(kit), only).boxed();
    let found = async {
        while let Some(event) = events.next().await {
            if let Event::Apply(secret) | Event::InitApply(secret) = event.unwrap()
                && let Some(way) = read(&secret)
                && way != *than
            {
                return way;
            }
        }
        panic!("the watch ended");
    };
    let found = timeout(PATIENCE, found).await;
    found.expect("there is no other kubeconfig")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_is_made_anew_in_time_and_when_it_is_not_there() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.until_settled("eu").await;
    let first = read(&secrets(&kit).get(NAME).await.unwrap()).unwrap();

    // Shortly after half of its certificate's life there is another.
    look(&mut kit, 183 * DAY).await;
    let second = until_another(&kit, &first).await;
    assert_eq!(second.authority, first.authority);

    let params = DeleteParams::default();
    secrets(&kit).delete(NAME, &params).await.unwrap();
    look(&mut kit, 183 * DAY + 60).await;
    let third = until_another(&kit, &second).await;
    assert_eq!(third.authority, first.authority);

    let damaged = json!({"stringData": {"value": "apiVersion: v1\nkind: Config\n"}});
    let patch = Patch::Merge(damaged);
    let params = PatchParams::default();
    secrets(&kit).patch(NAME, &params, &patch).await.unwrap();
    look(&mut kit, 183 * DAY + 120).await;
    let fourth = until_another(&kit, &third).await;
    assert_eq!(fourth.authority, first.authority);
    kit.stop().await;
}
