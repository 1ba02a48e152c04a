//! Amazon EKS: control planes that AWS runs, and managed groups of their nodes.
//!
//! AWS chooses patch versions: what is asked for and compared is the minor, and a version that is shown has the patch of the order
//! once its minor serves. What does not carry our tags is left alone, whatever it is called.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_eks::{
    Client,
    types::{Update, UpdateParamType, UpdateStatus, UpdateType},
};
use fleetwright_api::{names, version::Version};
use fleetwright_providers::{ProviderError, managed::ManagedOwner};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::{
    errors::{self, reads, told, writes},
    tags::{self, Tags},
};

pub(crate) mod config;
pub(crate) mod control_plane;
pub(crate) mod group;
mod provider;
pub(crate) mod schema;
pub(crate) mod token;

#[cfg(test)]
mod tests;

/// Tells nodes of a managed group from others: its name.
pub(crate) const NODE_LABEL: &str = "eks.amazonaws.com/nodegroup";
/// What AWS says of what is not there.
const NOT_FOUND: &str = "ResourceNotFoundException";
/// Longest name of a cluster or a group.
const LONGEST_NAME: usize = 63;
/// For how long a version that could not be reached is not tried again.
const RETRY: SignedDuration = SignedDuration::from_hours(1);
/// Most updates that one look asks for.
const MOST_UPDATES: usize = 50;
/// Most updates that are remembered.
const MOST_ENDED: usize = 10_000;

fn terminal(message: String) -> ProviderError {
    ProviderError::Terminal { message }
}

/// Name of the cluster at AWS, the same one each time.
pub(crate) fn cluster_name(owner: &ManagedOwner) -> String {
    let base = owner.cluster.replace(['/', '.'], "-");
    let key: String = owner.cluster_key.chars().take(8).collect();
    names::child_name(&base, &key, LONGEST_NAME)
}

/// Name of the group at AWS, the same one each time.
pub(crate) fn group_name(owner: &ManagedOwner) -> String {
    let base = owner.pool.replace('.', "-");
    let hash = names::short_hash(["pool", &owner.pool], 6);
    names::child_name(&base, &hash, LONGEST_NAME)
}

/// A version as AWS has it, such as `1.33`.
fn minor(version: &str) -> Result<String, ProviderError> {
    let read: Version = version
        .parse()
        .map_err(|e| terminal(format!("version: {e}")))?;
    Ok(format!("{}.{}", read.major(), read.minor()))
}

