//! A control plane that EKS runs: made, changed one update at a time, and taken away.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_eks::{
    Client,
    types::{
        AuthenticationMode, Cluster, ClusterStatus, CreateAccessConfigRequest, EncryptionConfig,
        KubernetesNetworkConfigRequest, LogSetup, LogType, Logging, Provider,
        UpdateAccessConfigRequest, VpcConfigRequest,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use fleetwright_providers::{
    ProviderError,
    managed::{ManagedControlPlaneOrder, ManagedControlPlaneState, ManagedOwner, ManagedPhase},
};
use jiff::Timestamp;

use super::{
    Ended, NOT_FOUND, all_tags, check_owner, client_token, cluster_name,
    config::{ControlPlaneConfig, control_plane},
    is_above, minor, retag, shown, sorted, terminal, updates,
};
use crate::errors::{self, code, reads, told, writes};

/// The cluster of this name; `None` where there is none.
pub(super) async fn describe(
    client: &Client,
    name: &str,
) -> Result<Option<Cluster>, ProviderError> {
    match client.describe_cluster().name(name).send().await {
        Ok(found) => errors::shown("DescribeCluster", found.cluster).map(Some),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(told(reads("DescribeCluster"), error)),
    }
}

/// Makes the control plane, or moves it one step on towards the order; shows it.
///
/// # Errors
/// What AWS refuses, or one of this name that is not the owner's.
pub(crate) async fn ensure(
    client: &Client,
    ended: &Ended,
    order: &ManagedControlPlaneOrder,
    now: Timestamp,
) -> Result<ManagedControlPlaneState, ProviderError> {
    let config = control_plane(&order.config)?;
    let (name, version) = (cluster_name(&order.owner), minor(&order.version)?);
    let Some(cluster) = describe(client, &name).await? else {
        let made = create(client, order, &config, &name, &version).await?;
        return Ok(state(&made, ManagedPhase::Creating, Some(&order.version)));
    };
    check_owner(&name, &sorted(cluster.tags()), &order.owner)?;
    let phase = match cluster.status() {
        Some(ClusterStatus::Active) => step(client, ended, order, &config, &cluster, now).await?,
        Some(ClusterStatus::Updating) => {
            let to = updates(client, ended, &name, None).await?.to;
            ManagedPhase::Updating(shown(to.as_deref(), Some(&order.version)))
        }
        Some(ClusterStatus::Deleting) => ManagedPhase::Deleting,
        Some(ClusterStatus::Failed) => ManagedPhase::Failed(issues(&cluster)),
        _ => ManagedPhase::Creating,
    };
    Ok(state(&cluster, phase, Some(&order.version)))
}

fn state(
    cluster: &Cluster,
    phase: ManagedPhase,
    ordered: Option<&str>,
) -> ManagedControlPlaneState {
    let authority = cluster.certificate_authority().and_then(|ca| ca.data());
    let authority = authority.and_then(|data| STANDARD.decode(data).ok());
    ManagedControlPlaneState {
        id: cluster.arn().unwrap_or_default().to_owned(),
        phase,
        version: shown(cluster.version(), ordered),
        endpoint: cluster.endpoint().map(str::to_owned),
        certificate_authority: authority.and_then(|pem| String::from_utf8(pem).ok()),
    }
}

fn issues(cluster: &Cluster) -> String {
    let issues = cluster.health().map(|health| health.issues());
    let words: Vec<&str> = issues
        .unwrap_or_default()
        .iter()
        .filter_map(|issue| issue.message())
        .collect();
    match words.is_empty() {
        true => "EKS says no more: look at the cluster there".to_owned(),
        false => words.join("; "),
    }
}

fn list(all: Option<&BTreeSet<String>>) -> Option<Vec<String>> {
    all.map(|all| all.iter().cloned().collect())
}

fn logging(wanted: &BTreeSet<String>) -> Logging {
    let all = LogType::values().iter().map(|name| (*name).to_owned());
    let (on, off): (Vec<String>, Vec<String>) = all.partition(|name| wanted.contains(name));
    let setup = |enabled: bool, names: Vec<String>| {
        let types: Vec<LogType> = names
            .iter()
            .map(|name| LogType::from(name.as_str()))
            .collect();
        let setup = LogSetup::builder().enabled(enabled).set_types(Some(types));
        (!names.is_empty()).then(|| setup.build())
    };
    let setups = [setup(true, on), setup(false, off)];
    let setups = setups.into_iter().flatten().collect();
    Logging::builder().set_cluster_logging(Some(setups)).build()
}

async fn create(
    client: &Client,
    order: &ManagedControlPlaneOrder,
    config: &ControlPlaneConfig,
    name: &str,
    version: &str,
) -> Result<Cluster, ProviderError> {
    let access = &config.endpoint_access;
    let vpc = VpcConfigRequest::builder()
        .set_subnet_ids(list(Some(&config.subnets)))
        .set_security_group_ids(list(config.security_groups.as_ref()))
        .endpoint_public_access(access.public)
        .endpoint_private_access(access.private)
        .set_public_access_cidrs(list(access.public_cidrs.as_ref()));
    let services = order.network.as_ref().and_then(|n| n.services.as_ref());
    let services = services.and_then(|services| services.cidr_blocks.first());
    let network = services.map(|cidr| {
        let request = KubernetesNetworkConfigRequest::builder();
        request.service_ipv4_cidr(cidr).build()
    });
    let encryption = config.encryption_key_arn.as_ref().map(|key| {
        let provider = Provider::builder().key_arn(key).build();
        vec![EncryptionConfig::builder().provider(provider).build()]
    });
    let mode = AuthenticationMode::from(config.authentication_mode.as_str());
    let tags: HashMap<String, String> = all_tags(&order.owner, &config.tags).into_iter().collect();
    let call = client
        .create_cluster()
        .name(name)
        .version(version)
        .role_arn(&config.role_arn)
        .resources_vpc_config(vpc.build())
        .set_kubernetes_network_config(network)
        .set_encryption_config(encryption)
        .logging(logging(&config.logging))
        .access_config(
            CreateAccessConfigRequest::builder()
                .authentication_mode(mode)
                .bootstrap_cluster_creator_admin_permissions(true)
                .build(),
        )
        .client_request_token(client_token(&order.owner, "control-plane"))
        .set_tags(Some(tags));
    let made = call.send().await;
    let made = made.map_err(|e| told(writes("CreateCluster"), e))?;
    made.cluster.ok_or_else(|| ProviderError::Ambiguous {
        message: "CreateCluster: the answer shows no cluster".into(),
    })
}

/// The next thing that differs from the order is changed: EKS takes one update at a time.
async fn step(
    client: &Client,
    ended: &Ended,
    order: &ManagedControlPlaneOrder,
    config: &ControlPlaneConfig,
    cluster: &Cluster,
    now: Timestamp,
) -> Result<ManagedPhase, ProviderError> {
    fixed(order, config, cluster)?;
    let name = cluster.name().unwrap_or_default();
    let wanted = all_tags(&order.owner, &config.tags);
    let arn = cluster.arn().unwrap_or_default();
    retag(client, arn, &sorted(cluster.tags()), &wanted).await?;
    let version = minor(&order.version)?;
    if is_above(&version, cluster.version().unwrap_or_default()) {
        let before = updates(client, ended, name, None).await?;
        if let Some(why) = before.failure(&version, now) {
            return Ok(ManagedPhase::Failed(why.to_owned()));
        }
        let call = client.update_cluster_version().name(name).version(&version);
        let sent = call.send().await;
        sent.map_err(|e| told(writes("UpdateClusterVersion"), e))?;
        return Ok(ManagedPhase::Updating(Some(order.version.clone())));
    }
    let call = client.update_cluster_config().name(name);
    let call = if let Some(vpc) = access(config, cluster).or_else(|| network(config, cluster)) {
        call.resources_vpc_config(vpc)
    } else if logs(cluster) != config.logging {
        call.logging(logging(&config.logging))
    } else if let Some(mode) = mode(config, cluster) {
        let request = UpdateAccessConfigRequest::builder();
        call.access_config(request.authentication_mode(mode).build())
    } else {
        return Ok(ManagedPhase::Active);
    };
    let sent = call.send().await;
    sent.map_err(|e| told(writes("UpdateClusterConfig"), e))?;
    Ok(ManagedPhase::Updating(None))
}

/// Refuses what EKS cannot change.
fn fixed(
    order: &ManagedControlPlaneOrder,
    config: &ControlPlaneConfig,
    cluster: &Cluster,
) -> Result<(), ProviderError> {
    let mut keys = cluster.encryption_config().iter();
    let key = keys.find_map(|c| c.provider()?.key_arn());
    let network = cluster.kubernetes_network_config();
    let services = network.and_then(|network| network.service_ipv4_cidr());
    let asked = order.network.as_ref().and_then(|n| n.services.as_ref());
    let asked = asked.and_then(|services| services.cidr_blocks.first());
    let wrong = if cluster
        .role_arn()
        .is_some_and(|role| role != config.role_arn)
    {
        Some(("roleARN", cluster.role_arn()))
    } else if key != config.encryption_key_arn.as_deref() {
        Some(("encryptionKeyARN", key))
    } else if asked.is_some_and(|asked| services.is_some_and(|services| services != asked)) {
        Some(("clusterNetwork.services", services))
    } else {
        None
    };
    match wrong {
        None => Ok(()),
        Some((field, is)) => Err(terminal(format!(
            "{field}: EKS cannot change it (it is {}): set it back, or make another cluster",
            is.unwrap_or("not set")
        ))),
    }
}

fn set(all: &[String]) -> BTreeSet<String> {
    all.iter().cloned().collect()
}

/// From where the API can be reached, where that differs.
fn access(config: &ControlPlaneConfig, cluster: &Cluster) -> Option<VpcConfigRequest> {
    let vpc = cluster.resources_vpc_config()?;
    let wanted = &config.endpoint_access;
    let anyone = || BTreeSet::from(["0.0.0.0/0".to_owned()]);
    let cidrs = wanted.public_cidrs.clone().unwrap_or_else(anyone);
    let there = match vpc.public_access_cidrs() {
        [] => anyone(),
        some => set(some),
    };
    let same = vpc.endpoint_public_access() == wanted.public
        && vpc.endpoint_private_access() == wanted.private
        && (!wanted.public || there == cidrs);
    let request = || {
        let request = VpcConfigRequest::builder()
            .endpoint_public_access(wanted.public)
            .endpoint_private_access(wanted.private);
        let cidrs = list(Some(&cidrs)).filter(|_| wanted.public);
        request.set_public_access_cidrs(cidrs).build()
    };
    (!same).then(request)
}

/// Subnets and security groups, where they differ.
fn network(config: &ControlPlaneConfig, cluster: &Cluster) -> Option<VpcConfigRequest> {
    let vpc = cluster.resources_vpc_config()?;
    let groups = config.security_groups.clone().unwrap_or_default();
    let same = set(vpc.subnet_ids()) == config.subnets && set(vpc.security_group_ids()) == groups;
    let request = || {
        VpcConfigRequest::builder()
            .set_subnet_ids(list(Some(&config.subnets)))
            .set_security_group_ids(list(Some(&groups)))
            .build()
    };
    (!same).then(request)
}

/// Logs that are on.
fn logs(cluster: &Cluster) -> BTreeSet<String> {
    let setups = cluster.logging().map(|logging| logging.cluster_logging());
    let on = setups.unwrap_or_default().iter();
    let on = on.filter(|setup| setup.enabled() == Some(true));
    on.flat_map(|setup| setup.types())
        .map(|kind| kind.as_str().to_owned())
        .collect()
}

/// The authentication mode, where EKS tells it and it differs.
fn mode(config: &ControlPlaneConfig, cluster: &Cluster) -> Option<AuthenticationMode> {
    let there = cluster.access_config()?.authentication_mode()?;
    let wanted = AuthenticationMode::from(config.authentication_mode.as_str());
    (*there != wanted).then_some(wanted)
}

/// Shows the control plane as it is; `None` where there is none of the owner's.
///
/// # Errors
/// What AWS refuses.
pub(crate) async fn get(
    client: &Client,
    owner: &ManagedOwner,
) -> Result<Option<ManagedControlPlaneState>, ProviderError> {
    let name = cluster_name(owner);
    let found = describe(client, &name).await?;
    let ours = found.filter(|c| check_owner(&name, &sorted(c.tags()), owner).is_ok());
    Ok(ours.map(|cluster| {
        let phase = match cluster.status() {
            Some(ClusterStatus::Active) => ManagedPhase::Active,
            Some(ClusterStatus::Updating) => ManagedPhase::Updating(None),
            Some(ClusterStatus::Deleting) => ManagedPhase::Deleting,
            Some(ClusterStatus::Failed) => ManagedPhase::Failed(issues(&cluster)),
            _ => ManagedPhase::Creating,
        };
        state(&cluster, phase, None)
    }))
}

/// Begins to delete the control plane; true once it is gone.
///
/// # Errors
/// What AWS refuses, or one of this name that is not the owner's.
pub(crate) async fn remove(client: &Client, owner: &ManagedOwner) -> Result<bool, ProviderError> {
    let name = cluster_name(owner);
    let Some(cluster) = describe(client, &name).await? else {
        return Ok(true);
    };
    check_owner(&name, &sorted(cluster.tags()), owner)?;
    if cluster.status() == Some(&ClusterStatus::Deleting) {
        return Ok(false);
    }
    match client.delete_cluster().name(&name).send().await {
        Ok(_) => Ok(false),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok(true),
        Err(error) => Err(told(writes("DeleteCluster"), error)),
    }
}
