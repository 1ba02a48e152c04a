//! Pure decisions: plan, rollout, scale, drain, control plane, checks.
//!
//! Nothing here reads a clock, a file or a network: time, live objects and the providers' schemas come in
//! as arguments, and what is to be done comes out as data that says why. The controllers act on it, the
//! planner runs the same functions on an idealised model.

pub mod addons;
pub mod catalogue;
pub mod cluster;
pub mod compare;
pub mod content;
pub mod control_plane;
pub mod disruption;
pub mod drain;
pub mod drift;
pub mod external;
pub mod group;
pub mod health;
pub mod images;
pub mod machine;
pub mod machine_set;
pub mod managed;
pub mod manifests;
pub mod outcome;
pub mod plan;
pub mod pool_version;
pub mod quorum;
pub mod rebuild;
pub mod rollout;
pub mod selector;
pub mod status;
pub mod upgrade;
pub mod waves;
pub mod why;
pub mod yaml;
