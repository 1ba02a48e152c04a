//! Git source, loading, apply, inventory and prune.
