//! Connections to workload clusters that serve over TLS on loopback.

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod memory;
