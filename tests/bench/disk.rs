//! How long the disk takes to make a write durable.

use std::{io::Write as _, path::Path, time::Instant};

use crate::table::{percentile, say};

const WRITES: usize = 200;

/// Prints the machine's cores and load, and the latency of a 4 KiB write with fdatasync in `folder`.
pub(crate) fn report(folder: &Path) -> anyhow::Result<()> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut took = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begun = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    say(format_args!(
        "machine: {cores} cores shared with the load generator, load before the start {load}; 4 KiB write + fdatasync: p50 {:.2} ms, p99 {:.2} ms",
        percentile(&took, 50),
        percentile(&took, 99)
    ));
    Ok(())
}
