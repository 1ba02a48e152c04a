//! What changes of an instance while it runs.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Instance as Shown, Tag};
use fleetwright_providers::{ProviderError, UpdateInstance};

use crate::{
    clients::Clients,
    config::MachineConfig,
    errors::{told, writes},
    instance::{tag_list, tags_of},
    tags::{self, Tags},
};

/// The instance and its volumes that go with it: those that were attached later, such as of a persistent volume, are not ours.
fn resources(shown: &Shown) -> Vec<String> {
    let disks = shown.block_device_mappings().iter();
    let disks = disks.filter_map(|mapping| mapping.ebs());
    let ours = disks.filter(|disk| disk.delete_on_termination() == Some(true));
    let volumes = ours.filter_map(|disk| disk.volume_id());
    shown
        .instance_id()
        .into_iter()
        .chain(volumes)
        .map(str::to_owned)
        .collect()
}

async fn write_tags(
    clients: &Clients,
    resources: &[String],
    tags: &Tags,
) -> Result<(), ProviderError> {
    if tags.is_empty() {
        return Ok(());
    }
    let call = clients
        .ec2
        .create_tags()
        .set_resources(Some(resources.to_vec()))
        .set_tags(Some(tag_list(tags)));
    let written = call.send().await;
    written.map_err(|e| told(writes("CreateTags"), e)).map(drop)
}

/// Writes tags and security groups, and last the digest: whoever sees it sees the rest.
///
/// # Errors
/// Something was not written; the digest was not either.
pub(crate) async fn write(
    clients: &Clients,
    shown: &Shown,
    change: &UpdateInstance,
    config: &MachineConfig,
) -> Result<(), ProviderError> {
    let there = tags_of(shown.tags());
    let resources = resources(shown);
    let mut wanted = tags::of_user(&config.tags);
    let outdated = tags::outdated(&there, &wanted);
    // The key is what the instance is known by: it stays.
    let key = there.get(tags::INSTANCE_KEY);
    if key == Some(&change.owner.instance_key) {
        wanted.extend(tags::of_owner(&change.owner));
    }
    wanted.retain(|key, value| there.get(key) != Some(value));
    if !outdated.is_empty() {
        let tags = outdated.iter().map(|key| Tag::builder().key(key).build());
        let call = clients
            .ec2
            .delete_tags()
            .set_resources(Some(resources.clone()))
            .set_tags(Some(tags.collect()));
        let gone = call.send().await;
        gone.map_err(|e| told(writes("DeleteTags"), e))?;
    }
    write_tags(clients, &resources, &wanted).await?;
    if let Some(groups) = &config.security_groups {
        let have = shown.security_groups().iter();
        let have: BTreeSet<&str> = have.filter_map(|g| g.group_id()).collect();
        if !groups.iter().map(String::as_str).eq(have) {
            let call = clients
                .ec2
                .modify_instance_attribute()
                .set_instance_id(shown.instance_id().map(str::to_owned))
                .set_groups(Some(groups.iter().cloned().collect()));
            let changed = call.send().await;
            changed.map_err(|e| told(writes("ModifyInstanceAttribute"), e))?;
        }
    }
    let digest = (tags::CONFIG_DIGEST.to_owned(), change.config_digest.clone());
    write_tags(clients, &resources, &Tags::from([digest])).await
}
