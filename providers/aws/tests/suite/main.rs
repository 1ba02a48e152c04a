//! Tests of the provider against moto, with microburst in front where calls are to go wrong.
//!
//! Between the two stands a proxy of our own that remembers client tokens: no emulator does. Each test has a region to itself, or a moto.

#[cfg(test)]
mod auth;
#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod images;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod life;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod spot;
