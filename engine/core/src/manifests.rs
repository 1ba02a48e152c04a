//! Manifests that a cluster gets before its pools count: what of them is due, and in which order they are applied.
//!
//! Each manifest is kept in a ConfigMap beside the Cluster. The Cluster's spec names the hash of what Git says, so that a changed manifest
//! is a changed Cluster; its status remembers the hash of all that was applied last.

use std::time::Duration;

use fleetwright_api::{Cluster, cluster::BootstrapManifest, meta, names};

mod kept;
#[cfg(test)]
mod tests;

pub use self::kept::{
    Contents, Document, MAX_BYTES, MAX_DOCUMENTS, MAX_KEPT_BYTES, Packed, contents, document,
    documents, hash, hash_of,
};

/// Shortest pause after a try that may do better the next time.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause after a try that may do better the next time.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause after what was refused for good: what was wrong may have been put right where we cannot see it.
const REFUSED: Duration = Duration::from_secs(600);
/// How long a ConfigMap that Git does not hold is taken to be as it was read.
const FOREIGN: Duration = Duration::from_secs(300);

/// Where a manifest comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name of the ConfigMap beside the Cluster.
    pub config_map: String,
    /// What people know it by.
    pub name: String,
    /// Hash of the content that is wanted; `None` where the ConfigMap itself says it.
    pub hash: Option<String>,
}

/// A path in the one way to write it: without empty parts and those that are the folder itself.
#[must_use]
pub fn plain_path(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// The manifests that a Cluster wants, in its order.
///
/// # Errors
/// One that cannot be found, and what to do.
pub fn sources(cluster: &Cluster) -> Result<Vec<Source>, String> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let source = |wanted: &BootstrapManifest| match (&wanted.path, &wanted.config_map) {
        (Some(path), _) if wanted.content_hash.is_none() => Err(format!(
            "{path} is a path, and those are read in repositories alone: declare the Cluster in Git, or name a ConfigMap"
        )),
        (Some(path), _) => Ok(Source {
            config_map: names::bootstrap_manifest(name, &plain_path(path)),
            name: path.clone(),
            hash: wanted.content_hash.clone(),
        }),
        (None, map) => {
            let map = map.clone().unwrap_or_default();
            Ok(Source {
                name: format!("ConfigMap {map}"),
                config_map: map,
                hash: wanted.content_hash.clone(),
            })
        }
    };
    cluster
        .spec
        .bootstrap_manifests
        .iter()
        .map(source)
        .collect()
}

/// Hash of all manifests together, each by its own hash; `None` while one of them is not known.
#[must_use]
pub fn whole(sources: &[Source]) -> Option<String> {
    let hashes: Option<Vec<&str>> = sources.iter().map(|s| s.hash.as_deref()).collect();
    Some(names::short_hash(hashes?, 64))
}

/// How far a cluster's manifests have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The cluster has them all; with the hash of all of them.
    Applied(String),
    /// They are on their way: what they wait for.
    Waiting(String),
    /// One of them is refused for good: which, and why.
    Refused(String),
}

/// The last try to bring a cluster's manifests to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was wanted then.
    pub wanted: Vec<Source>,
    /// What came of it.
    pub standing: Standing,
    /// How many tries in a row it was that may do better the next time.
    pub tries: u32,
}

impl Attempt {
    /// A try after `before`.
    #[must_use]
    pub fn after(before: Option<&Self>, wanted: Vec<Source>, standing: Standing) -> Self {
        let before = before.filter(|before| before.wanted == wanted);
        let tries = match standing {
            Standing::Waiting(_) => before.map_or(0, |b| b.tries).saturating_add(1),
            Standing::Applied(_) | Standing::Refused(_) => 0,
        };
        Self {
            wanted,
            standing,
            tries,
        }
    }

    /// After how long it is tried again though nothing changed.
    #[must_use]
    pub fn holds(&self) -> Duration {
        match self.standing {
            Standing::Applied(_) => FOREIGN,
            Standing::Refused(_) => REFUSED,
            Standing::Waiting(_) => {
                let doubled = SHORTEST.saturating_mul(1 << self.tries.saturating_sub(1).min(10));
                doubled.min(LONGEST)
            }
        }
    }
}