/// Major and minor number.
fn numbers(minor: &str) -> Option<(u64, u64)> {
    let (major, minor) = minor.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether AWS' version `to` comes after `from`.
fn is_above(to: &str, from: &str) -> bool {
    matches!((numbers(to), numbers(from)), (Some(to), Some(from)) if to > from)
}

/// What runs, as it is shown: with the ordered patch where the minor is the ordered one.
fn shown(running: Option<&str>, ordered: Option<&str>) -> Option<String> {
    let running = running?;
    let same = ordered.filter(|ordered| minor(ordered).is_ok_and(|minor| minor == running));
    let zero = || format!("v{running}.0");
    Some(same.map_or_else(zero, str::to_owned))
}

/// Tags that say whose a cluster or a group is.
fn owner_tags(owner: &ManagedOwner) -> Tags {
    let mut all = tags::of_cluster(&owner.installation, &owner.cluster_key, &owner.cluster);
    if !owner.pool.is_empty() {
        all.insert(tags::POOL.to_owned(), owner.pool.clone());
    }
    all
}

fn sorted(tags: Option<&HashMap<String, String>>) -> Tags {
    let tags = tags.into_iter().flatten();
    tags.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Refuses what is not the owner's.
fn check_owner(what: &str, there: &Tags, owner: &ManagedOwner) -> Result<(), ProviderError> {
    let wanted = owner_tags(owner);
    let differs = [tags::INSTALLATION, tags::CLUSTER_KEY, tags::POOL]
        .into_iter()
        .find(|key| there.get(*key) != wanted.get(*key));
    match differs {
        None => Ok(()),
        Some(key) => Err(terminal(format!(
            "{what} is there and is not of this installation's making (tag {key}): delete or rename it"
        ))),
    }
}

/// All tags of something: the owner's and the user's.
fn all_tags(owner: &ManagedOwner, users: &Tags) -> Tags {
    let mut all = tags::of_user(users);
    all.extend(owner_tags(owner));
    all
}

/// Takes tags of the user's off that are no longer wanted, and writes those that differ.
async fn retag(
    client: &Client,
    arn: &str,
    there: &Tags,
    wanted: &Tags,
) -> Result<(), ProviderError> {
    let new: HashMap<String, String> = wanted
        .iter()
        .filter(|(key, value)| there.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let gone = tags::outdated(there, wanted);
    if !gone.is_empty() {
        let call = client.untag_resource().resource_arn(arn);
        let sent = call.set_tag_keys(Some(gone)).send().await;
        sent.map_err(|e| told(writes("UntagResource"), e))?;
    }
    if !new.is_empty() {
        let call = client.tag_resource().resource_arn(arn).set_tags(Some(new));
        let sent = call.send().await;
        sent.map_err(|e| told(writes("TagResource"), e))?;
    }
    Ok(())
}

/// What an update of versions came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Came {
    /// It is under way to this version.
    Moves(String),
    /// It failed: to which version, when it began, and why.
    Failed(String, i64, String),
    /// It is nothing to us: done, or no update of versions.
    Else,
}

impl Came {
    /// What it came to, and whether that stays.
    fn of(update: &Update) -> (Self, bool) {
        let over = matches!(
            update.status(),
            Some(UpdateStatus::Successful | UpdateStatus::Failed | UpdateStatus::Cancelled)
        );
        let mut params = update.params().iter();
        let version = params.find(|p| p.r#type() == Some(&UpdateParamType::Version));
        let version = version.and_then(|p| p.value()).map(str::to_owned);
        let of_versions = update.r#type() == Some(&UpdateType::VersionUpdate);
        let came = match (version.filter(|_| of_versions), update.status()) {
            (Some(version), Some(UpdateStatus::InProgress)) => Self::Moves(version),
            (Some(version), Some(UpdateStatus::Failed)) => {
                let errors = update.errors().iter();
                let words: Vec<&str> = errors.filter_map(|e| e.error_message()).collect();
                let at = update.created_at().map_or(0, |at| at.secs());
                let why = format!("the update to {version} failed: {}", words.join("; "));
                Self::Failed(version, at, why)
            }
            _ => Self::Else,
        };
        (came, over)
    }
}

/// Updates that have come to their end, by id: what they came to stays, and is asked for once.
#[derive(Debug, Default)]
pub(crate) struct Ended(Mutex<BTreeMap<String, Came>>);

impl Ended {
    fn get(&self, id: &str) -> Option<Came> {
        self.0.lock().get(id).cloned()
    }

    fn keep(&self, id: String, came: Came) {
        let mut all = self.0.lock();
        if all.len() >= MOST_ENDED {
            all.clear();
        }
        all.insert(id, came);
    }
}

/// What is known of updates of a cluster, or of a group of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Updates {
    /// The version that the update under way brings, where it is one of versions.
    to: Option<String>,
    /// Why the latest attempt at each version failed, and when it began.
    failed: Vec<(String, i64, String)>,
}

impl Updates {
    /// Why a version is not tried again for now.
    fn failure(&self, version: &str, now: Timestamp) -> Option<&str> {
        let after = now.checked_sub(RETRY).unwrap_or(Timestamp::MIN).as_second();
        let of = |(to, at, _): &&(String, i64, String)| to == version && *at > after;
        self.failed
            .iter()
            .rev()
            .find(of)
            .map(|(_, _, why)| why.as_str())
    }
}

/// Looks at the updates of a cluster, or of a group of it, but for those that are known to have ended.
async fn updates(
    client: &Client,
    ended: &Ended,
    cluster: &str,
    group: Option<&str>,
) -> Result<Updates, ProviderError> {
    let list = client.list_updates().name(cluster);
    let list = list.set_nodegroup_name(group.map(str::to_owned));
    let mut pages = list.into_paginator().items().send();
    let mut all = Vec::new();
    let mut asked = 0;
    while let Some(id) = pages.next().await {
        let id = id.map_err(|e| told(reads("ListUpdates"), e))?;
        if let Some(came) = ended.get(&id) {
            all.push(came);
            continue;
        }
        if asked == MOST_UPDATES {
            break;
        }
        asked += 1;
        let call = client.describe_update().name(cluster).update_id(&id);
        let call = call.set_nodegroup_name(group.map(str::to_owned));
        let found = call.send().await;
        let found = found.map_err(|e| told(reads("DescribeUpdate"), e))?;
        let update = errors::shown("DescribeUpdate", found.update)?;
        let (came, over) = Came::of(&update);
        if over {
            ended.keep(id, came.clone());
        }
        all.push(came);
    }
    let mut out = Updates::default();
    for came in all {
        match came {
            Came::Moves(version) => out.to = Some(version),
            Came::Failed(version, at, why) => out.failed.push((version, at, why)),
            Came::Else => {}
        }
    }
    out.failed.sort_by_key(|(_, at, _)| *at);
    Ok(out)
}

/// A deterministic token for a call that makes something: asked twice, AWS makes it once.
fn client_token(owner: &ManagedOwner, what: &str) -> String {
    let parts = [what, &owner.cluster_key, &owner.pool];
    names::short_hash(parts, 32)
}
