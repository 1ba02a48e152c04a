//! Kinds, conditions, names, versions and CRDs of Fleetwright: the leaf that every other crate shares.
//!
//! Names, phases, condition types and label meanings follow Cluster API v1beta2 wherever the concept
//! is the same, under the group [`GROUP`].

#[cfg(feature = "seeded-bugs")]
pub mod bugs;
pub mod cluster;
pub mod commit_status;
pub mod condition;
pub mod crds;
pub mod decision;
pub mod disruption;
pub mod drift;
pub mod external_instance;
pub mod fleet;
pub mod machine;
pub mod machine_deployment;
pub mod machine_drain_rule;
pub mod machine_health_check;
pub mod machine_set;
pub mod meta;
pub mod names;
pub mod provider_account;
pub mod provider_config;
pub mod random;
pub mod secret;
pub mod time;
pub mod version;
pub mod waves;

pub use cluster::Cluster;
pub use commit_status::CommitStatus;
pub use external_instance::ExternalInstance;
pub use fleet::Fleet;
pub use machine::Machine;
pub use machine_deployment::MachineDeployment;
pub use machine_drain_rule::MachineDrainRule;
pub use machine_health_check::MachineHealthCheck;
pub use machine_set::MachineSet;
pub use provider_account::ProviderAccount;
pub use provider_config::ProviderConfig;

/// API group of all our kinds.
pub const GROUP: &str = "fleetwright.dev";
/// The one served version of our kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of our kinds.
pub const API_VERSION: &str = "fleetwright.dev/v1alpha1";
