//! Following Fleets against a real API server, real directories and real repositories.

#[cfg(test)]
mod apart;
#[cfg(test)]
mod apply;
#[cfg(test)]
mod clusters;
#[cfg(test)]
mod commits;
#[cfg(test)]
mod drift;
#[cfg(test)]
mod fleets;
#[cfg(test)]
mod health;
#[cfg(test)]
mod held;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod looping;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod prune;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod trail;
#[cfg(test)]
mod waves;
