//! Where files come from: a Git repository through a bare cache, or a local directory. All functions block.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fleetwright_api::{fleet::GitRef, secret::SecretText};
use git2::{
    Direction, FetchOptions, ObjectType, Oid, RemoteCallbacks, Repository, TreeWalkMode,
    TreeWalkResult,
};

use crate::load::{MAX_FILE_BYTES, SourceFile, is_manifest};

/// Most files of one snapshot.
pub const MAX_FILES: usize = 20_000;

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
    /// libgit2 failed.
    #[error("Git failed while {doing}")]
    Git {
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
    #[error("the repository has no {0}: correct spec.source.ref")]
    NoRef(String),
    /// The commit has no such folder.
    #[error(
        "the commit has no folder {0:?}: correct spec.source.path (a folder that became empty is gone in Git)"
    )]
    NoPath(String),
    /// The URL is of a form that is not fetched.
    #[error("only https:// and file:// are fetched: correct spec.source.url")]
    Scheme,
    /// A range of versions is not followed.
    #[error("spec.source.ref.semver is not supported yet: set branch, tag or commit")]
    Semver,
    /// The path leaves the repository.
    #[error("spec.source.path must stay inside the repository")]
    Outside,
    /// Too many files.
    #[error("more than {MAX_FILES} files: set spec.source.path to a smaller folder")]
    TooMany,
}

impl SourceError {
    /// Whether the source is at fault that somebody must correct; else trying again may help.
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Self::Git { .. } | Self::Io { .. })
    }
}

