//! One binary for all tests of the whole: linking is what costs.

#[cfg(test)]
mod api;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod container;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod kubectl;
#[cfg(test)]
mod mutated;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod security;
