//! What EC2 is asked for when an instance is made.

use aws_sdk_ec2::{
    operation::run_instances::builders::RunInstancesFluentBuilder,
    types::{
        BlockDeviceMapping, CapacityReservationSpecification, CapacityReservationTarget,
        CreditSpecificationRequest, EbsBlockDevice, HttpTokensState,
        IamInstanceProfileSpecification, InstanceInterruptionBehavior,
        InstanceMarketOptionsRequest, InstanceMetadataEndpointState,
        InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification, InstanceType,
        MarketType, Placement, ResourceType, SpotInstanceType, SpotMarketOptions, TagSpecification,
        Tenancy, VolumeType,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use fleetwright_api::names;
use fleetwright_providers::{CreateInstance, ProviderError};

use crate::{
    clients::Clients,
    config::{MachineConfig, Volume},
    instance::tag_list,
    tags::{self, Tags},
};

/// Most bytes of user data.
pub(crate) const USER_DATA_LIMIT: usize = 16_384;

/// What tells AWS that a call repeats an earlier one.
fn client_token(instance_key: &str) -> String {
    names::short_hash(["client-token", instance_key], 64)
}

/// All tags of a new instance and its volumes.
fn all_tags(order: &CreateInstance, config: &MachineConfig) -> Tags {
    let mut all = tags::of_user(&config.tags);
    all.extend(tags::of_owner(&order.owner));
    all.insert(tags::CONFIG_DIGEST.into(), order.config_digest.clone());
    all.insert(tags::VERSION.into(), order.version.clone());
    all
}

fn volume(device: &str, volume: &Volume) -> BlockDeviceMapping {
    let disk = EbsBlockDevice::builder()
        .volume_size(volume.size_gib)
        .volume_type(VolumeType::from(volume.kind.as_str()))
        .set_iops(volume.iops)
        .set_throughput(volume.throughput)
        .encrypted(volume.encrypted)
        .set_kms_key_id(volume.kms_key.clone())
        .delete_on_termination(true)
        .build();
    BlockDeviceMapping::builder()
        .device_name(device)
        .ebs(disk)
        .build()
}

fn profile(name: &str) -> IamInstanceProfileSpecification {
    let builder = IamInstanceProfileSpecification::builder();
    if name.starts_with("arn:") {
        builder.arn(name).build()
    } else {
        builder.name(name).build()
    }
}

fn spot(max_price: Option<&String>) -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .set_max_price(max_price.cloned())
        .build();
    InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .spot_options(options)
        .build()
}

/// The call that makes the instance: the same order gives the same call, as AWS demands of calls with the same client token.
///
/// # Errors
/// The order cannot be fulfilled.
pub(crate) fn call(
    clients: &Clients,
    order: &CreateInstance,
    config: &MachineConfig,
    image: &str,
    root_device: Option<&str>,
) -> Result<RunInstancesFluentBuilder, ProviderError> {
    let owner = &order.owner;
    let tags = tag_list(&all_tags(order, config));
    let tagged = |kind: ResourceType| {
        TagSpecification::builder()
            .resource_type(kind)
            .set_tags(Some(tags.clone()))
            .build()
    };
    let metadata = &config.metadata_options;
    let metadata = InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::from(metadata.http_tokens.as_str()))
        .http_put_response_hop_limit(metadata.http_put_response_hop_limit)
        .build();
    let mut call = clients
        .ec2
        .run_instances()
        .client_token(client_token(&owner.instance_key))
        .min_count(1)
        .max_count(1)
        .image_id(image)
        .instance_type(InstanceType::from(config.instance_type.as_str()))
        .tag_specifications(tagged(ResourceType::Instance))
        .tag_specifications(tagged(ResourceType::Volume))
        .metadata_options(metadata)
        .set_key_name(config.key_name.clone())
        .set_ebs_optimized(config.ebs_optimized)
        .iam_instance_profile(profile(&config.iam_instance_profile));

    let domain = order.failure_domain.as_deref().filter(|d| !d.is_empty());
    let subnet = config.subnet(domain, &owner.machine, &owner.instance_key)?;
    // A zone is asked for by a subnet where there are any.
    let zone = domain.filter(|_| subnet.is_none()).map(str::to_owned);
    let (tenancy, group) = (&config.tenancy, &config.placement_group);
    if zone.is_some() || tenancy.is_some() || group.is_some() {
        let placement = Placement::builder()
            .set_availability_zone(zone)
            .set_tenancy(tenancy.as_deref().map(Tenancy::from))
            .set_group_name(group.clone())
            .build();
        call = call.placement(placement);
    }
    let subnet = subnet.map(|s| s.id.clone());
    let groups = config.security_groups.as_ref();
    let groups = groups.map(|groups| groups.iter().cloned().collect::<Vec<_>>());
    call = match config.public_ip {
        None => call.set_subnet_id(subnet).set_security_group_ids(groups),
        Some(public) => call.network_interfaces(
            InstanceNetworkInterfaceSpecification::builder()
                .device_index(0)
                .associate_public_ip_address(public)
                .delete_on_termination(true)
                .set_subnet_id(subnet)
                .set_groups(groups)
                .build(),
        ),
    };

    if let (Some(disk), Some(device)) = (&config.root_volume, root_device) {
        call = call.block_device_mappings(volume(device, disk));
    }
    for disk in &config.volumes {
        let device = disk.device_name.as_deref().unwrap_or_default();
        call = call.block_device_mappings(volume(device, disk));
    }
    if let Some(own) = &config.spot {
        call = call.instance_market_options(spot(own.max_price.as_ref()));
    }
    if let Some(credits) = &config.cpu_credits {
        let credits = CreditSpecificationRequest::builder()
            .cpu_credits(credits)
            .build();
        call = call.credit_specification(credits);
    }
    if let Some(reservation) = &config.capacity_reservation {
        let target = CapacityReservationTarget::builder()
            .capacity_reservation_id(reservation)
            .build();
        let reservation = CapacityReservationSpecification::builder()
            .capacity_reservation_target(target)
            .build();
        call = call.capacity_reservation_specification(reservation);
    }
    if let Some(data) = &order.user_data {
        let bytes = data.expose().as_bytes();
        if bytes.len() > USER_DATA_LIMIT {
            return Err(ProviderError::Terminal {
                message: format!(
                    "user data of {} bytes: AWS takes {USER_DATA_LIMIT}",
                    bytes.len()
                ),
            });
        }
        call = call.user_data(STANDARD.encode(bytes));
    }
    Ok(call)
}
