//! What every provider promises.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use fleetwright_api::{
    ProviderAccount, ProviderConfig,
    drift::InstanceSettings,
    machine::{MachineAddress, MachineTaint},
    secret::SecretText,
};
use fleetwright_schema::{Schema, prune::prune, validate::validate};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    bootstrap::Bootstrap,
    credentials::Credentials,
    error::ProviderError,
    infrastructure::Infrastructure,
    managed::{ManagedControlPlanes, PoolProvider},
};

/// An account of a provider in one region, as its ProviderAccount says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Name of the ProviderAccount.
    pub name: String,
    /// Name of the provider.
    pub provider: String,
    /// Region.
    pub region: String,
    /// URL of the provider's API where it is not the usual one.
    pub endpoint: Option<String>,
    /// Most of each thing that may be used, such as `instances`; no limit where a thing is not named. They hold for
    /// new instances: what is there already stays.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas: BTreeMap<String, i64>,
    /// What its Secret holds; `None` where it names none: then the provider looks where its tools usually do.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// JSON Schema of one kind of `providerConfig`. Every field says what a change of it means through
/// `x-fleetwright-change`: `replace` (also where nothing is said), `in-place` or `none`; defaults are in it.
/// The schema itself says through `x-fleetwright-for` what it is for, where that is no machine or Cluster: `ControlPlane`, one that the
/// provider runs, or `Pool`, a group of nodes that it runs. What says `replace` in these two can not change any more.
/// Where machines of the kind can be a control plane whose Cluster has to have a `providerConfig`, `x-fleetwright-cluster` says which:
/// `{"kind": …, "oneOf": [fields]}`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigSchema {
    /// Such as `sim.fleetwright.dev/v1alpha1`.
    pub api_version: String,
    /// Such as `SimMachineConfig`.
    pub kind: String,
    /// The schema.
    pub schema: Value,
}

/// A mistake in a `providerConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigError {
    /// Dotted path inside the `providerConfig`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Whose an instance is. All of it is written on the instance as tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// The installation of Fleetwright.
    pub installation: String,
    /// Key of the cluster ([`fleetwright_api::names::cluster_key`]).
    pub cluster_key: String,
    /// The Cluster as `namespace/name`.
    pub cluster: String,
    /// The pool; empty for control-plane machines.
    pub pool: String,
    /// The set; empty for control-plane machines.
    pub set: String,
    /// The Machine's name: the node's name too.
    pub machine: String,
    /// `Machine.spec.instanceKey`: client token and ownership tag.
    pub instance_key: String,
}

/// An order for an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateInstance {
    /// Whose it is.
    pub owner: Ownership,
    /// Whether it runs the control plane.
    pub control_plane: bool,
    /// Kubernetes version that it boots.
    pub version: String,
    /// The effective `providerConfig`.
    pub config: Value,
    /// The cluster's own `providerConfig`, where it has one.
    #[serde(default)]
    pub cluster_config: Option<Value>,
    /// Digest of both: see [`Instance::config_digest`].
    #[serde(default)]
    pub config_digest: String,
    /// Failure domain to make it in.
    #[serde(default)]
    pub failure_domain: Option<String>,
    /// Labels that the node registers with.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    #[serde(default)]
    pub taints: Vec<MachineTaint>,
    /// What the instance runs when it boots, where the provider takes such a thing.
    #[serde(skip)]
    pub user_data: Option<SecretText>,
}

/// A change of an instance in place: all that changes in place is written, whatever it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateInstance {
    /// Whose it is: these tags are written again.
    #[serde(default)]
    pub owner: Ownership,
    /// The effective `providerConfig`; only its `in-place` fields differ.
    pub config: Value,
    /// The cluster's own `providerConfig`, for an instance that runs the control plane.
    #[serde(default)]
    pub cluster_config: Option<Value>,
    /// Digest of both: see [`Instance::config_digest`].
    #[serde(default)]
    pub config_digest: String,
}

/// Where in its life an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstanceState {
    /// Made, not booted yet.
    Pending,
    /// Running.
    Running,
    /// Stopped by somebody.
    Stopped,
    /// On its way out; still there.
    Deleting,
    /// Will never run, or is taken away before long: its Machine is replaced.
    Failed,
}

