//! Git source, loading, apply, inventory and prune.
//!
//! [`sync`] follows every Fleet; a [`follow::Follower`] [`read`]s the [`source`], [`load`]s the files, plans against what
//! [`gather`] lists, [`apply`]s, and tells through [`wishes`] what [`settle`] finds out.

mod accounts;
mod annotate;
pub mod apply;
pub mod depends;
pub mod edit;
pub mod fleets;
pub mod follow;
pub mod foretell;
pub mod gather;
mod health;
pub mod held;
pub mod json_schema;
pub mod load;
mod metrics;
pub mod notes;
mod progress;
pub mod read;
pub mod report;
pub mod settle;
pub mod source;
mod staging;
pub mod sync;
mod tell;
pub mod wishes;

pub use annotate::render;
use fleetwright_core::yaml;
pub use metrics::Metrics;
