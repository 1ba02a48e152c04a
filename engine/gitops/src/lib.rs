//! Git source, loading, apply, inventory and prune.

pub mod load;
pub mod yaml;
