//! Calls that go wrong: whatever happens there is one instance for a key, nothing was terminated, and nothing that was not read is taken for
//! gone.

use std::time::Duration;

use aws_sdk_ec2::types::InstanceStateName;
use fleetwright_api::secret::SecretText;
use fleetwright_providers::{Account, Credentials, Instance, ListScope, Provider, ProviderError};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kit::Place;

fn of(operation: &str, mut effect: Value) -> Value {
    effect["service"] = json!("ec2");
    effect["operation"] = json!(operation);
    effect
}

/// Of the instances with the key of this machine, as EC2 itself shows them, there is this one. Nothing in the region was ever terminated.
async fn only(here: &Place, machine: &str, made: &Instance) {
    all_run(here).await;
    let living = here.living(&format!("key-of-{machine}")).await;
    let ids: Vec<_> = living.iter().map(|i| i.instance_id().unwrap()).collect();
    assert_eq!(ids, [made.id.as_str()]);
}

/// No instance has the key of this machine, and nothing in the region was ever terminated.
async fn none(here: &Place, machine: &str) {
    all_run(here).await;
    assert!(here.living(&format!("key-of-{machine}")).await.is_empty());
}

/// All instances that were ever made in the region run: EC2 shows for a while those that do no more.
async fn all_run(here: &Place) {
    for instance in here.all().await {
        let state = instance.state().and_then(|s| s.name());
        assert_eq!(state, Some(&InstanceStateName::Running), "{instance:?}");
    }
}

#[tokio::test]
async fn throttled_then_ok() {
    let Some(here) = Place::at("us-west-1").await else {
        return;
    };
    let rule = json!({"times": 2, "error": {"code": "RequestLimitExceeded"}});
    let rule = here.fault(of("RunInstances", rule)).await;
    let (account, order) = (here.account(), here.order("c", "m"));
    for _ in 0..2 {
        let error = here.aws.create(&account, &order).await.unwrap_err();
        assert!(
            error.retry_after().is_some_and(|after| !after.is_zero()),
            "{error}"
        );
        none(&here, "m").await;
    }
    let made = here.aws.create(&account, &order).await.unwrap();
    only(&here, "m", &made).await;
    assert_eq!(here.fired(rule).await, 2);
}

#[tokio::test]
async fn no_capacity() {
    let Some(here) = Place::at("us-west-2").await else {
        return;
    };
    let rule = json!({"error": {"code": "InsufficientInstanceCapacity"}});
    let rule = here.fault(of("RunInstances", rule)).await;
    let (account, order) = (here.account(), here.order("c", "m"));
    let error = here.aws.create(&account, &order).await.unwrap_err();
    assert_eq!(error.word(), "NoCapacity");
    assert!(
        error
            .to_string()
            .contains("RunInstances: InsufficientInstanceCapacity"),
        "{error}"
    );
    none(&here, "m").await;
    assert_eq!(here.fired(rule).await, 1);
    here.mend().await;
    let made = here.aws.create(&account, &order).await.unwrap();
    only(&here, "m", &made).await;
}

#[tokio::test]
async fn not_allowed() {
    let Some(here) = Place::at("us-east-2").await else {
        return;
    };
    let (account, order) = (here.account(), here.order("c", "m"));
    let made = here.aws.create(&account, &order).await.unwrap();
    let refuse = json!({"error": {"code": "UnauthorizedOperation"}});
    let mut rules = Vec::new();
    for operation in ["RunInstances", "TerminateInstances", "DescribeInstances"] {
        rules.push(here.fault(of(operation, refuse.clone())).await);
    }
    let all = ListScope::Account;
    let listed = here.aws.list(&account, &all).await;
    let found = here.aws.get(&account, &made.id).await;
    let gone = here.aws.delete(&account, &made.id, "key-of-m").await;
    let created = here.aws.create(&account, &here.order("c", "n")).await;
    for error in [listed.err(), found.err(), gone.err(), created.err()] {
        assert!(
            matches!(error, Some(ProviderError::Credentials { .. })),
            "{error:?}"
        );
    }
    // Nothing is made or ended where nothing could be read.
    assert_eq!(here.fired(rules[2]).await, 4);
    assert_eq!(here.fired(rules[0]).await + here.fired(rules[1]).await, 0);
    here.mend().await;
    // Nor where only the last step is refused.
    let rule = here.fault(of("RunInstances", refuse.clone())).await;
    let created = here.aws.create(&account, &here.order("c", "n")).await;
    assert_eq!(
        (created.unwrap_err().word(), here.fired(rule).await),
        ("CredentialsRefused", 1)
    );
    let rule = here.fault(of("TerminateInstances", refuse)).await;
    let gone = here.aws.delete(&account, &made.id, "key-of-m").await;
    assert_eq!(
        (gone.unwrap_err().word(), here.fired(rule).await),
        ("CredentialsRefused", 1)
    );
    none(&here, "n").await;
    only(&here, "m", &made).await;
}

