//! The cloud as a provider, in process.

use async_trait::async_trait;
use fleetwright_api::{ProviderConfig, drift::InstanceSettings};
use fleetwright_providers::{
    Account, ClusterConnections, ClusterRef, ConfigError, ConfigSchema, ConnectionError,
    CreateInstance, Instance, InstanceState, ListScope, Provider, ProviderError, UpdateInstance,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    cloud::Cloud,
    config,
    faults::FaultEffect,
    instance::SimInstance,
    journal::Entry,
    quota,
    state::{Due, State},
    wire,
    workloads::Workload,
};

/// Milliseconds of patience that a throttled call is asked for.
const THROTTLE_MS: u64 = 500;
/// How far behind a stale list is.
const STALE: SignedDuration = SignedDuration::from_secs(30);
/// After what time a stale list shows what a call that took long has made.
pub(crate) const CAUGHT_UP: std::time::Duration = std::time::Duration::from_secs(60);

tokio::task_local! {
    /// Who makes the calls of this task, for the journal.
    pub(crate) static CALLER: Option<String>;
}

/// A call under way: what the journal will say of it.
struct Call {
    entry: Entry,
    fault: Option<FaultEffect>,
}

impl Cloud {
    /// A call arrives, after the time that it takes.
    async fn begin(&self, verb: &str, account: &Account, machine: &str, key: &str) -> Call {
        let delay = self.delay(verb, account);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
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
            caller: CALLER.try_with(Clone::clone).ok().flatten(),
            verb: verb.to_owned(),
            account: account.name.clone(),
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
        let written = self.write_down(call.entry);
        if call.fault == Some(FaultEffect::AnswerLost) {
            return Err(ProviderError::Ambiguous {
                message: "the connection was cut before the answer".into(),
            });
        }
        // The call's own error says more than that the journal, on the same full disk, has no line of it.
        let value = result?;
        written.map(|()| value)
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
            Some(FaultEffect::CredentialsRefused) => Err(ProviderError::Credentials {
                message: "nobody of this name is known".into(),
            }),
            Some(FaultEffect::NoCapacity) => Err(ProviderError::NoCapacity {
                message: "no machine of this type is free".into(),
            }),
            Some(FaultEffect::AnswerLost | FaultEffect::NeverJoins | FaultEffect::Stale) | None => {
                Ok(())
            }
        }
    }

    async fn make(
        &self,
        account: &Account,
        order: &CreateInstance,
        mute: bool,
    ) -> Result<SimInstance, ProviderError> {
        let terminal = |message: String| Err(ProviderError::Terminal { message });
        known(account)?;
        config::check_order(order)?;
        if let Some(missing) = self.missing(&order.version, &order.config) {
            return terminal(missing.message);
        }
        let workloads = config::workloads(order.cluster_config.as_ref())?;
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
                None => (self.add(&mut state, account, order, mute)?, true),
            }
        };
        // Also where it was there already: whoever asked for it before may not have stored it yet.
        if let Err(error) = self.persist(&instance.id).await {
            if new {
                self.0.state.lock().remove(&instance.id, self.now());
            }
            return Err(error);
        }
        if !self.0.state.lock().instances.contains_key(&instance.id) {
            return Err(ProviderError::Unavailable {
                message: format!(
                    "instance {} went before it was stored: ask again",
                    instance.id
                ),
            });
        }
        if new {
            self.schedule(instance.due, Due::Instance(instance.id.clone()));
        }
        self.declare(&instance.order, order.cluster_config.as_ref(), workloads)
            .await?;
        Ok(instance)
    }

    /// Whoever runs the control plane brings what the cluster itself is to be.
    async fn declare(
        &self,
        order: &CreateInstance,
        cluster_config: Option<&Value>,
        workloads: Vec<Workload>,
    ) -> Result<(), ProviderError> {
        let key = &order.owner.cluster_key;
        if order.control_plane {
            let clusters = &self.0.clusters;
            if clusters.declare(key, cluster_config, workloads).await? {
                self.look_at_pods(key, SignedDuration::ZERO);
            }
        }
        Ok(())
    }

    /// A new instance, in the state only.
    fn add(
        &self,
        state: &mut State,
        account: &Account,
        order: &CreateInstance,
        mute: bool,
    ) -> Result<SimInstance, ProviderError> {
        let ours = state
            .instances
            .values()
            .filter(|i| i.account == account.name);
        let used = ours.map(|i| config::type_of(&i.order.config));
        quota::check(account, used, config::type_of(&order.config))?;
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
            mute,
        };
        state.insert(instance.clone());
        Ok(instance)
    }

    async fn unmake(&self, account: &Account, id: &str, key: &str) -> Result<(), ProviderError> {
        known(account)?;
        let due = self.deleted_at();
        let before = {
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
            let before = (instance.state, instance.due);
            instance.state = InstanceState::Deleting;
            instance.due = due;
            before
        };
        if let Err(error) = self.persist(id).await {
            // Not on its way after all: the next call must not take it for that.
            let mut state = self.0.state.lock();
            if let Some(instance) = state.instances.get_mut(id) {
                (instance.state, instance.due) = before;
            }
            drop(state);
            self.schedule(before.1, Due::Instance(id.to_owned()));
            return Err(error);
        }
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
        let workloads = config::workloads(change.cluster_config.as_ref())?;
        let missing = || ProviderError::NotFound {
            message: format!("account {} has no instance {id}", account.name),
        };
        let order = {
            let state = self.0.state.lock();
            let found = state
                .instances
                .get(id)
                .filter(|i| i.account == account.name);
            found.map(|i| i.order.clone()).ok_or_else(missing)?
        };
        // Before the instance shows the new digest: after that nobody asks again.
        self.declare(&order, change.cluster_config.as_ref(), workloads)
            .await?;
        let shown = {
            let mut state = self.0.state.lock();
            let instance = state
                .instances
                .get_mut(id)
                .filter(|i| i.account == account.name)
                .ok_or_else(missing)?;
            if let Some(config) = instance.order.config.as_object_mut() {
                for field in config::IN_PLACE {
                    match change.config.get(field) {
                        Some(value) => config.insert(field.into(), value.clone()),
                        None => config.remove(field),
                    };
                }
            }
            // The key is what the instance is known by: it stays.
            if change.owner.instance_key == instance.order.owner.instance_key {
                instance.order.owner.clone_from(&change.owner);
            }
            instance
                .order
                .config_digest
                .clone_from(&change.config_digest);
            instance.show()
        };
        match self.persist(id).await {
            Ok(()) => Ok(shown),
            Err(error) => {
                self.schedule(self.now(), Due::Stored(id.to_owned()));
                Err(error)
            }
        }
    }
}