impl InstanceState {
    /// The word for it, as in calls and statuses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Deleting => "Deleting",
            Self::Failed => "Failed",
        }
    }
}

/// An instance as the provider shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// The provider's own id.
    pub id: String,
    /// What the node registers as `spec.providerID`.
    pub provider_id: String,
    /// Whose it is, read back from the tags; `None` for an instance without our tags.
    pub owner: Option<Ownership>,
    /// Where in its life it is.
    pub state: InstanceState,
    /// Why it is stopped, on its way out, failed or about to go, in the provider's words; `None` where there is nothing to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Addresses.
    #[serde(default)]
    pub addresses: Vec<MachineAddress>,
    /// Failure domain that it is in.
    #[serde(default)]
    pub failure_domain: Option<String>,
    /// Type of the machine.
    #[serde(default)]
    pub instance_type: String,
    /// Image that it was booted from.
    #[serde(default)]
    pub image: String,
    /// What else others may have changed. Instances of one pool have the same: whoever keeps many of them keeps it once.
    #[serde(default, with = "alike")]
    pub settings: Arc<InstanceSettings>,
    /// What [`CreateInstance::config_digest`] or [`UpdateInstance::config_digest`] said last, kept as a tag: where it is
    /// not the digest of what is wanted, the instance is to be updated.
    #[serde(default)]
    pub config_digest: String,
    /// Kubernetes version of the order that it was made for, kept as a tag.
    #[serde(default)]
    pub version: String,
    /// When it was made.
    pub created: Timestamp,
}

/// A value that is kept once for many, on its way out and in.
mod alike {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// What a list covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListScope {
    /// Everything of ours in the account.
    Account,
    /// One cluster, by its key.
    Cluster(String),
}

/// A provider of instances.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its name, as `ProviderAccount.spec.provider` has it.
    fn name(&self) -> &str;

    /// The kinds of `providerConfig` that it understands.
    fn schemas(&self) -> Vec<ConfigSchema>;

    /// Mistakes in a `providerConfig`: what its schema refuses or does not know. A provider adds what a schema
    /// cannot tell.
    fn validate(&self, config: &Value) -> Vec<ConfigError> {
        config_errors(&self.schemas(), config)
    }

    /// What an instance that has these settings shows as [`Instance::settings`]. What they do not say for certain is left out: the
    /// provider chose it, and no difference is drift.
    fn settings(&self, _config: &ProviderConfig) -> InstanceSettings {
        InstanceSettings::default()
    }

    /// Failure domains that machines with these settings can be spread over, in the provider's order; none where it has no such thing.
    fn failure_domains(&self, _account: &Account, _config: &ProviderConfig) -> Vec<String> {
        Vec::new()
    }

    /// The effective `providerConfig` with what stands in it for something else that changes by itself, such as an image by its name,
    /// replaced by what it stands for now. Asked once, before a set or a control-plane machine is made of it: what comes of it stays.
    ///
    /// # Errors
    /// [`ProviderError::Terminal`] where it stands for nothing.
    async fn resolve(
        &self,
        _account: &Account,
        _version: &str,
        config: &Value,
    ) -> Result<Value, ProviderError> {
        Ok(config.clone())
    }

    /// What instances with this effective `providerConfig` boot from, as far as it says so.
    fn boot_image(&self, config: &Value) -> BootImage {
        let named = config["image"].as_str();
        named.map_or(BootImage::Unsaid, |image| {
            BootImage::Named(image.to_owned())
        })
    }

    /// What is missing to boot this Kubernetes version with a `providerConfig`, such as an image or a type of instances, what to do about it,
    /// and which field asks for it; `None` when nothing is. Asked for plans, and before an upgrade begins.
    async fn missing_image(
        &self,
        _account: &Account,
        _version: &str,
        _config: &Value,
    ) -> Result<Option<ConfigError>, ProviderError> {
        Ok(None)
    }

    /// The settings that this instance was made from where `config` was written: what aliases in it stood for then.
    fn as_made(&self, config: &Value, _instance: &Instance) -> Value {
        config.clone()
    }

    /// How its instances become nodes; `None` where they do so by themselves.
    fn bootstrap(&self) -> Option<&dyn Bootstrap> {
        None
    }

    /// The way to the API of clusters on its instances; `None` where that is not its business.
    fn infrastructure(&self) -> Option<&dyn Infrastructure> {
        None
    }

    /// Control planes that it runs by itself.
    fn control_planes(&self) -> Option<&dyn ManagedControlPlanes> {
        None
    }

    /// Groups of nodes that it runs by itself.
    fn pools(&self) -> Option<&dyn PoolProvider> {
        None
    }

    /// How long after a create was asked for a list shows its instance at the latest. An instance whose id is not known is taken for
    /// never made only where a list begun so much later does not show it either.
    fn lists_catch_up_after(&self) -> Duration {
        Duration::from_secs(120)
    }

    /// Makes an instance, or shows the one that was already made with this instance key.
    ///
    /// # Errors
    /// After [`ProviderError::Ambiguous`] the instance may exist: ask again with the same key.
    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError>;

    /// The instance with this id; `None` when the provider says that there is none.
    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError>;

    /// All instances in the scope, complete, sorted by id.
    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError>;

    /// Writes the in-place fields and our tags of an instance, the digest last: whoever sees it sees the rest.
    async fn update(
        &self,
        account: &Account,
        id: &str,
        change: &UpdateInstance,
    ) -> Result<Instance, ProviderError>;

    /// Begins to delete an instance that carries `instance_key`; one that is gone is no error.
    ///
    /// # Errors
    /// [`ProviderError::Terminal`] when the instance carries another key: it is not ours to delete.
    async fn delete(
        &self,
        account: &Account,
        id: &str,
        instance_key: &str,
    ) -> Result<(), ProviderError>;
}

