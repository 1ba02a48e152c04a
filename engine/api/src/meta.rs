//! Labels, annotations, finalizers and field managers, in one place.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

/// Label on everything that belongs to a cluster: the Cluster's name.
pub const LABEL_CLUSTER_NAME: &str = "fleetwright.dev/cluster-name";
/// Label (empty value) on control-plane Machines.
pub const LABEL_CONTROL_PLANE: &str = "fleetwright.dev/control-plane";
/// Label on sets and machines of a pool: the MachineDeployment's name.
pub const LABEL_DEPLOYMENT_NAME: &str = "fleetwright.dev/deployment-name";
/// Label on machines of a set: the MachineSet's name.
pub const LABEL_SET_NAME: &str = "fleetwright.dev/set-name";
/// Label on sets and their machines: hash of the content that the set was made of.
pub const LABEL_TEMPLATE_HASH: &str = "fleetwright.dev/template-hash";
/// Label on ExternalInstances: name of their ProviderAccount.
pub const LABEL_ACCOUNT: &str = "fleetwright.dev/account";
/// Label on ExternalInstances: their cluster's key.
pub const LABEL_CLUSTER_KEY: &str = "fleetwright.dev/cluster-key";
/// Label on what a Fleet applied: hash of the Fleet's namespace and name (see [`crate::names::fleet_hash`]).
pub const LABEL_FLEET: &str = "fleetwright.dev/fleet";

/// Annotation on what a Fleet applied: the revision that last changed its content.
pub const ANNOTATION_REVISION: &str = "fleetwright.dev/revision";
/// Annotation on a ConfigMap that holds a bootstrap manifest: hash of the manifest ([`crate::cluster::BootstrapManifest`]).
pub const ANNOTATION_CONTENT_HASH: &str = "fleetwright.dev/content-hash";
/// Annotation on a ConfigMap that holds a bootstrap manifest: the file's path, from the folder that the Fleet follows.
pub const ANNOTATION_MANIFEST_PATH: &str = "fleetwright.dev/manifest-path";
/// Annotation: controllers leave the object alone while it is there.
pub const ANNOTATION_PAUSED: &str = "fleetwright.dev/paused";
/// Annotation on a pool: time after which older machines are replaced, put by `rollout restart`.
pub const ANNOTATION_RESTARTED_AT: &str = "fleetwright.dev/restarted-at";
/// Annotation on a pool: roll a changed providerConfig at once, before the pool's worker step.
pub const ANNOTATION_ROLL_NOW: &str = "fleetwright.dev/roll-now";
/// Annotation on sets and control-plane Machines: what they were made for, as JSON.
pub const ANNOTATION_MADE_BECAUSE: &str = "fleetwright.dev/made-because";
/// Annotation on a Machine: delete this one first when scaling down.
pub const ANNOTATION_DELETE_MACHINE: &str = "fleetwright.dev/delete-machine";
/// Annotation on a MachineSet: make no machines.
pub const ANNOTATION_DISABLE_MACHINE_CREATE: &str = "fleetwright.dev/disable-machine-create";
/// Annotation on a pool or Cluster: the ordinal that the next machine gets.
pub const ANNOTATION_NEXT_ORDINAL: &str = "fleetwright.dev/next-ordinal";
/// Annotation on pools and sets: revision of the rollout, a rising number.
pub const ANNOTATION_ROLLOUT_REVISION: &str = "machinedeployment.fleetwright.dev/revision";
/// Annotation on sets: the pool's wanted replicas when the set was last scaled.
pub const ANNOTATION_DESIRED_REPLICAS: &str = "machinedeployment.fleetwright.dev/desired-replicas";
/// Annotation on sets: the pool's wanted replicas plus surge when the set was last scaled.
pub const ANNOTATION_MAX_REPLICAS: &str = "machinedeployment.fleetwright.dev/max-replicas";
/// Annotation on a Cluster: its own uid, as consent to delete it.
pub const ANNOTATION_ALLOW_DELETE: &str = "fleetwright.dev/allow-delete";
/// Annotation on a Fleet: somebody (a webhook, a person) asks to look at the repository now.
pub const ANNOTATION_REQUESTED_AT: &str = "fleetwright.dev/requested-at";
/// Prefix of Machine annotations that hold back the drain; the value names the owner of the hook.
pub const PREFIX_PRE_DRAIN_HOOK: &str = "pre-drain.delete.hook.machine.fleetwright.dev/";
/// Prefix of Machine annotations that hold back the instance's deletion.
pub const PREFIX_PRE_TERMINATE_HOOK: &str = "pre-terminate.delete.hook.machine.fleetwright.dev/";
/// Machine annotation: do not drain its node.
pub const ANNOTATION_EXCLUDE_NODE_DRAINING: &str = "machine.fleetwright.dev/exclude-node-draining";
/// Machine annotation: do not wait until its node's volumes are detached.
pub const ANNOTATION_EXCLUDE_WAIT_FOR_VOLUME_DETACH: &str =
    "machine.fleetwright.dev/exclude-wait-for-node-volume-detach";
