//! A remote repository and its bare cache.
//!
//! One connection asks for the ref and fetches what is new of it. The ref is then read from the cache, so that no name
//! of a ref that somebody else pushed is ever looked at here.

use std::{
    cell::Cell,
    fs::File,
    path::{Path, PathBuf},
};

use fleetwright_api::{fleet::GitRef, secret::SecretText};
use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, FetchPrune, ObjectType, Oid,
    Reference, RemoteCallbacks, Repository,
};
use semver::{Version, VersionReq};

use super::{MAX_FETCH_BYTES, MAX_FOLDERS, SourceError, clean, collect::Collector};
use crate::load::SourceFile;

/// Files among the cache's packs from which on it is fetched anew: about 50 packs with their indexes, or the rest of
/// fetches that were cut off.
const MAX_PACK_FILES: usize = 100;
const TAGS: &str = "refs/fleetwright/tags/";

/// A remote repository and its bare cache.
#[derive(Clone, Debug)]
pub struct GitSource {
    /// Folder of the cache; made when missing. A lock file lies beside it.
    pub cache: PathBuf,
    /// URL.
    pub url: String,
    /// User name for https; `x-access-token` when left out.
    pub username: Option<String>,
    /// Token or password for https.
    pub token: Option<SecretText>,
}

/// What is fetched for a ref.
enum Wanted {
    /// One ref of the remote, with what people call it.
    Ref { remote: String, what: String },
    /// The highest tag in a range.
    Tags(VersionReq),
    /// A commit, wherever it is.
    Commit(Oid),
}

fn remote(doing: &'static str) -> impl FnOnce(git2::Error) -> SourceError {
    move |source| SourceError::Git { doing, source }
}

fn cache(doing: &'static str) -> impl FnOnce(git2::Error) -> SourceError {
    move |source| SourceError::Cache { doing, source }
}

impl Wanted {
    fn of(reference: &GitRef) -> Result<Self, SourceError> {
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

    fn refspecs(&self) -> Vec<String> {
        match self {
            Self::Ref { remote, .. } => vec![format!("+{remote}:{}", local(remote))],
            Self::Tags(_) => vec![format!("+refs/tags/*:{TAGS}*")],
            Self::Commit(_) => vec![
                "+refs/heads/*:refs/fleetwright/heads/*".into(),
                format!("+refs/tags/*:{TAGS}*"),
            ],
        }
    }

    /// The commit, as the cache has it after the fetch.
    fn commit(&self, repository: &Repository) -> Result<Oid, SourceError> {
        let doing = "reading the ref";
        let peeled = |reference: Reference<'_>, what: &str| match reference.peel_to_commit() {
            Ok(commit) => Ok(commit.id()),
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
            Self::Tags(range) => {
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
                match best {
                    Some((version, _, tag)) => peeled(tag, &format!("tag {version}")),
                    None => Err(SourceError::NoRef(format!("tag in the range {range}"))),
                }
            }
            Self::Commit(oid) => match repository.find_commit(*oid) {
                Ok(commit) => Ok(commit.id()),
                Err(e) if e.code() == ErrorCode::NotFound => Err(SourceError::NoRef(format!(
                    "commit {oid} on a branch or tag"
                ))),
                Err(e) => Err(cache(doing)(e)),
            },
        }
    }
}

/// Where a remote ref is kept in the cache.
fn local(remote: &str) -> String {
    let name = remote.strip_prefix("refs/").unwrap_or(remote);
    format!("refs/fleetwright/{name}")
}

