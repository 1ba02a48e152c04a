//! The providers that this program was built with.

use std::sync::Arc;

use fleetwright_providers::{ConfigSchema, Provider, Registry};

/// All of them; the simulated cloud is one that runs, or its stand-in.
#[cfg_attr(
    not(feature = "aws"),
    expect(unused_variables, reason = "real providers work for one installation")
)]
pub(crate) fn registry(simulated: Arc<dyn Provider>, installation: &str) -> Registry {
    Registry::new([
        simulated,
        #[cfg(feature = "aws")]
        Arc::new(fleetwright_provider_aws::Aws::new(installation)),
    ])
}

/// The kinds of `providerConfig` that they understand.
pub(crate) fn schemas() -> Vec<ConfigSchema> {
    registry(crate::cloud::none().provider, "").schemas()
}
