//! The `fleetwright` binary: everything is in [`cli`].

mod cli;
mod client;
mod data_dir;
mod error;
mod overview;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
