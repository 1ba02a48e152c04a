//! The load balancer in front of a cluster's API.

use std::collections::BTreeSet;

use aws_sdk_elasticloadbalancingv2::Client;
use fleetwright_provider_aws::config::{API_VERSION, CLUSTER_CONFIG};
use fleetwright_providers::{ControlPlaneEndpoint, InfrastructureOrder, Provider};
use serde_json::{Value, json};

use crate::kit::{INSTALLATION, Place, sdk};

fn config(more: Value) -> Value {
    let mut config = json!({"apiVersion": API_VERSION, "kind": CLUSTER_CONFIG, "account": "aws"});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn order(config: Value) -> InfrastructureOrder {
    InfrastructureOrder {
        installation: INSTALLATION.into(),
        cluster_key: "0123456789abcdef0123456789abcdef".into(),
        cluster: "default/eu".into(),
        config,
        port: 6443,
        instances: Vec::new(),
    }
}

/// Ports of the listeners, and targets with their ports, as AWS itself shows them.
async fn seen(elb: &Client) -> (Vec<i32>, BTreeSet<(String, i32)>) {
    let balancers = elb.describe_load_balancers().send().await.unwrap();
    let arn = balancers.load_balancers()[0].load_balancer_arn().unwrap();
    let listeners = elb
        .describe_listeners()
        .load_balancer_arn(arn)
        .send()
        .await
        .unwrap();
    let ports = listeners
        .listeners()
        .iter()
        .map(|l| l.port().unwrap())
        .collect();
    let groups = elb.describe_target_groups().send().await.unwrap();
    let arn = groups.target_groups()[0].target_group_arn().unwrap();
    let health = elb
        .describe_target_health()
        .target_group_arn(arn)
        .send()
        .await
        .unwrap();
    let targets = health.target_health_descriptions().iter();
    let targets = targets.map(|d| {
        let target = d.target().unwrap();
        (target.id().unwrap().to_owned(), target.port().unwrap())
    });
    (ports, targets.collect())
}

#[tokio::test]
async fn the_api_has_a_load_balancer_whose_targets_are_the_control_plane() {
    let Some(here) = Place::at("ap-northeast-3").await else {
        return;
    };
    let elb = Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let account = here.account();
    let mut ids = Vec::new();
    for n in 0..3 {
        let made = here
            .aws
            .create(&account, &here.order("c", &format!("m-{n}")))
            .await;
        ids.push(made.unwrap().id);
    }
    let subnets: Vec<&String> = here.subnets.iter().map(|(id, _)| id).take(2).collect();
    let balancer = json!({"subnets": subnets});
    let mut order = order(config(
        json!({"loadBalancer": balancer, "tags": {"team": "a", "cost": "7"}}),
    ));
    order.instances = ids[..2].to_vec();
    let infrastructure = here.aws.infrastructure().unwrap();
    let ensure = async |order: &InfrastructureOrder| {
        // moto's are being made until they are looked at.
        loop {
            if let Some(endpoint) = infrastructure.ensure(&account, order).await.unwrap() {
                return endpoint;
            }
        }
    };
    let endpoint = ensure(&order).await;
    assert!(
        endpoint.host.contains(".elb.") && endpoint.port == 6443,
        "{endpoint:?}"
    );
    let on = |port: i32, ids: &[String]| -> BTreeSet<_> {
        ids.iter().map(|id| (id.clone(), port)).collect()
    };
    assert_eq!(seen(&elb).await, (vec![6443], on(6443, &ids[..2])));
    // The same again changes nothing, and others take the place of those that went.
    assert_eq!(ensure(&order).await, endpoint);
    // moto tells targets apart by their ids alone, AWS by ids and ports.
    order.instances = ids[2..].to_vec();
    order.port = 8443;
    order.config["tags"] = json!({"team": "b"});
    assert_eq!(ensure(&order).await.port, 8443);
    assert_eq!(seen(&elb).await, (vec![8443], on(8443, &ids[2..])));

    let balancers = elb.describe_load_balancers().send().await.unwrap();
    assert_eq!(balancers.load_balancers().len(), 1);
    let arn = balancers.load_balancers()[0]
        .load_balancer_arn()
        .unwrap()
        .to_owned();
    let groups = elb.describe_target_groups().send().await.unwrap();
    let group = groups.target_groups()[0]
        .target_group_arn()
        .unwrap()
        .to_owned();
    let attributes = elb
        .describe_target_group_attributes()
        .target_group_arn(&group)
        .send()
        .await
        .unwrap();
    let hides = |a: &aws_sdk_elasticloadbalancingv2::types::TargetGroupAttribute| {
        a.key() == Some("preserve_client_ip.enabled") && a.value() == Some("false")
    };
    assert!(attributes.attributes().iter().any(hides), "{attributes:?}");
    for arn in [&arn, &group] {
        let tags = elb.describe_tags().resource_arns(arn).send().await.unwrap();
        let tags = tags.tag_descriptions()[0].tags();
        let value = |key: &str| {
            tags.iter()
                .find(|t| t.key() == Some(key))
                .and_then(|t| t.value())
        };
        assert_eq!(
            value("fleetwright.dev/cluster-key"),
            Some(order.cluster_key.as_str())
        );
        assert_eq!((value("team"), value("cost")), (Some("b"), None));
    }
    let mut public = order.clone();
    public.config["loadBalancer"]["scheme"] = json!("internet-facing");
    let error = infrastructure.ensure(&account, &public).await.unwrap_err();
    assert!(
        error.is_terminal() && error.to_string().contains("cannot change"),
        "{error}"
    );

    let mut gone = 0;
    while !infrastructure.remove(&account, &order).await.unwrap() {
        gone += 1;
        assert!(gone < 5, "it does not go");
    }
    assert!(
        elb.describe_load_balancers()
            .send()
            .await
            .unwrap()
            .load_balancers()
            .is_empty()
    );
    assert!(
        elb.describe_target_groups()
            .send()
            .await
            .unwrap()
            .target_groups()
            .is_empty()
    );
    assert!(infrastructure.remove(&account, &order).await.unwrap());
}

#[tokio::test]
async fn targets_stay_while_nobody_names_any() {
    let Some(here) = Place::at("ca-west-1").await else {
        return;
    };
    let elb = Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let account = here.account();
    let mut ids = Vec::new();
    for machine in ["m-0", "m-1"] {
        let made = here.aws.create(&account, &here.order("c", machine)).await;
        ids.push(made.unwrap().id);
    }
    let subnets: Vec<&String> = here.subnets.iter().map(|(id, _)| id).take(2).collect();
    let mut order = order(config(json!({"loadBalancer": {"subnets": subnets}})));
    let infrastructure = here.aws.infrastructure().unwrap();
    let takes_off = json!({"service": "elbv2", "operation": "DeregisterTargets", "latency": {"min": 0, "max": 0}});
    let taken_off = here.fault(takes_off).await;
    // The last one named stays, as often as none is.
    for (named, targets, calls) in [
        (&ids[..], &ids[..], 0),
        (&[], &ids[..], 0),
        (&ids[1..], &ids[1..], 1),
        (&[], &ids[1..], 1),
        (&[], &ids[1..], 1),
        (&ids[..1], &ids[..1], 2),
    ] {
        order.instances = named.to_vec();
        infrastructure.ensure(&account, &order).await.unwrap();
        let wanted = targets.iter().map(|id| (id.clone(), 6443)).collect();
        assert_eq!(seen(&elb).await.1, wanted, "{named:?}");
        assert_eq!(here.fired(taken_off).await, calls, "{named:?}");
    }
    // A cluster that goes takes them along.
    order.instances.clear();
    let mut looks = 0;
    while !infrastructure.remove(&account, &order).await.unwrap() {
        looks += 1;
        assert!(looks < 5, "it does not go");
    }
    let left = elb.describe_target_groups().send().await.unwrap();
    assert!(left.target_groups().is_empty());
}

#[tokio::test]
async fn what_is_not_the_clusters_stays() {
    let Some(here) = Place::at("ap-southeast-3").await else {
        return;
    };
    let elb = Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let subnets: Vec<&String> = here.subnets.iter().map(|(id, _)| id).take(2).collect();
    let order = order(config(json!({"loadBalancer": {"subnets": subnets}})));
    let infrastructure = here.aws.infrastructure().unwrap();
    let account = here.account();
    infrastructure.ensure(&account, &order).await.unwrap();
    let found = elb.describe_load_balancers().send().await.unwrap();
    let arn = found.load_balancers()[0].load_balancer_arn().unwrap();
    let call = elb
        .remove_tags()
        .resource_arns(arn)
        .tag_keys("fleetwright.dev/cluster-key");
    call.send().await.unwrap();
    let made = infrastructure.ensure(&account, &order).await.map(drop);
    let gone = infrastructure.remove(&account, &order).await.map(drop);
    for error in [made.unwrap_err(), gone.unwrap_err()] {
        assert!(
            error.is_terminal() && error.to_string().contains("rename it or delete it"),
            "{error}"
        );
    }
    let found = elb.describe_load_balancers().send().await.unwrap();
    assert_eq!(found.load_balancers().len(), 1);
}

#[tokio::test]
async fn what_was_made_goes_whatever_the_settings_say_by_now() {
    let Some(here) = Place::at("eu-west-3").await else {
        return;
    };
    let elb = Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let subnets: Vec<&String> = here.subnets.iter().map(|(id, _)| id).take(2).collect();
    let made = config(json!({"loadBalancer": {"subnets": subnets}}));
    let given = config(json!({"controlPlaneEndpoint": {"host": "api.example.com"}}));
    let infrastructure = here.aws.infrastructure().unwrap();
    let account = here.account();
    for now in [given, Value::Null, json!({"kind": "Other"})] {
        let order = order(made.clone());
        infrastructure.ensure(&account, &order).await.unwrap();
        let gone = InfrastructureOrder {
            config: now.clone(),
            ..order
        };
        let mut looks = 0;
        while !infrastructure.remove(&account, &gone).await.unwrap() {
            looks += 1;
            assert!(looks < 5, "{now}: it does not go");
        }
        assert_eq!(looks, 1, "{now}");
        let left = elb.describe_load_balancers().send().await.unwrap();
        assert!(left.load_balancers().is_empty());
        let left = elb.describe_target_groups().send().await.unwrap();
        assert!(left.target_groups().is_empty());
    }
}

#[tokio::test]
async fn an_endpoint_that_is_given_is_left_to_others() {
    let Some(here) = Place::at("ap-southeast-7").await else {
        return;
    };
    let elb = Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let given = order(config(
        json!({"controlPlaneEndpoint": {"host": "api.example.com", "port": 443}}),
    ));
    let infrastructure = here.aws.infrastructure().unwrap();
    let account = here.account();
    let endpoint = infrastructure.ensure(&account, &given).await.unwrap();
    let expected = ControlPlaneEndpoint {
        host: "api.example.com".into(),
        port: 443,
    };
    assert_eq!(endpoint, Some(expected));
    assert!(infrastructure.remove(&account, &given).await.unwrap());
    assert!(
        elb.describe_load_balancers()
            .send()
            .await
            .unwrap()
            .load_balancers()
            .is_empty()
    );
    let neither = order(config(json!({})));
    let error = infrastructure.ensure(&account, &neither).await.unwrap_err();
    assert!(
        error.is_terminal() && error.to_string().contains("set loadBalancer"),
        "{error}"
    );
}
