//! The simulated cloud: instances that boot, register nodes in their clusters' APIs and go; with faults
//! that are asked for, and a journal of every call. In process it is [`Cloud`]; as a process of its own it is
//! served by [`serve()`] and reached through [`RemoteCloud`].

pub mod cloud;
mod clusters;
pub mod config;
pub mod faults;
mod instance;
pub mod journal;
mod provider;
pub mod remote;
pub mod serve;
mod wire;

pub use cloud::{Cloud, CloudError, CloudOptions};
pub use faults::{Fault, FaultEffect, Faults};
pub use journal::{Entry, Journal};
pub use remote::{ConnectError, RemoteCloud};
pub use serve::{ServeError, serve};
