//! The provider trait, its registry and the traits through which workload clusters are reached.
//!
//! A provider is small: it makes, shows, changes and deletes instances. Whatever is asked twice gives the
//! same as asked once: [`Provider::create`] is idempotent by instance key, [`Provider::delete`] of what
//! is gone is no error. Lists are complete or an error, never partial.

pub mod bootstrap;
pub mod conformance;
pub mod connections;
pub mod contract;
pub mod credentials;
pub mod error;
pub mod infrastructure;
pub mod managed;
pub mod registry;

pub use bootstrap::{Bootstrap, NodeId};
pub use connections::{
    ClusterConnections, ClusterRef, ConnectionError, EtcdMember, EtcdMembers, Snapshot,
};
pub use contract::{
    Account, BootImage, ConfigError, ConfigSchema, CreateInstance, Instance, InstanceState,
    ListScope, Ownership, Provider, UpdateInstance, config_errors, lacks_image,
};
pub use credentials::Credentials;
pub use error::ProviderError;
pub use infrastructure::{ControlPlaneEndpoint, Infrastructure, InfrastructureOrder};
pub use registry::Registry;
