//! Plain output.

use std::fmt::Arguments;

/// Prints a line.
#[expect(
    clippy::print_stdout,
    reason = "the figures are what a benchmark is for"
)]
pub(crate) fn say(line: Arguments<'_>) {
    println!("{line}");
}

/// A table with a title; numbers are put to the right.
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self {
            title: title.into(),
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self) {
        say(format_args!("\n{}", self.title));
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(n));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        for row in &self.rows {
            let mut line = String::new();
            for (n, width) in (0..columns).map(|n| (n, width(n))) {
                let cell = row.get(n).map_or("", String::as_str);
                if n == 0 {
                    line.push_str(&format!("  {cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            say(format_args!("{}", line.trim_end()));
        }
    }
}

/// The value below which `percent` of the sorted values are.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = sorted.len() * percent / 100;
    sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
}