impl From<&ProviderAccount> for Account {
    fn from(account: &ProviderAccount) -> Self {
        Self {
            name: account.name_any(),
            provider: account.spec.provider.clone(),
            region: account.spec.region.clone().unwrap_or_default(),
            endpoint: account.spec.endpoint.clone(),
            quotas: account.spec.quotas.clone(),
            credentials: None,
        }
    }
}

/// What settings say of the image that instances boot from.
#[derive(Clone, Debug, PartialEq)]
pub enum BootImage {
    /// This one.
    Named(String),
    /// The one that this stands for: [`Provider::resolve`] puts it in. Settings of one account and version with the same stand for the same.
    Alias(Value),
    /// Nothing.
    Unsaid,
}

/// What is missing to boot this version; `None` where nothing is.
///
/// # Errors
/// That the provider cannot say, in words.
pub async fn lacks_image(
    provider: &dyn Provider,
    account: &Account,
    version: &str,
    config: &Value,
) -> Result<Option<ConfigError>, String> {
    let asked = provider.missing_image(account, version, config).await;
    asked.map_err(|error| format!("the provider cannot say whether there is an image: {error}"))
}

/// What is wrong with a `providerConfig` by its schema, unknown fields included.
pub fn config_errors(schemas: &[ConfigSchema], config: &Value) -> Vec<ConfigError> {
    let error = |field: &str, message: String| ConfigError {
        field: field.to_owned(),
        message,
    };
    let (version, kind) = (
        config["apiVersion"].as_str().unwrap_or_default(),
        config["kind"].as_str().unwrap_or_default(),
    );
    let Some(schema) = schemas
        .iter()
        .find(|s| s.api_version == version && s.kind == kind)
    else {
        let known: Vec<_> = schemas
            .iter()
            .map(|s| format!("{} {}", s.api_version, s.kind))
            .collect();
        let message = format!("{version:?} {kind:?} is none of {}", known.join(", "));
        return vec![error("kind", message)];
    };
    let compiled = match Schema::from_openapi(&schema.schema) {
        Ok(compiled) => compiled,
        Err(errors) => {
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            return vec![error(
                "kind",
                format!("the schema of {kind} is wrong: {}", texts.join("; ")),
            )];
        }
    };
    let mut value = config.clone();
    let mut errors: Vec<_> = prune(&compiled, &mut value)
        .iter()
        .map(|path| error(path, format!("{kind} has no such field")))
        .collect();
    errors.extend(
        validate(&compiled, &value, None)
            .into_iter()
            .map(|e| error(&e.field, e.message)),
    );
    errors
}
