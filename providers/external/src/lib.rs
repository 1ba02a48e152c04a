//! Machines that somebody else makes: each is ordered by an ExternalInstance, and shown as its status says.
//!
//! An order has a name that follows from the Machine and its instance key, so that no answer that was lost makes a second one. It stays
//! until whoever runs the machine has given it back: only an order that nobody has taken up is withdrawn.

mod bootstrap;
mod config;
mod errors;
mod order;
mod provider;

pub use config::{API_VERSION, CLUSTER_CONFIG, MACHINE_CONFIG, PROVIDER, schemas};
pub use order::provider_id;
pub use provider::External;
