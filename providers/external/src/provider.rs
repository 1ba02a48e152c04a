//! Orders as a provider.

use async_trait::async_trait;
use fleetwright_api::{
    ExternalInstance,
    meta::{LABEL_ACCOUNT, LABEL_CLUSTER_KEY},
    secret::SecretText,
};
use fleetwright_providers::{
    Account, Bootstrap, ConfigSchema, CreateInstance, Infrastructure, Instance, ListScope,
    Provider, ProviderError, UpdateInstance,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Map, Value, json};

use crate::{
    config::{self, IN_PLACE, MACHINE_CONFIG, PROVIDER, schemas},
    errors::{Call, is, told},
    order::{self, place, show, terminal},
};

const FIELD_MANAGER: &str = "fleetwright-external";
/// The one quota of an account that is counted here.
const INSTANCES: &str = "instances";
/// Longest name of an account: orders carry it as a label.
const LONGEST_ACCOUNT: usize = 63;
/// How often an order is looked at anew that somebody else changes meanwhile.
const TRIES: usize = 5;

/// Whoever makes machines, over the API that orders are objects of.
pub struct External {
    installation: String,
    client: Client,
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

/// Refuses accounts that mean something which there is not.
fn check(account: &Account) -> Result<(), ProviderError> {
    let name = &account.name;
    if name.len() > LONGEST_ACCOUNT {
        return terminal(format!(
            "account {name}: a name has at most {LONGEST_ACCOUNT} characters here"
        ));
    }
    if account.endpoint.is_some() || account.credentials.is_some() {
        return terminal(format!(
            "account {name} has an endpoint or credentials: orders are objects of the engine's own API, and need neither"
        ));
    }
    match account.quotas.keys().find(|q| *q != INSTANCES) {
        Some(other) => terminal(format!(
            "account {name} has a quota of {other}: only {INSTANCES} are counted here"
        )),
        None => Ok(()),
    }
}

impl External {
    /// The provider for the installation of this name.
    pub fn new(installation: impl Into<String>, client: Client) -> Self {
        Self {
            installation: installation.into(),
            client,
        }
    }

    fn orders(&self, namespace: &str) -> Api<ExternalInstance> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn is_ours(&self, account: &Account, order: &ExternalInstance) -> bool {
        let spec = &order.spec;
        spec.account == account.name && spec.installation == self.installation
    }

    /// The order with this id; `None` where there is none of the account's.
    async fn look(
        &self,
        account: &Account,
        id: &str,
    ) -> Result<Option<ExternalInstance>, ProviderError> {
        check(account)?;
        let parts = id.split_once('/').filter(|(_, name)| !name.contains('/'));
        let Some((namespace, name)) = parts else {
            return Ok(None);
        };
        let found = self.orders(namespace).get_opt(name).await;
        let found = found.map_err(|e| told(Call::Reads, "reading the order", e))?;
        Ok(found.filter(|order| self.is_ours(account, order)))
    }