fn git(doing: &'static str) -> impl FnOnce(git2::Error) -> SourceError {
    move |source| SourceError::Git { doing, source }
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

/// A remote repository and its bare cache.
#[derive(Clone, Debug)]
pub struct GitSource {
    /// Folder of the cache; made when missing.
    pub cache: PathBuf,
    /// URL.
    pub url: String,
    /// User name for https; `x-access-token` when left out.
    pub username: Option<String>,
    /// Token or password for https.
    pub token: Option<SecretText>,
}

impl GitSource {
    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        let mut tried = false;
        callbacks.credentials(move |_, user, _| match &self.token {
            Some(token) if !tried => {
                tried = true;
                let name = self
                    .username
                    .as_deref()
                    .or(user)
                    .unwrap_or("x-access-token");
                git2::Cred::userpass_plaintext(name, token.expose())
            }
            _ => Err(git2::Error::from_str(
                "the repository refuses the credentials: check spec.source.secretRef",
            )),
        });
        callbacks
    }

    /// The commit that `reference` stands for at the remote now.
    ///
    /// # Errors
    /// [`SourceError`], when the remote cannot be asked or has no such ref.
    pub fn resolve(&self, reference: &GitRef) -> Result<Oid, SourceError> {
        if !self.url.starts_with("https://") && !self.url.starts_with("file://") {
            return Err(SourceError::Scheme);
        }
        if let Some(commit) = &reference.commit {
            return Oid::from_str(commit).map_err(git("reading spec.source.ref.commit"));
        }
        let mut remote =
            git2::Remote::create_detached(self.url.as_str()).map_err(git("reading the URL"))?;
        let connection = remote
            .connect_auth(Direction::Fetch, Some(self.callbacks()), None)
            .map_err(git("connecting to the repository"))?;
        let heads: BTreeMap<String, Oid> = connection
            .list()
            .map_err(git("listing refs"))?
            .iter()
            .map(|head| (head.name().to_owned(), head.oid()))
            .collect();
        let found = |name: &str| {
            heads
                .get(&format!("{name}^{{}}"))
                .or_else(|| heads.get(name))
                .copied()
        };
        let (name, oid) = match (&reference.branch, &reference.tag) {
            (Some(branch), _) => (
                format!("branch {branch}"),
                found(&format!("refs/heads/{branch}")),
            ),
            (_, Some(tag)) => (format!("tag {tag}"), found(&format!("refs/tags/{tag}"))),
            _ if reference.semver.is_some() => return Err(SourceError::Semver),
            _ => ("HEAD".to_owned(), found("HEAD")),
        };
        oid.ok_or(SourceError::NoRef(name))
    }

    /// The files below `path` at `commit`, fetched when the cache does not have it.
    ///
    /// # Errors
    /// [`SourceError`]; a folder that is not there is an error, never an empty snapshot.
    pub fn snapshot(&self, commit: Oid, path: &str) -> Result<Snapshot, SourceError> {
        let path = clean(path)?;
        let repository = match Repository::open_bare(&self.cache) {
            Ok(repository) => repository,
            Err(_) => Repository::init_bare(&self.cache).map_err(git("making the cache"))?,
        };
        if repository.find_commit(commit).is_err() {
            let mut remote = repository
                .remote_anonymous(&self.url)
                .map_err(git("reading the URL"))?;
            let mut options = FetchOptions::new();
            options.remote_callbacks(self.callbacks());
            let all = [
                "+refs/heads/*:refs/fleetwright/heads/*",
                "+refs/tags/*:refs/fleetwright/tags/*",
            ];
            remote
                .fetch(&all, Some(&mut options), None)
                .map_err(git("fetching"))?;
        }
        let found = repository
            .find_commit(commit)
            .map_err(git("reading the commit"))?;
        let root = found.tree().map_err(git("reading the commit's tree"))?;
        let tree = if path.is_empty() {
            root
        } else {
            let entry = root
                .get_path(Path::new(&path))
                .map_err(|_| SourceError::NoPath(path.clone()))?;
            repository
                .find_tree(entry.id())
                .map_err(|_| SourceError::NoPath(path.clone()))?
        };
        let mut blobs = Vec::new();
        tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
            let name = String::from_utf8_lossy(entry.name_bytes());
            let full = format!("{folder}{name}");
            let is_file = entry.kind() == Some(ObjectType::Blob) && entry.filemode() != 0o120_000;
            if is_file && is_manifest(&full) {
                blobs.push((full, entry.id()));
            }
            if blobs.len() > MAX_FILES {
                TreeWalkResult::Abort
            } else {
                TreeWalkResult::Ok
            }
        })
        .map_err(|error| {
            if blobs.len() > MAX_FILES {
                SourceError::TooMany
            } else {
                git("reading the tree")(error)
            }
        })?;
        let mut files = Vec::with_capacity(blobs.len());
        for (path, id) in blobs {
            let blob = repository.find_blob(id).map_err(git("reading a file"))?;
            files.push(SourceFile {
                path,
                bytes: blob.content().to_vec(),
            });
        }
        Ok(Snapshot {
            revision: commit.to_string(),
            tree: tree.id().to_string(),
            files,
        })
    }
}

/// The files below a directory. Symbolic links and names that begin with a dot are not followed.
///
/// # Errors
/// [`SourceError`], when anything below it cannot be read.
pub fn read_directory(directory: &Path, path: &str) -> Result<Snapshot, SourceError> {
    let root = directory.join(clean(path)?);
    let mut files = Vec::new();
    let tree = folder(&root, "", 0, &mut files)?;
    let tree = match tree {
        Some(tree) => tree,
        None => Oid::hash_object(ObjectType::Tree, &[]).map_err(git("hashing"))?,
    };
    Ok(Snapshot {
        revision: format!("dir:{tree}"),
        tree: tree.to_string(),
        files,
    })
}

