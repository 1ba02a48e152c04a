//! The `fleetwright` binary: everything is in [`cli`].

mod admin;
mod cli;
mod client;
mod cloud;
mod clusters;
mod data_dir;
mod embedded;
mod error;
mod http;
mod images;
mod install;
mod kubernetes;
mod leadership;
mod metrics;
mod notes;
mod object;
mod output;
mod overview;
mod progress;
mod providers;
mod pulls;
mod repository;
mod screen;
mod setup;
mod state;
mod telemetry;
mod tokens;
mod trail;
mod wiring;

use std::process::ExitCode;

/// JSON values are many small allocations; this allocator takes a fifth off the CPU of a write.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
