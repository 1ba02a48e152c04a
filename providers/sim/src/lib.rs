//! The simulated cloud: instances that boot, register nodes in their clusters' APIs and go; with faults
//! that are asked for, and a journal of every call. In process it is [`Cloud`]; as a process of its own it is
//! served by [`serve()`] and reached through [`RemoteCloud`].

mod accidents;
pub mod cloud;
mod cluster;
mod clusters;
pub mod config;
pub mod etcd;
pub mod faults;
mod instance;
pub mod journal;
pub mod latency;
mod node;
mod pods;
mod provider;
pub mod quota;
pub mod remote;
pub mod serve;
mod state;
mod volumes;
mod wire;
mod workloads;

pub use cloud::{Cloud, CloudError, CloudOptions, ClusterView};
pub use faults::{Fault, FaultEffect, Faults};
pub use journal::{Entry, Journal};
pub use latency::Latency;
pub use remote::{ConnectError, RemoteCloud};
pub use serve::{ServeError, serve};
