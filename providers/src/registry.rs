//! The providers that this process knows, by name.

use std::{collections::BTreeMap, sync::Arc};

use crate::contract::{ConfigSchema, Provider};

/// Providers by name.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<String, Arc<dyn Provider>>);

impl Registry {
    /// A registry of these providers; of two with one name the later counts.
    pub fn new(providers: impl IntoIterator<Item = Arc<dyn Provider>>) -> Self {
        Self(
            providers
                .into_iter()
                .map(|p| (p.name().to_owned(), p))
                .collect(),
        )
    }

    /// The same providers, each as `wrap` makes it.
    #[must_use]
    pub fn map(&self, wrap: impl Fn(Arc<dyn Provider>) -> Arc<dyn Provider>) -> Self {
        Self::new(self.0.values().cloned().map(wrap))
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.0.get(name)
    }

    /// Names of all providers, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The provider that understands this kind of `providerConfig`, with its schema.
    pub fn of_config(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Option<(&Arc<dyn Provider>, ConfigSchema)> {
        self.0.values().find_map(|p| {
            let schema = p
                .schemas()
                .into_iter()
                .find(|s| s.api_version == api_version && s.kind == kind)?;
            Some((p, schema))
        })
    }

    /// All kinds of `providerConfig` of all providers.
    pub fn schemas(&self) -> Vec<ConfigSchema> {
        self.0.values().flat_map(|p| p.schemas()).collect()
    }
}
