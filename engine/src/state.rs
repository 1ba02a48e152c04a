//! The state of an engine: the store's file in its data folder.

use std::path::{Path, PathBuf};

use fleetwright_store::{Error, Store};

use crate::{data_dir::DataDir, error::Failure};

/// The store's file in the data folder `data`.
pub(crate) fn file(data: &Path) -> PathBuf {
    data.join("state.db")
}

/// Opens the store in a data folder.
///
/// # Errors
/// It cannot be opened, or is damaged.
pub(crate) fn open(data: &DataDir) -> Result<Store, Failure> {
    Store::open(file(data.path())).map_err(|error| failure(data.path(), &error))
}

/// What a failure of the store means to the person who asked.
pub(crate) fn failure(data: &Path, error: &Error) -> Failure {
    let text = format!("cannot open the state: {error}");
    match error {
        Error::Damaged { .. } => Failure::input(text).hint(format!(
            "fleetwright restore FILE --replace --data {}",
            data.display()
        )),
        Error::Format { .. } | Error::Io { .. } => Failure::input(text),
        _ => Failure::from(anyhow::anyhow!(text)),
    }
}
