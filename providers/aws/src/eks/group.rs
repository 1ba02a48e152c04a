//! A managed group of nodes: made, changed one update at a time, and taken away.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_eks::{
    Client,
    types::{
        AmiTypes, CapacityTypes, ClusterStatus, Nodegroup, NodegroupScalingConfig, NodegroupStatus,
        NodegroupUpdateConfig, Taint, TaintEffect, UpdateLabelsPayload, UpdateTaintsPayload,
    },
};
use fleetwright_api::machine;
use fleetwright_providers::{
    ProviderError,
    managed::{ManagedOwner, ManagedPhase, PoolOrder, PoolState},
};
use jiff::Timestamp;

use super::{
    Ended, NOT_FOUND, all_tags, check_owner, client_token, cluster_name,
    config::{NodeGroupConfig, Scaling, node_group},
    control_plane, group_name, is_above, minor, retag, shown, sorted, terminal, updates,
};
use crate::{
    errors::{self, code, reads, told, writes},
    tags,
};

async fn describe(
    client: &Client,
    cluster: &str,
    name: &str,
) -> Result<Option<Nodegroup>, ProviderError> {
    let call = client.describe_nodegroup().cluster_name(cluster);
    match call.nodegroup_name(name).send().await {
        Ok(found) => errors::shown("DescribeNodegroup", found.nodegroup).map(Some),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(told(reads("DescribeNodegroup"), error)),
    }
}

/// Makes the group, or moves it one step on towards the order; shows it.
///
/// # Errors
/// What AWS refuses, or one of this name that is not the owner's.
pub(crate) async fn ensure(
    client: &Client,
    ended: &Ended,
    order: &PoolOrder,
    now: Timestamp,
) -> Result<PoolState, ProviderError> {
    let config = node_group(&order.config)?;
    let (cluster, name) = (cluster_name(&order.owner), group_name(&order.owner));
    let Some(group) = describe(client, &cluster, &name).await? else {
        let made = create(client, order, &config, &cluster, &name).await?;
        return Ok(state(&made, ManagedPhase::Creating, Some(&order.version)));
    };
    let what = format!("group {name} of {cluster}");
    check_owner(&what, &sorted(group.tags()), &order.owner)?;
    let phase = match group.status() {
        Some(NodegroupStatus::Active) => step(client, ended, order, &config, &group, now).await?,
        Some(NodegroupStatus::Degraded) => {
            match step(client, ended, order, &config, &group, now).await? {
                ManagedPhase::Active => ManagedPhase::Failed(issues(&group)),
                phase => phase,
            }
        }
        Some(NodegroupStatus::Updating) => {
            let to = updates(client, ended, &cluster, Some(&name)).await?.to;
            ManagedPhase::Updating(shown(to.as_deref(), Some(&order.version)))
        }
        Some(NodegroupStatus::Deleting) => ManagedPhase::Deleting,
        Some(NodegroupStatus::CreateFailed | NodegroupStatus::DeleteFailed) => {
            ManagedPhase::Failed(issues(&group))
        }
        _ => ManagedPhase::Creating,
    };
    Ok(state(&group, phase, Some(&order.version)))
}

/// Whose a group is, by its tags.
fn owner(group: &Nodegroup) -> ManagedOwner {
    let there = sorted(group.tags());
    let text = |key: &str| there.get(key).cloned().unwrap_or_default();
    ManagedOwner {
        installation: text(tags::INSTALLATION),
        cluster_key: text(tags::CLUSTER_KEY),
        cluster: text(tags::CLUSTER),
        pool: text(tags::POOL),
    }
}

fn state(group: &Nodegroup, phase: ManagedPhase, ordered: Option<&str>) -> PoolState {
    let scaling = group.scaling_config();
    PoolState {
        id: group.nodegroup_arn().unwrap_or_default().to_owned(),
        owner: owner(group),
        phase,
        version: shown(group.version(), ordered),
        replicas: scaling.and_then(|s| s.desired_size()).unwrap_or(0),
        node_label: group.nodegroup_name().unwrap_or_default().to_owned(),
    }
}

fn issues(group: &Nodegroup) -> String {
    let issues = group.health().map(|health| health.issues());
    let words: Vec<&str> = issues
        .unwrap_or_default()
        .iter()
        .filter_map(|issue| issue.message())
        .collect();
    match words.is_empty() {
        true => "EKS says no more: look at the group there".to_owned(),
        false => words.join("; "),
    }
}

