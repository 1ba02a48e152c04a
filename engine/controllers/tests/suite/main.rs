//! The controllers against a real API server and the simulated cloud.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod control_plane;
#[cfg(test)]
mod deletion;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod upgrades;
