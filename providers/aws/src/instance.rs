//! Instances as EC2 shows them, in the words of the contract.

use std::{collections::BTreeMap, sync::Arc};

use aws_sdk_ec2::{
    primitives::DateTime,
    types::{Filter, Instance as Shown, InstanceStateName, Tag},
};
use fleetwright_api::{drift::InstanceSettings, machine::MachineAddress};
use fleetwright_providers::{Instance, InstanceState, ProviderError};
use jiff::Timestamp;

use crate::{
    clients::Clients,
    errors::{reads, told},
    tags::{self, Tags},
};

/// Most instances on a page of a list.
const PAGE: i32 = 1000;

/// Where in its life an instance is; `None` once it is gone, though EC2 shows it for an hour.
pub(crate) fn state(shown: &Shown) -> Option<InstanceState> {
    match shown.state().and_then(|s| s.name())? {
        InstanceStateName::Pending => Some(InstanceState::Pending),
        InstanceStateName::Running => Some(InstanceState::Running),
        InstanceStateName::Stopping | InstanceStateName::Stopped => Some(InstanceState::Stopped),
        InstanceStateName::ShuttingDown => Some(InstanceState::Deleting),
        InstanceStateName::Terminated => None,
        // Whatever comes to be one day: it is there, and does not run for certain.
        _ => Some(InstanceState::Pending),
    }
}

/// Why it is in its state, in AWS' words.
fn reason(shown: &Shown) -> Option<String> {
    let runs = matches!(
        state(shown),
        Some(InstanceState::Pending | InstanceState::Running)
    );
    let reason = shown.state_reason().filter(|_| !runs)?;
    let text = |text: Option<&str>| text.unwrap_or_default().trim().to_owned();
    let (code, message) = (text(reason.code()), text(reason.message()));
    let words = match (code.as_str(), message.as_str()) {
        (code, "") => code.to_owned(),
        ("", message) => message.to_owned(),
        (code, message) if message.starts_with(code) => message.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    (!words.is_empty()).then_some(words)
}

/// Tags of a thing by key.
pub(crate) fn tags_of(list: &[Tag]) -> Tags {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
    list.iter().filter_map(pair).collect()
}

/// Tags as EC2 takes them.
pub(crate) fn tag_list(tags: &Tags) -> Vec<Tag> {
    let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build();
    tags.iter().map(tag).collect()
}

pub(crate) fn filter(name: impl Into<String>, values: impl IntoIterator<Item = String>) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.into_iter().collect()))
        .build()
}

fn time(at: Option<&DateTime>) -> Timestamp {
    let time = at.and_then(|at| {
        let nanos = i32::try_from(at.subsec_nanos()).ok()?;
        Timestamp::new(at.secs(), nanos).ok()
    });
    time.unwrap_or(Timestamp::UNIX_EPOCH)
}

fn addresses(shown: &Shown) -> Vec<MachineAddress> {
    let ipv6 = shown.network_interfaces().iter();
    let ipv6 = ipv6.flat_map(|n| n.ipv6_addresses());
    let ipv6 = ipv6.filter_map(|a| a.ipv6_address());
    let all = [("InternalIP", shown.private_ip_address())]
        .into_iter()
        .chain(ipv6.map(|a| ("InternalIP", Some(a))))
        .chain([
            ("ExternalIP", shown.public_ip_address()),
            ("InternalDNS", shown.private_dns_name()),
            ("ExternalDNS", shown.public_dns_name()),
        ]);
    all.filter_map(|(kind, address)| {
        let address = address.filter(|a| !a.is_empty())?.to_owned();
        Some(MachineAddress {
            kind: kind.into(),
            address,
        })
    })
    .collect()
}

