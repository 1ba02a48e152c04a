//! The tables of `facts/capi.md` parts 3.1 to 3.4, and whole rollouts in random order.

mod decide;
mod sequences;
mod tables;
