//! A remote repository and its bare cache.
//!
//! One connection asks for the refs and fetches what is new of them.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, FetchPrune, ObjectType, Oid,
    Repository,
};
use jiff::Timestamp;

use super::{
    MAX_FETCH_BYTES, MAX_FOLDERS, SourceError, clean,
    collect::Collector,
    credentials::Credentials,
    filter::Filter,
    signature::Policy,
    transport::{Address, Session},
    wanted::{OURS, Wanted},
};
use crate::load::SourceFile;

/// Files among the cache's packs from which on it is fetched anew: about 50 packs with their indexes, or the rest of
/// fetches that were cut off.
const MAX_PACK_FILES: usize = 100;
/// A cache is fetched anew when it has twice as many bytes as it had when it was clean, and these.
const SLACK: u64 = if cfg!(test) { 64 << 10 } else { 16 << 20 };
/// In a cache: its bytes when it was clean.
const CLEAN_BYTES: &str = "fleetwright-clean-bytes";
/// A cache that nobody has fetched into for so long is removed.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Longest target of a symbolic link that is looked at.
const MAX_TARGET_BYTES: usize = 4096;

/// A remote repository and its bare cache.
#[derive(Clone, Debug)]
pub struct GitSource {
    /// Folder of the cache; made when missing. A lock file lies beside it.
    pub(super) cache: PathBuf,
    /// Where the repository is.
    pub(super) address: Address,
    /// Who we are there.
    pub(super) credentials: Arc<Credentials>,
}

pub(super) fn remote(doing: &'static str) -> impl FnOnce(git2::Error) -> SourceError {
    move |source| SourceError::Git { doing, source }
}

pub(super) fn cache(doing: &'static str) -> impl FnOnce(git2::Error) -> SourceError {
    move |source| SourceError::Cache { doing, source }
}

impl GitSource {
    /// Fetches `all`; gives the commit that `wanted`, which is among them, stands for at the remote now.
    pub(super) fn resolve(
        &self,
        all: &[Wanted],
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Oid, SourceError> {
        self.fetched(all, now, |repository| wanted.commit(repository))
    }

    /// Fetches `all`, and acts on the cache as it is then.
    pub(super) fn fetched<T>(
        &self,
        all: &[Wanted],
        now: Timestamp,
        act: impl Fn(&Repository) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let lock = self.lock()?;
        // Only tells which caches are used.
        lock.set_modified(SystemTime::from(now)).ok();
        let fetch = || act(&self.fetch(all, now)?);
        match fetch() {
            // What a crash left half-written is thrown away.
            Err(error @ SourceError::Cache { .. }) => {
                tracing::warn!(url = self.address.url, cause = ?error, "{error}");
                self.forget()?;
                fetch()
            }
            other => other,
        }
    }

    /// The commit that `wanted` stood for in the last fetch.
    pub(super) fn known(&self, wanted: &Wanted) -> Result<Oid, SourceError> {
        self.cached(|repository| wanted.commit(repository))
    }

    /// Whether `policy` lets `commit`, for which `wanted` stood in the last fetch, be applied.
    pub(crate) fn verify(
        &self,
        commit: Oid,
        wanted: &Wanted,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(), SourceError> {
        self.cached(|repository| {
            let (found, tag) = wanted.found(repository)?;
            let tag = tag.filter(|_| found == commit);
            policy.check(repository, commit, tag.as_ref(), now)
        })
    }

    /// The Git tree id of folder `path` at a commit that was fetched.
    ///
    /// # Errors
    /// [`SourceError`]; a folder that is not there is an error, never an empty one.
    pub fn tree(&self, commit: Oid, path: &str) -> Result<Oid, SourceError> {
        let path = clean(path)?;
        self.cached(|repository| {
            let found = repository
                .find_commit(commit)
                .map_err(cache("reading the commit"))?;
            Self::folder(repository, found.tree_id(), &path)
        })
    }

    /// Whether the cache has a tree. One that it lacks, of a history that was rewritten, is no fault of the cache.
    pub(crate) fn has_tree(&self, tree: Oid) -> Result<bool, SourceError> {
        self.cached(|repository| match repository.find_tree(tree) {
            Ok(_) => Ok(true),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(cache("reading an earlier tree")(error)),
        })
    }

    /// Folder `path` of a tree.
    pub(super) fn folder(
        repository: &Repository,
        root: Oid,
        path: &str,
    ) -> Result<Oid, SourceError> {
        if path.is_empty() {
            return Ok(root);
        }
        let doing = "reading the commit's tree";
        let root = repository.find_tree(root).map_err(cache(doing))?;
        match root.get_path(Path::new(path)) {
            Ok(entry) if entry.kind() == Some(ObjectType::Tree) => Ok(entry.id()),
            Ok(_) => Err(SourceError::NoPath(path.to_owned())),
            Err(e) if e.code() == ErrorCode::NotFound => Err(SourceError::NoPath(path.to_owned())),
            Err(e) => Err(cache(doing)(e)),
        }
    }

    /// The manifests of a tree that [`Self::tree`] gave.
    ///
    /// # Errors
    /// [`SourceError`], when it cannot be read as a whole.
    pub fn files(&self, tree: Oid, filter: &Filter) -> Result<Vec<SourceFile>, SourceError> {
        self.cached(|repository| Self::files_of(repository, tree, filter))
    }

    /// The manifests of a tree.
    pub(super) fn files_of(
        repository: &Repository,
        tree: Oid,
        filter: &Filter,
    ) -> Result<Vec<SourceFile>, SourceError> {
        let objects = repository.odb().map_err(cache("reading a file"))?;
        let size = |id| {
            let header = objects.read_header(id).map_err(cache("reading a file"))?;
            Ok::<_, SourceError>(header.0)
        };
        let bytes = |id| {
            let object = objects.read(id).map_err(cache("reading a file"))?;
            Ok::<_, SourceError>(object.data().to_vec())
        };
        let mut found = Collector::new(filter);
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
                    0o040_000 | 0o160_000 if entry.name_bytes().starts_with(b".") => {}
                    0o040_000 => open.push(([&path, b"/".as_slice()].concat(), id, depth + 1)),
                    0o120_000 => {
                        let target = match size(id)? {
                            0..=MAX_TARGET_BYTES => bytes(id)?,
                            _ => Vec::new(),
                        };
                        found.link(&path, &target);
                    }
                    0o160_000 => found.submodule(&path),
                    _ => drop(found.file(&path, size(id)?, || bytes(id))?),
                }
            }
        }
        Ok(found.into_files())
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

