//! Follows one Fleet: looks at its source, plans, applies, and tells how far the commit has come.

use std::{collections::BTreeSet, sync::Arc};

use fleetwright_api::{
    Fleet,
    commit_status::CommitState,
    condition::{self, Status, kind},
    decision::{Trail, Verdict},
    fleet::{Allow, FleetCounts, RevisionRef},
    random::Random,
    time::{Clock, k8s_time},
};
use fleetwright_core::{
    catalogue::Catalogue,
    plan::{Key, plan},
    waves::Places,
};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    apply::{ApplyError, Settings, apply},
    depends::{Fleets, waits_for},
    gather::{GatherError, gather, live_clusters, policy_of},
    health::Debounce,
    held::held,
    load::dangling,
    metrics::{FleetMetrics, Metrics, Stage},
    progress::Spoken,
    read::{Declared, ReadError, Reader, Repositories, Tree},
    settle::{Pending, Seen},
    source::{AppTokens, Caches},
    staging::Staging,
    tell::{NOT_CONVERGING, Telling, chain, mistakes, problems, some},
    wishes::About,
};

mod held;
mod leaving;
mod settling;
mod trail;

use trail::Done;

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
    /// Where decisions are written down.
    pub trail: Trail,
    /// Where durations go.
    pub metrics: Metrics,
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
    metrics: FleetMetrics,
    /// The Fleet as it was last seen.
    pub fleet: Fleet,
    /// All Fleets, as they were last seen.
    pub others: Arc<Fleets>,
    /// What it waits for of others.
    waits: Waits,
    /// Its objects go, and it after them.
    going: bool,
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
    health: Debounce,
    failed: Option<String>,
    /// What was written down last: verdict, the Fleet's generation, revision and reason.
    decided: Option<(Verdict, Option<i64>, String, String)>,
    /// What may be left to wait for from before the start: nothing, when the settled tree had converged.
    unsettled: Unsettled,
}

