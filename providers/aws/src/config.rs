//! Settings of machines and clusters as values.

use std::collections::{BTreeMap, BTreeSet};

use fleetwright_api::drift::InstanceSettings;
use fleetwright_providers::{ProviderError, config_errors};
use fleetwright_schema::{Schema, default};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::schema::schemas;
pub use crate::schema::{API_VERSION, CLUSTER_CONFIG, MACHINE_CONFIG};

/// Name of the provider, as `ProviderAccount.spec.provider` has it.
pub const PROVIDER: &str = "aws";

/// Settings of a machine; what the schema says of each field is not said again.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineConfig {
    pub(crate) instance_type: String,
    pub(crate) image: Option<String>,
    pub(crate) os: String,
    pub(crate) image_lookup: Option<ImageLookup>,
    #[serde(default)]
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) security_groups: Option<BTreeSet<String>>,
    pub(crate) root_volume: Option<Volume>,
    #[serde(default)]
    pub(crate) volumes: Vec<Volume>,
    pub(crate) iam_instance_profile: String,
    pub(crate) key_name: Option<String>,
    pub(crate) metadata_options: MetadataOptions,
    pub(crate) spot: Option<Spot>,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
    #[serde(rename = "publicIP")]
    pub(crate) public_ip: Option<bool>,
    pub(crate) tenancy: Option<String>,
    pub(crate) placement_group: Option<String>,
    pub(crate) ebs_optimized: Option<bool>,
    pub(crate) cpu_credits: Option<String>,
    pub(crate) capacity_reservation: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct ImageLookup {
    pub(crate) architecture: String,
    pub(crate) parameter: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) owner: Option<String>,
}

impl Default for ImageLookup {
    fn default() -> Self {
        Self {
            architecture: "amd64".into(),
            parameter: None,
            name: None,
            owner: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subnet {
    pub(crate) id: String,
    pub(crate) availability_zone: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) device_name: Option<String>,
    #[serde(rename = "sizeGiB")]
    pub(crate) size_gib: i32,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) iops: Option<i32>,
    pub(crate) throughput: Option<i32>,
    pub(crate) encrypted: bool,
    pub(crate) kms_key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetadataOptions {
    pub(crate) http_tokens: String,
    pub(crate) http_put_response_hop_limit: i32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spot {
    pub(crate) max_price: Option<String>,
}

/// Settings of a cluster.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterConfig {
    pub(crate) control_plane_endpoint: Option<Endpoint>,
    pub(crate) load_balancer: Option<LoadBalancer>,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoadBalancer {
    pub(crate) scheme: String,
    pub(crate) subnets: BTreeSet<String>,
    pub(crate) security_groups: Option<BTreeSet<String>>,
}

/// Reads settings of this kind, defaults filled in.
///
/// # Errors
/// They are of another kind, or their schema refuses them.
pub(crate) fn read<T: DeserializeOwned>(
    kind: &str,
    what: &str,
    config: &Value,
) -> Result<T, ProviderError> {
    let terminal = |message: String| ProviderError::Terminal { message };
    if config["kind"] != kind {
        let found = &config["kind"];
        return Err(terminal(format!(
            "kind: {what} is made from {kind}, not {found}"
        )));
    }
    let schemas = schemas();
    if let Some(error) = config_errors(&schemas, config).first() {
        return Err(terminal(format!("{}: {}", error.field, error.message)));
    }
    let mut config = config.clone();
    let compiled = schemas.iter().find(|s| s.kind == kind);
    if let Some(Ok(compiled)) = compiled.map(|s| Schema::from_openapi(&s.schema)) {
        default::apply(&compiled, &mut config);
    }
    serde_json::from_value(config).map_err(|e| terminal(format!("{kind}: {e}")))
}

/// The settings of a machine.
///
/// # Errors
/// They are not right.
pub(crate) fn machine(config: &Value) -> Result<MachineConfig, ProviderError> {
    read(MACHINE_CONFIG, "a machine", config)
}

/// The settings of a cluster.
///
/// # Errors
/// They are not right.
pub(crate) fn cluster(config: &Value) -> Result<ClusterConfig, ProviderError> {
    read(CLUSTER_CONFIG, "a cluster", config)
}

fn objects<'a>(
    config: &'a Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    let list = config.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

/// Availability zones of the subnets, in their order.
pub(crate) fn zones(config: &Map<String, Value>) -> Vec<String> {
    let mut zones: Vec<String> = Vec::new();
    for subnet in objects(config, "subnets") {
        let zone = subnet.get("availabilityZone").and_then(Value::as_str);
        if let Some(zone) = zone.filter(|zone| !zones.iter().any(|z| z == zone)) {
            zones.push(zone.to_owned());
        }
    }
    zones
}

/// What an instance with these settings shows of them. Which of several subnets it is in is not in them.
pub(crate) fn settings(config: &Map<String, Value>) -> InstanceSettings {
    let mut subnets = objects(config, "subnets").filter_map(|s| s.get("id")?.as_str());
    let network = subnets.next().filter(|_| subnets.next().is_none());
    let groups = config.get("securityGroups").and_then(Value::as_array);
    let tags = config.get("tags").and_then(Value::as_object);
    let tags = tags.into_iter().flatten();
    InstanceSettings {
        network: network.map(str::to_owned),
        security_groups: groups.map(|groups| {
            let ids = groups.iter().filter_map(Value::as_str);
            ids.map(str::to_owned).collect()
        }),
        tags: tags
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    }
}

/// Which one in a row a machine is: the ordinal that its name ends in, so that machines made one after the other are spread evenly; a hash
/// of its key where it ends in none.
fn turn(machine: &str, instance_key: &str) -> usize {
    let ordinal = machine.rsplit('-').next().and_then(|end| end.parse().ok());
    ordinal.unwrap_or_else(|| {
        instance_key.bytes().fold(0_usize, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(byte))
        })
    })
}

impl MachineConfig {
    /// The subnet of a machine, if the settings name any: of its failure domain, or of the availability zone whose turn it is. Asking
    /// again asks for the same, in another process too.
    ///
    /// # Errors
    /// None of them is in the failure domain.
    pub(crate) fn subnet(
        &self,
        failure_domain: Option<&str>,
        machine: &str,
        instance_key: &str,
    ) -> Result<Option<&Subnet>, ProviderError> {
        let fits = |s: &&Subnet| failure_domain.is_none_or(|zone| s.availability_zone == zone);
        let fitting: Vec<&Subnet> = self.subnets.iter().filter(fits).collect();
        if let (Some(zone), false, true) =
            (failure_domain, self.subnets.is_empty(), fitting.is_empty())
        {
            return Err(ProviderError::Terminal {
                message: format!("subnets: none is in availability zone {zone}"),
            });
        }
        let mut zones: Vec<(&str, Vec<&Subnet>)> = Vec::new();
        for subnet in fitting {
            match zones
                .iter_mut()
                .find(|(zone, _)| *zone == subnet.availability_zone)
            {
                Some((_, subnets)) => subnets.push(subnet),
                None => zones.push((&subnet.availability_zone, vec![subnet])),
            }
        }
        let (turn, count) = (turn(machine, instance_key), zones.len().max(1));
        let zone = zones.get(turn % count).map(|(_, subnets)| subnets);
        Ok(zone.and_then(|all| all.get(turn / count % all.len()).copied()))
    }
}

#[cfg(test)]
mod tests;
