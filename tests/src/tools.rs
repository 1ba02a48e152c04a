//! Programs that tests run and that a machine may lack.

use std::path::PathBuf;

/// The only programs for whose absence a test may be skipped.
const SKIPPABLE: &[&str] = &["kubectl"];

/// Where a program is; `None`, with a line that says so, when a test that needs it is to be skipped.
///
/// # Panics
/// When it is missing where nothing may be skipped (`FLEETWRIGHT_NO_SKIPS` is set, as in continuous integration), or
/// when no test may be skipped for it.
#[expect(clippy::panic, clippy::print_stderr, reason = "tests alone call it")]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(SKIPPABLE.contains(&name), "{name} is not installed");
        if std::env::var_os("FLEETWRIGHT_NO_SKIPS").is_some() {
            panic!("{name} is not installed, and nothing may be skipped here");
        }
        eprintln!("skipped: {name} is not installed");
    }
    found
}
