//! From an instance to a node, as functions of values: a cluster's keys and certificates and their escrow, bootstrap tokens,
//! kubeadm's configuration, user data for each operating system, what kubeadm leaves to others at an upgrade, and which
//! serving certificates of kubelets are approved.
//!
//! Nothing here reads a clock, a file or a network. Keys alone come from the operating system's entropy.

pub mod csr;
pub mod discovery;
pub mod escrow;
pub mod kubeadm;
pub mod kubeconfig;
pub mod pki;
pub mod setup;
pub mod step;
pub mod token;
pub mod user_data;

pub(crate) mod shell;
pub(crate) mod yaml;

#[cfg(test)]
pub(crate) mod testing;
