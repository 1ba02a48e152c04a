//! What the tests of the whole share.

pub mod conformance;
pub mod reference;
pub mod tools;
