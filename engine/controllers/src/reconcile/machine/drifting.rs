//! What a machine's instance and node show of what may have drifted.

use std::sync::Arc;

use fleetwright_api::{Machine, ProviderAccount, drift::InstanceSettings, machine::InstanceView};
use fleetwright_core::{
    drift::{
        Correction, InstanceFacts, MachineFacts, NodeFacts, Reading, Shown, correct, of_machine,
    },
    machine::Instance,
};
use fleetwright_providers::Instance as Listed;
use jiff::Timestamp;

use super::{Error, Shared, View};
use crate::{inventory::Seen, node_sync, nodes::SeenNode};

/// An instance as it is kept in the Machine's status.
pub(super) fn shown(instance: &Listed) -> InstanceView {
    InstanceView {
        id: instance.id.clone(),
        state: instance.state.as_str().to_owned(),
        instance_type: instance.instance_type.clone(),
        image: instance.image.clone(),
        config_digest: instance.config_digest.clone(),
    }
}

/// What the machine's instance should show of its settings; `None` while they are on their way to it.
fn wanted(
    shared: &Shared,
    machine: &Machine,
    view: &View,
    instance: &Listed,
) -> Option<InstanceSettings> {
    if view.cluster.is_none() || instance.config_digest != view.given.config_digest {
        return None;
    }
    let account = shared.caches.get::<ProviderAccount>("", &view.account)?;
    let provider = shared.context.providers.get(&account.spec.provider)?;
    Some(provider.settings(&machine.spec.content.provider_config))
}

/// What differs of the machine, and what is done about it. A node that is kept in step does not differ: what it lacked was written just
/// now, unless that failed or the machine is left alone.
pub(super) fn read(
    shared: &Shared,
    machine: &Machine,
    view: &View,
    paused: bool,
    failure: Option<&Error>,
    now: Timestamp,
) -> (Reading, Correction) {
    let instance = match (&view.seen, &view.facts.instance) {
        // What was listed before says nothing of now.
        _ if shared.inventory.trouble(&view.account).is_some() => Shown::Unknown,
        (Seen::There(instance), _) => {
            let owner = instance.owner.as_ref();
            Shown::There(InstanceFacts {
                view: shown(instance),
                machine: owner.map(|o| o.machine.clone()).unwrap_or_default(),
                cluster: owner.map(|o| o.cluster.clone()).unwrap_or_default(),
                settings: Arc::clone(&instance.settings),
                wanted: wanted(shared, machine, view, instance),
            })
        }
        (Seen::Missing, Instance::Missing) => Shown::Missing,
        _ => Shown::Unknown,
    };
    let refused = failure.is_some_and(|e| matches!(e, Error::Workload(_)) && !e.is_conflict());
    let node = match &view.node {
        _ if view.lost.is_some() => Shown::Unknown,
        SeenNode::Unknown | SeenNode::Several(_) => Shown::Unknown,
        SeenNode::Missing => Shown::Missing,
        SeenNode::There(node) => Shown::There(NodeFacts {
            kubelet: node.info.kubelet_version.clone(),
            unsynced: match paused || refused {
                true => node_sync::unsynced(machine, node),
                false => Vec::new(),
            },
        }),
    };
    let mut reading = of_machine(machine, &MachineFacts { instance, node }, now);
    if reading.found.is_empty() {
        return (reading, Correction::default());
    }
    let fleet = view.cluster.as_deref();
    let fleet = fleet.and_then(|cluster| shared.caches.fleet_of(cluster));
    let spec = fleet.as_ref().map(|fleet| &fleet.spec);
    let correction = correct(machine, &mut reading, spec, now);
    (reading, correction)
}
