//! `fleetwright validate`: every mistake of a repository, without an engine.

use std::path::PathBuf;

use fleetwright_gitops::load::is_manifest;
use serde_json::json;

use crate::{
    error::Failure,
    output::Output,
    repository::{catalogue, mistakes, offline, placed, read},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory with the files.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let snapshot = read(&args.directory)?;
    let catalogue = catalogue(fleetwright_provider_sim::config::schemas());
    let files = snapshot
        .files
        .iter()
        .filter(|f| is_manifest(&f.path))
        .count();
    let (objects, errors) = offline(&snapshot, &catalogue);
    if !errors.is_empty() && args.output == Output::Text {
        return Err(mistakes(&args.directory, &errors));
    }
    let list: Vec<_> = errors
        .iter()
        .map(|e| placed(&args.directory, e))
        .map(|e| json!({"file": e.file, "line": e.line, "column": e.column, "message": e.message}))
        .collect();
    let document = json!({"files": files, "objects": objects, "mistakes": list});
    args.output.print(&document, || {
        let place = args.directory.display();
        format!("{place}: {objects} objects in {files} files, no mistakes\n")
    })?;
    match errors.len() {
        0 => Ok(()),
        n => Err(Failure::input(format!(
            "{n} mistakes in {}",
            args.directory.display()
        ))),
    }
}
