//! The `fleetwright` binary: everything is in [`cli`].

mod cli;
mod client;
mod data_dir;
mod error;
mod http;
mod overview;
mod progress;
mod setup;
mod telemetry;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
