//! The simulated cloud: instances, nodes, pods, faults and a journal.
