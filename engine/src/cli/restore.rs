//! `fleetwright restore`: state from a backup.

use std::path::{Path, PathBuf};

use fleetwright_apiserver::restamped;
use fleetwright_store::Snapshot;

use crate::{
    data_dir::{self, DataDir},
    error::{Failure, chain, step},
    state,
};

/// How far resource versions jump. They are never to be what somebody has seen already, and of what was served after the
/// backup nothing may be left: this many writes take more than a year at 20,000 a second.
const JUMP: u64 = 1_000_000_000_000;

/// What `--help` says after the options.
const MORE: &str = "\
The engine must not run. FILE is checked wholly before anything is touched, and state that is replaced is kept beside, as
state.db.replaced-1. All objects get a resource version past any that was ever served, so that clients list anew.
More: docs/operations.md";

#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// File that `fleetwright backup` made.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the state that is there.
    #[arg(long)]
    replace: bool,
    /// Data folder of the engine [default: $XDG_STATE_HOME/fleetwright].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let place = match &args.data {
        Some(dir) => dir.clone(),
        None => data_dir::default_path()?,
    };
    if !args.file.is_file() {
        return Err(Failure::usage(format!(
            "{} is no file",
            args.file.display()
        )));
    }
    let data = DataDir::open(&place)?;
    let state = state::file(data.path());
    step(
        Snapshot::settle(&state),
        "cannot finish a restore that was cut off",
    )?;
    let there = state.exists();
    if there && !args.replace {
        let text = format!("{} is there already", state.display());
        return Err(Failure::usage(text)
            .hint("replace it with --replace; it is kept beside under another name"));
    }
    let scratch = step(
        tempfile::tempdir_in(data.path()),
        "cannot make a folder for a copy",
    )?;
    let cannot =
        |why: String| Failure::input(format!("cannot restore {}: {why}", args.file.display()));
    let backup = Snapshot::read(&args.file, scratch.path()).map_err(|e| cannot(e.to_string()))?;
    let replaced = match there.then(|| Snapshot::read(&state, scratch.path())) {
        Some(Ok(old)) => Some(old.revision),
        Some(Err(error)) => {
            tracing::warn!(%error, "what is replaced cannot be read");
            None
        }
        None => None,
    };
    let revision = next_revision(backup.revision, replaced)
        .ok_or_else(|| cannot("resource versions have come to their end".to_owned()))?;
    let restored = restamped(backup, revision).map_err(|e| cannot(chain(&e)))?;
    let kept = step(
        restored.replace(&state),
        "cannot put the backup in its place",
    )?;
    announce(&state, &restored, kept.as_deref());
    Ok(())
}

/// The resource version to go on from: past the backup's, past that of the state that is replaced, and past what may have
/// been served after either. `None` when there is no such number.
fn next_revision(backup: u64, replaced: Option<u64>) -> Option<u64> {
    let newest = backup.max(replaced.unwrap_or_default());
    newest
        .checked_add(JUMP)
        .filter(|next| i64::try_from(*next).is_ok())
}

#[expect(clippy::print_stdout, reason = "tells what was done")]
fn announce(state: &Path, restored: &Snapshot, kept: Option<&Path>) {
    println!(
        "{}: {} objects, all at resource version {}",
        state.display(),
        restored.entries.len(),
        restored.revision
    );
    if let Some(kept) = kept {
        println!("the state before is kept as {}", kept.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_versions_go_on_past_all_that_was_served() {
        let end = u64::try_from(i64::MAX).unwrap();
        let table = [
            (10, None, Some(10 + JUMP)),
            (10, Some(7), Some(10 + JUMP)),
            (10, Some(500), Some(500 + JUMP)),
            (end - JUMP, None, Some(end)),
            (end - JUMP + 1, None, None),
            (u64::MAX, None, None),
        ];
        for (backup, replaced, wanted) in table {
            assert_eq!(
                next_revision(backup, replaced),
                wanted,
                "{backup} {replaced:?}"
            );
        }
    }
}
