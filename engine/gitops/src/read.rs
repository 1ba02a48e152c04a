//! Reads the source of one Fleet. What was loaded of a tree is kept: a look at a tree that was loaded before reads no
//! file, whatever commit brought it.

use std::{
    borrow::Cow, collections::BTreeMap, error::Error, path::PathBuf, sync::Arc, time::Duration,
};

use fleetwright_api::{
    Fleet,
    cluster::LocalSecretRef,
    fleet::{Allow, FleetSource},
};
use fleetwright_core::{
    catalogue::Catalogue,
    plan::{Desired, Key},
};
use git2::Oid;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    gather::{by_key, desired_of},
    load::{LoadContext, LoadError, Outside, SourceFile, load},
    source::{
        Address, AppTokens, Caches, Credentials, Filter, Fingerprint, GitSource, Policy, Snapshot,
        SourceError, TrustedKeys, Wanted, read_directory,
    },
};

mod notes;
mod pulls;

/// How long a look waits for the source. Reading goes on after that, and the next look waits for it again.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a Fleet's source could not be read: nothing may be concluded.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source itself.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A Secret that the Fleet names cannot be used.
    #[error("the Secret {name} of spec.source cannot be used: {why}: correct it, or name another")]
    Secret {
        /// Namespace and name.
        name: String,
        /// What it lacks or has too much of.
        why: String,
    },
    /// There is no token of the GitHub App.
    #[error("cannot get a token of the GitHub App of spec.source.secretRef")]
    App(#[source] Box<dyn Error + Send + Sync>),
    /// The Secret cannot be read.
    #[error("cannot read a Secret of spec.source")]
    Api(#[from] Box<kube::Error>),
    /// It takes long; nothing was lost.
    #[error("the source has not answered for {} s: still waiting for it", PATIENCE.as_secs())]
    Slow,
    /// The thread that reads the source ended.
    #[error("reading the source broke off")]
    Broken,
}

/// The revision that a source is at.
pub struct Found {
    /// Commit id, or `dir:<tree id>`.
    pub revision: String,
    /// The followed folder there; when there is none, that is the revision's own fault.
    pub tree: Result<Tree, SourceError>,
}

/// The followed folder of one revision.
#[derive(Clone)]
pub enum Tree {
    /// In the cache of a repository.
    Git(GitSource, Oid, Filter),
    /// Of a directory, or of a repository in memory: already read.
    Directory(Arc<Snapshot>),
    /// Of a merge that nobody made yet: already read.
    Merged(Arc<Snapshot>, Filter),
    /// Of a directory that has not changed since it was read.
    Unchanged(Directory, String),
}

impl Tree {
    /// Its Git tree id.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Git(_, id, _) => id.to_string(),
            Self::Directory(snapshot) | Self::Merged(snapshot, _) => snapshot.tree.clone(),
            Self::Unchanged(_, tree) => tree.clone(),
        }
    }

    /// Which of its files count, where they have not been read yet.
    fn filter(&self) -> Filter {
        match self {
            Self::Git(_, _, filter) | Self::Merged(_, filter) => filter.clone(),
            // What is left out is no part of their ids.
            Self::Directory(_) | Self::Unchanged(..) => Filter::default(),
        }
    }

    /// Its files; blocks.
    fn files(&self) -> Result<Cow<'_, [SourceFile]>, SourceError> {
        Ok(match self {
            Self::Git(source, id, filter) => source.files(*id, filter)?.into(),
            Self::Directory(snapshot) | Self::Merged(snapshot, _) => {
                snapshot.files.as_slice().into()
            }
            Self::Unchanged(at, _) => stable(at)?.files.into(),
        })
    }
}

/// A folder of a local directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    directory: PathBuf,
    path: String,
    filter: Filter,
}