/// The group's size: bounds and number. Where no number is ordered, what is `there` stays.
pub(super) fn scaling(
    config: &NodeGroupConfig,
    order: &PoolOrder,
    there: Option<(i32, i32, i32)>,
) -> Result<(i32, i32, i32), ProviderError> {
    let (min, max) = match (&config.scaling, order.replicas) {
        (Some(Scaling { min_size, max_size }), _) => (*min_size, *max_size),
        (None, Some(replicas)) => (0, replicas),
        (None, None) => {
            let stays = there.map(|(min, max, _)| (min, max));
            order.bounds.or(stays).unwrap_or((0, 1))
        }
    };
    // EKS takes no group that can have no node.
    let max = max.max(1);
    match order.replicas {
        Some(replicas) if replicas < min || max < replicas => Err(terminal(format!(
            "scaling: {replicas} replicas are not between minSize {min} and maxSize {max}"
        ))),
        Some(replicas) => Ok((min, max, replicas)),
        None => {
            let desired = there.map_or(min, |(_, _, desired)| desired);
            Ok((min, max, desired.max(min).min(max)))
        }
    }
}

fn scaling_config((min, max, desired): (i32, i32, i32)) -> NodegroupScalingConfig {
    NodegroupScalingConfig::builder()
        .min_size(min)
        .max_size(max)
        .desired_size(desired)
        .build()
}

/// How many nodes are replaced at once: a number, or a share of a hundred.
fn update_bounds(config: &NodeGroupConfig) -> (Option<i32>, Option<i32>) {
    let update = config.update.as_ref();
    let share = update.and_then(|u| u.max_unavailable_percentage);
    let number = update.and_then(|u| u.max_unavailable);
    match share {
        Some(share) => (None, Some(share)),
        None => (Some(number.unwrap_or(1)), None),
    }
}

fn update_config((number, share): (Option<i32>, Option<i32>)) -> NodegroupUpdateConfig {
    NodegroupUpdateConfig::builder()
        .set_max_unavailable(number)
        .set_max_unavailable_percentage(share)
        .build()
}

fn taint(wanted: &machine::MachineTaint) -> Taint {
    let effect = match wanted.effect {
        machine::TaintEffect::NoSchedule => TaintEffect::NoSchedule,
        machine::TaintEffect::PreferNoSchedule => TaintEffect::PreferNoSchedule,
        machine::TaintEffect::NoExecute => TaintEffect::NoExecute,
    };
    Taint::builder()
        .key(&wanted.key)
        .value(wanted.value.clone().unwrap_or_default())
        .effect(effect)
        .build()
}

async fn create(
    client: &Client,
    order: &PoolOrder,
    config: &NodeGroupConfig,
    cluster: &str,
    name: &str,
) -> Result<Nodegroup, ProviderError> {
    let plane = control_plane::describe(client, cluster).await?;
    let plane = plane.ok_or_else(|| ProviderError::Unavailable {
        message: format!("the control plane {cluster} is not there yet"),
    })?;
    let of_plane = ManagedOwner {
        pool: String::new(),
        ..order.owner.clone()
    };
    check_owner(cluster, &sorted(plane.tags()), &of_plane)?;
    if plane.status() != Some(&ClusterStatus::Active) {
        let message = format!("the control plane {cluster} is not active");
        return Err(ProviderError::Unavailable { message });
    }
    let size = scaling(config, order, None)?;
    let tags: HashMap<String, String> = all_tags(&order.owner, &config.tags).into_iter().collect();
    let call = client
        .create_nodegroup()
        .cluster_name(cluster)
        .nodegroup_name(name)
        .version(minor(&order.version)?)
        .node_role(&config.node_role_arn)
        .set_subnets(Some(config.subnets.iter().cloned().collect()))
        .set_instance_types(Some(config.instance_types.clone()))
        .ami_type(AmiTypes::from(config.ami_type.as_str()))
        .capacity_type(CapacityTypes::from(config.capacity_type.as_str()))
        .disk_size(config.disk_size_gib)
        .scaling_config(scaling_config(size))
        .update_config(update_config(update_bounds(config)))
        .set_labels(Some(order.labels.clone().into_iter().collect()))
        .set_taints(Some(order.taints.iter().map(taint).collect()))
        .client_request_token(client_token(&order.owner, "group"))
        .set_tags(Some(tags));
    let made = call.send().await;
    let made = made.map_err(|e| told(writes("CreateNodegroup"), e))?;
    made.nodegroup.ok_or_else(|| ProviderError::Ambiguous {
        message: "CreateNodegroup: the answer shows no group".into(),
    })
}

