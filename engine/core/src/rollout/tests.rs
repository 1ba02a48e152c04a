//! Cluster API's own tables of rollouts, row by row (its tests' names stand beside each), and whole rollouts in random order.
//! Its rows on machines that move between sets in place are left out: we move none.

mod decide;
mod exceptions;
mod history;
mod random;
mod revisions;
mod sequences;
mod tables;