    /// The account's orders in the scope, by id.
    async fn all(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<ExternalInstance>, ProviderError> {
        check(account)?;
        let mut labels = format!("{LABEL_ACCOUNT}={}", account.name);
        if let ListScope::Cluster(key) = scope {
            labels.push_str(&format!(",{LABEL_CLUSTER_KEY}={key}"));
        }
        let orders = Api::<ExternalInstance>::all(self.client.clone());
        let listed = orders.list(&ListParams::default().labels(&labels)).await;
        let listed = listed.map_err(|e| told(Call::Reads, "listing orders", e))?;
        let mut orders = listed.items;
        orders.retain(|order| self.is_ours(account, order));
        orders.sort_by_key(|order| (order.namespace(), order.name_any()));
        Ok(orders)
    }

    /// Refuses a new order where the account's own limit leaves no room for it.
    async fn check_quota(&self, account: &Account) -> Result<(), ProviderError> {
        let Some(limit) = account.quotas.get(INSTANCES) else {
            return Ok(());
        };
        let used = self.all(account, &ListScope::Account).await?.len();
        if i64::try_from(used).is_ok_and(|used| used < *limit) {
            return Ok(());
        }
        let name = &account.name;
        Err(ProviderError::Quota {
            message: format!(
                "account {name} has {used} of {limit} {INSTANCES}: raise ProviderAccount.spec.quotas.{INSTANCES}, or give some back"
            ),
        })
    }

    /// Writes what the machine is to run at its first boot, in place of what was written before.
    async fn give(
        &self,
        namespace: &str,
        name: &str,
        user_data: Option<&SecretText>,
        order: Option<&ExternalInstance>,
    ) -> Result<(), ProviderError> {
        let Some(user_data) = user_data else {
            return Ok(());
        };
        let secret = order::secret(name, user_data.expose(), order);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.secrets(namespace);
        let written = written.patch(name, &params, &Patch::Apply(secret)).await;
        // The API's words may repeat what was to be written.
        written
            .map(drop)
            .map_err(|error| match told(Call::Writes, "", error) {
                ProviderError::Terminal { .. } => ProviderError::Terminal {
                    message: "the API refuses the Secret with the user data".into(),
                },
                other => other,
            })
    }

    async fn make(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<ExternalInstance, ProviderError> {
        let (namespace, name) = place(&order.owner)?;
        let (orders, key) = (self.orders(namespace), &order.owner.instance_key);
        let look = async || {
            let found = orders.get_opt(&name).await;
            let found = found.map_err(|e| told(Call::Reads, "reading the order", e))?;
            match found {
                Some(found)
                    if !self.is_ours(account, &found) || found.spec.instance_key != *key =>
                {
                    terminal(format!("ExternalInstance {namespace}/{name} is another's"))
                }
                found => Ok(found),
            }
        };
        let user_data = order.user_data.as_ref();
        if let Some(found) = look().await? {
            if found.metadata.deletion_timestamp.is_none() {
                self.give(namespace, &name, user_data, Some(&found)).await?;
            }
            return Ok(found);
        }
        self.check_quota(account).await?;
        // Before the order: whoever sees that sees this.
        self.give(namespace, &name, user_data, None).await?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let made = match orders
            .create(&params, &order::object(account, order)?)
            .await
        {
            Err(error) if is(&error, 409) => {
                look().await?.ok_or_else(|| ProviderError::Unavailable {
                    message: format!("ExternalInstance {namespace}/{name} comes and goes"),
                })?
            }
            made => made.map_err(|e| told(Call::Writes, "placing the order", e))?,
        };
        self.give(namespace, &name, user_data, Some(&made)).await?;
        Ok(made)
    }
}

/// What is written of a change: fields that change in place, whose the order is, and the digest.
fn change(account: &Account, found: &ExternalInstance, change: &UpdateInstance) -> Value {
    let mut spec = json!({"configDigest": change.config_digest});
    let before = found.spec.provider_config.settings().get(IN_PLACE);
    let before = before.and_then(Value::as_object).into_iter().flatten();
    // A merge leaves what it does not name.
    let mut tags: Map<String, Value> = before.map(|(k, _)| (k.clone(), Value::Null)).collect();
    tags.extend(
        change.config[IN_PLACE]
            .as_object()
            .cloned()
            .unwrap_or_default(),
    );
    spec["providerConfig"] = json!({IN_PLACE: tags});
    let owner = &change.owner;
    let mut metadata = json!({});
    if !owner.instance_key.is_empty() {
        metadata["labels"] = json!(order::labels(&account.name, owner));
        for (field, value) in [("pool", &owner.pool), ("set", &owner.set)] {
            spec[field] = json!(value);
        }
    }
    json!({"metadata": metadata, "spec": spec})
}

#[async_trait]
impl Provider for External {
    fn name(&self) -> &str {
        PROVIDER
    }

    fn schemas(&self) -> Vec<ConfigSchema> {
        schemas()
    }

    fn bootstrap(&self) -> Option<&dyn Bootstrap> {
        Some(self)
    }

    fn infrastructure(&self) -> Option<&dyn Infrastructure> {
        Some(self)
    }

    async fn create(
        &self,
        account: &Account,
        order: &CreateInstance,
    ) -> Result<Instance, ProviderError> {
        check(account)?;
        config::check(MACHINE_CONFIG, &order.config)?;
        let (theirs, ours) = (&order.owner.installation, &self.installation);
        if theirs != ours {
            return terminal(format!(
                "the order is of installation {theirs:?}, this is {ours:?}"
            ));
        }
        Ok(show(&self.make(account, order).await?))
    }

    async fn get(&self, account: &Account, id: &str) -> Result<Option<Instance>, ProviderError> {
        let found = self.look(account, id).await?;
        Ok(found.as_ref().map(show))
    }

    async fn list(
        &self,
        account: &Account,
        scope: &ListScope,
    ) -> Result<Vec<Instance>, ProviderError> {
        let all = self.all(account, scope).await?;
        Ok(all.iter().map(show).collect())
    }

    async fn update(
        &self,
        account: &Account,
        id: &str,
        update: &UpdateInstance,
    ) -> Result<Instance, ProviderError> {
        config::check(MACHINE_CONFIG, &update.config)?;
        let found = self.look(account, id).await?;
        let found = found.ok_or_else(|| ProviderError::NotFound {
            message: format!("account {} has no ExternalInstance {id}", account.name),
        })?;
        let key = &update.owner.instance_key;
        if !key.is_empty() && *key != found.spec.instance_key {
            return terminal(format!("ExternalInstance {id} carries another key"));
        }
        let patch = Patch::Merge(change(account, &found, update));
        let orders = self.orders(&found.namespace().unwrap_or_default());
        let written = orders.patch(&found.name_any(), &params(), &patch).await;
        let written = written.map_err(|e| told(Call::Writes, "changing the order", e))?;
        Ok(show(&written))
    }

    async fn delete(
        &self,
        account: &Account,
        id: &str,
        instance_key: &str,
    ) -> Result<(), ProviderError> {
        for _ in 0..TRIES {
            let Some(mut found) = self.look(account, id).await? else {
                return Ok(());
            };
            if instance_key.is_empty() || found.spec.instance_key != instance_key {
                return terminal(format!(
                    "ExternalInstance {id} carries another key: it stays"
                ));
            }
            if found.metadata.deletion_timestamp.is_some() {
                return Ok(());
            }
            let (orders, name) = (
                self.orders(&found.namespace().unwrap_or_default()),
                found.name_any(),
            );
            // Who takes the order up at this moment is not passed by: both writes are tied to what was seen.
            let finalizers = order::to_delete(&found);
            if found.finalizers() != finalizers {
                let metadata =
                    json!({"resourceVersion": found.resource_version(), "finalizers": finalizers});
                let patch = Patch::Merge(json!({"metadata": metadata}));
                match orders.patch(&name, &params(), &patch).await {
                    Err(error) if is(&error, 409) => continue,
                    Err(error) if is(&error, 404) => return Ok(()),
                    written => {
                        found =
                            written.map_err(|e| told(Call::Writes, "withdrawing the order", e))?;
                    }
                }
            }
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: found.uid(),
                resource_version: found.resource_version(),
            });
            match orders.delete(&name, &params).await {
                Err(error) if is(&error, 409) => {}
                Err(error) if is(&error, 404) => return Ok(()),
                gone => {
                    return gone
                        .map(drop)
                        .map_err(|e| told(Call::Writes, "deleting the order", e));
                }
            }
        }
        Err(ProviderError::Unavailable {
            message: format!("ExternalInstance {id} changes all the time"),
        })
    }
}