#[tokio::test]
async fn request_lost() {
    let Some(here) = Place::at("ca-central-1").await else {
        return;
    };
    let rule = here
        .fault(of("RunInstances", json!({"times": 1, "reset": true})))
        .await;
    let (account, order) = (here.account(), here.order("c", "m"));
    let error = here.aws.create(&account, &order).await.unwrap_err();
    // Whoever sent it cannot know that it never arrived.
    assert_eq!((error.word(), here.fired(rule).await), ("Ambiguous", 1));
    none(&here, "m").await;
    let made = here.aws.create(&account, &order).await.unwrap();
    only(&here, "m", &made).await;
}

#[tokio::test]
async fn answer_lost_after_the_machine_was_made() {
    let Some(here) = Place::at("sa-east-1").await else {
        return;
    };
    let lost = json!({"times": 1, "response": {"abort_frac": 0.3}});
    let rule = here.fault(of("RunInstances", lost)).await;
    let (account, order) = (here.account(), here.order("c", "m"));
    let error = here.aws.create(&account, &order).await.unwrap_err();
    assert_eq!((error.word(), here.fired(rule).await), ("Ambiguous", 1));
    let made = here.aws.create(&account, &order).await.unwrap();
    only(&here, "m", &made).await;
}

/// A list that is behind shows the tag to nobody: then the client token alone keeps a second machine from being made.
#[tokio::test]
async fn answer_lost_while_lists_are_behind() {
    let Some(here) = Place::at("eu-north-1").await else {
        return;
    };
    let lost = json!({"times": 1, "response": {"abort_frac": 0.3}});
    let lost = here.fault(of("RunInstances", lost)).await;
    let (account, order) = (here.account(), here.order("c", "m"));
    here.aws.create(&account, &order).await.unwrap_err();
    let key = here.living("key-of-m").await;
    let id = key[0].instance_id().unwrap();
    let hide = |hidden: bool| {
        let tag = aws_sdk_ec2::types::Tag::builder().key("fleetwright.dev/instance-key");
        let tag = tag.value("key-of-m").build();
        let ec2 = here.ec2.clone();
        let id = id.to_owned();
        async move {
            if hidden {
                ec2.delete_tags()
                    .resources(id)
                    .tags(tag)
                    .send()
                    .await
                    .unwrap();
            } else {
                ec2.create_tags()
                    .resources(id)
                    .tags(tag)
                    .send()
                    .await
                    .unwrap();
            }
        }
    };
    hide(true).await;
    let again = here.aws.create(&account, &order).await.unwrap();
    assert_eq!((again.id.as_str(), here.fired(lost).await), (id, 1));
    // With other settings the token is refused, and the machine is waited for.
    let mut other = order.clone();
    other.config["tags"] = json!({"team": "b"});
    let error = here.aws.create(&account, &other).await.unwrap_err();
    assert_eq!(error.word(), "Ambiguous", "{error}");
    hide(false).await;
    let found = here.aws.create(&account, &other).await.unwrap();
    only(&here, "m", &found).await;
    assert_eq!(found.id, id);
}

#[tokio::test]
async fn slow_api() {
    let Some(here) = Place::at("ap-south-1").await else {
        return;
    };
    let rule = json!({"service": "*", "latency": {"min": 300, "max": 600}});
    let rule = here.fault(rule).await;
    let (account, order) = (here.account(), here.order("c", "m"));
    let begun = Instant::now();
    let create = || here.aws.create(&account, &order);
    let (a, b) = tokio::join!(create(), create());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(begun.elapsed() > Duration::from_millis(600));
    assert_eq!(a.id, b.id);
    only(&here, "m", &a).await;
    assert!(here.fired(rule).await >= 4);
}

#[tokio::test]
async fn cut_answer() {
    let Some(here) = Place::at("ap-southeast-1").await else {
        return;
    };
    let (account, order) = (here.account(), here.order("c", "m"));
    let made = here.aws.create(&account, &order).await.unwrap();
    let cut = json!({"times": 1, "response": {"truncate_frac": 0.5}});
    let rule = here.fault(of("DescribeInstances", cut.clone())).await;
    let listed = here.aws.list(&account, &ListScope::Account).await;
    let word = listed.map_err(|e| e.word()).unwrap_err();
    assert_eq!((word, here.fired(rule).await), ("Unavailable", 1));
    let rule = here.fault(of("DescribeInstances", cut.clone())).await;
    let gone = here.aws.delete(&account, &made.id, "key-of-m").await;
    assert_eq!(
        (gone.unwrap_err().word(), here.fired(rule).await),
        ("Unavailable", 1)
    );
    only(&here, "m", &made).await;
    let rule = here.fault(of("RunInstances", cut)).await;
    let error = here.aws.create(&account, &here.order("c", "n")).await;
    assert_eq!(
        (error.unwrap_err().word(), here.fired(rule).await),
        ("Ambiguous", 1)
    );
    let other = here
        .aws
        .create(&account, &here.order("c", "n"))
        .await
        .unwrap();
    only(&here, "n", &other).await;
}

