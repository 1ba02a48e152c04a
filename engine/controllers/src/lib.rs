//! Reconcilers over kube's client: Cluster, MachineDeployment, MachineSet, Machine.
//!
//! A reconcile gathers from caches, lets a pure function of `fleetwright-core` decide, and acts. It gets a
//! key and nothing else: what woke it carries no data. Run again without an event, it changes nothing.

mod bootstrap;
mod budgets;
mod cache;
mod certificates;
mod context;
mod credentials;
mod drain;
mod drift;
mod escrow;
mod etcd;
mod health;
mod images;
mod inventory;
mod lists;
mod metrics;
mod node_sync;
mod nodes;
mod pause;
mod provided;
mod queue;
mod reconcile;
mod refusals;
mod rooms;
mod run;
mod schedule;
mod snapshots;
mod storms;
mod together;
mod trail;
mod wake;
mod write;

pub use self::escrow::Escrow;
pub use context::Context;
pub use credentials::with_credentials;
pub use metrics::Metrics;
pub use run::Controllers;
