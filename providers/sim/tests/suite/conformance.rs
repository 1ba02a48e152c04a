//! The providers' conformance suite, in process and over HTTP.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use fleetwright_provider_sim::FaultEffect;
use fleetwright_providers::{
    Account, CreateInstance, Provider,
    conformance::{self, Harness, Trouble},
};
use serde_json::{Value, json};

use crate::kit::{Kit, account, machine_config, order};

struct Sim {
    kit: Kit,
    over_http: bool,
    next: AtomicU64,
}

#[async_trait]
impl Harness for Sim {
    fn provider(&self) -> &dyn Provider {
        if self.over_http {
            &self.kit.remote
        } else {
            &self.kit.cloud
        }
    }

    fn account(&self) -> Account {
        account()
    }

    fn other_account(&self) -> Option<Account> {
        Some(Account {
            name: "sim-us".into(),
            region: "us".into(),
            ..account()
        })
    }

    fn unknown_account(&self) -> Account {
        Account {
            region: "No Such Place".into(),
            ..account()
        }
    }

    async fn full_account(&self) -> Option<Account> {
        let full = Account {
            name: "full".into(),
            quotas: [("instances".to_owned(), 1)].into(),
            ..account()
        };
        let order = self.order("conformance-full");
        self.provider().create(&full, &order).await.unwrap();
        Some(full)
    }

    fn order(&self, cluster_key: &str) -> CreateInstance {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        order(cluster_key, &format!("m-{n}"), true)
    }

    fn bad_config(&self) -> Value {
        let mut config = machine_config(0.0);
        config["instanceType"] = json!("sim.huge");
        config
    }

    fn changed_in_place(&self, config: &Value) -> Value {
        let mut config = config.clone();
        config["tags"] = json!({"team": "b"});
        config["securityGroups"] = json!(["web", "ssh"]);
        config
    }

    fn changed_for_replacement(&self, config: &Value) -> Value {
        let mut config = config.clone();
        config["instanceType"] = json!("sim.large");
        config["image"] = json!("other");
        config
    }

    async fn in_place(&self, id: &str) -> Option<Value> {
        Some(json!(self.kit.cloud.tags(id)))
    }

    async fn inject(&self, trouble: Trouble, verb: &str, machine: &str) -> bool {
        let effect = match trouble {
            Trouble::RequestLost => FaultEffect::RequestLost,
            Trouble::AnswerLost => FaultEffect::AnswerLost,
            Trouble::Throttled => FaultEffect::Throttled,
            Trouble::NoCapacity => FaultEffect::NoCapacity,
        };
        self.kit.fault(effect, verb, machine);
        true
    }

    async fn happened(&self, machine: &str) -> u64 {
        let faults = self.kit.cloud.faults();
        let ours = faults
            .iter()
            .filter(|f| f.machine.as_deref() == Some(machine));
        ours.map(|f| f.fired).sum()
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn conforms(over_http: bool) {
    let sim = Sim {
        kit: Kit::start().await,
        over_http,
        next: AtomicU64::new(1),
    };
    match conformance::run(&sim).await {
        Ok(passed) => assert_eq!(passed.len(), 14),
        Err(failures) => panic!("{failures:#?}"),
    }
    // Every fault that was asked for has fired.
    let faults = sim.kit.cloud.faults();
    assert_eq!(faults.len(), 5);
    assert!(faults.iter().all(|f| f.fired == 1), "{faults:?}");
    let shown = sim.kit.journal().into_iter().filter(|e| e.fault.is_some());
    assert_eq!(shown.count(), 5);
}

#[tokio::test]
async fn in_process() {
    conforms(false).await;
}

#[tokio::test]
async fn over_http() {
    conforms(true).await;
}
