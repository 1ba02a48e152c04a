//! Tests of the provider against moto, with microburst in front where calls are to go wrong.
//!
//! Between the two stands a proxy of our own that remembers client tokens: no emulator does. Each test has a region to itself.

mod auth;
mod bootstrap;
mod conformance;
mod docs;
mod endpoint;
mod faults;
mod images;
mod kit;
mod life;
