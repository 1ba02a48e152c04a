//! The provider trait, its registry and its conformance suite.
