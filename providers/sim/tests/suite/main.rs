//! The simulated cloud, in process and over HTTP.

#[cfg(test)]
mod clusters;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod life;
#[cfg(test)]
mod service;
