//! What kubeadm installed follows the control plane minor by minor, and holds the next one until it has.

use age::x25519::Identity;
use fleetwright_api::{Cluster, Machine, condition::kind};
use kube::ResourceExt;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    boots::start,
    kit::{Kit, PATIENCE, World, of_cluster},
    kubeadm,
};

fn line(world: &World, kind: &str) -> String {
    let cluster = world.clusters.get("eu");
    cluster.map_or_else(String::new, |cluster| of_cluster(cluster, kind))
}

async fn until_says(kit: &mut Kit, kind: &'static str, text: &'static str) -> String {
    let says = |w: &World| Some(line(w, kind)).filter(|line| line.contains(text));
    kit.until(text, says).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_minor_waits_until_what_belongs_to_this_one_is_there() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.1", 1, json!({})).await;
    kit.until_settled("eu").await;
    let kubeadm = kit.ward.boots(|b| b.kubeadm.clone());
    let cluster = kubeadm.over(kit.workload("eu").await);
    kubeadm::install(&cluster, "v1.33.1", "v1.12.0").await;
    let coredns = "coredns registry.k8s.io/coredns/coredns:v1.12.1".to_owned();
    let (done, seen) = (coredns.clone(), kubeadm.clone());
    kit.always(move |w| {
        let after = |m: &&Machine| m.spec.content.version.as_deref() == Some("v1.35.0");
        match w.control_plane("eu").into_iter().find(after) {
            Some(m) if !seen.changes().contains(&done) => {
                Err(format!("{} came before CoreDNS", m.name_any()))
            }
            _ => Ok(()),
        }
    });
    kubeadm.refuse(Some("/deployments/coredns"));
    let mut refusals = kubeadm.refusals();
    let up = json!({"spec": {"version": "v1.35.0"}});
    kit.patch::<Cluster>("eu", up).await;
    let blocked = until_says(&mut kit, kind::UPGRADE_BLOCKED, "True AddonsBehind").await;
    assert!(
        blocked.contains("stays at v1.34.0 on the way to v1.35.0"),
        "{blocked}"
    );
    until_says(&mut kit, kind::ADDONS_UP_TO_DATE, "False AddonsBehind").await;
    // It is tried again, and the rest is done once.
    let tried = refusals.wait_for(|refusals| *refusals >= 3);
    timeout(PATIENCE, tried).await.unwrap().unwrap();
    let changes = kubeadm.changes();
    assert_eq!(
        changes,
        [
            "kubeadm-config v1.34.0",
            "kube-proxy registry.k8s.io/kube-proxy:v1.34.0"
        ]
    );
    kubeadm.refuse(None);
    kit.until_settled("eu").await;
    assert_eq!(kubeadm.changes()[2], coredns);
    until_says(&mut kit, kind::ADDONS_UP_TO_DATE, "True UpToDate").await;
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_to_people_is_said_until_they_have_done_it() {
    let (folder, identity) = (tempfile::tempdir().unwrap(), Identity::generate());
    let mut kit = start(folder.path(), &identity).await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.1", 1, json!({})).await;
    kit.until_settled("eu").await;
    let kubeadm = kit.ward.boots(|b| b.kubeadm.clone());
    let plain = kit.workload("eu").await;
    kubeadm::install(&kubeadm.over(plain.clone()), "v1.33.1", "v1.12.0").await;
    kubeadm::pin_proxy(&plain, "registry.k8s.io/kube-proxy@sha256:00").await;
    let up = json!({"spec": {"version": "v1.34.0"}});
    kit.patch::<Cluster>("eu", up).await;
    let left = until_says(&mut kit, kind::ADDONS_UP_TO_DATE, "False LeftAlone").await;
    assert!(
        left.contains("pinned by a digest")
            && left.contains("give it the image of v1.34.0 by hand"),
        "{left}"
    );
    kit.until_settled("eu").await;
    assert_eq!(
        kubeadm.changes(),
        [
            "kubeadm-config v1.34.0",
            "coredns registry.k8s.io/coredns/coredns:v1.12.1"
        ]
    );
    kubeadm::pin_proxy(&plain, "registry.k8s.io/kube-proxy:v1.34.0").await;
    // A process that starts looks at once.
    kit.stop_controllers().await;
    kit.start_controllers();
    until_says(&mut kit, kind::ADDONS_UP_TO_DATE, "True UpToDate").await;
    kit.stop().await;
}
