//! The providers that this program was built with.

use std::sync::Arc;

use fleetwright_provider_external::External;
use fleetwright_providers::{ConfigSchema, Provider, Registry};
use kube::Client;

/// All of them; the simulated cloud is one that runs, or its stand-in, and `client` leads to the API that orders are objects of.
pub(crate) fn registry(
    simulated: Arc<dyn Provider>,
    client: &Client,
    installation: &str,
) -> Registry {
    Registry::new([
        simulated,
        Arc::new(External::new(installation, client.clone())),
        #[cfg(feature = "aws")]
        Arc::new(fleetwright_provider_aws::Aws::new(installation)),
    ])
}

/// The kinds of `providerConfig` that they understand.
pub(crate) fn schemas() -> Vec<ConfigSchema> {
    let mut all = crate::cloud::none().provider.schemas();
    all.extend(fleetwright_provider_external::schemas());
    #[cfg(feature = "aws")]
    all.extend(fleetwright_provider_aws::schemas());
    all
}
