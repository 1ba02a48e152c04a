//! What machines become nodes by: a Secret beside the order, which whoever makes the machine reads.

use async_trait::async_trait;
use fleetwright_api::secret::SecretText;
use fleetwright_providers::{
    Account, Bootstrap, ControlPlaneEndpoint, Infrastructure, InfrastructureOrder, NodeId,
    Ownership, ProviderError,
};
use kube::api::DeleteParams;
use serde_json::Value;

use crate::{
    config::{self, CLUSTER_CONFIG, USUAL_OS},
    errors::{Call, is, told},
    order::{place, provider_id, terminal},
    provider::External,
};

/// Most bytes of user data: half of what a Secret holds.
const LIMIT: usize = 512 * 1024;
/// Port of API servers, where the settings name none.
const API_PORT: u16 = 6443;

#[async_trait]
impl Bootstrap for External {
    fn operating_system<'a>(&self, config: &'a Value) -> &'a str {
        config["os"].as_str().unwrap_or(USUAL_OS)
    }

    fn waits_for_cloud_controller(&self, _: Option<&Value>) -> bool {
        false
    }

    fn user_data_limit(&self) -> usize {
        LIMIT
    }

    fn node_id(&self, owner: &Ownership) -> NodeId {
        // An order without a place is refused before anybody reads its user data.
        place(owner).map_or(NodeId::ByController, |(namespace, name)| {
            NodeId::Known(provider_id(namespace, &name))
        })
    }

    fn made_by_others(&self) -> bool {
        true
    }

    async fn keep(
        &self,
        _: &Account,
        _: &Ownership,
        _: &Value,
        payload: &SecretText,
    ) -> Result<String, ProviderError> {
        let size = payload.expose().len();
        terminal(format!(
            "{size} bytes are more than the {LIMIT} of user data that fit a Secret"
        ))
    }

    async fn discard(&self, _: &Account, owner: &Ownership) -> Result<(), ProviderError> {
        let (namespace, name) = place(owner)?;
        let gone = self.secrets(namespace);
        match gone.delete(&name, &DeleteParams::default()).await {
            Err(error) if !is(&error, 404) => {
                Err(told(Call::Writes, "deleting its user data", error))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Infrastructure for External {
    async fn ensure(
        &self,
        _: &Account,
        order: &InfrastructureOrder,
    ) -> Result<Option<ControlPlaneEndpoint>, ProviderError> {
        if order.config.is_null() {
            return terminal(format!(
                "nobody here makes the way to the API: give the Cluster a providerConfig of kind {CLUSTER_CONFIG} with its controlPlaneEndpoint"
            ));
        }
        config::check(CLUSTER_CONFIG, &order.config)?;
        let endpoint = &order.config["controlPlaneEndpoint"];
        let port = endpoint["port"].as_u64().and_then(|p| p.try_into().ok());
        Ok(Some(ControlPlaneEndpoint {
            host: endpoint["host"].as_str().unwrap_or_default().to_owned(),
            port: port.unwrap_or(API_PORT),
        }))
    }

    async fn remove(&self, _: &Account, _: &InfrastructureOrder) -> Result<bool, ProviderError> {
        Ok(true)
    }
}
