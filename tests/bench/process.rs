//! A process under test, and what it has used so far.

use std::process::Stdio;

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};

/// Clock ticks in a second, as /proc counts CPU time on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A running `fleetwright`; it ends with this value.
pub(crate) struct Process {
    child: Child,
    told: Vec<String>,
    /// Reads on, so that a full pipe never holds the process up.
    _drain: JoinSet<()>,
}

/// What a process has used since it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time of all threads, in seconds.
    pub(crate) cpu: f64,
    /// The most memory that was ever resident, in MiB.
    pub(crate) peak: f64,
    /// What is resident now, in MiB.
    pub(crate) resident: f64,
}

impl Usage {
    /// What the process of this id has used so far; `self` is this one.
    pub(crate) fn of(id: &str) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th fields after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|text| text.parse::<f64>().ok())
            .sum();
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(f64::NAN) / 1024.0
        };
        Ok(Self {
            cpu: ticks / TICKS,
            peak: mib("VmHWM:"),
            resident: mib("VmRSS:"),
        })
    }
}

impl Process {
    /// Starts it, and reads its output up to the line that begins with `last`.
    pub(crate) async fn start(args: &[&str], last: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fleetwright"))
            .args(args)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start fleetwright")?;
        let stdout: ChildStdout = child.stdout.take().context("it has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut told: Vec<String> = Vec::new();
        while !told.last().is_some_and(|line| line.starts_with(last)) {
            let line = lines.next_line().await?;
            told.push(
                line.with_context(|| format!("fleetwright {} ended: {told:?}", args.join(" ")))?,
            );
        }
        let mut drain = JoinSet::new();
        drain.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            child,
            told,
            _drain: drain,
        })
    }

    /// What it told about `name`.
    pub(crate) fn told(&self, name: &str) -> anyhow::Result<&str> {
        let line = self.told.iter().find_map(|line| line.strip_prefix(name));
        Ok(line
            .with_context(|| format!("no {name} in {:?}", self.told))?
            .trim())
    }

    /// Its id.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process ended")
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(&self.id()?.to_string())
    }

    /// Asks it to end, as Ctrl-C does, and waits for that.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.child.id() {
            let id = id.to_string();
            Command::new("kill").args(["-INT", &id]).status().await?;
        }
        self.child.wait().await?;
        Ok(())
    }
}
