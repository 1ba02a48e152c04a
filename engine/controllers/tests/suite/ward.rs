//! Makes machines ill: instances that the provider gives up, clusters that cannot be reached, time that passes at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use fleetwright_api::{
    ProviderConfig,
    drift::InstanceSettings,
    time::{Clock, SystemClock},
};
use fleetwright_provider_sim::Cloud;
use fleetwright_providers::{
    Account, Bootstrap, ClusterConnections, ClusterRef, ConfigError, ConfigSchema, ConnectionError,
    CreateInstance, Infrastructure, Instance, InstanceState, ListScope, Provider, ProviderError,
    UpdateInstance,
};
use fleetwright_workload::Connections;
use jiff::{SignedDuration, Timestamp};

use crate::boots::Boots;

#[derive(Default)]
struct Ills {
    failed: BTreeSet<String>,
    hidden: BTreeSet<String>,
    unlisted: bool,
    unlisted_accounts: BTreeSet<String>,
    newest: Option<String>,
    unreachable: BTreeSet<String>,
    booted: BTreeSet<String>,
    unaddressed: bool,
    ahead: SignedDuration,
    /// Where its instances are given what they boot from.
    boots: Option<Boots>,
}

/// The simulated cloud as the controllers see it.
#[derive(Clone)]
pub(crate) struct Ward(Cloud, Arc<Mutex<Ills>>, Arc<Connections>);

impl Ward {
    /// Clusters of others than the simulated cloud are reached by `real`.
    pub(crate) fn new(cloud: Cloud, real: Connections) -> Self {
        Self(cloud, Arc::default(), Arc::new(real))
    }

    /// From now on the instance of this machine is shown as failed.
    pub(crate) fn fail(&self, machine: &str) {
        self.1.lock().unwrap().failed.insert(machine.to_owned());
    }

    /// From now on lists leave the instances of machines out whose names begin so.
    pub(crate) fn hide(&self, machine: &str) {
        self.1.lock().unwrap().hidden.insert(machine.to_owned());
    }

    /// Lists show them again.
    pub(crate) fn show_again(&self, machine: &str) {
        self.1.lock().unwrap().hidden.remove(machine);
    }

    /// From now on image `newest` stands for this one.
    pub(crate) fn newest(&self, image: &str) {
        self.1.lock().unwrap().newest = Some(image.to_owned());
    }

    /// From now on instances of this cluster run as soon as they are made: the simulated cloud waits for an API of its own.
    pub(crate) fn boot(&self, cluster: &str) {
        let cluster = format!("default/{cluster}");
        self.1.lock().unwrap().booted.insert(cluster);
    }

    /// Whether instances show no addresses from now on.
    pub(crate) fn unaddress(&self, hides: bool) {
        self.1.lock().unwrap().unaddressed = hides;
    }

    /// Whether lists fail from now on.
    pub(crate) fn unlist(&self, fails: bool) {
        self.1.lock().unwrap().unlisted = fails;
    }

    /// Whether lists of this account fail from now on.
    pub(crate) fn unlist_account(&self, account: &str, fails: bool) {
        let accounts = &mut self.1.lock().unwrap().unlisted_accounts;
        match fails {
            true => accounts.insert(account.to_owned()),
            false => accounts.remove(account),
        };
    }

    /// From now on no new connection to this cluster is made.
    pub(crate) fn cut_off(&self, cluster: &str) {
        self.1
            .lock()
            .unwrap()
            .unreachable
            .insert(cluster.to_owned());
    }

    /// Connections are made again.
    pub(crate) fn join(&self, cluster: &str) {
        self.1.lock().unwrap().unreachable.remove(cluster);
    }

    /// From now on the controllers' clock is ahead.
    pub(crate) fn ahead(&self, seconds: i64) {
        self.1.lock().unwrap().ahead = SignedDuration::from_secs(seconds);
    }

    /// From now on instances are given what they boot from, and clusters an endpoint.
    pub(crate) fn give_boots(&self) {
        self.1.lock().unwrap().boots = Some(Boots::default());
    }

    /// What was given so far.
    pub(crate) fn boots<T>(&self, look: impl FnOnce(&mut Boots) -> T) -> T {
        look(self.1.lock().unwrap().boots.as_mut().unwrap())
    }

    pub(crate) fn cloud(&self) -> &Cloud {
        &self.0
    }

