//! The cloud as a provider, in process.

use async_trait::async_trait;
use fleetwright_api::time::rfc3339_seconds;
use fleetwright_providers::{
    Account, ClusterConnections, ClusterRef, ConfigError, ConfigSchema, ConnectionError,
    CreateInstance, Instance, InstanceState, ListScope, Provider, ProviderError, UpdateInstance,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    cloud::{Cloud, Due, State},
    config,
    faults::FaultEffect,
    instance::SimInstance,
    journal::Entry,
};

/// Milliseconds of patience that a throttled call is asked for.
const THROTTLE_MS: u64 = 500;

/// A call under way: what the journal will say of it.
struct Call {
    entry: Entry,
    fault: Option<FaultEffect>,
}

impl Cloud {
    fn begin(&self, verb: &str, account: &str, machine: &str, key: &str) -> Call {
        let fault = self.fault(verb, account, machine);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let word = |f: FaultEffect| {
            serde_json::to_value(f)
                .ok()?
                .as_str()
                .map(ToOwned::to_owned)
        };
        let entry = Entry {
            seq: 0,
            wall_time: self.now().to_string(),
            verb: verb.to_owned(),
            account: account.to_owned(),
            instance: None,
            instance_key: some(key),
            machine: some(machine),
            outcome: String::new(),
            fault: fault.and_then(word),
        };
        Call { entry, fault }
    }

    /// Writes the call down and gives its result, or what the fault makes of it.
    fn end<T>(
        &self,
        mut call: Call,
        instance: Option<&str>,
        result: Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        call.entry.instance = instance.map(ToOwned::to_owned);
        result
            .as_ref()
            .err()
            .map_or("ok", ProviderError::word)
            .clone_into(&mut call.entry.outcome);
        self.write_down(call.entry)?;
        let value = result?;
        match call.fault {
            Some(FaultEffect::AnswerLost) => Err(ProviderError::Ambiguous {
                message: "the connection was cut before the answer".into(),
            }),
            _ => Ok(value),
        }
    }

    /// What a fault does before the call has any effect.
    fn refuse(call: &Call) -> Result<(), ProviderError> {
        match call.fault {
            Some(FaultEffect::RequestLost) => Err(ProviderError::Ambiguous {
                message: "the connection was cut".into(),
            }),
            Some(FaultEffect::Throttled) => Err(ProviderError::Throttled {
                after_ms: THROTTLE_MS,
            }),
            Some(FaultEffect::NoCapacity) => Err(ProviderError::NoCapacity {
                message: "no machine of this type is free".into(),
            }),
            Some(FaultEffect::AnswerLost) | None => Ok(()),
        }
    }