/// What a Fleet waits for of other Fleets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Nothing.
    Nothing,
    /// That one of them gets further.
    Progress,
    /// That one is deleted to which an object belongs that this one declares.
    Deletion,
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
            metrics: context.metrics.of(&fleet),
            telling: Telling::of(&fleet),
            unsettled: Unsettled::before(&fleet),
            context,
            fleet,
            others: Arc::default(),
            waits: Waits::Nothing,
            going: false,
            previous: None,
            begun: None,
            pending: Pending::default(),
            doubtful: BTreeSet::new(),
            carried: None,
            staging: Staging::default(),
            again: false,
            spoken: Spoken::default(),
            health: Debounce::default(),
            failed: None,
            decided: None,
        }
    }

    /// Looks at the source and applies what it says. Gives whether that is done with, until something changes.
    ///
    /// # Errors
    /// When the source or the API cannot be read: nothing was concluded from it. It is in the Fleet's status.
    pub async fn look(&mut self, seen: &Seen) -> Result<bool, FollowError> {
        let error = match self.follow(seen).await {
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

    async fn follow(&mut self, seen: &Seen) -> Result<bool, FollowError> {
        (self.again, self.waits) = (false, Waits::Nothing);
        if let Some(done) = self.leave().await? {
            return Ok(done);
        }
        if self.fleet.spec.suspend == Some(true) {
            let message = "suspended: nothing is applied".into();
            self.tell(Status::Unknown, "Suspended", message).await?;
            return Ok(true);
        }
        let done = self.cycle(seen).await?;
        if done {
            self.metrics.looked(self.context.clock.now());
        }
        Ok(done)
    }

    async fn cycle(&mut self, seen: &Seen) -> Result<bool, FollowError> {
        let context = self.context.clone();
        let now = context.clock.now();
        let found = self.reader.find(&self.fleet, now);
        let found = self.metrics.stage(Stage::Fetch, found).await?;
        let found = self.wanted(found).await?;
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
        if let Some(why) = waits_for(&self.fleet, &self.others) {
            (self.waits, self.carried) = (Waits::Progress, None);
            if let Some(wishes) = self.wishes() {
                let state = CommitState::Pending;
                wishes.want(About::Fleet, &revision, state, &why).await?;
            }
            self.decided(Some(&at), Verdict::Held, &why, None);
            self.tell(Status::False, "DependencyNotReady", why).await?;
            return Ok(true);
        }
        let allow = self.fleet.spec.allow.clone().unwrap_or_default();
        let declared = match found.tree {
            Ok(tree) => {
                self.remember(&tree, &allow).await?;
                let declared = self.reader.declared(tree, &allow);
                self.metrics.stage(Stage::Load, declared).await
            }
            Err(error) => Err(error.into()),
        };
        let declared = match declared {
            Err(ReadError::Source(error)) if error.is_lasting() => {
                let message = chain(&error);
                self.decided(Some(&at), Verdict::Refused, &message, None);
                self.refuse(&at, "SourceFailed", message, 0).await?;
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
            self.decided(Some(&at), Verdict::Refused, &message, None);
            self.refuse(&at, "LoadFailed", message, errors.len())
                .await?;
            return Ok(true);
        }
        let desired = &declared.desired;
        let policy = policy_of(&self.fleet);
        let live = gather(&context.client, desired, &policy);
        let live = self.metrics.stage(Stage::Gather, live).await?;
        if self.is_held_by_others(desired, &live) {
            self.waits = Waits::Deletion;
        }
        let before = self.previous.clone();
        let previous = before.as_ref().map(|d| &d.documents);
        let planning = Instant::now();
        let mut plan = plan(desired, previous, &live, &policy, &context.catalogue);
        self.metrics.took(Stage::Plan, planning, true);
        if !self.is_as_planned().await? {
            return Ok(true);
        }
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
        let applying = Instant::now();
        let applied = apply(&context.client, begun, desired, &live, &policy, settings).await;
        let well = applied.errors.is_empty();
        self.metrics.took(Stage::Apply, applying, well);
        let problems = problems(&plan, &applied.errors);
        let waits = plan.waves.iter().find_map(|wave| wave.hold.as_ref());
        let (verdict, reason) = match waits {
            _ if !applied.errors.is_empty() => (Verdict::Failed, some(&problems, "\n")),
            _ if !problems.is_empty() => (Verdict::Refused, some(&problems, "\n")),
            Some(hold) => (Verdict::Held, hold.to_string()),
            None => (Verdict::Applied, String::new()),
        };
        let done = Done {
            plan: &plan,
            policy: &policy,
            live: &live,
            applied: &applied,
        };
        self.decided(Some(&at), verdict, &reason, Some(&done));
        let written = applied.written.iter();
        // What has no generation has nothing to converge.
        let written =
            written.filter_map(|(key, generation)| Some((key.clone(), Some((*generation)?))));
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
        self.staging = Staging::of(places, &plan, &policy, &stage);
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

    /// After a start, what was applied last is read again: what differs from that is this revision's change, whoever holds the field.
    async fn remember(&mut self, now: &Tree, allow: &Allow) -> Result<(), ReadError> {
        let applied = self.telling.status.applied.as_ref();
        let tree = applied.and_then(|applied| applied.tree.as_deref());
        if let (None, Some(tree)) = (&self.previous, tree) {
            let (reader, fleet) = (&mut self.reader, &self.fleet);
            self.previous = reader.declared_before(fleet, now, tree, allow).await?;
        }
        Ok(())
    }

    /// Whether the Fleet is still as this plan found it: what it allows then is what holds. If it is another by now, the next look
    /// begins with that.
    async fn is_as_planned(&mut self) -> Result<bool, FollowError> {
        let namespace = self.fleet.namespace().unwrap_or_default();
        let fleets = Api::<Fleet>::namespaced(self.context.client.clone(), &namespace);
        let Some(now) = fleets.get_opt(&self.fleet.name_any()).await? else {
            return Ok(false);
        };
        let same = |f: &Fleet| {
            let meta = &f.metadata;
            let leaves = meta.deletion_timestamp.is_some();
            (meta.uid.clone(), meta.generation, leaves)
        };
        let same = same(&now) == same(&self.fleet);
        if !same {
            (self.fleet, self.again) = (now, true);
        }
        Ok(same)
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
        if held(&self.fleet).is_some_and(|held| held.head == at.revision) {
            // That it was begun must be known before anything of it is applied.
            self.write().await?;
        }
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
