//! An order from its making to its release.

use fleetwright_api::meta::FINALIZER_RELEASE;
use fleetwright_providers::{
    Account, Bootstrap, Infrastructure, InfrastructureOrder, InstanceState, ListScope, NodeId,
    Provider, ProviderError, UpdateInstance, conformance::Trouble,
};
use http::Method;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::kit::Place;

#[tokio::test]
async fn what_was_taken_up_stays_until_it_is_given_back() {
    let place = Place::new().await;
    let (account, order) = (place.account(), place.order("k"));
    let key = &order.owner.instance_key;
    let made = place.external.create(&account, &order).await.unwrap();
    assert_eq!(made.state, InstanceState::Pending);
    let written = place.at(&made.id).await.unwrap();
    assert_eq!(written.spec.labels, order.labels);
    assert_eq!(written.spec.provider_id, made.provider_id);
    assert_eq!(
        place.external.node_id(&order.owner),
        NodeId::Known(made.provider_id.clone())
    );
    assert_eq!(written.finalizers(), [FINALIZER_RELEASE]);

    let addresses = json!([{"type": "InternalIP", "address": "10.0.0.7"}]);
    let status = json!({"state": "Running", "addresses": addresses, "instanceType": "r640", "image": "noble-3"});
    place.say(&made.id, status).await;
    let shown = place.external.get(&account, &made.id).await.unwrap();
    let shown = shown.unwrap();
    assert_eq!(
        (
            shown.state,
            shown.instance_type.as_str(),
            shown.image.as_str()
        ),
        (InstanceState::Running, "r640", "noble-3")
    );
    assert_eq!(shown.addresses[0].address, "10.0.0.7");

    for _ in 0..2 {
        place
            .external
            .delete(&account, &made.id, key)
            .await
            .unwrap();
        let listed = place.external.list(&account, &ListScope::Account).await;
        let listed = listed.unwrap();
        assert_eq!(listed[0].state, InstanceState::Deleting);
        assert!(
            listed[0]
                .reason
                .as_ref()
                .unwrap()
                .contains(FINALIZER_RELEASE)
        );
    }
    let release = Patch::Merge(json!({"metadata": {"finalizers": []}}));
    let params = PatchParams::default();
    let orders = place.orders();
    orders
        .patch(&written.name_any(), &params, &release)
        .await
        .unwrap();
    assert_eq!(place.external.get(&account, &made.id).await.unwrap(), None);
}

#[tokio::test]
async fn an_order_that_is_taken_up_while_it_is_withdrawn_stays() {
    let place = Place::new().await;
    let (account, order) = (place.account(), place.order("k"));
    let key = &order.owner.instance_key;
    let made = place.external.create(&account, &order).await.unwrap();
    // The withdrawal is cut off in the middle: the finalizer is gone, the order is not.
    place.trouble(Trouble::RequestLost, Method::DELETE, &order.owner.machine);
    let cut = place.external.delete(&account, &made.id, key).await;
    assert!(
        matches!(cut, Err(ProviderError::Ambiguous { .. })),
        "{cut:?}"
    );
    assert!(place.at(&made.id).await.unwrap().finalizers().is_empty());
    place.say(&made.id, json!({"state": "Pending"})).await;
    place
        .external
        .delete(&account, &made.id, key)
        .await
        .unwrap();
    let left = place.at(&made.id).await.unwrap();
    assert!(left.metadata.deletion_timestamp.is_some());
    assert_eq!(left.finalizers(), [FINALIZER_RELEASE]);
}

