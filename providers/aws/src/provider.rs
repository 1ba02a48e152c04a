//! EC2 as a provider.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use aws_sdk_ec2::types::{Filter, Instance as Shown};
use fleetwright_api::{ProviderConfig, drift::InstanceSettings};
use fleetwright_providers::{
    Account, BootImage, Bootstrap, ConfigError, ConfigSchema, CreateInstance, Infrastructure,
    Instance, InstanceState, ListScope, Provider, ProviderError, UpdateInstance,
    managed::{ManagedControlPlanes, PoolProvider},
};
use serde_json::{Map, Value, json};

use crate::{
    bootstrap::Kept,
    clients::{AllClients, Clients},
    config::{self, MACHINE_CONFIG, PROVIDER},
    create,
    eks::{self, Ended, schema::NODE_GROUP_CONFIG},
    errors::{code, told, writes},
    images::{self, Roots},
    instance::{filter, find, look, show, state, tags_of},
    recent::Recent,
    rooms::{Room, Rooms},
    schema::schemas,
    spot::Spot,
    tags, update,
};

/// How long after its making an instance shows in lists at the latest: mostly it is seconds, and AWS promises nothing.
const CAUGHT_UP: Duration = Duration::from_secs(300);
/// The one quota of an account that is counted here.
const INSTANCES: &str = "instances";
/// States of instances that are there.
const THERE: [&str; 5] = ["pending", "running", "stopping", "stopped", "shutting-down"];

/// Amazon Web Services, for one installation: instances of others are not shown.
#[derive(Debug)]
pub struct Aws {
    installation: String,
    clients: AllClients,
    recent: Recent,
    rooms: Rooms,
    roots: Roots,
    kept: Kept,
    ended: Ended,
    spot: Spot,
}

fn tagged(key: &str, value: &str) -> Filter {
    filter(format!("tag:{key}"), [value.to_owned()])
}

fn terminal<T>(message: impl Into<String>) -> Result<T, ProviderError> {
    Err(ProviderError::Terminal {
        message: message.into(),
    })
}

impl Aws {
    /// The provider for the installation of this name.
    pub fn new(installation: impl Into<String>) -> Self {
        Self {
            installation: installation.into(),
            clients: AllClients::new(),
            recent: Recent::default(),
            rooms: Rooms::default(),
            roots: Roots::default(),
            kept: Kept::default(),
            ended: Ended::default(),
            spot: Spot::default(),
        }
    }

    /// Clients of an account.
    pub(crate) async fn clients(&self, account: &Account) -> Result<Arc<Clients>, ProviderError> {
        self.clients.of(account).await
    }

    /// What was kept for machines.
    pub(crate) const fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Updates of EKS that have come to their end.
    pub(crate) const fn ended(&self) -> &Ended {
        &self.ended
    }

    /// The instance with this id, whatever its state; `None` where there is none, which is not believed of one that was just made.
    async fn known(
        &self,
        account: &Account,
        clients: &Clients,
        id: &str,
    ) -> Result<Option<Shown>, ProviderError> {
        let found = look(clients, id).await?;
        if found.is_none() {
            self.recent
                .check_absent(&account.name, id, Instant::now(), CAUGHT_UP)?;
        }
        Ok(found)
    }

    /// The instance that carries this key: the oldest, should there be several, and one that is gone only where there is no other.
    async fn with_key(clients: &Clients, key: &str) -> Result<Option<Shown>, ProviderError> {
        let found = find(clients, vec![tagged(tags::INSTANCE_KEY, key)]).await?;
        let rank = |i: &Shown| {
            let made = i.launch_time().map(|at| (at.secs(), at.subsec_nanos()));
            (state(i).is_none(), made)
        };
        Ok(found.into_iter().min_by_key(rank))
    }

    /// Instances of ours that are there, by id.
    async fn there(
        &self,
        clients: &Clients,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        let mut filters = vec![
            tagged(tags::INSTALLATION, &self.installation),
            filter("instance-state-name", THERE.map(str::to_owned)),
        ];
        if let ListScope::Cluster(key) = scope {
            filters.push(tagged(tags::CLUSTER_KEY, key));
        }
        let found = find(clients, filters).await?;
        let there = found.iter().filter(|i| state(i).is_some());
        let mut there: Vec<Instance> = there.map(show).collect();
        self.spot.give_up(clients, &found, &mut there).await;
        Ok(there)
    }

