//! Follows one Fleet: looks at its source, plans, applies, and tells how far the commit has come.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use fleetwright_api::{
    Fleet,
    commit_status::CommitState,
    condition::{self, Status, kind},
    fleet::{DEFAULT_PROGRESS_DEADLINE_SECONDS, FleetCounts, FleetStatus, RevisionRef},
    names::short_hash,
    random::Random,
    secret::SecretText,
    time::{Clock, k8s_time},
};
use fleetwright_core::{
    catalogue::Catalogue,
    plan::{Desired, Key, Plan, plan},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    apply::{ApplyError, Drift, MANAGER_SYNC, Settings, apply},
    gather::{GatherError, by_key, desired_of, gather, live_clusters, load_files, policy_of},
    settle::{Outcome, Pending, Seen},
    source::{GitSource, Snapshot, SourceError, read_directory},
    wishes::Wishes,
};

/// Mistakes that a condition's message names.
const SHOWN: usize = 20;

/// What following Fleets needs from outside.
#[derive(Clone)]
pub struct Context {
    /// Client of the API that holds our kinds.
    pub client: Client,
    /// The providers' schemas.
    pub catalogue: Arc<Catalogue>,
    /// Folder of the bare caches, one per repository.
    pub cache: PathBuf,
    /// Name of this installation: part of commit statuses' contexts.
    pub installation: String,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of chance.
    pub random: Arc<dyn Random>,
}

/// Why a look at a Fleet came to no end.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The Secret that the Fleet names cannot be used.
    #[error("the Secret {0} has no text in key token: create it or correct spec.source.secretRef")]
    Secret(String),
    /// The API cannot be read or written.
    #[error("the API cannot be read or written: {0}")]
    Api(#[from] Box<kube::Error>),
    /// What the API holds cannot be read as a whole.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// The thread that reads the source ended.
    #[error("reading the source broke off")]
    Broken,
}

impl From<kube::Error> for FollowError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// What is known of a Fleet between looks.
pub struct Follower {
    context: Context,
    /// The Fleet as it was last seen.
    pub fleet: Fleet,
    status: FleetStatus,
    /// What the revision applied last declared.
    previous: Option<BTreeMap<Key, Value>>,
    pending: Pending,
    /// The plan of the last look was carried out as a whole.
    complete: bool,
    failed: Option<String>,
    resumed: bool,
}

/// How the condition Ready is told.
struct Ready {
    status: Status,
    reason: &'static str,
    message: String,
}

impl Follower {
    /// Begins to follow a Fleet, where its status left off.
    #[must_use]
    pub fn new(context: Context, fleet: Fleet) -> Self {
        let status = fleet.status.clone().unwrap_or_default();
        Self {
            context,
            fleet,
            status,
            previous: None,
            pending: Pending::default(),
            complete: false,
            failed: None,
            resumed: false,
        }
    }

