//! `fleetwright plan`: what applying a directory would do to objects and machines.

use clap::ValueEnum;
use fleetwright_api::time::{Clock as _, SystemClock};
use fleetwright_gitops::report::{
    self,
    document::{Document, Made},
    markdown,
};

use crate::{
    error::Failure,
    output::{Output, print},
    repository::Target,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Form of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    #[value(alias = "table")]
    Text,
    /// For pull requests: what a comment on one says.
    Markdown,
    /// JSON, as docs/plan.md describes it.
    Json,
    /// The same as YAML.
    Yaml,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.target.client().await?;
    let planned = args.target.plan(&client, SystemClock.now()).await?;
    let plan = planned.plan;
    let refused = plan.refused.len();
    let made = Made {
        revision: &planned.revision,
        tree: &planned.tree,
        policy: &planned.policy,
    };
    let output = match args.output {
        Form::Text => {
            Output::Text.print(&(), || report::text(&plan))?;
            return refusals(refused);
        }
        Form::Markdown => {
            let document = Document::of(made, plan);
            let Document {
                fleet,
                revision,
                digest,
                plan,
                ..
            } = &document;
            print(&markdown::plan_of_revision(fleet, revision, plan, digest));
            return refusals(refused);
        }
        Form::Json => Output::Json,
        Form::Yaml => Output::Yaml,
    };
    output.print(&Document::of(made, plan), String::new)?;
    refusals(refused)
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
