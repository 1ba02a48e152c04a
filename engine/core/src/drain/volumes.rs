//! Which volumes are still attached to a node that is drained.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::{PersistentVolume, Pod},
    storage::v1::VolumeAttachment,
};

use super::PodKey;

/// What was seen of the volumes of one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachedVolumes<'a> {
    /// The node.
    pub node: &'a str,
    /// Names in its `status.volumesAttached`.
    pub in_use: &'a [String],
    /// All VolumeAttachments of the cluster.
    pub attachments: &'a [VolumeAttachment],
    /// All PersistentVolumes of the cluster.
    pub volumes: &'a [PersistentVolume],
    /// Pods that stay on the node: their volumes stay with them.
    pub staying: &'a [Pod],
}

/// Names of the volumes that are still attached and are to be detached: PersistentVolumes where they are known, else what the node
/// or the attachment calls them.
pub fn attached(seen: AttachedVolumes<'_>) -> Vec<String> {
    let kept: BTreeSet<PodKey> = seen.staying.iter().flat_map(claims).collect();
    let keeps = |volume: &PersistentVolume| {
        let claim = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        claim.is_some_and(|c| {
            let name = c.name.clone().unwrap_or_default();
            kept.contains(&PodKey::new(c.namespace.clone().unwrap_or_default(), name))
        })
    };
    let name = |volume: &PersistentVolume| volume.metadata.name.clone().unwrap_or_default();
    let mut names = BTreeSet::new();
    for unique in seen.in_use {
        match seen.volumes.iter().find(|v| is_called(v, unique)) {
            Some(volume) if keeps(volume) => {}
            Some(volume) => {
                names.insert(name(volume));
            }
            None => {
                names.insert(unique.clone());
            }
        }
    }
    let here = seen
        .attachments
        .iter()
        .filter(|a| a.spec.node_name == seen.node);
    for attachment in here {
        let claimed = attachment.spec.source.persistent_volume_name.as_deref();
        let volume = seen
            .volumes
            .iter()
            .find(|v| v.metadata.name.as_deref() == claimed && claimed.is_some());
        if volume.is_none_or(|v| !keeps(v)) {
            let own = attachment.metadata.name.as_deref();
            names.insert(claimed.or(own).unwrap_or_default().to_owned());
        }
    }
    names.into_iter().collect()
}

/// Whether a node calls the volume by this name: `kubernetes.io/csi/DRIVER^HANDLE`.
fn is_called(volume: &PersistentVolume, unique: &str) -> bool {
    let csi = volume.spec.as_ref().and_then(|s| s.csi.as_ref());
    let parts = unique
        .strip_prefix("kubernetes.io/csi/")
        .and_then(|rest| rest.split_once('^'));
    csi.is_some_and(|csi| Some((csi.driver.as_str(), csi.volume_handle.as_str())) == parts)
}

/// The claims of a pod; that of an ephemeral volume has the pod's and the volume's name.
fn claims(pod: &Pod) -> Vec<PodKey> {
    let key = PodKey::of(pod);
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
    volumes
        .into_iter()
        .flatten()
        .filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", key.name, v.name)),
            (None, None) => None,
        })
        .map(|name| PodKey::new(key.namespace.clone(), name))
        .collect()
}