impl GitSource {
    /// The commit that `reference` stands for at the remote now; it is in the cache then.
    ///
    /// # Errors
    /// [`SourceError`], when the remote cannot be asked or has no such ref.
    pub fn resolve(&self, reference: &GitRef) -> Result<Oid, SourceError> {
        if !self.url.starts_with("https://") && !self.url.starts_with("file://") {
            return Err(SourceError::Scheme);
        }
        if authority(&self.url).0.contains(':') {
            return Err(SourceError::Password);
        }
        let wanted = Wanted::of(reference)?;
        let _lock = self.lock()?;
        match self.fetch(&wanted) {
            // What a crash left half-written is thrown away.
            Err(error @ SourceError::Cache { .. }) => {
                tracing::warn!(url = self.url, cause = ?error, "{error}");
                self.forget()?;
                self.fetch(&wanted)
            }
            other => other,
        }
    }

    /// The Git tree id of folder `path` at a commit that [`Self::resolve`] gave.
    ///
    /// # Errors
    /// [`SourceError`]; a folder that is not there is an error, never an empty one.
    pub fn tree(&self, commit: Oid, path: &str) -> Result<Oid, SourceError> {
        let path = clean(path)?;
        self.cached(|repository| {
            let found = repository
                .find_commit(commit)
                .map_err(cache("reading the commit"))?;
            if path.is_empty() {
                return Ok(found.tree_id());
            }
            let root = found.tree().map_err(cache("reading the commit's tree"))?;
            match root.get_path(Path::new(&path)) {
                Ok(entry) if entry.kind() == Some(ObjectType::Tree) => Ok(entry.id()),
                Ok(_) => Err(SourceError::NoPath(path)),
                Err(e) if e.code() == ErrorCode::NotFound => Err(SourceError::NoPath(path)),
                Err(e) => Err(cache("reading the commit's tree")(e)),
            }
        })
    }

    /// The manifests of a tree that [`Self::tree`] gave.
    ///
    /// # Errors
    /// [`SourceError`], when it cannot be read as a whole.
    pub fn files(&self, tree: Oid) -> Result<Vec<SourceFile>, SourceError> {
        self.cached(|repository| {
            let objects = repository.odb().map_err(cache("reading a file"))?;
            let mut found = Collector::default();
            let mut open = vec![(Vec::new(), tree, 0)];
            while let Some((prefix, id, depth)) = open.pop() {
                if depth > MAX_FOLDERS {
                    return Err(SourceError::TooDeep);
                }
                let folder = repository
                    .find_tree(id)
                    .map_err(cache("reading a folder"))?;
                for entry in folder.iter() {
                    found.entry()?;
                    let path = [prefix.as_slice(), entry.name_bytes()].concat();
                    let id = entry.id();
                    match entry.filemode() {
                        0o040_000 if entry.name_bytes().starts_with(b".") => {}
                        0o040_000 => open.push(([&path, b"/".as_slice()].concat(), id, depth + 1)),
                        0o120_000 => drop(found.other(&path, "a symbolic link")),
                        0o160_000 => drop(found.other(&path, "a submodule")),
                        _ => {
                            let (size, _) =
                                objects.read_header(id).map_err(cache("reading a file"))?;
                            found.file(&path, size, || {
                                let object = objects.read(id).map_err(cache("reading a file"))?;
                                Ok(object.data().to_vec())
                            })?;
                        }
                    }
                }
            }
            Ok(found.into_files())
        })
    }

