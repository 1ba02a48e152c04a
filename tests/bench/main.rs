//! What the engine and its API server cost, measured from outside on real processes: `make bench`.
//!
//! Every figure is of the process under test alone; the load comes from this process, on the same machine. State is on
//! disk in Cargo's folder for temporary files. Loads go to loopback addresses only.

mod api;
mod bounds;
mod disk;
mod fleet;
mod inside;
mod load;
mod plan;
mod process;
mod profile;
mod scale;
mod size;
mod table;
mod wire;

use std::{path::Path, process::ExitCode};

use clap::Parser;

use crate::table::say;

/// The allocator that the engine has: a part of it runs in this process too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured, and how much of it.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Machines of the smaller fleet; the larger one has twice as many.
    #[arg(long, default_value_t = 1000)]
    machines: usize,
    /// Machines of the largest fleet of the part `scale`.
    #[arg(long, default_value_t = 10_000)]
    largest: usize,
    /// Records with perf where the engine's CPU goes in the part `scale`.
    #[arg(long)]
    profile: bool,
    /// Objects that the API server is filled with.
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Objects of the part `size`.
    #[arg(long, default_value_t = 100_000)]
    many: usize,
    /// Clusters of the part `plan`; each has five pools.
    #[arg(long, default_value_t = 2000)]
    clusters: usize,
    /// Connections that load the API server.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Watchers of one write.
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Only the parts named.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// What Cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Fleets of many clusters, from nothing to running, in two sizes.
    Fleet,
    /// A fleet of one cluster with one pool.
    Large,
    /// One cluster of a fleet upgraded.
    Upgrade,
    /// Fleets of up to 10,000 machines against their bounds, upgraded and left alone.
    Scale,
    /// The API server alone.
    Api,
    /// The API server with many objects: memory, start, and what a write then costs.
    Size,
    /// The API server within this process, without a socket.
    Process,
    /// Plans of a large fleet in which nothing changed, against their bounds.
    Plan,
}

impl Args {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("the benchmark failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    disk::report(folder)?;
    if [Part::Fleet, Part::Large, Part::Upgrade]
        .into_iter()
        .any(|part| args.has(part))
    {
        fleet::report(args, folder).await?;
    }
    if args.has(Part::Scale) {
        scale::report(args, folder).await?;
    }
    if args.has(Part::Api) {
        api::report(args, folder).await?;
    }
    if args.has(Part::Size) {
        size::report(args, folder).await?;
    }
    if args.has(Part::Process) {
        inside::report(args, folder).await?;
    }
    if args.has(Part::Plan) {
        plan::report(args).await?;
    }
    Ok(())
}