/// What is done about a cluster's manifests now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until the Cluster changes.
    Rest,
    /// Nothing before this time has passed.
    Pause(Duration),
    /// These are read and brought to the cluster.
    Look(Vec<Source>),
    /// They cannot be found at all, whoever looks: why.
    Refuse(String),
}

/// What is done now; `last` is the last try of this process with the time since then.
#[must_use]
pub fn step(cluster: &Cluster, serves: bool, last: Option<(&Attempt, Duration)>) -> Step {
    let leaves = cluster.metadata.deletion_timestamp.is_some();
    if leaves || meta::is_paused(cluster) || !serves {
        return Step::Rest;
    }
    let wanted = match sources(cluster) {
        Ok(wanted) if wanted.is_empty() => return Step::Rest,
        Ok(wanted) => wanted,
        Err(why) => return Step::Refuse(why),
    };
    if is_applied(cluster, &wanted) {
        return Step::Rest;
    }
    match last.filter(|(last, _)| last.wanted == wanted) {
        Some((last, since)) if since < last.holds() => Step::Pause(last.holds() - since),
        _ => Step::Look(wanted),
    }
}

/// Whether it is known without a look that the cluster has what it wants.
fn is_applied(cluster: &Cluster, wanted: &[Source]) -> bool {
    let status = cluster.status.as_ref();
    let applied = status.and_then(|s| s.bootstrap_manifests_hash.as_ref());
    applied.is_some() && applied == whole(wanted).as_ref()
}

/// What can be said where nobody looked; `None` where a look alone tells.
pub(crate) fn known(cluster: &Cluster, initialized: bool) -> Option<Standing> {
    let wanted = match sources(cluster) {
        Ok(wanted) => wanted,
        Err(why) => return Some(Standing::Refused(why)),
    };
    if !initialized {
        let text = "waiting for the control plane's first machine";
        return Some(Standing::Waiting(text.into()));
    }
    let hash = whole(&wanted)?;
    Some(match is_applied(cluster, &wanted) {
        true => Standing::Applied(hash),
        false => Standing::Waiting("not applied yet".into()),
    })
}

/// The documents in the order in which they are applied: definitions of kinds, then namespaces, then the rest, each as they stand.
#[must_use]
pub fn ordered(mut documents: Vec<Document>) -> Vec<Document> {
    documents.sort_by_key(|document| match document.kind.as_str() {
        "CustomResourceDefinition" => 0,
        "Namespace" => 1,
        _ => 2,
    });
    documents
}

/// What a cluster's API said to a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took it.
    Taken,
    /// It may take it the next time: why not now.
    Later(String),
    /// It will not take it: why.
    Never(String),
}

impl Answer {
    /// Of an answer that refuses, by its code and its words.
    #[must_use]
    pub fn refusal(code: u16, message: &str) -> Self {
        let message = message.to_owned();
        match code {
            // Its namespace or its kind may come yet; somebody else writes at the same time; it has too much to do.
            401 | 404 | 408 | 409 | 429 | 500.. => Self::Later(message),
            _ => Self::Never(message),
        }
    }
}

/// What all answers come to; `hash` is that of all manifests.
#[must_use]
pub fn sum(answers: &[(&Document, Answer)], hash: String) -> Standing {
    let words = |refused: bool| -> Vec<String> {
        let of = answers
            .iter()
            .filter_map(|(document, answer)| match answer {
                Answer::Later(why) if !refused => Some(format!("{document}: {why}")),
                Answer::Never(why) if refused => Some(format!("{document}: {why}")),
                _ => None,
            });
        of.collect()
    };
    let (never, later) = (words(true), words(false));
    match (never.is_empty(), later.is_empty()) {
        (false, _) => Standing::Refused(crate::status::few(&never)),
        (true, false) => Standing::Waiting(crate::status::few(&later)),
        (true, true) => Standing::Applied(hash),
    }
}