    /// One at a time uses a cache: in this process, and in others on the same state.
    fn lock(&self) -> Result<File, SourceError> {
        let path = self.cache.with_extension("lock");
        let locked = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file = File::options().create(true).append(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        locked().map_err(|source| SourceError::Io {
            path: path.clone(),
            source,
        })
    }

    /// Reads from the cache; one that fails is thrown away, and the next [`Self::resolve`] fetches it again.
    fn cached<T>(
        &self,
        read: impl FnOnce(&Repository) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let _lock = self.lock()?;
        let result = Repository::open_bare(&self.cache)
            .map_err(cache("opening it"))
            .and_then(|repository| read(&repository));
        if let Err(SourceError::Cache { .. }) = &result {
            self.forget()?;
        }
        result
    }

    fn forget(&self) -> Result<(), SourceError> {
        match std::fs::remove_dir_all(&self.cache) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(SourceError::Io {
                path: self.cache.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Asks the remote and brings what is new of the wanted refs into the cache.
    fn fetch(&self, wanted: &Wanted) -> Result<Oid, SourceError> {
        let packs = std::fs::read_dir(self.cache.join("objects/pack"));
        if packs.is_ok_and(|files| files.count() > MAX_PACK_FILES) {
            self.forget()?;
        }
        let repository = if self.cache.exists() {
            Repository::open_bare(&self.cache).map_err(cache("opening it"))?
        } else {
            Repository::init_bare(&self.cache).map_err(cache("making it"))?
        };
        // What a commit holds never changes: nobody need be asked.
        if let Wanted::Commit(oid) = wanted
            && repository.find_commit(*oid).is_ok()
        {
            return Ok(*oid);
        }
        let mut source = repository
            .remote_anonymous(&self.url)
            .map_err(remote("reading the URL"))?;
        let too_large = Cell::new(false);
        let mut callbacks = self.callbacks();
        callbacks.transfer_progress(|progress| {
            too_large.set(progress.received_bytes() > MAX_FETCH_BYTES);
            !too_large.get()
        });
        let mut connection = source
            .connect_auth(Direction::Fetch, Some(self.callbacks()), None)
            .map_err(|error| match error.code() {
                ErrorCode::Certificate => SourceError::Untrusted(error),
                _ => remote("connecting to the repository")(error),
            })?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(callbacks)
            .prune(FetchPrune::On)
            .update_fetchhead(false)
            .download_tags(AutotagOption::None);
        let fetched = connection
            .remote()
            .fetch(&wanted.refspecs(), Some(&mut options), None);
        match fetched {
            Ok(()) => {}
            Err(_) if too_large.get() => return Err(SourceError::TooLarge),
            Err(e) if is_remote(&e) => return Err(remote("fetching")(e)),
            Err(e) => return Err(cache("fetching")(e)),
        }
        drop(options);
        wanted.commit(&repository)
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        let mut tried = false;
        callbacks.credentials(move |url, user, _| match &self.token {
            // A redirect to another host does not get the token.
            Some(_) if !same_host(url, &self.url) => Err(git2::Error::from_str(
                "the repository redirects to another host: correct spec.source.url",
            )),
            Some(token) if !tried => {
                tried = true;
                let name = self
                    .username
                    .as_deref()
                    .or(user)
                    .unwrap_or("x-access-token");
                git2::Cred::userpass_plaintext(name, token.expose())
            }
            Some(_) => Err(git2::Error::from_str(
                "the repository refuses the credentials: check the Secret of spec.source.secretRef",
            )),
            None => Err(git2::Error::from_str(
                "the repository asks for credentials: name a Secret with a token in spec.source.secretRef",
            )),
        });
        callbacks
    }
}

/// Whether a fetch failed at the other side, not in the cache.
fn is_remote(error: &git2::Error) -> bool {
    matches!(
        error.class(),
        ErrorClass::Net | ErrorClass::Http | ErrorClass::Ssl | ErrorClass::Callback
    )
}

/// User (with a password, if there is one) and host (with its port, if it is another than https') of a URL.
fn authority(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    (user, host.strip_suffix(":443").unwrap_or(host))
}

fn same_host(one: &str, other: &str) -> bool {
    authority(one).1.eq_ignore_ascii_case(authority(other).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_the_same_host_alone() {
        let ours = "https://Example.org/acme/fleet.git";
        for same in [
            "https://example.org/other",
            "https://example.org:443/acme/fleet",
            "https://user@example.org",
        ] {
            assert!(same_host(ours, same), "{same}");
        }
        for other in [
            "https://example.org:8443/acme/fleet.git",
            "https://example.org.evil.net/acme/fleet.git",
            "https://evil.net/@example.org",
            "https://evil.net?@example.org",
            "https://example.org@evil.net/",
        ] {
            assert!(!same_host(ours, other), "{other}");
        }
    }
}
