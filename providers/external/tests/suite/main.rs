//! The provider over a real API server.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod life;
