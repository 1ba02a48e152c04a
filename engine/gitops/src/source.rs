//! Where files come from: a Git repository through a bare cache, or a local directory. All functions block.

mod authority;
mod cache;
mod collect;
mod credentials;
mod directory;
mod filter;
mod git;
mod host_keys;
mod notes;
mod pulls;
mod signature;
mod transport;
mod wanted;

use std::path::PathBuf;

pub(crate) use self::wanted::Wanted;
pub use self::{
    authority::Authority,
    cache::Caches,
    credentials::{AppTokens, Credentials, GithubApp},
    directory::{Fingerprint, read_directory},
    filter::Filter,
    git::GitSource,
    host_keys::KnownHosts,
    notes::Note,
    pulls::{Ends, Merged, PullRef},
    signature::{Policy, TrustedKeys},
    transport::{Address, Form},
};
use crate::load::SourceFile;

/// Most files and folders that are looked at, whatever they are.
pub const MAX_ENTRIES: usize = 200_000;
/// Most manifests of one snapshot.
pub const MAX_FILES: usize = 20_000;
/// Deepest nesting of folders.
pub const MAX_FOLDERS: usize = 50;
/// Most bytes of one fetch; less in tests, which make them.
pub const MAX_FETCH_BYTES: usize = if cfg!(test) { 8 << 20 } else { 2 << 30 };

/// The files of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Commit id, or `dir:<tree id>`.
    pub revision: String,
    /// Git tree id of the followed path.
    pub tree: String,
    /// YAML and JSON files below it.
    pub files: Vec<SourceFile>,
}

/// Why a source could not be read. Nothing may be concluded from the files then.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The remote could not be asked, or broke off.
    #[error("Git failed while {doing}")]
    Git {
        /// What was done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: git2::Error,
    },
    /// Nobody who is trusted vouches for the remote.
    #[error(
        "the repository's certificate is not trusted: for an authority of your own, put its certificate into key ca.crt of the Secret of spec.source.secretRef"
    )]
    Untrusted(#[source] git2::Error),
    /// The Fleet's own authority does not vouch for the remote.
    #[error(
        "the repository's certificate is none that ca.crt of the Secret of spec.source.secretRef vouches for ({0}): put the certificate there that signed it"
    )]
    Authority(String),
    /// The ssh server is not the one that is known.
    #[error(
        "the server is not trusted: {0} (key known_hosts of the Secret of spec.source.secretRef)"
    )]
    HostKey(String),
    /// The remote does not let us in.
    #[error("the repository does not let us in: {0}")]
    Login(String),
    /// The cache of the repository is not usable: it is thrown away and fetched again.
    #[error("the cache of the repository failed while {doing}: it is fetched again")]
    Cache {
        /// What was done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: git2::Error,
    },
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The remote has no such ref.
    #[error("the repository has no {0}: push it, or correct spec.source.ref")]
    NoRef(String),
    /// What the Fleet asks for cannot be the name of anything.
    #[error("spec.source.ref is not usable: {0}")]
    BadRef(String),
    /// The commit has no such folder.
    #[error(
        "the commit has no folder {0:?}: correct spec.source.path (a folder that became empty is gone in Git)"
    )]
    NoPath(String),
    /// The URL is of a form that is not fetched.
    #[error(
        "only https://, ssh://, user@host:path and file:// are fetched: correct spec.source.url"
    )]
    Scheme,
    /// The URL can be read in two ways, or not at all.
    #[error(
        "spec.source.url has spaces, backslashes, no host, or a name that begins with a dash: correct it"
    )]
    BadUrl,
    /// The URL holds a password, which everybody may read there.
    #[error(
        "spec.source.url holds a password: change it, put the new one into a Secret, and name that in spec.source.secretRef"
    )]
    Password,
    /// What is included or excluded cannot be understood.
    #[error("spec.source.{0}")]
    BadGlob(String),
    /// A commit is not signed as the Fleet wants it.
    #[error(
        "{0}: spec.source.verify applies nothing then; have it signed by a trusted key, or add the key to the Secret of spec.source.verify"
    )]
    Signature(String),
    /// The path leaves the repository.
    #[error("spec.source.path must stay inside the repository")]
    Outside,
    /// A part of the path below a directory is a symbolic link, which may lead anywhere.
    #[error("spec.source.path leads through the symbolic link {}: name the folder itself", .0.display())]
    Linked(PathBuf),
    /// A pull request does not merge.
    #[error("it does not merge into its base: {0} differ on both sides")]
    Conflict(String),
    /// A pull request has no commit in common with its base.
    #[error("it does not merge into its base: they have no commit in common")]
    Unrelated,
    /// The remote takes no notes.
    #[error(
        "the repository takes no notes ({0}): let the credentials of spec.source.secretRef push refs/notes/fleetwright, or leave spec.source.notes out"
    )]
    NotesRefused(String),
    /// Others came first each time.
    #[error("others keep writing the repository's notes at the same moment")]
    NotesMoved,
    /// A pull request that is applied before its merge cannot be read any more.
    #[error(
        "pull request {0} is applied before its merge, and {1}: have its new head applied, or merge or close it"
    )]
    Held(i64, String),
    /// Too many files.
    #[error(
        "more than {MAX_FILES} manifests or {MAX_ENTRIES} files: set spec.source.path to a smaller folder"
    )]
    TooMany,
    /// Folders in folders in folders.
    #[error("folders are nested deeper than {MAX_FOLDERS}: set spec.source.path to a folder below")]
    TooDeep,
    /// The repository is too large.
    #[error("a fetch exceeds {} MiB: follow a smaller repository", MAX_FETCH_BYTES >> 20)]
    TooLarge,
}

impl SourceError {
    /// Whether the source is at fault that somebody must correct; else trying again may help.
    pub fn is_lasting(&self) -> bool {
        !matches!(
            self,
            Self::Git { .. }
                | Self::Untrusted(_)
                | Self::Authority(_)
                | Self::HostKey(_)
                | Self::Login(_)
                | Self::Cache { .. }
                | Self::NotesMoved
                | Self::Io { .. }
        )
    }
}

/// A path inside the source without empty parts.
fn clean(path: &str) -> Result<String, SourceError> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    if parts.contains(&"..") {
        return Err(SourceError::Outside);
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;
