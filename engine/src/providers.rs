//! The providers that this program was built with.

use std::sync::Arc;

use fleetwright_providers::{ConfigSchema, Provider, Registry};

/// All of them; the simulated cloud is one that runs, or its stand-in.
pub(crate) fn registry(simulated: Arc<dyn Provider>) -> Registry {
    Registry::new([simulated])
}

/// The kinds of `providerConfig` that they understand.
pub(crate) fn schemas() -> Vec<ConfigSchema> {
    registry(crate::cloud::none().provider).schemas()
}
