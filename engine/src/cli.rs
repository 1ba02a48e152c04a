//! The command line: one file per command.

mod apiserver;
mod apply;
mod backup;
mod drift;
mod install;
mod plan;
mod render;
mod restore;
mod rollout;
mod schema;
mod simcloud;
mod status;
mod up;
mod validate;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{error::Failure, telemetry};

/// Keeps fleets of Kubernetes clusters equal to a Git repository.
#[derive(Debug, Parser)]
#[command(
    name = "fleetwright",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of the log lines.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: telemetry::LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Kubernetes API of Fleetwright alone.
    Apiserver(apiserver::Args),
    /// Run the simulated cloud as a process of its own.
    Simcloud(simcloud::Args),
    /// Follow a directory or a Git repository, and keep its clusters equal to it.
    Up(Box<up::Args>),
    /// Prepare a Kubernetes: kinds, rights and a Deployment of two engines.
    Install(install::Args),
    /// Show what applying a directory would do: fields, and machines step by step.
    Plan(plan::Args),
    /// Show a plan, ask, and carry it out.
    Apply(apply::Args),
    /// Show every mistake of a directory, without an engine.
    Validate(validate::Args),
    /// Show the documents of a directory as they are applied, and where each value was written.
    Render(render::Args),
    /// Write JSON Schemas of what a repository may hold, for editors.
    Schema(schema::Args),
    /// Show what differs from the repository though no commit changed it: fields, instances, nodes.
    Drift(drift::Args),
    /// Show fleets, clusters and pools.
    Status(status::Args),
    /// Show and steer rollouts: history, undo, pause, resume, restart.
    Rollout(rollout::Args),
    /// Say why an object is as it is and what it waits for: from the commit and the field to the pod.
    Why(why::Args),
    /// Write the whole state into a file, while the engine runs or not.
    Backup(backup::Args),
    /// Start anew from a backup.
    Restore(restore::Args),
}

/// Parses the command line, runs the command, and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(cli.log_format, "info");
    // One crypto provider for everything that speaks TLS; a second install changes nothing.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            return fail(&Failure::from(
                anyhow::Error::new(e).context("cannot start the runtime"),
            ));
        }
    };
    let result = runtime.block_on(run(cli.command));
    // Blocking work (a fetch that hangs in the network) must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place that tells people of a failure"
)]
fn fail(failure: &Failure) -> ExitCode {
    eprintln!("{failure}");
    failure.kind.exit_code()
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Apiserver(args) => apiserver::run(args).await,
        Command::Apply(args) => apply::run(args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::Drift(args) => drift::run(args).await,
        Command::Install(args) => install::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Render(args) => render::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Rollout(args) => rollout::run(args).await,
        Command::Schema(args) => schema::run(&args),
        Command::Status(args) => status::run(args).await,
        Command::Simcloud(args) => simcloud::run(args).await,
        Command::Up(args) => up::run(*args).await,
        Command::Validate(args) => validate::run(&args),
        Command::Why(args) => why::run(args).await,
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn stop_signal() -> Result<(), Failure> {
    let cannot = |e: std::io::Error| {
        Failure::from(anyhow::Error::new(e).context("cannot listen for signals"))
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(cannot)?;
    tokio::select! {
        biased;
        result = tokio::signal::ctrl_c() => result.map_err(cannot),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, path::Path};

    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }

    fn describe(command: &mut clap::Command, path: &str, level: &str, page: &mut String) {
        for command in command
            .get_subcommands_mut()
            .filter(|c| c.get_name() != "help")
        {
            let help = command.render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            let path = format!("{path} {}", command.get_name());
            write!(page, "\n{level} {path}\n\n```\n{}\n```\n", lines.join("\n")).unwrap();
            describe(command, &path, &format!("{level}#"), page);
        }
    }

    /// Every command's help, as the page of the documentation. `UPDATE_DOCS=1` writes the page anew.
    #[test]
    fn the_page_of_commands_is_what_help_says() {
        let mut page = String::from(
            "# Commands\n\nWhat `--help` says. Exit codes: 0 done, 1 the input has a mistake, was refused or something drifted, 2 the call is wrong,\n3 nothing was written because Git owns the object: what is printed is for the repository, 70 a fault of ours, 75 to be started again.\n",
        );
        let mut all = super::Cli::command().term_width(110);
        all.build();
        describe(&mut all, "fleetwright", "##", &mut page);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &page).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            there == page,
            "docs/commands.md is out of date: run `make docs`"
        );
    }
}