#[tokio::test]
async fn every_third_fails() {
    let Some(here) = Place::at("ap-southeast-2").await else {
        return;
    };
    let account = here.account();
    let rule = json!({"sequence": {"fail": 1, "pass": 2}, "error": {"code": "InternalError"}, "service": "ec2"});
    let rule = here.fault(rule).await;
    let mut ids = Vec::new();
    for n in 0..7 {
        let machine = format!("m-{n}");
        let order = here.order("c", &machine);
        let made = loop {
            match here.aws.create(&account, &order).await {
                Ok(made) => break made,
                Err(error) => assert!(
                    ["Ambiguous", "Unavailable"].contains(&error.word()),
                    "{error}"
                ),
            }
        };
        only(&here, &machine, &made).await;
        ids.push(made.id);
    }
    ids.sort();
    let (mut whole, mut failed) = (0, 0);
    for _ in 0..8 {
        match here.aws.list(&account, &ListScope::Account).await {
            Ok(list) => {
                let listed: Vec<&String> = list.iter().map(|i| &i.id).collect();
                assert!(
                    listed.iter().copied().eq(&ids),
                    "{ids:?} are there, listed {listed:?}"
                );
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error.word(), "Unavailable");
                failed += 1;
            }
        }
    }
    assert!(whole >= 2 && failed >= 2, "{whole} and {failed}");
    assert!(here.fired(rule).await >= 4);
}

/// A list of which one page does not come is an error, never a shorter list.
#[tokio::test]
async fn a_page_that_does_not_come() {
    let Some(here) = Place::at("ap-northeast-1").await else {
        return;
    };
    let account = here.account();
    for n in 0..7 {
        let order = here.order("c", &format!("m-{n}"));
        here.aws.create(&account, &order).await.unwrap();
    }
    let scope = ListScope::Cluster("c".into());
    let list = || here.aws.list(&account, &scope);
    assert_eq!(list().await.unwrap().len(), 7);
    // The first request fails, and from then on every second page.
    let rule = json!({"sequence": {"fail": 1, "pass": 1}, "error": {"code": "InternalError"}});
    let rule = here.fault(of("DescribeInstances", rule)).await;
    for n in 1..=3 {
        assert_eq!(list().await.unwrap_err().word(), "Unavailable");
        assert_eq!(here.fired(rule).await, n);
    }
    here.mend().await;
    assert_eq!(list().await.unwrap().len(), 7);
}

/// STS has hiccups as all others have: only what it refuses is a matter of credentials.
#[tokio::test]
async fn a_role_that_cannot_be_taken_on() {
    let Some(here) = Place::at("ap-east-1").await else {
        return;
    };
    let role = "arn:aws:iam::123456789012:role/fleet";
    let account = |n: usize| {
        let keys = [("accessKeyID", "AKIATEST"), ("secretAccessKey", "test")];
        let entries = keys.into_iter().chain([("roleARN", role)]);
        let entries = entries.map(|(name, text)| (name.to_owned(), SecretText::new(text)));
        Account {
            credentials: Some(Credentials::new(n.to_string(), entries)),
            ..here.account()
        }
    };
    let failing = |code: &str, status: u16, times: Option<usize>| {
        let mut rule = json!({"service": "sts", "operation": "AssumeRole", "error": {"code": code, "status": status}});
        if let Some(times) = times {
            rule["times"] = json!(times);
        }
        rule
    };
    for (n, (rule, word, calls)) in [
        (failing("InternalFailure", 500, Some(1)), "Ok", 1),
        (failing("InternalFailure", 500, None), "Unavailable", 3),
        (failing("ServiceUnavailable", 503, None), "Unavailable", 3),
        (failing("Throttling", 400, None), "Unavailable", 3),
        (failing("AccessDenied", 403, None), "CredentialsRefused", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let rule = here.fault(rule).await;
        let listed = here.aws.list(&account(n), &ListScope::Account).await;
        let got = listed.as_ref().map_or_else(ProviderError::word, |_| "Ok");
        assert_eq!((got, here.fired(rule).await), (word, calls), "{listed:?}");
        here.mend().await;
    }
}
