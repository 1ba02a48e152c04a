//! Images by what they are for.

use aws_sdk_ssm::types::ParameterType;
use fleetwright_providers::Provider;
use serde_json::{Value, json};

use crate::kit::{IMAGE, OTHER_IMAGE, Place, sdk};

fn looked_up(here: &Place, lookup: Value) -> Value {
    let mut config = here.config();
    let fields = config.as_object_mut().unwrap();
    fields.remove("image");
    fields.insert("imageLookup".into(), lookup);
    config
}

#[tokio::test]
async fn a_lookup_stands_for_the_newest_image_and_stays_what_it_was() {
    let Some(here) = Place::at("us-east-1").await else {
        return;
    };
    let ssm = aws_sdk_ssm::Client::new(&sdk(here.stand.moto.url(), here.region).await);
    let put = async |value: &str| {
        let call = ssm.put_parameter().name("/nodes/1.36/amd64").value(value);
        let call = call.r#type(ParameterType::String).overwrite(true);
        call.send().await.unwrap();
    };
    put(IMAGE).await;
    let config = looked_up(
        &here,
        json!({"parameter": "/nodes/{kubernetesMinor}/{architecture}"}),
    );
    let account = here.account();
    let resolve = async |config: &Value| here.aws.resolve(&account, "v1.36.2", config).await;
    let frozen = resolve(&config).await.unwrap();
    assert_eq!(frozen, here.config());
    assert_eq!(resolve(&frozen).await.unwrap(), frozen);
    put(OTHER_IMAGE).await;
    assert_eq!(resolve(&config).await.unwrap()["image"], OTHER_IMAGE);
    let mut order = here.order("c", "m");
    order.config = frozen;
    assert_eq!(
        here.aws.create(&account, &order).await.unwrap().image,
        IMAGE
    );

    // By name, the newest of those that fit.
    let run = here.living("key-of-m").await.remove(0);
    let mut made = Vec::new();
    for name in ["node-1.36.2-a", "node-1.36.2-b", "node-1.35.0-c"] {
        let call = here
            .ec2
            .create_image()
            .instance_id(run.instance_id().unwrap());
        let image = call.name(name).send().await.unwrap();
        made.push(image.image_id().unwrap().to_owned());
    }
    let by_name = looked_up(&here, json!({"name": "node-{kubernetesVersion}-*"}));
    let found = resolve(&by_name).await.unwrap()["image"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(made[..2].contains(&found), "{found} of {made:?}");
    for (lookup, words) in [
        (
            json!({"name": "no-{kubernetesVersion}"}),
            "has no x86_64 image whose name is no-1.36.2",
        ),
        (json!({"parameter": "/no"}), "there is no SSM parameter /no"),
    ] {
        let config = looked_up(&here, lookup);
        let error = resolve(&config).await.unwrap_err();
        assert!(
            error.is_terminal() && error.to_string().contains(words),
            "{error}"
        );
        let missing = here.aws.missing_image(&account, "v1.36.2", &config).await;
        let missing = missing.unwrap().unwrap();
        assert!(missing.message.contains(words), "{missing:?}");
        let looks = config["imageLookup"].as_object().unwrap();
        let field = looks.keys().find(|k| *k != "architecture").unwrap();
        assert_eq!(missing.field, format!("imageLookup.{field}"));
    }
}

#[tokio::test]
async fn what_speaks_against_a_boot_is_told_before() {
    let Some(here) = Place::at("ap-northeast-2").await else {
        return;
    };
    let told = async |config: &Value| {
        let account = here.account();
        let asked = here.aws.missing_image(&account, "v1.36.2", config);
        let found = asked.await.unwrap();
        found.map_or_else(String::new, |e| format!("{}: {}", e.field, e.message))
    };
    let missing = async |field: &str, value: &str| {
        let mut config = here.config();
        config[field] = json!(value);
        told(&config).await
    };
    assert_eq!(missing("keyName", "any").await, "");
    let none = missing("image", "ami-00000000").await;
    assert_eq!(none, "image: there is no image ami-00000000 here");
    let none = missing("instanceType", "t3.huge").await;
    assert_eq!(none, "instanceType: there is no instance type t3.huge here");
    let other = missing("instanceType", "m6g.large").await;
    assert!(
        other.starts_with("instanceType: image ")
            && other.contains("is for x86_64, and instance type m6g.large runs arm64"),
        "{other}"
    );
    let group = |types: &[&str]| {
        json!({
            "apiVersion": "aws.fleetwright.dev/v1alpha1", "kind": "EKSNodeGroupConfig", "account": "a",
            "nodeRoleARN": "arn:aws:iam::123456789012:role/nodes", "subnets": ["subnet-0123456789abcdef0"],
            "instanceTypes": types,
        })
    };
    assert_eq!(told(&group(&["t3.large", "m6g.large"])).await, "");
    assert_eq!(
        told(&group(&["t3.large", "t3.huge"])).await,
        "instanceTypes[1]: there is no instance type t3.huge here"
    );
}
