//! The providers' conformance suite against moto.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use fleetwright_providers::{
    Account, CreateInstance, Provider,
    conformance::{self, Harness, Trouble},
};
use serde_json::{Value, json};

use crate::kit::{OTHER_IMAGE, Place, moment};

/// The regions of the other accounts.
const OTHER: &str = "eu-west-2";
const FULL: &str = "ap-southeast-5";

struct Ec2 {
    here: Place,
    next: AtomicU64,
    /// Rules by the machine that they were made for.
    rules: Mutex<BTreeMap<String, u64>>,
}

#[async_trait]
impl Harness for Ec2 {
    fn provider(&self) -> &dyn Provider {
        &self.here.aws
    }

    fn account(&self) -> Account {
        self.here.account()
    }

    fn other_account(&self) -> Option<Account> {
        Some(Account {
            name: "aws-other".into(),
            region: OTHER.into(),
            ..self.account()
        })
    }

    fn unknown_account(&self) -> Account {
        Account {
            region: "No Such Place".into(),
            ..self.account()
        }
    }

    async fn full_account(&self) -> Option<Account> {
        let full = Account {
            name: "aws-full".into(),
            region: FULL.into(),
            quotas: [("instances".to_owned(), 1)].into(),
            ..self.account()
        };
        let mut order = self.order("conformance-full");
        // Of another region's network.
        let fields = order.config.as_object_mut().unwrap();
        fields.remove("subnets");
        fields.remove("securityGroups");
        self.provider().create(&full, &order).await.unwrap();
        Some(full)
    }

    fn order(&self, cluster_key: &str) -> CreateInstance {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.here.order(cluster_key, &format!("m-{n}"))
    }

    fn bad_config(&self) -> Value {
        let mut config = self.here.config();
        config["instanceType"] = json!("huge");
        config
    }

    fn changed_in_place(&self, config: &Value) -> Value {
        let mut config = config.clone();
        config["tags"] = json!({"owner": "b"});
        config["securityGroups"] = json!(self.here.groups);
        config
    }

    fn changed_for_replacement(&self, config: &Value) -> Value {
        let mut config = config.clone();
        config["instanceType"] = json!("t3.large");
        config["image"] = json!(OTHER_IMAGE);
        config
    }

    async fn in_place(&self, id: &str) -> Option<Value> {
        let shown = self.here.shown(id).await;
        let tags = shown.tags().iter().map(|t| (t.key(), t.value()));
        let mut tags: Vec<_> = tags.collect();
        tags.retain(|(key, _)| !key.unwrap().starts_with("fleetwright.dev/"));
        tags.sort_unstable();
        let groups = shown.security_groups().iter();
        let groups: Vec<_> = groups.map(|g| g.group_id()).collect();
        Some(json!([tags, groups]))
    }

    async fn inject(&self, trouble: Trouble, verb: &str, machine: &str) -> bool {
        let operation = match verb {
            "create" => "RunInstances",
            "delete" => "TerminateInstances",
            other => panic!("{other}"),
        };
        let mut rule = match trouble {
            Trouble::RequestLost => json!({"reset": true}),
            Trouble::AnswerLost => json!({"response": {"abort_frac": 0.3}}),
            Trouble::Throttled => json!({"error": {"code": "RequestLimitExceeded"}}),
            Trouble::NoCapacity => json!({"error": {"code": "InsufficientInstanceCapacity"}}),
        };
        rule["service"] = json!("ec2");
        rule["operation"] = json!(operation);
        rule["times"] = json!(1);
        let number = self.here.fault(rule).await;
        self.rules.lock().unwrap().insert(machine.into(), number);
        true
    }

    async fn happened(&self, machine: &str) -> u64 {
        let number = self.rules.lock().unwrap()[machine];
        self.here.fired(number).await as u64
    }

    async fn pause(&self) {
        moment().await;
    }
}

#[tokio::test]
async fn the_provider_conforms() {
    let Some(here) = Place::at("eu-west-1").await else {
        return;
    };
    for region in [OTHER, FULL] {
        here.stand.moto.take(region);
    }
    let harness = Ec2 {
        here,
        next: AtomicU64::new(1),
        rules: Mutex::default(),
    };
    match conformance::run(&harness).await {
        Ok(passed) => assert_eq!(passed.len(), 14),
        Err(failures) => panic!("{failures:#?}"),
    }
    // Every fault that was asked for has fired.
    let rules = harness.rules.lock().unwrap().clone();
    assert_eq!(rules.len(), 5);
    for (machine, rule) in rules {
        assert_eq!(harness.here.fired(rule).await, 1, "{machine}");
    }
}