/// What of the settings of a group cannot change, where it differs.
fn fixed(config: &NodeGroupConfig, group: &Nodegroup) -> Result<(), ProviderError> {
    let set = |all: &[String]| {
        all.iter()
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
    };
    let types = set(&config.instance_types);
    let wrong = [
        (
            "nodeRoleARN",
            group.node_role().is_some_and(|r| r != config.node_role_arn),
        ),
        ("subnets", set(group.subnets()) != config.subnets),
        (
            "instanceTypes",
            !group.instance_types().is_empty() && set(group.instance_types()) != types,
        ),
        (
            "amiType",
            group
                .ami_type()
                .is_some_and(|t| t.as_str() != config.ami_type),
        ),
        (
            "capacityType",
            group
                .capacity_type()
                .is_some_and(|t| t.as_str() != config.capacity_type),
        ),
        (
            "diskSizeGiB",
            group
                .disk_size()
                .is_some_and(|size| size != config.disk_size_gib),
        ),
    ];
    match wrong.iter().find(|(_, differs)| *differs) {
        None => Ok(()),
        Some((field, _)) => Err(terminal(format!(
            "{field}: EKS cannot change it: set it back, or make another pool"
        ))),
    }
}

/// The next thing that differs from the order is changed: EKS takes one update at a time.
async fn step(
    client: &Client,
    ended: &Ended,
    order: &PoolOrder,
    config: &NodeGroupConfig,
    group: &Nodegroup,
    now: Timestamp,
) -> Result<ManagedPhase, ProviderError> {
    fixed(config, group)?;
    let (cluster, name) = (
        group.cluster_name().unwrap_or_default(),
        group.nodegroup_name().unwrap_or_default(),
    );
    let wanted = all_tags(&order.owner, &config.tags);
    let arn = group.nodegroup_arn().unwrap_or_default();
    retag(client, arn, &sorted(group.tags()), &wanted).await?;
    let (version, runs) = (minor(&order.version)?, group.version().unwrap_or_default());
    if is_above(&version, runs) {
        let before = updates(client, ended, cluster, Some(name)).await?;
        if let Some(why) = before.failure(&version, now) {
            return Ok(ManagedPhase::Failed(why.to_owned()));
        }
        let call = client.update_nodegroup_version().cluster_name(cluster);
        let sent = call.nodegroup_name(name).version(&version).send().await;
        sent.map_err(|e| told(writes("UpdateNodegroupVersion"), e))?;
        return Ok(ManagedPhase::Updating(Some(order.version.clone())));
    }
    if is_above(runs, &version) {
        return Err(terminal(format!(
            "version: EKS brings nodes of {runs} back to no {version}: set {runs} or newer, or make another pool"
        )));
    }
    let changes = Changes::of(order, config, group)?;
    if changes.is_empty() {
        return Ok(ManagedPhase::Active);
    }
    let call = client
        .update_nodegroup_config()
        .cluster_name(cluster)
        .nodegroup_name(name)
        .set_scaling_config(changes.scaling.map(scaling_config))
        .set_update_config(changes.update.map(update_config))
        .set_labels(changes.labels)
        .set_taints(changes.taints);
    let sent = call.send().await;
    sent.map_err(|e| told(writes("UpdateNodegroupConfig"), e))?;
    Ok(ManagedPhase::Updating(None))
}

/// What of a group differs and can be changed.
#[derive(Debug)]
struct Changes {
    scaling: Option<(i32, i32, i32)>,
    update: Option<(Option<i32>, Option<i32>)>,
    labels: Option<UpdateLabelsPayload>,
    taints: Option<UpdateTaintsPayload>,
}

impl Changes {
    fn of(
        order: &PoolOrder,
        config: &NodeGroupConfig,
        group: &Nodegroup,
    ) -> Result<Self, ProviderError> {
        let there = group.scaling_config();
        let there = there.and_then(|s| Some((s.min_size()?, s.max_size()?, s.desired_size()?)));
        let size = scaling(config, order, there)?;
        let same = there == Some(size);
        let bounds = update_bounds(config);
        let has = group.update_config();
        let has = has.map(|u| (u.max_unavailable(), u.max_unavailable_percentage()));
        Ok(Self {
            scaling: (!same).then_some(size),
            update: (has.unwrap_or((Some(1), None)) != bounds).then_some(bounds),
            labels: labels(order, group),
            taints: taints(order, group),
        })
    }

    fn is_empty(&self) -> bool {
        self.scaling.is_none()
            && self.update.is_none()
            && self.labels.is_none()
            && self.taints.is_none()
    }
}

