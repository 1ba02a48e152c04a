//! Instances as the simulated cloud keeps them.

use std::sync::Arc;

use fleetwright_api::machine::MachineAddress;
use fleetwright_providers::{CreateInstance, Instance, InstanceState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{self, DEFAULT_BOOT_SECONDS, DEFAULT_IMAGE, type_of};

/// An instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimInstance {
    pub(crate) id: String,
    pub(crate) number: u64,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) order: CreateInstance,
    pub(crate) state: InstanceState,
    pub(crate) created: Timestamp,
    /// When it is booted, or, while it is being deleted, gone.
    pub(crate) due: Timestamp,
    /// Its node never registers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) mute: bool,
}

impl SimInstance {
    pub(crate) fn boot_seconds(order: &CreateInstance) -> f64 {
        order.config["bootSeconds"]
            .as_f64()
            .unwrap_or(DEFAULT_BOOT_SECONDS)
            .clamp(0.0, 3600.0)
    }

    pub(crate) fn provider_id(&self) -> String {
        format!("sim:///{}/{}", self.region, self.id)
    }

    pub(crate) fn address(&self) -> String {
        let n = self.number;
        format!("10.{}.{}.{}", (n >> 16) & 255, (n >> 8) & 255, n & 255)
    }

    pub(crate) fn image(&self) -> String {
        let image = self.order.config["image"].as_str();
        image.unwrap_or(DEFAULT_IMAGE).to_owned()
    }

    /// What the provider shows of it.
    pub(crate) fn show(&self) -> Instance {
        Instance {
            id: self.id.clone(),
            provider_id: self.provider_id(),
            owner: Some(self.order.owner.clone()),
            state: self.state,
            reason: None,
            addresses: vec![MachineAddress {
                kind: "InternalIP".into(),
                address: self.address(),
            }],
            failure_domain: Some(
                self.order
                    .failure_domain
                    .clone()
                    .unwrap_or_else(|| format!("{}-a", self.region)),
            ),
            instance_type: type_of(&self.order.config).name.to_owned(),
            image: self.image(),
            settings: Arc::new(
                self.order
                    .config
                    .as_object()
                    .map(config::settings)
                    .unwrap_or_default(),
            ),
            config_digest: self.order.config_digest.clone(),
            version: self.order.version.clone(),
            created: self.created,
        }
    }
}
