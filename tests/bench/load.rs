//! Many connections that send one request after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::{
    process::Process,
    table::percentile,
    wire::{Connection, Target},
};

/// What a load showed.
pub(crate) struct Load {
    /// Requests answered.
    pub(crate) count: usize,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Milliseconds that one in two, and all but one in a hundred, took at most.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU of the server for one request, in microseconds.
    pub(crate) cpu_us: f64,
}

impl Load {
    /// The head of a table of loads.
    pub(crate) const HEAD: [&str; 6] = [
        "load",
        "requests",
        "a second",
        "p50 ms",
        "p99 ms",
        "server CPU µs each",
    ];

    /// Its row.
    pub(crate) fn row(&self, name: &str) -> [String; 6] {
        [
            name.to_owned(),
            self.count.to_string(),
            format!("{:.0}", self.rate),
            format!("{:.2}", self.p50),
            format!("{:.2}", self.p99),
            format!("{:.0}", self.cpu_us),
        ]
    }
}

/// Sends the requests `0..count` that `make` gives over `connections` connections, for at most `patience`. Every answer
/// must have the status code `want`.
pub(crate) async fn run(
    (target, server): (&Target, &Process),
    connections: usize,
    count: usize,
    patience: Duration,
    want: u16,
    make: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> anyhow::Result<Load> {
    let mut open: Vec<Connection> = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(target.connect().await?);
    }
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let before = server.usage()?.cpu;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in open {
        let (next, make) = (Arc::clone(&next), Arc::clone(&make));
        tasks.spawn(async move {
            let mut took: Vec<f64> = Vec::new();
            while begun.elapsed() < patience {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let request = make(number);
                let sent = Instant::now();
                let (code, _) = connection.exchange(&request).await?;
                took.push(sent.elapsed().as_secs_f64() * 1e3);
                anyhow::ensure!(
                    code == want,
                    "a request was answered {code}, not {want}: {}",
                    String::from_utf8_lossy(&request)
                        .chars()
                        .take(200)
                        .collect::<String>()
                );
            }
            Ok(took)
        });
    }
    let mut took = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        took.extend(done.context("a connection broke")??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = server.usage()?.cpu - before;
    took.sort_by(f64::total_cmp);
    let count = took.len();
    Ok(Load {
        count,
        rate: count as f64 / seconds,
        p50: percentile(&took, 50),
        p99: percentile(&took, 99),
        cpu_us: cpu * 1e6 / count as f64,
    })
}