/// Refuses accounts that the simulated cloud does not have: of other providers, or without a region.
fn known(account: &Account) -> Result<(), ProviderError> {
    let terminal = |message: String| Err(ProviderError::Terminal { message });
    if account.provider != config::PROVIDER {
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
        config::PROVIDER
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        config::schemas()
    }

    fn lists_catch_up_after(&self) -> std::time::Duration {
        CAUGHT_UP
    }

    fn settings(&self, config: &ProviderConfig) -> InstanceSettings {
        config::settings(config.settings())
    }

    fn failure_domains(&self, account: &Account, _: &ProviderConfig) -> Vec<String> {
        config::failure_domains(&account.region)
    }

    async fn missing_image(
        &self,
        _: &Account,
        version: &str,
        config: &Value,
    ) -> Result<Option<ConfigError>, ProviderError> {
        Ok(self.missing(version, config))
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        let owner = &order.owner;
        let call = self
            .begin("create", account, &owner.machine, &owner.instance_key)
            .await;
        if let Err(refusal) = Self::refuse(&call) {
            return self.end(call, None, Err(refusal));
        }
        let mute = call.fault == Some(FaultEffect::NeverJoins);
        let result = self.make(account, order, mute).await;
        let id = result.as_ref().ok().map(|i| i.id.clone());
        self.end(call, id.as_deref(), result.map(|i| i.show()))
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        let call = self.begin("get", account, "", "").await;
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
        let call = self.begin("list", account, "", "").await;
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
            if call.fault == Some(FaultEffect::Stale) {
                let then = self.ago(STALE);
                let gone = state.gone.iter().filter(|(at, _)| *at > then);
                let gone = gone.map(|(_, instance)| instance).filter(wanted);
                let older = ours.chain(gone).filter(|i| i.created <= then);
                return older.map(SimInstance::show).collect();
            }
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
        let call = self.begin("update", account, &machine, &key).await;
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
        let call = self.begin("delete", account, &machine, instance_key).await;
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
        match self.0.clusters.get(&cluster.key) {
            Some(_) => Ok(self.cluster_client(&cluster.key)),
            None => Err(ConnectionError::NotYet),
        }
    }

    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        Ok(self.url().map(|url| wire::kubeconfig(cluster, url)))
    }
}
