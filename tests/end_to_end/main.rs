//! The program as its users meet it: real processes, real Git, real HTTP.

#[cfg(test)]
mod approvals;
#[cfg(test)]
mod audit;
#[cfg(feature = "aws")]
#[cfg(test)]
mod aws;
#[cfg(test)]
mod cloud;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod https;
#[cfg(test)]
mod install;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod leader;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod rollout;
#[cfg(test)]
mod simcloud;
#[cfg(test)]
mod source;
#[cfg(test)]
mod stock;
