//! Rights: what AWS refuses is told as such, and the policies of the pages are enough. Against a moto of its own whose authentication is
//! on. It goes by the actions of a policy alone: conditions mean nothing to it, and no resource but `*` is known.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aws_sdk_ec2::Client;
use fleetwright_api::secret::SecretText;
use fleetwright_provider_aws::{
    Aws,
    config::{API_VERSION, CLUSTER_CONFIG, MACHINE_CONFIG},
};
use fleetwright_providers::{
    Account, CreateInstance, Credentials, InfrastructureOrder, ListScope, Ownership, Provider,
    ProviderError, UpdateInstance,
};
use fleetwright_tests::emulators::{Emulator, moto};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::{
    docs::policies,
    kit::{IMAGE, INSTALLATION, PROFILE, account_with, iam, make_profile, sdk},
};

const REGION: &str = "us-east-1";

/// A moto that has forgotten what a test before did, for one test at a time: authentication is for all regions.
async fn own() -> Option<MutexGuard<'static, Emulator>> {
    static OWN: OnceCell<Option<Mutex<Emulator>>> = OnceCell::const_new();
    let start = async || moto().await.map(Mutex::new);
    let own = OWN.get_or_init(start).await.as_ref()?.lock().await;
    authenticate(&own, false).await;
    own.reset().await.unwrap();
    make_profile(&own).await;
    Some(own)
}

async fn authenticate(moto: &Emulator, on: bool) {
    // Calls that pass before it is asked. As a form it is no number to moto.
    let calls = if on { "0" } else { "inf" };
    let bytes = [("content-type", "application/octet-stream")];
    let set = moto.call("POST", "/moto-api/reset-auth", &bytes, calls);
    assert_eq!(set.await.unwrap().0, 200);
}

fn between<'a>(text: &'a str, tag: &str) -> &'a str {
    let start = text.split_once(&format!("<{tag}>")).unwrap().1;
    start.split_once("</").unwrap().0
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A user who may do what these policies say; gives its keys.
async fn user(moto: &Emulator, name: &str, policies: &[Value]) -> (String, String) {
    iam(moto, &format!("Action=CreateUser&UserName={name}")).await;
    for (n, policy) in policies.iter().enumerate() {
        let document = encoded(&policy.to_string());
        let query = format!("Action=CreatePolicy&PolicyName={name}-{n}&PolicyDocument={document}");
        let made = iam(moto, &query).await;
        let arn = encoded(between(&made, "Arn"));
        iam(
            moto,
            &format!("Action=AttachUserPolicy&UserName={name}&PolicyArn={arn}"),
        )
        .await;
    }
    let keys = iam(moto, &format!("Action=CreateAccessKey&UserName={name}")).await;
    let text = |tag: &str| between(&keys, tag).to_owned();
    (text("AccessKeyId"), text("SecretAccessKey"))
}

fn order() -> CreateInstance {
    CreateInstance {
        owner: Ownership {
            installation: INSTALLATION.into(),
            cluster_key: "c".into(),
            machine: "m".into(),
            instance_key: "key".into(),
            ..Ownership::default()
        },
        config: json!({
            "apiVersion": API_VERSION, "kind": MACHINE_CONFIG, "account": "aws", "instanceType": "t3.micro", "image": IMAGE,
            "iamInstanceProfile": PROFILE, "tags": {"team": "a"},
        }),
        ..CreateInstance::default()
    }
}

#[tokio::test]
async fn a_region_is_taken_once_until_all_is_forgotten() {
    let Some(moto) = own().await else {
        return;
    };
    let take = || catch_unwind(AssertUnwindSafe(|| moto.take(REGION))).is_ok();
    assert_eq!((take(), take()), (true, false));
    moto.reset().await.unwrap();
    assert!(take());
}