/// What a tree declares.
pub struct Declared {
    tree: String,
    filter: Filter,
    allow: Allow,
    /// Objects; to be believed only when there are no errors.
    pub desired: Vec<Desired>,
    /// Their documents.
    pub documents: BTreeMap<Key, Value>,
    /// Mistakes in the files.
    pub errors: Vec<LoadError>,
    /// Clusters that must live outside the files.
    pub outside: Vec<Outside>,
}

/// Repositories that are no further away than memory. They are read where a look stands, without a thread: so a look in a simulation
/// is the same each time.
pub trait Repositories: Send + Sync + 'static {
    /// The files of `source`, as they are now.
    ///
    /// # Errors
    /// [`SourceError`], as of any repository.
    fn read(&self, source: &FleetSource) -> Result<Snapshot, SourceError>;

    /// The followed folder as it was with the tree id `tree`; `None` where nobody knows any more.
    fn before(&self, source: &FleetSource, tree: &str) -> Option<Snapshot>;
}

/// Reads the source of one Fleet.
pub struct Reader {
    client: Client,
    catalogue: Arc<Catalogue>,
    caches: Caches,
    repositories: Option<Arc<dyn Repositories>>,
    tokens: Option<Arc<dyn AppTokens>>,
    last: Option<Arc<Declared>>,
    /// The directory as it was last read, if an edit since then would show.
    stands: Option<(Directory, Fingerprint, String)>,
    running: Option<JoinHandle<()>>,
}

