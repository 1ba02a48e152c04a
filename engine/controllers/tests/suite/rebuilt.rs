//! The state is lost, and made again from what the repository says and from the tags of the instances.

use std::collections::BTreeMap;

use fleetwright_api::{Cluster, Machine, condition::Condition, meta};
use fleetwright_providers::{ListScope, Provider};
use kube::ResourceExt;
use serde_json::json;

use crate::kit::{Kit, account};

/// What a machine is, wherever its object is kept: version, key and id of its instance.
type Identity = (Option<String>, Option<String>, Option<String>);

fn identities(kit: &Kit) -> BTreeMap<String, Identity> {
    let identity = |m: &Machine| {
        let spec = &m.spec;
        let version = spec.content.version.clone();
        (version, spec.instance_key.clone(), spec.provider_id.clone())
    };
    let machines = kit.world.machines.iter();
    machines
        .map(|(name, m)| (name.clone(), identity(m)))
        .collect()
}

async fn instances(kit: &Kit) -> Vec<String> {
    let list = kit.cloud.list(&account(), &ListScope::Account).await;
    list.unwrap().into_iter().map(|i| i.id).collect()
}

/// No machine is ever made but those that there were, and none of them goes.
fn nothing_moves(kit: &mut Kit, before: &BTreeMap<String, Identity>) {
    let before = before.clone();
    kit.always(move |world| {
        for (name, machine) in &world.machines {
            if !before.contains_key(name) {
                return Err(format!("{name} is new"));
            }
            if machine.metadata.deletion_timestamp.is_some() {
                return Err(format!("{name} goes"));
            }
        }
        Ok(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_state_is_made_again_without_making_or_losing_an_instance() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 3, json!({})).await;
    kit.pool("eu-web", "eu", 3, json!({})).await;
    kit.until_settled("eu").await;
    // An ordinal that is in no name any more, and a set that was followed by another.
    kit.patch::<Cluster>("eu", json!({"spec": {"version": "v1.34.1"}}))
        .await;
    kit.until_settled("eu").await;
    let (before, made) = (identities(&kit), instances(&kit).await);

    kit.lose_state().await;
    nothing_moves(&mut kit, &before);
    kit.start_controllers();
    kit.cluster("eu", "v1.34.1", 3, json!({})).await;
    // Nobody says how many: somebody had scaled it.
    kit.pool("eu-web", "eu", 1, json!({"replicas": null})).await;
    kit.until("all machines are back", |w| {
        (w.settled("eu") && w.workers("eu-web").len() == 3).then_some(())
    })
    .await;
    assert_eq!(identities(&kit), before);
    assert_eq!(instances(&kit).await, made);
    let pool = &kit.world.pools["eu-web"];
    assert_eq!(pool.spec.replicas, Some(3));
    let next: u64 = pool.annotations()[meta::ANNOTATION_NEXT_ORDINAL]
        .parse()
        .unwrap();
    let highest = before.keys().filter(|n| n.starts_with("eu-web-"));
    let highest = highest.filter_map(|n| n.rsplit('-').next()?.parse::<u64>().ok());
    assert_eq!(Some(next), highest.max().map(|n| n + 1));
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_since_rolls_and_what_nobody_declares_any_more_is_left_alone() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 2, json!({})).await;
    kit.pool("eu-old", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let before = identities(&kit);
    let of = |pool: &str| -> Vec<String> {
        let names = before.keys().filter(|n| n.starts_with(pool));
        names.cloned().collect()
    };
    let (web, old) = (of("eu-web-"), of("eu-old-"));
    let left = before[&old[0]].2.clone().unwrap();

    kit.lose_state().await;
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    let larger = json!({"template": {"spec": {"providerConfig": {"instanceType": "sim.large"}}}});
    kit.pool("eu-web", "eu", 2, larger).await;
    kit.until("both are seen first", |w| {
        web.iter().all(|n| w.machines.contains_key(n)).then_some(())
    })
    .await;
    kit.until("both are replaced", |w| {
        let gone = web.iter().all(|n| !w.machines.contains_key(n));
        (gone && w.settled("eu")).then_some(())
    })
    .await;
    let stranger = kit
        .until("the instance of the pool that is gone is told", |w| {
            let status = w.clusters["eu"].status.as_ref()?;
            status.unmanaged_instances.first().cloned()
        })
        .await;
    assert!(left.ends_with(&stranger), "{left} {stranger}");
    assert!(instances(&kit).await.contains(&stranger));

    // Declared again, it is taken up again.
    kit.pool("eu-old", "eu", 1, json!({})).await;
    kit.until("its machine is back", |w| w.machines.get(&old[0]).map(drop))
        .await;
    kit.until_settled("eu").await;
    let pools: Vec<_> = kit.world.pools.keys().collect();
    assert_eq!(pools, ["eu-old", "eu-web"]);
    kit.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_while_nobody_can_tell_what_there_is() {
    let mut kit = Kit::start().await;
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until_settled("eu").await;
    let (before, made) = (identities(&kit), instances(&kit).await);

    kit.lose_state().await;
    nothing_moves(&mut kit, &before);
    kit.fault(json!({"verb": "list", "effect": "requestLost", "count": 1000}));
    kit.start_controllers();
    kit.cluster("eu", "v1.33.2", 1, json!({})).await;
    kit.pool("eu-web", "eu", 1, json!({})).await;
    kit.until("the cluster says why it waits", |w| {
        let status = w.clusters.get("eu")?.status.as_ref()?;
        let told = |c: &Condition| c.message.contains("cannot be listed");
        status.conditions.iter().any(told).then_some(())
    })
    .await;
    kit.cloud.clear_faults();
    kit.until_settled("eu").await;
    assert_eq!(identities(&kit), before);
    assert_eq!(instances(&kit).await, made);
    kit.stop().await;
}
