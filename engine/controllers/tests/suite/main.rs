//! The controllers against a real API server and the simulated cloud.

#[cfg(test)]
mod addons;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod boots;
#[cfg(test)]
mod budgets;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod components;
#[cfg(test)]
mod control_plane;
#[cfg(test)]
mod deletion;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod drift;
#[cfg(test)]
mod drift_corrected;
#[cfg(test)]
mod estate;
#[cfg(test)]
mod external;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod health;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod kubeadm;
#[cfg(test)]
mod kubeconfigs;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod lines;
#[cfg(test)]
mod managed;
#[cfg(test)]
mod managed_pools;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod ordered;
#[cfg(test)]
mod rebuilt;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod sets;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod storms;
#[cfg(test)]
mod trail;
#[cfg(test)]
mod upgrades;
#[cfg(test)]
mod ward;