impl Reader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new(client: Client, catalogue: Arc<Catalogue>, caches: Caches) -> Self {
        Self {
            client,
            catalogue,
            caches,
            repositories: None,
            tokens: None,
            last: None,
            stands: None,
            running: None,
        }
    }

    /// Reads URLs from `repositories`, where there are any, instead of fetching.
    #[must_use]
    pub fn over(mut self, repositories: Option<Arc<dyn Repositories>>) -> Self {
        self.repositories = repositories;
        self
    }

    /// Asks `tokens` for those of GitHub Apps.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Option<Arc<dyn AppTokens>>) -> Self {
        self.tokens = tokens;
        self
    }

    /// The revision that the Fleet's source is at now.
    ///
    /// # Errors
    /// [`ReadError`], when it is not known.
    pub async fn find(&mut self, fleet: &Fleet, now: Timestamp) -> Result<Found, ReadError> {
        let source = fleet.spec.source.clone();
        let path = source.path.clone().unwrap_or_default();
        let filter = Filter::new(&source.include, &source.exclude)?;
        let Some(url) = &source.url else {
            let directory = Directory {
                directory: PathBuf::from(source.directory.unwrap_or_default()),
                path,
                filter,
            };
            return self.directory(directory, now).await;
        };
        if let Some(repositories) = &self.repositories {
            let snapshot = repositories.read(&source)?;
            return Ok(Found {
                revision: snapshot.revision.clone(),
                tree: Ok(Tree::Directory(Arc::new(snapshot))),
            });
        }
        let wanted = Wanted::of(&source.reference.clone().unwrap_or_default())?;
        let git = self.git(fleet, &source, url, now).await?;
        let policy = self.policy(fleet, &source).await?;
        let turn = self.caches.turn(git, wanted.clone());
        let turn = tokio::time::timeout(PATIENCE, turn).await;
        let mut turn = turn.map_err(|_| ReadError::Slow)?;
        let find = move || {
            let commit = turn.commit(now)?;
            let git = turn.source();
            let verified = policy.map_or(Ok(()), |p| git.verify(commit, &wanted, &p, now));
            let tree = match verified.and_then(|()| git.tree(commit, &path)) {
                Ok(tree) => Ok(Tree::Git(git.clone(), tree, filter)),
                // The commit is there; what it lacks is its own fault.
                Err(error) if error.is_lasting() => Err(error),
                Err(error) => return Err(error),
            };
            Ok(Found {
                revision: commit.to_string(),
                tree,
            })
        };
        Ok(self.blocking(find).await??)
    }

    async fn directory(&mut self, at: Directory, now: Timestamp) -> Result<Found, ReadError> {
        let before = self.stands.take().filter(|(same, _, _)| *same == at);
        let read = move || {
            let print = Fingerprint::of(&at.directory, &at.path)?;
            if let Some((_, old, tree)) = before
                && old == print
            {
                return Ok((
                    Tree::Unchanged(at.clone(), tree.clone()),
                    Some((at, print, tree)),
                ));
            }
            let snapshot = stable(&at)?;
            let sure =
                print.is_old(now.as_second()) && Fingerprint::of(&at.directory, &at.path)? == print;
            let tree = snapshot.tree.clone();
            let read = Tree::Directory(Arc::new(snapshot));
            Ok::<_, SourceError>((read, sure.then_some((at, print, tree))))
        };
        let (tree, stands) = self.blocking(read).await??;
        self.stands = stands;
        Ok(Found {
            revision: format!("dir:{}", tree.id()),
            tree: Ok(tree),
        })
    }

    /// The files of a tree.
    ///
    /// # Errors
    /// [`ReadError`], when they cannot be read as a whole.
    pub async fn files(&mut self, tree: Tree) -> Result<Vec<SourceFile>, ReadError> {
        let read = move || tree.files().map(Cow::into_owned);
        Ok(self.blocking(read).await??)
    }

    /// What a tree declares, as far as `allow` lets it.
    ///
    /// # Errors
    /// [`ReadError`], when it cannot be read as a whole.
    pub async fn declared(
        &mut self,
        tree: Tree,
        allow: &Allow,
    ) -> Result<Arc<Declared>, ReadError> {
        let (id, filter) = (tree.id(), tree.filter());
        let same = |d: &&Arc<Declared>| d.tree == id && d.filter == filter && d.allow == *allow;
        if let Some(known) = self.last.as_ref().filter(same) {
            return Ok(Arc::clone(known));
        }
        let declared = self.loaded(tree, allow).await?;
        self.last = Some(Arc::clone(&declared));
        Ok(declared)
    }

    async fn loaded(&mut self, tree: Tree, allow: &Allow) -> Result<Arc<Declared>, ReadError> {
        let (id, filter) = (tree.id(), tree.filter());
        let (catalogue, allow) = (Arc::clone(&self.catalogue), allow.clone());
        let read = move || {
            let files = tree.files()?;
            let context = LoadContext {
                provider_schema: &|version, kind| catalogue.schema(version, kind),
                allow: &allow,
            };
            let loaded = load(&files, &context);
            let desired = desired_of(&loaded);
            Ok::<_, SourceError>(Declared {
                tree: id,
                filter,
                documents: by_key(&desired),
                desired,
                errors: loaded.errors,
                outside: loaded.outside,
                allow,
            })
        };
        Ok(Arc::new(match &self.repositories {
            Some(_) => read()?,
            None => self.blocking(read).await??,
        }))
    }

    /// What the followed folder of `fleet` declared with the tree id `id`, an earlier one than `now`: what a process applied that is gone.
    /// `None` where the source has no history or does not reach so far back, or what it has no longer loads as a whole.
    ///
    /// # Errors
    /// [`ReadError`], when trying again may tell.
    pub async fn declared_before(
        &mut self,
        fleet: &Fleet,
        now: &Tree,
        id: &str,
        allow: &Allow,
    ) -> Result<Option<Arc<Declared>>, ReadError> {
        let tree = match (now, &self.repositories) {
            _ if now.id() == id => None,
            (Tree::Git(source, _, filter), _) => {
                let (source, filter) = (source.clone(), filter.clone());
                let Ok(id) = Oid::from_str(id) else {
                    return Ok(None);
                };
                let has = source.clone();
                let has = self.blocking(move || has.has_tree(id)).await??;
                has.then_some(Tree::Git(source, id, filter))
            }
            (_, Some(repositories)) => {
                let before = repositories.before(&fleet.spec.source, id);
                before.map(|before| Tree::Directory(Arc::new(before)))
            }
            _ => None,
        };
        let Some(tree) = tree else {
            return Ok(None);
        };
        match self.loaded(tree, allow).await {
            // Objects of a file with mistakes would look as if Git had not declared them.
            Ok(before) => Ok(Some(before).filter(|before| before.errors.is_empty())),
            Err(ReadError::Source(error)) if error.is_lasting() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs `work` on a thread of its own. A remote that never answers holds one thread, not one more with each look.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        if let Some(earlier) = &mut self.running {
            let ended = tokio::time::timeout(PATIENCE, earlier).await;
            ended.map_err(|_| ReadError::Slow)?.ok();
        }
        let (sender, receiver) = oneshot::channel();
        self.running = Some(tokio::task::spawn_blocking(move || {
            sender.send(work()).ok();
        }));
        let done = tokio::time::timeout(PATIENCE, receiver).await;
        let done = done.map_err(|_| ReadError::Slow)?;
        self.running = None;
        done.map_err(|_| ReadError::Broken)
    }

    /// The repository with what the Fleet's Secret says of it.
    async fn git(
        &self,
        fleet: &Fleet,
        source: &FleetSource,
        url: &str,
        now: Timestamp,
    ) -> Result<GitSource, ReadError> {
        let address = Address::parse(url)?;
        let (name, data) = self.secret(fleet, source.secret_ref.as_ref()).await?;
        let mut credentials = Credentials::of(data.as_ref(), &address)
            .map_err(|why| ReadError::Secret { name, why })?;
        if let Some(app) = &mut credentials.app {
            let forge = fleet.spec.forge.as_ref();
            app.api_url = forge.and_then(|forge| forge.api_url.clone());
            let tokens = self.tokens.as_ref();
            let tokens = tokens.ok_or("this engine makes no tokens of GitHub Apps");
            let tokens = tokens.map_err(|why| ReadError::App(why.into()))?;
            let token = tokens.token(app, now).await.map_err(ReadError::App)?;
            credentials.token = Some(token);
        }
        Ok(self.caches.source(address, credentials))
    }

    /// What of the history must be signed, and by whom.
    async fn policy(
        &self,
        fleet: &Fleet,
        source: &FleetSource,
    ) -> Result<Option<Policy>, ReadError> {
        let Some(verify) = &source.verify else {
            return Ok(None);
        };
        let (name, data) = self.secret(fleet, Some(&verify.secret_ref)).await?;
        let keys = TrustedKeys::of(&data.unwrap_or_default());
        let keys = keys.map_err(|why| ReadError::Secret { name, why })?;
        let status = fleet.status.as_ref();
        let applied = status.and_then(|status| status.applied.as_ref());
        Ok(Some(Policy {
            mode: verify.mode,
            keys,
            applied: applied.map(|applied| applied.revision.clone()),
        }))
    }

    /// Namespace, name and data of a Secret beside the Fleet; no data without a reference, and none in a Secret that is not there.
    async fn secret(
        &self,
        fleet: &Fleet,
        reference: Option<&LocalSecretRef>,
    ) -> Result<(String, Option<BTreeMap<String, ByteString>>), ReadError> {
        let Some(reference) = reference else {
            return Ok(("that is not named".into(), None));
        };
        let namespace = fleet.namespace().unwrap_or_default();
        let found = Api::<Secret>::namespaced(self.client.clone(), &namespace)
            .get_opt(&reference.name)
            .await
            .map_err(Box::new)?;
        let data = found.and_then(|secret| secret.data).unwrap_or_default();
        Ok((format!("{namespace}/{}", reference.name), Some(data)))
    }
}

/// Reads a directory until two reads are the same: an editor may be half way through its writing.
fn stable(at: &Directory) -> Result<Snapshot, SourceError> {
    let mut last = read_directory(&at.directory, &at.path, &at.filter)?;
    for _ in 0..10 {
        let next = read_directory(&at.directory, &at.path, &at.filter)?;
        if next.tree == last.tree {
            break;
        }
        last = next;
    }
    Ok(last)
}
