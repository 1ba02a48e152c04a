//! Follows one Fleet: looks at its source, plans, applies, and tells how far the commit has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fleetwright_api::{
    Fleet,
    commit_status::CommitState,
    condition::{self, Status, kind},
    fleet::{
        DEFAULT_CLUSTER_STATUSES, DEFAULT_PROGRESS_DEADLINE_SECONDS, FleetCounts, RevisionRef,
    },
    random::Random,
    time::{Clock, k8s_time},
};
use fleetwright_core::{
    catalogue::Catalogue,
    plan::{Key, plan},
    waves::Places,
};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::{
    apply::{ApplyError, Settings, apply},
    gather::{GatherError, gather, live_clusters, policy_of},
    load::dangling,
    progress::{ClusterName, Spoken, Told},
    read::{Declared, ReadError, Reader, Repositories},
    settle::{Outcome, Pending, Seen},
    source::{AppTokens, Caches},
    staging::Staging,
    tell::{NOT_CONVERGING, Ready, Telling, chain, mistakes, problems, some, told},
    wishes::{About, Wishes},
};

/// What following Fleets needs from outside.
#[derive(Clone)]
pub struct Context {
    /// Client of the API that holds our kinds.
    pub client: Client,
    /// The providers' schemas.
    pub catalogue: Arc<Catalogue>,
    /// The bare caches, one per repository and credentials.
    pub cache: Caches,
    /// Who makes tokens of GitHub Apps, for Secrets that name one.
    pub tokens: Option<Arc<dyn AppTokens>>,
    /// Repositories in memory, in their place.
    pub repositories: Option<Arc<dyn Repositories>>,
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
    Read(#[from] ReadError),
    /// The API cannot be read or written.
    #[error("the API cannot be read or written: {0}")]
    Api(#[from] Box<kube::Error>),
    /// What the API holds cannot be read as a whole.
    #[error(transparent)]
    Gather(#[from] GatherError),
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
    reader: Reader,
    telling: Telling,
    /// What the revision applied last declared.
    previous: Option<Arc<Declared>>,
    /// What the revision declares that was begun last.
    begun: Option<Arc<Declared>>,
    pending: Pending,
    /// What an earlier look may have written without knowing it: it is waited for as it is found.
    doubtful: BTreeSet<Key>,
    /// The revision whose plan the last look carried out, as far as waves and windows let it.
    carried: Option<RevisionRef>,
    /// What of it waits.
    staging: Staging,
    /// What it waited for has come.
    again: bool,
    spoken: Spoken,
    failed: Option<String>,
    /// What may be left to wait for from before the start: nothing, when the settled tree had converged.
    unsettled: Unsettled,
}

/// What an earlier process may have left unsettled.
enum Unsettled {
    /// Everything but this tree.
    Except(Option<String>),
    /// Nothing is left over.
    Nothing,
}

impl Follower {
    /// Begins to follow a Fleet, where its status left off.
    #[must_use]
    pub fn new(context: Context, fleet: Fleet) -> Self {
        let (client, catalogue) = (context.client.clone(), Arc::clone(&context.catalogue));
        Self {
            reader: Reader::new(client, catalogue, context.cache.clone())
                .over(context.repositories.clone())
                .with_tokens(context.tokens.clone()),
            telling: Telling::of(&fleet),
            unsettled: Unsettled::before(&fleet),
            context,
            fleet,
            previous: None,
            begun: None,
            pending: Pending::default(),
            doubtful: BTreeSet::new(),
            carried: None,
            staging: Staging::default(),
            again: false,
            spoken: Spoken::default(),
            failed: None,
        }
    }

    /// Looks at the source and applies what it says. Gives whether that is done with, until something changes.
    ///
    /// # Errors
    /// When the source or the API cannot be read: nothing was concluded from it. It is in the Fleet's status.
    pub async fn look(&mut self, seen: &Seen) -> Result<bool, FollowError> {
        if self.fleet.spec.suspend == Some(true) {
            let message = "suspended: nothing is applied".into();
            self.tell(Status::Unknown, "Suspended", message).await?;
            return Ok(true);
        }
        let error = match self.cycle(seen).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let reason = match &error {
            FollowError::Read(_) => "SourceFailed",
            _ => "Error",
        };
        let message = chain(&error);
        tracing::warn!(fleet = %self.fleet.name_any(), %message, "the source cannot be followed");
        let now = self.context.clock.now();
        self.telling.unknown_drift(&self.fleet, now);
        self.tell(Status::False, reason, message).await?;
        Err(error)
    }

    async fn cycle(&mut self, seen: &Seen) -> Result<bool, FollowError> {
        self.again = false;
        let context = self.context.clone();
        let now = context.clock.now();
        let found = self.reader.find(&self.fleet, now).await?;
        let revision = found.revision;
        let at = RevisionRef {
            revision: revision.clone(),
            tree: found.tree.as_ref().ok().map(|tree| tree.id()),
            time: Some(k8s_time(context.clock.now())),
        };
        self.observe(&at).await?;
        #[cfg(feature = "seeded-bugs")]
        if fleetwright_api::bugs::on("end-status-told-anew") {
            self.telling.status.observed = Some(at.clone());
        }
        let allow = self.fleet.spec.allow.clone().unwrap_or_default();
        let declared = match found.tree {
            Ok(tree) => self.reader.declared(tree, &allow).await,
            Err(error) => Err(error.into()),
        };
        let declared = match declared {
            Err(ReadError::Source(error)) if error.is_lasting() => {
                self.refuse(&at, "SourceFailed", chain(&error), 0).await?;
                return Ok(true);
            }
            declared => declared?,
        };
        let mut errors = declared.errors.clone();
        if !declared.outside.is_empty() {
            let live = live_clusters(&context.client).await?;
            errors.extend(dangling(&declared.outside, &live));
        }
        #[cfg(feature = "seeded-bugs")]
        if fleetwright_api::bugs::on("i7-mistakes-left-out") {
            errors.clear();
        }
        if !errors.is_empty() {
            let message = mistakes(&errors);
            self.refuse(&at, "LoadFailed", message, errors.len())
                .await?;
            return Ok(true);
        }
        let desired = &declared.desired;
        let policy = policy_of(&self.fleet);
        let live = gather(&context.client, desired, &policy).await?;
        let before = self.previous.clone();
        let previous = before.as_ref().map(|d| &d.documents);
        let mut plan = plan(desired, previous, &live, &policy, &context.catalogue);
        let waves = policy.waves();
        let stage = plan.stage(&policy, &self.telling.status.waves, now);
        let part = (!waves.is_empty()).then(|| plan.part(&policy, &stage));
        let begun = part.as_ref().unwrap_or(&plan);
        // First, so that nothing fails between what is applied and its being waited for.
        let held = plan.held(&policy, &stage);
        self.resume(&declared, &held, &live.objects, &at).await?;
        if Staging::begin(waves, &mut self.telling.status.waves, begun, now) {
            self.write().await?;
        }
        self.begun = Some(Arc::clone(&declared));
        let settings = Settings {
            revision: &revision,
            allow: &allow,
            previous,
        };
        let applied = apply(&context.client, begun, desired, &live, &policy, settings).await;
        let written = applied.written.iter();
        let written = written.map(|(key, generation)| (key.clone(), Some(*generation)));
        let deleted = applied.deleted.iter().map(|key| (key.clone(), None));
        let doubtful = std::mem::replace(&mut self.doubtful, applied.doubtful);
        let doubtful = doubtful.into_iter().map(|key| {
            // What was to be deleted is waited for until it is gone.
            let declared = declared.documents.contains_key(&key);
            let mut objects = live.objects.iter().filter(|_| declared);
            let found = objects.find(|object| Key::of(object) == key);
            let generation = found.and_then(|o| o.pointer("/metadata/generation")?.as_i64());
            (key, generation)
        });
        let changed: Vec<(Key, Option<i64>)> = doubtful.chain(written).chain(deleted).collect();
        let now = context.clock.now();
        if !changed.is_empty() {
            tracing::info!(fleet = %self.fleet.name_any(), %revision, changed = changed.len(), "applied");
        }
        self.pending.add(changed, now);
        self.telling.status.counts = Some(FleetCounts {
            objects: count(desired.len()),
            converging: 0,
            errors: 0,
        });
        self.telling.drift(&self.fleet, &applied.drift, now);
        let problems = problems(&plan, &applied.errors);
        if !problems.is_empty() {
            let refused = !applied.errors.iter().any(ApplyError::is_passing);
            let reason = if refused { "Refused" } else { "ApplyFailed" };
            let message = some(&problems, "\n");
            self.refuse(&at, reason, message, problems.len()).await?;
            return Ok(false);
        }
        let places = match policy.waves.is_empty() {
            true => Places::default(),
            false => waves.places(desired, &live.objects),
        };
        self.staging = Staging::of(places, &plan);
        // What waits is still this revision's change when it is made.
        if self.staging.hold().is_none() {
            self.previous = Some(declared);
            let before = self.telling.status.applied.as_ref();
            if before.is_none_or(|a| a.revision != revision) {
                self.telling.status.applied = Some(at.clone());
            }
        }
        (self.carried, self.failed) = (Some(at), None);
        self.settle(seen).await?;
        Ok(true)
    }

    /// A revision is seen: if it is another than before, its status is pending, and what was pending is superseded.
    async fn observe(&mut self, at: &RevisionRef) -> Result<(), FollowError> {
        let before = self.telling.status.observed.as_ref();
        if before.is_some_and(|o| o.revision == at.revision) {
            return Ok(());
        }
        tracing::info!(fleet = %self.fleet.name_any(), revision = at.revision, "new revision");
        if let Some(wishes) = self.wishes() {
            let words = "looking at the commit";
            wishes
                .want(About::Fleet, &at.revision, CommitState::Pending, words)
                .await?;
            wishes.supersede(&at.revision).await?;
        }
        self.telling.status.observed = Some(at.clone());
        Ok(())
    }

    /// After a start, what an unsettled revision changed is not known: all of its objects that may be there are waited for, and ours that are on
    /// their way out. So they are where the revision has not been called a success: it may take back what an unsettled one began.
    async fn resume(
        &mut self,
        declared: &Declared,
        held: &BTreeSet<&Key>,
        live: &[Value],
        at: &RevisionRef,
    ) -> Result<(), FollowError> {
        let Unsettled::Except(tree) = &self.unsettled else {
            return Ok(());
        };
        let told = match self.wishes() {
            Some(wishes) => wishes.state(&at.revision).await?,
            None => None,
        };
        let ended = told.is_none_or(|state| state == CommitState::Success);
        if tree.is_none() || *tree != at.tree || !ended {
            let all = declared.documents.keys();
            let all = all.filter(|key| !held.contains(key));
            let all = all.map(|key| (key.clone(), Some(0)));
            let leaving = live
                .iter()
                .filter(|object| object.pointer("/metadata/deletionTimestamp").is_some())
                .map(Key::of)
                .filter(|key| !declared.documents.contains_key(key))
                .map(|key| (key, None));
            self.pending
                .add(all.chain(leaving), self.context.clock.now());
        }
        self.unsettled = Unsettled::Nothing;
        Ok(())
    }

    /// Tells how far the last applied revision has come.
    ///
    /// # Errors
    /// When the API cannot be written.
    pub async fn settle(&mut self, seen: &Seen) -> Result<(), FollowError> {
        let now = self.context.clock.now();
        let Some(applied) = self.carried.clone() else {
            // What it did before it failed goes on.
            let observed = self.telling.status.observed.as_ref();
            if let (Some(wishes), Some(observed)) = (self.wishes(), observed.cloned()) {
                let mut pending = self.pending.clone();
                pending.look(seen, now, self.deadline());
                let clusters = pending.by_cluster(seen, self.documents());
                self.tell_clusters(&wishes, &observed.revision, clusters)
                    .await?;
            }
            return Ok(());
        };
        let mut outcome = self.pending.look(seen, now, self.deadline());
        let policy = policy_of(&self.fleet);
        let states = &mut self.telling.status.waves;
        let passed = self
            .staging
            .advance(policy.waves(), states, (seen, &self.pending), now);
        if let Some(hold) = self.staging.hold() {
            self.again |= passed || hold.until.is_some_and(|until| until <= now);
            outcome = match outcome {
                Outcome::Success(_) => Outcome::Waiting(hold.to_string()),
                Outcome::Failure(why) => Outcome::Failure(format!("{why}; {hold}")),
                other => other,
            };
        }
        let (state, ready) = told(&outcome);
        let status = &mut self.telling.status;
        if let Some(counts) = &mut status.counts {
            counts.converging = match &outcome {
                Outcome::Pending(n, _) => count(*n),
                _ => 0,
            };
        }
        let settled = status.settled.as_ref();
        let was = settled.is_some_and(|s| s.revision == applied.revision);
        // A commit that has ended well says so for ever; later drift is not its fault. One that another took the place of has
        // ended too, also where the other cannot be carried out.
        let ended_well = was && matches!(outcome, Outcome::Success(0));
        let observed = status.observed.as_ref();
        let newest = observed.is_none_or(|o| o.revision == applied.revision);
        if let Some(wishes) = self.wishes().filter(|_| newest && !ended_well) {
            let sha = &applied.revision;
            let clusters = self.pending.by_cluster(seen, self.documents());
            self.tell_clusters(&wishes, sha, clusters.clone()).await?;
            let description = match outcome {
                Outcome::Pending(..) => self.spoken.words(sha, &self.pending.progress(seen)),
                _ => ready.message.clone(),
            };
            if state != CommitState::Pending && !was {
                wishes.finish(sha, &clusters).await?;
            }
            wishes.want(About::Fleet, sha, state, &description).await?;
        }
        // After it was told: what is settled is not told again.
        if state != CommitState::Pending && !was {
            self.telling.status.settled = Some(RevisionRef {
                time: Some(k8s_time(now)),
                ..applied.clone()
            });
        }
        if let Outcome::Success(1..) = outcome {
            tracing::info!(fleet = %self.fleet.name_any(), revision = applied.revision, outcome = ready.message, "settled");
            self.pending = Pending::default();
        }
        if ended_well && condition::is_true(&self.telling.status.conditions, kind::READY) {
            return self.write().await;
        }
        self.tell(ready.status, ready.reason, ready.message).await
    }

    /// Whether what waited may be made now, which wants another look. Asked twice, it is told once.
    pub fn wants_look(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// When the progress deadline is reached or a wave goes on, if nothing happens until then.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.carried.as_ref()?;
        let policy = policy_of(&self.fleet);
        let staged = self.staging.due(policy.waves(), &self.telling.status.waves);
        let due = self.pending.due(self.deadline()).into_iter();
        let due = due.chain(staged).min()?;
        let left = due.duration_since(self.context.clock.now());
        Duration::try_from(left).ok()
    }

    fn deadline(&self) -> i64 {
        let seconds = self.fleet.spec.progress_deadline_seconds;
        i64::from(seconds.unwrap_or(DEFAULT_PROGRESS_DEADLINE_SECONDS))
    }

    /// The revision is at fault, or the API: says so, and changes nothing.
    async fn refuse(
        &mut self,
        at: &RevisionRef,
        reason: &'static str,
        message: String,
        errors: usize,
    ) -> Result<(), FollowError> {
        self.carried = None;
        if self.failed.as_ref() != Some(&message) {
            tracing::warn!(fleet = %self.fleet.name_any(), revision = %at.revision, reason, "{message}");
            self.failed = Some(message.clone());
        }
        let ours = reason == "ApplyFailed";
        if let Some(wishes) = self.wishes() {
            let state = match ours {
                true => CommitState::Error,
                false => CommitState::Failure,
            };
            wishes
                .want(About::Fleet, &at.revision, state, &message)
                .await?;
        }
        let status = &mut self.telling.status;
        if !ours {
            status.settled = Some(at.clone());
        }
        status.counts.get_or_insert_default().errors = count(errors);
        self.tell(Status::False, reason, message).await
    }

    /// The documents of the revision that was begun last.
    fn documents(&self) -> &BTreeMap<Key, Value> {
        static NONE: BTreeMap<Key, Value> = BTreeMap::new();
        self.begun.as_ref().map_or(&NONE, |begun| &begun.documents)
    }

    /// Tells of single clusters what is news.
    async fn tell_clusters(
        &mut self,
        wishes: &Wishes,
        sha: &str,
        clusters: BTreeMap<ClusterName, Told>,
    ) -> Result<(), FollowError> {
        let forge = self.fleet.spec.forge.as_ref();
        let most = forge.and_then(|forge| forge.cluster_statuses);
        let most = usize::try_from(most.unwrap_or(DEFAULT_CLUSTER_STATUSES)).unwrap_or(0);
        for (cluster, (state, words)) in self.spoken.news(sha, clusters, most) {
            let about = About::Cluster(&cluster);
            wishes.want(about, sha, state, &words).await?;
            self.spoken.said(sha, cluster, (state, words));
        }
        Ok(())
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

    async fn tell(
        &mut self,
        status: Status,
        reason: &'static str,
        message: String,
    ) -> Result<(), FollowError> {
        let ready = Ready {
            status,
            reason,
            message,
        };
        let now = self.context.clock.now();
        self.telling.ready(&self.fleet, ready, now);
        self.write().await
    }

    async fn write(&mut self) -> Result<(), FollowError> {
        let client = &self.context.client;
        Ok(self.telling.write(client, &mut self.fleet).await?)
    }
}

impl Unsettled {
    fn before(fleet: &Fleet) -> Self {
        let Some(status) = &fleet.status else {
            return Self::Except(None);
        };
        let ready = condition::get(&status.conditions, kind::READY);
        // What failed may have converged meanwhile: then its status turns.
        let settled = status
            .settled
            .as_ref()
            .filter(|_| ready.is_none_or(|c| c.reason != NOT_CONVERGING));
        Self::Except(settled.and_then(|s| s.tree.clone()))
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
