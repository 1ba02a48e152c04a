//! What happens in a cloud though no provider's call asked for it: instances that vanish, that are there twice, that people change.

use fleetwright_providers::{Instance, ProviderError};
use fleetwright_schema::patch::merge;
use fleetwright_store::Store;
use serde_json::{Map, Value};

use crate::{cloud::Cloud, config, instance::SimInstance, state::Due};

/// What people may change of an instance.
const BY_HAND: [&str; 5] = ["instanceType", "image", "network", "securityGroups", "tags"];

impl Cloud {
    /// All instances, in the order of their ids.
    pub fn instances(&self) -> Vec<Instance> {
        let state = self.0.state.lock();
        state.instances.values().map(SimInstance::show).collect()
    }

    /// An instance vanishes, as if its host had burnt down; gives whether there was one of this id. Its node stays, and is heard
    /// of no more.
    pub async fn lose(&self, id: &str) -> bool {
        let Some(instance) = self.0.state.lock().instances.get(id).cloned() else {
            return false;
        };
        if let Err(error) = self.0.clusters.leave(self, &instance).await {
            tracing::warn!(instance = %id, %error, "the node of a lost instance cannot end");
        }
        self.remove(&instance).await;
        true
    }

    /// Another instance with all tags of this one appears, as from a restored backup; gives its id, where there was one to copy.
    pub async fn duplicate(&self, id: &str) -> Option<String> {
        let copy = {
            let mut state = self.0.state.lock();
            let original = state.instances.get(id).cloned()?;
            let number = state.next;
            state.next += 1;
            let now = self.now();
            let copy = SimInstance {
                id: format!("i-{number:08x}"),
                number,
                created: now,
                due: now,
                mute: true,
                ..original.clone()
            };
            state.insert(copy.clone());
            // The key goes on to mean the instance that it was given for.
            state
                .by_key
                .insert(original.order.owner.instance_key, original.id);
            copy
        };
        self.persist(&copy.id).await.ok();
        self.schedule(copy.due, Due::Instance(copy.id.clone()));
        Some(copy.id)
    }

    /// Somebody changes an instance by hand, past whoever made it: `change` is a JSON Merge Patch of its settings. What they were is
    /// not remembered.
    ///
    /// # Errors
    /// There is no such instance, or none can have such settings.
    pub async fn alter(
        &self,
        id: &str,
        change: &Map<String, Value>,
    ) -> Result<Instance, ProviderError> {
        if let Some(field) = change.keys().find(|k| !BY_HAND.contains(&k.as_str())) {
            return Err(ProviderError::Terminal {
                message: format!(
                    "{field}: nobody changes that by hand, only {}",
                    BY_HAND.join(", ")
                ),
            });
        }
        let shown = {
            let mut state = self.0.state.lock();
            let instance = state.instances.get_mut(id);
            let instance = instance.ok_or_else(|| ProviderError::NotFound {
                message: format!("there is no instance {id}"),
            })?;
            let mut config = instance.order.config.clone();
            merge(&mut config, &Value::Object(change.clone()));
            config::check_machine(&config)?;
            instance.order.config = config;
            instance.show()
        };
        self.persist(id).await?;
        Ok(shown)
    }

    /// The objects of a cluster that serves, for who looks on from outside.
    pub fn objects(&self, key: &str) -> Option<Store> {
        Some(self.0.clusters.get(key)?.objects())
    }
}
