//! The way to real workload clusters, by the kubeconfigs that Secrets hold.
//!
//! A kubeconfig comes from whoever may write a Secret, and is read as untrusted: it may not run a program, name a file of this machine
//! or do without TLS ([`kubeconfig`]). Each cluster has one client for as long as its Secret stays as it is ([`Connections`]).

mod back_off;
mod certificates;
mod client;
mod connections;
mod etcd;
pub mod kubeconfig;
mod pods;

pub use connections::Connections;
pub use etcd::Etcd;
