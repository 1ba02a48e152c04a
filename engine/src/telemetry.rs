//! Logs: one line each, JSON on request, filtered by `RUST_LOG`.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::screen;

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends logs to standard error. `default` is the filter where `RUST_LOG` is not set or cannot be read.
pub(crate) fn start(format: LogFormat, default: &str) {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = filter(wanted.as_deref(), default);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(screen::Log::default)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start (tests in one process) keeps the first subscriber.
    match format {
        LogFormat::Text => builder.with_target(false).try_init().ok(),
        LogFormat::Json => builder.json().flatten_event(true).try_init().ok(),
    };
}

/// The filter that is asked for. The library warns of answers that it cannot read by repeating them whole, and they may be anybody's and
/// large: its warnings are for who asks for them by name.
fn filter(wanted: Option<&str>, default: &str) -> EnvFilter {
    const QUIET: &str = "kube_client::client=error";
    let wanted = wanted.filter(|wanted| EnvFilter::try_new(wanted).is_ok());
    match wanted.unwrap_or(default) {
        wanted if wanted.contains("kube_client") => EnvFilter::new(wanted),
        "" => EnvFilter::new(QUIET),
        wanted => EnvFilter::new(format!("{wanted},{QUIET}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_repeated_in_the_log_for_who_asks_by_name() {
        for (wanted, want) in [
            (None, "kube_client::client=error,info"),
            (Some("debug"), "kube_client::client=error,debug"),
            (Some("=="), "kube_client::client=error,info"),
            (Some("info,kube_client=warn"), "kube_client=warn,info"),
        ] {
            assert_eq!(filter(wanted, "info").to_string(), want, "{wanted:?}");
        }
    }
}
