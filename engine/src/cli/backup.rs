//! `fleetwright backup`: the whole state in one file.

use std::path::{Path, PathBuf};

use fleetwright_apiserver::BACKUP_PATH;
use fleetwright_store::{Builder, Decoder, Snapshot};
use futures::AsyncReadExt as _;
use kube::Client;

use crate::{
    client::{self, Connection},
    data_dir::DataDir,
    error::{Failure, step},
    state,
};

/// How many bytes are read at a time.
const PIECE: usize = 256 << 10;

/// What `--help` says after the options.
const MORE: &str = "\
A running engine is asked over its API, as a user of group system:masters, and goes on writing meanwhile. Where none runs
on the data folder, the file there is copied. `fleetwright restore` reads it. More: docs/operations.md";

#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// File to be written, readable for its owner alone.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let file = std::path::absolute(&args.file)
        .map_err(|e| Failure::usage(format!("{}: {e}", args.file.display())))?;
    let exists = file.symlink_metadata().is_ok();
    if exists && !args.overwrite {
        return Err(
            Failure::usage(format!("{} is there already", file.display()))
                .hint("choose another name, or replace it with --overwrite"),
        );
    }
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(Failure::usage(format!("{} is no file", file.display())));
    };
    if file.is_dir() || !folder.is_dir() {
        let text = format!("{} cannot be a file: see its folder", file.display());
        return Err(Failure::usage(text));
    }
    let mut part = name.to_owned();
    part.push(format!(".part-{}", std::process::id()));
    let part = folder.join(part);
    let done = match held(&args)? {
        Some(data) => copied(&data, &file, &part),
        None => {
            let client = args.connection.client().await?;
            asked(&client, &file, &part).await
        }
    };
    // Half of a backup is none.
    if done.is_err() {
        std::fs::remove_file(&part).ok();
    }
    let (objects, revision) = done?;
    announce(&file, objects, revision);
    Ok(())
}

/// The data folder, where it is this machine's and no engine runs on it.
fn held(args: &Args) -> Result<Option<DataDir>, Failure> {
    let Some(place) = args.connection.folder()? else {
        return Ok(None);
    };
    if !state::file(&place).is_file() {
        let text = format!("there is no state in {}", place.display());
        return Err(Failure::usage(text)
            .hint("say where with --data DIR, or which engine with --kubeconfig FILE"));
    }
    DataDir::open_idle(&place)
}

/// Copies the file of an engine that does not run.
fn copied(data: &DataDir, file: &Path, part: &Path) -> Result<(usize, u64), Failure> {
    let source = state::file(data.path());
    if source.canonicalize().ok() == file.canonicalize().ok() {
        return Err(Failure::usage("the backup would replace the state itself"));
    }
    let beside = file.parent().unwrap_or(Path::new("."));
    let scratch = step(
        tempfile::tempdir_in(beside),
        "cannot make a folder for a copy",
    )?;
    let snapshot = Snapshot::read(&source, scratch.path())
        .map_err(|error| state::failure(data.path(), &error))?;
    let mut builder = step(Builder::create(part), "cannot make the backup")?;
    for entry in &snapshot.entries {
        step(builder.put(entry), "cannot write the backup")?;
    }
    step(
        builder.finish(snapshot.revision, file),
        "cannot write the backup",
    )?;
    Ok((snapshot.entries.len(), snapshot.revision))
}

/// Asks a running engine.
async fn asked(client: &Client, file: &Path, part: &Path) -> Result<(usize, u64), Failure> {
    let request = http::Request::get(BACKUP_PATH).body(Vec::new());
    let request = step(request, "cannot ask")?;
    let answer = client.request_stream(request).await;
    let stream = answer.map_err(|e| client::failure("cannot get a backup", e))?;
    let mut stream = std::pin::pin!(stream);
    let mut builder = step(Builder::create(part), "cannot make the backup")?;
    let mut decoder = Decoder::default();
    let mut piece = vec![0; PIECE];
    let mut objects = 0;
    loop {
        let read = step(stream.read(&mut piece).await, "the engine broke off")?;
        decoder.feed(&piece[..read]);
        while let Some(entry) = step(decoder.next_entry(), "the engine's answer cannot be used")? {
            objects += 1;
            step(builder.put(&entry), "cannot write the backup")?;
        }
        if read == 0 {
            break;
        }
    }
    let revision = step(decoder.finish(), "the engine's answer cannot be used")?;
    step(builder.finish(revision, file), "cannot write the backup")?;
    Ok((objects, revision))
}

#[expect(clippy::print_stdout, reason = "tells what was done")]
fn announce(file: &Path, objects: usize, revision: u64) {
    println!(
        "{}: {objects} objects at resource version {revision}",
        file.display()
    );
}
