//! The parts of a control plane on its machines: while one does not run nothing comes or goes, and it is said which.

use fleetwright_api::{
    Cluster,
    condition::kind::{API_SERVER_POD_HEALTHY, CONTROL_PLANE_COMPONENTS_HEALTHY},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::kit::{Kit, World, of_cluster, of_machine};

const PARTS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

impl Kit {
    async fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.workload("eu").await, "kube-system")
    }

    /// The pods of the control plane on this node, all of which run.
    async fn run_parts(&self, node: &str) {
        for part in PARTS {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": format!("{part}-{node}"), "annotations": {"kubernetes.io/config.mirror": "x"},
                    "labels": {"component": part, "tier": "control-plane"},
                },
                "spec": {"nodeName": node, "containers": [{"name": part, "image": part}]},
            });
            let pod = serde_json::from_value(pod).unwrap();
            let (pods, params) = (self.pods().await, PostParams::default());
            pods.create(&params, &pod).await.unwrap();
            self.turn(part, node, true).await;
        }
    }

    /// Whether a part runs, or is only being started.
    async fn turn(&self, part: &str, node: &str, runs: bool) {
        let state = match runs {
            true => json!({"running": {}, "waiting": null}),
            false => json!({"running": null, "waiting": {"reason": "ContainerCreating"}}),
        };
        let container = json!({
            "name": part, "image": part, "imageID": part, "ready": runs, "restartCount": 0, "state": state,
        });
        let ready = json!({"type": "Ready", "status": if runs { "True" } else { "False" }});
        let status =
            json!({"phase": "Running", "conditions": [ready], "containerStatuses": [container]});
        let (name, patch) = (
            format!("{part}-{node}"),
            Patch::Merge(json!({"status": status})),
        );
        let (pods, params) = (self.pods().await, PatchParams::default());
        pods.patch_status(&name, &params, &patch).await.unwrap();
    }
}

fn says(world: &World, text: &str) -> bool {
    let cluster = world.clusters.get("eu");
    cluster.is_some_and(|c| of_cluster(c, CONTROL_PLANE_COMPONENTS_HEALTHY).contains(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_part_of_the_control_plane_does_not_run_nothing_comes_or_goes() {
    let mut kit = Kit::start().await;
    kit.three_that_joined("v1.34.1").await;
    // Nobody shows any part of it: nothing is said, and nothing waited for.
    let cluster = &kit.world.clusters["eu"];
    assert_eq!(
        of_cluster(cluster, CONTROL_PLANE_COMPONENTS_HEALTHY),
        "none"
    );
    for node in ["eu-cp-0", "eu-cp-1", "eu-cp-2"] {
        kit.run_parts(node).await;
    }
    kit.turn("kube-apiserver", "eu-cp-1", false).await;
    let change = json!({"spec": {"version": "v1.34.2"}});
    kit.patch::<Cluster>("eu", change).await;
    let why =
        "False NotHealthy: kube-apiserver of machine eu-cp-1 is not up yet: ContainerCreating";
    kit.until("it is said which part", |w| {
        let line = of_machine(w.machines.get("eu-cp-1")?, API_SERVER_POD_HEALTHY);
        let other = of_machine(w.machines.get("eu-cp-0")?, API_SERVER_POD_HEALTHY);
        let machines = (line.as_str(), other.as_str());
        let want = ("False Provisioning: ContainerCreating", "True Running: ");
        (machines == want && says(w, why)).then_some(())
    })
    .await;
    assert_eq!(kit.made().len(), 3, "nothing comes");
    kit.turn("kube-apiserver", "eu-cp-1", true).await;
    // A node is there before the parts on it are.
    let why = "etcd of machine eu-cp-3 has not been seen yet; kube-apiserver of machine eu-cp-3";
    kit.until("the new machine's parts are waited for", |w| {
        let serves = w
            .machines
            .get("eu-cp-3")?
            .status
            .as_ref()?
            .node_ref
            .is_some();
        (serves && says(w, why)).then_some(())
    })
    .await;
    let stays = |w: &World| {
        let all = w.control_plane("eu");
        all.len() == 4 && all.iter().all(|m| m.metadata.deletion_timestamp.is_none())
    };
    assert!(stays(&kit.world), "nothing goes");
    kit.run_parts("eu-cp-3").await;
    kit.until("the rollout goes on", |w| (!stays(w)).then_some(()))
        .await;
    kit.stop().await;
}
