//! Answers that are lost after something was made, of all that is made but instances: it is found again, and there is no second one.

use fleetwright_provider_aws::config::{API_VERSION, CLUSTER_CONFIG};
use fleetwright_providers::{
    InfrastructureOrder, Provider, ProviderError,
    managed::{ManagedControlPlaneOrder, ManagedOwner, PoolOrder},
};
use serde_json::{Value, json};

use crate::kit::{INSTALLATION, Place, sdk};

const CLUSTER_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Lets the answer to the next call of an operation be lost; gives the number of the rule.
async fn lose(here: &Place, service: &str, operation: &str) -> u64 {
    let rule = json!({
        "service": service, "operation": operation, "times": 1, "response": {"abort_frac": 0.3},
    });
    here.fault(rule).await
}

/// The words of the errors that come until there is none.
async fn until_done<T>(
    mut ask: impl AsyncFnMut() -> Result<T, ProviderError>,
) -> Vec<&'static str> {
    let mut words = Vec::new();
    while let Err(error) = ask().await {
        words.push(error.word());
        assert!(words.len() < 10, "{error}");
    }
    words
}

#[tokio::test]
async fn a_load_balancer_is_made_once() {
    let Some(here) = Place::at("ap-southeast-6").await else {
        return;
    };
    let elb =
        aws_sdk_elasticloadbalancingv2::Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let account = here.account();
    let subnets: Vec<&String> = here.subnets.iter().map(|(id, _)| id).take(2).collect();
    let order = InfrastructureOrder {
        installation: INSTALLATION.into(),
        cluster_key: CLUSTER_KEY.into(),
        cluster: "default/eu".into(),
        config: json!({
            "apiVersion": API_VERSION, "kind": CLUSTER_CONFIG, "account": "aws", "loadBalancer": {"subnets": subnets},
        }),
        port: 6443,
        instances: Vec::new(),
    };
    let mut rules = Vec::new();
    for operation in ["CreateLoadBalancer", "CreateTargetGroup", "CreateListener"] {
        rules.push(lose(&here, "elbv2", operation).await);
    }
    let infrastructure = here.aws.infrastructure().unwrap();
    let words = until_done(async || infrastructure.ensure(&account, &order).await).await;
    assert_eq!(words, ["Ambiguous"; 3]);
    for rule in rules {
        assert_eq!(here.fired(rule).await, 1);
    }
    let balancers = elb.describe_load_balancers().send().await.unwrap();
    let [balancer] = balancers.load_balancers() else {
        panic!("{balancers:?}");
    };
    let groups = elb.describe_target_groups().send().await.unwrap();
    assert_eq!(groups.target_groups().len(), 1);
    let listeners = elb.describe_listeners();
    let listeners = listeners.set_load_balancer_arn(balancer.load_balancer_arn.clone());
    assert_eq!(listeners.send().await.unwrap().listeners().len(), 1);
}

fn owner(pool: &str) -> ManagedOwner {
    ManagedOwner {
        installation: INSTALLATION.into(),
        cluster_key: CLUSTER_KEY.into(),
        cluster: "default/eu".into(),
        pool: pool.into(),
    }
}

#[tokio::test]
async fn a_control_plane_of_eks_and_its_group_are_made_once() {
    let Some(here) = Place::at("ap-east-2").await else {
        return;
    };
    let eks = aws_sdk_eks::Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let account = here.account();
    let subnets: Vec<&String> = here.subnets.iter().map(|(id, _)| id).take(2).collect();
    let config = |kind: &str, role: &str| -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": kind, "account": "aws", "subnets": subnets,
            role: "arn:aws:iam::123456789012:role/eks",
        })
    };
    let order = ManagedControlPlaneOrder {
        owner: owner(""),
        version: "v1.33.0".into(),
        config: config("EKSControlPlaneConfig", "roleARN"),
        network: None,
    };
    let group = PoolOrder {
        owner: owner("web"),
        version: "v1.33.0".into(),
        config: config("EKSNodeGroupConfig", "nodeRoleARN"),
        replicas: Some(2),
        ..PoolOrder::default()
    };
    let planes = here.aws.control_planes().unwrap();
    let pools = here.aws.pools().unwrap();
    let cluster = lose(&here, "eks", "CreateCluster").await;
    let nodegroup = lose(&here, "eks", "CreateNodegroup").await;
    let words = until_done(async || planes.ensure(&account, &order).await).await;
    assert_eq!(
        (words.as_slice(), here.fired(cluster).await),
        (&["Ambiguous"][..], 1)
    );
    let words = until_done(async || pools.ensure(&account, &group).await).await;
    assert_eq!(
        (words.as_slice(), here.fired(nodegroup).await),
        (&["Ambiguous"][..], 1)
    );
    let clusters = eks.list_clusters().send().await.unwrap();
    let [name] = clusters.clusters() else {
        panic!("{clusters:?}");
    };
    let groups = eks
        .list_nodegroups()
        .cluster_name(name)
        .send()
        .await
        .unwrap();
    assert_eq!(groups.nodegroups().len(), 1);
    // Both are the owner's.
    let plane = planes.get(&account, &owner("")).await.unwrap();
    let listed = pools.list(&account, &owner("")).await.unwrap();
    assert_eq!((plane.is_some(), listed.len()), (true, 1));
}
