//! Architecture, conformance and end-to-end tests.
