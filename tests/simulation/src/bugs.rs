//! Shows that the checker bites: each mistake of the list is made in a process of its own, until a seed finds it.

use std::process::{Command, ExitCode};

use crate::Args;

/// Makes each mistake; fails when one is not found.
pub(crate) fn each(args: &Args) -> ExitCode {
    let Ok(program) = std::env::current_exe() else {
        println!("the program does not know where it is");
        return ExitCode::FAILURE;
    };
    let mut missed = 0;
    for bug in fleetwright_api::bugs::ALL {
        let mut command = Command::new(&program);
        command.args(["--bug", bug]);
        command.args(["--seeds", &args.seeds.to_string()]);
        command.args(["--first-seed", &args.first_seed.to_string()]);
        // Each is to be found as what it is.
        let invariant = bug.split('-').next().unwrap_or_default().to_uppercase();
        if invariant.starts_with('I') {
            command.args(["--only", &invariant]);
        }
        if let Some(threads) = args.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let text = match command.output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => error.to_string(),
        };
        let found = text
            .lines()
            .find(|l| l.starts_with("seed ") && l.contains(" is broken at "));
        let ran = text.lines().rev().find(|l| l.contains(" simulated days"));
        let ran = ran.and_then(|l| l.split(" seeds").next()).unwrap_or("no");
        match found {
            Some(line) => println!("{bug}: found after {ran} seeds: {line}"),
            None => {
                missed += 1;
                println!("{bug}: not found in {ran} seeds");
            }
        }
    }
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