    async fn make(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<SimInstance, ProviderError> {
        let terminal = |message: String| Err(ProviderError::Terminal { message });
        known(account)?;
        let kind = order.config["kind"].as_str().unwrap_or_default();
        if kind != config::MACHINE_CONFIG {
            return terminal(format!(
                "kind: a machine is made from {}, not {kind:?}",
                config::MACHINE_CONFIG
            ));
        }
        if order.owner.instance_key.is_empty() || order.owner.machine.is_empty() {
            return terminal("the order names no machine and instance key".into());
        }
        let errors = config::validate(&order.config);
        if let Some(error) = errors.first() {
            return terminal(format!("{}: {}", error.field, error.message));
        }
        let (instance, new) = {
            let mut state = self.0.state.lock();
            // The key is the client token: the same key is the same instance.
            let known = state
                .by_key
                .get(&order.owner.instance_key)
                .and_then(|id| state.instances.get(id))
                .cloned();
            match known {
                Some(known) if known.account != account.name => {
                    return terminal(format!(
                        "the instance key is that of an instance in account {}",
                        known.account
                    ));
                }
                Some(known) => (known, false),
                None => (self.add(&mut state, account, order)?, true),
            }
        };
        // Also where it was there already: whoever asked for it before may not have stored it yet.
        if let Err(error) = self.persist(&instance.id).await {
            if new {
                self.0.state.lock().remove(&instance.id);
            }
            return Err(error);
        }
        if new {
            self.schedule(instance.due, Due::Instance(instance.id.clone()));
        }
        Ok(instance)
    }

    /// A new instance, in the state only.
    fn add(
        &self,
        state: &mut State,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<SimInstance, ProviderError> {
        let used = state.used.get(&account.name).copied().unwrap_or_default();
        if let Some(limit) = self
            .0
            .options
            .quotas
            .get(&account.name)
            .filter(|limit| used >= **limit)
        {
            return Err(ProviderError::Quota {
                message: format!(
                    "account {} may have {limit} instances and has {used}",
                    account.name
                ),
            });
        }
        let now = self.now();
        let boot = SignedDuration::from_secs_f64(SimInstance::boot_seconds(order));
        let number = state.next;
        state.next += 1;
        let instance = SimInstance {
            id: format!("i-{number:08x}"),
            number,
            account: account.name.clone(),
            region: account.region.clone(),
            order: order.clone(),
            state: InstanceState::Pending,
            created: now,
            due: now.checked_add(boot).unwrap_or(Timestamp::MAX),
        };
        state.insert(instance.clone());
        Ok(instance)
    }

    async fn unmake(&self, account: &Account, id: &str, key: &str) -> Result<(), ProviderError> {
        known(account)?;
        let due = self.deleted_at();
        {
            let mut state = self.0.state.lock();
            let Some(instance) = state
                .instances
                .get_mut(id)
                .filter(|i| i.account == account.name)
            else {
                return Ok(());
            };
            if instance.order.owner.instance_key != key {
                return Err(ProviderError::Terminal {
                    message: format!("instance {id} carries another key"),
                });
            }
            if instance.state == InstanceState::Deleting {
                return Ok(());
            }
            instance.state = InstanceState::Deleting;
            instance.due = due;
        }
        self.persist(id).await?;
        self.schedule(due, Due::Instance(id.to_owned()));
        Ok(())
    }
}

impl Cloud {
    /// Machine and instance key of an instance, empty where there is none.
    fn names(&self, id: &str) -> (String, String) {
        let state = self.0.state.lock();
        state
            .instances
            .get(id)
            .map(|i| {
                let owner = &i.order.owner;
                (owner.machine.clone(), owner.instance_key.clone())
            })
            .unwrap_or_default()
    }

    /// Takes over the fields that change in place, and no others.
    async fn change(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        known(account)?;
        let shown = {
            let mut state = self.0.state.lock();
            let instance = state
                .instances
                .get_mut(id)
                .filter(|i| i.account == account.name)
                .ok_or_else(|| ProviderError::NotFound {
                    message: format!("account {} has no instance {id}", account.name),
                })?;
            if let Some(config) = instance.order.config.as_object_mut() {
                match change.config.get("tags") {
                    Some(tags) => config.insert("tags".into(), tags.clone()),
                    None => config.remove("tags"),
                };
            }
            instance.show()
        };
        self.persist(id).await?;
        Ok(shown)
    }
}

/// Refuses accounts that the simulated cloud does not have: of other providers, or without a region.
fn known(account: &Account) -> Result<(), ProviderError> {
    let terminal = |message: String| Err(ProviderError::Terminal { message });
    if account.provider != "sim" {
        return terminal(format!(
            "account {} is one of provider {:?}, not of the simulated cloud",
            account.name, account.provider
        ));
    }
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if account.region.is_empty() || !account.region.chars().all(letter) {
        return terminal(format!(
            "account {}: there is no region {:?}: a region's name is made of lower-case letters, digits and dashes",
            account.name, account.region
        ));
    }
    Ok(())
}

#[async_trait]
impl Provider for Cloud {
    fn name(&self) -> &str {
        "sim"
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        config::schemas()
    }

    fn validate(&self, config: &Value) -> Vec<ConfigError> {
        config::validate(config)
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        let call = self.begin(
            "create",
            &account.name,
            &order.owner.machine,
            &order.owner.instance_key,
        );
        if let Err(refusal) = Self::refuse(&call) {
            return self.end(call, None, Err(refusal));
        }
        let result = self.make(account, order).await;
        let id = result.as_ref().ok().map(|i| i.id.clone());
        self.end(call, id.as_deref(), result.map(|i| i.show()))
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        let call = self.begin("get", &account.name, "", "");
        let result = Self::refuse(&call).and_then(|()| known(account)).map(|()| {
            let state = self.0.state.lock();
            let instance = state.instances.get(id);
            instance
                .filter(|i| i.account == account.name)
                .map(SimInstance::show)
        });
        self.end(call, Some(id), result)
    }

    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        let call = self.begin("list", &account.name, "", "");
        let wanted = |i: &&SimInstance| {
            i.account == account.name
                && match scope {
                    ListScope::Account => true,
                    ListScope::Cluster(key) => i.order.owner.cluster_key == *key,
                }
        };
        let result = Self::refuse(&call).and_then(|()| known(account)).map(|()| {
            let state = self.0.state.lock();
            let ours = state.instances.values().filter(wanted);
            ours.map(SimInstance::show).collect()
        });
        self.end(call, None, result)
    }

    async fn update(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        let (machine, key) = self.names(id);
        let call = self.begin("update", &account.name, &machine, &key);
        if let Err(refusal) = Self::refuse(&call) {
            return self.end(call, Some(id), Err(refusal));
        }
        let result = self.change(account, id, change).await;
        self.end(call, Some(id), result)
    }

    async fn delete(
        &self,
        account: &Account,
        id: &str,
        instance_key: &str,
    ) -> Result<(), ProviderError> {
        let (machine, _) = self.names(id);
        let call = self.begin("delete", &account.name, &machine, instance_key);
        if let Err(refusal) = Self::refuse(&call) {
            return self.end(call, Some(id), Err(refusal));
        }
        let result = self.unmake(account, id, instance_key).await;
        self.end(call, Some(id), result)
    }
}

#[async_trait]
impl ClusterConnections for Cloud {
    async fn client(&self, cluster: &ClusterRef) -> Result<kube::Client, ConnectionError> {
        self.0
            .clusters
            .client(&cluster.key)
            .ok_or(ConnectionError::NotYet)
    }

    async fn kubeconfig(&self, _: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        Ok(None) // in process there is no address to give
    }
}

/// The time of a call as nodes and pods carry it.
pub(crate) fn stamp(now: Timestamp) -> String {
    rfc3339_seconds(now)
}
