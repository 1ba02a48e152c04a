//! One seed is one run, in whichever process.

use std::process::{Command, Stdio};

#[test]
fn two_processes_tell_the_same_byte_for_byte() {
    let runs: Vec<_> = (0..2)
        .map(|_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_fleetwright-simulation"));
            command.args(["--first-seed", "5007", "--journal"]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let told: Vec<String> = runs
        .into_iter()
        .map(|run| {
            let output = run.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{text}");
            text
        })
        .collect();
    // The whole history: every change of every object, every call of the cloud.
    assert!(told[0].lines().count() > 1000, "{}", told[0]);
    assert!(told[0].lines().any(|l| l.starts_with("digest ")));
    assert!(told[0] == told[1], "the two differ");
}
