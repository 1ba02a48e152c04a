//! `fleetwright schema`: JSON Schemas of the kinds that Git may hold, for editors.

use std::path::PathBuf;

use anyhow::Context as _;
use fleetwright_gitops::json_schema::{KINDS, of_all, of_kind};
use serde_json::Value;

use crate::{
    error::{Failure, step},
    output::print,
    repository::catalogue,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kind; the schema of all kinds together when left out.
    #[arg(value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(KINDS), ignore_case = true)]
    kind: Option<String>,
    /// Write files into this directory instead, one for each kind and all.json for all together.
    #[arg(long, value_name = "DIR", conflicts_with = "kind")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let catalogue = catalogue();
    let text = |schema: &Value| -> Result<String, Failure> {
        let text = step(serde_json::to_string_pretty(schema), "cannot write JSON")?;
        Ok(format!("{text}\n"))
    };
    let kind = |kind: &str| of_kind(kind, &catalogue).unwrap_or_default();
    let Some(directory) = &args.output else {
        let schema = match &args.kind {
            Some(name) => kind(name),
            None => of_all(&catalogue),
        };
        print(&text(&schema)?);
        return Ok(());
    };
    let cannot = || format!("cannot write into {}", directory.display());
    std::fs::create_dir_all(directory).with_context(cannot)?;
    let each = KINDS.map(|name| (format!("{}.json", name.to_lowercase()), kind(name)));
    for (name, schema) in each
        .into_iter()
        .chain([("all.json".into(), of_all(&catalogue))])
    {
        let file = directory.join(name);
        std::fs::write(&file, text(&schema)?).with_context(cannot)?;
        print(&format!("{}\n", file.display()));
    }
    Ok(())
}