    fn show(&self, mut instance: Instance) -> Instance {
        let ills = self.1.lock().unwrap();
        let machine = instance.owner.as_ref().map(|o| &o.machine);
        if machine.is_some_and(|m| ills.failed.contains(m)) {
            instance.state = InstanceState::Failed;
            instance.reason = Some("no such disk".into());
        }
        if ills.unaddressed {
            instance.addresses.clear();
        }
        let cluster = instance.owner.as_ref().map(|o| &o.cluster);
        let pending = instance.state == InstanceState::Pending;
        if pending && cluster.is_some_and(|c| ills.booted.contains(c)) {
            instance.state = InstanceState::Running;
        }
        instance
    }
}

impl Clock for Ward {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.1.lock().unwrap().ahead
    }
}

#[async_trait]
impl Provider for Ward {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        self.0.schemas()
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        if let Some(boots) = &mut self.1.lock().unwrap().boots
            && boots.creates_fail > 0
        {
            boots.creates_fail -= 1;
            let message = "the test says so".into();
            return Err(ProviderError::Unavailable { message });
        }
        self.0.create(account, order).await.map(|i| self.show(i))
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        let found = self.0.get(account, id).await?;
        Ok(found.map(|i| self.show(i)))
    }

    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        let fails = {
            let ills = self.1.lock().unwrap();
            ills.unlisted || ills.unlisted_accounts.contains(&account.name)
        };
        if fails {
            let message = "the test says so".into();
            return Err(ProviderError::Unavailable { message });
        }
        let mut all = self.0.list(account, scope).await?;
        let hidden = self.1.lock().unwrap().hidden.clone();
        let hides = |machine: &str| hidden.iter().any(|h| machine.starts_with(h));
        all.retain(|i| i.owner.as_ref().is_none_or(|o| !hides(&o.machine)));
        Ok(all.into_iter().map(|i| self.show(i)).collect())
    }

    async fn update(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        let changed = self.0.update(account, id, change).await?;
        Ok(self.show(changed))
    }

    async fn delete(
        &self,
        account: &Account,
        id: &str,
        instance_key: &str,
    ) -> Result<(), ProviderError> {
        self.0.delete(account, id, instance_key).await
    }

    fn bootstrap(&self) -> Option<&dyn Bootstrap> {
        let boots = self.1.lock().unwrap().boots.is_some();
        boots.then_some(self as _)
    }

    fn infrastructure(&self) -> Option<&dyn Infrastructure> {
        let boots = self.1.lock().unwrap().boots.is_some();
        boots.then_some(self as _)
    }

    fn settings(&self, config: &ProviderConfig) -> InstanceSettings {
        self.0.settings(config)
    }

    fn lists_catch_up_after(&self) -> std::time::Duration {
        self.0.lists_catch_up_after()
    }

    fn failure_domains(&self, account: &Account, config: &ProviderConfig) -> Vec<String> {
        self.0.failure_domains(account, config)
    }

    async fn resolve(
        &self,
        _: &Account,
        _: &str,
        config: &serde_json::Value,
    ) -> Result<serde_json::Value, ProviderError> {
        let mut config = config.clone();
        if config["image"] == "newest" {
            config["image"] = self.1.lock().unwrap().newest.clone().into();
        }
        Ok(config)
    }

    async fn missing_image(
        &self,
        account: &Account,
        version: &str,
        config: &serde_json::Value,
    ) -> Result<Option<ConfigError>, ProviderError> {
        self.0.missing_image(account, version, config).await
    }
}

#[async_trait]
impl ClusterConnections for Ward {
    async fn client(&self, cluster: &ClusterRef) -> Result<kube::Client, ConnectionError> {
        if self.1.lock().unwrap().unreachable.contains(&cluster.name) {
            return Err(ConnectionError::NotYet);
        }
        match cluster.provider.as_deref() {
            Some("sim") => {
                let client = self.0.client(cluster).await?;
                let ills = self.1.lock().unwrap();
                let kubeadm = ills.boots.as_ref().map(|boots| boots.kubeadm.clone());
                Ok(kubeadm.map_or(client.clone(), |kubeadm| kubeadm.over(client)))
            }
            _ => self.2.client(cluster).await,
        }
    }

    async fn kubeconfig(&self, cluster: &ClusterRef) -> Result<Option<String>, ConnectionError> {
        self.0.kubeconfig(cluster).await
    }

    /// API servers are those of somebody else's cluster, to which Secret `<cluster>-access` leads.
    async fn serving_certificates(
        &self,
        cluster: &ClusterRef,
    ) -> Result<BTreeMap<String, Timestamp>, ConnectionError> {
        let access = ClusterRef {
            kubeconfig: format!("{}-access", cluster.name),
            ..cluster.clone()
        };
        self.2.serving_certificates(&access).await
    }
}
