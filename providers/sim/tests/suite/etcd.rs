//! The etcd of simulated clusters, in process and over HTTP, and the versions that there are images of.

use fleetwright_provider_sim::etcd::ANNOTATION;
use fleetwright_providers::{ConnectionError, EtcdMember, EtcdMembers, Provider, ProviderError};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::kit::{Kit, account, cluster_ref, order, until};

/// Members once they are so many and all vote.
async fn voting(kit: &Kit, count: usize) -> Vec<EtcdMember> {
    let cluster = cluster_ref("c1");
    until("all members vote", async || {
        let all = kit.remote.members(&cluster).await.ok()?;
        let vote = all.len() == count && all.iter().all(|m| !m.learner && !m.starting);
        vote.then_some(all)
    })
    .await
}

fn names(members: &[EtcdMember], healthy: bool) -> Vec<&str> {
    let of = members.iter().filter(|m| m.healthy == healthy);
    of.map(|m| m.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_learn_vote_break_and_leave() {
    let kit = Kit::start().await;
    let cluster = cluster_ref("c1");
    assert_eq!(
        kit.remote.members(&cluster).await,
        Err(ConnectionError::NotYet)
    );
    kit.create(&order("c1", "a", true)).await;
    let first = until("the first member", async || {
        let all = kit.remote.members(&cluster).await.ok()?;
        (!all.is_empty()).then_some(all)
    })
    .await;
    assert!(!first[0].learner, "the first one votes at once: {first:?}");
    let b = kit.create(&order("c1", "b", true)).await;
    let second = until("a second member", async || {
        let all = kit.remote.members(&cluster).await.ok()?;
        (all.len() == 2).then_some(all)
    })
    .await;
    assert!(second[1].learner, "it learns first: {second:?}");
    kit.create(&order("c1", "c", true)).await;
    kit.create(&order("c1", "worker", false)).await;
    let all = voting(&kit, 3).await;
    assert_eq!(names(&all, true), ["a", "b", "c"]);
    assert_eq!(kit.cloud.members(&cluster).await.unwrap(), all);
    // One whose instance is gone stays, and is not healthy.
    let key = order("c1", "b", true).owner.instance_key;
    kit.remote.delete(&account(), &b.id, &key).await.unwrap();
    until("its instance is gone", async || {
        kit.remote
            .get(&account(), &b.id)
            .await
            .ok()?
            .is_none()
            .then_some(())
    })
    .await;
    let kit = kit.restart().await;
    let all = voting(&kit, 3).await;
    assert_eq!(names(&all, false), ["b"]);
    // Nobody else may go now; it may, and once is enough.
    let refused = kit.remote.remove(&cluster, "c").await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("1 of 2 voting members are healthy"),
        "{refused}"
    );
    for _ in 0..2 {
        kit.remote.remove(&cluster, "b").await.unwrap();
    }
    assert_eq!(names(&voting(&kit, 2).await, true), ["a", "c"]);
    // A member can be broken by itself.
    let nodes = Api::<Node>::all(kit.client("c1").await);
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: "yes"}}}));
    let node = nodes.patch("c", &PatchParams::default(), &patch).await;
    let expiry = fleetwright_api::meta::ANNOTATION_CERTIFICATES_EXPIRY;
    assert!(node.unwrap().annotations().contains_key(expiry));
    assert_eq!(names(&voting(&kit, 2).await, false), ["c"]);
    // The last one never goes.
    kit.remote.remove(&cluster, "c").await.unwrap();
    kit.remote.remove(&cluster, "a").await.unwrap_err();
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_without_an_image_is_told_and_refused() {
    let kit = Kit::start().await;
    let order = order("c1", "a", true);
    let ask = async || {
        let (version, config) = (&order.version, &order.config);
        let asked = kit.remote.missing_image(&account(), version, config).await;
        assert_eq!(
            asked,
            kit.cloud.missing_image(&account(), version, config).await
        );
        asked.unwrap()
    };
    assert_eq!(ask().await, None);
    kit.cloud.set_versions(Some(["v1.1.1".to_owned()].into()));
    assert!(
        ask()
            .await
            .is_some_and(|e| e.field == "image" && e.message.contains("PUT /versions"))
    );
    let refused = kit.remote.create(&account(), &order).await;
    assert!(
        matches!(refused, Err(ProviderError::Terminal { .. })),
        "{refused:?}"
    );
    kit.cloud.set_versions(None);
    kit.create(&order).await;
    let config = order.config.as_object().cloned().unwrap().into();
    let domains = kit.remote.failure_domains(&account(), &config);
    assert_eq!(domains, kit.cloud.failure_domains(&account(), &config));
    assert_eq!(domains.len(), 3);
    kit.stop().await;
}