    /// Takes room for a new instance, and refuses it where the account's own limits leave none.
    async fn take_room(
        &self,
        clients: &Clients,
        account: &Account,
        key: &str,
    ) -> Result<(), ProviderError> {
        let name = &account.name;
        if let Some(other) = account.quotas.keys().find(|q| *q != INSTANCES) {
            return terminal(format!(
                "account {name} has a quota of {other}: here only {INSTANCES} are counted, all else is for AWS' Service Quotas"
            ));
        }
        let Some(limit) = account.quotas.get(INSTANCES) else {
            return Ok(());
        };
        let most = usize::try_from(*limit).unwrap_or(0);
        let take = || self.rooms.take(name, key, most, Instant::now(), CAUGHT_UP);
        let mut room = take();
        if room == Room::List {
            let there = self.there(clients, &ListScope::Account).await?;
            let keys = there.into_iter().filter_map(|i| i.owner);
            let keys = keys.map(|owner| owner.instance_key).collect();
            self.rooms.listed(name, Instant::now(), keys);
            room = take();
        }
        let used = match room {
            Room::Taken => return Ok(()),
            Room::Full(used) => used,
            Room::List => {
                return Err(ProviderError::Unavailable {
                    message: format!("the instances of account {name} are being counted"),
                });
            }
        };
        Err(ProviderError::Quota {
            message: format!(
                "account {name} has {used} of {limit} {INSTANCES}: raise ProviderAccount.spec.quotas.{INSTANCES}, or delete some"
            ),
        })
    }

    async fn make(
        &self,
        clients: &Clients,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        let config = config::machine(&order.config)?;
        let key = &order.owner.instance_key;
        if key.is_empty() || order.owner.machine.is_empty() {
            return terminal("the order names no machine and instance key");
        }
        if order.owner.installation != self.installation {
            let (theirs, ours) = (&order.owner.installation, &self.installation);
            return terminal(format!(
                "the order is of installation {theirs:?}, this is {ours:?}"
            ));
        }
        if let Some(found) = Self::with_key(clients, key).await? {
            return Ok(show(&found));
        }
        let image = images::of(clients, &config, &order.version).await?;
        let image = image.map_err(|message| ProviderError::Terminal { message })?;
        let root = match &config.root_volume {
            Some(_) => Some(self.roots.of(clients, &account.name, &image).await?),
            None => None,
        };
        let call = create::call(clients, order, &config, &image, root.as_deref())?;
        self.take_room(clients, account, key).await?;
        let made = match call.send().await {
            // It was asked for before, when its settings were others, and shows any moment.
            Err(error) if code(&error) == Some("IdempotentParameterMismatch") => {
                let found = Self::with_key(clients, key).await?;
                return found.as_ref().map(show).ok_or_else(|| ProviderError::Ambiguous {
                    message: "RunInstances: the instance was asked for before, with other settings, and does not show yet".into(),
                });
            }
            made => made
                .map_err(|e| told(writes("RunInstances"), e))
                .inspect_err(|error| {
                    // Where the answer was lost it may be there.
                    if !matches!(error, ProviderError::Ambiguous { .. }) {
                        self.rooms.give_back(&account.name, key);
                    }
                })?,
        };
        let made = made.instances().first().map(show);
        let made = made.ok_or_else(|| ProviderError::Ambiguous {
            message: "RunInstances: the answer shows no instance".into(),
        })?;
        self.recent
            .made(&account.name, &made.id, Instant::now(), CAUGHT_UP);
        Ok(made)
    }
}

/// Puts an image in the place of what it was looked up by.
fn freeze(fields: &mut Map<String, Value>, image: &str) {
    fields.remove("imageLookup");
    fields.insert("image".into(), json!(image));
}

#[async_trait]
impl Provider for Aws {
    fn name(&self) -> &str {
        PROVIDER
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        schemas()
    }

    fn settings(&self, config: &ProviderConfig) -> InstanceSettings {
        config::settings(config.settings())
    }

    fn failure_domains(&self, _: &Account, config: &ProviderConfig) -> Vec<String> {
        config::zones(config.settings())
    }