/// What the instance shows of itself; one that is gone, which only a create comes upon, has failed.
pub(crate) fn show(shown: &Shown) -> Instance {
    let tags = tags_of(shown.tags());
    let id = shown.instance_id().unwrap_or_default().to_owned();
    let zone = shown.placement().and_then(|p| p.availability_zone());
    let groups = shown.security_groups().iter();
    Instance {
        provider_id: format!("aws:///{}/{id}", zone.unwrap_or_default()),
        owner: tags::owner(&tags),
        state: state(shown).unwrap_or(InstanceState::Failed),
        reason: reason(shown),
        addresses: addresses(shown),
        failure_domain: zone.map(str::to_owned),
        instance_type: shown
            .instance_type()
            .map(|t| t.as_str().to_owned())
            .unwrap_or_default(),
        image: shown.image_id().unwrap_or_default().to_owned(),
        settings: Arc::new(InstanceSettings {
            network: shown.subnet_id().map(str::to_owned),
            security_groups: Some(
                groups
                    .filter_map(|g| g.group_id().map(str::to_owned))
                    .collect(),
            ),
            tags: tags::foreign(&tags),
        }),
        config_digest: tags.get(tags::CONFIG_DIGEST).cloned().unwrap_or_default(),
        version: tags.get(tags::VERSION).cloned().unwrap_or_default(),
        created: time(shown.launch_time()),
        id,
    }
}

/// All instances that these filters let through, complete, by id.
///
/// # Errors
/// A page of them did not come: none of the others is shown then.
pub(crate) async fn find(
    clients: &Clients,
    filters: Vec<Filter>,
) -> Result<Vec<Shown>, ProviderError> {
    let mut pages = clients
        .ec2
        .describe_instances()
        .set_filters(Some(filters))
        .into_paginator()
        .page_size(PAGE)
        .send();
    let mut found = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| told(reads("DescribeInstances"), e))?;
        for reservation in page.reservations.unwrap_or_default() {
            for instance in reservation.instances.unwrap_or_default() {
                let id = instance.instance_id().unwrap_or_default().to_owned();
                found.insert(id, instance);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The instance with this id, whatever its state; `None` where EC2 says that there is none.
///
/// # Errors
/// EC2 cannot be asked.
pub(crate) async fn look(clients: &Clients, id: &str) -> Result<Option<Shown>, ProviderError> {
    let call = clients.ec2.describe_instances().instance_ids(id);
    let found = call.send().await;
    match found.map_err(|e| told(reads("DescribeInstances"), e)) {
        Err(ProviderError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
        Ok(found) => {
            let all = found.reservations.unwrap_or_default();
            let mut all = all
                .into_iter()
                .flat_map(|r| r.instances.unwrap_or_default());
            Ok(all.find(|i| i.instance_id() == Some(id)))
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{InstanceState as State, StateReason};

    use super::*;

    fn shown(state: InstanceStateName, reason: Option<(&str, &str)>) -> Shown {
        let state = State::builder().name(state).build();
        let reason =
            reason.map(|(code, text)| StateReason::builder().code(code).message(text).build());
        Shown::builder()
            .instance_id("i-1")
            .state(state)
            .set_state_reason(reason)
            .build()
    }

    #[test]
    fn states_are_those_of_the_contract() {
        for (name, expected) in [
            (InstanceStateName::Pending, Some(InstanceState::Pending)),
            (InstanceStateName::Running, Some(InstanceState::Running)),
            (InstanceStateName::Stopping, Some(InstanceState::Stopped)),
            (InstanceStateName::Stopped, Some(InstanceState::Stopped)),
            (
                InstanceStateName::ShuttingDown,
                Some(InstanceState::Deleting),
            ),
            (InstanceStateName::Terminated, None),
        ] {
            assert_eq!(state(&shown(name, None)), expected);
        }
        let gone = show(&shown(InstanceStateName::Terminated, None));
        assert_eq!(gone.state, InstanceState::Failed);
    }

    #[test]
    fn why_an_instance_ended_is_told_once() {
        let spot = (
            "Server.SpotInstanceTermination",
            "Spot instance termination",
        );
        let own = (
            "Client.UserInitiatedShutdown",
            "Client.UserInitiatedShutdown: User initiated shutdown",
        );
        for (name, given, expected) in [
            (
                InstanceStateName::ShuttingDown,
                Some(spot),
                Some("Server.SpotInstanceTermination: Spot instance termination"),
            ),
            (InstanceStateName::Stopped, Some(own), Some(own.1)),
            (
                InstanceStateName::Terminated,
                Some(("Client.InternalError", "")),
                Some("Client.InternalError"),
            ),
            (
                InstanceStateName::Pending,
                Some(("pending", "pending")),
                None,
            ),
            (InstanceStateName::Running, None, None),
        ] {
            assert_eq!(show(&shown(name, given)).reason.as_deref(), expected);
        }
    }
}