/// Machine annotation: the machine counts as broken.
pub const ANNOTATION_REMEDIATE_MACHINE: &str = "fleetwright.dev/remediate-machine";
/// Machine annotation: health checks leave the machine alone.
pub const ANNOTATION_SKIP_REMEDIATION: &str = "fleetwright.dev/skip-remediation";
/// Cluster annotation: the remediation of a control-plane machine that is under way, as JSON.
pub const ANNOTATION_REMEDIATION_IN_PROGRESS: &str =
    "controlplane.fleetwright.dev/remediation-in-progress";
/// Machine annotation: what the machine was made to replace, as JSON.
pub const ANNOTATION_REMEDIATION_FOR: &str = "controlplane.fleetwright.dev/remediation-for";
/// Machine annotation: when the certificates of its API server expire, RFC 3339.
pub const ANNOTATION_CERTIFICATES_EXPIRY: &str = "machine.fleetwright.dev/certificates-expiry";
/// Annotation on a pool or a set: preflight checks that are skipped, comma separated, or `All`.
pub const ANNOTATION_SKIP_PREFLIGHT_CHECKS: &str =
    "machineset.fleetwright.dev/skip-preflight-checks";
/// Label on a pod of a workload cluster: `skip` or `wait-completed`, what a drain does with it.
pub const POD_LABEL_DRAIN: &str = "fleetwright.dev/drain";
/// Taint of nodes that have not got the labels of their machines yet.
pub const TAINT_UNINITIALIZED: &str = "node.fleetwright.dev/uninitialized";
/// Taint of nodes whose machine is being replaced by its pool: evicted pods prefer other nodes.
pub const TAINT_OUTDATED_REVISION: &str = "node.fleetwright.dev/outdated-revision";
/// Cluster-autoscaler's lower bound of a pool.
pub const ANNOTATION_AUTOSCALER_MIN: &str =
    "fleetwright.dev/cluster-api-autoscaler-node-group-min-size";
/// Cluster-autoscaler's upper bound of a pool.
pub const ANNOTATION_AUTOSCALER_MAX: &str =
    "fleetwright.dev/cluster-api-autoscaler-node-group-max-size";

/// Node annotation: the cluster's name.
pub const NODE_ANNOTATION_CLUSTER: &str = "fleetwright.dev/cluster-name";
/// Node annotation: the Machine's name.
pub const NODE_ANNOTATION_MACHINE: &str = "fleetwright.dev/machine";
/// Node annotation: keys of the labels that came from the Machine, comma separated.
pub const NODE_ANNOTATION_LABELS: &str = "fleetwright.dev/labels-from-machine";
/// Node annotation: keys of the annotations that came from the Machine, comma separated.
pub const NODE_ANNOTATION_ANNOTATIONS: &str = "fleetwright.dev/annotations-from-machine";
/// Node annotation: `key:effect` of the taints that came from the Machine, comma separated.
pub const NODE_ANNOTATION_TAINTS: &str = "fleetwright.dev/taints-from-machine";

/// Finalizer of Clusters.
pub const FINALIZER_CLUSTER: &str = "cluster.fleetwright.dev";
/// Finalizer of Fleets whose objects go with them.
pub const FINALIZER_FLEET: &str = "fleet.fleetwright.dev";
/// Finalizer of pools whose nodes their provider runs.
pub const FINALIZER_POOL: &str = "pool.fleetwright.dev";
/// Finalizer of Machines.
pub const FINALIZER_MACHINE: &str = "machine.fleetwright.dev";

/// Finalizer of ExternalInstances: whoever runs the machine removes it once the machine is given back.
pub const FINALIZER_RELEASE: &str = "external.fleetwright.dev/release";

/// Field manager of bootstrap manifests in workload clusters.
pub const MANAGER_BOOTSTRAP: &str = "fleetwright-bootstrap";

/// Field manager that holds values which Git stopped declaring but that must not fall back.
pub const MANAGER_HANDOVER: &str = "fleetwright-handover";

/// Paths whose live value is handed to [`MANAGER_HANDOVER`] when Git stops declaring them: (kind, path).
pub const HANDOVER_PATHS: &[(&str, &[&str])] = &[("MachineDeployment", &["spec", "replicas"])];

/// Field manager of a Fleet's applies.
pub fn fleet_manager(namespace: &str, fleet: &str) -> String {
    format!("fleetwright/{namespace}.{fleet}")
}

/// Namespace and name of the Fleet whose applies a manager stands for; `None` for other managers.
pub fn fleet_of(manager: &str) -> Option<(&str, &str)> {
    // A namespace has no dots, a name may have some.
    manager.strip_prefix("fleetwright/")?.split_once('.')
}

/// A controlling owner reference to `owner`, or `None` when it was never stored.
pub fn controller_owner<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    let mut reference = owner.controller_owner_ref(&())?;
    reference.block_owner_deletion = Some(true);
    Some(reference)
}

/// The owner reference of `object` that is marked as its controller.
pub fn controller_of<K: ResourceExt>(object: &K) -> Option<&OwnerReference> {
    object
        .owner_references()
        .iter()
        .find(|o| o.controller == Some(true))
}

/// Whether the object carries the pause annotation.
pub fn is_paused<K: ResourceExt>(object: &K) -> bool {
    object.annotations().contains_key(ANNOTATION_PAUSED)
}
