//! Instances from their making to their end.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    AttributeValue, Filter, HttpTokensState, InstanceType, ResourceType, Tag, TagSpecification,
    VolumeType,
};
use fleetwright_api::secret::SecretText;
use fleetwright_providers::{InstanceState, ListScope, Provider, ProviderError, UpdateInstance};
use fleetwright_tests::emulators::microburst;
use serde_json::json;

use crate::kit::{INSTALLATION, Place, account_with, moment};

/// Tags of a thing as EC2 itself shows them.
async fn tags_of(here: &Place, id: &str) -> BTreeMap<String, String> {
    let filter = Filter::builder().name("resource-id").values(id).build();
    let found = here.ec2.describe_tags().filters(filter).send().await;
    let found = found.unwrap();
    let pair = |t: &aws_sdk_ec2::types::TagDescription| {
        (t.key().unwrap().to_owned(), t.value().unwrap().to_owned())
    };
    found.tags().iter().map(pair).collect()
}

#[tokio::test]
async fn an_instance_is_made_as_its_settings_say() {
    let Some(here) = Place::at("eu-central-1").await else {
        return;
    };
    let mut order = here.order("c", "m");
    let subnets = here.subnets.iter();
    let subnets = subnets.map(|(id, zone)| json!({"id": id, "availabilityZone": zone}));
    order.config["subnets"] = subnets.collect();
    order.config["rootVolume"] = json!({"sizeGiB": 33, "iops": 4000, "throughput": 300});
    order.config["volumes"] = json!([{"deviceName": "/dev/sdf", "sizeGiB": 10, "type": "gp2"}]);
    order.user_data = Some(SecretText::new("#cloud-config\n"));
    let (_, zone) = &here.subnets[1];
    order.failure_domain = Some(zone.clone());
    let config = order.config.as_object().cloned().unwrap().into();
    let domains = here.aws.failure_domains(&here.account(), &config);
    let zones: Vec<&String> = here.subnets.iter().map(|(_, zone)| zone).collect();
    assert!(domains.iter().eq(zones));

    let made = here.aws.create(&here.account(), &order).await.unwrap();
    assert_eq!(made.failure_domain.as_ref(), Some(zone));
    assert_eq!(made.provider_id, format!("aws:///{zone}/{}", made.id));
    assert_eq!(made.settings.network.as_ref(), Some(&here.subnets[1].0));
    assert!(made.addresses.iter().any(|a| a.kind == "InternalIP"));
    let shown = here.shown(&made.id).await;
    let metadata = shown.metadata_options().unwrap();
    assert_eq!(metadata.http_tokens(), Some(&HttpTokensState::Required));
    assert_eq!(metadata.http_put_response_hop_limit(), Some(1));
    let disks = shown.block_device_mappings().iter();
    let disks = disks.filter_map(|d| d.ebs()?.volume_id().map(str::to_owned));
    let disks: Vec<String> = disks.collect();
    let call = here
        .ec2
        .describe_volumes()
        .set_volume_ids(Some(disks.clone()));
    let volumes = call.send().await.unwrap();
    let mut sizes: Vec<_> = volumes
        .volumes()
        .iter()
        .map(|v| (v.size(), v.volume_type().cloned()))
        .collect();
    sizes.sort_by_key(|(size, _)| *size);
    assert_eq!(
        sizes,
        [
            (Some(10), Some(VolumeType::Gp2)),
            (Some(33), Some(VolumeType::Gp3))
        ]
    );
    assert!(
        volumes
            .volumes()
            .iter()
            .all(|v| v.encrypted() == Some(true))
    );
    for id in disks.iter().chain([&made.id]) {
        let tags = tags_of(&here, id).await;
        for (key, value) in [
            ("Name", "m"),
            ("fleetwright.dev/installation", "test"),
            ("fleetwright.dev/cluster-key", "c"),
            ("fleetwright.dev/cluster", "default/eu"),
            ("fleetwright.dev/pool", "web"),
            ("fleetwright.dev/set", "web-1"),
            ("fleetwright.dev/machine", "m"),
            ("fleetwright.dev/instance-key", "key-of-m"),
            ("team", "a"),
            ("fleetwright.dev/config-digest", "digest-of-the-order"),
        ] {
            assert_eq!(
                tags.get(key).map(String::as_str),
                Some(value),
                "{id}: {key}"
            );
        }
    }
    let call = here.ec2.describe_instance_attribute().instance_id(&made.id);
    let call = call.attribute(aws_sdk_ec2::types::InstanceAttributeName::UserData);
    let data = call.send().await.unwrap();
    assert_eq!(
        data.user_data().and_then(|d| d.value()),
        Some("I2Nsb3VkLWNvbmZpZwo=")
    );

    order.owner.instance_key = "another".into();
    order.failure_domain = Some("eu-central-1z".into());
    let error = here.aws.create(&here.account(), &order).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("none is in availability zone eu-central-1z"),
        "{error}"
    );
    order.failure_domain = None;
    order.user_data = Some(SecretText::new("x".repeat(16_385)));
    let error = here.aws.create(&here.account(), &order).await.unwrap_err();
    assert!(
        error.is_terminal() && error.to_string().contains("16385 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn an_update_leaves_alone_what_is_not_ours() {
    let Some(here) = Place::at("eu-south-1").await else {
        return;
    };
    let (account, mut order) = (here.account(), here.order("c", "m"));
    order.config["tags"] = json!({"team": "a", "cost": "7"});
    order.config["rootVolume"] = json!({"sizeGiB": 20});
    let made = here.aws.create(&account, &order).await.unwrap();
    let (_, zone) = &here.subnets[0];
    let other = here
        .ec2
        .create_volume()
        .size(1)
        .availability_zone(zone)
        .send()
        .await
        .unwrap();
    let other = other.volume_id().unwrap();
    let call = here
        .ec2
        .attach_volume()
        .volume_id(other)
        .instance_id(&made.id);
    call.device("/dev/sdz").send().await.unwrap();
    let by_hand = Tag::builder().key("by-hand").value("x").build();
    let call = here.ec2.create_tags().resources(&made.id).tags(by_hand);
    call.send().await.unwrap();

    let mut change = UpdateInstance {
        owner: order.owner.clone(),
        config: order.config.clone(),
        config_digest: "next".into(),
        ..UpdateInstance::default()
    };
    change.owner.set = "web-2".into();
    change.config["tags"] = json!({"team": "b"});
    change.config["securityGroups"] = json!([here.groups[1]]);
    let shown = here.aws.update(&account, &made.id, &change).await.unwrap();
    let wanted = BTreeMap::from([
        ("team".to_owned(), "b".to_owned()),
        ("by-hand".to_owned(), "x".to_owned()),
    ]);
    assert_eq!(shown.settings.tags, wanted);
    assert_eq!(
        shown.settings.security_groups,
        Some([here.groups[1].clone()].into())
    );
    assert_eq!(shown.owner, Some(change.owner.clone()));
    assert_eq!(shown.config_digest, "next");
    assert!(tags_of(&here, other).await.is_empty());
    let disks = here.shown(&made.id).await;
    let root = disks.block_device_mappings()[0]
        .ebs()
        .and_then(|e| e.volume_id())
        .unwrap()
        .to_owned();
    let root = tags_of(&here, &root).await;
    assert_eq!(
        (root.get("team").map(String::as_str), root.get("cost")),
        (Some("b"), None)
    );
}

/// AWS allows 50 tags, moto too.
#[tokio::test]
async fn as_many_tags_as_there_may_be_change_to_others() {
    let Some(here) = Place::at("ap-southeast-4").await else {
        return;
    };
    let (account, mut order) = (here.account(), here.order("c", "m"));
    let tags = |letter: char| -> serde_json::Value {
        (0..25)
            .map(|n| (format!("{letter}{n:02}"), json!("x")))
            .collect()
    };
    order.config["tags"] = tags('a');
    let made = here.aws.create(&account, &order).await.unwrap();
    let mut change = UpdateInstance {
        owner: order.owner.clone(),
        config: order.config.clone(),
        config_digest: "next".into(),
        ..UpdateInstance::default()
    };
    change.config["tags"] = tags('b');
    let shown = here.aws.update(&account, &made.id, &change).await.unwrap();
    assert_eq!(json!(shown.settings.tags), tags('b'));
    // Cut off between the two, the next try finds those that were wanted once and takes off the rest of them.
    let cut =
        json!({"service": "ec2", "operation": "CreateTags", "error": {"code": "InternalError"}});
    here.fault(cut).await;
    change.config["tags"] = tags('c');
    here.aws
        .update(&account, &made.id, &change)
        .await
        .unwrap_err();
    let left = here.aws.get(&account, &made.id).await.unwrap().unwrap();
    assert_eq!(left.owner, Some(order.owner.clone()));
    here.mend().await;
    let shown = here.aws.update(&account, &made.id, &change).await.unwrap();
    assert_eq!(json!(shown.settings.tags), tags('c'));
}

#[tokio::test]
async fn what_others_do_shows_with_its_reason() {
    let Some(here) = Place::at("eu-south-2").await else {
        return;
    };
    let (account, order) = (here.account(), here.order("c", "m"));
    let made = here.aws.create(&account, &order).await.unwrap();
    let get = async || here.aws.get(&account, &made.id).await.unwrap();
    assert_eq!(
        get().await.map(|i| (i.state, i.reason)),
        Some((InstanceState::Running, None))
    );
    here.ec2
        .stop_instances()
        .instance_ids(&made.id)
        .send()
        .await
        .unwrap();
    let seen = get().await.unwrap();
    assert_eq!(seen.state, InstanceState::Stopped);
    assert!(seen.reason.unwrap().contains("User initiated"));
    let bigger = AttributeValue::builder().value("t3.large").build();
    let call = here.ec2.modify_instance_attribute().instance_id(&made.id);
    call.instance_type(bigger).send().await.unwrap();
    let listed = here
        .aws
        .list(&account, &ListScope::Cluster("c".into()))
        .await
        .unwrap();
    assert_eq!(listed[0].instance_type, "t3.large");
    here.ec2
        .terminate_instances()
        .instance_ids(&made.id)
        .send()
        .await
        .unwrap();
    while get().await.is_some() {
        moment().await;
    }
    assert!(
        here.aws
            .list(&account, &ListScope::Account)
            .await
            .unwrap()
            .is_empty()
    );
    // Whoever asks for it again learns what became of it, and gets no second one.
    let again = here.aws.create(&account, &order).await.unwrap();
    assert_eq!((again.id, again.state), (made.id, InstanceState::Failed));
    assert!(again.reason.unwrap().contains("User initiated"));
    assert!(here.living("key-of-m").await.is_empty());
}

#[tokio::test]
async fn instances_of_others_are_not_shown_and_stay() {
    let Some(here) = Place::at("eu-central-2").await else {
        return;
    };
    let account = here.account();
    let theirs = fleetwright_provider_aws::Aws::new("theirs");
    let mut order = here.order("c", "m");
    order.owner.installation = "theirs".into();
    let error = here.aws.create(&account, &order).await.unwrap_err();
    assert!(
        error.is_terminal() && error.to_string().contains("\"theirs\""),
        "{error}"
    );
    let made = theirs.create(&account, &order).await.unwrap();
    let run = here
        .ec2
        .run_instances()
        .image_id(crate::kit::IMAGE)
        .min_count(1)
        .max_count(1);
    let run = run.instance_type(InstanceType::T3Micro);
    let run = run.send().await.unwrap();
    let bare = run.instances()[0].instance_id().unwrap();
    for scope in [ListScope::Account, ListScope::Cluster("c".into())] {
        assert!(here.aws.list(&account, &scope).await.unwrap().is_empty());
    }
    for key in ["", "key-of-m"] {
        let gone = here.aws.delete(&account, bare, key).await;
        assert!(
            matches!(gone, Err(ProviderError::Terminal { .. })),
            "{gone:?}"
        );
    }
    assert_eq!(
        here.aws.get(&account, bare).await.unwrap().unwrap().owner,
        None
    );
    assert_eq!(
        here.living("key-of-m").await[0].instance_id(),
        Some(made.id.as_str())
    );
}

#[tokio::test]
async fn only_instances_are_counted_against_quotas() {
    let Some(here) = Place::at("me-south-1").await else {
        return;
    };
    let mut account = here.account();
    account.quotas = [("instances".to_owned(), 1)].into();
    here.aws
        .create(&account, &here.order("c", "m"))
        .await
        .unwrap();
    // What is there already is shown all the same.
    here.aws
        .create(&account, &here.order("c", "m"))
        .await
        .unwrap();
    let error = here
        .aws
        .create(&account, &here.order("c", "n"))
        .await
        .unwrap_err();
    assert_eq!(error.word(), "QuotaExceeded");
    assert!(error.to_string().contains("1 of 1 instances"), "{error}");
    account.quotas = [("cpus".to_owned(), 1)].into();
    let error = here
        .aws
        .create(&account, &here.order("c", "n"))
        .await
        .unwrap_err();
    assert!(
        error.is_terminal() && error.to_string().contains("Service Quotas"),
        "{error}"
    );
}

#[tokio::test]
async fn creates_side_by_side_stay_within_the_quota() {
    let Some(here) = Place::at("il-central-1").await else {
        return;
    };
    let mut account = here.account();
    account.quotas = [("instances".to_owned(), 2)].into();
    // Each of them sees an account that is empty.
    let slow = json!({"service": "ec2", "operation": "DescribeInstances", "latency": {"min": 300, "max": 300}});
    let counted = here.fault(slow).await;
    let create = async |machine: &str| here.aws.create(&account, &here.order("c", machine)).await;
    let (a, b, c) = tokio::join!(create("a"), create("b"), create("c"));
    let words: Vec<_> = [a, b, c]
        .into_iter()
        .filter_map(|made| made.err().map(|e| e.word()))
        .collect();
    assert_eq!(words, ["QuotaExceeded"]);
    let before = here.fired(counted).await;
    here.mend().await;
    // What was refused by AWS makes room again, and what is known is not counted again each time.
    account.quotas = [("instances".to_owned(), 4)].into();
    let refuse = json!({"service": "ec2", "operation": "RunInstances", "times": 1, "error": {"code": "InsufficientInstanceCapacity"}});
    here.fault(refuse).await;
    let count = json!({"service": "ec2", "operation": "DescribeInstances", "latency": {"min": 0, "max": 0}});
    let counted = here.fault(count).await;
    let create = async |machine: &str| here.aws.create(&account, &here.order("c", machine)).await;
    assert_eq!(create("d").await.unwrap_err().word(), "NoCapacity");
    for machine in ["e", "f"] {
        create(machine).await.unwrap();
    }
    assert_eq!(create("g").await.unwrap_err().word(), "QuotaExceeded");
    // One look by the key for each of four.
    assert_eq!((before, here.fired(counted).await), (6, 4));
}

#[tokio::test]
async fn an_image_is_looked_at_once_for_many_machines() {
    let Some(here) = Place::at("ap-south-2").await else {
        return;
    };
    let count =
        json!({"service": "ec2", "operation": "DescribeImages", "latency": {"min": 0, "max": 0}});
    let looks = here.fault(count).await;
    for machine in ["a", "b", "c"] {
        let mut order = here.order("c", machine);
        order.config["rootVolume"] = json!({"sizeGiB": 20});
        here.aws.create(&here.account(), &order).await.unwrap();
    }
    assert_eq!(here.fired(looks).await, 1);
}

/// As many calls look for drift in sixty machines as in three: pages of AWS' own size hold a thousand, and moto keeps to what it is asked for.
/// So no proxy that cuts pages short is on the way here.
#[tokio::test]
async fn a_list_takes_no_more_calls_for_more_machines() {
    let Some(here) = Place::at("me-central-1").await else {
        return;
    };
    let Some(counter) = microburst(here.stand.moto.url()).await else {
        return;
    };
    let account = account_with(counter.url(), here.region, "AKIATEST", "test");
    let count = json!({"service": "ec2", "operation": "DescribeInstances", "latency": {"min": 0, "max": 0}});
    let looks = counter.fault(&count).await.unwrap();
    let tag = Tag::builder()
        .key("fleetwright.dev/installation")
        .value(INSTALLATION)
        .build();
    let tags = TagSpecification::builder().resource_type(ResourceType::Instance);
    let tags = tags.tags(tag).build();
    let (mut there, mut calls) = (0, Vec::new());
    for machines in [3, 60] {
        while there < machines {
            let run = here.ec2.run_instances().image_id(crate::kit::IMAGE);
            let run = run.instance_type(InstanceType::C5Large);
            let run = run.tag_specifications(tags.clone());
            run.min_count(1).max_count(1).send().await.unwrap();
            there += 1;
        }
        let before = counter.fired(looks).await.unwrap();
        let listed = here.aws.list(&account, &ListScope::Account).await;
        assert_eq!(listed.unwrap().len(), machines);
        calls.push(counter.fired(looks).await.unwrap() - before);
    }
    assert_eq!(calls, [1, 1]);
}
