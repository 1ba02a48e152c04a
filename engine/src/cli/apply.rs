//! `fleetwright apply`: shows a plan, asks, and carries it out.

use std::io::{BufRead as _, IsTerminal as _};

use fleetwright_api::{
    Fleet,
    time::{Clock as _, SystemClock},
};
use fleetwright_gitops::{
    apply::{Applied, Settings, apply},
    report,
};

use super::plan::carried_out;
use crate::{
    error::Failure,
    output::print,
    repository::{Planned, Target},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Apply without asking.
    #[arg(short, long)]
    yes: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.target.client().await?;
    let planned = args.target.plan(&client, SystemClock.now()).await?;
    if !args.target.is_followed(&planned.fleet) {
        allowed(&planned.fleet)?;
    }
    print(&report::text(&planned.plan));
    carried_out(&planned.plan)?;
    if planned.plan.is_empty() {
        return Ok(());
    }
    if !args.yes {
        ask()?;
    }
    let Planned {
        fleet,
        revision,
        declared,
        previous,
        live,
        policy,
        plan,
        ..
    } = &planned;
    let allow = fleet.spec.allow.clone().unwrap_or_default();
    let settings = Settings {
        revision,
        allow: &allow,
        previous: previous.as_ref().map(|d| &d.documents),
    };
    let applied = apply(&client, plan, &declared.desired, live, policy, settings).await;
    tell(&applied)
}

/// What a Fleet follows elsewhere would undo what is applied here.
fn allowed(fleet: &Fleet) -> Result<(), Failure> {
    if fleet.spec.suspend == Some(true) {
        return Ok(());
    }
    let source = &fleet.spec.source;
    let follows = source.url.as_ref().or(source.directory.as_ref());
    let follows = follows.map_or("another source", String::as_str);
    Err(
        Failure::usage(format!("the Fleet follows {follows} and would undo this")).hint(
            "merge it there, or suspend the Fleet first (kubectl patch fleet … spec.suspend: true)",
        ),
    )
}

fn ask() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::usage("nothing was applied: there is nobody to ask")
                .hint("say --yes to apply without being asked"),
        );
    }
    print("Apply? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::input("nothing was applied")),
    }
}

fn tell(applied: &Applied) -> Result<(), Failure> {
    let (written, deleted) = (applied.written.len(), applied.deleted.len());
    print(&format!("Applied: {written} written, {deleted} deleted.\n"));
    for drift in &applied.drift {
        print(&format!("kept as others set it: {drift}\n"));
    }
    if applied.errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = applied.errors.iter().map(|e| e.text()).collect();
    Err(Failure::input(format!(
        "not everything was applied\n{}",
        lines.join("\n")
    )))
}
