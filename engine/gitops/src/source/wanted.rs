//! What a Fleet asks of a repository: one ref, the highest of some tags, or a commit.
//!
//! Refs are fetched first and read from the cache afterwards, so that no name of a ref that somebody else pushed is ever looked at.

use fleetwright_api::fleet::GitRef;
use git2::{ErrorCode, Oid, Reference, Repository};
use semver::{Version, VersionReq};

use super::{SourceError, git::cache, signature::NamedTag};

/// Where the cache keeps the remote's refs.
pub(super) const OURS: &str = "refs/fleetwright/";
const TAGS: &str = "refs/fleetwright/tags/";

/// What is fetched for a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One ref of the remote, with what people call it.
    Ref { remote: String, what: String },
    /// The highest tag in a range.
    Tags(VersionReq),
    /// A commit, wherever it is.
    Commit(Oid),
    /// All refs below one; none of them in particular.
    Below(String),
}

impl Wanted {
    /// What `spec.source.ref` asks for.
    pub(crate) fn of(reference: &GitRef) -> Result<Self, SourceError> {
        let named = |kind: &str, folder: &str, name: &str| {
            let remote = format!("refs/{folder}/{name}");
            let what = format!("{kind} {name}");
            if Reference::is_valid_name(&remote) {
                Ok(Self::Ref { remote, what })
            } else {
                Err(SourceError::BadRef(format!("no {what} can exist")))
            }
        };
        match reference {
            GitRef {
                commit: Some(id), ..
            } => match Oid::from_str(id) {
                Ok(oid) if id.len() == 40 => Ok(Self::Commit(oid)),
                _ => Err(SourceError::BadRef(format!(
                    "{id:?} is no full commit id of 40 hexadecimal digits"
                ))),
            },
            GitRef {
                semver: Some(range),
                ..
            } => VersionReq::parse(range).map(Self::Tags).map_err(|e| {
                SourceError::BadRef(format!("{range:?} is no range of versions: {e}"))
            }),
            GitRef { tag: Some(tag), .. } => named("tag", "tags", tag),
            GitRef {
                branch: Some(branch),
                ..
            } => named("branch", "heads", branch),
            _ => Ok(Self::Ref {
                remote: "HEAD".into(),
                what: "HEAD".into(),
            }),
        }
    }

    /// The head of a branch.
    pub(super) fn branch(name: &str) -> Result<Self, SourceError> {
        Self::of(&GitRef {
            branch: Some(name.to_owned()),
            ..GitRef::default()
        })
    }

    /// A ref by its whole name.
    pub(super) fn at(name: &str) -> Result<Self, SourceError> {
        match Reference::is_valid_name(name) && name.starts_with("refs/") {
            true => Ok(Self::Ref {
                remote: name.to_owned(),
                what: name.to_owned(),
            }),
            false => Err(SourceError::BadRef(format!(
                "{name:?} is the name of no ref"
            ))),
        }
    }

    pub(super) fn refspecs(&self) -> Vec<String> {
        match self {
            Self::Ref { remote, .. } => vec![format!("+{remote}:{}", local(remote))],
            Self::Tags(_) => vec![format!("+refs/tags/*:{TAGS}*")],
            Self::Below(folder) => vec![format!("+{folder}*:{}*", local(folder))],
            Self::Commit(_) => vec![
                "+refs/heads/*:refs/fleetwright/heads/*".into(),
                format!("+refs/tags/*:{TAGS}*"),
            ],
        }
    }

    /// The commit, as the cache has it after the fetch.
    pub(super) fn commit(&self, repository: &Repository) -> Result<Oid, SourceError> {
        self.found(repository).map(|(commit, _)| commit)
    }

    /// The commit, and the annotated tag that names it, if there is one.
    pub(super) fn found(
        &self,
        repository: &Repository,
    ) -> Result<(Oid, Option<NamedTag>), SourceError> {
        let doing = "reading the ref";
        let peeled = |reference: Reference<'_>, what: &str| match reference.peel_to_commit() {
            Ok(commit) => {
                let name = reference.name_bytes().strip_prefix(TAGS.as_bytes());
                let object = reference.target().filter(|id| *id != commit.id());
                let tag = name.zip(object).map(|(name, object)| NamedTag {
                    name: name.to_vec(),
                    object,
                });
                Ok((commit.id(), tag))
            }
            Err(e) if matches!(e.code(), ErrorCode::InvalidSpec | ErrorCode::Peel) => Err(
                SourceError::BadRef(format!("{what} is the name of something that is no commit")),
            ),
            Err(e) => Err(cache(doing)(e)),
        };
        match self {
            Self::Ref { remote, what } => match repository.find_reference(&local(remote)) {
                Ok(found) => peeled(found, what),
                Err(e) if e.code() == ErrorCode::NotFound => Err(SourceError::NoRef(what.clone())),
                Err(e) => Err(cache(doing)(e)),
            },
            Self::Tags(range) => match highest(repository, range)? {
                Some((version, tag)) => peeled(tag, &format!("tag {version}")),
                None => Err(SourceError::NoRef(format!("tag in the range {range}"))),
            },
            Self::Below(folder) => {
                Err(SourceError::NoRef(format!("commit of its own at {folder}")))
            }
            Self::Commit(oid) => match repository.find_commit(*oid) {
                Ok(commit) => Ok((commit.id(), None)),
                Err(e) if e.code() == ErrorCode::NotFound => Err(SourceError::NoRef(format!(
                    "commit {oid} on a branch or tag"
                ))),
                Err(e) => Err(cache(doing)(e)),
            },
        }
    }
}

/// The highest tag in a range of versions.
fn highest<'r>(
    repository: &'r Repository,
    range: &VersionReq,
) -> Result<Option<(Version, Reference<'r>)>, SourceError> {
    let doing = "reading the ref";
    let all = repository
        .references_glob(&format!("{TAGS}*"))
        .map_err(cache(doing))?;
    let mut best: Option<(Version, Vec<u8>, Reference<'_>)> = None;
    for tag in all {
        let tag = tag.map_err(cache(doing))?;
        let name = tag.name_bytes()[TAGS.len()..].to_vec();
        let text = std::str::from_utf8(&name).unwrap_or_default();
        let Ok(version) = Version::parse(text.strip_prefix('v').unwrap_or(text)) else {
            continue;
        };
        let higher = best
            .as_ref()
            .is_none_or(|(v, n, _)| v.cmp(&version).then_with(|| n.cmp(&name)).is_lt());
        if range.matches(&version) && higher {
            best = Some((version, name, tag));
        }
    }
    Ok(best.map(|(version, _, tag)| (version, tag)))
}

/// Names at the remote of the refs below one, of which the last fetch brought all; those that are no text are left out.
pub(super) fn below(repository: &Repository, folder: &str) -> Result<Vec<String>, SourceError> {
    let doing = "reading the refs";
    let all = repository.references_glob(&format!("{}*", local(folder)));
    let mut names = Vec::new();
    for found in all.map_err(cache(doing))? {
        let found = found.map_err(cache(doing))?;
        let name = std::str::from_utf8(found.name_bytes()).ok();
        names.extend(
            name.and_then(|n| n.strip_prefix(OURS))
                .map(|n| format!("refs/{n}")),
        );
    }
    Ok(names)
}

/// Where a remote ref is kept in the cache.
fn local(remote: &str) -> String {
    let name = remote.strip_prefix("refs/").unwrap_or(remote);
    format!("{OURS}{name}")
}
