//! Git source, loading, apply, inventory and prune.

pub mod apply;
pub mod gather;
pub mod load;
pub mod source;
pub mod yaml;
