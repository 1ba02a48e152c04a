//! Kinds, conditions, names, versions and CRDs of Fleetwright.
