//! Where decisions are written down: in the data folder where the API is in this process, in the log where pods come and go.

use std::{path::Path, sync::Arc};

use fleetwright_api::{
    decision::{Decision, Trail},
    time::Clock,
};
use fleetwright_apiserver::journal::Journal;
use serde_json::json;

use crate::error::{Failure, step};

/// Name of the file in the data folder.
const FILE: &str = "decisions.jsonl";

/// A trail in a file of the folder `data`.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn in_folder(data: &Path, clock: &Arc<dyn Clock>) -> Result<Trail, Failure> {
    let clock = Arc::clone(clock);
    let lost =
        move |lines: u64| json!({"time": clock.now().to_string(), "lost": lines}).to_string();
    let journal = Journal::open(&data.join(FILE), lost);
    let journal = step(journal, "cannot write down decisions")?;
    Ok(Trail::new(move |decision| journal.write(line(&decision))))
}

/// A trail in the log, as target `audit`.
pub(crate) fn in_log() -> Trail {
    Trail::new(|decision| tracing::info!(target: "audit", decision = %line(&decision), "decided"))
}

fn line(decision: &Decision) -> String {
    // Of texts and numbers: it cannot fail.
    serde_json::to_string(decision).unwrap_or_default()
}
