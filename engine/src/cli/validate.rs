//! `fleetwright validate`: every mistake of a repository, without an engine.

use std::path::PathBuf;

use clap::ValueEnum;
use fleetwright_gitops::load::{LoadError, is_manifest};
use serde_json::json;

use crate::{
    error::Failure,
    output::{Output, print},
    repository::{catalogue, mistakes, offline, placed, read},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory with the files.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    #[value(alias = "table")]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Workflow commands, which GitHub Actions shows beside the lines of a pull request.
    Github,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let snapshot = read(&args.directory)?;
    let catalogue = catalogue();
    let files = snapshot
        .files
        .iter()
        .filter(|f| is_manifest(&f.path))
        .count();
    let (objects, errors) = offline(&snapshot, &catalogue);
    let form = match args.output {
        Form::Text if !errors.is_empty() => return Err(mistakes(&args.directory, &errors)),
        Form::Text => Some(Output::Text),
        Form::Json => Some(Output::Json),
        Form::Yaml => Some(Output::Yaml),
        Form::Github => None,
    };
    let errors: Vec<LoadError> = errors.iter().map(|e| placed(&args.directory, e)).collect();
    match form {
        None => print(&errors.iter().map(workflow_command).collect::<String>()),
        Some(form) => {
            let list: Vec<_> = errors
                .iter()
                .map(|e| json!({"file": e.file, "line": e.line, "column": e.column, "message": e.message}))
                .collect();
            let document = json!({"files": files, "objects": objects, "mistakes": list});
            form.print(&document, || {
                let place = args.directory.display();
                format!("{place}: {objects} objects in {files} files, no mistakes\n")
            })?;
        }
    }
    match errors.len() {
        0 => Ok(()),
        n => Err(Failure::input(format!(
            "{n} mistakes in {}",
            args.directory.display()
        ))),
    }
}

/// A mistake as GitHub Actions reads it from the log: a line, in which what would end a value or the line is escaped.
fn workflow_command(mistake: &LoadError) -> String {
    let message = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| message(text).replace(':', "%3A").replace(',', "%2C");
    let LoadError {
        file, line, column, ..
    } = mistake;
    // GitHub knows files by their paths from the root of the repository.
    let file = property(file.strip_prefix("./").unwrap_or(file));
    let text = message(&mistake.message);
    format!("::error file={file},line={line},col={column},title=fleetwright validate::{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflow_commands_hold_what_would_end_them_escaped() {
        let mistake = LoadError {
            file: "./clusters/a,b:c%.yaml".into(),
            line: 3,
            column: 7,
            message: "100% wrong: a, b\nand ::error c\r".into(),
        };
        assert_eq!(
            workflow_command(&mistake),
            "::error file=clusters/a%2Cb%3Ac%25.yaml,line=3,col=7,title=fleetwright validate::100%25 wrong: a, b%0Aand ::error c%0D\n"
        );
    }
}