fn folder(
    at: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<SourceFile>,
) -> Result<Option<Oid>, SourceError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| SourceError::Io { path, source }
    };
    // Git sorts folders as if their names ended in a slash.
    let mut entries: BTreeMap<String, (&str, String, Oid)> = BTreeMap::new();
    for entry in std::fs::read_dir(at).map_err(io(at))? {
        let entry = entry.map_err(io(at))?;
        let kind = entry.file_type().map_err(io(&entry.path()))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let full = format!("{prefix}{name}");
        if kind.is_dir() && depth < 50 {
            if let Some(tree) = folder(&entry.path(), &format!("{full}/"), depth + 1, files)? {
                entries.insert(format!("{name}/"), ("40000", name, tree));
            }
        } else if kind.is_file() && is_manifest(&full) {
            let size = entry.metadata().map_err(io(&entry.path()))?.len();
            let mut bytes = Vec::new();
            let file = std::fs::File::open(entry.path()).map_err(io(&entry.path()))?;
            // One byte more than is allowed: the loader then names the file as too large.
            let most = (MAX_FILE_BYTES as u64 + 1).min(size.saturating_add(MAX_FILE_BYTES as u64));
            std::io::Read::read_to_end(&mut std::io::Read::take(file, most), &mut bytes)
                .map_err(io(&entry.path()))?;
            let blob = Oid::hash_object(ObjectType::Blob, &bytes).map_err(git("hashing"))?;
            files.push(SourceFile { path: full, bytes });
            if files.len() > MAX_FILES {
                return Err(SourceError::TooMany);
            }
            entries.insert(name.clone(), ("100644", name, blob));
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    for (mode, name, id) in entries.values() {
        bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        bytes.extend_from_slice(id.as_bytes());
    }
    Oid::hash_object(ObjectType::Tree, &bytes)
        .map(Some)
        .map_err(git("hashing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(repository: &Repository, files: &[(&str, &str)]) -> Oid {
        let mut index = git2::Index::new().unwrap();
        repository.set_index(&mut index).unwrap();
        for (path, text) in files {
            let id = repository.blob(text.as_bytes()).unwrap();
            let zero = git2::IndexTime::new(0, 0);
            index
                .add(&git2::IndexEntry {
                    ctime: zero,
                    mtime: zero,
                    dev: 0,
                    ino: 0,
                    mode: 0o100_644,
                    uid: 0,
                    gid: 0,
                    file_size: 0,
                    id,
                    flags: 0,
                    flags_extended: 0,
                    path: path.as_bytes().to_vec(),
                })
                .unwrap();
        }
        let tree = index.write_tree_to(repository).unwrap();
        let who = git2::Signature::new("a", "a@example.org", &git2::Time::new(0, 0)).unwrap();
        let tree = repository.find_tree(tree).unwrap();
        let parents: Vec<_> = repository
            .refname_to_id("refs/heads/main")
            .ok()
            .map(|id| repository.find_commit(id).unwrap())
            .into_iter()
            .collect();
        repository
            .commit(
                Some("refs/heads/main"),
                &who,
                &who,
                "m",
                &tree,
                &parents.iter().collect::<Vec<_>>(),
            )
            .unwrap()
    }

    #[test]
    fn a_repository_is_followed_and_a_directory_has_the_same_tree() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Repository::init_bare(dir.path().join("r.git")).unwrap();
        let first = commit(
            &remote,
            &[
                ("fleet/a.yaml", "a: 1\n"),
                ("fleet/b/c.json", "{}"),
                ("x.yaml", ""),
            ],
        );
        let source = GitSource {
            cache: dir.path().join("cache"),
            url: format!("file://{}", dir.path().join("r.git").display()),
            username: None,
            token: None,
        };
        let main = GitRef {
            branch: Some("main".into()),
            ..GitRef::default()
        };
        assert_eq!(source.resolve(&main).unwrap(), first);
        let one = source.snapshot(first, "./fleet/").unwrap();
        assert_eq!(one.files.len(), 2);
        let local = dir.path().join("fleet");
        for file in &one.files {
            let path = local.join(&file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &file.bytes).unwrap();
        }
        let read = read_directory(dir.path(), "fleet").unwrap();
        assert_eq!(read.tree, one.tree);
        assert_eq!(read.revision, format!("dir:{}", one.tree));
        let second = commit(&remote, &[("x.yaml", "")]);
        assert_eq!(source.resolve(&main).unwrap(), second);
        assert!(matches!(
            source.snapshot(second, "fleet"),
            Err(SourceError::NoPath(_))
        ));
        assert!(matches!(
            source.snapshot(second, "../x"),
            Err(SourceError::Outside)
        ));
        let gone = GitRef {
            branch: Some("gone".into()),
            ..GitRef::default()
        };
        assert!(matches!(source.resolve(&gone), Err(SourceError::NoRef(_))));
    }
}