    /// Reads from the cache; one that fails is thrown away, and the next fetch makes it again.
    pub(super) fn cached<T>(
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

    /// The cache as it is to be fetched into, and refs that a new one must have again: others follow them.
    fn open(&self, now: Timestamp) -> Result<(Repository, Vec<String>), SourceError> {
        let mut again = Vec::new();
        if self.cache.exists() {
            let repository = Repository::open_bare(&self.cache).map_err(cache("opening it"))?;
            let clean = std::fs::read_to_string(self.cache.join(CLEAN_BYTES));
            let clean = clean.ok().and_then(|text| text.parse::<u64>().ok());
            let (files, bytes) = self.packs();
            let grown = clean.is_some_and(|clean| bytes > 2 * clean + SLACK);
            if files <= MAX_PACK_FILES && !grown {
                return Ok((repository, again));
            }
            tracing::debug!(
                url = self.address.url,
                files,
                bytes,
                "the cache is made anew"
            );
            again = refs(&repository)?;
            drop(repository);
            self.forget()?;
        } else {
            self.remove_unused(now);
        }
        let repository = Repository::init_bare(&self.cache).map_err(cache("making it"))?;
        Ok((repository, again))
    }

    /// Files and bytes of the cache's packs.
    fn packs(&self) -> (usize, u64) {
        let Ok(packs) = std::fs::read_dir(self.cache.join("objects/pack")) else {
            return (0, 0);
        };
        packs.flatten().fold((0, 0), |(files, bytes), file| {
            let size = file.metadata().map_or(0, |data| data.len());
            (files + 1, bytes + size)
        })
    }

    /// Removes caches that nobody has used for long: of Fleets that are gone, of credentials that were changed.
    fn remove_unused(&self, now: Timestamp) {
        let folder = self.cache.parent().and_then(|f| std::fs::read_dir(f).ok());
        for entry in folder.into_iter().flatten().flatten() {
            let lock = entry.path();
            let cache = lock.with_extension("");
            let unused = || {
                let used = entry.metadata().ok()?.modified().ok()?;
                SystemTime::from(now).duration_since(used).ok()
            };
            if lock.extension().is_none_or(|e| e != "lock")
                || cache == self.cache
                || !cache.exists()
                || unused().is_none_or(|unused| unused < UNUSED)
            {
                continue;
            }
            if let Ok(file) = File::open(&lock)
                && file.try_lock().is_ok()
                && std::fs::remove_dir_all(&cache).is_ok()
            {
                tracing::info!(cache = %cache.display(), "removed a cache that nobody used");
            }
        }
    }

    /// Asks the remote and brings what is new of the wanted refs into the cache.
    fn fetch(&self, all: &[Wanted], now: Timestamp) -> Result<Repository, SourceError> {
        let (repository, again) = self.open(now)?;
        let mut refspecs: BTreeSet<String> = again.iter().map(|name| refspec(name)).collect();
        for wanted in all {
            // What a commit holds never changes: nobody need be asked.
            if !matches!(wanted, Wanted::Commit(oid) if repository.find_commit(*oid).is_ok()) {
                refspecs.extend(wanted.refspecs());
            }
        }
        if refspecs.is_empty() {
            return Ok(repository);
        }
        let before = refs(&repository)?.len();
        let refspecs: Vec<String> = refspecs.into_iter().collect();
        self.download(&repository, &refspecs, now)?;
        // Another branch is no waste.
        if refs(&repository)?.len() > before {
            let clean = self.packs().1.to_string();
            let path = self.cache.join(CLEAN_BYTES);
            std::fs::write(&path, clean).map_err(|source| SourceError::Io { path, source })?;
        }
        Ok(repository)
    }

    /// Brings what is new of some refs into the cache, and takes out what is gone of them.
    fn download(
        &self,
        repository: &Repository,
        refspecs: &[String],
        now: Timestamp,
    ) -> Result<(), SourceError> {
        let mut source = repository
            .remote_anonymous(&self.address.url)
            .map_err(remote("reading the URL"))?;
        let session = Session::new(&self.address, &self.credentials, now);
        let too_large = Cell::new(false);
        let mut callbacks = session.callbacks();
        callbacks.transfer_progress(|progress| {
            too_large.set(progress.received_bytes() > MAX_FETCH_BYTES);
            !too_large.get()
        });
        let mut connection = source
            .connect_auth(Direction::Fetch, Some(session.callbacks()), None)
            .map_err(|error| session.explain(error, "connecting to the repository"))?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(callbacks)
            .prune(FetchPrune::On)
            .update_fetchhead(false)
            .download_tags(AutotagOption::None);
        let fetched = connection
            .remote()
            .fetch(refspecs, Some(&mut options), None);
        match fetched {
            Ok(()) => Ok(()),
            Err(_) if too_large.get() => Err(SourceError::TooLarge),
            Err(e) if is_remote(&e) => Err(session.explain(e, "fetching")),
            Err(e) => Err(cache("fetching")(e)),
        }
    }
}

/// Names of what the cache keeps of the remote.
fn refs(repository: &Repository) -> Result<Vec<String>, SourceError> {
    let doing = "reading the refs";
    let all = repository
        .references_glob(&format!("{OURS}*"))
        .map_err(cache(doing))?;
    let mut names = Vec::new();
    for found in all {
        let found = found.map_err(cache(doing))?;
        // A name that is no text was no single ref's that somebody follows.
        names.extend(std::str::from_utf8(found.name_bytes()).map(str::to_owned));
    }
    Ok(names)
}

/// What fetches the remote's part of a ref of the cache.
fn refspec(local: &str) -> String {
    match local.strip_prefix(OURS) {
        Some("HEAD") | None => format!("+HEAD:{OURS}HEAD"),
        Some(name) => format!("+refs/{name}:{local}"),
    }
}

/// Whether a fetch failed at the other side, not in the cache.
fn is_remote(error: &git2::Error) -> bool {
    matches!(
        error.class(),
        ErrorClass::Net
            | ErrorClass::Http
            | ErrorClass::Ssl
            | ErrorClass::Ssh
            | ErrorClass::Callback
    )
}
