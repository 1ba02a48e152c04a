//! The simulated cloud, in process and over HTTP.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod life;
#[cfg(test)]
mod service;
