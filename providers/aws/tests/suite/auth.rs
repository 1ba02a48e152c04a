//! Credentials that AWS refuses: against a moto of its own whose authentication is on.

use aws_sdk_ec2::Client;
use fleetwright_api::secret::SecretText;
use fleetwright_provider_aws::Aws;
use fleetwright_providers::{Account, Credentials, ListScope, Provider, ProviderError};
use fleetwright_tests::emulators::{Emulator, moto};

use crate::kit::{INSTALLATION, account_with, sdk};

/// What moto's IAM answers to a query.
async fn iam(moto: &Emulator, query: &str) -> String {
    let scope = "AWS4-HMAC-SHA256 Credential=AKIATEST/20261130/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
    let headers = [
        ("authorization", scope),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let body = format!("Version=2010-05-08&{query}");
    let (status, text) = moto.call("POST", "/", &headers, &body).await.unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

fn between<'a>(text: &'a str, tag: &str) -> &'a str {
    let start = text.split_once(&format!("<{tag}>")).unwrap().1;
    start.split_once("</").unwrap().0
}

#[tokio::test]
async fn what_the_credentials_do_not_allow_is_said_so() {
    let Some(moto) = moto().await else {
        return;
    };
    let (url, region) = (moto.url(), "us-east-1");
    iam(&moto, "Action=CreateUser&UserName=fleet").await;
    let keys = iam(&moto, "Action=CreateAccessKey&UserName=fleet").await;
    let (id, secret) = (
        between(&keys, "AccessKeyId"),
        between(&keys, "SecretAccessKey"),
    );
    let allowed = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22ec2%3ADescribe%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
    let policy =
        format!("Action=PutUserPolicy&UserName=fleet&PolicyName=look&PolicyDocument={allowed}");
    iam(&moto, &policy).await;
    let ec2 = Client::new(&sdk(url, region).await);
    let subnets = ec2.describe_subnets().send().await.unwrap();
    assert!(!subnets.subnets().is_empty());
    // As a form it is no number to moto.
    let bytes = [("content-type", "application/octet-stream")];
    let on = moto.call("POST", "/moto-api/reset-auth", &bytes, "0");
    assert_eq!(on.await.unwrap().0, 200);

    let aws = Aws::new(INSTALLATION);
    let list = async |account: &Account| aws.list(account, &ListScope::Account).await;
    let good = account_with(url, region, id, secret);
    assert_eq!(list(&good).await, Ok(Vec::new()));
    let refused = |what: &str, error: Option<ProviderError>| match error {
        Some(ProviderError::Credentials { message }) => {
            assert!(!message.contains(secret), "{message}");
        }
        other => panic!("{what}: {other:?}"),
    };
    let wrong = account_with(url, region, id, "wrong");
    refused("a wrong secret", list(&wrong).await.err());
    let unknown = account_with(url, region, "AKIANOBODYKNOWSTHIS0", "wrong");
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

    let config = serde_json::json!({
        "apiVersion": fleetwright_provider_aws::config::API_VERSION, "kind": fleetwright_provider_aws::config::MACHINE_CONFIG,
        "account": "aws", "instanceType": "t3.micro", "image": crate::kit::IMAGE,
    });
    let order = fleetwright_providers::CreateInstance {
        owner: fleetwright_providers::Ownership {
            installation: INSTALLATION.into(),
            machine: "m".into(),
            instance_key: "key".into(),
            ..Default::default()
        },
        config,
        ..Default::default()
    };
    let made = aws.create(&good, &order).await;
    assert!(
        made.as_ref()
            .is_err_and(|e| e.to_string().contains("RunInstances: AccessDenied")),
        "{made:?}"
    );
    refused("what the policy does not allow", made.err());
    assert_eq!(list(&good).await, Ok(Vec::new()));
}
