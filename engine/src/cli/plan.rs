//! `fleetwright plan`: what applying a directory would do to objects and machines.

use clap::ValueEnum;
use fleetwright_api::time::{Clock as _, SystemClock};
use fleetwright_core::plan::Plan;
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
    let end = carried_out(&plan);
    let made = Made {
        revision: &planned.revision,
        tree: &planned.tree,
        policy: &planned.policy,
    };
    let output = match args.output {
        Form::Text => {
            Output::Text.print(&(), || report::text(&plan))?;
            return end;
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
            return end;
        }
        Form::Json => Output::Json,
        Form::Yaml => Output::Yaml,
    };
    output.print(&Document::of(made, plan), String::new)?;
    end
}

/// A plan that cannot be carried out as a whole is a mistake of the repository.
pub(crate) fn carried_out(plan: &Plan) -> Result<(), Failure> {
    let mistakes = report::mistakes(plan);
    let refused = match plan.refused.len() {
        0 => None,
        1 => Some("1 object is refused: see the line that begins with !".to_owned()),
        n => Some(format!(
            "{n} objects are refused: see the lines that begin with !"
        )),
    };
    let told: Vec<String> = refused.into_iter().chain(mistakes).collect();
    match told.is_empty() {
        true => Ok(()),
        false => Err(Failure::input(told.join("\n"))),
    }
}