#[tokio::test]
async fn what_the_credentials_do_not_allow_is_said_so() {
    let Some(moto) = own().await else {
        return;
    };
    let url = moto.url();
    let look = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]});
    let (id, secret) = user(&moto, "fleet", &[look]).await;
    authenticate(&moto, true).await;

    let aws = Aws::new(INSTALLATION);
    let list = async |account: &Account| aws.list(account, &ListScope::Account).await;
    let good = account_with(url, REGION, &id, &secret);
    assert_eq!(list(&good).await, Ok(Vec::new()));
    let refused = |what: &str, error: Option<ProviderError>| match error {
        Some(ProviderError::Credentials { message }) => {
            assert!(!message.contains(&secret), "{message}");
        }
        other => panic!("{what}: {other:?}"),
    };
    let wrong = account_with(url, REGION, &id, "wrong");
    refused("a wrong secret", list(&wrong).await.err());
    let unknown = account_with(url, REGION, "AKIANOBODYKNOWSTHIS0", "wrong");
    refused("an unknown key", list(&unknown).await.err());
    let half = Account {
        credentials: Some(Credentials::new(
            "1",
            [("accessKeyID".to_owned(), SecretText::new(id))],
        )),
        ..good.clone()
    };
    refused("half a pair of keys", list(&half).await.err());
    // New credentials of the same account are used at once.
    assert_eq!(list(&good).await, Ok(Vec::new()));

    let made = aws.create(&good, &order()).await;
    assert!(
        made.as_ref()
            .is_err_and(|e| e.to_string().contains("RunInstances: AccessDenied")),
        "{made:?}"
    );
    refused("what the policy does not allow", made.err());
    assert_eq!(list(&good).await, Ok(Vec::new()));
}

#[tokio::test]
async fn the_policy_of_the_page_is_enough() {
    let Some(moto) = own().await else {
        return;
    };
    let url = moto.url();
    let sdk = sdk(url, REGION).await;
    let ec2 = Client::new(&sdk);
    let found = ec2.describe_subnets().send().await.unwrap();
    let subnets: Vec<&str> = found
        .subnets()
        .iter()
        .filter_map(|s| s.subnet_id())
        .take(3)
        .collect();
    let network = found.subnets()[0].vpc_id().unwrap();
    let group = ec2
        .create_security_group()
        .group_name("one")
        .description("one");
    let group = group.vpc_id(network).send().await.unwrap();
    let [policy, _] = policies();
    let (id, secret) = user(&moto, "fleet", &[policy]).await;
    let (nobody, hush) = user(&moto, "nobody", &[]).await;
    authenticate(&moto, true).await;

    let aws = Aws::new(INSTALLATION);
    let other = account_with(url, REGION, &nobody, &hush);
    let refused = aws.list(&other, &ListScope::Account).await.unwrap_err();
    assert_eq!(refused.word(), "CredentialsRefused");

    let account = account_with(url, REGION, &id, &secret);
    let order = order();
    let made = aws.create(&account, &order).await.unwrap();
    let mut change = UpdateInstance {
        owner: order.owner.clone(),
        config: order.config.clone(),
        config_digest: "next".into(),
        ..UpdateInstance::default()
    };
    change.config["tags"] = json!({"cost": "7"});
    change.config["securityGroups"] = json!([group.group_id().unwrap()]);
    let changed = aws.update(&account, &made.id, &change).await.unwrap();
    assert_eq!(json!(changed.settings.tags), json!({"cost": "7"}));
    let listed = aws.list(&account, &ListScope::Account).await.unwrap();
    assert_eq!(listed, [changed]);

    let mut balanced = InfrastructureOrder {
        installation: INSTALLATION.into(),
        cluster_key: "c".into(),
        cluster: "default/eu".into(),
        config: json!({
            "apiVersion": API_VERSION, "kind": CLUSTER_CONFIG, "account": "aws",
            "loadBalancer": {"subnets": subnets}, "tags": {"team": "a"},
        }),
        port: 6443,
        instances: vec![made.id.clone()],
    };
    let infrastructure = aws.infrastructure().unwrap();
    infrastructure.ensure(&account, &balanced).await.unwrap();
    balanced.config["loadBalancer"]["subnets"] = json!(subnets[..2]);
    balanced.config["tags"] = json!({"cost": "7"});
    balanced.port = 8443;
    let endpoint = infrastructure.ensure(&account, &balanced).await.unwrap();
    assert_eq!(endpoint.map(|e| e.port), Some(8443));
    let mut looks = 0;
    while !infrastructure.remove(&account, &balanced).await.unwrap() {
        looks += 1;
        assert!(looks < 5, "it does not go");
    }
    aws.delete(&account, &made.id, "key").await.unwrap();
    let listed = aws.list(&account, &ListScope::Account).await;
    assert_eq!(listed, Ok(Vec::new()));
}
