//! `fleetwright plan`: what applying a directory would do to objects and machines.

use fleetwright_api::time::{Clock as _, SystemClock};
use fleetwright_gitops::report;

use crate::{error::Failure, output::Output, repository::Target};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.target.client().await?;
    let planned = args.target.plan(&client, SystemClock.now()).await?;
    args.output
        .print(&planned.plan, || report::text(&planned.plan))?;
    refusals(planned.plan.refused.len())
}

/// A plan that cannot be carried out as a whole is a mistake of the repository.
pub(crate) fn refusals(count: usize) -> Result<(), Failure> {
    match count {
        0 => Ok(()),
        1 => Err(Failure::input(
            "1 object is refused: see the line that begins with !",
        )),
        n => Err(Failure::input(format!(
            "{n} objects are refused: see the lines that begin with !"
        ))),
    }
}
