//! Where a process's CPU goes, by threads and, with perf, by functions.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::{Args, process::Process, table::say};

/// Samples a second.
const RATE: &str = "199";
/// Functions shown.
const SHOWN: usize = 30;

/// What a function belongs to: the first row whose word is in its name.
const PARTS: [(&str, &str); 22] = [
    ("[k]", "kernel"),
    ("fleetwright_apiserver", "API server"),
    ("fleetwright_schema", "schema"),
    ("fleetwright_core", "decisions"),
    ("fleetwright_controllers", "controllers"),
    ("fleetwright_store", "store"),
    ("fleetwright_gitops", "Git to API"),
    ("fleetwright_provider", "provider"),
    ("fleetwright_api", "kinds (parse, encode, compare)"),
    ("sqlite3", "SQLite"),
    ("mi_", "memory allocation"),
    ("serde_json", "JSON"),
    ("serde", "JSON"),
    ("rustls", "TLS"),
    ("ring_core", "TLS"),
    ("hyper", "HTTP"),
    ("http", "HTTP"),
    ("tower", "HTTP"),
    ("kube", "Kubernetes client"),
    ("tokio", "tokio"),
    ("btree", "ordered maps"),
    ("mem", "copying and comparing memory"),
];

/// A recording under way.
pub(crate) struct Profile {
    perf: Option<(Child, PathBuf)>,
    before: BTreeMap<String, f64>,
    id: u32,
}

/// What was recorded.
pub(crate) struct Recorded {
    threads: BTreeMap<String, f64>,
    functions: Vec<(f64, String)>,
}

impl Profile {
    /// Begins to record: with perf, where that is there and asked for.
    pub(crate) fn start(process: &Process, args: &Args) -> anyhow::Result<Self> {
        let id = process.id()?;
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("perf-{id}.data"));
        let mut command = Command::new("perf");
        command.args(["record", "-q", "-F", RATE, "-p", &id.to_string(), "-o"]);
        command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let perf = if args.profile {
            Some(command.spawn().context("perf cannot start")?)
        } else {
            None
        };
        Ok(Self {
            perf: perf.map(|child| (child, file)),
            before: threads(id)?,
            id,
        })
    }

    /// Ends the recording.
    pub(crate) async fn end(self) -> anyhow::Result<Recorded> {
        let mut after = threads(self.id)?;
        for (name, seconds) in &mut after {
            *seconds -= self.before.get(name).copied().unwrap_or_default();
        }
        let mut functions = Vec::new();
        if let Some((mut child, file)) = self.perf {
            if let Some(id) = child.id() {
                Command::new("kill")
                    .args(["-INT", &id.to_string()])
                    .status()
                    .await?;
            }
            child.wait().await?;
            let mut report = Command::new("perf");
            report.args([
                "report",
                "--stdio",
                "--no-children",
                "--sort",
                "symbol",
                "-i",
            ]);
            let text = report.arg(&file).output().await?.stdout;
            for line in String::from_utf8_lossy(&text).lines() {
                if let Some((share, name)) = line.trim().split_once('%')
                    && let Ok(share) = share.parse::<f64>()
                {
                    functions.push((share, name.trim().to_owned()));
                }
            }
            std::fs::remove_file(file)?;
        }
        Ok(Recorded {
            threads: after,
            functions,
        })
    }
}

/// CPU seconds of a process's threads, by name.
fn threads(id: u32) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut out = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let path = task?.path();
        let Ok(stat) = std::fs::read_to_string(path.join("schedstat")) else {
            continue;
        };
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let nanos = stat
            .split_whitespace()
            .next()
            .and_then(|n| n.parse::<f64>().ok());
        *out.entry(name.trim().to_owned()).or_default() += nanos.unwrap_or_default() / 1e9;
    }
    Ok(out)
}

impl Recorded {
    /// Prints it.
    pub(crate) fn print(&self) {
        let threads: Vec<_> = self
            .threads
            .iter()
            .filter(|(_, seconds)| **seconds >= 0.01)
            .map(|(name, seconds)| format!("{name} {seconds:.2} s"))
            .collect();
        say(format_args!("  CPU by threads: {}", threads.join(", ")));
        if self.functions.is_empty() {
            return;
        }
        let mut parts: BTreeMap<&str, f64> = BTreeMap::new();
        for (share, name) in &self.functions {
            let part = PARTS.iter().find(|(word, _)| name.contains(word));
            *parts
                .entry(part.map_or("other", |(_, part)| part))
                .or_default() += share;
        }
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let parts: Vec<_> = parts
            .iter()
            .map(|(name, share)| format!("{name} {share:.1} %"))
            .collect();
        say(format_args!(
            "  CPU by what the function belongs to: {}",
            parts.join(", ")
        ));
        for (share, name) in self.functions.iter().take(SHOWN) {
            let name: String = name.chars().take(120).collect();
            say(format_args!("    {share:5.2} %  {name}"));
        }
    }
}
