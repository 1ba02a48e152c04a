//! Conditions: types and reasons of Cluster API v1beta2, and the merge that keeps transition times.

use jiff::Timestamp;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::time::k8s_time;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => { $($(#[$doc])* pub const $name: &str = $value;)* };
}

/// Condition types.
pub mod kind {
    names! {
        /// The object can be used.
        AVAILABLE = "Available";
        /// The object is ready.
        READY = "Ready";
        /// The machine's content is what its owner wants.
        UP_TO_DATE = "UpToDate";
        /// Machines are being replaced.
        ROLLING_OUT = "RollingOut";
        /// Machines are being added.
        SCALING_UP = "ScalingUp";
        /// Machines are being removed.
        SCALING_DOWN = "ScalingDown";
        /// The object is on its way out.
        DELETING = "Deleting";
        /// Controllers leave the object alone.
        PAUSED = "Paused";
        /// All machines are ready.
        MACHINES_READY = "MachinesReady";
        /// All machines are up to date.
        MACHINES_UP_TO_DATE = "MachinesUpToDate";
        /// The provider's instance runs.
        INFRASTRUCTURE_READY = "InfrastructureReady";
        /// The node is healthy.
        NODE_HEALTHY = "NodeHealthy";
        /// The node's own Ready condition.
        NODE_READY = "NodeReady";
        /// The control plane's first machine has served.
        CONTROL_PLANE_INITIALIZED = "ControlPlaneInitialized";
        /// The control plane can be used.
        CONTROL_PLANE_AVAILABLE = "ControlPlaneAvailable";
        /// The workers can be used.
        WORKERS_AVAILABLE = "WorkersAvailable";
        /// All control-plane machines are ready.
        CONTROL_PLANE_MACHINES_READY = "ControlPlaneMachinesReady";
        /// All control-plane machines are up to date.
        CONTROL_PLANE_MACHINES_UP_TO_DATE = "ControlPlaneMachinesUpToDate";
        /// All workers are ready.
        WORKER_MACHINES_READY = "WorkerMachinesReady";
        /// All workers are up to date.
        WORKER_MACHINES_UP_TO_DATE = "WorkerMachinesUpToDate";
        /// The workload cluster's API answers.
        REMOTE_CONNECTION_PROBE = "RemoteConnectionProbe";
        /// The wanted version is below the running one: the control plane stays where it is.
        VERSION_HELD = "VersionHeld";
        /// No health check finds the machine broken.
        HEALTH_CHECK_SUCCEEDED = "HealthCheckSucceeded";
        /// False while a broken machine is to be replaced by its owner.
        OWNER_REMEDIATED = "OwnerRemediated";
        /// Machines are being replaced because they are broken.
        REMEDIATING = "Remediating";
        /// Broken machines may be replaced.
        REMEDIATION_ALLOWED = "RemediationAllowed";
        /// etcd has a quorum of healthy members.
        ETCD_CLUSTER_HEALTHY = "EtcdClusterHealthy";
        /// The machine's etcd member is healthy.
        ETCD_MEMBER_HEALTHY = "EtcdMemberHealthy";
        /// The control plane's parts run on all its machines.
        CONTROL_PLANE_COMPONENTS_HEALTHY = "ControlPlaneComponentsHealthy";
        /// The machine's API server runs.
        API_SERVER_POD_HEALTHY = "APIServerPodHealthy";
        /// The machine's controller manager runs.
        CONTROLLER_MANAGER_POD_HEALTHY = "ControllerManagerPodHealthy";
        /// The machine's scheduler runs.
        SCHEDULER_POD_HEALTHY = "SchedulerPodHealthy";
        /// The machine's etcd runs.
        ETCD_POD_HEALTHY = "EtcdPodHealthy";
        /// The cluster's keys and certificates are there.
        CERTIFICATES_AVAILABLE = "CertificatesAvailable";
        /// Something stands in the way of the upgrade: nothing of it moves.
        UPGRADE_BLOCKED = "UpgradeBlocked";
        /// The live state equals Git's.
        IN_SYNC = "InSync";
        /// Providers let a Fleet use the accounts that its clusters name.
        ACCOUNTS_READY = "AccountsReady";
        /// The cluster has its bootstrap manifests as they are wanted.
        BOOTSTRAP_MANIFESTS_APPLIED = "BootstrapManifestsApplied";
        /// What kubeadm installed is what the control plane's version comes with.
        ADDONS_UP_TO_DATE = "AddonsUpToDate";
    }
}

/// Condition reasons.
pub mod reason {
    names! {
        /// See [`super::kind::AVAILABLE`].
        AVAILABLE = "Available";
        /// See [`super::kind::AVAILABLE`].
        NOT_AVAILABLE = "NotAvailable";
        /// See [`super::kind::READY`].
        READY = "Ready";
        /// See [`super::kind::READY`].
        NOT_READY = "NotReady";
        /// See [`super::kind::READY`].
        READY_UNKNOWN = "ReadyUnknown";
        /// See [`super::kind::UP_TO_DATE`].
        UP_TO_DATE = "UpToDate";
        /// See [`super::kind::UP_TO_DATE`].
        NOT_UP_TO_DATE = "NotUpToDate";
        /// No machines to speak of.
        NO_REPLICAS = "NoReplicas";
        /// No pools to speak of.
        NO_WORKERS = "NoWorkers";
        /// See [`super::kind::ROLLING_OUT`].
        ROLLING_OUT = "RollingOut";
        /// See [`super::kind::ROLLING_OUT`].
        NOT_ROLLING_OUT = "NotRollingOut";
        /// See [`super::kind::SCALING_UP`].
        SCALING_UP = "ScalingUp";
        /// See [`super::kind::SCALING_UP`].
        NOT_SCALING_UP = "NotScalingUp";
        /// See [`super::kind::SCALING_DOWN`].
        SCALING_DOWN = "ScalingDown";
        /// See [`super::kind::SCALING_DOWN`].
        NOT_SCALING_DOWN = "NotScalingDown";
        /// See [`super::kind::DELETING`].
        DELETING = "Deleting";
        /// See [`super::kind::DELETING`].
        NOT_DELETING = "NotDeleting";
        /// See [`super::kind::PAUSED`].
        PAUSED = "Paused";
        /// See [`super::kind::PAUSED`].
        NOT_PAUSED = "NotPaused";
        /// Ready, but not yet for minReadySeconds.
        WAITING_FOR_MIN_READY_SECONDS = "WaitingForMinReadySeconds";
        /// See [`super::kind::NODE_HEALTHY`].
        NODE_HEALTHY = "NodeHealthy";
        /// See [`super::kind::NODE_HEALTHY`].
        NODE_NOT_HEALTHY = "NodeNotHealthy";
        /// No node with the machine's providerID yet.
        NODE_DOES_NOT_EXIST = "NodeDoesNotExist";
        /// The node was there and is gone.
        NODE_DELETED = "NodeDeleted";
        /// See [`super::kind::NODE_READY`].
        NODE_READY = "NodeReady";
        /// See [`super::kind::NODE_READY`].
        NODE_NOT_READY = "NodeNotReady";
        /// See [`super::kind::NODE_HEALTHY`].
        NODE_HEALTHY_UNKNOWN = "NodeHealthyUnknown";
        /// See [`super::kind::NODE_READY`].
        NODE_READY_UNKNOWN = "NodeReadyUnknown";
        /// The cluster's API has not answered for so long that what was known no longer counts.
        CONNECTION_DOWN = "ConnectionDown";
        /// The provider will never make this instance: its settings must change.
        TERMINAL = "Terminal";
        /// The provider does not accept the account's credentials.
        CREDENTIALS_REFUSED = "CredentialsRefused";
        /// A quota of the account is used up.
        QUOTA_EXCEEDED = "QuotaExceeded";
        /// The instance is not there (yet).
        DOES_NOT_EXIST = "ObjectDoesNotExist";
        /// The instance was there and is gone.
        DELETED = "ObjectDeleted";
        /// See [`super::kind::CONTROL_PLANE_INITIALIZED`].
        INITIALIZED = "Initialized";
        /// See [`super::kind::CONTROL_PLANE_INITIALIZED`].
        NOT_INITIALIZED = "NotInitialized";
        /// Deletion waits for a pre-drain hook.
        WAITING_FOR_PRE_DRAIN_HOOK = "WaitingForPreDrainHook";
        /// Deletion drains the node.
        DRAINING_NODE = "DrainingNode";
        /// Deletion waits for volumes.
        WAITING_FOR_VOLUME_DETACH = "WaitingForVolumeDetach";
        /// Deletion waits for a pre-terminate hook.
        WAITING_FOR_PRE_TERMINATE_HOOK = "WaitingForPreTerminateHook";
        /// Deletion waits for the instance.
        WAITING_FOR_INFRASTRUCTURE_DELETION = "WaitingForInfrastructureDeletion";
        /// Deletion removes what the machine booted from.
        WAITING_FOR_BOOTSTRAP_DELETION = "WaitingForBootstrapDeletion";
        /// Deletion removes the node.
        DELETING_NODE = "DeletingNode";
        /// Deletion is through.
        DELETION_COMPLETED = "DeletionCompleted";
        /// Cluster deletion waits for the workers.
        WAITING_FOR_WORKERS_DELETION = "WaitingForWorkersDeletion";
        /// Cluster deletion waits for the control plane.
        WAITING_FOR_CONTROL_PLANE_DELETION = "WaitingForControlPlaneDeletion";
        /// Something that we did not expect; the message has it.
        INTERNAL_ERROR = "InternalError";
        /// See [`super::kind::REMOTE_CONNECTION_PROBE`].
        PROBE_SUCCEEDED = "ProbeSucceeded";
        /// See [`super::kind::REMOTE_CONNECTION_PROBE`].
        PROBE_FAILED = "ProbeFailed";
        /// See [`super::kind::VERSION_HELD`].
        VERSION_BELOW_RUNNING = "VersionBelowRunning";
        /// See [`super::kind::HEALTH_CHECK_SUCCEEDED`].
        HEALTH_CHECK_SUCCEEDED = "HealthCheckSucceeded";
        /// A condition of the node lasts too long.
        UNHEALTHY_NODE = "UnhealthyNode";
        /// A condition of the machine lasts too long.
        UNHEALTHY_MACHINE = "UnhealthyMachine";
        /// No node appeared in time.
        NODE_STARTUP_TIMEOUT = "NodeStartupTimeout";
        /// The instance is gone, and we did not delete it.
        INSTANCE_LOST = "InstanceLost";
        /// The provider gives the instance up: it will never run, or not for long.
        INSTANCE_FAILED = "InstanceFailed";
        /// Somebody asked for the replacement by annotation.
        HAS_REMEDIATE_ANNOTATION = "HasRemediateAnnotation";
        /// The owner is to replace the machine.
        WAITING_FOR_REMEDIATION = "WaitingForRemediation";
        /// The owner cannot replace the machine.
        CANNOT_BE_REMEDIATED = "CannotBeRemediated";
        /// The owner replaces the machine later.
        REMEDIATION_DEFERRED = "RemediationDeferred";
        /// The machine is being deleted because it is broken.
        MACHINE_DELETING = "MachineDeleting";
        /// See [`super::kind::REMEDIATING`].
        REMEDIATING = "Remediating";
        /// See [`super::kind::REMEDIATING`].
        NOT_REMEDIATING = "NotRemediating";
        /// See [`super::kind::REMEDIATION_ALLOWED`].
        REMEDIATION_ALLOWED = "RemediationAllowed";
        /// More machines are broken than the check allows.
        TOO_MANY_UNHEALTHY = "TooManyUnhealthy";
        /// Failures have something in common: replacing machines would not help.
        REMEDIATION_STORM = "RemediationStorm";
        /// See [`super::kind::ETCD_CLUSTER_HEALTHY`].
        HEALTHY = "Healthy";
        /// See [`super::kind::ETCD_CLUSTER_HEALTHY`].
        NOT_HEALTHY = "NotHealthy";
        /// See [`super::kind::API_SERVER_POD_HEALTHY`].
        RUNNING = "Running";
        /// The pod is there and is not ready yet.
        PROVISIONING = "Provisioning";
        /// The pod was not seen, though that of another machine was.
        POD_DOES_NOT_EXIST = "DoesNotExist";
        /// The pod does not come up, or has ended.
        FAILED = "Failed";
        /// It could not be asked.
        INSPECTION_FAILED = "InspectionFailed";
        /// A disruption budget allows no more machines out of service.
        DISRUPTION_BUDGET = "DisruptionBudget";
        /// The Fleet does not allow the wanted version.
        VERSION_NOT_ALLOWED = "VersionNotAllowed";
        /// A version is missing on the way to the wanted one.
        VERSION_MISSING = "VersionMissing";
        /// The provider has no image of a version on the way.
        IMAGE_MISSING = "ImageMissing";
        /// No snapshot of etcd could be kept before the next minor version.
        SNAPSHOT_FAILED = "SnapshotFailed";
        /// A pool pins a version that the control plane would leave too far behind.
        POOL_PINNED = "PoolPinned";
        /// See [`super::kind::IN_SYNC`].
        IN_SYNC = "InSync";
        /// Something differs though nobody declared it.
        DRIFTED = "Drifted";
        /// Nobody can tell whether something differs.
        UNREADABLE = "Unreadable";
        /// The version is not held.
        NOT_HELD = "NotHeld";
        /// See [`super::kind::BOOTSTRAP_MANIFESTS_APPLIED`].
        APPLIED = "Applied";
        /// They are on their way to the cluster.
        APPLYING = "Applying";
        /// The cluster will not take them as they are: they must change.
        REFUSED = "Refused";
        /// See [`super::kind::ADDONS_UP_TO_DATE`].
        ADDONS_BEHIND = "AddonsBehind";
        /// Somebody has to do the rest.
        LEFT_ALONE = "LeftAlone";
    }
}

/// Three-valued status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

impl Status {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Puts a condition into `conditions`, sorted by type; the transition time stays when the status did not change.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Status,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut new = Condition {
        type_: kind.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: k8s_time(now),
    };
    match conditions.binary_search_by(|c| c.type_.as_str().cmp(kind)) {
        Ok(at) => {
            if conditions[at].status == new.status {
                new.last_transition_time = conditions[at].last_transition_time.clone();
            }
            conditions[at] = new;
        }
        Err(_) => {
            if let Some(old) = get(conditions, kind) {
                if old.status == new.status {
                    new.last_transition_time = old.last_transition_time.clone();
                }
                conditions.retain(|c| c.type_ != kind);
            }
            conditions.push(new);
            conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        }
    }
}

/// The condition of type `kind`.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Whether the condition of type `kind` is there and True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|c| c.status == "True")
}

/// Whether the condition of type `kind` is there and False.
pub fn is_false(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|c| c.status == "False")
}
