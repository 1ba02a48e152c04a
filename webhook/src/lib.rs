//! Webhook receivers, forge clients and the commit status outbox.
//!
//! Forges are GitHub, GitLab, and Gitea or Forgejo. A webhook only wakes a fetch and is never believed. A commit status is an object first
//! ([`fleetwright_api::CommitStatus`]) and a request to the forge afterwards, so that none is lost.

pub mod forge;
mod metrics;
pub mod outbox;
pub mod pull_requests;
pub mod receiver;
pub mod repository;
pub mod seen;
pub mod signature;

pub use metrics::Metrics;
