//! Simulated days of whole fleets, decided by a seed: `make simulate SEEDS=n FIRST_SEED=m`.
//!
//! One seed is one run: the API server over a store in memory, the simulated cloud, the controllers, the sync and the outbox, on one
//! thread and on a clock that stands still while anything is to be done. A checker looks on from outside.
#![allow(
    missing_docs,
    clippy::print_stdout,
    reason = "a program that tells what it finds"
)]

mod acts;
#[cfg(feature = "seeded-bugs")]
mod bugs;
mod chance;
mod checker;
mod clock;
mod engine;
mod fleet;
mod forecast;
mod life;
mod places;
mod run;
mod script;
mod waves;
mod weather;
mod wire;
mod world;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::Parser;

use crate::run::Outcome;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is run.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// How many run at a time; as many as there are processors when left out.
    #[arg(long)]
    threads: Option<usize>,
    /// Prints all that happened.
    #[arg(long)]
    journal: bool,
    /// Prints the digest of each seed.
    #[arg(long)]
    digests: bool,
    /// Makes this mistake on purpose.
    #[cfg(feature = "seeded-bugs")]
    #[arg(long)]
    bug: Option<String>,
    /// Makes each mistake that there is, one after the other, and shows which seed finds it.
    #[cfg(feature = "seeded-bugs")]
    #[arg(long)]
    each_bug: bool,
    /// Looks for this invariant alone, such as `I3`: what else breaks is passed over.
    #[arg(long)]
    only: Option<String>,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .init();
    }
    #[cfg(feature = "seeded-bugs")]
    if args.each_bug {
        return bugs::each(&args);
    }
    #[cfg(feature = "seeded-bugs")]
    if let Some(bug) = &args.bug
        && !fleetwright_api::bugs::choose(bug)
    {
        println!(
            "there is no mistake {bug:?}; there are: {}",
            fleetwright_api::bugs::ALL.join(", ")
        );
        return ExitCode::FAILURE;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(processors);
    let next = AtomicU64::new(args.first_seed);
    let end = args.first_seed.saturating_add(args.seeds);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = run::run(seed, args.journal);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    if tally.add(seed, outcome, &args) && !args.keep_going {
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.print();
    if tally.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What came of all runs.
#[derive(Default)]
struct Tally {
    seeds: u64,
    seconds: u64,
    made: usize,
    writes: u64,
    fired: BTreeMap<&'static str, (u64, u64)>,
    broken: BTreeMap<&'static str, Vec<u64>>,
}

impl Tally {
    /// Adds a run; gives whether something broke.
    fn add(&mut self, seed: u64, outcome: Result<Outcome, String>, args: &Args) -> bool {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                println!("seed {seed} cannot run: {error}");
                self.broken.entry("harness").or_default().push(seed);
                return true;
            }
        };
        self.seeds += 1;
        self.seconds += outcome.seconds;
        self.made += outcome.made;
        self.writes += outcome.writes;
        for (kind, count) in &outcome.fired {
            let (times, seeds) = self.fired.entry(kind.word()).or_default();
            *times += count;
            *seeds += 1;
        }
        if args.journal {
            outcome.lines.iter().for_each(|line| println!("{line}"));
            println!("digest {:016x}", outcome.digest);
        }
        if args.digests {
            println!("seed {seed} digest {:016x}", outcome.digest);
        }
        let Some(broken) = outcome.broken else {
            return false;
        };
        if args
            .only
            .as_ref()
            .is_some_and(|only| only != broken.invariant)
        {
            return false;
        }
        self.broken.entry(broken.invariant).or_default().push(seed);
        if !args.keep_going || self.broken[broken.invariant].len() == 1 {
            println!(
                "seed {seed}: {} is broken at {}",
                broken.invariant, broken.at
            );
            println!("  {}", broken.what);
            println!("  what came before:");
            broken
                .history
                .iter()
                .for_each(|line| println!("    {line}"));
            println!("  again: make simulate SEEDS=1 FIRST_SEED={seed}");
        }
        true
    }

    fn print(&self) {
        let days = self.seconds as f64 / 86_400.0;
        println!(
            "{} seeds, {days:.1} simulated days, {} machines made, {} writes",
            self.seeds, self.made, self.writes
        );
        for (kind, (times, seeds)) in &self.fired {
            println!("  {times:>7} times in {seeds:>5} seeds: {kind}");
        }
        for (invariant, seeds) in &self.broken {
            let some: Vec<String> = seeds.iter().take(20).map(u64::to_string).collect();
            println!(
                "{invariant} is broken in {} seeds: {}",
                seeds.len(),
                some.join(", ")
            );
        }
    }
}