    /// Looks at the source and applies what it says.
    ///
    /// # Errors
    /// When the source or the API cannot be read: nothing was concluded from it. It is in the Fleet's status.
    pub async fn look(&mut self, seen: &Seen) -> Result<(), FollowError> {
        if self.fleet.spec.suspend == Some(true) {
            self.tell(
                Status::Unknown,
                "Suspended",
                "suspended: nothing is applied".into(),
            )
            .await?;
            return Ok(());
        }
        match self.cycle(seen).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let reason = match &error {
                    FollowError::Source(_) | FollowError::Secret(_) => "SourceFailed",
                    _ => "Error",
                };
                let message = chain(&error);
                tracing::warn!(fleet = %self.fleet.name_any(), %message, "the source cannot be followed");
                self.tell(Status::False, reason, message).await?;
                Err(error)
            }
        }
    }

    async fn cycle(&mut self, seen: &Seen) -> Result<(), FollowError> {
        let context = self.context.clone();
        let read = self.read().await?;
        let revision = match &read {
            Ok(snapshot) => snapshot.revision.clone(),
            Err((revision, _)) => revision.clone(),
        };
        let is_new = self
            .status
            .observed
            .as_ref()
            .is_none_or(|o| o.revision != revision);
        let wishes = self.wishes();
        if is_new {
            tracing::info!(fleet = %self.fleet.name_any(), %revision, "new revision");
            if let Some(wishes) = &wishes {
                wishes
                    .want(&revision, CommitState::Pending, "looking at the commit")
                    .await?;
                wishes.supersede(&revision).await?;
            }
        }
        let tree = read.as_ref().ok().map(|s| s.tree.clone());
        let seen_at = RevisionRef {
            revision: revision.clone(),
            tree,
            time: Some(k8s_time(context.clock.now())),
        };
        if is_new {
            self.status.observed = Some(seen_at.clone());
        }
        let snapshot = match read {
            Ok(snapshot) => snapshot,
            Err((_, error)) => {
                return self
                    .refuse(&seen_at, "SourceFailed", chain(&error), 0)
                    .await;
            }
        };
        let policy = policy_of(&self.fleet);
        let allow = self.fleet.spec.allow.clone().unwrap_or_default();
        let clusters = live_clusters(&context.client).await?;
        let loaded = load_files(&snapshot.files, &context.catalogue, &allow, &clusters);
        if !loaded.errors.is_empty() {
            let count = loaded.errors.len();
            let lines: Vec<String> = loaded
                .errors
                .iter()
                .take(SHOWN)
                .map(ToString::to_string)
                .collect();
            let message = match lines.as_slice() {
                [one] => one.clone(),
                many => format!("{count} mistakes: {}", many.join("\n")),
            };
            return self.refuse(&seen_at, "LoadFailed", message, count).await;
        }
        let desired = desired_of(&loaded);
        let live = gather(&context.client, &desired, &policy).await?;
        let plan = plan(&desired, &live, &policy, &context.catalogue);
        let settings = Settings {
            revision: &revision,
            drift: self
                .fleet
                .spec
                .drift
                .as_ref()
                .and_then(|d| d.policy)
                .unwrap_or_default(),
            allow: &allow,
            previous: self.previous.as_ref(),
        };
        let applied = apply(&context.client, &plan, &desired, &live, &policy, settings).await;
        let written = applied
            .written
            .iter()
            .map(|(key, generation)| (key.clone(), Some(*generation)));
        let deleted = applied.deleted.iter().map(|key| (key.clone(), None));
        let changed: Vec<(Key, Option<i64>)> = written.chain(deleted).collect();
        let now = context.clock.now();
        self.resume(&desired, &seen_at);
        if !changed.is_empty() {
            tracing::info!(fleet = %self.fleet.name_any(), %revision, changed = changed.len(), "applied");
        }
        self.pending.add(changed, now);
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        self.status.counts = Some(FleetCounts {
            objects: count(desired.len()),
            converging: 0,
            errors: 0,
        });
        self.tell_drift(&applied.drift);
        let problems = problems(&plan, &applied.errors);
        if !problems.is_empty() {
            let refused = !applied.errors.iter().any(ApplyError::is_passing);
            let reason = if refused { "Refused" } else { "ApplyFailed" };
            return self
                .refuse(&seen_at, reason, problems.join("\n"), problems.len())
                .await;
        }
        self.previous = Some(by_key(&desired));
        if self
            .status
            .applied
            .as_ref()
            .is_none_or(|a| a.revision != revision)
        {
            self.status.applied = Some(seen_at);
        }
        (self.complete, self.failed) = (true, None);
        self.settle(seen).await
    }

    /// After a start, what an unsettled revision changed is not known: all of its objects are waited for.
    fn resume(&mut self, desired: &[Desired], seen: &RevisionRef) {
        if std::mem::replace(&mut self.resumed, true) {
            return;
        }
        let settled = self
            .status
            .settled
            .as_ref()
            .is_some_and(|s| s.tree == seen.tree);
        if !settled {
            let all = desired.iter().map(|d| (Key::of(&d.document), Some(0)));
            self.pending.add(all, self.context.clock.now());
        }
    }

    /// Tells how far the last applied revision has come.
    ///
    /// # Errors
    /// When the API cannot be written.
    pub async fn settle(&mut self, seen: &Seen) -> Result<(), FollowError> {
        let (true, Some(applied)) = (self.complete, self.status.applied.clone()) else {
            return Ok(());
        };
        let now = self.context.clock.now();
        let deadline = self
            .fleet
            .spec
            .progress_deadline_seconds
            .unwrap_or(DEFAULT_PROGRESS_DEADLINE_SECONDS);
        let outcome = self.pending.look(seen, now, i64::from(deadline));
        let (state, ready) = told(&outcome);
        if let Some(counts) = &mut self.status.counts {
            counts.converging = match &outcome {
                Outcome::Pending(count, _) => i32::try_from(*count).unwrap_or(i32::MAX),
                _ => 0,
            };
        }
        let was = self
            .status
            .settled
            .as_ref()
            .is_some_and(|s| s.revision == applied.revision);
        if state != CommitState::Pending && !was {
            self.status.settled = Some(RevisionRef {
                time: Some(k8s_time(now)),
                ..applied.clone()
            });
        }
        if matches!(outcome, Outcome::Success(_)) && !was {
            tracing::info!(fleet = %self.fleet.name_any(), revision = %applied.revision, outcome = %ready.message, "settled");
            self.pending = Pending::default();
        }
        // A commit that has ended well says so for ever; later drift is not its fault.
        let ended_well = was && matches!(outcome, Outcome::Success(0));
        if let Some(wishes) = self.wishes().filter(|_| !ended_well) {
            let description = if state == CommitState::Pending {
                "applied, converging"
            } else {
                &ready.message
            };
            wishes.want(&applied.revision, state, description).await?;
        }
        if ended_well && condition::is_true(&self.status.conditions, kind::READY) {
            return self.write().await;
        }
        self.tell(ready.status, ready.reason, ready.message).await
    }

    /// The revision is at fault, or the API: says so, and changes nothing.
    async fn refuse(
        &mut self,
        at: &RevisionRef,
        reason: &'static str,
        message: String,
        errors: usize,
    ) -> Result<(), FollowError> {
        self.complete = false;
        if self.failed.as_ref() != Some(&message) {
            tracing::warn!(fleet = %self.fleet.name_any(), revision = %at.revision, reason, "{message}");
            self.failed = Some(message.clone());
        }
        if let Some(wishes) = self.wishes() {
            let ours = reason == "ApplyFailed";
            let state = if ours {
                CommitState::Error
            } else {
                CommitState::Failure
            };
            wishes.want(&at.revision, state, &message).await?;
        }
        self.status.settled = Some(at.clone())
            .filter(|_| reason != "ApplyFailed")
            .or_else(|| self.status.settled.clone());
        let mut counts = self.status.counts.clone().unwrap_or_default();
        counts.errors = i32::try_from(errors).unwrap_or(i32::MAX);
        self.status.counts = Some(counts);
        self.tell(Status::False, reason, message).await
    }

    fn wishes(&self) -> Option<Wishes> {
        // A directory has no commits to put a status on.
        self.fleet.spec.source.url.as_ref()?;
        Wishes::of(
            &self.context.client,
            &self.fleet,
            &self.context.installation,
        )
    }

    fn tell_drift(&mut self, drift: &[Drift]) {
        let (status, reason, message) = if drift.is_empty() {
            (Status::True, "InSync", String::new())
        } else {
            let lines: Vec<String> = drift.iter().map(ToString::to_string).collect();
            (
                Status::False,
                "Drifted",
                format!("kept as others set it: {}", lines.join("; ")),
            )
        };
        let now = self.context.clock.now();
        let generation = self.fleet.metadata.generation;
        condition::set(
            &mut self.status.conditions,
            kind::IN_SYNC,
            status,
            reason,
            message,
            generation,
            now,
        );
    }

    async fn tell(
        &mut self,
        status: Status,
        reason: &str,
        message: String,
    ) -> Result<(), FollowError> {
        let now = self.context.clock.now();
        let generation = self.fleet.metadata.generation;
        let short: String = message.chars().take(8000).collect();
        condition::set(
            &mut self.status.conditions,
            kind::READY,
            status,
            reason,
            short,
            generation,
            now,
        );
        self.write().await
    }

    async fn write(&mut self) -> Result<(), FollowError> {
        self.status.observed_generation = self.fleet.metadata.generation;
        if self.fleet.status.as_ref() == Some(&self.status) {
            return Ok(());
        }
        let api = Api::<Fleet>::namespaced(
            self.context.client.clone(),
            &self.fleet.namespace().unwrap_or_default(),
        );
        let patch = Patch::Merge(json!({"status": self.status}));
        api.patch_status(
            &self.fleet.name_any(),
            &PatchParams::apply(MANAGER_SYNC),
            &patch,
        )
        .await?;
        self.fleet.status = Some(self.status.clone());
        Ok(())
    }

    /// Reads the source. The inner error is about a revision that is known.
    async fn read(&self) -> Result<Result<Snapshot, (String, SourceError)>, FollowError> {
        let source = self.fleet.spec.source.clone();
        let path = source.path.clone().unwrap_or_default();
        let Some(url) = source.url.clone() else {
            let directory = PathBuf::from(source.directory.clone().unwrap_or_default());
            let read = move || stable(&directory, &path);
            return Ok(Ok(tokio::task::spawn_blocking(read)
                .await
                .map_err(|_| FollowError::Broken)??));
        };
        let token = self.token().await?;
        let cache = self.context.cache.join(short_hash([url.as_str()], 20));
        let git = GitSource {
            cache,
            url,
            username: None,
            token,
        };
        let reference = source.reference.clone().unwrap_or_default();
        let read = move || {
            let commit = git.resolve(&reference)?;
            Ok::<_, SourceError>(match git.snapshot(commit, &path) {
                Ok(snapshot) => Ok(snapshot),
                // The commit is there; what it lacks is its own fault.
                Err(error) if error.is_lasting() => Err((commit.to_string(), error)),
                Err(error) => return Err(error),
            })
        };
        Ok(tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| FollowError::Broken)??)
    }

    async fn token(&self) -> Result<Option<SecretText>, FollowError> {
        let Some(reference) = &self.fleet.spec.source.secret_ref else {
            return Ok(None);
        };
        let namespace = self.fleet.namespace().unwrap_or_default();
        let secret = Api::<Secret>::namespaced(self.context.client.clone(), &namespace)
            .get_opt(&reference.name)
            .await?;
        let data = secret.and_then(|s| s.data).unwrap_or_default();
        let text = data
            .get("token")
            .or_else(|| data.get("password"))
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
        match text.map(str::trim_end).filter(|t| !t.is_empty()) {
            Some(text) => Ok(Some(SecretText::new(text))),
            None => Err(FollowError::Secret(format!(
                "{namespace}/{}",
                reference.name
            ))),
        }
    }
}

