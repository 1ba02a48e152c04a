//! The provider of an account, for whoever asks it for more than machines.

use std::sync::Arc;

use fleetwright_core::managed::Trouble;
use fleetwright_providers::{Account, Provider, ProviderError, managed::ManagedOwner};

use super::{Error, Shared, machine::account_provider};
use crate::provided::trouble;

/// Whose a managed thing of a cluster is; `pool` is empty for a control plane.
pub(super) fn owner(shared: &Shared, namespace: &str, cluster: &str, pool: &str) -> ManagedOwner {
    ManagedOwner {
        installation: shared.context.installation.clone(),
        cluster_key: shared.cluster_ref(namespace, cluster).key,
        cluster: format!("{namespace}/{cluster}"),
        pool: pool.to_owned(),
    }
}

/// The provider and the account of this name.
pub(super) fn find(
    shared: &Shared,
    namespace: &str,
    account: &str,
) -> Result<(Arc<dyn Provider>, Account), Trouble> {
    account_provider(shared, namespace, account).map_err(|error| match error {
        Error::Provider(error) => trouble(&error),
        error => {
            let message = error.to_string();
            let terminal = trouble(&ProviderError::Terminal { message });
            Trouble {
                message: error.to_string(),
                ..terminal
            }
        }
    })
}

/// That a provider has no such half.
pub(super) fn lacks(provider: &dyn Provider, what: &str) -> Trouble {
    let message = format!("provider {} runs no {what}", provider.name());
    trouble(&ProviderError::Terminal { message })
}
