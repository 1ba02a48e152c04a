//! Against moto. It knows no updates of versions, forgets the rest of a VPC's configuration when a part of it is updated, and takes
//! everything at once, so none of it is ever under way. Of groups it changes no tags, and lists none of a cluster that is not there.

use aws_sdk_eks::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::Builder;
use fleetwright_api::machine::{MachineTaint, TaintEffect};
use fleetwright_providers::managed::{ManagedControlPlaneOrder, ManagedPhase, PoolOrder};
use fleetwright_tests::emulators::{self, Emulator};
use tokio::sync::OnceCell;

use super::*;

/// One for all tests: each has a region of its own.
async fn moto() -> Option<&'static Emulator> {
    static MOTO: OnceCell<Option<Emulator>> = OnceCell::const_new();
    MOTO.get_or_init(emulators::moto).await.as_ref()
}

pub(super) fn client(url: &str, region: &'static str) -> Client {
    let config = aws_sdk_eks::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .http_client(Builder::new().build_http())
        .endpoint_url(url)
        .build();
    Client::from_conf(config)
}

/// A client of a region that no other test uses.
fn alone(moto: &Emulator, region: &'static str) -> Client {
    moto.take(region);
    client(moto.url(), region)
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn order(version: &str, more: Value) -> ManagedControlPlaneOrder {
    ManagedControlPlaneOrder {
        owner: owner("default/eu", ""),
        version: version.into(),
        config: plane(more),
        network: None,
    }
}

fn group_order(replicas: Option<i32>, more: Value) -> PoolOrder {
    let mut config = json!({
        "apiVersion": crate::schema::API_VERSION, "kind": schema::NODE_GROUP_CONFIG, "account": "a",
        "nodeRoleARN": "arn:aws:iam::123456789012:role/nodes", "subnets": ["subnet-0123456789abcdef0"],
        "scaling": {"minSize": 1, "maxSize": 9}, "tags": {"team": "a"},
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    let taint = MachineTaint {
        key: "only".into(),
        value: Some("web".into()),
        effect: TaintEffect::NoSchedule,
        propagation: None,
    };
    PoolOrder {
        owner: owner("default/eu", "web"),
        version: "v1.33.4".into(),
        config,
        replicas,
        bounds: None,
        labels: [("node.fleetwright.dev/kind".to_owned(), "web".to_owned())].into(),
        taints: vec![taint],
    }
}

#[tokio::test]
async fn a_control_plane_is_made_once_kept_as_ordered_and_taken_away() {
    let Some(moto) = moto().await else { return };
    let client = alone(moto, "eu-west-1");
    let first = order(
        "v1.33.4",
        json!({"logging": ["api"], "tags": {"team": "a", "cost": "7"}}),
    );
    let made = control_plane::ensure(&client, &Ended::default(), &first, now())
        .await
        .unwrap();
    assert_eq!(made.phase, ManagedPhase::Creating);
    for _ in 0..2 {
        let same = control_plane::ensure(&client, &Ended::default(), &first, now())
            .await
            .unwrap();
        assert_eq!(same.phase, ManagedPhase::Active);
        assert_eq!(same.version.as_deref(), Some("v1.33.4"));
        assert_eq!(same.id, made.id);
        assert!(same.endpoint.is_some());
    }
    let all = client.list_clusters().send().await.unwrap();
    assert_eq!(all.clusters().len(), 1);

    // What can change does, one update at a time, and tags with it.
    let second = order(
        "v1.33.4",
        json!({"logging": ["audit"], "tags": {"team": "b"}}),
    );
    let changed = control_plane::ensure(&client, &Ended::default(), &second, now())
        .await
        .unwrap();
    assert_eq!(changed.phase, ManagedPhase::Updating(None));
    let rests = control_plane::ensure(&client, &Ended::default(), &second, now())
        .await
        .unwrap();
    assert_eq!(rests.phase, ManagedPhase::Active);
    let name = cluster_name(&second.owner);
    let shown = control_plane::describe(&client, &name)
        .await
        .unwrap()
        .unwrap();
    let tags = sorted(shown.tags());
    assert_eq!(tags.get("team").map(String::as_str), Some("b"));
    assert_eq!(tags.get("cost"), None);
    let private =
        json!({"logging": ["audit"], "tags": {"team": "b"}, "endpointAccess": {"public": false}});
    let private = order("v1.33.4", private);
    let changed = control_plane::ensure(&client, &Ended::default(), &private, now())
        .await
        .unwrap();
    assert_eq!(changed.phase, ManagedPhase::Updating(None));
    let shown = control_plane::describe(&client, &name)
        .await
        .unwrap()
        .unwrap();
    let vpc = shown.resources_vpc_config().unwrap();
    assert_eq!(
        (vpc.endpoint_public_access(), vpc.endpoint_private_access()),
        (false, true)
    );

    // What cannot change is told.
    let other = order(
        "v1.33.4",
        json!({"roleARN": "arn:aws:iam::123456789012:role/other"}),
    );
    let refused = control_plane::ensure(&client, &Ended::default(), &other, now())
        .await
        .unwrap_err();
    assert!(
        refused.is_terminal()
            && refused
                .to_string()
                .starts_with("roleARN: EKS cannot change it"),
        "{refused}"
    );
    // An older version is no order.
    let older = order(
        "v1.32.0",
        json!({"logging": ["audit"], "tags": {"team": "b"}}),
    );
    let held = control_plane::ensure(&client, &Ended::default(), &older, now())
        .await
        .unwrap();
    assert_eq!(held.version.as_deref(), Some("v1.33.0"));

    let got = control_plane::get(&client, &first.owner)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got.id, made.id);
    assert!(!control_plane::remove(&client, &first.owner).await.unwrap());
    assert!(control_plane::remove(&client, &first.owner).await.unwrap());
    assert_eq!(
        control_plane::get(&client, &first.owner).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn what_is_somebody_elses_is_not_touched() {
    let Some(moto) = moto().await else { return };
    let client = alone(moto, "eu-central-1");
    let theirs = order("v1.33.4", json!({}));
    let name = cluster_name(&theirs.owner);
    client
        .create_cluster()
        .name(&name)
        .role_arn("arn:aws:iam::123456789012:role/theirs")
        .resources_vpc_config(aws_sdk_eks::types::VpcConfigRequest::builder().build())
        .send()
        .await
        .unwrap();
    let refused = control_plane::ensure(&client, &Ended::default(), &theirs, now())
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("is not of this installation's making"),
        "{refused}"
    );
    assert!(
        control_plane::remove(&client, &theirs.owner)
            .await
            .unwrap_err()
            .is_terminal()
    );
    assert_eq!(
        control_plane::get(&client, &theirs.owner).await.unwrap(),
        None
    );
    let refused = group::ensure(
        &client,
        &Ended::default(),
        &group_order(Some(2), json!({})),
        now(),
    )
    .await
    .unwrap_err();
    assert!(refused.is_terminal(), "{refused}");
    client
        .create_nodegroup()
        .cluster_name(&name)
        .nodegroup_name(group_name(&owner("default/eu", "web")))
        .node_role("arn:aws:iam::123456789012:role/theirs")
        .subnets("subnet-0123456789abcdef0")
        .send()
        .await
        .unwrap();
    let refused = group::ensure(
        &client,
        &Ended::default(),
        &group_order(Some(2), json!({})),
        now(),
    )
    .await
    .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("is not of this installation's making"),
        "{refused}"
    );
    assert!(
        group::remove(&client, &owner("default/eu", "web"))
            .await
            .unwrap_err()
            .is_terminal()
    );
    assert_eq!(group::list(&client, &theirs.owner).await.unwrap(), []);
}

#[tokio::test]
async fn a_group_is_made_once_kept_as_ordered_and_taken_away() {
    let Some(moto) = moto().await else { return };
    let client = alone(moto, "us-east-1");
    let first = group_order(Some(2), json!({}));
    let early = group::ensure(&client, &Ended::default(), &first, now())
        .await
        .unwrap_err();
    assert_eq!(
        early.word(),
        "Unavailable",
        "its control plane is not there yet: {early}"
    );
    control_plane::ensure(
        &client,
        &Ended::default(),
        &order("v1.33.4", json!({})),
        now(),
    )
    .await
    .unwrap();
    let made = group::ensure(&client, &Ended::default(), &first, now())
        .await
        .unwrap();
    assert_eq!((made.phase, made.replicas), (ManagedPhase::Creating, 2));
    assert_eq!(made.owner, first.owner);
    for _ in 0..2 {
        let same = group::ensure(&client, &Ended::default(), &first, now())
            .await
            .unwrap();
        assert_eq!(same.phase, ManagedPhase::Active);
        assert_eq!(same.version.as_deref(), Some("v1.33.4"));
        assert_eq!(
            (same.id.as_str(), same.node_label.as_str()),
            (made.id.as_str(), group_name(&first.owner).as_str())
        );
    }
    // Replicas, bounds, labels and taints in one update.
    let mut second = group_order(
        Some(4),
        json!({"scaling": {"minSize": 2, "maxSize": 9}, "update": {"maxUnavailable": 2}}),
    );
    second.labels = [("node.fleetwright.dev/kind".to_owned(), "db".to_owned())].into();
    second.taints.clear();
    let changed = group::ensure(&client, &Ended::default(), &second, now())
        .await
        .unwrap();
    assert_eq!(changed.phase, ManagedPhase::Updating(None));
    let rests = group::ensure(&client, &Ended::default(), &second, now())
        .await
        .unwrap();
    assert_eq!((rests.phase, rests.replicas), (ManagedPhase::Active, 4));
    // Where an autoscaler decides, the number stays.
    second.replicas = None;
    let same = group::ensure(&client, &Ended::default(), &second, now())
        .await
        .unwrap();
    assert_eq!((same.phase, same.replicas), (ManagedPhase::Active, 4));
    second.replicas = Some(12);
    let refused = group::ensure(&client, &Ended::default(), &second, now())
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .ends_with("12 replicas are not between minSize 2 and maxSize 9"),
        "{refused}"
    );
    let other = group_order(Some(4), json!({"instanceTypes": ["m7i.large"]}));
    let refused = group::ensure(&client, &Ended::default(), &other, now())
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("instanceTypes: EKS cannot change it"),
        "{refused}"
    );

    let mut whole = first.owner.clone();
    whole.pool = String::new();
    let listed = group::list(&client, &whole).await.unwrap();
    assert_eq!(
        listed.iter().map(|g| g.id.as_str()).collect::<Vec<_>>(),
        [made.id.as_str()]
    );
    // A control plane with groups is in use.
    let used = control_plane::remove(&client, &whole).await.unwrap_err();
    assert_eq!(used.word(), "Unavailable", "{used}");
    assert!(!group::remove(&client, &first.owner).await.unwrap());
    assert!(group::remove(&client, &first.owner).await.unwrap());
    assert!(!control_plane::remove(&client, &whole).await.unwrap());
    assert!(control_plane::remove(&client, &whole).await.unwrap());
}

#[tokio::test]
async fn what_aws_says_of_an_operation_is_told_in_our_words() {
    let Some(moto) = moto().await else { return };
    let client = alone(moto, "us-west-2");
    let first = order("v1.32.0", json!({}));
    control_plane::ensure(&client, &Ended::default(), &first, now())
        .await
        .unwrap();
    // moto knows no updates.
    let next = order("v1.33.0", json!({}));
    let error = control_plane::ensure(&client, &Ended::default(), &next, now())
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("ListUpdates: "), "{error}");
}
