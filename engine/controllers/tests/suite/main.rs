//! Integration tests of the controllers.

mod changes;
mod deletion;
mod faults;
mod kinds;
mod kit;
mod lifecycle;
mod upgrades;
