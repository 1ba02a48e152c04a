//! What commands print: text for people, JSON or YAML for programs.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Failure;

/// Form of a command's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    #[value(alias = "table")]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Output {
    /// Prints `document`, or for people what `text` makes of it.
    ///
    /// # Errors
    /// It cannot be written as JSON or YAML.
    pub(crate) fn print<T: Serialize>(
        self,
        document: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let cannot = |e: &dyn std::fmt::Display| {
            Failure::from(anyhow::anyhow!("cannot write the output: {e}"))
        };
        let text = match self {
            Self::Text => paint(text(), is_coloured()),
            Self::Json => {
                let text = serde_json::to_string_pretty(document).map_err(|e| cannot(&e))?;
                text + "\n"
            }
            Self::Yaml => serde_saphyr::to_string(document).map_err(|e| cannot(&e))?,
        };
        print(&text);
        Ok(())
    }
}

/// Rows as columns, two spaces apart.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0))
        .map(width)
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

/// Prints text as it is. A reader that has gone ends the printing, not the command.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .ok();
}

/// Colours are for terminals, and not for those who do not want them (no-color.org).
fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Lines that create, delete, change or refuse in the colours that diffs have everywhere.
fn paint(text: String, coloured: bool) -> String {
    if !coloured {
        return text;
    }
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.split_inclusive('\n') {
        let colour = match line.trim_start().split(' ').next() {
            Some("+") => "32",
            Some("-") => "31",
            Some("~") => "33",
            Some("!") => "1;31",
            _ => "",
        };
        match line.strip_suffix('\n') {
            Some(body) if !colour.is_empty() => {
                out.push_str(&format!("\x1b[{colour}m{body}\x1b[0m\n"));
            }
            _ => out.push_str(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_sign_of_the_line() {
        let text = "+ Cluster a\n  -   size: 1\nplain\n".to_owned();
        assert_eq!(paint(text.clone(), false), text);
        assert_eq!(
            paint(text, true),
            "\x1b[32m+ Cluster a\x1b[0m\n\x1b[31m  -   size: 1\x1b[0m\nplain\n"
        );
    }
}
