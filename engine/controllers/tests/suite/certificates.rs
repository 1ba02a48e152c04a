//! Control-plane machines are replaced before the certificates expire that their API servers show.

use fleetwright_api::{
    Cluster, Machine, meta,
    time::{Clock, SystemClock, rfc3339_seconds},
};
use fleetwright_tests::{
    pki::Authority,
    workload::{TOKEN, Workload},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    ResourceExt,
    api::{ObjectMeta, PostParams},
};
use serde_json::json;

use crate::kit::{Kit, World};

const DAY: SignedDuration = SignedDuration::from_hours(24);

impl Kit {
    /// Where the API servers of cluster `eu` are reached, each of which shows a certificate until then.
    async fn api_servers(&self, ends: &[(&str, Timestamp)]) -> Workload {
        let workload = Workload::start().await;
        let authority = Authority::new("kubernetes");
        for (node, end) in ends {
            let identity = authority.sign_until("kube-apiserver", &["kubernetes"], end.as_second());
            workload.api_server(node, &identity).await;
        }
        let kubeconfig = workload.kubeconfig(&json!({"token": TOKEN}));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some("eu-access".into()),
                ..ObjectMeta::default()
            },
            data: Some([("value".to_owned(), ByteString(kubeconfig.into_bytes()))].into()),
            ..Secret::default()
        };
        let secrets = self.api::<Secret>();
        let params = PostParams::default();
        secrets.create(&params, &secret).await.unwrap();
        workload
    }
}

/// Whether these are the machines of the control plane, whose certificates expire then.
fn expire(world: &World, names: [&str; 3], at: Timestamp) -> bool {
    let machines = world.control_plane("eu");
    let says = |m: &Machine| {
        m.annotations()
            .get(meta::ANNOTATION_CERTIFICATES_EXPIRY)
            .cloned()
    };
    machines.iter().map(|m| m.name_any()).eq(names)
        && machines
            .iter()
            .all(|m| says(m) == Some(rfc3339_seconds(at)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_replaced_one_at_a_time_before_their_certificates_expire() {
    let mut kit = Kit::start().await;
    let (first, later) = (
        ["eu-cp-0", "eu-cp-1", "eu-cp-2"],
        ["eu-cp-3", "eu-cp-4", "eu-cp-5"],
    );
    let now = SystemClock.now();
    let (soon, passes) = (now + 365 * DAY, 340 * DAY);
    let late = soon + passes;
    let ends: Vec<_> = [(first, soon), (later, late)]
        .into_iter()
        .flat_map(|(names, end)| names.map(|name| (name, end)))
        .collect();
    let workload = kit.api_servers(&ends).await;
    kit.three_that_joined("v1.34.1").await;
    kit.until("all say when their certificates expire", |w| {
        expire(w, first, soon).then_some(())
    })
    .await;
    let looks = workload.accepted();
    kit.always(|w| {
        let all = w.control_plane("eu");
        let leaving = all
            .iter()
            .filter(|m| m.metadata.deletion_timestamp.is_some());
        match (all.len(), leaving.count()) {
            (3 | 4, 0 | 1) => Ok(()),
            (all, leaving) => Err(format!("{leaving} of {all} machines go")),
        }
    });
    // Nothing happens for it while nobody has said how long before.
    kit.ward.ahead(passes.as_secs());
    let change = json!({"metadata": {"annotations": {"by-hand": "x"}}});
    kit.patch::<Cluster>("eu", change).await;
    kit.until_settled("eu").await;
    assert!(expire(&kit.world, first, soon));
    assert_eq!(workload.accepted(), looks, "nobody looks again so soon");
    let rollout = json!({"certificatesExpiryDays": 30});
    let change = json!({"spec": {"controlPlane": {"machines": {"rollout": rollout}}}});
    kit.patch::<Cluster>("eu", change).await;
    // Their nodes would say another time, at which the new ones would be due as well: nobody asks them.
    kit.until("all are replaced", |w| {
        (expire(w, later, late) && w.settled("eu")).then_some(())
    })
    .await;
    assert_eq!(kit.made().len(), 6);
    assert!(workload.accepted() > looks, "the new ones were looked at");
    kit.stop().await;
}
