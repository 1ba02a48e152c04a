//! The simulated cloud: instances, nodes, pods, faults and a journal.

pub mod faults;
pub mod journal;

pub use faults::{Fault, FaultEffect, Faults};
pub use journal::{Entry, Journal};