    async fn resolve(
        &self,
        account: &Account,
        version: &str,
        config: &Value,
    ) -> Result<Value, ProviderError> {
        let mut resolved = config.clone();
        let Some(fields) = resolved.as_object_mut() else {
            return Ok(resolved);
        };
        if config["kind"] != MACHINE_CONFIG || fields.contains_key("image") {
            return Ok(resolved);
        }
        let read = config::machine(config)?;
        let clients = self.clients(account).await?;
        let found = images::of(&clients, &read, version).await?;
        let image = found.map_err(|why| ProviderError::Terminal {
            message: format!("imageLookup: {why}"),
        })?;
        freeze(fields, &image);
        Ok(resolved)
    }

    fn boot_image(&self, config: &Value) -> BootImage {
        match config["image"].as_str() {
            Some(image) => BootImage::Named(image.to_owned()),
            None if config["kind"] == MACHINE_CONFIG => {
                BootImage::Alias(json!([config["os"], config["imageLookup"]]))
            }
            None => BootImage::Unsaid,
        }
    }

    fn as_made(&self, config: &Value, instance: &Instance) -> Value {
        let mut made = config.clone();
        if let Some(fields) = made.as_object_mut()
            && config["kind"] == MACHINE_CONFIG
            && !fields.contains_key("image")
        {
            freeze(fields, &instance.image);
        }
        made
    }

    async fn missing_image(
        &self,
        account: &Account,
        version: &str,
        config: &Value,
    ) -> Result<Option<ConfigError>, ProviderError> {
        match config["kind"].as_str() {
            Some(MACHINE_CONFIG) => {
                let config = config::machine(config)?;
                let clients = self.clients(account).await?;
                images::missing(&clients, &config, version).await
            }
            Some(NODE_GROUP_CONFIG) => {
                let config = eks::config::node_group(config)?;
                let clients = self.clients(account).await?;
                images::missing_types(&clients, &config.instance_types).await
            }
            _ => Ok(None),
        }
    }

    fn bootstrap(&self) -> Option<&dyn Bootstrap> {
        Some(self)
    }

    fn infrastructure(&self) -> Option<&dyn Infrastructure> {
        Some(self)
    }

    fn control_planes(&self) -> Option<&dyn ManagedControlPlanes> {
        Some(self)
    }

    fn pools(&self) -> Option<&dyn PoolProvider> {
        Some(self)
    }

    fn lists_catch_up_after(&self) -> Duration {
        CAUGHT_UP
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        let clients = self.clients(account).await?;
        self.make(&clients, account, order).await
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        let clients = self.clients(account).await?;
        let found = self.known(account, &clients, id).await?;
        Ok(found.filter(|i| state(i).is_some()).map(|i| show(&i)))
    }

    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        let clients = self.clients(account).await?;
        self.there(&clients, scope).await
    }

    async fn update(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        let config = config::machine(&change.config)?;
        let clients = self.clients(account).await?;
        let missing = || ProviderError::NotFound {
            message: format!("account {} has no instance {id}", account.name),
        };
        let found = look(&clients, id).await?.filter(|i| state(i).is_some());
        let found = found.ok_or_else(missing)?;
        update::write(&clients, &found, change, &config).await?;
        let found = look(&clients, id).await?.filter(|i| state(i).is_some());
        found.as_ref().map(show).ok_or_else(missing)
    }

    async fn delete(
        &self,
        account: &Account,
        id: &str,
        instance_key: &str,
    ) -> Result<(), ProviderError> {
        let clients = self.clients(account).await?;
        let Some(found) = self.known(account, &clients, id).await? else {
            return Ok(());
        };
        match state(&found) {
            None | Some(InstanceState::Deleting) => return Ok(()),
            Some(_) => {}
        }
        let tags = tags_of(found.tags());
        let key = tags.get(tags::INSTANCE_KEY);
        if key.is_none_or(|key| key.is_empty() || key != instance_key) {
            return terminal(format!("instance {id} carries another key: it stays"));
        }
        let call = clients.ec2.terminate_instances().instance_ids(id);
        let ended = call.send().await;
        self.rooms.give_back(&account.name, instance_key);
        match ended.map_err(|e| told(writes("TerminateInstances"), e)) {
            Err(ProviderError::NotFound { .. }) => Ok(()),
            ended => ended.map(drop),
        }
    }
}
