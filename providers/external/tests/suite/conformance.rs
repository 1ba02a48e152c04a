//! The providers' conformance suite.

use async_trait::async_trait;
use fleetwright_providers::{
    Account, CreateInstance, Provider,
    conformance::{self, Harness, Trouble},
};
use http::Method;
use serde_json::{Value, json};

use crate::kit::Place;

struct Orders(Place);

#[async_trait]
impl Harness for Orders {
    fn provider(&self) -> &dyn Provider {
        &self.0.external
    }

    fn account(&self) -> Account {
        self.0.account()
    }

    fn other_account(&self) -> Option<Account> {
        Some(Account {
            name: "other".into(),
            ..self.account()
        })
    }

    fn unknown_account(&self) -> Account {
        Account {
            endpoint: Some("https://metal.test".into()),
            ..self.account()
        }
    }

    async fn full_account(&self) -> Option<Account> {
        let full = Account {
            name: "full".into(),
            quotas: [("instances".to_owned(), 1)].into(),
            ..self.account()
        };
        let order = self.order("conformance-full");
        self.provider().create(&full, &order).await.unwrap();
        Some(full)
    }

    fn order(&self, cluster_key: &str) -> CreateInstance {
        self.0.order(cluster_key)
    }

    fn bad_config(&self) -> Value {
        let mut config = self.0.order("").config;
        config["os"] = json!("dos");
        config
    }

    fn changed_in_place(&self, config: &Value) -> Value {
        let mut config = config.clone();
        config["tags"] = json!({"owner": "b"});
        config
    }

    fn changed_for_replacement(&self, config: &Value) -> Value {
        let mut config = config.clone();
        config["image"] = json!("plucky");
        config["hosts"] = json!({"memory": "128"});
        config
    }

    async fn in_place(&self, id: &str) -> Option<Value> {
        let config = self.0.at(id).await?.spec.provider_config;
        config.settings().get("tags").cloned()
    }

    async fn inject(&self, trouble: Trouble, verb: &str, machine: &str) -> bool {
        let method = match verb {
            "create" => Method::POST,
            _ => Method::DELETE,
        };
        if trouble == Trouble::NoCapacity {
            return false;
        }
        self.0.trouble(trouble, method, machine);
        true
    }

    async fn happened(&self, machine: &str) -> u64 {
        self.0.happened(machine)
    }

    async fn pause(&self) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_provider_conforms() {
    let harness = Orders(Place::new().await);
    match conformance::run(&harness).await {
        Ok(passed) => assert_eq!(passed.len(), 14),
        Err(failures) => panic!("{failures:#?}"),
    }
}
