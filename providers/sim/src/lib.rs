//! The simulated cloud: instances that boot, register nodes in their clusters' APIs and go; with faults
//! that are asked for, and a journal of every call.

pub mod cloud;
mod clusters;
pub mod config;
pub mod faults;
mod instance;
pub mod journal;
mod provider;

pub use cloud::{Cloud, CloudError, CloudOptions};
pub use faults::{Fault, FaultEffect, Faults};
pub use journal::{Entry, Journal};