fn labels(order: &PoolOrder, group: &Nodegroup) -> Option<UpdateLabelsPayload> {
    let there = sorted(group.labels());
    let new: HashMap<String, String> = order
        .labels
        .iter()
        .filter(|(key, value)| there.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let gone = there.keys().filter(|key| !order.labels.contains_key(*key));
    let gone: Vec<String> = gone.cloned().collect();
    let some = !new.is_empty() || !gone.is_empty();
    some.then(|| {
        UpdateLabelsPayload::builder()
            .set_add_or_update_labels(Some(new).filter(|new| !new.is_empty()))
            .set_remove_labels(Some(gone).filter(|gone| !gone.is_empty()))
            .build()
    })
}

fn taints(order: &PoolOrder, group: &Nodegroup) -> Option<UpdateTaintsPayload> {
    let id = |taint: &Taint| {
        let effect = taint.effect().map(|effect| effect.as_str().to_owned());
        (taint.key().unwrap_or_default().to_owned(), effect)
    };
    let by_id = |all: Vec<Taint>| -> BTreeMap<_, Taint> {
        all.into_iter().map(|taint| (id(&taint), taint)).collect()
    };
    let wanted = by_id(order.taints.iter().map(taint).collect());
    let there = by_id(group.taints().to_vec());
    let value = |taint: &Taint| taint.value().unwrap_or_default().to_owned();
    let differs = |(id, taint): &(&_, &Taint)| there.get(id).map(value) != Some(value(taint));
    let new: Vec<Taint> = wanted
        .iter()
        .filter(differs)
        .map(|(_, t)| t.clone())
        .collect();
    let gone = there.iter().filter(|(id, _)| !wanted.contains_key(*id));
    let gone: Vec<Taint> = gone.map(|(_, taint)| taint.clone()).collect();
    let some = !new.is_empty() || !gone.is_empty();
    some.then(|| {
        UpdateTaintsPayload::builder()
            .set_add_or_update_taints(Some(new).filter(|new| !new.is_empty()))
            .set_remove_taints(Some(gone).filter(|gone| !gone.is_empty()))
            .build()
    })
}

/// All groups of a cluster that carry its owner's tags, sorted by id.
///
/// # Errors
/// What AWS refuses.
pub(crate) async fn list(
    client: &Client,
    owner: &ManagedOwner,
) -> Result<Vec<PoolState>, ProviderError> {
    let cluster = cluster_name(owner);
    let pages = client.list_nodegroups().cluster_name(&cluster);
    let mut pages = pages.into_paginator().items().send();
    let mut names = Vec::new();
    while let Some(name) = pages.next().await {
        match name {
            Ok(name) => names.push(name),
            Err(error) if code(&error) == Some(NOT_FOUND) => return Ok(Vec::new()),
            Err(error) => return Err(told(reads("ListNodegroups"), error)),
        }
    }
    let mut out = Vec::new();
    for name in names {
        let Some(group) = describe(client, &cluster, &name).await? else {
            continue;
        };
        let whose = self::owner(&group);
        let ours = whose.installation == owner.installation
            && whose.cluster_key == owner.cluster_key
            && !whose.pool.is_empty();
        if ours {
            let phase = match group.status() {
                Some(NodegroupStatus::Active) => ManagedPhase::Active,
                Some(NodegroupStatus::Updating) => ManagedPhase::Updating(None),
                Some(NodegroupStatus::Deleting) => ManagedPhase::Deleting,
                Some(NodegroupStatus::Creating) => ManagedPhase::Creating,
                _ => ManagedPhase::Failed(issues(&group)),
            };
            out.push(state(&group, phase, None));
        }
    }
    out.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(out)
}

/// Begins to delete the group; true once it is gone.
///
/// # Errors
/// What AWS refuses, or one of this name that is not the owner's.
pub(crate) async fn remove(client: &Client, owner: &ManagedOwner) -> Result<bool, ProviderError> {
    let (cluster, name) = (cluster_name(owner), group_name(owner));
    let Some(group) = describe(client, &cluster, &name).await? else {
        return Ok(true);
    };
    let what = format!("group {name} of {cluster}");
    check_owner(&what, &sorted(group.tags()), owner)?;
    if group.status() == Some(&NodegroupStatus::Deleting) {
        return Ok(false);
    }
    let call = client.delete_nodegroup().cluster_name(&cluster);
    match call.nodegroup_name(&name).send().await {
        Ok(_) => Ok(false),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok(true),
        Err(error) => Err(told(writes("DeleteNodegroup"), error)),
    }
}
