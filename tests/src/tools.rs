//! Programs that tests run, and published data that they read, which a machine may lack.

use std::path::PathBuf;
use std::process::Command;

/// The only programs and data for whose absence a test may be skipped.
const SKIPPABLE: &[&str] = &[
    "age",
    "age-keygen",
    "cloud-init",
    "curl",
    "emulators-python",
    "etcd",
    "etcdctl",
    "fakecloud-eks-alone",
    "github-api.json",
    "github-webhooks.json",
    "gpg",
    "kubectl",
    "microburst",
    "moto_server",
    "openssl",
    "prism",
    "shellcheck",
    "ssh-keygen",
    "sshd",
    "strace",
];

/// Where a program is, or data beside the programs, on the PATH; `None`, with a line that says so, when a test that needs it is to be skipped.
///
/// # Panics
/// When it is missing where nothing may be skipped (`FLEETWRIGHT_NO_SKIPS` is set, as in continuous integration), or
/// when no test may be skipped for it.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons are where the PATH of a user who is not root may not lead.
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        skip(name, "is not installed");
    }
    found
}

/// kubectl, at least of minor version `minor`: older ones word some of what they print otherwise.
///
/// # Panics
/// As [`tool`] does.
pub fn kubectl(minor: u32) -> Option<PathBuf> {
    let found = tool("kubectl")?;
    let said = Command::new(&found)
        .args(["version", "--client", "--output=json"])
        .output();
    let told = said
        .ok()
        .and_then(|said| serde_json::from_slice::<serde_json::Value>(&said.stdout).ok())
        .unwrap_or_default();
    let got = &told["clientVersion"]["minor"];
    let number = got.as_str().unwrap_or_default().trim_end_matches('+');
    if number.parse::<u32>().is_ok_and(|got| got >= minor) {
        return Some(found);
    }
    skip(
        "kubectl",
        &format!("is 1.{number}, and 1.{minor} is needed"),
    );
    None
}

#[expect(clippy::panic, clippy::print_stderr, reason = "tests alone call it")]
fn skip(name: &str, why: &str) {
    assert!(SKIPPABLE.contains(&name), "{name} {why}");
    if std::env::var_os("FLEETWRIGHT_NO_SKIPS").is_some() {
        panic!("{name} {why}, and nothing may be skipped here");
    }
    eprintln!("skipped: {name} {why}");
}
