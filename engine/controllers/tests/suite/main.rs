//! The controllers against a real API server and the simulated cloud.

#[cfg(test)]
mod lifecycle;