/// How an outcome is told, to the forge and in the condition Ready.
fn told(outcome: &Outcome) -> (CommitState, Ready) {
    let (state, status, reason, message) = match outcome {
        Outcome::Pending(count, words) => {
            let message = format!("{count} converging: {words}");
            (CommitState::Pending, Status::True, "Converging", message)
        }
        Outcome::Success(count) => {
            let message = match count {
                0 => "no changes".to_owned(),
                1 => "1 object converged".to_owned(),
                n => format!("{n} objects converged"),
            };
            (CommitState::Success, Status::True, "Converged", message)
        }
        Outcome::Failure(why) => {
            let why = why.clone();
            (CommitState::Failure, Status::False, "NotConverging", why)
        }
    };
    let ready = Ready {
        status,
        reason,
        message,
    };
    (state, ready)
}

/// Reads a directory until two reads are the same: an editor may be half way through its writing.
fn stable(directory: &std::path::Path, path: &str) -> Result<Snapshot, SourceError> {
    let mut last = read_directory(directory, path)?;
    for _ in 0..10 {
        let next = read_directory(directory, path)?;
        if next.tree == last.tree {
            break;
        }
        last = next;
    }
    Ok(last)
}

/// What stands in the way of the whole plan, a line each.
fn problems(plan: &Plan, errors: &[ApplyError]) -> Vec<String> {
    let refused = plan
        .refused
        .iter()
        .map(|r| format!("{}: {}", r.key, r.reason));
    refused
        .chain(errors.iter().map(ApplyError::text))
        .take(SHOWN)
        .collect()
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