#[tokio::test]
async fn user_data_is_there_before_the_order_and_goes_with_it() {
    let place = Place::new().await;
    let (account, mut order) = (place.account(), place.order("k"));
    let name = |id: &str| id.split_once('/').unwrap().1.to_owned();
    // The order is never seen, and yet nothing stays of what it was to give.
    place.trouble(Trouble::RequestLost, Method::POST, &order.owner.machine);
    place.external.create(&account, &order).await.unwrap_err();
    let left = async || place.secrets().list(&ListParams::default()).await.unwrap();
    assert_eq!(left().await.items.len(), 1);
    place
        .external
        .discard(&account, &order.owner)
        .await
        .unwrap();
    assert_eq!(left().await.items.len(), 0);

    let made = place.external.create(&account, &order).await.unwrap();
    let value = async || {
        let secret = place.secrets().get(&name(&made.id)).await.unwrap();
        let owner = secret.owner_references()[0].clone();
        assert_eq!(owner.uid, place.at(&made.id).await.unwrap().uid().unwrap());
        String::from_utf8(secret.data.unwrap()["value"].0.clone()).unwrap()
    };
    assert_eq!(value().await, "#cloud-config\nhush");
    // Asked again, it gives what holds now.
    order.user_data = Some(fleetwright_api::secret::SecretText::new(
        "#cloud-config\nnew",
    ));
    place.external.create(&account, &order).await.unwrap();
    assert_eq!(value().await, "#cloud-config\nnew");
    for _ in 0..2 {
        place
            .external
            .discard(&account, &order.owner)
            .await
            .unwrap();
        assert_eq!(left().await.items.len(), 0);
    }
    // In somebody else's cluster there is none.
    let mut theirs = place.order("k");
    theirs.user_data = None;
    let made = place.external.create(&account, &theirs).await.unwrap();
    assert_eq!(place.at(&made.id).await.unwrap().spec.user_data, None);
    assert_eq!(left().await.items.len(), 0);
}

#[tokio::test]
async fn changes_in_place_leave_the_rest_and_the_status() {
    let place = Place::new().await;
    let (account, order) = (place.account(), place.order("k"));
    let made = place.external.create(&account, &order).await.unwrap();
    place.say(&made.id, json!({"state": "Running"})).await;
    let mut change = UpdateInstance {
        owner: order.owner.clone(),
        config: order.config.clone(),
        config_digest: "next".into(),
        ..UpdateInstance::default()
    };
    change.config["tags"] = json!({"owner": "b"});
    change.config["image"] = json!("plucky");
    change.owner.set = "web-2".into();
    let shown = place
        .external
        .update(&account, &made.id, &change)
        .await
        .unwrap();
    assert_eq!(
        (shown.state, shown.image.as_str()),
        (InstanceState::Running, "noble")
    );
    let settings = place.at(&made.id).await.unwrap().spec.provider_config;
    assert_eq!(settings.to_value()["tags"], json!({"owner": "b"}));
    assert_eq!(shown.owner.unwrap().set, "web-2");
}

#[tokio::test]
async fn orders_of_others_stay_theirs() {
    let place = Place::new().await;
    let (account, order) = (place.account(), place.order("k"));
    let made = place.external.create(&account, &order).await.unwrap();
    let orders = place.orders();
    let name = made.id.split_once('/').unwrap().1;
    let params = PatchParams::default();
    let other = Patch::Merge(json!({"spec": {"installation": "other"}}));
    orders.patch(name, &params, &other).await.unwrap();
    assert_eq!(place.external.get(&account, &made.id).await.unwrap(), None);
    let listed = place.external.list(&account, &ListScope::Account).await;
    assert_eq!(listed.unwrap(), []);
    let again = place.external.create(&account, &order).await;
    assert!(
        matches!(again, Err(ProviderError::Terminal { .. })),
        "{again:?}"
    );
    let key = &order.owner.instance_key;
    place
        .external
        .delete(&account, &made.id, key)
        .await
        .unwrap();
    assert!(place.at(&made.id).await.is_some());
    orders.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn the_way_to_the_api_is_what_the_cluster_says() {
    let place = Place::new().await;
    let ask = async |config| {
        let order = InfrastructureOrder {
            config,
            port: 6443,
            ..InfrastructureOrder::default()
        };
        place.external.ensure(&Account::default(), &order).await
    };
    let config = |endpoint| {
        json!({
            "apiVersion": "external.fleetwright.dev/v1alpha1", "kind": "ExternalClusterConfig", "account": "metal",
            "controlPlaneEndpoint": endpoint,
        })
    };
    for (endpoint, port) in [
        (json!({"host": "eu.test", "port": 443}), 443),
        (json!({"host": "eu.test"}), 6443),
    ] {
        let found = ask(config(endpoint)).await.unwrap().unwrap();
        assert_eq!((found.host.as_str(), found.port), ("eu.test", port));
    }
    for wrong in [
        json!(null),
        config(json!(null)),
        config(json!({"host": ""})),
    ] {
        assert!(ask(wrong).await.unwrap_err().is_terminal());
    }
}
